"""Accuracy against serving cost: the Pareto-optimal networks, for the terminal, the run's note and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from models.profiling.hardware import hardware
from tuning.common.formatting import NetworkText, format_score, table_network
from tuning.common.names import OBJECTIVE_METRIC
from tuning.search.selection import COST_METRICS, CostedTrial, on_a_pareto_front, pareto_front, pareto_labels
from tuning.ui.tables.text_table import TextTable

COLUMNS = ("trial", "bal. acc.", "ms", "MB", "network", "px", "truncate", "Pareto front")


def table(costed_trials: Sequence[CostedTrial], num_networks: int, network: NetworkText = table_network) -> TextTable:
    """Return a row per Pareto-optimal network, best first; it fits into 80 columns.

    ``num_networks`` is the number of networks of the search, of which some were not measured.
    """
    rows = [_cells(costed, costed_trials, network) for costed in on_a_pareto_front(costed_trials)]
    title = f"Accuracy and cost before packaging, {len(costed_trials)} of {num_networks} networks"
    return TextTable(title, COLUMNS, rows, text_columns={"network", "Pareto front"}, wrapped={"network"})


def as_json(costed_trials: Sequence[CostedTrial]) -> str:
    """Return the unrounded costs of all measured networks as JSON, with the machine they were measured on."""
    rows = [
        {
            "trial": costed.trial.number,
            "variant": costed.trial.variant,
            "backbone": costed.trial.config.network.backbone,
            "image_size": costed.trial.config.preprocessing.image_size,
            "truncate": costed.trial.config.network.truncate,
            "head_features": costed.trial.config.network.head_features,
            "head": costed.trial.config.network.head,
            OBJECTIVE_METRIC: costed.trial.score,
            **costed.cost.model_dump(),
            "pareto_front": [metric for metric in COST_METRICS if costed in pareto_front(costed_trials, metric)],
        }
        for costed in costed_trials
    ]
    return json.dumps({"machine": hardware(), "networks": rows}, indent=2)


def _cells(costed: CostedTrial, costed_trials: Sequence[CostedTrial], network: NetworkText) -> list[str]:
    config = costed.trial.config
    return [
        str(costed.trial.number),
        format_score(costed.trial),
        f"{costed.cost.latency_ms:.2f}",
        f"{costed.cost.mb:.1f}",
        network(costed.trial),
        str(config.preprocessing.image_size),
        str(config.network.truncate),
        pareto_labels(costed, costed_trials),
    ]
