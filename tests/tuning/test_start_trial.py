"""A registered version's configuration as the first trials: its settings, and what the sampler learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.preprocessing import Preprocessing
from models.trial_config import FitConfig, NetworkConfig, TrialConfig
from tests.tuning.factories import BACKBONE, recipe, start_trial, trial_config, trial_store
from tests.tuning.study_helpers import read_journal, run_trial
from tuning.recipe.schema import Recipe
from tuning.search.reruns import NextRerun
from tuning.search.space import SearchSpace
from tuning.search.start_trial import StartTrial, start_settings

SETTINGS = start_settings(trial_config(lr=0.05))
# Outside of every domain that it names.
NARROW = {"lr": "1e-4..1e-3", "optimizer": "sgd", "freeze_fraction": "0.6..0.9", "batch_size": "16", "truncate": "1,3"}


def probe_config(**network: Any) -> TrialConfig:
    """Return the configuration of a linear probe of 64 px."""
    config = trial_config()
    return TrialConfig(
        seed=0,
        preprocessing=Preprocessing(64),
        batches=config.batches.model_copy(update={"augmentation": "none", "balance": "weights"}),
        network=NetworkConfig.model_validate({"freeze_fraction": 1.0, **network}),
        fit=FitConfig(optimizer="lbfgs"),
    )


def only_start(search_recipe: Recipe, **space_options: Any) -> StartTrial:
    (start,) = SearchSpace(search_recipe, **space_options).start_trials()
    return start


def test_a_configuration_is_the_same_after_a_round_trip_through_its_settings(tmp_path: Path) -> None:
    for config in (trial_config(lr=0.05), probe_config(truncate=3)):
        options = {"start_settings": [start_settings(config)], "image_size": "32,64", "weights": config.network.weights}
        folder = tmp_path / config.fit.optimizer
        folder.mkdir()
        trained = start_trial(trial_store(folder, recipe(**options)), recipe(**options)).config
        assert start_settings(trained) == start_settings(config)


def test_settings_inside_of_the_domains_are_the_parameters() -> None:
    start = only_start(recipe(start_settings=[SETTINGS], lr="1e-3..1e-1"))
    assert start.is_inside
    assert start.params == {name: value for name, value in SETTINGS.items() if name != "head_features"}
    assert start.settings == SETTINGS


def test_settings_outside_of_the_domains_are_kept_and_the_parameters_are_the_nearest_inside() -> None:
    start = only_start(recipe(**NARROW, start_settings=[SETTINGS]))
    assert not start.is_inside
    assert start.settings == SETTINGS
    expected = {"lr": 1e-3, "optimizer": "sgd", "freeze_fraction": 0.6, "batch_size": 16, "truncate": 1}
    assert {name: start.params[name] for name in expected} == expected


@pytest.mark.parametrize(("head_features", "axes"), [("last", {"truncate"}), ("all", set[str]())])
def test_the_parameters_of_a_probe_are_those_of_a_probe_of_the_sweep(head_features: str, axes: set[str]) -> None:
    config = probe_config(truncate=3 if axes else 0, head_features=head_features)
    space = SearchSpace(
        recipe(image_size="32,64", head_features="last,all", balance="weights", start_settings=[start_settings(config)])
    )
    (start,) = space.start_trials()
    assert start.is_probe
    assert start.is_inside
    assert start.params in space.linear_probes()
    assert set(start.params) == {"head_features", "backbone", "image_size", *axes}


def test_a_probe_is_fitted_on_the_searchs_nearest_number_of_images() -> None:
    many = probe_config().model_copy(update={"images_per_epoch": 9_000})
    for config, expected in ((many, 8_000), (probe_config(), 32_000)):
        options = recipe(image_size="64", start_settings=[start_settings(config)])
        assert only_start(options, probe_images=(2_000, 8_000, 32_000)).settings["probe_images"] == expected
        assert "probe_images" not in only_start(options).settings


def test_where_probes_cannot_be_fitted_that_of_the_champion_is_trained_by_gradient_steps() -> None:
    start = only_start(
        recipe(image_size="64", start_settings=[start_settings(probe_config())]), regression_probes=False
    )
    assert not start.is_probe
    assert (start.settings["optimizer"], start.settings["freeze_fraction"], start.settings["image_size"]) == (
        "adamw", 1.0, 64,
    )  # fmt: skip


def test_the_variant_of_the_configuration_is_used() -> None:
    variants = [{"name": name, "settings": {"lr": lr}} for name, lr in (("low", "1e-4"), ("high", "5e-2"))]
    start = only_start(recipe(variants=variants, start_settings=[{"variant": "high", **SETTINGS}]))
    assert (start.params["variant"], start.params["lr@high"], start.is_inside) == ("high", 0.05, True)


# --- in the study ---


def test_a_resumed_search_starts_from_the_same_configuration_once(tmp_path: Path) -> None:
    options = recipe(**NARROW, sweep="off", max_epochs=4, start_settings=[SETTINGS, {**SETTINGS, "lr": 0.07}])
    before = start_trial(trial_store(tmp_path, options), options)
    after = trial_store(tmp_path, options)
    restarted, second, third = (start_trial(after, options) for _ in range(3))
    assert (restarted.trial_uid, restarted.settings, restarted.config.fit.lr) == (before.trial_uid, SETTINGS, 0.05)
    assert (second.origin, second.settings["lr"], third.origin) == ("champion", 0.07, "default")


def test_the_sampler_learns_from_a_configuration_outside_of_the_domains_and_stays_inside(tmp_path: Path) -> None:
    options = recipe(**NARROW, sweep="off", max_epochs=4, trials=12, start_settings=[SETTINGS])
    store = trial_store(tmp_path, options)
    trials = [run_trial(store, 0.9 - number / 100, search_recipe=options) for number in range(12)]
    assert [trial.origin for trial in trials[:3]] == ["champion", "default", "sampler"]
    for stored in read_journal(tmp_path):
        assert all(
            distribution._contains(distribution.to_internal_repr(stored.params[name]))
            for name, distribution in stored.distributions.items()
        )
    assert len({repr(trial.settings) for trial in trials}) == 12
    assert all(1e-4 <= float(trial.settings["lr"]) <= 1e-3 for trial in trials[1:])


def test_a_rerun_of_the_champions_configuration_has_its_exact_settings(tmp_path: Path) -> None:
    options = recipe(**NARROW, sweep="off", max_epochs=4, start_settings=[SETTINGS])
    store = trial_store(tmp_path, options)
    champion = run_trial(store, 0.9, search_recipe=options)
    rerun = store.start(NextRerun(champion, 1, None))
    assert (rerun.settings, rerun.config.fit) == (SETTINGS, champion.config.fit)
    assert rerun.config.network.backbone == BACKBONE
