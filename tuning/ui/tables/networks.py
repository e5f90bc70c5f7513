"""The networks of a search compared: how good the best trial of each is, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from models.profiling.flops import Cost, cost
from tuning.common.formatting import network_name, score_text
from tuning.common.trial_record import TrialResult

NOTHING = "-"
TITLE = "Networks by validation"
SCORES = {"top-1": "val_accuracy", "top-5": "val_top5_accuracy"}
COSTS = ("params", "GFLOPs", "MB")
NETWORK = "network"


class Compared(NamedTuple):
    """The best trial of one variant and backbone, and what its network costs, if that is known."""

    result: TrialResult
    cost: Cost | None


def compare(results: Sequence[TrialResult], classes: int) -> list[Compared]:
    """Return each variant and backbone that was tried, the best first; nothing where there is but one of them.

    ``classes`` is how many the head has.
    """
    best: dict[tuple[str, str], TrialResult] = {}
    for result in sorted(results, key=lambda result: (result.counts, result.rank)):
        best[result.variant, result.config.network.backbone] = result
    ranked = sorted(best.values(), key=lambda result: (result.counts, result.rank), reverse=True)
    return [Compared(result, _cost(result, classes)) for result in ranked] if len(ranked) > 1 else []


def _cost(result: TrialResult, classes: int) -> Cost | None:
    try:
        return cost(result.config.network, classes, result.config.preprocessing.image_size)
    except Exception:  # a network of a library's that can't be counted costs a cell, not the search
        return None


def table(compared: Sequence[Compared]) -> Table:
    """Return a row for each network, best first; where 80 columns are too few for a name, it takes two lines."""
    shown = Table(title=TITLE, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in _columns(compared):
        is_name = name == NETWORK
        shown.add_column(name, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    for one in compared:
        shown.add_row(*_cells(one, compared))
    return shown


def markdown(compared: Sequence[Compared]) -> str:
    """Return the table as Markdown, empty where nothing is compared."""
    if not compared:
        return ""
    columns = _columns(compared)
    rows = [columns, ["---"] * len(columns), *(_cells(one, compared) for one in compared)]
    return f"\n**{TITLE}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def as_json(compared: Sequence[Compared]) -> str:
    """Return the numbers, unrounded."""
    rows = [
        {
            "variant": one.result.variant,
            "backbone": one.result.config.network.backbone,
            "image_size": one.result.config.preprocessing.image_size,
            "truncate": one.result.config.network.truncate,
            "levels": one.result.config.network.levels,
            "trial": one.result.number,
            "metrics": one.result.metrics,
            "cost": one.cost.model_dump() if one.cost else None,
        }
        for one in compared
    ]
    return json.dumps(rows, indent=2)


def _columns(compared: Sequence[Compared]) -> list[str]:
    scores = [label for label, name in SCORES.items() if any(name in one.result.metrics for one in compared)]
    return [NETWORK, "px", "bal. acc.", *scores, *COSTS]


def _cells(one: Compared, compared: Sequence[Compared]) -> list[str]:
    config = one.result.config
    cells = {
        NETWORK: network_name(one.result),
        "px": str(config.preprocessing.image_size),
        "bal. acc.": score_text(one.result) if one.result.counts else NOTHING,
        **{label: _score(one.result, name) for label, name in SCORES.items()},
        **dict(zip(COSTS, _cost_cells(one.cost), strict=True)),
    }
    return [cells[column] for column in _columns(compared)]


def _score(result: TrialResult, name: str) -> str:
    return f"{result.metrics[name]:.4f}" if result.counts and name in result.metrics else NOTHING


def _cost_cells(known: Cost | None) -> list[str]:
    if known is None:
        return [NOTHING] * len(COSTS)
    return [f"{known.parameters / 1e6:.2f}M", f"{known.flops / 1e9:.2f}", f"{known.bytes / 1e6:.1f}"]
