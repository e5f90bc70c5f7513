"""The search space: what Optuna is asked for, and the trial's configuration that follows from its answer.

Define-by-run: a setting is asked for only where it applies, so that the sampler learns from what a trial used.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from models.trial_config import FeaturesConfig, FitConfig, NetworkConfig, TrialConfig
from tuning.common.names import VARIANT
from tuning.common.trial_record import ParamValue
from tuning.recipe.domains import Categorical, Domain, FloatRange
from tuning.recipe.schema import Recipe, TrainingSettings
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
    PROBE_LR,
    PROBE_PARAMS,
    SGD_LR,
    SMALL_IMAGE_DEFAULTS,
    SMALL_IMAGE_LR,
)

Preprocessings = Mapping[tuple[str, int], Preprocessing]  # by backbone and image size


class SuggestTrial(Protocol):
    """The part of ``optuna.Trial`` that the space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from ``low`` to ``high``."""

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:  # noqa: ANN401  # overloaded in Optuna
        """Return one of ``choices``."""


class SearchSpace:
    """Where each setting of a recipe may lie; immutable.

    ``suggest`` asks for the settings of one trial and returns them under the names that the user knows. ``defaults``,
    ``sweep`` and ``fine_tunes`` give settings to try before the sampler chooses, in the sampler's own names.
    """

    def __init__(
        self,
        recipe: TrainingSettings,
        imbalance_ratio: float = 1.0,
        unsplittable: Collection[str] = (),
        *,
        small_images: bool = False,
    ) -> None:
        """Take a recipe whose networks, sizes and cuts are known.

        ``imbalance`` is how many times the largest class has the smallest's pictures, ``uncut`` are the networks that
        can't be cut in two: nothing of them is kept, so they are not probed. Of ``tiny`` pictures
        the default freezes nothing and takes larger steps.
        """
        self._recipe = recipe
        variants = recipe.variants if isinstance(recipe, Recipe) else ()
        parts = (
            {variant.name: recipe.with_variant(variant) for variant in variants} if isinstance(recipe, Recipe) else {}
        )
        self._small_images = small_images
        self._learning_rates = SMALL_IMAGE_LR if small_images else DEFAULT_LR
        first = {**DEFAULT_PARAMS, **(SMALL_IMAGE_DEFAULTS if small_images else {})}
        named = {
            name: _VariantSpace(part, imbalance_ratio, unsplittable, first, f"@{name}") for name, part in parts.items()
        }
        self._variant_spaces = named or {"": _VariantSpace(recipe, imbalance_ratio, unsplittable, first)}

    def suggest(self, trial: SuggestTrial, *, is_probe: bool = False) -> dict[str, ParamValue]:
        """Ask for the settings of one trial, or of a probe, and return them under the names that the user knows."""
        if "" in self._variant_spaces:
            return self._variant_spaces[""].suggest(trial, is_probe)
        variant = str(trial.suggest_categorical(VARIANT, tuple(self._variant_spaces)))
        return {VARIANT: variant, **self._variant_spaces[variant].suggest(trial, is_probe)}

    def default_params(self) -> dict[str, ParamValue]:
        """Return the default's settings, moved into the recipe's limits, under the sampler's names."""
        return self._to_study_params(next(iter(self._variant_spaces)), {})

    def default_settings(self) -> dict[str, ParamValue]:
        """Return the default's settings under the names that the user knows."""
        return self.suggest(_FixedTrial(self.default_params()))

    def default_trials(self) -> list[dict[str, ParamValue]]:
        """Return the default's settings, and those of other variants that the sweep leaves out: all are compared."""
        swept = {probe.get(VARIANT) for probe in self.linear_probes()}
        left_out = [name for name in list(self._variant_spaces)[1:] if name not in swept]
        every = [self.default_params(), *(self._to_study_params(name, {}) for name in left_out)]
        return every[: self._recipe.max_trials] if isinstance(self._recipe, Recipe) else every

    def linear_probes(self) -> list[dict[str, ParamValue]]:
        """Return linear probes of all networks, image sizes and cuts, where a probe costs next to nothing.

        There are none where the features that it needs aren't kept, or the freeze line may not lie at the end.
        """
        if not (isinstance(self._recipe, Recipe) and self._recipe.sweep):
            return []
        probes = [(name, probe) for name, corner in self._variant_spaces.items() for probe in corner.linear_probes()]
        return [self._to_study_params(name, {**PROBE_PARAMS, **probe}, probe) for name, probe in probes]

    def warmup_probes(self) -> list[dict[str, ParamValue]]:
        """Return the probes of the sweep that come before the default: its first network's first, at each image size.

        They take seconds, and often lead for minutes. Of tiny pictures there are none: those need other features, and
        the default, which trains all of the network, needs the time.
        """

        def network(probe: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
            return {name: setting for name, setting in probe.items() if not name.startswith("image_size")}

        swept = [] if self._small_images else self.linear_probes()
        return [probe for probe in swept if network(probe) == network(swept[0])]

    def fine_tunes(self, probe: Mapping[str, ParamValue], mostly_trained: bool = False) -> list[dict[str, ParamValue]]:
        """Return the default's settings on a probe's network, image size and cut, with ``FINE_TUNED`` blocks frozen.

        Where ``unfrozen``, and of tiny pictures, with ``MOSTLY_TRAINED_FRACTIONS`` blocks. ``probe`` has settings as ``suggest`` gives
        them. What is the default again is left out.
        """
        fractions = MOSTLY_TRAINED_FRACTIONS if mostly_trained or self._small_images else FINE_TUNE_FRACTIONS
        network, variant = {name: probe[name] for name in PROBE_AXES["last"]}, str(probe.get(VARIANT, ""))
        tuned = [self._to_study_params(variant, {**network, "freeze_fraction": fraction}) for fraction in fractions]
        known = self.default_trials()
        return [settings for at, settings in enumerate(tuned) if settings not in known + tuned[:at]]

    def project_config(self, config: TrialConfig) -> dict[str, ParamValue]:
        """Return another search's settings, moved into the recipe's limits, under the sampler's names.

        They go to the first variant that has their network, or to the first of all.
        """
        every = {**config.batches.model_dump(), **config.network.model_dump(), **config.fit.model_dump()}
        every["image_size"] = config.preprocessing.image_size
        having = [name for name, corner in self._variant_spaces.items() if corner.has_network(every["backbone"])]
        variant = having[0] if having else next(iter(self._variant_spaces))
        wanted = {name: every[name] for name in (*NETWORK_AXES, *DEFAULT_PARAMS)}
        return self._to_study_params(
            variant, wanted, learning_rates={**self._learning_rates, every["optimizer"]: every["lr"]}
        )

    def _to_study_params(
        self,
        variant: str,
        settings: Mapping[str, ParamValue],
        only: Iterable[str] | None = None,
        learning_rates: Mapping[str, float] | None = None,
    ) -> dict[str, ParamValue]:
        """Return the settings, completed by defaults and moved into the limits, as parameters of the study.

        Args:
            variant: name of the variant; empty without variants.
            settings: under the user's names; missing ones are the defaults.
            only: names of the settings to return; None: all.
            learning_rates: by optimizer.
        """
        space, prefix = self._variant_spaces[variant], {VARIANT: variant} if variant else {}
        clipped = space.clip(settings, learning_rates or self._learning_rates)
        selected = {name: value for name, value in clipped.items() if only is None or name in only}
        return {**prefix, **space.to_study_params(selected)}

    def trial_config(self, settings: Mapping[str, ParamValue], preprocessings: Preprocessings) -> TrialConfig:
        """Return the whole configuration of the trial that has these ``settings``, as ``suggest`` returns them."""
        recipe = self._variant_spaces[str(settings.get(VARIANT, ""))].recipe
        fixed = {name: getattr(recipe, name) for name in ("weights", "max_epochs", "patience", "step_epochs")}
        every = {**fixed, **settings}
        return TrialConfig(
            seed=recipe.seed,
            preprocessing=preprocessings[str(settings["backbone"]), int(settings["image_size"])],
            batches=BatchConfig.model_validate(_pick(every, BatchConfig.model_fields)),
            network=NetworkConfig.model_validate(_pick(every, NetworkConfig.model_fields)),
            features=FeaturesConfig(
                feature_cache=recipe.feature_cache, cached_augmentations=recipe.cached_augmentations
            ),
            fit=FitConfig.model_validate(_pick(every, FitConfig.model_fields)),
        )


class _VariantSpace:
    """The settings of a recipe without variants, or of one variant, whose names in the study end in ``suffix``."""

    def __init__(
        self,
        recipe: TrainingSettings,
        imbalance: float,
        unsplittable: Collection[str],
        first: Mapping[str, ParamValue],
        suffix: str = "",
    ) -> None:
        self.recipe = recipe
        self._defaults = first
        self._unsplittable = unsplittable
        self._suffix = suffix
        self._domains: dict[str, Domain] = {name: getattr(recipe, name) for name in (*NETWORK_AXES, *DEFAULT_PARAMS)}
        if recipe.balance is None:
            self._domains["balance"] = CLASS_BALANCES if imbalance > IMBALANCE_RATIO else Categorical(options=("none",))

    def suggest(self, trial: SuggestTrial, is_probe: bool) -> dict[str, ParamValue]:
        if is_probe:
            return self._suggest_probe(trial)
        settings: dict[str, ParamValue] = {}
        for name, domain in self._domains.items():
            asked = name != "head_features" or self._uses_head_features(settings)
            settings[name] = _suggest(trial, name + self._suffix, domain) if asked else "last"
        optimizer = str(settings["optimizer"])
        settings["lr"] = _suggest(trial, self._lr_name(optimizer) + self._suffix, self._lr_domain(optimizer))
        return settings

    def _suggest_probe(self, trial: SuggestTrial) -> dict[str, ParamValue]:
        def ask(name: str) -> ParamValue:
            return _suggest(trial, name + self._suffix, self._domains[name])

        levels = str(ask("head_features"))
        settings = {"head_features": levels, **{name: ask(name) for name in PROBE_AXES[levels]}}
        return self.clip({**self._shared_probe_settings(), **settings}, PROBE_LR)

    def clip(self, wanted: Mapping[str, ParamValue], rates: Mapping[str, float]) -> dict[str, ParamValue]:
        """Return the settings nearest to those wanted, else to the default's; ``rates`` are by optimizer."""
        firsts = {name: domain.options[0] for name, domain in self._domains.items() if domain.options}
        near = {**firsts, **self._defaults, **wanted}
        settings = {name: domain.clip(near[name]) for name, domain in self._domains.items()}
        if not self._uses_head_features(settings):
            settings["head_features"] = "last"
        optimizer = str(settings["optimizer"])
        settings["lr"] = self._lr_domain(optimizer).clip(rates[optimizer])
        return settings

    def has_network(self, backbone: str) -> bool:
        """Return whether this network is searched here."""
        return backbone in self._domains["backbone"].options

    def to_study_params(self, settings: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Return settings under the sampler's names, those that ``suggest`` asks for."""
        lr_name = self._lr_name(str(settings.get("optimizer", "")))
        asked = [name for name in settings if name != "head_features" or self._uses_head_features(settings)]
        names = {name: lr_name if name == "lr" else name for name in asked}
        return {names[name] + self._suffix: settings[name] for name in asked}

    def _shared_probe_settings(self) -> dict[str, ParamValue]:
        """Return what is the same in all probes."""
        options = self._domains["balance"].options
        balances = (balance for balance in PROBE_BALANCES if balance in options)
        return {**PROBE_PARAMS, "balance": next(balances, PROBE_BALANCES[-1])}

    def linear_probes(self) -> Iterator[dict[str, ParamValue]]:
        allowed = all(
            self._domains[name].clip(setting) == setting for name, setting in self._shared_probe_settings().items()
        )
        if self.recipe.feature_cache == "off" or not allowed:
            return
        swept: dict[str, list[Any]] = {name: list(self._domains[name].options) for name in PROBE_AXES["last"]}
        swept["truncate"] = sorted(swept["truncate"])[:MAX_PROBED_TRUNCATIONS]
        for levels in (one for one in PROBE_AXES if one in self._domains["head_features"].options):
            for combination in itertools.product(*(swept[name] for name in PROBE_AXES[levels])):
                probe = dict(zip(PROBE_AXES[levels], combination, strict=True))
                if probe["backbone"] not in self._unsplittable:
                    yield {"head_features": levels, **probe}

    def _uses_head_features(self, settings: Mapping[str, ParamValue]) -> bool:
        """Return whether a head may see all levels: of a network that can be cut, frozen whole as a probe's is."""
        return settings.get("freeze_fraction", 1.0) == 1 and settings["backbone"] not in self._unsplittable

    def _lr_name(self, optimizer: str) -> str:
        # SGD's rates lie elsewhere: one name for both would tell the sampler that they mean the same.
        return "sgd_lr" if optimizer == "sgd" and self.recipe.lr is None else "lr"

    def _lr_domain(self, optimizer: str) -> Domain:
        if self.recipe.lr is not None:
            return self.recipe.lr
        return SGD_LR if optimizer == "sgd" else ADAM_LR


class _FixedTrial:
    """Answers with given settings."""

    def __init__(self, settings: Mapping[str, ParamValue]) -> None:
        self._settings = settings

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del low, high, log
        return float(self._settings[name])

    def suggest_categorical(self, name: str, choices: tuple[ParamValue, ...], /) -> ParamValue:
        del choices
        return self._settings[name]


def _suggest(asker: SuggestTrial, name: str, domain: Domain) -> ParamValue:
    if isinstance(domain, FloatRange):
        return asker.suggest_float(name, domain.low, domain.high, log=domain.log)
    setting: ParamValue = asker.suggest_categorical(name, domain.options)
    return setting


def _pick(settings: Mapping[str, ParamValue], names: Mapping[str, object]) -> dict[str, ParamValue]:
    return {name: setting for name, setting in settings.items() if name in names}
