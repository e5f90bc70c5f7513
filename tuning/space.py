"""The search space: what Optuna is asked for, and the trial's configuration that follows from its answer.

Define-by-run: a setting is asked for only where it applies, so that the sampler learns from what a trial used.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Protocol

from data.balance import Balance
from data.batches import BatchConfig
from data.preprocess import Preprocessing
from models.classifier import NetworkConfig
from models.config import TrialConfig
from models.fit import FitConfig
from tuning.domains import Choice, Domain, Range, Setting
from tuning.recipe import Training

# Learning rates that fine-tune: Adam's steps are of unit size whatever the gradient, SGD's are not.
ADAM_LR = Range(low=1e-4, high=1e-2, log=True)
SGD_LR = Range(low=1e-3, high=1e-1, log=True)

# Class balance is searched where the largest class has so many times the pictures of the smallest.
IMBALANCED = 1.5
BALANCES = Choice(options=typing.get_args(Balance))

# What an expert tries first: decoupled weight decay, half of the network kept, a cosine to the end.
# Trial 0 runs it, so that a search can never end worse than it on the validation pictures.
FIRST: Mapping[str, Setting] = {
    "freeze_fraction": 0.5,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "lr_scheduler": "cosine",
    "batch_size": 32,
    "dropout": 0.2,
    "augmentation": "light",
    "balance": "none",
    "mix": "none",
}
FIRST_LR: Mapping[str, float] = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2}


class Asker(Protocol):
    """The part of ``optuna.Trial`` that the space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from ``low`` to ``high``."""

    def suggest_categorical(self, name: str, choices: Any, /) -> Any:  # noqa: ANN401  # overloaded in Optuna
        """Return one of ``choices``."""


class SearchSpace:
    """Where each setting of a recipe may lie; immutable.

    ``suggest`` asks for the settings of one trial; ``first`` gives those of trial 0, in the sampler's own names.
    """

    def __init__(self, recipe: Training, imbalance: float = 1.0) -> None:
        """Take the recipe, and how many training pictures the largest class has for one of the smallest."""
        self._recipe = recipe
        self._domains: dict[str, Domain] = {name: getattr(recipe, name) for name in ("backbone", *FIRST)}
        if recipe.balance is None:
            self._domains["balance"] = BALANCES if imbalance > IMBALANCED else Choice(options=("none",))

    def suggest(self, asker: Asker) -> dict[str, Setting]:
        """Ask for the settings of one trial and return them under the names that the user knows."""
        settings = {name: _ask(asker, name, domain) for name, domain in self._domains.items()}
        optimizer = str(settings["optimizer"])
        settings["lr"] = _ask(asker, self._lr_name(optimizer), self._lr_domain(optimizer))
        return settings

    def first(self) -> dict[str, Setting]:
        """Return trial 0's settings, moved into the recipe's limits, under the sampler's names."""
        settings = {name: domain.nearest(FIRST[name]) for name, domain in self._domains.items() if name in FIRST}
        backbones = self._domains["backbone"]
        if isinstance(backbones, Choice):
            settings["backbone"] = backbones.options[0]
        optimizer = str(settings["optimizer"])
        settings[self._lr_name(optimizer)] = self._lr_domain(optimizer).nearest(FIRST_LR[optimizer])
        return settings

    def _lr_name(self, optimizer: str) -> str:
        # SGD's rates lie elsewhere: one name for both would tell the sampler that they mean the same.
        return "sgd_lr" if optimizer == "sgd" and self._recipe.lr is None else "lr"

    def _lr_domain(self, optimizer: str) -> Domain:
        if self._recipe.lr is not None:
            return self._recipe.lr
        return SGD_LR if optimizer == "sgd" else ADAM_LR

    def starts(self) -> list[dict[str, Setting]]:
        """Return what is tried before the sampler chooses: trial 0, then the same with everything frozen.

        The linear probe costs a fraction of a trial and is hard to beat on small data; a sampler that draws the
        fraction evenly would hardly ever ask for it.
        """
        first = self.first()
        probe = {**first, "freeze_fraction": self._domains["freeze_fraction"].nearest(1.0)}
        return [first] if probe == first else [first, probe]

    def first_settings(self) -> dict[str, Setting]:
        """Return trial 0's settings under the names that the user knows."""
        return self.suggest(_Fixed(self.first()))

    def trial_config(self, settings: Mapping[str, Setting], preprocessings: Mapping[str, Preprocessing]) -> TrialConfig:
        """Return the whole configuration of the trial that has these ``settings``.

        Args:
            settings: as ``suggest`` returns them.
            preprocessings: of each backbone that the recipe names.
        """
        recipe = self._recipe
        network = {"weights": recipe.weights, **_pick(settings, NetworkConfig.model_fields)}
        fit = {"max_epochs": recipe.max_epochs, **_pick(settings, FitConfig.model_fields)}
        return TrialConfig(
            seed=recipe.seed,
            preprocessing=preprocessings[str(settings["backbone"])],
            batches=BatchConfig.model_validate(_pick(settings, BatchConfig.model_fields)),
            network=NetworkConfig.model_validate(network),
            fit=FitConfig.model_validate(fit),
        )


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
