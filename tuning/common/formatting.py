"""Text that describes trials and promotion decisions, the same in every output."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from data.text import pluralize
from tuning.common.promotion_types import Candidate, CandidateMember, Promotion
from tuning.common.trial_record import TrialRecord

TABLE_WIDTH = 22  # characters of a network in a table
NetworkText: TypeAlias = Callable[[TrialRecord], str]

if TYPE_CHECKING:
    from models.profiling.serving_cost import ServingCost
    from models.trial_config import NetworkConfig, TrialConfig


def format_score(trial: TrialRecord) -> str:
    """Return a trial's score with four decimals."""
    return "-" if trial.score is None else f"{trial.score:.4f}"


def format_lr(config: TrialConfig) -> str:
    """Return the learning rate; ``-`` for a linear probe, which has none."""
    return "-" if config.is_probe else f"{config.fit.lr:.1e}"


def network_name(trial: TrialRecord) -> str:
    """Return a trial's network, prefixed by its variant if it has one."""
    backbone = _backbone_name(trial.config.network)
    return f"{trial.variant}: {backbone}" if trial.variant else backbone


def _backbone_name(network: NetworkConfig) -> str:
    return f"{network.backbone} (all blocks)" if network.head_features == "all" else network.backbone


def short_network_name(backbone: str) -> str:
    """Return a network's name without its library and its longest prefix: ``lite2`` for ``tf_efficientnet_lite2``."""
    return backbone.rpartition("/")[2].removeprefix("tf_efficientnet_")


def run_name(trial: TrialRecord) -> str:
    """Return the name of a trial's run, such as ``t018 lite2@224 12/23``; the last part is frozen and total blocks."""
    network = trial.variant or short_network_name(trial.config.network.backbone)
    name = f"t{trial.number:03d} {network}@{trial.config.preprocessing.image_size}"
    depth, blocks = (trial.runtime_info.get(key) for key in ("freeze_depth", "blocks"))
    return name if depth is None or blocks is None else f"{name} {depth}/{blocks}"


def budget_text(budget_s: float | None, max_trials: int | None) -> str:
    """Return the budget of a search, such as ``5 min or 16 trials``; empty without one."""
    minutes = "" if budget_s is None else f"{budget_s / 60:g} min"
    trials = "" if max_trials is None else pluralize(max_trials, "trial")
    return " or ".join(filter(None, (minutes, trials)))


def search_name(name: str, budget_s: float | None, max_trials: int | None) -> str:
    """Return the name of a search's run: the experiment, and the minutes or else the trials: ``photos 5 min``."""
    return f"{name} {budget_text(budget_s, None) or budget_text(None, max_trials)}".rstrip()


def describe_network(trial: TrialRecord) -> str:
    """Return the network, the number of dropped blocks, and the image size."""
    network = trial.config.network
    truncation = f" without its last {pluralize(network.truncate, 'block')}" if network.truncate else ""
    return f"{_backbone_name(network)}{truncation} at {trial.config.preprocessing.image_size} px"


def member_text(member: CandidateMember) -> str:
    """Return the network and the image size of a member, with its weight if it is one of several."""
    weight = "" if member.weight == 1 else f", weight {member.weight:.2f}"
    return f"{_backbone_name(member.config.network)} at {member.config.preprocessing.image_size} px{weight}"


def cost_text(candidate: Candidate, winner_cost: ServingCost | None) -> str:
    """Return the size and the latency of a model; a network without a latency of its own has that of its trial."""
    latency_ms = candidate.latency_ms
    if latency_ms is None and winner_cost is not None and not candidate.is_ensemble:
        latency_ms = winner_cost.latency_ms
    latency = "latency not measured" if latency_ms is None else f"{latency_ms:.1f} ms/image on one core"
    return f"{candidate.size_mb:.1f} MB, {latency}"


def short_network(trial: TrialRecord, width: int) -> str:
    """Return the network in at most ``width`` characters, for a table: ``lite2 all -3``.

    ``all`` marks a head that sees all blocks, a negative number the dropped blocks; a variant replaces the backbone.
    """
    network = trial.config.network
    name = trial.variant or short_network_name(network.backbone)
    suffix = " all" if network.head_features == "all" else ""
    suffix += f" -{network.truncate}" if network.truncate else ""
    room = width - len(suffix)
    return (name if len(name) <= room else f"{name[: room - 1]}~") + suffix


def table_network(trial: TrialRecord) -> str:
    """Return the short network for a table with a wide column."""
    return short_network(trial, TABLE_WIDTH)


def frozen_text(trial: TrialRecord) -> str:
    """Return the frozen blocks of all blocks, or the requested fraction as long as the network is not built."""
    info = trial.runtime_info
    if "freeze_depth" in info:
        return f"{info['freeze_depth']}/{info.get('blocks', '?')}"
    return f"{trial.config.network.freeze_fraction:.0%}"


def format_decision(candidate: Candidate, version: int, promotion: Promotion) -> str:
    """Return the outcome of the promotion as one line of text."""
    return f"models:/{candidate.name}@{promotion.alias} is now version {version}: {promotion.reason}."


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss``, or ``h:mm:ss`` from one hour."""
    whole = int(max(0.0, seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
