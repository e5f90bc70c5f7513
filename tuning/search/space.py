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
from tuning.common.trial_record import Setting
from tuning.recipe.domains import Choice, Domain, Range
from tuning.recipe.schema import Recipe, Training
from tuning.search.defaults import (
    ADAM_LR,
    BALANCES,
    FINE_TUNED,
    FIRST,
    FIRST_LR,
    FIRST_TINY,
    IMBALANCED,
    NETWORKS,
    PROBE,
    PROBE_BALANCES,
    PROBE_LR,
    PROBED,
    SGD_LR,
    SWEPT_CUTS,
    TINY_LR,
    UNFROZEN,
)

Preprocessings = Mapping[tuple[str, int], Preprocessing]  # by backbone and image size


class Asker(Protocol):
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
        self, recipe: Training, imbalance: float = 1.0, uncut: Collection[str] = (), *, tiny: bool = False
    ) -> None:
        """Take a recipe whose networks, sizes and cuts are known.

        ``imbalance`` is how many times the largest class has the smallest's pictures, ``uncut`` are the networks that
        can't be cut in two: nothing of them is kept, so they are not probed. Of ``tiny`` pictures
        the default freezes nothing and takes larger steps.
        """
        self._recipe = recipe
        variants = recipe.variants if isinstance(recipe, Recipe) else ()
        parts = {variant.name: recipe.varied(variant) for variant in variants} if isinstance(recipe, Recipe) else {}
        self._tiny = tiny
        self._rates = TINY_LR if tiny else FIRST_LR
        first = {**FIRST, **(FIRST_TINY if tiny else {})}
        named = {name: _Corner(part, imbalance, uncut, first, f"@{name}") for name, part in parts.items()}
        self._corners = named or {"": _Corner(recipe, imbalance, uncut, first)}

    def suggest(self, asker: Asker, *, probe: bool = False) -> dict[str, Setting]:
        """Ask for the settings of one trial, or of a probe, and return them under the names that the user knows."""
        if "" in self._corners:
            return self._corners[""].suggest(asker, probe)
        variant = str(asker.suggest_categorical(VARIANT, tuple(self._corners)))
        return {VARIANT: variant, **self._corners[variant].suggest(asker, probe)}

    def first(self) -> dict[str, Setting]:
        """Return the default's settings, moved into the recipe's limits, under the sampler's names."""
        return self._named(next(iter(self._corners)), {})

    def first_settings(self) -> dict[str, Setting]:
        """Return the default's settings under the names that the user knows."""
        return self.suggest(_Fixed(self.first()))

    def defaults(self) -> list[dict[str, Setting]]:
        """Return the default's settings, and those of other variants that the sweep leaves out: all are compared."""
        swept = {probe.get(VARIANT) for probe in self.sweep()}
        left_out = [name for name in list(self._corners)[1:] if name not in swept]
        every = [self.first(), *(self._named(name, {}) for name in left_out)]
        return every[: self._recipe.most_trials] if isinstance(self._recipe, Recipe) else every

    def sweep(self) -> list[dict[str, Setting]]:
        """Return linear probes of all networks, image sizes and cuts, where a probe costs next to nothing.

        There are none where the features that it needs aren't kept, or the freeze line may not lie at the end.
        """
        if not (isinstance(self._recipe, Recipe) and self._recipe.sweep):
            return []
        probes = [(name, probe) for name, corner in self._corners.items() for probe in corner.probes()]
        return [self._named(name, {**PROBE, **probe}, probe) for name, probe in probes]

    def opening(self) -> list[dict[str, Setting]]:
        """Return the probes of the sweep that come before the default: its first network's first, at each image size.

        They take seconds, and often lead for minutes. Of tiny pictures there are none: those need other features, and
        the default, which trains all of the network, needs the time.
        """

        def network(probe: Mapping[str, Setting]) -> dict[str, Setting]:
            return {name: setting for name, setting in probe.items() if not name.startswith("image_size")}

        swept = [] if self._tiny else self.sweep()
        return [probe for probe in swept if network(probe) == network(swept[0])]

    def fine_tunes(self, probe: Mapping[str, Setting], unfrozen: bool = False) -> list[dict[str, Setting]]:
        """Return the default's settings on a probe's network, image size and cut, with ``FINE_TUNED`` blocks frozen.

        Where ``unfrozen``, and of tiny pictures, with ``UNFROZEN`` blocks. ``probe`` has settings as ``suggest`` gives
        them. What is the default again is left out.
        """
        fractions = UNFROZEN if unfrozen or self._tiny else FINE_TUNED
        network, variant = {name: probe[name] for name in PROBED["last"]}, str(probe.get(VARIANT, ""))
        tuned = [self._named(variant, {**network, "freeze_fraction": fraction}) for fraction in fractions]
        known = self.defaults()
        return [settings for at, settings in enumerate(tuned) if settings not in known + tuned[:at]]

    def near(self, config: TrialConfig) -> dict[str, Setting]:
        """Return another search's settings, moved into the recipe's limits, under the sampler's names.

        They go to the first variant that has their network, or to the first of all.
        """
        every = {**config.batches.model_dump(), **config.network.model_dump(), **config.fit.model_dump()}
        every["image_size"] = config.preprocessing.image_size
        having = [name for name, corner in self._corners.items() if corner.has_network(every["backbone"])]
        variant = having[0] if having else next(iter(self._corners))
        wanted = {name: every[name] for name in (*NETWORKS, *FIRST)}
        return self._named(variant, wanted, rates={**self._rates, every["optimizer"]: every["lr"]})

    def _named(
        self,
        variant: str,
        wanted: Mapping[str, Setting],
        only: Iterable[str] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> dict[str, Setting]:
        corner, mark = self._corners[variant], {VARIANT: variant} if variant else {}
        settings = corner.nearest(wanted, rates or self._rates)
        return {**mark, **corner.named({name: settings[name] for name in settings if only is None or name in only})}

    def trial_config(self, settings: Mapping[str, Setting], preprocessings: Preprocessings) -> TrialConfig:
        """Return the whole configuration of the trial that has these ``settings``, as ``suggest`` returns them."""
        recipe = self._corners[str(settings.get(VARIANT, ""))].recipe
        fixed = {name: getattr(recipe, name) for name in ("weights", "max_epochs", "patience", "step_epochs")}
        every = {**fixed, **settings}
        return TrialConfig(
            seed=recipe.seed,
            preprocessing=preprocessings[str(settings["backbone"]), int(settings["image_size"])],
            batches=BatchConfig.model_validate(_pick(every, BatchConfig.model_fields)),
            network=NetworkConfig.model_validate(_pick(every, NetworkConfig.model_fields)),
            features=FeaturesConfig(reuse=recipe.reuse, views=recipe.views),
            fit=FitConfig.model_validate(_pick(every, FitConfig.model_fields)),
        )


class _Corner:
    """The settings of a recipe without variants, or of one variant, whose names in the study end in ``suffix``."""

    def __init__(
        self,
        recipe: Training,
        imbalance: float,
        uncut: Collection[str],
        first: Mapping[str, Setting],
        suffix: str = "",
    ) -> None:
        self.recipe = recipe
        self._first = first
        self._uncut = uncut
        self._suffix = suffix
        self._domains: dict[str, Domain] = {name: getattr(recipe, name) for name in (*NETWORKS, *FIRST)}
        if recipe.balance is None:
            self._domains["balance"] = BALANCES if imbalance > IMBALANCED else Choice(options=("none",))

    def suggest(self, asker: Asker, probe: bool) -> dict[str, Setting]:
        if probe:
            return self._suggest_probe(asker)
        settings: dict[str, Setting] = {}
        for name, domain in self._domains.items():
            asked = name != "levels" or self._sees_levels(settings)
            settings[name] = _ask(asker, name + self._suffix, domain) if asked else "last"
        optimizer = str(settings["optimizer"])
        settings["lr"] = _ask(asker, self._lr_name(optimizer) + self._suffix, self._lr_domain(optimizer))
        return settings

    def _suggest_probe(self, asker: Asker) -> dict[str, Setting]:
        def ask(name: str) -> Setting:
            return _ask(asker, name + self._suffix, self._domains[name])

        levels = str(ask("levels"))
        settings = {"levels": levels, **{name: ask(name) for name in PROBED[levels]}}
        return self.nearest({**self._probe(), **settings}, PROBE_LR)

    def nearest(self, wanted: Mapping[str, Setting], rates: Mapping[str, float]) -> dict[str, Setting]:
        """Return the settings nearest to those wanted, else to the default's; ``rates`` are by optimizer."""
        firsts = {name: domain.options[0] for name, domain in self._domains.items() if domain.options}
        near = {**firsts, **self._first, **wanted}
        settings = {name: domain.nearest(near[name]) for name, domain in self._domains.items()}
        if not self._sees_levels(settings):
            settings["levels"] = "last"
        optimizer = str(settings["optimizer"])
        settings["lr"] = self._lr_domain(optimizer).nearest(rates[optimizer])
        return settings

    def has_network(self, backbone: str) -> bool:
        """Return whether this network is searched here."""
        return backbone in self._domains["backbone"].options

    def named(self, settings: Mapping[str, Setting]) -> dict[str, Setting]:
        """Return settings under the sampler's names, those that ``suggest`` asks for."""
        lr_name = self._lr_name(str(settings.get("optimizer", "")))
        asked = [name for name in settings if name != "levels" or self._sees_levels(settings)]
        names = {name: lr_name if name == "lr" else name for name in asked}
        return {names[name] + self._suffix: settings[name] for name in asked}

    def _probe(self) -> dict[str, Setting]:
        """Return what is the same in all probes."""
        options = self._domains["balance"].options
        balances = (balance for balance in PROBE_BALANCES if balance in options)
        return {**PROBE, "balance": next(balances, PROBE_BALANCES[-1])}

    def probes(self) -> Iterator[dict[str, Setting]]:
        allowed = all(self._domains[name].nearest(setting) == setting for name, setting in self._probe().items())
        if self.recipe.reuse == "off" or not allowed:
            return
        swept: dict[str, list[Any]] = {name: list(self._domains[name].options) for name in PROBED["last"]}
        swept["truncate"] = sorted(swept["truncate"])[:SWEPT_CUTS]
        for levels in (one for one in PROBED if one in self._domains["levels"].options):
            for combination in itertools.product(*(swept[name] for name in PROBED[levels])):
                probe = dict(zip(PROBED[levels], combination, strict=True))
                if probe["backbone"] not in self._uncut:
                    yield {"levels": levels, **probe}

    def _sees_levels(self, settings: Mapping[str, Setting]) -> bool:
        """Return whether a head may see all levels: of a network that can be cut, frozen whole as a probe's is."""
        return settings.get("freeze_fraction", 1.0) == 1 and settings["backbone"] not in self._uncut

    def _lr_name(self, optimizer: str) -> str:
        # SGD's rates lie elsewhere: one name for both would tell the sampler that they mean the same.
        return "sgd_lr" if optimizer == "sgd" and self.recipe.lr is None else "lr"

    def _lr_domain(self, optimizer: str) -> Domain:
        if self.recipe.lr is not None:
            return self.recipe.lr
        return SGD_LR if optimizer == "sgd" else ADAM_LR


class _Fixed:
    """Answers with given settings."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = settings

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del low, high, log
        return float(self._settings[name])

    def suggest_categorical(self, name: str, choices: tuple[Setting, ...], /) -> Setting:
        del choices
        return self._settings[name]


def _ask(asker: Asker, name: str, domain: Domain) -> Setting:
    if isinstance(domain, Range):
        return asker.suggest_float(name, domain.low, domain.high, log=domain.log)
    setting: Setting = asker.suggest_categorical(name, domain.options)
    return setting


def _pick(settings: Mapping[str, Setting], names: Mapping[str, object]) -> dict[str, Setting]:
    return {name: setting for name, setting in settings.items() if name in names}
