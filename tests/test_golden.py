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


def test_every_recorded_recipe_proposes_what_it_did() -> None:
    found = all_proposals()
    assert len(found) == 3
    for name, rows in recorded("proposals").items():
        assert len(found[name]) == len(rows) >= NUM_SAMPLED
        for row, before in zip(found[name], rows, strict=True):
            assert row == {key: near(value) for key, value in before.items()}, name


def test_every_image_is_in_the_split_that_it_was_in(tmp_path: Path) -> None:
    found = all_splits(tmp_path)
    assert {name: len(splits) for name, splits in found.items()} == {"demo": 1797, "manifest": 72}
    assert found == recorded("splits")
