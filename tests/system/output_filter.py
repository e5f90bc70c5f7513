"""Tell a search's own output lines from lines of libraries, which must not be printed."""

from __future__ import annotations

import re
from collections.abc import Iterable

OWN_LINE = re.compile(
    r"""
    \d\d:\d\d:\d\d\ \ \S                                   # a log message
    | \w[\w-]*:\ [\d,]+\ images\ in\ \d+\ classes          # the audit
    | no\ problems\ found
    | \ +\S                                                # continuation lines and table rows
    | Best\ trials\ by\ validation | Accuracy\ against\ cost | trial\ +bal\.\ acc\.
    | Best\ trials\ re-run | Compared\ with\ the\ default | Test\ result\ on\ \d+\ image
    | models:/[\w-]+@\w+\ is\ now\ version
    | (report|compare\ the\ trials|classify\ an\ image|run\ on\ your\ own\ data):\ +\S
    """,
    re.VERBOSE,
)


def foreign_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines that the search did not write itself."""
    return [line for line in lines if line.strip() and not OWN_LINE.match(line)]
