"""Texts that are the same in every output."""

from __future__ import annotations

import pytest

from models.profiling.serving_cost import ServingCost
from tests.tuning.factories import candidate, ensemble
from tuning.common.formatting import cost_text

WINNER_COST = ServingCost(latency_ms=9.04, mb=14)


@pytest.mark.parametrize(
    ("latency_ms", "winner_cost", "text"),
    [
        (None, WINNER_COST, "9.0 ms/image on one core"),
        (0.0, WINNER_COST, "0.0 ms/image on one core"),
        (None, None, "latency not measured"),
    ],
)
def test_a_network_without_a_measured_package_has_the_latency_of_its_trial(
    latency_ms: float | None, winner_cost: ServingCost | None, text: str
) -> None:
    model = candidate().model_copy(update={"latency_ms": latency_ms})
    assert cost_text(model, winner_cost) == f"10.0 MB, {text}"


def test_an_ensemble_never_has_the_latency_of_one_of_its_networks() -> None:
    model = ensemble().model_copy(update={"latency_ms": None})
    assert cost_text(model, WINNER_COST) == "10.0 MB, latency not measured"
