"""The exception hierarchy.

    FreezelineError
    ├── UserError               what the user can fix: one sentence per problem, exit status 2
    │   ├── SettingError        the name or value of an option
    │   ├── DataError           the data set
    │   ├── BackboneError       the name or the weights of a backbone
    │   └── TrackingError       the MLflow server, a run or a registered model
    ├── SearchError             a search that ended without a model, exit status 1
    └── ExportError, Divergence, ModelLoadError    defined where they are raised

ImageError, an image that cannot be read, is a ValueError in ``data.preprocessing``, which the packaged model ships
without this file.

A message states the rule, then the value, then the next step. All problems of one kind are raised together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FreezelineError(Exception):
    """Base class of all errors that Freezeline raises deliberately."""


class UserError(FreezelineError):
    """An error that the user can fix; ``problems`` holds one sentence per problem."""

    def __init__(self, *problems: str) -> None:
        if not problems:
            raise ValueError("a UserError needs at least one problem")
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[UserError], tuple[str, ...]]:
        # The default pickling would restore the joined text as a single problem.
        return type(self), self.problems


class SettingError(UserError):
    """An unknown option, or an invalid value of an option."""


class DataError(UserError):
    """A data set that cannot be used for a search."""


class BackboneError(UserError):
    """An unknown backbone, or weights that are unavailable or incompatible."""


class TrackingError(UserError):
    """An MLflow server, run or model that cannot be reached or found."""


class SearchError(FreezelineError):
    """A search that ended without a model; the message gives the reason."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, at most 200 characters; its type if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def last_line(error: BaseException) -> str:
    """Return the last line of the message of an error's root cause, at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean a or b?"`` for the known words closest to ``word``, ``""`` if none is close."""
    suggestions = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
