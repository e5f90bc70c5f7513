"""Counts of one and of several."""

from __future__ import annotations

import pytest

from data.findings import FINDING_TEXTS, Finding
from data.text import pluralize


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "file", "1 file"),
        (0, "file", "0 files"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "epoch", "1 epoch"),
        (2000, "epoch", "2,000 epochs"),
    ],
)
def test_a_count_of_one_is_singular(count: int, noun: str, text: str) -> None:
    assert pluralize(count, noun) == text


@pytest.mark.parametrize("kind", FINDING_TEXTS)
def test_the_headline_of_a_finding_is_singular_for_one(kind: str) -> None:
    one = Finding.model_validate({"kind": kind, "count": 1, "action": "kept"}).headline
    two = Finding.model_validate({"kind": kind, "count": 2, "action": "kept"}).headline
    assert one.removeprefix("1 ") == FINDING_TEXTS[kind].one  # type: ignore[index]
    assert one.removeprefix("1 ") != two.removeprefix("2 ")
