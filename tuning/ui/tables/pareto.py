"""Accuracy against cost: the networks that nobody beats both ways, for the terminal, the run's note and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table

from models.profiling.hardware import hardware
from tuning.common.formatting import format_score, network_name
from tuning.search.selection import COST_METRICS, CostedTrial, on_a_pareto_front, pareto_front, pareto_labels

TITLE = "Accuracy against cost (one picture, one core)"

COLUMNS = ("trial", "bal. acc.", "ms", "MB", "network", "px", "cut", "front")
LEFT = ("network", "front")


def table(every: Sequence[CostedTrial]) -> Table:
    """Return a row for each network on a front, best first; it fits into 80 columns."""
    shown = Table(title=TITLE, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        is_name = name == "network"
        shown.add_column(name, justify="left" if name in LEFT else "right", no_wrap=not is_name, overflow="fold")
    for one in on_a_pareto_front(every):
        shown.add_row(*_cells(one, every))
    return shown


def markdown(every: Sequence[CostedTrial]) -> str:
    """Return the table as Markdown, empty where nothing was measured."""
    if not every:
        return ""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(_cells(one, every) for one in on_a_pareto_front(every))]
    return f"\n**{TITLE}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def as_json(every: Sequence[CostedTrial]) -> str:
    """Return all that was measured, unrounded, with the machine that it holds for."""
    rows = [
        {
            "trial": one.trial.number,
            "variant": one.trial.variant,
            "backbone": one.trial.config.network.backbone,
            "image_size": one.trial.config.preprocessing.image_size,
            "truncate": one.trial.config.network.truncate,
            "head_features": one.trial.config.network.head_features,
            "head": one.trial.config.network.head,
            "val_balanced_accuracy": one.trial.score,
            **one.cost.model_dump(),
            "front": [measure for measure in COST_METRICS if one in pareto_front(every, measure)],
        }
        for one in every
    ]
    return json.dumps({"machine": hardware(), "networks": rows}, indent=2)


def _cells(one: CostedTrial, every: Sequence[CostedTrial]) -> list[str]:
    config = one.trial.config
    return [
        str(one.trial.number),
        format_score(one.trial),
        f"{one.cost.latency_ms:.2f}",
        f"{one.cost.mb:.1f}",
        network_name(one.trial),
        str(config.preprocessing.image_size),
        str(config.network.truncate),
        pareto_labels(one, every),
    ]
