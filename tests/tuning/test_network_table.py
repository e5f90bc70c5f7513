"""The table that compares networks at the end of a search."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from models.profiling.flops import ModelCost
from tests.tuning.factories import trial_record
from tuning.common.trial_record import TrialRecord
from tuning.ui.tables.networks import as_json, compare_networks, markdown, table

COST = ModelCost(parameters=3_500_000, flops=601_000_000, bytes=14_100_000)


@pytest.fixture(autouse=True)
def known_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.ui.tables.networks.cost", lambda *_: COST)


def tried(
    number: int, score: float | None, backbone: str, variant: str = "", status: str = "complete", **metrics: float
) -> TrialRecord:
    """Return a trial of a backbone, as part of a variant if there is one."""
    result = trial_record(number, score, status)  # type: ignore[arg-type]
    network = result.config.network.model_copy(update={"backbone": backbone})
    return result.model_copy(
        update={
            "config": result.config.model_copy(update={"network": network}),
            "settings": {**result.settings, **({"variant": variant} if variant else {})},
            "history": tuple({**epoch, **metrics} for epoch in result.history),
        }
    )


RESULTS = [
    tried(0, 0.5, "resnet18", val_accuracy=0.55),
    tried(1, 0.75, "vgg11_bn", val_accuracy=0.8),
    tried(2, 0.625, "resnet18", val_accuracy=0.7),
    tried(3, 0.9, "resnet18", status="failed", val_accuracy=0.9),
]


def lines(results: list[TrialRecord]) -> list[list[str]]:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(compare_networks(results, 3)))
    return [line.split() for line in captured.get().splitlines()]


def test_each_backbone_has_a_row_with_its_best_trial_and_its_cost_the_best_first() -> None:
    assert lines(RESULTS)[1:] == [
        ["network", "px", "bal.", "acc.", "top-1", "params", "GFLOPs", "MB"],
        ["vgg11_bn", "32", "0.7500", "0.8000", "3.50M", "0.60", "14.1"],
        ["resnet18", "32", "0.6250", "0.7000", "3.50M", "0.60", "14.1"],
    ]


def test_variants_are_rows_of_their_own_and_top_5_is_there_where_it_was_measured() -> None:
    metrics = {"val_accuracy": 0.5, "val_top5_accuracy": 0.875}
    results = [tried(at, 0.5 + at / 8, "resnet18", name, **metrics) for at, name in enumerate(("one", "two"))]
    assert lines(results)[1:] == [
        ["network", "px", "bal.", "acc.", "top-1", "top-5", "params", "GFLOPs", "MB"],
        ["two:", "resnet18", "32", "0.6250", "0.5000", "0.8750", "3.50M", "0.60", "14.1"],
        ["one:", "resnet18", "32", "0.5000", "0.5000", "0.8750", "3.50M", "0.60", "14.1"],
    ]


def test_names_that_are_too_long_take_two_lines_and_no_number_is_cut() -> None:
    metrics = {"val_accuracy": 0.5, "val_top5_accuracy": 0.875}
    variants = ("without-last-two-blocks", "mobilenetv2-1")
    results = [tried(at, 0.5, "torchvision/mobilenet_v2", name, **metrics) for at, name in enumerate(variants)]
    numbers = ["32", "0.5000", "0.5000", "0.8750", "3.50M", "0.60", "14.1"]
    assert sorted(lines(results)[2:]) == [
        ["mobilenetv2-1:", *numbers],
        ["torchvision/mobilenet_v2"],
        ["torchvision/mobilenet_v2"],
        ["without-last-two-blocks:", *numbers],
    ]


@pytest.mark.parametrize(("score", "status"), [(None, "failed"), (0.99, "failed"), (None, "pruned")])
def test_a_network_without_a_score_comes_last_and_is_not_left_out(score: float | None, status: str) -> None:
    failed = tried(4, score, "resnet50", status=status)
    assert lines([failed, *RESULTS])[-1] == ["resnet50", "32", "-", "-", "3.50M", "0.60", "14.1"]


@pytest.mark.parametrize("results", [[], RESULTS[:1], [RESULTS[0], RESULTS[2]]])
def test_one_network_alone_is_not_compared(results: list[TrialRecord]) -> None:
    assert compare_networks(results, 3) == []
    assert markdown(compare_networks(results, 3)) == ""


def test_a_network_that_cannot_be_counted_costs_a_cell_and_not_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> ModelCost:
        raise NotImplementedError

    monkeypatch.setattr("tuning.ui.tables.networks.cost", fail)
    assert lines(RESULTS)[2] == ["vgg11_bn", "32", "0.7500", "0.8000", "-", "-", "-"]
    assert json.loads(as_json(compare_networks(RESULTS, 3)))[0]["cost"] is None


def test_the_table_is_there_as_markdown_and_as_json() -> None:
    compared = compare_networks(RESULTS, 3)
    assert markdown(compared).splitlines()[3:] == [
        "| network | px | bal. acc. | top-1 | params | GFLOPs | MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| vgg11_bn | 32 | 0.7500 | 0.8000 | 3.50M | 0.60 | 14.1 |",
        "| resnet18 | 32 | 0.6250 | 0.7000 | 3.50M | 0.60 | 14.1 |",
    ]
    first = json.loads(as_json(compared))[0]
    assert (first["backbone"], first["trial"], first["cost"]) == ("vgg11_bn", 1, COST.model_dump())
    assert first["metrics"]["val_balanced_accuracy"] == 0.75
