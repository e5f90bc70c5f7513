"""Sentences and tables for whoever looks, and how trials are named in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuning.views.events import Said, Shown
from tuning.views.stream import tell

if TYPE_CHECKING:
    from models.classifier import NetworkConfig
    from tuning.search.results import TrialResult

SHOWN = ("optimizer", "lr", "freeze_fraction", "batch_size", "augmentation", "lr_scheduler")


def say(text: str) -> None:
    """Tell a sentence, which is shown with the time of day."""
    tell(Said(text))


def warn(text: str) -> None:
    """Tell a sentence that asks to do something, or of what went wrong: it is shown whatever was asked to be shown."""
    tell(Said(text, matters=True))


def show(*parts: object) -> None:
    """Tell tables and lines, which are shown as they are."""
    tell(Shown(parts))


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
