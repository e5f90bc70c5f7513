"""The comparison of a search's networks: the best trial of each, with the network's parameters, FLOPs and size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from models.profiling.flops import ModelCost, model_cost
from tuning.common.formatting import format_score, network_name
from tuning.common.trial_record import TrialRecord
from tuning.ui.tables.text_table import TextTable

MISSING = "-"
SCORES = {"top-1": "val_accuracy", "top-5": "val_top5_accuracy"}
COSTS = ("params", "GFLOPs", "MB")
NETWORK = "network"


class NetworkSummary(NamedTuple):
    """The best trial of one variant and backbone, and the cost of its network, if known."""

    trial: TrialRecord
    cost: ModelCost | None


def compare_networks(trials: Sequence[TrialRecord], num_classes: int) -> list[NetworkSummary]:
    """Return a summary per variant and backbone, best first; empty if there is only one.

    ``num_classes`` is the head's number of outputs.
    """
    best: dict[tuple[str, str], TrialRecord] = {}
    for trial in sorted(trials, key=_rank):
        best[trial.variant, trial.config.network.backbone] = trial
    best_first = sorted(best.values(), key=_rank, reverse=True)
    return [NetworkSummary(trial, _cost(trial, num_classes)) for trial in best_first] if len(best_first) > 1 else []


def _rank(trial: TrialRecord) -> tuple[bool, tuple[float, float]]:
    return trial.is_eligible, trial.sort_key


def _cost(trial: TrialRecord, num_classes: int) -> ModelCost | None:
    try:
        return model_cost(trial.config.network, num_classes, trial.config.preprocessing.image_size)
    except Exception:  # a library network whose FLOPs can't be counted must not fail the search
        return None


def table(summaries: Sequence[NetworkSummary]) -> TextTable:
    """Return a row per network, best first; names that do not fit into 80 columns are wrapped."""
    measured = [label for label, name in SCORES.items() if any(name in summary.trial.metrics for summary in summaries)]
    columns = (NETWORK, "px", "bal. acc.", *measured, *COSTS)
    rows = [_cells(summary, measured) for summary in summaries]
    return TextTable("Networks by validation", columns, rows, text_columns={NETWORK}, wrapped={NETWORK})


def as_json(summaries: Sequence[NetworkSummary]) -> str:
    """Return the unrounded numbers as JSON."""
    rows = [
        {
            "variant": summary.trial.variant,
            "backbone": summary.trial.config.network.backbone,
            "image_size": summary.trial.config.preprocessing.image_size,
            "truncate": summary.trial.config.network.truncate,
            "head_features": summary.trial.config.network.head_features,
            "trial": summary.trial.number,
            "metrics": summary.trial.metrics,
            "cost": summary.cost.model_dump() if summary.cost else None,
        }
        for summary in summaries
    ]
    return json.dumps(rows, indent=2)


def _cells(summary: NetworkSummary, measured: Sequence[str]) -> list[str]:
    """Return the cells of a row; ``measured`` names its columns of ``SCORES``."""
    trial = summary.trial
    return [
        network_name(trial),
        str(trial.config.preprocessing.image_size),
        format_score(trial) if trial.is_eligible else MISSING,
        *(_score(trial, SCORES[label]) for label in measured),
        *_cost_cells(summary.cost),
    ]


def _score(trial: TrialRecord, name: str) -> str:
    return f"{trial.metrics[name]:.4f}" if trial.is_eligible and name in trial.metrics else MISSING


def _cost_cells(cost: ModelCost | None) -> list[str]:
    if cost is None:
        return [MISSING] * len(COSTS)
    return [f"{cost.parameters / 1e6:.2f}M", f"{cost.flops / 1e9:.2f}", f"{cost.bytes / 1e6:.1f}"]
