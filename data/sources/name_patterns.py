"""A pattern that reads classes from the names of files, as a suggestion."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

PATTERNS = ("([A-Za-z]+)[-_. ][^/]*$", "([A-Za-z]+[0-9]+)[-_. ][^/]*$")  # cat.1.jpg, subject01.glasses


def suggest_pattern(names: Sequence[str]) -> str:
    """Return an option that reads classes from the names of files, as the end of a sentence; empty if none fits.

    A pattern fits if it matches all names, and each of several labels occurs at least twice on average.
    """
    for pattern in PATTERNS:
        labels = [match.group(1) for name in names if (match := re.search(pattern, name))]
        if labels and len(labels) == len(names) and 2 <= len(set(labels)) <= len(labels) / 2:
            return f", or read the classes from the file names: label_from={shlex.quote(pattern)}"
    return ""
