"""The search space: suggested parameters, default trials, linear probes, fine-tunes and trial configurations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.preprocessing import Preprocessing
from models.trial_config import TrialConfig
from tests.tuning.factories import BACKBONE, PREPROCESSINGS, recipe
from tuning.common.option_types import ParamValue
from tuning.recipe.schema import TrainingSettings
from tuning.search.defaults import DEFAULT_PARAMS, NETWORK_AXES, allows_folds
from tuning.search.space import SearchSpace
from tuning.workflows.train import as_recipe

SETTING_NAMES = (*NETWORK_AXES, *DEFAULT_PARAMS, "lr")


class RecordingTrial:
    """A trial that records its distributions and suggests the last choice or the upper bound."""

    def __init__(self) -> None:
        self.distributions: dict[str, object] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.distributions[name] = (low, high, log)
        return high

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:
        self.distributions[name] = tuple(choices)
        return choices[-1]


def distributions_of(settings: TrainingSettings, **kwargs: Any) -> dict[str, object]:
    """Return the distributions of the parameters that the space of a recipe suggests."""
    trial = RecordingTrial()
    SearchSpace(settings, **kwargs).suggest(trial)
    return trial.distributions


class EnqueuedTrial:
    """A trial that suggests given parameters, and asserts that each lies in its distribution."""

    def __init__(self, params: dict[str, ParamValue]) -> None:
        self.unused = dict(params)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del log
        value = float(self.unused.pop(name))
        assert low <= value <= high
        return value

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:
        value = self.unused.pop(name)
        assert value in choices
        return value


def test_the_settings_have_the_users_names() -> None:
    settings = SearchSpace(recipe()).suggest(RecordingTrial())
    assert tuple(settings) == SETTING_NAMES


def test_the_distributions_are_the_domains_of_the_recipe() -> None:
    distributions = distributions_of(recipe(freeze_fraction="0.25..0.75", batch_size="8,16", weight_decay="0.01"))
    assert distributions["freeze_fraction"] == (0.25, 0.75, False)
    assert distributions["batch_size"] == (8, 16)
    assert distributions["weight_decay"] == (0.01,)


@pytest.mark.parametrize(
    ("optimizer", "name", "rates"),
    [("adam", "lr", (1e-4, 1e-2, True)), ("adamw", "lr", (1e-4, 1e-2, True)), ("sgd", "sgd_lr", (1e-3, 1e-1, True))],
)
def test_each_optimizer_has_its_own_learning_rates(optimizer: str, name: str, rates: tuple[object, ...]) -> None:
    distributions = distributions_of(recipe(optimizer=optimizer))
    assert {key: value for key, value in distributions.items() if key.endswith("lr")} == {name: rates}


def test_the_learning_rate_of_sgd_is_called_lr_in_the_settings() -> None:
    settings = SearchSpace(recipe(optimizer="sgd")).suggest(RecordingTrial())
    assert settings["lr"] == 0.1
    assert "sgd_lr" not in settings


def test_learning_rates_of_the_recipe_apply_to_every_optimizer() -> None:
    for optimizer in ("sgd", "adam"):
        assert distributions_of(recipe(optimizer=optimizer, lr="0.01,0.02"))["lr"] == (0.01, 0.02)


def test_trial_0_has_the_expert_defaults() -> None:
    assert SearchSpace(recipe()).default_settings() == {
        **DEFAULT_PARAMS,
        "backbone": BACKBONE,
        "image_size": 32,
        "lr": 1e-3,
    }


def test_for_small_images_the_default_trains_the_whole_network() -> None:
    space = SearchSpace(recipe(image_size="32,64"), small_images=True)
    changed = {"freeze_fraction": 0, "lr_scheduler": "one_cycle", "lr": 2e-3}
    assert space.default_settings() == {**SearchSpace(recipe(image_size="32,64")).default_settings(), **changed}
    probe = space.suggest(EnqueuedTrial(space.linear_probes()[0]), is_probe=True)
    assert [params["freeze_fraction"] for params in space.fine_tunes(probe)] == [0.2]
    assert SearchSpace(recipe(freeze_fraction="0.5..1"), small_images=True).default_settings()["freeze_fraction"] == 0.5


@pytest.mark.parametrize(("imbalance_ratio", "is_searched"), [(1.0, False), (1.5, False), (1.6, True)])
def test_class_balance_is_searched_for_imbalanced_classes(imbalance_ratio: float, is_searched: bool) -> None:
    balances = distributions_of(recipe(), imbalance_ratio=imbalance_ratio)["balance"]
    assert isinstance(balances, tuple)
    assert set(balances) == ({"none", "weights", "sampler", "oversample"} if is_searched else {"none"})
    assert SearchSpace(recipe(), imbalance_ratio).default_settings()["balance"] == "none"


def test_the_class_balance_of_the_recipe_does_not_depend_on_the_imbalance() -> None:
    for imbalance_ratio in (1.0, 9.0):
        distributions = distributions_of(recipe(balance="weights"), imbalance_ratio=imbalance_ratio)
        assert distributions["balance"] == ("weights",)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"freeze_fraction": "0.7..0.9"}, "freeze_fraction", 0.7),
        ({"batch_size": "64,128"}, "batch_size", 64),
        ({"optimizer": "sgd"}, "lr", 1e-2),
        ({"optimizer": "sgd", "lr": "1e-4..1e-3"}, "lr", 1e-3),
        ({"optimizer": "sgd,adam"}, "optimizer", "sgd"),
        ({"augmentation": "strong"}, "augmentation", "strong"),
        ({"dropout": "0"}, "dropout", 0.0),
        ({"lr": "5e-3,7e-3"}, "lr", 5e-3),
    ],
)
def test_trial_0_is_clipped_to_a_narrowed_space(options: dict[str, str], name: str, value: object) -> None:
    assert SearchSpace(recipe(**options)).default_settings()[name] == value


def choices_of(*options: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(options), min_size=1, unique=True).map(",".join)


def numbers_in(low: float, high: float) -> st.SearchStrategy[str]:
    """Return values, choices and ranges within the bounds, as typed by a user."""
    values = st.lists(st.floats(low, high), min_size=1, max_size=3, unique=True)
    ranges = st.lists(st.floats(low, high), min_size=2, max_size=2, unique=True).map(sorted)
    return values.map(lambda numbers: ",".join(map(repr, numbers))) | ranges.map(
        lambda bounds: f"{bounds[0]!r}..{bounds[1]!r}"
    )


NARROWED = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": choices_of("adamw", "adam", "sgd"),
        "augmentation": choices_of("none", "light", "medium", "strong", "flip+crop+cutout"),
        "balance": choices_of("none", "weights", "sampler", "oversample"),
        "mix": choices_of("none", "mixup", "cutmix"),
        "lr_scheduler": choices_of("constant", "step", "cosine", "plateau"),
        "lr": numbers_in(1e-7, 5.0),
        "weight_decay": numbers_in(1e-6, 1.0),
        "freeze_fraction": numbers_in(0.0, 1.0),
        "dropout": numbers_in(0.0, 0.9),
        "batch_size": st.lists(st.integers(1, 4096), min_size=1, max_size=3, unique=True).map(
            lambda sizes: ",".join(map(str, sizes))
        ),
    },
)


@given(NARROWED)
def test_trial_0_lies_in_any_narrowed_space(options: dict[str, str]) -> None:
    space = SearchSpace(recipe(**options))
    trial = EnqueuedTrial(space.default_trials()[0])
    settings = space.suggest(trial)
    assert not trial.unused, "the default trial has a parameter that is not suggested"
    assert settings == space.default_settings()


@given(NARROWED)
def test_a_trial_configuration_has_the_settings_and_survives_a_json_round_trip(options: dict[str, str]) -> None:
    space = SearchSpace(recipe(**options, seed=7, max_epochs=5, weights="none"))
    settings = space.suggest(RecordingTrial())
    config = space.trial_config(settings, PREPROCESSINGS)
    parts = (config.network, config.batches, config.fit)
    values = {"image_size": config.preprocessing.image_size}
    values |= {name: value for part in parts for name, value in part.model_dump().items()}
    assert {name: values[name] for name in SETTING_NAMES} == settings
    assert TrialConfig.from_json(config.to_json()) == config


def test_a_trial_configuration_has_the_other_values_of_the_recipe() -> None:
    space = SearchSpace(
        recipe(
            seed=7,
            max_epochs=5,
            weights="none",
            patience=3,
            step_epochs=2,
            feature_cache="fp32",
            cached_augmentations=7,
        )
    )
    config = space.trial_config(space.default_settings(), PREPROCESSINGS)
    assert (config.seed, config.network.weights) == (7, "none")
    assert (config.fit.max_epochs, config.fit.patience, config.fit.step_epochs) == (5, 3, 2)
    assert (config.features.feature_cache, config.features.cached_augmentations) == ("fp32", 7)
    assert config.preprocessing == PREPROCESSINGS[BACKBONE, 32]


def test_a_trial_has_the_preprocessing_of_its_backbone_and_image_size() -> None:
    space = SearchSpace(recipe(backbone="small,large", image_size="32,64"))
    settings = space.suggest(RecordingTrial())
    means = {"small": (0.1, 0.1, 0.1), "large": (0.9, 0.9, 0.9)}
    preprocessings = {(name, size): Preprocessing(size, mean=mean) for name, mean in means.items() for size in (32, 64)}
    assert space.trial_config(settings, preprocessings).preprocessing == preprocessings["large", 64]


def test_there_is_a_linear_probe_for_each_backbone_image_size_and_truncation() -> None:
    space = SearchSpace(recipe(backbone="small,large", image_size="32,64", truncate="2,0,1,5"))
    probes = space.linear_probes()
    combinations = [(probe["truncate"], probe["backbone"], probe["image_size"]) for probe in probes]
    assert combinations == [
        (truncate, name, size) for truncate in (0, 1, 2) for name in ("small", "large") for size in (32, 64)
    ]
    settings = space.suggest(EnqueuedTrial(probes[-1]), is_probe=True)
    assert settings == {
        "image_size": 64,
        "backbone": "large",
        "truncate": 2,
        "head_features": "last",
        "freeze_fraction": 1.0,
        "augmentation": "none",
        "mix": "none",
        "balance": "none",
        "optimizer": "lbfgs",
        "head": "linear",
    }


def test_a_probe_is_fitted_at_once_and_refitted_unless_the_recipe_says_otherwise() -> None:
    for options, validation, refit in (
        ({}, "folds", True),
        ({"validation": "split"}, "split", False),
        ({"refit": "off"}, "folds", False),
    ):
        space = SearchSpace(recipe(**options))
        settings = space.suggest(EnqueuedTrial(space.linear_probes()[0]), is_probe=True)
        config = space.trial_config(settings, PREPROCESSINGS)
        assert config.is_probe
        assert (config.fit.max_epochs, config.fit.validation, config.fit.refit) == (1, validation, refit)


def test_the_settings_of_a_probe_train_it_again() -> None:
    space = SearchSpace(recipe())
    settings = space.suggest(EnqueuedTrial(space.linear_probes()[0]), is_probe=True)
    again = TrainingSettings.model_validate({name: str(value) for name, value in settings.items()})
    training_space = SearchSpace(again)
    config = training_space.trial_config(training_space.default_settings(), PREPROCESSINGS)
    assert config == space.trial_config(settings, PREPROCESSINGS)
    assert as_recipe(again).optimizer == again.optimizer


@pytest.mark.parametrize("changes", [{"augmentation": "light"}, {"optimizer": "adamw,lbfgs"}, {"head": "256"}])
def test_a_probe_needs_its_settings(changes: dict[str, str]) -> None:
    settings = {"optimizer": "lbfgs", "freeze_fraction": "1", "head": "linear", "augmentation": "none", "mix": "none"}
    TrainingSettings.model_validate(settings)
    with pytest.raises(ValidationError, match="optimizer=lbfgs must be the only optimizer and needs freeze_fraction=1"):
        TrainingSettings.model_validate(settings | changes)


def test_probes_are_trained_by_gradient_steps_if_a_regression_is_too_slow_or_the_head_is_not_linear() -> None:
    for space in (SearchSpace(recipe(), regression_probes=False), SearchSpace(recipe(head="256"))):
        settings = space.suggest(EnqueuedTrial(space.linear_probes()[0]), is_probe=True)
        assert (settings["optimizer"], settings["lr"]) == ("adamw", 3e-3)
        assert not space.trial_config(settings, PREPROCESSINGS).is_probe


@pytest.mark.parametrize(
    ("num_images", "num_classes", "budget_s", "is_allowed"),
    [(100, 6, 60, True), (1000, 6, 300, True), (5000, 6, 300, False), (5000, 6, 3600, True), (5000, 6, None, True),
     (2000, 1000, 300, False), (20_001, 2, None, False), (10_000, 100, None, False)],
)  # fmt: skip
def test_a_regression_takes_a_small_part_of_the_budget(
    num_images: int, num_classes: int, budget_s: float | None, is_allowed: bool
) -> None:
    assert allows_folds(num_images, num_classes, budget_s) == is_allowed


def test_probes_with_the_features_of_all_blocks_come_before_those_with_the_last() -> None:
    space = SearchSpace(recipe(image_size="32,64", truncate="0,3", head_features="last,all"))
    combinations = [
        (probe["head_features"], probe.get("truncate"), probe["image_size"]) for probe in space.linear_probes()
    ]
    assert combinations == [
        (*network_end, size) for network_end in (("all", None), ("last", 0), ("last", 3)) for size in (32, 64)
    ]
    probe = space.suggest(EnqueuedTrial(space.linear_probes()[0]), is_probe=True)
    network = space.trial_config(probe, PREPROCESSINGS).network
    assert (network.head_features, network.truncate) == ("all", 0)
    assert {params["freeze_fraction"] for params in space.fine_tunes(probe)} == {
        0.2
    }  # the other fraction is the default


@pytest.mark.parametrize(
    ("options", "balance"),
    [({}, "weights"), ({"balance": "none,weights"}, "weights"), ({"balance": "none,sampler"}, "none")],
)
def test_probes_weight_imbalanced_classes_if_the_recipe_allows_it(options: dict[str, str], balance: str) -> None:
    space = SearchSpace(recipe(**options), imbalance_ratio=4.0)
    settings = [space.suggest(EnqueuedTrial(probe), is_probe=True) for probe in space.linear_probes()]
    assert {probe["balance"] for probe in settings} == {balance}
    balanced = SearchSpace(recipe(), imbalance_ratio=1.0)
    assert balanced.suggest(EnqueuedTrial(balanced.linear_probes()[0]), is_probe=True)["balance"] == "none"


def test_warmup_probes_have_the_first_network_at_each_size_and_do_not_exist_for_small_images() -> None:
    options = {"image_size": "32,64", "truncate": "0,3"}
    probes = SearchSpace(recipe(**options)).warmup_probes()
    assert [(probe["image_size"], probe["truncate"]) for probe in probes] == [(32, 0), (64, 0)]
    small_images = SearchSpace(recipe(**options), small_images=True)
    assert len(small_images.linear_probes()) == 4
    assert small_images.warmup_probes() == []


def test_head_features_are_suggested_only_for_fully_frozen_splittable_backbones() -> None:
    def is_suggested(unsplittable: set[str], **options: str) -> bool:
        settings = recipe(head_features="last,all", **options)
        return "head_features" in distributions_of(settings, unsplittable=unsplittable)

    assert is_suggested(set(), freeze_fraction="1")
    assert not is_suggested(set(), freeze_fraction="0..0.9")
    assert not is_suggested({BACKBONE}, freeze_fraction="1")


def test_features_of_all_blocks_require_a_freeze_fraction_of_1() -> None:
    with pytest.raises(
        ValidationError, match=r"freeze_fraction must reach 1 with head_features=all, got 0\.\.0\.9; use"
    ):
        recipe(head_features="all", freeze_fraction="0..0.9")
    assert recipe(head_features="all").head_features.options == ("all",)


@pytest.mark.parametrize(
    "options",
    [
        {"sweep": "off"},
        {"feature_cache": "off"},
        {"balance": "oversample"},
        {"freeze_fraction": "0..0.9"},
        {"mix": "mixup"},
        {"augmentation": "light"},
    ],
)
def test_there_are_no_probes_if_their_features_are_not_cached_or_the_recipe_excludes_them(
    options: dict[str, str],
) -> None:
    assert SearchSpace(recipe(**options)).linear_probes() == []


@given(NARROWED)
def test_every_probe_lies_in_a_narrowed_space(options: dict[str, str]) -> None:
    space = SearchSpace(recipe(**options))
    for probe in space.linear_probes():
        trial = EnqueuedTrial(probe)
        space.suggest(trial, is_probe=True)
        assert not trial.unused


def test_an_unsplittable_backbone_is_not_probed() -> None:
    space = SearchSpace(recipe(backbone="small,large"), unsplittable={"large"})
    assert {probe["backbone"] for probe in space.linear_probes()} == {"small"}


@pytest.mark.parametrize(("mostly_trained", "fractions"), [(False, (0.5, 0.2)), (True, (0.0, 0.2))])
def test_fine_tunes_have_the_defaults_and_two_freeze_fractions(
    mostly_trained: bool, fractions: tuple[float, float]
) -> None:
    space = SearchSpace(recipe(backbone="small,large", image_size="32,64", truncate="0,1"))
    probe = space.suggest(EnqueuedTrial(space.linear_probes()[-1]), is_probe=True)
    network = {"backbone": "large", "image_size": 64, "truncate": 1}
    assert space.fine_tunes(probe, mostly_trained) == [
        {**space.default_trials()[0], **network, "freeze_fraction": fraction} for fraction in fractions
    ]


def test_fine_tunes_have_no_duplicates_of_the_default_or_of_each_other() -> None:
    space = SearchSpace(recipe())
    probe = space.suggest(EnqueuedTrial(space.linear_probes()[0]), is_probe=True)
    assert [params["freeze_fraction"] for params in space.fine_tunes(probe)] == [0.2]
    fully_frozen = SearchSpace(recipe(freeze_fraction="1", image_size="32,64"))
    probe = fully_frozen.suggest(EnqueuedTrial(fully_frozen.linear_probes()[-1]), is_probe=True)
    assert [params["freeze_fraction"] for params in fully_frozen.fine_tunes(probe)] == [1.0]


VARIANTS = [
    {"name": "whole", "settings": {"freeze_fraction": "0", "optimizer": "adam"}},
    {"name": "probe", "settings": {"freeze_fraction": "1", "optimizer": "sgd", "weights": "none", "patience": "3"}},
]


def test_the_variant_is_suggested_first_and_then_only_its_own_parameters() -> None:
    space = SearchSpace(recipe(variants=VARIANTS))
    trial = RecordingTrial()
    settings = space.suggest(trial)
    assert trial.distributions["variant"] == ("whole", "probe")
    assert {name.partition("@")[2] for name in trial.distributions} == {"", "probe"}
    assert (settings["variant"], settings["freeze_fraction"], settings["optimizer"]) == ("probe", 1.0, "sgd")
    config = space.trial_config(settings, PREPROCESSINGS)
    assert (config.network.weights, config.fit.patience) == ("none", 3)


def test_trial_0_belongs_to_the_first_variant() -> None:
    settings = SearchSpace(recipe(variants=VARIANTS)).default_settings()
    assert (settings["variant"], settings["freeze_fraction"], settings["optimizer"]) == ("whole", 0.0, "adam")


def test_each_variant_without_probes_has_a_default_trial() -> None:
    def default_variants(**options: object) -> list[object]:
        trials = SearchSpace(recipe(variants=VARIANTS, **options)).default_trials()
        return [params["variant"] for params in trials]

    assert default_variants() == ["whole"]
    assert default_variants(sweep="off") == ["whole", "probe"]
    assert default_variants(feature_cache="off") == ["whole", "probe"]


def test_there_are_not_more_default_trials_than_trials() -> None:
    assert len(SearchSpace(recipe(variants=VARIANTS, sweep="off")).default_trials()) == 2
    assert len(SearchSpace(recipe(variants=VARIANTS, sweep="off", trials="1")).default_trials()) == 1


def test_only_a_variant_that_allows_full_freezing_is_probed() -> None:
    space = SearchSpace(recipe(variants=VARIANTS))
    assert {probe["variant"] for probe in space.linear_probes()} == {"probe"}
