"""The networks of a search compared: how good the best trial of each is, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from models.profiling.flops import ModelCost, model_cost
from tuning.common.formatting import format_score, network_name
from tuning.common.trial_record import TrialRecord

NOTHING = "-"
TITLE = "Networks by validation"
SCORES = {"top-1": "val_accuracy", "top-5": "val_top5_accuracy"}
COSTS = ("params", "GFLOPs", "MB")
NETWORK = "network"


class NetworkSummary(NamedTuple):
    """The best trial of one variant and backbone, and what its network costs, if that is known."""

    trial: TrialRecord
    cost: ModelCost | None


def compare_networks(results: Sequence[TrialRecord], classes: int) -> list[NetworkSummary]:
    """Return each variant and backbone that was tried, the best first; nothing where there is but one of them.

    ``classes`` is how many the head has.
    """
    best: dict[tuple[str, str], TrialRecord] = {}
    for result in sorted(results, key=lambda result: (result.is_eligible, result.sort_key)):
        best[result.variant, result.config.network.backbone] = result
    ranked = sorted(best.values(), key=lambda result: (result.is_eligible, result.sort_key), reverse=True)
    return [NetworkSummary(result, _cost(result, classes)) for result in ranked] if len(ranked) > 1 else []


def _cost(result: TrialRecord, classes: int) -> ModelCost | None:
    try:
        return model_cost(result.config.network, classes, result.config.preprocessing.image_size)
    except Exception:  # a network of a library's that can't be counted costs a cell, not the search
        return None


def table(compared: Sequence[NetworkSummary]) -> Table:
    """Return a row for each network, best first; where 80 columns are too few for a name, it takes two lines."""
    shown = Table(title=TITLE, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in _columns(compared):
        is_name = name == NETWORK
        shown.add_column(name, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    for one in compared:
        shown.add_row(*_cells(one, compared))
    return shown


def markdown(compared: Sequence[NetworkSummary]) -> str:
    """Return the table as Markdown, empty where nothing is compared."""
    if not compared:
        return ""
    columns = _columns(compared)
    rows = [columns, ["---"] * len(columns), *(_cells(one, compared) for one in compared)]
    return f"\n**{TITLE}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def as_json(compared: Sequence[NetworkSummary]) -> str:
    """Return the numbers, unrounded."""
    rows = [
        {
            "variant": one.trial.variant,
            "backbone": one.trial.config.network.backbone,
            "image_size": one.trial.config.preprocessing.image_size,
            "truncate": one.trial.config.network.truncate,
            "head_features": one.trial.config.network.head_features,
            "trial": one.trial.number,
            "metrics": one.trial.metrics,
            "cost": one.cost.model_dump() if one.cost else None,
        }
        for one in compared
    ]
    return json.dumps(rows, indent=2)


def _columns(compared: Sequence[NetworkSummary]) -> list[str]:
    scores = [label for label, name in SCORES.items() if any(name in one.trial.metrics for one in compared)]
    return [NETWORK, "px", "bal. acc.", *scores, *COSTS]


def _cells(one: NetworkSummary, compared: Sequence[NetworkSummary]) -> list[str]:
    config = one.trial.config
    cells = {
        NETWORK: network_name(one.trial),
        "px": str(config.preprocessing.image_size),
        "bal. acc.": format_score(one.trial) if one.trial.is_eligible else NOTHING,
        **{label: _score(one.trial, name) for label, name in SCORES.items()},
        **dict(zip(COSTS, _cost_cells(one.cost), strict=True)),
    }
    return [cells[column] for column in _columns(compared)]


def _score(result: TrialRecord, name: str) -> str:
    return f"{result.metrics[name]:.4f}" if result.is_eligible and name in result.metrics else NOTHING


def _cost_cells(known: ModelCost | None) -> list[str]:
    if known is None:
        return [NOTHING] * len(COSTS)
    return [f"{known.parameters / 1e6:.2f}M", f"{known.flops / 1e9:.2f}", f"{known.bytes / 1e6:.1f}"]
