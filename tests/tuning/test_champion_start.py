"""The strategy of a search that starts from a registered version: its networks come first, and nothing is repeated."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tuning.factories import BACKBONE
from tests.tuning.recorded_search import FOUR_PROBES, Search
from tuning.common.trial_record import TrialRecord
from tuning.search.strategy import Proposal, phase_usage

TRAINED = {
    "backbone": BACKBONE, "image_size": 32, "truncate": 0, "freeze_fraction": 0.25, "head_features": "last",
    "head": "linear", "optimizer": "sgd", "weight_decay": 1e-3, "lr_scheduler": "step", "layer_decay": 1.0,
    "label_smoothing": 0.0, "batch_size": 16, "dropout": 0.1, "augmentation": "medium", "balance": "none",
    "mix": "none", "lr": 0.02,
}  # fmt: skip
PROBE = {
    "backbone": BACKBONE, "image_size": 64, "truncate": 1, "freeze_fraction": 1.0, "head_features": "last",
    "head": "linear", "optimizer": "lbfgs", "augmentation": "none", "balance": "weights", "mix": "none",
}  # fmt: skip
BALANCED_PROBE = {**PROBE, "balance": "none"}  # as the probes of balanced classes


def test_the_champions_networks_come_first_with_their_exact_settings() -> None:
    search = Search(**FOUR_PROBES, start_settings=[PROBE, TRAINED])
    first, second, *others = [search.run() for _ in range(4)]
    assert [(trial.origin, trial.settings) for trial in (first, second)] == [("champion", PROBE), ("champion", TRAINED)]
    assert (first.config.fit.optimizer, second.config.fit.lr, second.config.batches.augmentation) == (
        "lbfgs", 0.02, "medium",
    )  # fmt: skip
    assert [trial.origin for trial in others] == ["probe", "probe"]
    assert [usage.name for usage in phase_usage(search.trials)][:2] == ["champion's configuration", "warm-up probes"]


def test_a_search_with_the_trials_of_another_process_does_not_start_the_champion_again() -> None:
    search = Search(start_settings=[TRAINED, PROBE])
    search.run()
    search.trials = [TrialRecord.from_json(trial.to_json()) for trial in search.trials]
    assert search.run().settings == PROBE
    search.run()
    assert [trial.origin for trial in search.trials] == ["champion", "champion", "default"]


@pytest.mark.parametrize(("probe", "expected"), [(BALANCED_PROBE, 3), (PROBE, 4)])
def test_a_probe_of_the_sweep_that_is_the_champions_is_not_repeated(probe: dict[str, Any], expected: int) -> None:
    search = Search(**FOUR_PROBES, start_settings=[probe], trials=1)
    assert len(search.strategy.probes_left(())) == expected + 1
    while (step := search.next()) != "end" and isinstance(step, Proposal):
        search.run()
    origins = [trial.origin for trial in search.trials]
    assert (origins.count("champion"), origins.count("probe")) == (1, expected)


def test_if_the_default_is_the_champions_configuration_it_comes_first_and_is_not_repeated() -> None:
    default = Search().run().settings
    search = Search(**FOUR_PROBES, start_settings=[default])
    first, *others = [search.run() for _ in range(7)]
    assert (first.origin, first.settings) == ("default", default)
    assert [trial.origin for trial in others] == [*["probe"] * 4, "fine_tune", "sampler"]


def test_trained_networks_of_the_champion_count_as_trials_and_its_probes_do_not() -> None:
    trained, probed = (Search(start_settings=[start], trials=1, rerun_top_k=0) for start in (TRAINED, PROBE))
    assert [trained.run().counts_as_trial, trained.next()] == [True, "end"]
    assert [probed.run().counts_as_trial, probed.run().origin, probed.next()] == [False, "default", "end"]


def test_the_champions_probe_is_fine_tuned_if_it_is_the_best() -> None:
    search = Search(**FOUR_PROBES, start_settings=[{**PROBE, "image_size": 32}], trials=5)
    assert search.run(0.99).origin == "champion"
    while (trial := search.run(0.5)).origin != "fine_tune":
        pass
    assert (trial.settings["truncate"], trial.settings["image_size"]) == (1, 32)
