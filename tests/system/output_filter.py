"""Tell a search's own output lines from lines of libraries, which must not be printed."""

from __future__ import annotations

import re
from collections.abc import Iterable

OWN_LINE = re.compile(
    r"""
    \d\d:\d\d:\d\d\ \ +\S                                  # a message, or the row of a trial
    | Freezeline\ \d | \w[\w-]*:\ [\d,]+\ images\ in\ \d+\ classes
    | \ +\S                                                # continuation lines and table rows
    | \[\d/\d\]\ \w | time\ +trial\ | trial\ +bal\.\ acc\.
    | Best\ trials\ by\ validation | Accuracy\ and\ cost\ before | Networks\ by\ validation | network\ +px
    | Best\ trials\ re-run | Compared\ with\ the\ default
    | (RESULT|MODEL|CHOICE|GAIN|TRIALS|CHAMPION|CHALLENGER|REGISTRY)\ +\S
    | (Report|MLflow|Predict|Serve|Continue|Register|Time)(\ +\S|$)
    """,
    re.VERBOSE,
)


def foreign_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines that the search did not write itself."""
    return [line for line in lines if line.strip() and not OWN_LINE.match(line)]
