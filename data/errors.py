"""The exception tree.

    FreezelineError
    ├── UserError               what the user can mend: one sentence a problem, exit status 2
    │   ├── SettingError        an option's name or value
    │   ├── DataError           the data set
    │   ├── BackboneError       a network's name or its weights
    │   └── TrackingError       the MLflow server or what was asked of it
    ├── SearchError             a search that ended without a model, exit status 1
    └── ImageError              one picture that can't be read (defined in ``data.preprocessing``, which the
                                packaged model carries without this file; a ValueError there)

A message says the rule, then the value, then the next step. All problems of one kind are raised together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FreezelineError(Exception):
    """Base of every error that Freezeline raises on purpose."""


class UserError(FreezelineError):
    """Something the user can mend; ``problems`` holds one sentence each."""

    def __init__(self, *problems: str) -> None:
        if not problems:
            raise ValueError("a UserError needs at least one problem")
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[UserError], tuple[str, ...]]:
        # Exception's own pickling would hand the joined text back as one problem.
        return type(self), self.problems


class SettingError(UserError):
    """An option that does not exist, or a value it can't take."""


class DataError(UserError):
    """A data set that can't be searched on."""


class BackboneError(UserError):
    """A network's name that is unknown, or weights that can't be had or don't fit."""


class TrackingError(UserError):
    """An MLflow server, run or model that can't be reached or found."""


class SearchError(FreezelineError):
    """A search that ended without a model; the reason is in its message."""


def last_line(error: BaseException) -> str:
    """Return what an error says in one line; of a chain, what it began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]


def did_you_mean(word: str, known: Iterable[str], max_suggestions: int = 3) -> str:
    """Return ``"; did you mean a or b?"`` for the known words nearest to ``word``, else ``""``."""
    near = difflib.get_close_matches(word, list(known), n=max_suggestions, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
