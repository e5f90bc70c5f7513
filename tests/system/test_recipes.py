"""A recipe through the whole command: its variants are searched, compared and logged."""

from __future__ import annotations

import json

import pytest
from mlflow.artifacts import load_text

from tests.system.conftest import SMALL, World, runs_of
from tuning.__main__ import main

STRATEGIES = {"whole-layer4": 0, "without-last-block": 1, "without-last-two-blocks": 2, "without-layer4": 3}


@pytest.mark.usefixtures("ray_cluster")
def test_the_four_strategies_of_celebrities_end_in_one_table(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {"backbone": "test_resnet", "recipe": "celebrities", "trials": "1", "sweep": "on"}
    small = {**SMALL, **changed, "data": str(world.photos)}
    assert main(["tune", *(f"--{name}={text}" for name, text in small.items())]) == 0
    shown = capsys.readouterr().out
    assert "Networks by validation" in shown
    parent, children = runs_of(world.client)
    assert {child.data.params["variant"]: int(child.data.params["truncate"]) for child in children} == STRATEGIES
    assert {child.data.params["freeze_fraction"] for child in children} == {"1.0"}
    assert parent.data.params["recipe.recipe"] == "celebrities"
    rows = json.loads(load_text(f"{parent.info.artifact_uri}/networks.json"))
    assert {row["variant"]: row["truncate"] for row in rows} == STRATEGIES
    assert len({row["cost"]["parameters"] for row in rows}) == len(STRATEGIES)
    for variant in STRATEGIES:
        assert f"{variant}: test_resnet" in shown
        assert f"| {variant}: test_resnet | 32 |" in parent.data.tags["mlflow.note.content"]
