"""Sentences and tables for whoever looks, and how trials are named in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.trial_record import TrialResult

if TYPE_CHECKING:
    from models.trial_config import NetworkConfig

SHOWN = ("optimizer", "lr", "freeze_fraction", "batch_size", "augmentation", "lr_scheduler")


def score_text(result: TrialResult) -> str:
    """Return a trial's score as it is shown everywhere."""
    return "-" if result.score is None else f"{result.score:.4f}"


def network_name(result: TrialResult) -> str:
    """Return a trial's network, after its variant if it is of one."""
    backbone = _seen(result.config.network)
    return f"{result.variant}: {backbone}" if result.variant else backbone


def _seen(network: NetworkConfig) -> str:
    return f"{network.backbone} (all levels)" if network.levels == "all" else network.backbone


def network_text(result: TrialResult) -> str:
    """Return the network, the size at which it sees pictures, and how many of its last blocks are dropped."""
    network = result.config.network
    cut = f" without its last {network.truncate} blocks" if network.truncate else ""
    return f"{_seen(network)}{cut} at {result.config.preprocessing.image_size} px"


def settings_text(result: TrialResult) -> str:
    """Return the settings that tell one trial from another."""
    parts = [network_text(result)]
    for name in SHOWN:
        setting = result.settings[name]
        parts.append(f"{name} {setting:.3g}" if isinstance(setting, float) else f"{name} {setting}")
    return ", ".join(parts)


def decision_line(candidate: Candidate, version: int, promotion: Promotion) -> str:
    """Return what became of the candidate."""
    return f"models:/{candidate.name}@{promotion.alias} is now version {version}: {promotion.reason}."
