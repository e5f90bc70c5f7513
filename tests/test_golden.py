"""Proposals and splits are those that were recorded: renaming and moving code changes no number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import recorded
from tests.golden.proposals import NUM_SAMPLED, all_proposals
from tests.golden.splits import all_splits


def near(value: object) -> object:
    """Return a value that equals ``value`` within rounding, which differs between processors."""
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def test_each_recipe_proposes_the_recorded_settings() -> None:
    proposals = all_proposals()
    assert len(proposals) == 3
    for name, rows in recorded("proposals").items():
        assert len(proposals[name]) == len(rows) >= NUM_SAMPLED
        for row, expected in zip(proposals[name], rows, strict=True):
            assert row == {key: near(value) for key, value in expected.items()}, name


def test_each_image_keeps_its_recorded_split(tmp_path: Path) -> None:
    splits = all_splits(tmp_path)
    assert {name: len(by_hash) for name, by_hash in splits.items()} == {"demo": 1797, "manifest": 72}
    assert splits == recorded("splits")
