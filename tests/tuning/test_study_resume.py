"""Opening the trial store of a search that another process has started."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from tests.tuning.factories import epoch_report, recipe, start_trial, trial_store
from tests.tuning.study_helpers import best_trial, read_journal, run_trial
from tuning.search.samplers import INFRASTRUCTURE_FAILURE


def test_a_reopened_store_has_all_trials(tmp_path: Path) -> None:
    before = trial_store(tmp_path)
    complete, pruned = run_trial(before, 0.9), run_trial(before, 0.3, "pruned")
    failed = run_trial(before, None, "failed")
    after = trial_store(tmp_path)
    assert after.trials() == before.trials() == (complete, pruned, failed)
    assert (after.running(), after.interrupted()) == ((), ())
    assert best_trial(after) == complete


def test_an_interrupted_trial_comes_first_and_keeps_its_epochs(tmp_path: Path) -> None:
    before = trial_store(tmp_path)
    uid = start_trial(before).trial_uid
    before.report(uid, epoch_report(1, 0.5))
    before.report(uid, epoch_report(2, 0.7))
    after = trial_store(tmp_path)
    (interrupted,) = after.interrupted()
    restarted = after.start(interrupted)
    assert restarted == interrupted.model_copy(update={"started_s": restarted.started_s})
    assert (restarted.started_s or 0) > (interrupted.started_s or 0) > 0
    assert (after.num_running, after.interrupted()) == (1, ())
    assert (interrupted.trial_uid, interrupted.epochs, interrupted.score, interrupted.best_epoch) == (uid, 2, 0.7, 2)
    assert interrupted.runtime_info == {"freeze_depth": 9, "blocks": 18}
    after.report(uid, epoch_report(3, 0.6))
    after.finish(uid, "complete", "ran to its end")
    (trial,) = read_journal(tmp_path)
    assert trial.intermediate_values == {1: 0.5, 2: 0.7, 3: 0.6}
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)


def test_a_resumed_search_proposes_the_same_trials_as_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    uninterrupted = trial_store(tmp_path / "a")
    scores = (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9)
    expected = [run_trial(uninterrupted, score).settings for score in scores]
    assert [run_trial(trial_store(tmp_path / "b"), score).settings for score in scores] == expected


def test_a_resumed_search_continues_its_phases_with_the_trials_that_have_not_started(tmp_path: Path) -> None:
    with_probes = recipe(max_epochs=4, sweep="on", image_size="32,64")
    before = trial_store(tmp_path, with_probes)
    started = [start_trial(before, with_probes) for _ in range(3)]
    assert [trial.origin for trial in started] == ["probe", "probe", "default"]
    after = trial_store(tmp_path, with_probes)
    assert after.interrupted() == tuple(started)
    restarted = [start_trial(after, with_probes) for _ in range(4)]
    assert [trial.trial_uid for trial in restarted[:3]] == [trial.trial_uid for trial in started]
    assert restarted[3].origin == "probe"
    assert restarted[3].fixed_params not in [trial.fixed_params for trial in started]


def test_incomplete_writes_of_a_killed_process_are_repaired(tmp_path: Path) -> None:
    """Killed between the two writes that end a trial, and between the two that create one."""
    store = trial_store(tmp_path)
    ended, started = start_trial(store), start_trial(store)
    store.report(ended.trial_uid, epoch_report(1, 0.6))
    store._save(store.get(ended.trial_uid).model_copy(update={"status": "complete"}))
    store._study.enqueue_trial({"lr": 1e-3})
    store._study.ask()
    store._study.enqueue_trial({"lr": 1e-3})
    after = trial_store(tmp_path)
    assert [(trial.trial_uid, trial.status) for trial in after.trials()] == [
        (ended.trial_uid, "complete"),
        (started.trial_uid, "running"),
    ]
    states = [trial.state for trial in read_journal(tmp_path)]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]
    discarded = read_journal(tmp_path)[2:]  # their settings caused no failure, so the sampler must not avoid them
    assert all(trial.user_attrs == {INFRASTRUCTURE_FAILURE: True} for trial in discarded)
    assert start_trial(after).trial_uid == started.trial_uid
