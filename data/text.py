"""Counts with their nouns."""

from __future__ import annotations


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 epoch``, ``2,000 epochs``, ``3 classes``."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")
