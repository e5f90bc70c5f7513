"""The trial store: its state, and the records that another process reads from the journal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from tests.tuning.factories import epoch_report, recipe, start_trial, trial_record, trial_store
from tests.tuning.study_helpers import best_trial, read_journal, run_trial
from tuning.common.trial_record import TrialRecord, TrialStatus
from tuning.search.reruns import NextRerun
from tuning.search.space import SearchSpace
from tuning.search.strategy import num_counted
from tuning.search.study import TrialStore, trial_from_attrs


@pytest.fixture
def store(tmp_path: Path) -> TrialStore:
    return trial_store(tmp_path)


def test_without_probes_trial_0_has_the_default_settings(store: TrialStore) -> None:
    trial = start_trial(store)
    assert trial.number == 0
    assert trial.settings == SearchSpace(recipe()).default_settings()


def test_trial_0_has_the_default_settings_also_in_a_narrow_space(tmp_path: Path) -> None:
    narrow = recipe(optimizer="sgd", lr="1e-5..1e-4", batch_size="8", augmentation="strong,medium")
    trial = start_trial(trial_store(tmp_path, narrow), narrow)
    assert trial.settings == SearchSpace(narrow).default_settings()
    assert read_journal(tmp_path)[0].system_attrs["fixed_params"]["lr"] == 1e-4


def test_a_trial_is_saved_before_it_starts(store: TrialStore, tmp_path: Path) -> None:
    record = start_trial(store)
    (trial,) = read_journal(tmp_path)
    assert trial.state is TrialState.RUNNING
    assert trial_from_attrs(trial.user_attrs) == record
    assert record.status == "running"


def test_epochs_of_a_running_trial_are_in_the_journal(store: TrialStore, tmp_path: Path) -> None:
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.5))
    store.report(uid, epoch_report(2, 0.7))
    assert read_journal(tmp_path)[0].intermediate_values == {1: 0.5, 2: 0.7}


def test_a_complete_trial_has_the_score_of_its_best_epoch(store: TrialStore, tmp_path: Path) -> None:
    uid = start_trial(store).trial_uid
    for number, score in enumerate((0.5, 0.9, 0.6), start=1):
        store.report(uid, epoch_report(number, score, is_best=number < 3))
    record = store.finish(uid, "complete", "ran to its end")
    (trial,) = read_journal(tmp_path)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.9)
    assert trial_from_attrs(trial.user_attrs) == record
    assert (record.best_epoch, record.epochs, record.score) == (2, 3, 0.9)
    assert record.runtime_info == {"freeze_depth": 9, "blocks": 18}


def test_a_trial_has_the_times_of_its_start_and_end(store: TrialStore, tmp_path: Path) -> None:
    before_s = time.time()
    started = start_trial(store)
    store.report(started.trial_uid, epoch_report(1, 0.5))
    ended = store.finish(started.trial_uid, "complete", "ran to its end")
    assert started.ended_s is None
    assert before_s <= (ended.started_s or 0) <= (ended.ended_s or 0) <= time.time()
    (trial,) = read_journal(tmp_path)
    assert trial_from_attrs(trial.user_attrs) == ended


def test_a_trial_of_an_older_version_has_no_times(store: TrialStore) -> None:
    fields = json.loads(start_trial(store).model_dump_json(exclude={"history", "started_s", "ended_s"}))
    record = trial_from_attrs({"trial_record": fields})
    assert (record.started_s, record.ended_s) == (None, None)


def test_a_pruned_trial_keeps_all_its_epochs(store: TrialStore, tmp_path: Path) -> None:
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.3))
    store.report(uid, epoch_report(2, 0.4))
    store.finish(uid, "pruned", "stopped by the scheduler after epoch 2")
    (trial,) = read_journal(tmp_path)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.3, 2: 0.4}
    assert trial.value == 0.4
    assert trial_from_attrs(trial.user_attrs).reason == "stopped by the scheduler after epoch 2"


def test_the_value_of_a_pruned_trial_is_the_score_of_its_last_epoch(store: TrialStore, tmp_path: Path) -> None:
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.6))
    store.report(uid, epoch_report(2, 0.4, is_best=False))
    store.finish(uid, "pruned", "stopped by the scheduler after epoch 2")
    assert read_journal(tmp_path)[0].value == 0.4


def test_a_failed_trial_has_a_reason_and_no_value(store: TrialStore, tmp_path: Path) -> None:
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.6))
    store.finish(uid, "failed", "ValueError: no")
    (trial,) = read_journal(tmp_path)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert trial_from_attrs(trial.user_attrs).reason == "ValueError: no"


@pytest.mark.parametrize("status", ["pruned", "failed"])
def test_a_trial_can_end_before_its_first_epoch(store: TrialStore, tmp_path: Path, status: TrialStatus) -> None:
    record = store.finish(start_trial(store).trial_uid, status, "too early")
    assert record.score is None
    assert read_journal(tmp_path)[0].state in {TrialState.PRUNED, TrialState.FAIL}


def test_a_worse_epoch_does_not_change_the_best_metrics(store: TrialStore) -> None:
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.7))
    trial = store.report(uid, epoch_report(2, 0.6, is_best=False))
    assert (trial.score, trial.best_epoch, trial.epochs) == (0.7, 1, 2)


def test_the_best_trial_has_the_highest_score_and_the_lowest_number(store: TrialStore) -> None:
    for score in (0.5, 0.8, 0.8):
        run_trial(store, score)
    best = best_trial(store)
    assert best is not None
    assert best.number == 1


def test_among_equal_scores_the_lowest_loss_is_the_best(store: TrialStore) -> None:
    for loss in (0.5, 0.2, 0.4):
        uid = start_trial(store).trial_uid
        report = epoch_report(1, 0.9)
        store.report(uid, report.model_copy(update={"metrics": {**report.metrics, "val_loss": loss}}))
        store.finish(uid, "complete", "")
    best = best_trial(store)
    assert best is not None
    assert best.number == 1


def test_a_failed_trial_is_never_the_best(store: TrialStore) -> None:
    run_trial(store, 0.9, "failed")
    run_trial(store, 0.1, "pruned")
    best = best_trial(store)
    assert best is not None
    assert best.number == 1


def test_a_score_of_zero_is_a_score(store: TrialStore) -> None:
    run_trial(store, None, "pruned")
    run_trial(store, 0.0)
    best = best_trial(store)
    assert best is not None
    assert best.number == 1


def test_without_a_completed_epoch_there_is_no_best_trial(store: TrialStore) -> None:
    run_trial(store, None, "failed")
    start_trial(store)
    assert best_trial(store) is None


def test_a_running_trial_can_be_the_best(store: TrialStore) -> None:
    run_trial(store, 0.5)
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.6))
    best = best_trial(store)
    assert best is not None
    assert best.trial_uid == uid


def test_running_trials_are_a_part_of_all_trials_which_are_sorted_by_number(store: TrialStore) -> None:
    first, second = start_trial(store), start_trial(store)
    store.finish(first.trial_uid, "failed", "")
    assert [trial.number for trial in store.trials()] == [0, 1]
    assert [trial.trial_uid for trial in store.running()] == [second.trial_uid]
    assert store.get(first.trial_uid).status == "failed"


def test_every_trial_has_a_unique_uid(store: TrialStore) -> None:
    assert len({start_trial(store).trial_uid for _ in range(5)}) == 5


def test_a_rerun_is_the_same_trial_with_another_seed_and_does_not_count_as_a_trial(tmp_path: Path) -> None:
    store = trial_store(tmp_path)
    first = run_trial(store, 0.9)
    rerun = store.start(NextRerun(first, seed=7, fold=1))
    assert rerun.config == first.config.model_copy(update={"seed": 7, "fold": 1})
    assert (rerun.origin, rerun.rerun_of, rerun.settings) == ("rerun", first.trial_uid, first.settings)
    store.report(rerun.trial_uid, epoch_report(1, 0.95))
    assert store.finish(rerun.trial_uid, "complete", "").is_eligible is False
    assert num_counted(store.trials()) == 1
    assert best_trial(store) == first
    assert read_journal(tmp_path)[1].params == read_journal(tmp_path)[0].params


@given(score=st.none() | st.floats(0, 1), reason=st.text(max_size=20), number=st.integers(0, 10**6))
def test_a_trial_record_survives_a_json_round_trip(score: float | None, reason: str, number: int) -> None:
    trial = trial_record(number, score, "failed", reason)
    assert TrialRecord.from_json(trial.to_json()) == trial


def test_a_trial_record_with_an_infinite_loss_survives_a_json_round_trip() -> None:
    trial = trial_record().model_copy(update={"history": ({"val_loss": float("inf"), "val_balanced_accuracy": 0.5},)})
    assert TrialRecord.from_json(trial.to_json()) == trial


def test_equal_seeds_and_scores_give_equal_trials_and_another_seed_other_proposals(tmp_path: Path) -> None:
    searches = []
    for name, seed in (("first", 5), ("second", 5), ("third", 6)):
        search_recipe = recipe(seed=seed, max_epochs=4, sweep="off")
        (tmp_path / name).mkdir()
        store = trial_store(tmp_path / name, search_recipe)
        searches.append([run_trial(store, score).settings for score in (0.5, 0.7, 0.6, 0.4, 0.8, 0.9, 0.3)])
    assert searches[0] == searches[1] != searches[2]
    assert searches[0][0] == searches[2][0]  # the default


def test_the_sampler_sees_probes_as_complete_trials_without_the_settings_that_all_probes_share(tmp_path: Path) -> None:
    search_recipe = recipe(image_size="32,64", truncate="0,1", max_epochs=4)
    store = trial_store(tmp_path, search_recipe)
    for score in (0.5, 0.6, 0.95, 0.9, 0.7):
        run_trial(store, score, search_recipe=search_recipe)
    trials = read_journal(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    probes = [trial for trial in trials if "optimizer" not in trial.params]
    assert [trial.value for trial in probes] == [0.5, 0.6, 0.9, 0.7]
    assert {tuple(trial.params) for trial in probes} == {("head_features", "truncate", "backbone", "image_size")}
