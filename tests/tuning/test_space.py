"""The search space: what is asked for, what the default is, and the configuration that follows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data.preprocessing import Preprocessing
from models.trial_config import TrialConfig
from tests.tuning.factories import BACKBONE, PREPROCESSINGS, recipe
from tuning.common.trial_record import ParamValue
from tuning.recipe.schema import TrainingSettings
from tuning.search.defaults import DEFAULT_PARAMS, NETWORK_AXES
from tuning.search.space import SearchSpace

KNOWN = (*NETWORK_AXES, *DEFAULT_PARAMS, "lr")


class Recorder:
    """An asker that remembers what it was asked and answers with the last choice or the upper end."""

    def __init__(self) -> None:
        self.asked: dict[str, object] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked[name] = (low, high, log)
        return high

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:
        self.asked[name] = tuple(choices)
        return choices[-1]


def asked_for(given_recipe: TrainingSettings) -> dict[str, object]:
    recorder = Recorder()
    SearchSpace(given_recipe).suggest(recorder)
    return recorder.asked


class Inside:
    """An asker that answers with given settings, and refuses what does not lie where it may lie."""

    def __init__(self, settings: dict[str, ParamValue]) -> None:
        self.left = dict(settings)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del log
        value = float(self.left.pop(name))
        assert low <= value <= high
        return value

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:
        value = self.left.pop(name)
        assert value in choices
        return value


def test_every_setting_is_asked_for_once_under_the_names_of_the_user() -> None:
    settings = SearchSpace(recipe()).suggest(Recorder())
    assert tuple(settings) == KNOWN


def test_the_domains_of_the_recipe_are_what_is_asked_for() -> None:
    asked = asked_for(recipe(freeze_fraction="0.25..0.75", batch_size="8,16", weight_decay="0.01"))
    assert asked["freeze_fraction"] == (0.25, 0.75, False)
    assert asked["batch_size"] == (8, 16)
    assert asked["weight_decay"] == (0.01,)


@pytest.mark.parametrize(
    ("optimizer", "name", "rates"),
    [("adam", "lr", (1e-4, 1e-2, True)), ("adamw", "lr", (1e-4, 1e-2, True)), ("sgd", "sgd_lr", (1e-3, 1e-1, True))],
)
def test_each_optimizer_has_its_own_learning_rates(optimizer: str, name: str, rates: tuple[object, ...]) -> None:
    asked = asked_for(recipe(optimizer=optimizer))
    assert {key: value for key, value in asked.items() if key.endswith("lr")} == {name: rates}


def test_sgds_rate_is_called_lr_in_the_settings() -> None:
    settings = SearchSpace(recipe(optimizer="sgd")).suggest(Recorder())
    assert settings["lr"] == 0.1
    assert "sgd_lr" not in settings


def test_rates_that_the_user_gives_hold_for_every_optimizer() -> None:
    for optimizer in ("sgd", "adam"):
        assert asked_for(recipe(optimizer=optimizer, lr="0.01,0.02"))["lr"] == (0.01, 0.02)


def test_trial_0_is_what_an_expert_tries_first() -> None:
    assert SearchSpace(recipe()).default_settings() == {
        **DEFAULT_PARAMS,
        "backbone": BACKBONE,
        "image_size": 32,
        "lr": 1e-3,
    }


def test_of_tiny_pictures_the_default_trains_the_whole_network() -> None:
    space = SearchSpace(recipe(image_size="32,64"), small_images=True)
    changed = {"freeze_fraction": 0, "lr_scheduler": "one_cycle", "lr": 2e-3}
    assert space.default_settings() == {**SearchSpace(recipe(image_size="32,64")).default_settings(), **changed}
    probe = space.suggest(Inside(space.linear_probes()[0]), is_probe=True)
    assert [tuned["freeze_fraction"] for tuned in space.fine_tunes(probe)] == [0.2]
    assert SearchSpace(recipe(freeze_fraction="0.5..1"), small_images=True).default_settings()["freeze_fraction"] == 0.5


@pytest.mark.parametrize(("imbalance", "searched"), [(1.0, False), (1.5, False), (1.6, True)])
def test_balance_is_searched_where_the_classes_differ_in_size(imbalance: float, searched: bool) -> None:
    recorder = Recorder()
    space = SearchSpace(recipe(), imbalance)
    space.suggest(recorder)
    balances = recorder.asked["balance"]
    assert isinstance(balances, tuple)
    assert set(balances) == ({"none", "weights", "sampler", "oversample"} if searched else {"none"})
    assert space.default_settings()["balance"] == "none"


def test_a_balance_that_the_user_gives_holds_whatever_the_classes_sizes() -> None:
    for imbalance in (1.0, 9.0):
        recorder = Recorder()
        SearchSpace(recipe(balance="weights"), imbalance).suggest(recorder)
        assert recorder.asked["balance"] == ("weights",)


@pytest.mark.parametrize(
    ("texts", "name", "value"),
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
def test_trial_0_is_moved_into_a_narrowed_space(texts: dict[str, str], name: str, value: object) -> None:
    assert SearchSpace(recipe(**texts)).default_settings()[name] == value


def some_of(*known: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(known), min_size=1, unique=True).map(",".join)


def numbers_within(low: float, high: float) -> st.SearchStrategy[str]:
    """Return values, choices and ranges within the limits, as a user types them."""
    values = st.lists(st.floats(low, high), min_size=1, max_size=3, unique=True)
    ranges = st.lists(st.floats(low, high), min_size=2, max_size=2, unique=True).map(sorted)
    return values.map(lambda some: ",".join(map(repr, some))) | ranges.map(lambda ends: f"{ends[0]!r}..{ends[1]!r}")


narrowed = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": some_of("adamw", "adam", "sgd"),
        "augmentation": some_of("none", "light", "medium", "strong", "flip+crop+cutout"),
        "balance": some_of("none", "weights", "sampler", "oversample"),
        "mix": some_of("none", "mixup", "cutmix"),
        "lr_scheduler": some_of("constant", "step", "cosine", "plateau"),
        "lr": numbers_within(1e-7, 5.0),
        "weight_decay": numbers_within(1e-6, 1.0),
        "freeze_fraction": numbers_within(0.0, 1.0),
        "dropout": numbers_within(0.0, 0.9),
        "batch_size": st.lists(st.integers(1, 4096), min_size=1, max_size=3, unique=True).map(
            lambda sizes: ",".join(map(str, sizes))
        ),
    },
)


@given(narrowed)
def test_trial_0_lies_inside_any_narrowed_space(texts: dict[str, str]) -> None:
    space = SearchSpace(recipe(**texts))
    asker = Inside(space.default_params())
    settings = space.suggest(asker)
    assert not asker.left, "first() names what is never asked for"
    assert settings == space.default_settings()


@given(narrowed)
def test_a_trials_configuration_holds_its_settings_and_survives_its_own_json(texts: dict[str, str]) -> None:
    space = SearchSpace(recipe(**texts, seed=7, max_epochs=5, weights="none"))
    settings = space.suggest(Recorder())
    config = space.trial_config(settings, PREPROCESSINGS)
    parts = (config.network, config.batches, config.fit)
    held = {"image_size": config.preprocessing.image_size}
    held |= {name: value for part in parts for name, value in part.model_dump().items()}
    assert {name: held[name] for name in KNOWN} == settings
    assert TrialConfig.from_json(config.to_json()) == config


def test_a_trials_configuration_takes_the_rest_from_the_recipe() -> None:
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
    assert (config.features.feature_cache, config.features.cached_augmentations) == ("exact", 7)
    assert config.preprocessing == PREPROCESSINGS[BACKBONE, 32]


def test_a_trial_gets_the_preprocessing_of_its_own_backbone_and_size() -> None:
    space = SearchSpace(recipe(backbone="small,large", image_size="32,64"))
    settings = space.suggest(Recorder())
    means = {"small": (0.1, 0.1, 0.1), "large": (0.9, 0.9, 0.9)}
    known = {(name, size): Preprocessing(size, mean=mean) for name, mean in means.items() for size in (32, 64)}
    assert space.trial_config(settings, known).preprocessing == known["large", 64]


def test_the_sweep_probes_every_network_size_and_cut() -> None:
    space = SearchSpace(recipe(backbone="small,large", image_size="32,64", truncate="2,0,1,5"))
    probes = space.linear_probes()
    swept = [(probe["truncate"], probe["backbone"], probe["image_size"]) for probe in probes]
    assert swept == [(cut, name, size) for cut in (0, 1, 2) for name in ("small", "large") for size in (32, 64)]
    settings = space.suggest(Inside(probes[-1]), is_probe=True)
    assert settings == {
        **DEFAULT_PARAMS,
        "image_size": 64,
        "backbone": "large",
        "truncate": 2,
        "freeze_fraction": 1.0,
        "augmentation": "none",
        "lr": 3e-3,
    }


def test_the_sweep_probes_all_levels_of_each_network_and_size_before_its_cuts() -> None:
    space = SearchSpace(recipe(image_size="32,64", truncate="0,3", head_features="last,all"))
    swept = [(probe["head_features"], probe.get("truncate"), probe["image_size"]) for probe in space.linear_probes()]
    assert swept == [(*end, size) for end in (("all", None), ("last", 0), ("last", 3)) for size in (32, 64)]
    probe = space.suggest(Inside(space.linear_probes()[0]), is_probe=True)
    network = space.trial_config(probe, PREPROCESSINGS).network
    assert (network.head_features, network.truncate) == ("all", 0)
    assert {tuned["freeze_fraction"] for tuned in space.fine_tunes(probe)} == {0.2}  # the other one is the default


@pytest.mark.parametrize(
    ("texts", "probed"),
    [({}, "weights"), ({"balance": "none,weights"}, "weights"), ({"balance": "none,sampler"}, "none")],
)
def test_probes_weigh_unequal_classes_where_the_recipe_allows_it(texts: dict[str, str], probed: str) -> None:
    space = SearchSpace(recipe(**texts), imbalance_ratio=4.0)
    assert {space.suggest(Inside(probe), is_probe=True)["balance"] for probe in space.linear_probes()} == {probed}
    equal = SearchSpace(recipe(), imbalance_ratio=1.0)
    assert equal.suggest(Inside(equal.linear_probes()[0]), is_probe=True)["balance"] == "none"


def test_a_search_opens_with_its_first_network_at_each_size_but_not_of_tiny_pictures() -> None:
    texts = {"image_size": "32,64", "truncate": "0,3"}
    opening = SearchSpace(recipe(**texts)).warmup_probes()
    assert [(probe["image_size"], probe["truncate"]) for probe in opening] == [(32, 0), (64, 0)]
    tiny = SearchSpace(recipe(**texts), small_images=True)
    assert len(tiny.linear_probes()) == 4
    assert tiny.warmup_probes() == []


def test_levels_are_asked_for_only_where_all_is_frozen_of_a_network_in_parts() -> None:
    def asked(uncut: set[str], **texts: str) -> ParamValue | None:
        recorder = Recorder()
        SearchSpace(recipe(head_features="last,all", **texts), unsplittable=uncut).suggest(recorder)
        return "head_features" in recorder.asked

    assert asked(set(), freeze_fraction="1")
    assert not asked(set(), freeze_fraction="0..0.9")
    assert not asked({BACKBONE}, freeze_fraction="1")


def test_all_levels_alone_are_refused_where_nothing_can_be_frozen_whole() -> None:
    with pytest.raises(
        ValidationError, match=r"freeze_fraction must reach 1 with head_features=all, got 0\.\.0\.9; give"
    ):
        recipe(head_features="all", freeze_fraction="0..0.9")
    assert recipe(head_features="all").head_features.options == ("all",)


@pytest.mark.parametrize(
    "texts",
    [
        {"sweep": "off"},
        {"feature_cache": "off"},
        {"balance": "oversample"},
        {"freeze_fraction": "0..0.9"},
        {"mix": "mixup"},
        {"augmentation": "light"},
    ],
)
def test_there_is_no_sweep_where_a_probe_would_cost_a_trial_or_is_not_allowed(texts: dict[str, str]) -> None:
    assert SearchSpace(recipe(**texts)).linear_probes() == []


@given(narrowed)
def test_every_probe_lies_inside_a_narrowed_space(texts: dict[str, str]) -> None:
    space = SearchSpace(recipe(**texts))
    for probe in space.linear_probes():
        asker = Inside(probe)
        space.suggest(asker, is_probe=True)
        assert not asker.left


def test_a_network_that_cannot_be_cut_is_not_probed() -> None:
    space = SearchSpace(recipe(backbone="small,large"), unsplittable={"large"})
    assert {probe["backbone"] for probe in space.linear_probes()} == {"small"}


@pytest.mark.parametrize(("unfrozen", "fractions"), [(False, (0.5, 0.2)), (True, (0.0, 0.2))])
def test_the_best_probe_is_fine_tuned_as_trial_0_is_and_with_less_frozen(
    unfrozen: bool, fractions: tuple[float, float]
) -> None:
    space = SearchSpace(recipe(backbone="small,large", image_size="32,64", truncate="0,1"))
    probe = space.suggest(Inside(space.linear_probes()[-1]), is_probe=True)
    network = {"backbone": "large", "image_size": 64, "truncate": 1}
    assert space.fine_tunes(probe, unfrozen) == [
        {**space.default_params(), **network, "freeze_fraction": fraction} for fraction in fractions
    ]


def test_what_has_run_as_trial_0_or_is_the_same_is_not_fine_tuned_again() -> None:
    space = SearchSpace(recipe())
    probe = space.suggest(Inside(space.linear_probes()[0]), is_probe=True)
    assert [settings["freeze_fraction"] for settings in space.fine_tunes(probe)] == [0.2]
    fixed = SearchSpace(recipe(freeze_fraction="1", image_size="32,64"))
    probe = fixed.suggest(Inside(fixed.linear_probes()[-1]), is_probe=True)
    assert [settings["freeze_fraction"] for settings in fixed.fine_tunes(probe)] == [1.0]


TWO = [
    {"name": "whole", "settings": {"freeze_fraction": "0", "optimizer": "adam"}},
    {"name": "probe", "settings": {"freeze_fraction": "1", "optimizer": "sgd", "weights": "none", "patience": "3"}},
]


def test_a_variant_is_asked_for_first_and_then_only_its_own_settings() -> None:
    space = SearchSpace(recipe(variants=TWO))
    recorder = Recorder()
    settings = space.suggest(recorder)
    assert recorder.asked["variant"] == ("whole", "probe")
    assert {name.partition("@")[2] for name in recorder.asked} == {"", "probe"}
    assert (settings["variant"], settings["freeze_fraction"], settings["optimizer"]) == ("probe", 1.0, "sgd")
    config = space.trial_config(settings, PREPROCESSINGS)
    assert (config.network.weights, config.fit.patience) == ("none", 3)


def test_trial_0_is_the_first_variants() -> None:
    settings = SearchSpace(recipe(variants=TWO)).default_settings()
    assert (settings["variant"], settings["freeze_fraction"], settings["optimizer"]) == ("whole", 0.0, "adam")


def test_each_variant_that_the_sweep_leaves_out_has_a_default_of_its_own() -> None:
    def named(**texts: object) -> list[object]:
        return [start["variant"] for start in SearchSpace(recipe(variants=TWO, **texts)).default_trials()]

    assert named() == ["whole"]
    assert named(sweep="off") == ["whole", "probe"]
    assert named(feature_cache="off") == ["whole", "probe"]


def test_no_more_variants_are_tried_first_than_trials_were_asked_for() -> None:
    assert len(SearchSpace(recipe(variants=TWO, sweep="off")).default_trials()) == 2
    assert len(SearchSpace(recipe(variants=TWO, sweep="off", trials="1")).default_trials()) == 1


def test_only_a_variant_that_may_freeze_all_is_swept() -> None:
    space = SearchSpace(recipe(variants=TWO))
    assert {probe["variant"] for probe in space.linear_probes()} == {"probe"}


@given(narrowed, narrowed)
def test_the_best_of_another_search_lies_inside_any_space_and_is_itself_where_it_may_be(
    texts: dict[str, str], others: dict[str, str]
) -> None:
    other = SearchSpace(recipe(**others))
    settings = other.suggest(Recorder())
    config = other.trial_config(settings, PREPROCESSINGS)
    space = SearchSpace(recipe(**texts))
    asker = Inside(space.project_config(config))
    moved = space.suggest(asker)
    assert not asker.left, "near() names what is never asked for"
    assert space.trial_config(moved, PREPROCESSINGS).network.backbone == BACKBONE
    back = SearchSpace(recipe(**others))
    assert back.suggest(Inside(back.project_config(config))) == settings


def test_a_rate_of_another_search_is_taken_with_its_optimizer_and_else_left() -> None:
    other = SearchSpace(recipe(optimizer="sgd", lr="0.07"))
    config = other.trial_config(other.default_settings(), PREPROCESSINGS)
    assert SearchSpace(recipe()).project_config(config)["sgd_lr"] == 0.07
    assert SearchSpace(recipe(optimizer="adam")).project_config(config)["lr"] == 1e-3


def test_the_best_of_another_search_goes_to_the_variant_that_has_its_network() -> None:
    variants = [{"name": name, "settings": {"backbone": name}} for name in ("small", BACKBONE)]
    space = SearchSpace(recipe(variants=variants))
    config = SearchSpace(recipe()).trial_config(SearchSpace(recipe()).default_settings(), PREPROCESSINGS)
    elsewhere = config.model_copy(update={"network": config.network.model_copy(update={"backbone": "unknown"})})
    assert [space.project_config(one)["variant"] for one in (config, elsewhere)] == [BACKBONE, "small"]
