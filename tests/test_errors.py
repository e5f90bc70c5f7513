"""docs/errors.md has every sentence that a user can cause, and each has a rule, a value and a next step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.errors import HOLE, Reader, Sentence

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
BETWEEN = re.compile(r"[\s,;:.?|`]+")  # what parts of a sentence are set apart by, in the code and in the table
# Of these the rule lists or bounds what may be typed, so that it is the next step as well.
BOUNDED = ("tuning.options.", "tuning.domains.", "tuning.recipe.")
# What is said of a recipe's file is said of an option, with the file before it; a file can't have a variant twice.
NO_OWN_SENTENCE = ("tuning.recipes._validated", "tuning.recipe._named_once")


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return [sentence for sentence in Reader().sentences() if sentence.where not in NO_OWN_SENTENCE]


def plain(text: str) -> str:
    return BETWEEN.sub(" ", text.replace("\\\\", "\\")).strip()


def pattern(sentence: Sentence) -> re.Pattern[str]:
    """Return what an example of a sentence has to look like, whatever is filled in."""
    parts = [re.escape(plain(part)) for part in sentence.text.split(HOLE)]
    return re.compile(r"\s*.*?\s*".join(parts))


def examples() -> list[str]:
    rows = [line.strip().strip("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [plain(row) for row in rows if not row.startswith((" rule ", " --- "))]


def test_every_sentence_that_a_user_can_cause_has_an_example_in_the_docs(sentences: list[Sentence]) -> None:
    assert len(sentences) > 120
    rows = examples()
    missing = [one for one in sentences if not any(pattern(one).fullmatch(row) for row in rows)]
    assert missing == [], "write a row for each into docs/errors.md"


def test_every_example_in_the_docs_is_still_said(sentences: list[Sentence]) -> None:
    # A rule as "… must be …, got …" would take in anything: for a longer example a longer sentence has to stand.
    exact = [one for one in sentences if len(one.text.replace(HOLE, "")) > 20 or one.where.startswith(BOUNDED)]
    stale = [row for row in examples() if not any(pattern(one).fullmatch(row) for one in exact)]
    assert stale == [], "take these rows out of docs/errors.md, or correct them"


def test_every_sentence_says_the_next_step(sentences: list[Sentence]) -> None:
    silent = [
        one
        for one in sentences
        if ";" not in one.text and "did you mean" not in one.text and not one.where.startswith(BOUNDED)
    ]
    assert silent == []


def test_every_sentence_says_what_was_found(sentences: list[Sentence]) -> None:
    without = [one for one in sentences if HOLE not in one.text and not re.search(r"\b(got|but)\b", one.text)]
    assert without == []


def test_no_row_is_there_twice() -> None:
    rows = examples()
    assert len(rows) > 120
    assert len(set(rows)) == len(rows)
