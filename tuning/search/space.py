"""The search space: the parameters that Optuna samples, and the trial configuration built from them.

Define-by-run: a parameter is only suggested if it applies, so that the sampler learns from the values that were used.
"Settings" are values under the user's option names, "params" are the same values under their names in the study.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from models.heads.spec import LINEAR
from models.trial_config import UNUSED_BY_PROBES, FeaturesConfig, FitConfig, NetworkConfig, TrialConfig
from tuning.common.names import VARIANT
from tuning.common.option_types import ParamValue
from tuning.recipe.domains import Categorical, Domain, FloatRange
from tuning.recipe.schema import PROBE_OPTIMIZER, Recipe, TrainingSettings
from tuning.search.defaults import (
    ADAM_LR,
    CLASS_BALANCES,
    DEFAULT_LR,
    DEFAULT_PARAMS,
    FINE_TUNE_FRACTIONS,
    IMBALANCE_RATIO,
    MAX_PROBED_TRUNCATIONS,
    MOSTLY_TRAINED_FRACTIONS,
    NETWORK_AXES,
    PROBE_AXES,
    PROBE_BALANCES,
    PROBE_IMAGES_SETTING,
    PROBE_LR,
    PROBE_PARAMS,
    REGRESSION_PARAMS,
    SGD_LR,
    SMALL_IMAGE_DEFAULTS,
    SMALL_IMAGE_LR,
)
from tuning.search.start_trial import StartTrial

Preprocessings = Mapping[tuple[str, int], Preprocessing]  # by backbone and image size


class SuggestTrial(Protocol):
    """The part of ``optuna.Trial`` that the space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from ``low`` to ``high``."""

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:  # noqa: ANN401  # overloaded in Optuna
        """Return one of ``choices``."""


class SearchSpace:
    """The domains of a recipe's settings; immutable.

    ``suggest`` samples the settings of one trial. ``default_trials``, ``linear_probes`` and ``fine_tunes`` return the
    parameters of trials that run before the sampler proposes any.
    """

    def __init__(
        self,
        recipe: TrainingSettings,
        imbalance_ratio: float = 1.0,
        unsplittable: Collection[str] = (),
        *,
        small_images: bool = False,
        regression_probes: bool = True,
        probe_images: tuple[int, ...] = (),
        max_probe_images: float = math.inf,
    ) -> None:
        """Create the space.

        Args:
            recipe: a recipe without ``auto`` values.
            imbalance_ratio: number of images of the largest class divided by that of the smallest.
            unsplittable: backbones without cut points; their features cannot be cached, so they are not probed.
            small_images: whether images are upscaled; then the default freezes no block and uses larger learning rates.
            regression_probes: whether linear probes are fitted by logistic regression instead of by gradient steps.
            probe_images: numbers of training images on which probes are fitted, ascending; empty: on all. A resumed
                search must have the same, because Optuna requires it.
            max_probe_images: the largest of them for which there is time.
        """
        self._recipe = recipe
        self._small_images = small_images
        self._learning_rates = SMALL_IMAGE_LR if small_images else DEFAULT_LR
        defaults = {**DEFAULT_PARAMS, **(SMALL_IMAGE_DEFAULTS if small_images else {})}
        variants = (
            {variant.name: recipe.with_variant(variant) for variant in recipe.variants}
            if isinstance(recipe, Recipe)
            else {}
        )
        probes = (regression_probes, probe_images, max_probe_images)
        self._variant_spaces = {
            name: _VariantSpace(variant, imbalance_ratio, unsplittable, defaults, *probes, f"@{name}")
            for name, variant in variants.items()
        } or {"": _VariantSpace(recipe, imbalance_ratio, unsplittable, defaults, *probes)}

    def suggest(self, trial: SuggestTrial, *, is_probe: bool = False) -> dict[str, ParamValue]:
        """Sample the settings of one trial, or of a linear probe."""
        if "" in self._variant_spaces:
            return self._variant_spaces[""].suggest(trial, is_probe)
        variant = str(trial.suggest_categorical(VARIANT, tuple(self._variant_spaces)))
        return {VARIANT: variant, **self._variant_spaces[variant].suggest(trial, is_probe)}

    def default_settings(self) -> dict[str, ParamValue]:
        """Return the settings of the default trial, clipped to the recipe's domains."""
        name, space = next(iter(self._variant_spaces.items()))
        return {**({VARIANT: name} if name else {}), **space.clip({}, self._learning_rates)}

    def largest_configs(self, preprocessings: Preprocessings) -> list[TrialConfig]:
        """Return for each backbone a configuration that needs the most memory: all blocks are trained."""
        configs = []
        for space in self._variant_spaces.values():
            for backbone in space.backbones:
                size = max(size for name, size in preprocessings if name == backbone)
                wanted: dict[str, ParamValue] = {
                    "backbone": backbone,
                    "image_size": size,
                    "freeze_fraction": 0.0,
                    "batch_size": 10**9,
                }
                settings = space.clip({"truncate": 0, **wanted}, self._learning_rates)
                variant = {VARIANT: space.name} if space.name else {}
                configs.append(self.trial_config({**variant, **settings}, preprocessings))
        return configs

    def default_trials(self) -> list[dict[str, ParamValue]]:
        """Return the parameters of the default trial, and of one default trial per variant without linear probes."""
        probed_variants = {probe.get(VARIANT) for probe in self.linear_probes()}
        first, *others = self._variant_spaces
        variants = [first, *(name for name in others if name not in probed_variants)]
        trials = [self._to_study_params(name, {}) for name in variants]
        return trials[: self._recipe.max_trials] if isinstance(self._recipe, Recipe) else trials

    def start_trials(self) -> list[StartTrial]:
        """Return the configurations that the search starts from, those of the recipe's ``start_settings``."""
        starts = self._recipe.start_settings if isinstance(self._recipe, Recipe) else ()
        return [self._start_trial(str(start.get(VARIANT, "")), start) for start in starts]

    def _start_trial(self, variant: str, start: Mapping[str, ParamValue]) -> StartTrial:
        space = self._variant_spaces[variant]
        given = space.applicable({name: value for name, value in start.items() if name != VARIANT})
        if given.get("optimizer") == PROBE_OPTIMIZER:
            axes = ("head_features", *PROBE_AXES[str(given["head_features"])], PROBE_IMAGES_SETTING)
            wanted = {name: given[name] for name in axes if name in given}
            params = self._to_study_params(variant, {**PROBE_PARAMS, **wanted}, wanted)
        else:
            rates = {str(given["optimizer"]): float(given["lr"])} if "lr" in given else {}
            wanted = {**space.clip(given, {**self._learning_rates, **rates}), **given}
            given, params = wanted, self._to_study_params(variant, given, learning_rates=rates)
        prefix: dict[str, ParamValue] = {VARIANT: variant} if variant else {}
        is_inside = params == {**prefix, **space.to_study_params(wanted)} and space.has_probe_settings(given)
        return StartTrial(params, {**prefix, **given}, is_inside)

    def linear_probes(self) -> list[dict[str, ParamValue]]:
        """Return the parameters of linear probes of all backbones, image sizes and truncations.

        Empty if the recipe disables the probes, the feature cache is off, or the recipe excludes the probes' settings.
        """
        if not (isinstance(self._recipe, Recipe) and self._recipe.sweep):
            return []
        probes = [(name, probe) for name, space in self._variant_spaces.items() for probe in space.linear_probes()]
        return [self._to_study_params(name, {**PROBE_PARAMS, **probe}, probe) for name, probe in probes]

    def probe_on_more_images(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue] | None:
        """Return the parameters of a linear probe with the next larger number of images; None for the largest."""
        return self._variant_spaces[str(params.get(VARIANT, ""))].probe_on_more_images(params)

    def warmup_probes(self) -> list[dict[str, ParamValue]]:
        """Return the linear probes that run before the default: the first network at every image size.

        They take seconds and often lead for minutes. Small images have none: they need features of their own domain,
        and the default, which trains the whole network, needs the time.
        """

        def without_image_size(probe: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
            return {name: value for name, value in probe.items() if not name.startswith("image_size")}

        probes = [] if self._small_images else self.linear_probes()
        return [probe for probe in probes if without_image_size(probe) == without_image_size(probes[0])]

    def fine_tunes(self, probe: Mapping[str, ParamValue], mostly_trained: bool = False) -> list[dict[str, ParamValue]]:
        """Return the parameters of fine-tunes: the defaults with a probe's backbone, image size and truncation.

        Duplicates of the default trials are left out. ``MOSTLY_TRAINED_FRACTIONS`` instead of ``FINE_TUNE_FRACTIONS``
        of the blocks are frozen if ``mostly_trained``, and always for small images.
        """
        fractions = MOSTLY_TRAINED_FRACTIONS if mostly_trained or self._small_images else FINE_TUNE_FRACTIONS
        network, variant = {name: probe[name] for name in PROBE_AXES["last"]}, str(probe.get(VARIANT, ""))
        trials = [self._to_study_params(variant, {**network, "freeze_fraction": fraction}) for fraction in fractions]
        defaults = self.default_trials()
        return [params for index, params in enumerate(trials) if params not in defaults + trials[:index]]

    def _to_study_params(
        self,
        variant: str,
        settings: Mapping[str, ParamValue],
        only: Iterable[str] | None = None,
        learning_rates: Mapping[str, float] | None = None,
    ) -> dict[str, ParamValue]:
        """Complete settings with the defaults, clip them to the domains, and return them, or ``only`` some."""
        space, prefix = self._variant_spaces[variant], {VARIANT: variant} if variant else {}
        clipped = space.clip(settings, {**self._learning_rates, **(learning_rates or {})})
        selected = {name: value for name, value in clipped.items() if only is None or name in only}
        selected |= {name: settings[name] for name in (PROBE_IMAGES_SETTING,) if name in settings}
        return {**prefix, **space.to_study_params(selected)}

    def trial_config(self, settings: Mapping[str, ParamValue], preprocessings: Preprocessings) -> TrialConfig:
        """Return the complete configuration of a trial with the ``settings`` returned by ``suggest``."""
        recipe = self._variant_spaces[str(settings.get(VARIANT, ""))].recipe
        fixed = {name: getattr(recipe, name) for name in ("weights", "max_epochs", "patience", "step_epochs")}
        values = {**fixed, **settings, "trained_precision": "bf16" if recipe.precision == "bf16" else "fp32"}
        images_per_epoch = settings.get(PROBE_IMAGES_SETTING, recipe.images_per_epoch)
        if values["optimizer"] == PROBE_OPTIMIZER:
            values = {name: value for name, value in values.items() if name not in UNUSED_BY_PROBES}
            has_folds = recipe.validation != "split"
            values |= {"max_epochs": 1, "validation": "folds" if has_folds else "split"}
            values["refit"] = has_folds and recipe.refit == "auto"
        return TrialConfig(
            seed=recipe.seed,
            images_per_epoch=int(images_per_epoch or 0) or None,
            preprocessing=preprocessings[str(settings["backbone"]), int(settings["image_size"])],
            batches=BatchConfig.model_validate(_pick(values, BatchConfig.model_fields)),
            network=NetworkConfig.model_validate(_pick(values, NetworkConfig.model_fields)),
            features=FeaturesConfig(
                feature_cache=recipe.feature_cache,
                cached_augmentations=recipe.cached_augmentations,
                frozen_precision="bf16" if recipe.precision in ("bf16", "bf16-frozen") else "fp32",
            ),
            fit=FitConfig.model_validate(_pick(values, FitConfig.model_fields)),
        )


class _VariantSpace:
    """The domains of a recipe without variants, or of one variant, whose parameter names end with ``suffix``."""

    def __init__(
        self,
        recipe: TrainingSettings,
        imbalance_ratio: float,
        unsplittable: Collection[str],
        defaults: Mapping[str, ParamValue],
        regression_probes: bool,
        probe_images: tuple[int, ...],
        max_probe_images: float,
        suffix: str = "",
    ) -> None:
        self.recipe = recipe
        self._probe_images = probe_images
        self._affordable = tuple(count for count in probe_images if count <= max_probe_images)
        self._regression_probes = regression_probes and LINEAR in recipe.head.options
        self._defaults = defaults
        self._unsplittable = unsplittable
        self._suffix = suffix
        self.name = suffix.removeprefix("@")
        self._domains: dict[str, Domain] = {name: getattr(recipe, name) for name in (*NETWORK_AXES, *DEFAULT_PARAMS)}
        if recipe.balance is None:
            is_imbalanced = imbalance_ratio > IMBALANCE_RATIO
            self._domains["balance"] = CLASS_BALANCES if is_imbalanced else Categorical(options=("none",))

    @property
    def backbones(self) -> list[str]:
        return [str(backbone) for backbone in self._domains["backbone"].options]

    def suggest(self, trial: SuggestTrial, is_probe: bool) -> dict[str, ParamValue]:
        if is_probe:
            return self._suggest_probe(trial)
        settings: dict[str, ParamValue] = {}
        for name, domain in self._domains.items():
            is_suggested = name != "head_features" or self._allows_all_features(settings)
            settings[name] = _suggest(trial, name + self._suffix, domain) if is_suggested else "last"
        optimizer = str(settings["optimizer"])
        settings["lr"] = _suggest(trial, self._lr_name(optimizer) + self._suffix, self._lr_domain(optimizer))
        return settings

    def _suggest_probe(self, trial: SuggestTrial) -> dict[str, ParamValue]:
        def suggest(name: str) -> ParamValue:
            return _suggest(trial, name + self._suffix, self._domains[name])

        head_features = str(suggest("head_features"))
        settings = {"head_features": head_features, **{name: suggest(name) for name in PROBE_AXES[head_features]}}
        settings |= self._shared_probe_settings()
        clipped = self.clip(settings, PROBE_LR)
        if not self._regression_probes:
            return clipped
        # Only settings that apply: a fit to convergence has no learning rate, batches or dropout.
        chosen = {name: clipped[name] for name in (*PROBE_AXES["last"], *settings)} | dict(REGRESSION_PARAMS)
        if self._probe_images:
            options = Categorical(options=self._probe_images)
            chosen[PROBE_IMAGES_SETTING] = _suggest(trial, PROBE_IMAGES_SETTING + self._suffix, options)
        return chosen

    def clip(self, settings: Mapping[str, ParamValue], learning_rates: Mapping[str, float]) -> dict[str, ParamValue]:
        """Return the settings, completed with the defaults, each moved to the nearest value of its domain."""
        first_options = {name: domain.options[0] for name, domain in self._domains.items() if domain.options}
        values = {**first_options, **self._defaults, **settings}
        clipped = {name: domain.clip(values[name]) for name, domain in self._domains.items()}
        if not self._allows_all_features(clipped):
            clipped["head_features"] = "last"
        optimizer = str(clipped["optimizer"])
        clipped["lr"] = self._lr_domain(optimizer).clip(learning_rates.get(optimizer, ADAM_LR.low))
        return clipped

    def applicable(self, settings: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Return the settings of a configuration as this search trains it.

        A linear probe is fitted on one of the search's numbers of images; or it is trained by gradient steps with the
        defaults, if there are too many images or classes for a fit.
        """
        given = {name: value for name, value in settings.items() if name != PROBE_IMAGES_SETTING}
        if settings.get("optimizer") != PROBE_OPTIMIZER:
            return given
        if not self._regression_probes:
            return {name: value for name, value in given.items() if name not in REGRESSION_PARAMS}
        if self._affordable:
            images = settings.get(PROBE_IMAGES_SETTING, self._affordable[-1])
            given[PROBE_IMAGES_SETTING] = Categorical(options=self._affordable).clip(images)
        return given

    def has_probe_settings(self, settings: Mapping[str, ParamValue]) -> bool:
        """Return whether the settings of a linear probe that are not searched are those of all probes; else True."""
        shared = self._shared_probe_settings() if settings.get("optimizer") == PROBE_OPTIMIZER else {}
        return all(settings.get(name) == value for name, value in shared.items())

    def to_study_params(self, settings: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Return the settings that ``suggest`` samples, under their names in the study."""
        lr_name = self._lr_name(str(settings.get("optimizer", "")))
        sampled = [name for name in settings if name != "head_features" or self._allows_all_features(settings)]
        names = {name: lr_name if name == "lr" else name for name in sampled}
        return {names[name] + self._suffix: settings[name] for name in sampled}

    def _shared_probe_settings(self) -> dict[str, ParamValue]:
        """Return the settings that are the same in all linear probes."""
        options = self._domains["balance"].options
        balances = (balance for balance in PROBE_BALANCES if balance in options)
        return {**PROBE_PARAMS, "balance": next(balances, PROBE_BALANCES[-1])}

    def linear_probes(self) -> Iterator[dict[str, ParamValue]]:
        """Yield the settings of linear probes that differ between them."""
        shared = self._shared_probe_settings()
        is_allowed = all(self._domains[name].clip(value) == value for name, value in shared.items())
        if self.recipe.feature_cache == "off" or not is_allowed:
            return
        options: dict[str, list[Any]] = {name: list(self._domains[name].options) for name in PROBE_AXES["last"]}
        options["truncate"] = sorted(options["truncate"])[:MAX_PROBED_TRUNCATIONS]
        for head_features, axes in PROBE_AXES.items():
            if head_features not in self._domains["head_features"].options:
                continue
            for combination in itertools.product(*(options[name] for name in axes)):
                probe = dict(zip(axes, combination, strict=True))
                if self._probe_images and self._regression_probes:
                    probe[PROBE_IMAGES_SETTING] = self._probe_images[0]
                if probe["backbone"] not in self._unsplittable:
                    yield {"head_features": head_features, **probe}

    def probe_on_more_images(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue] | None:
        name = PROBE_IMAGES_SETTING + self._suffix
        larger = [count for count in self._affordable if name in params and count > int(params[name])]
        return {**params, name: larger[0]} if larger else None

    def _allows_all_features(self, settings: Mapping[str, ParamValue]) -> bool:
        """Return whether the head may use features of all blocks: only a fully frozen, splittable backbone."""
        return settings.get("freeze_fraction", 1.0) == 1 and settings["backbone"] not in self._unsplittable

    def _lr_name(self, optimizer: str) -> str:
        # SGD uses larger rates, and a common name would tell the sampler that equal values have equal effects.
        return "sgd_lr" if optimizer == "sgd" and self.recipe.lr is None else "lr"

    def _lr_domain(self, optimizer: str) -> Domain:
        if self.recipe.lr is not None:
            return self.recipe.lr
        return SGD_LR if optimizer == "sgd" else ADAM_LR


def _suggest(trial: SuggestTrial, name: str, domain: Domain) -> ParamValue:
    if isinstance(domain, FloatRange):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    value: ParamValue = trial.suggest_categorical(name, domain.options)
    return value


def _pick(values: Mapping[str, ParamValue], names: Mapping[str, object]) -> dict[str, ParamValue]:
    return {name: value for name, value in values.items() if name in names}
