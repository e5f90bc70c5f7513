"""The order in which the trial store creates trials: warm-up probes, defaults, probes, fine-tunes, sampler."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.tuning.factories import recipe, trial_store
from tests.tuning.study_helpers import read_journal, run_trial
from tuning.search.selection import LeadingPhase

FOUR_PROBES = {"image_size": "32,64", "truncate": "0,1", "max_epochs": "4"}


def test_equal_seeds_and_scores_give_equal_trials(tmp_path: Path) -> None:
    searches = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        store = trial_store(tmp_path / name, recipe(seed=5))
        searches.append([run_trial(store, score).settings for score in (0.5, 0.7, 0.6, 0.4, 0.8, 0.9, 0.3)])
    assert searches[0] == searches[1]


def test_another_seed_changes_only_the_proposals_of_the_sampler(tmp_path: Path) -> None:
    searches = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        store = trial_store(tmp_path / str(seed), recipe(seed=seed))
        searches.append([run_trial(store, 0.5).settings for _ in range(5)])
    assert searches[0][:4] == searches[1][:4]
    assert searches[0][4] != searches[1][4]


def test_a_search_starts_with_the_probes_of_its_first_network_and_the_default(tmp_path: Path) -> None:
    store = trial_store(tmp_path, recipe(**FOUR_PROBES))
    assert store.num_probes_left == 4
    trials = [run_trial(store, score) for score in (0.5, 0.9, 0.92, 0.6, 0.7)]
    assert [trial.origin for trial in trials] == ["probe", "probe", "default", "probe", "probe"]
    assert [(trial.settings["image_size"], trial.settings["truncate"]) for trial in trials[:2]] == [(32, 0), (64, 0)]


def test_the_best_probe_is_fine_tuned_before_the_sampler_proposes(tmp_path: Path) -> None:
    store = trial_store(tmp_path, recipe(**FOUR_PROBES))
    for score in (0.5, 0.9, 0.92, 0.6, 0.7):
        run_trial(store, score)
    fine_tune, less_frozen, sampled = store.ask(), store.ask(), store.ask()
    assert [trial.origin for trial in (fine_tune, less_frozen, sampled)] == ["fine-tune", "fine-tune", "sampler"]
    assert (fine_tune.settings["image_size"], fine_tune.settings["truncate"]) == (64, 0)  # as in the second probe
    assert [trial.settings["freeze_fraction"] for trial in (fine_tune, less_frozen)] == [0.5, 0.2]
    assert [trial.number for trial in (fine_tune, sampled)] == [5, 7]


def test_the_defaults_of_all_variants_come_before_the_proposals_of_the_sampler(tmp_path: Path) -> None:
    variants = [{"name": name, "settings": {"dropout": dropout}} for name, dropout in (("a", "0"), ("b", "0.5"))]
    store = trial_store(tmp_path, recipe(variants=variants, sweep="off"))
    trials = [store.ask() for _ in range(3)]
    assert [trial.origin for trial in trials] == ["default", "default", "sampler"]
    assert [trial.settings["variant"] for trial in trials[:2]] == ["a", "b"]


def test_among_probes_within_one_standard_error_the_best_of_the_smallest_size_is_fine_tuned(tmp_path: Path) -> None:
    # One standard error of 0.9 on 100 images is 0.03.
    cases = (("near", (0.86, 0.9, 0.88, 0.89), (32, 3)), ("far", (0.6, 0.9, 0.8, 0.89), (64, 0)))
    for folder, scores, expected in cases:
        (tmp_path / folder).mkdir()
        store = trial_store(tmp_path / folder, recipe(**{**FOUR_PROBES, "truncate": "0,3"}))
        for score in (*scores[:2], 0.5, *scores[2:]):  # the default runs after the first network at both sizes
            run_trial(store, score)
        fine_tune = store.ask()
        assert (fine_tune.settings["image_size"], fine_tune.settings["truncate"]) == expected


@pytest.mark.parametrize(
    ("default_score", "leading_phase", "fractions"),
    [
        (0.97, "neither", [0.5, 0.2]),
        (0.98, "fine-tuning", [0.0, 0.2]),
        (0.91, "probes", [0.5, 0.2]),
        (None, "probes", [0.5, 0.2]),
    ],
)
def test_fewer_blocks_are_frozen_if_fine_tuning_is_significantly_better_than_the_probes(
    tmp_path: Path, default_score: float | None, leading_phase: LeadingPhase, fractions: list[float]
) -> None:
    # With 100 images, two standard errors of the difference are 0.066 for 0.9 and 0.98, and 0.069 for 0.9 and 0.97.
    store = trial_store(tmp_path, recipe(**{**FOUR_PROBES, "image_size": "32", "truncate": "3,4"}))
    assert store.leading_phase() == "neither"  # no probe has ended
    run_trial(store, 0.9)
    run_trial(store, default_score, "complete" if default_score else "failed")
    run_trial(store, 0.91)
    assert store.leading_phase() == leading_phase
    assert [store.ask().settings["freeze_fraction"] for _ in range(2)] == fractions


def test_the_sampler_sees_probes_as_complete_trials(tmp_path: Path) -> None:
    store = trial_store(tmp_path, recipe(**FOUR_PROBES))
    for score in (0.5, 0.6, 0.95, 0.9, 0.7):
        run_trial(store, score)
    trials = read_journal(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    probes = [trial for trial in trials if "optimizer" not in trial.params]
    assert [trial.value for trial in probes] == [0.5, 0.6, 0.9, 0.7]
    assert {tuple(trial.params) for trial in probes} == {("head_features", "truncate", "backbone", "image_size")}


def test_after_the_probes_were_ended_the_best_so_far_is_fine_tuned(tmp_path: Path) -> None:
    store = trial_store(tmp_path, recipe(**FOUR_PROBES))
    for score in (0.5, 0.6, 0.9):
        run_trial(store, score)
    store.end_probes()
    assert store.num_probes_left == 0
    assert [store.ask().origin for _ in range(3)] == ["fine-tune", "fine-tune", "sampler"]
    assert store.num_trials == 4


def test_if_all_probes_fail_the_sampler_proposes_next(tmp_path: Path) -> None:
    store = trial_store(tmp_path, recipe(**FOUR_PROBES))
    for score in (None, None, 0.9, None, None):
        run_trial(store, score, "complete" if score else "failed")
    assert store.ask().origin == "sampler"
