"""The first proposals of seeded searches whose scores follow from a formula."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data.preprocessing import Preprocessing
from models.trial_config import TrialConfig
from tests.tuning.factories import epoch_report
from tuning.cli.parser import parse_args
from tuning.common.option_types import ParamValue
from tuning.common.search_paths import SearchPaths
from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe
from tuning.search.space import SearchSpace, SuggestTrial
from tuning.search.strategy import Proposal, SearchState, SearchStrategy
from tuning.search.study import open_trial_store

NUM_VAL_IMAGES = 100
NUM_SAMPLED = 30  # recorded proposals of the sampler for each recipe, after the enqueued trials

RECIPES = {
    "default": ("--backbone=tf_efficientnet_lite0,tf_efficientnet_lite1", "--image_size=64,96", "--truncate=0,3"),
    "emotions": ("--recipe=emotions",),
    "efficient": ("--recipe=efficient",),  # has variants
}

# Optuna samples the parameters of a trial in alphabetical order, so a new name changes the proposals. Renamed
# parameters are recorded, and proposed here, under their original names.
RECORDED_NAMES: Mapping[str, str] = {"head_features": "levels", "layer_decay": "lr_decay"}

RECORDED_VALUES: Mapping[str, str] = {"flip+rotate": "flip+turn"}


def recorded_name(name: str) -> str:
    parameter, mark, variant = name.partition("@")
    return RECORDED_NAMES.get(parameter, parameter) + mark + variant


def recorded_value(value: ParamValue) -> ParamValue:
    return RECORDED_VALUES.get(value, value) if isinstance(value, str) else value


class _RecordedNames:
    """An ``optuna.Trial`` whose parameters have their recorded names."""

    def __init__(self, trial: SuggestTrial) -> None:
        self._trial = trial

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self._trial.suggest_float(recorded_name(name), low, high, log=log)

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:
        return self._trial.suggest_categorical(recorded_name(name), choices)


class _Space(SearchSpace):
    """A search space whose parameters have their recorded names in the study."""

    def suggest(self, trial: SuggestTrial, *, is_probe: bool = False) -> dict[str, ParamValue]:
        return super().suggest(_RecordedNames(trial), is_probe=is_probe)

    def _to_study_params(
        self,
        variant: str,
        settings: Mapping[str, ParamValue],
        only: Iterable[str] | None = None,
    ) -> dict[str, ParamValue]:
        params = super()._to_study_params(variant, settings, only)
        return {recorded_name(name): value for name, value in params.items()}


def score(config: TrialConfig) -> float:
    """Return a score with an optimum in learning rate, freeze line and image size, and a little noise."""
    network, fit = config.network, config.fit
    size = config.preprocessing.image_size
    distance = abs(network.freeze_fraction - 0.4) + 10 * abs(fit.lr - 2e-3) + network.truncate / 20
    return round(0.5 + 0.3 / (1 + distance) + 0.1 * size / (size + 64) + 0.01 * (hash_of(fit.lr) % 7) / 7, 6)


def hash_of(number: float) -> int:
    return int(number * 1e9)


def proposals(recipe: Recipe, root: Path) -> list[dict[str, ParamValue]]:
    """Return the settings of all trials up to the sampler's thirtieth; every fifth trial is pruned."""
    space = _Space(recipe, imbalance_ratio=2.0, regression_probes=False)  # the recorded probes have learning rates
    pairs = [(str(name), int(size)) for part in variants(recipe) for name in options(part.backbone)
             for size in options(part.image_size)]  # fmt: skip
    preprocessings = {pair: Preprocessing(pair[1]) for pair in pairs}

    def make_config(settings: Mapping[str, ParamValue]) -> TrialConfig:
        return space.trial_config(settings, preprocessings)

    store = open_trial_store(SearchPaths(root), space, make_config, recipe.seed, recipe.sampler)
    strategy = SearchStrategy(recipe.model_copy(update={"trials": 1000}), space, NUM_VAL_IMAGES)
    rows: list[dict[str, ParamValue]] = []
    num_sampled = 0
    while num_sampled < NUM_SAMPLED:
        step = strategy.next(SearchState(store.trials()))
        assert isinstance(step, Proposal)
        trial = store.start(step)
        num_sampled += trial.origin == "sampler"
        rows.append({recorded_name(name): recorded_value(value) for name, value in sorted(trial.settings.items())})
        is_pruned = trial.number % 5 == 4
        store.report(trial.trial_uid, epoch_report(1, score(trial.config)))
        store.finish(trial.trial_uid, "pruned" if is_pruned else "complete", "recorded")
    return rows


def options(domain: Any) -> tuple[ParamValue, ...]:
    return domain.options if domain is not None else ()


def variants(recipe: Recipe) -> list[Recipe]:
    return [recipe.with_variant(variant) for variant in recipe.variants] or [recipe]


def all_proposals() -> dict[str, list[dict[str, ParamValue]]]:
    """Return the proposals of every recorded recipe."""
    recorded = {}
    for name, arguments in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            recorded[name] = proposals(load_recipe(*parse_args(Recipe, arguments)), Path(folder))
    return recorded
