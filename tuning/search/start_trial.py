"""The configuration of a registered version as the first trials of a search, one for each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from models.trial_config import UNUSED_BY_PROBES, TrialConfig
from tuning.common.option_types import ParamValue
from tuning.recipe.schema import PROBE_OPTIMIZER
from tuning.search.defaults import DEFAULT_PARAMS, NETWORK_AXES, PROBE_IMAGES_SETTING


class StartTrial(NamedTuple):
    """A configuration that a search starts from.

    Attributes:
        params: the nearest parameters in the domains, under their names in the study: the sampler learns from them,
            and TPE's models are undefined outside of the domains.
        settings: the exact settings, with which the trial is trained.
        is_inside: whether the domains contain all of them.
    """

    params: Mapping[str, ParamValue]
    settings: Mapping[str, ParamValue]
    is_inside: bool

    @property
    def is_probe(self) -> bool:
        """Whether it is a linear probe that is fitted by logistic regression."""
        return self.settings["optimizer"] == PROBE_OPTIMIZER


def start_settings(config: TrialConfig) -> dict[str, ParamValue]:
    """Return the searched settings of a configuration; those without effect on a linear probe are left out."""
    parts = (config.network, config.fit, config.batches)
    values = {"image_size": config.preprocessing.image_size}
    values |= {name: value for part in parts for name, value in part.model_dump().items()}
    unused = UNUSED_BY_PROBES if config.is_probe else ()
    settings: dict[str, ParamValue] = {
        name: values[name] for name in (*NETWORK_AXES, *DEFAULT_PARAMS, "lr") if name not in unused
    }
    if config.is_probe and config.images_per_epoch:
        settings[PROBE_IMAGES_SETTING] = config.images_per_epoch
    return settings
