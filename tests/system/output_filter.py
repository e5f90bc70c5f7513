"""Telling our own lines from those of the libraries below us, which a person must not see."""

from __future__ import annotations

import re
from collections.abc import Iterable

OWN = re.compile(
    r"""
    \d\d:\d\d:\d\d\ \ \S                                   # a sentence
    | \w[\w-]*:\ [\d,]+\ images\ in\ \d+\ classes          # the audit
    | no\ problems\ found
    | \ +\S                                                # what belongs to the line above, and rows of tables
    | Best\ trials\ by\ validation | Accuracy\ against\ cost | trial\ +bal\.\ acc\.
    | Finals,\ the\ best\ trained | Against\ the\ default | On\ the\ \d+\ test\ pictures
    | models:/[\w-]+@\w+\ is\ now\ version
    | (the\ report|compare\ the\ trials|classify\ a\ picture|search\ on\ your\ own):\ +\S
    """,
    re.VERBOSE,
)


def foreign(lines: Iterable[str]) -> list[str]:
    """Return the lines that a search has not written itself."""
    return [line for line in lines if line.strip() and not OWN.match(line)]
