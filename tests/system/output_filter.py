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
    | Best\ trials\ re-run | Compared\ with\ the\ default | Test\ result\ on\ \d+\ image
    | models:/[\w-]+@\w+\ is\ now\ version
    | (report|compare\ the\ trials|classify\ an\ image|run\ on\ your\ own\ data):\ +\S
    """,
    re.VERBOSE,
)


def foreign(lines: Iterable[str]) -> list[str]:
    """Return the lines that a search has not written itself."""
    return [line for line in lines if line.strip() and not OWN.match(line)]
