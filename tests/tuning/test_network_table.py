"""The table that compares the networks of a search."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from models.profiling.flops import ModelCost
from tests.tuning.factories import trial_record
from tuning.common.trial_record import TrialRecord
from tuning.ui.tables.networks import as_json, compare_networks, table

COST = ModelCost(parameters=3_500_000, flops=601_000_000, bytes=14_100_000)


@pytest.fixture(autouse=True)
def fixed_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.ui.tables.networks.model_cost", lambda *_: COST)


def trial(
    number: int, score: float | None, backbone: str, variant: str = "", status: str = "complete", **metrics: float
) -> TrialRecord:
    """Return a trial of a backbone, with its variant if there is one."""
    record = trial_record(number, score, status)  # type: ignore[arg-type]
    network = record.config.network.model_copy(update={"backbone": backbone})
    return record.model_copy(
        update={
            "config": record.config.model_copy(update={"network": network}),
            "settings": {**record.settings, **({"variant": variant} if variant else {})},
            "history": tuple({**epoch, **metrics} for epoch in record.history),
        }
    )


TRIALS = [
    trial(0, 0.5, "resnet18", val_accuracy=0.55),
    trial(1, 0.75, "vgg11_bn", val_accuracy=0.8),
    trial(2, 0.625, "resnet18", val_accuracy=0.7),
    trial(3, 0.9, "resnet18", status="failed", val_accuracy=0.9),
]


def table_cells(trials: list[TrialRecord]) -> list[list[str]]:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(compare_networks(trials, 3)))
    return [line.split() for line in captured.get().splitlines()]


def test_each_backbone_has_a_row_with_its_best_trial_and_its_cost_best_first() -> None:
    assert table_cells(TRIALS)[1:] == [
        ["network", "px", "bal.", "acc.", "top-1", "params", "GFLOPs", "MB"],
        ["vgg11_bn", "32", "0.7500", "0.8000", "3.50M", "0.60", "14.1"],
        ["resnet18", "32", "0.6250", "0.7000", "3.50M", "0.60", "14.1"],
    ]


def test_each_variant_has_a_row_and_top_5_is_shown_if_measured() -> None:
    metrics = {"val_accuracy": 0.5, "val_top5_accuracy": 0.875}
    trials = [trial(index, 0.5 + index / 8, "resnet18", name, **metrics) for index, name in enumerate(("one", "two"))]
    assert table_cells(trials)[1:] == [
        ["network", "px", "bal.", "acc.", "top-1", "top-5", "params", "GFLOPs", "MB"],
        ["two:", "resnet18", "32", "0.6250", "0.5000", "0.8750", "3.50M", "0.60", "14.1"],
        ["one:", "resnet18", "32", "0.5000", "0.5000", "0.8750", "3.50M", "0.60", "14.1"],
    ]


def test_long_names_are_wrapped_and_numbers_are_not_truncated() -> None:
    metrics = {"val_accuracy": 0.5, "val_top5_accuracy": 0.875}
    variants = ("without-last-two-blocks", "mobilenetv2-1")
    trials = [trial(index, 0.5, "torchvision/mobilenet_v2", name, **metrics) for index, name in enumerate(variants)]
    numbers = ["32", "0.5000", "0.5000", "0.8750", "3.50M", "0.60", "14.1"]
    assert sorted(table_cells(trials)[2:]) == [
        ["mobilenetv2-1:", *numbers],
        ["torchvision/mobilenet_v2"],
        ["torchvision/mobilenet_v2"],
        ["without-last-two-blocks:", *numbers],
    ]


@pytest.mark.parametrize(("score", "status"), [(None, "failed"), (0.99, "failed"), (None, "pruned")])
def test_a_network_without_a_score_is_in_the_last_row(score: float | None, status: str) -> None:
    failed = trial(4, score, "resnet50", status=status)
    assert table_cells([failed, *TRIALS])[-1] == ["resnet50", "32", "-", "-", "3.50M", "0.60", "14.1"]


@pytest.mark.parametrize("trials", [[], TRIALS[:1], [TRIALS[0], TRIALS[2]]])
def test_a_single_network_is_not_compared(trials: list[TrialRecord]) -> None:
    assert compare_networks(trials, 3) == []


def test_a_network_of_unknown_cost_has_empty_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> ModelCost:
        raise NotImplementedError

    monkeypatch.setattr("tuning.ui.tables.networks.model_cost", fail)
    assert table_cells(TRIALS)[2] == ["vgg11_bn", "32", "0.7500", "0.8000", "-", "-", "-"]
    assert json.loads(as_json(compare_networks(TRIALS, 3)))[0]["cost"] is None


def test_the_table_is_available_as_markdown_and_json() -> None:
    summaries = compare_networks(TRIALS, 3)
    assert table(summaries).to_markdown().splitlines()[3:] == [
        "| network | px | bal. acc. | top-1 | params | GFLOPs | MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| vgg11_bn | 32 | 0.7500 | 0.8000 | 3.50M | 0.60 | 14.1 |",
        "| resnet18 | 32 | 0.6250 | 0.7000 | 3.50M | 0.60 | 14.1 |",
    ]
    first = json.loads(as_json(summaries))[0]
    assert (first["backbone"], first["trial"], first["cost"]) == ("vgg11_bn", 1, COST.model_dump())
    assert first["metrics"]["val_balanced_accuracy"] == 0.75
