"""A search with a recipe of variants: they are searched, compared and logged."""

from __future__ import annotations

import json

import pytest
from mlflow.artifacts import load_text

from tests.system.conftest import SMALL, Workspace, runs_of
from tuning.__main__ import main

TRUNCATE_OF = {"whole-layer4": 0, "without-last-block": 1, "without-last-two-blocks": 2, "without-layer4": 3}


@pytest.mark.usefixtures("ray_cluster", "quick_searches")
def test_the_four_variants_of_celebrities_are_compared_in_one_table(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {"backbone": "test_resnet", "recipe": "celebrities", "trials": "1", "sweep": "on"}
    settings = {**SMALL, **overrides, "data": str(workspace.photos)}
    assert main(["tune", *(f"--{name}={text}" for name, text in settings.items())]) == 0
    output = capsys.readouterr().out
    assert "Networks by validation" in output
    parent, children = runs_of(workspace.client)
    assert {child.data.params["variant"]: int(child.data.params["truncate"]) for child in children} == TRUNCATE_OF
    assert {child.data.params["freeze_fraction"] for child in children} == {"1.0"}
    assert parent.data.params["recipe.recipe"] == "celebrities"
    rows = json.loads(load_text(f"{parent.info.artifact_uri}/networks.json"))
    assert {row["variant"]: row["truncate"] for row in rows} == TRUNCATE_OF
    assert len({row["cost"]["parameters"] for row in rows}) == len(TRUNCATE_OF)
    for variant in TRUNCATE_OF:
        assert f"{variant}: test_resnet" in output
        assert f"| {variant}: test_resnet | 32 |" in parent.data.tags["mlflow.note.content"]
