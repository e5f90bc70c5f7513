"""Sentences and tables for whoever looks, and how trials are named in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.trial_record import TrialRecord

if TYPE_CHECKING:
    from models.trial_config import NetworkConfig

SHOWN_PARAMS = ("optimizer", "lr", "freeze_fraction", "batch_size", "augmentation", "lr_scheduler")


def format_score(result: TrialRecord) -> str:
    """Return a trial's score as it is shown everywhere."""
    return "-" if result.score is None else f"{result.score:.4f}"


def network_name(result: TrialRecord) -> str:
    """Return a trial's network, after its variant if it is of one."""
    backbone = _backbone_name(result.config.network)
    return f"{result.variant}: {backbone}" if result.variant else backbone


def _backbone_name(network: NetworkConfig) -> str:
    return f"{network.backbone} (all levels)" if network.head_features == "all" else network.backbone


def describe_network(result: TrialRecord) -> str:
    """Return the network, the size at which it sees pictures, and how many of its last blocks are dropped."""
    network = result.config.network
    cut = f" without its last {network.truncate} blocks" if network.truncate else ""
    return f"{_backbone_name(network)}{cut} at {result.config.preprocessing.image_size} px"


def describe_settings(result: TrialRecord) -> str:
    """Return the settings that tell one trial from another."""
    parts = [describe_network(result)]
    for name in SHOWN_PARAMS:
        setting = result.settings[name]
        parts.append(f"{name} {setting:.3g}" if isinstance(setting, float) else f"{name} {setting}")
    return ", ".join(parts)


def format_decision(candidate: Candidate, version: int, promotion: Promotion) -> str:
    """Return what became of the candidate."""
    return f"models:/{candidate.name}@{promotion.alias} is now version {version}: {promotion.reason}."
