"""Opening the trial store of a search that another process has started."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from tests.tuning.factories import epoch_report, recipe, trial_store
from tests.tuning.study_helpers import best_trial, read_journal, run_trial


def test_a_reopened_store_has_all_trials(tmp_path: Path) -> None:
    before = trial_store(tmp_path)
    complete, pruned = run_trial(before, 0.9), run_trial(before, 0.3, "pruned")
    failed = run_trial(before, None, "failed")
    after = trial_store(tmp_path)
    assert after.trials() == before.trials() == (complete, pruned, failed)
    assert (after.num_trials, after.running(), after.num_requeued) == (3, (), 0)
    assert best_trial(after) == complete


def test_an_interrupted_trial_comes_first_and_keeps_its_epochs(tmp_path: Path) -> None:
    before = trial_store(tmp_path)
    uid = before.ask().trial_uid
    before.report(uid, epoch_report(1, 0.5))
    before.report(uid, epoch_report(2, 0.7))
    after = trial_store(tmp_path)
    assert after.num_requeued == 1
    requeued = after.ask()
    assert (requeued.trial_uid, requeued.epochs, requeued.score, requeued.best_epoch) == (uid, 2, 0.7, 2)
    assert requeued.runtime_info == {"freeze_depth": 9, "blocks": 18}
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


def test_enqueued_trials_that_have_not_started_are_kept(tmp_path: Path) -> None:
    with_probes = recipe(max_epochs=4, sweep="on", image_size="32,64")
    before = trial_store(tmp_path, with_probes)
    num_probes = before.num_probes_left
    assert num_probes > 2
    origins = [before.ask().origin for _ in range(3)]
    assert origins == ["probe", "probe", "default"]
    after = trial_store(tmp_path, with_probes)
    assert after.num_probes_left == num_probes - 2
    assert [after.ask().origin for _ in range(4)] == [*origins, "probe"]  # the first three are requeued


def test_probes_that_were_ended_do_not_start(tmp_path: Path) -> None:
    with_probes = recipe(max_epochs=4, sweep="on", image_size="32,64")
    before = trial_store(tmp_path, with_probes)
    before.ask()
    before.end_probes()
    assert trial_store(tmp_path, with_probes).num_probes_left == 0


def test_the_best_probe_is_fine_tuned_only_once(tmp_path: Path) -> None:
    with_probes = recipe(max_epochs=4, sweep="on")
    store = trial_store(tmp_path, with_probes)
    run_trial(store, 0.5)
    while store.num_probes_left:
        probe = store.ask()
        store.report(probe.trial_uid, epoch_report(1, 0.9 if probe.settings["truncate"] else 0.1))
        store.finish(probe.trial_uid, "complete", "")
    first = store.ask()
    assert first.origin == "fine-tune"
    store.finish(first.trial_uid, "failed", "")
    origins = [run_trial(trial_store(tmp_path, with_probes), 0.6).origin for _ in range(3)]
    assert origins == ["fine-tune", "sampler", "sampler"]


def test_incomplete_writes_of_a_killed_process_are_repaired(tmp_path: Path) -> None:
    """Killed between the two writes that end a trial, and between the two that create one."""
    store = trial_store(tmp_path)
    ended, started = store.ask(), store.ask()
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
    assert after.ask().trial_uid == started.trial_uid
