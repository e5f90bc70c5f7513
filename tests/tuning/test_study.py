"""The ledger: what is written down of a trial, as another process reads it from the journal."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tests.tuning.factories import epoch_report, recipe, trial_record, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord, TrialStatus
from tuning.search.selection import LeadingPhase, ranked
from tuning.search.space import SearchSpace
from tuning.search.study import STUDY_NAME, TrialStore
from tuning.search.study import trial_from_attrs as ledger_written


@pytest.fixture
def ledger(tmp_path: Path) -> TrialStore:
    return trial_store(tmp_path)


def journal(root: Path) -> list[FrozenTrial]:
    """Return the trials that were asked for as another process sees them: through a storage of its own."""
    storage = JournalStorage(JournalFileBackend(str(SearchPaths(root).journal)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        trials = optuna.load_study(study_name=STUDY_NAME, storage=storage).trials
    return [trial for trial in trials if trial.state is not TrialState.WAITING]


def best_of(ledger: TrialStore) -> TrialRecord | None:
    """Return the ledger's best trial."""
    return next(iter(ranked(ledger.trials())), None)


def written(trial: FrozenTrial) -> TrialRecord:
    return ledger_written(trial.user_attrs)


def test_without_a_sweep_trial_0_is_what_an_expert_tries_first(ledger: TrialStore) -> None:
    result = ledger.ask()
    assert result.number == 0
    assert result.settings == SearchSpace(recipe()).default_settings()


def test_trial_0_is_the_first_to_be_asked_also_where_the_space_is_narrow(tmp_path: Path) -> None:
    asked = recipe(optimizer="sgd", lr="1e-5..1e-4", batch_size="8", augmentation="strong,medium")
    result = trial_store(tmp_path, asked).ask()
    assert result.settings == SearchSpace(asked).default_settings()
    assert journal(tmp_path)[0].system_attrs["fixed_params"]["lr"] == 1e-4


def test_a_trial_is_written_down_before_it_starts(ledger: TrialStore, tmp_path: Path) -> None:
    result = ledger.ask()
    (trial,) = journal(tmp_path)
    assert trial.state is TrialState.RUNNING
    assert written(trial) == result
    assert result.status == "running"


def test_epochs_are_in_the_journal_while_the_trial_runs(ledger: TrialStore, tmp_path: Path) -> None:
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.5))
    ledger.report(uid, epoch_report(2, 0.7))
    assert journal(tmp_path)[0].intermediate_values == {1: 0.5, 2: 0.7}


def test_a_complete_trial_is_told_with_its_best_epochs_score(ledger: TrialStore, tmp_path: Path) -> None:
    uid = ledger.ask().trial_uid
    for number, score in enumerate((0.5, 0.9, 0.8), start=1):
        ledger.report(uid, epoch_report(number, score, is_best=score >= 0.5 and number < 3))
    ended = ledger.finish(uid, "complete", "ran to its end")
    (trial,) = journal(tmp_path)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.9)
    assert written(trial) == ended
    assert (ended.best_epoch, ended.epochs, ended.score) == (2, 3, 0.9)
    assert ended.runtime_info == {"freeze_depth": 9, "blocks": 18}


def test_a_pruned_trial_is_told_as_pruned_with_all_its_epochs(ledger: TrialStore, tmp_path: Path) -> None:
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.3))
    ledger.report(uid, epoch_report(2, 0.4))
    ledger.finish(uid, "pruned", "stopped by the scheduler after epoch 2")
    (trial,) = journal(tmp_path)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.3, 2: 0.4}
    assert trial.value == 0.4
    assert written(trial).reason == "stopped by the scheduler after epoch 2"


def test_a_pruned_trial_is_told_with_its_curve_so_that_its_value_is_the_last_epochs(
    ledger: TrialStore, tmp_path: Path
) -> None:
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.6))
    ledger.report(uid, epoch_report(2, 0.4, is_best=False))
    ledger.finish(uid, "pruned", "stopped by the scheduler after epoch 2")
    assert journal(tmp_path)[0].value == 0.4


def test_a_failed_trial_is_told_as_failed_with_its_reason(ledger: TrialStore, tmp_path: Path) -> None:
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.6))
    ledger.finish(uid, "failed", "ValueError: no")
    (trial,) = journal(tmp_path)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert written(trial).reason == "ValueError: no"


@pytest.mark.parametrize("status", ["pruned", "failed"])
def test_a_trial_without_an_epoch_can_end(ledger: TrialStore, tmp_path: Path, status: TrialStatus) -> None:
    ended = ledger.finish(ledger.ask().trial_uid, status, "too early")
    assert ended.score is None
    assert journal(tmp_path)[0].state in {TrialState.PRUNED, TrialState.FAIL}


def test_an_epoch_that_is_reported_twice_changes_nothing(ledger: TrialStore, tmp_path: Path) -> None:
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.5))
    before = ledger.report(uid, epoch_report(2, 0.7))
    assert ledger.report(uid, epoch_report(2, 0.1)) == before
    assert ledger.report(uid, epoch_report(1, 0.9)) == before
    assert journal(tmp_path)[0].intermediate_values == {1: 0.5, 2: 0.7}


def test_an_epoch_that_is_not_the_best_leaves_the_best_ones_metrics(ledger: TrialStore) -> None:
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.7))
    result = ledger.report(uid, epoch_report(2, 0.6, is_best=False))
    assert (result.score, result.best_epoch, result.epochs) == (0.7, 1, 2)


def end(ledger: TrialStore, score: float | None, status: TrialStatus = "complete") -> TrialRecord:
    """Ask for a trial and end it after one epoch with ``compute_metrics``, or before any."""
    uid = ledger.ask().trial_uid
    if score is not None:
        ledger.report(uid, epoch_report(1, score))
    return ledger.finish(uid, status, "")


def test_the_best_trial_is_the_highest_score_and_the_earlier_of_equals(ledger: TrialStore) -> None:
    for score in (0.5, 0.8, 0.8):
        end(ledger, score)
    best = best_of(ledger)
    assert best is not None
    assert best.number == 1


def test_a_failed_trial_is_never_the_best(ledger: TrialStore) -> None:
    end(ledger, 0.9, "failed")
    end(ledger, 0.1, "pruned")
    best = best_of(ledger)
    assert best is not None
    assert best.number == 1


def test_a_score_of_zero_is_a_score(ledger: TrialStore) -> None:
    end(ledger, None, "pruned")
    end(ledger, 0.0)
    best = best_of(ledger)
    assert best is not None
    assert best.number == 1


def test_there_is_no_best_where_no_epoch_ended(ledger: TrialStore) -> None:
    end(ledger, None, "failed")
    ledger.ask()
    assert best_of(ledger) is None


def test_a_trial_that_still_runs_can_be_the_best(ledger: TrialStore) -> None:
    end(ledger, 0.5)
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.6))
    best = best_of(ledger)
    assert best is not None
    assert best.trial_uid == uid


def test_running_and_all_trials_are_told_apart_and_sorted(ledger: TrialStore) -> None:
    first, second = ledger.ask(), ledger.ask()
    ledger.finish(first.trial_uid, "failed", "")
    assert [result.number for result in ledger.trials()] == [0, 1]
    assert [result.trial_uid for result in ledger.running()] == [second.trial_uid]
    assert ledger.get(first.trial_uid).status == "failed"


def test_every_trial_has_a_name_of_its_own(ledger: TrialStore) -> None:
    assert len({ledger.ask().trial_uid for _ in range(5)}) == 5


def test_the_same_seed_and_the_same_scores_give_the_same_trials(tmp_path: Path) -> None:
    searches = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        ledger = trial_store(tmp_path / name, recipe(seed=5))
        searches.append([end(ledger, score).settings for score in (0.5, 0.7, 0.6, 0.4, 0.8, 0.9, 0.3)])
    assert searches[0] == searches[1]


def test_another_seed_gives_other_trials_after_the_sweep_and_its_best(tmp_path: Path) -> None:
    searches = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        ledger = trial_store(tmp_path / str(seed), recipe(seed=seed))
        searches.append([end(ledger, 0.5).settings for _ in range(5)])
    assert searches[0][:4] == searches[1][:4]
    assert searches[0][4] != searches[1][4]


@given(score=st.none() | st.floats(0, 1), reason=st.text(max_size=20), number=st.integers(0, 10**6))
def test_a_result_survives_its_own_json(score: float | None, reason: str, number: int) -> None:
    result = trial_record(number, score, "failed", reason)
    assert TrialRecord.from_json(result.to_json()) == result


def test_a_result_with_a_loss_that_is_no_number_survives_its_own_json() -> None:
    result = trial_record().model_copy(update={"metrics": {"val_loss": float("inf"), "val_balanced_accuracy": 0.5}})
    assert TrialRecord.from_json(result.to_json()) == result


SWEPT = {"image_size": "32,64", "truncate": "0,1", "max_epochs": "4"}


def test_a_search_begins_with_its_first_networks_probes_and_the_default(tmp_path: Path) -> None:
    ledger = trial_store(tmp_path, recipe(**SWEPT))
    assert ledger.num_probes_left == 4
    ended = [end(ledger, score) for score in (0.5, 0.9, 0.92, 0.6, 0.7)]
    assert [result.origin for result in ended] == ["probe", "probe", "default", "probe", "probe"]
    assert [(result.settings["image_size"], result.settings["truncate"]) for result in ended[:2]] == [(32, 0), (64, 0)]


def test_the_best_probe_is_fine_tuned_before_the_sampler_goes_on(tmp_path: Path) -> None:
    ledger = trial_store(tmp_path, recipe(**SWEPT))
    for score in (0.5, 0.9, 0.92, 0.6, 0.7):
        end(ledger, score)
    tuned, less_frozen, sampled = ledger.ask(), ledger.ask(), ledger.ask()
    assert [result.origin for result in (tuned, less_frozen, sampled)] == ["fine-tune", "fine-tune", "sampler"]
    assert (tuned.settings["image_size"], tuned.settings["truncate"]) == (64, 0)  # the second probe: 32 px come first
    assert [result.settings["freeze_fraction"] for result in (tuned, less_frozen)] == [0.5, 0.2]
    assert [result.number for result in (tuned, sampled)] == [5, 7]


def test_the_defaults_of_all_variants_come_before_what_the_sampler_chooses(tmp_path: Path) -> None:
    variants = [{"name": name, "settings": {"dropout": dropout}} for name, dropout in (("a", "0"), ("b", "0.5"))]
    ledger = trial_store(tmp_path, recipe(variants=variants, sweep="off"))
    asked = [ledger.ask() for _ in range(3)]
    assert [result.origin for result in asked] == ["default", "default", "sampler"]
    assert [result.settings["variant"] for result in asked[:2]] == ["a", "b"]


def test_of_probes_that_validation_cannot_tell_apart_the_best_of_the_smallest_size_is_fine_tuned(
    tmp_path: Path,
) -> None:
    # One standard error of 0.9 on 100 pictures is 0.03.
    for folder, scores, wanted in (("near", (0.86, 0.9, 0.88, 0.89), (32, 3)), ("far", (0.6, 0.9, 0.8, 0.89), (64, 0))):
        (tmp_path / folder).mkdir()
        ledger = trial_store(tmp_path / folder, recipe(**{**SWEPT, "truncate": "0,3"}))
        for score in (*scores[:2], 0.5, *scores[2:]):  # the default after the first network at both sizes
            end(ledger, score)
        tuned = ledger.ask()
        assert (tuned.settings["image_size"], tuned.settings["truncate"]) == wanted


@pytest.mark.parametrize(
    ("default", "lead", "fractions"),
    [
        (0.97, "neither", [0.5, 0.2]),
        (0.98, "fine-tuning", [0.0, 0.2]),
        (0.91, "probes", [0.5, 0.2]),
        (None, "probes", [0.5, 0.2]),
    ],
)
def test_where_fine_tuning_leaves_every_probe_behind_the_best_of_them_is_fine_tuned_with_less_frozen(
    tmp_path: Path, default: float | None, lead: LeadingPhase, fractions: list[float]
) -> None:
    # Of 0.9 and 0.98 on 100 pictures, twice the standard error of the difference is 0.066; of 0.9 and 0.97, 0.069.
    ledger = trial_store(tmp_path, recipe(**{**SWEPT, "image_size": "32", "truncate": "3,4"}))
    assert ledger.leading_phase() == "neither"  # no probe has ended
    end(ledger, 0.9)
    end(ledger, default, "complete" if default else "failed")
    end(ledger, 0.91)
    assert ledger.leading_phase() == lead
    assert [ledger.ask().settings["freeze_fraction"] for _ in range(2)] == fractions


def test_the_probes_are_told_to_the_sampler_as_finished_trials(tmp_path: Path) -> None:
    ledger = trial_store(tmp_path, recipe(**SWEPT))
    for score in (0.5, 0.6, 0.95, 0.9, 0.7):
        end(ledger, score)
    trials = journal(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    probes = [trial for trial in trials if "optimizer" not in trial.params]
    assert [trial.value for trial in probes] == [0.5, 0.6, 0.9, 0.7]
    assert {tuple(trial.params) for trial in probes} == {("head_features", "truncate", "backbone", "image_size")}


def test_a_sweep_that_is_ended_leaves_its_best_so_far_to_be_fine_tuned(tmp_path: Path) -> None:
    ledger = trial_store(tmp_path, recipe(**SWEPT))
    for score in (0.5, 0.6, 0.9):
        end(ledger, score)
    ledger.end_probes()
    assert ledger.num_probes_left == 0
    assert [ledger.ask().origin for _ in range(3)] == ["fine-tune", "fine-tune", "sampler"]
    assert ledger.num_trials == 4


def test_a_search_whose_first_trials_all_fail_is_hopeless(ledger: TrialStore) -> None:
    for _ in range(6):
        assert not ledger.all_trials_failed
        end(ledger, None, "failed")
    assert ledger.all_trials_failed
    end(ledger, 0.5)
    assert not ledger.all_trials_failed


def test_where_every_probe_fails_the_sampler_goes_on(tmp_path: Path) -> None:
    ledger = trial_store(tmp_path, recipe(**SWEPT))
    for score in (None, None, 0.9, None, None):
        end(ledger, score, "complete" if score else "failed")
    assert ledger.ask().origin == "sampler"


def test_among_equal_scores_the_lowest_loss_is_the_best(ledger: TrialStore) -> None:
    for loss in (0.5, 0.2, 0.4):
        uid = ledger.ask().trial_uid
        report = epoch_report(1, 0.9)
        ledger.report(uid, report.model_copy(update={"metrics": {**report.metrics, "val_loss": loss}}))
        ledger.finish(uid, "complete", "")
    best = best_of(ledger)
    assert best is not None
    assert best.number == 1


def test_what_earlier_searches_know_comes_after_the_default_and_before_the_rest_of_the_sweep(tmp_path: Path) -> None:
    asked = recipe(**SWEPT)
    known = [{**SearchSpace(asked).default_params(), "lr": rate} for rate in (2e-3, 3e-3)]
    ledger = trial_store(tmp_path, asked)
    ledger.enqueue([*known, SearchSpace(asked).default_params(), known[0]])
    started = [ledger.ask() for _ in range(6)]
    assert [result.origin for result in started] == ["probe", "probe", "default", "warm_start", "warm_start", "probe"]
    assert [result.settings["lr"] for result in started[2:5]] == [1e-3, 2e-3, 3e-3]
    assert ledger.num_trials == 3


# --- a ledger that another process wrote ---


def test_a_ledger_that_is_opened_again_knows_all_that_was_written(tmp_path: Path) -> None:
    before = trial_store(tmp_path)
    complete, pruned = end(before, 0.9), end(before, 0.3, "pruned")
    failed = end(before, None, "failed")
    after = trial_store(tmp_path)
    assert after.trials() == before.trials() == (complete, pruned, failed)
    assert (after.num_trials, after.running(), after.num_requeued) == (3, (), 0)
    assert best_of(after) == complete


def test_a_trial_that_had_not_ended_comes_first_with_its_epochs_and_goes_on(tmp_path: Path) -> None:
    before = trial_store(tmp_path)
    uid = before.ask().trial_uid
    before.report(uid, epoch_report(1, 0.5))
    before.report(uid, epoch_report(2, 0.7))
    after = trial_store(tmp_path)
    assert after.num_requeued == 1
    again = after.ask()
    assert (again.trial_uid, again.epochs, again.score, again.best_epoch) == (uid, 2, 0.7, 2)
    assert again.runtime_info == {"freeze_depth": 9, "blocks": 18}
    after.report(uid, epoch_report(3, 0.6))
    after.finish(uid, "complete", "ran to its end")
    (trial,) = journal(tmp_path)
    assert trial.intermediate_values == {1: 0.5, 2: 0.7, 3: 0.6}
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)


def test_a_resumed_search_proposes_what_one_that_was_never_interrupted_would(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = trial_store(tmp_path / "a")
    wanted = [end(whole, score).settings for score in (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9)]
    found = []
    for score in (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9):
        found.append(end(trial_store(tmp_path / "b"), score).settings)
    assert found == wanted


def test_starts_that_were_not_asked_for_are_asked_for_after_all(tmp_path: Path) -> None:
    asked = recipe(max_epochs=4, sweep="on", image_size="32,64")
    before = trial_store(tmp_path, asked)
    probes = before.num_probes_left
    assert probes > 2
    origins = [before.ask().origin for _ in range(3)]
    assert origins == ["probe", "probe", "default"]
    after = trial_store(tmp_path, asked)
    assert after.num_probes_left == probes - 2
    assert [after.ask().origin for _ in range(4)] == [*origins, "probe"]  # the first three are put back


def test_a_sweep_that_was_ended_stays_ended(tmp_path: Path) -> None:
    asked = recipe(max_epochs=4, sweep="on", image_size="32,64")
    before = trial_store(tmp_path, asked)
    before.ask()
    before.end_probes()
    assert trial_store(tmp_path, asked).num_probes_left == 0


def test_the_best_probe_is_fine_tuned_once_however_often_a_search_is_resumed(tmp_path: Path) -> None:
    asked = recipe(max_epochs=4, sweep="on")
    ledger = trial_store(tmp_path, asked)
    end(ledger, 0.5)
    while ledger.num_probes_left:
        probe = ledger.ask()
        ledger.report(probe.trial_uid, epoch_report(1, 0.9 if probe.settings["truncate"] else 0.1))
        ledger.finish(probe.trial_uid, "complete", "")
    first = ledger.ask()
    assert first.origin == "fine-tune"
    ledger.finish(first.trial_uid, "failed", "")
    origins = [end(trial_store(tmp_path, asked), 0.6).origin for _ in range(3)]
    assert origins == ["fine-tune", "sampler", "sampler"]


def test_what_a_killed_process_left_half_written_is_put_in_order(tmp_path: Path) -> None:
    """Killed after it wrote how a trial ended, before it told; and before it wrote down a trial that it asked for."""
    ledger = trial_store(tmp_path)
    ended, started = ledger.ask(), ledger.ask()
    ledger.report(ended.trial_uid, epoch_report(1, 0.6))
    ledger._save(ledger.get(ended.trial_uid).model_copy(update={"status": "complete"}))
    ledger._study.enqueue_trial({"lr": 1e-3})
    ledger._study.ask()
    ledger._study.enqueue_trial({"lr": 1e-3})
    after = trial_store(tmp_path)
    assert [(result.trial_uid, result.status) for result in after.trials()] == [
        (ended.trial_uid, "complete"),
        (started.trial_uid, "running"),
    ]
    states = [trial.state for trial in journal(tmp_path)]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]
    assert after.ask().trial_uid == started.trial_uid


def test_a_final_is_the_same_trial_with_another_seed_and_no_trial_of_the_budget(tmp_path: Path) -> None:
    ledger = trial_store(tmp_path)
    first = end(ledger, 0.9)
    final = ledger.ask_rerun(first, seed=7)
    assert final.config == first.config.model_copy(update={"seed": 7})
    assert (final.origin, final.rerun_of, final.settings) == ("rerun", first.trial_uid, first.settings)
    ledger.report(final.trial_uid, epoch_report(1, 0.95))
    assert ledger.finish(final.trial_uid, "complete", "").is_eligible is False
    assert ledger.num_trials == 1
    assert best_of(ledger) == first
    assert journal(tmp_path)[1].params == journal(tmp_path)[0].params
