"""Accuracy against cost: the networks that nobody beats both ways, for the terminal, the run's note and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table

from models.profiling.hardware import machine
from tuning.common.formatting import network_name, score_text
from tuning.search.selection import MEASURES, Priced, efficient, front, fronts

TITLE = "Accuracy against cost (one picture, one core)"

COLUMNS = ("trial", "bal. acc.", "ms", "MB", "network", "px", "cut", "front")
LEFT = ("network", "front")


def table(every: Sequence[Priced]) -> Table:
    """Return a row for each network on a front, best first; it fits into 80 columns."""
    shown = Table(title=TITLE, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        is_name = name == "network"
        shown.add_column(name, justify="left" if name in LEFT else "right", no_wrap=not is_name, overflow="fold")
    for one in efficient(every):
        shown.add_row(*_cells(one, every))
    return shown


def markdown(every: Sequence[Priced]) -> str:
    """Return the table as Markdown, empty where nothing was measured."""
    if not every:
        return ""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(_cells(one, every) for one in efficient(every))]
    return f"\n**{TITLE}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def as_json(every: Sequence[Priced]) -> str:
    """Return all that was measured, unrounded, with the machine that it holds for."""
    rows = [
        {
            "trial": one.result.number,
            "variant": one.result.variant,
            "backbone": one.result.config.network.backbone,
            "image_size": one.result.config.preprocessing.image_size,
            "truncate": one.result.config.network.truncate,
            "levels": one.result.config.network.levels,
            "head": one.result.config.network.head,
            "val_balanced_accuracy": one.result.score,
            **one.cost.model_dump(),
            "front": [measure for measure in MEASURES if one in front(every, measure)],
        }
        for one in every
    ]
    return json.dumps({"machine": machine(), "networks": rows}, indent=2)


def _cells(one: Priced, every: Sequence[Priced]) -> list[str]:
    config = one.result.config
    return [
        str(one.result.number),
        score_text(one.result),
        f"{one.cost.latency_ms:.2f}",
        f"{one.cost.mb:.1f}",
        network_name(one.result),
        str(config.preprocessing.image_size),
        str(config.network.truncate),
        fronts(one, every),
    ]
