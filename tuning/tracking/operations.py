"""Tracking operations: one immutable value per change to an MLflow run, serializable to JSON for the outbox.

Metrics, starts and ends carry the time at which they happened, so that a repeated delivery stores the same point.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuning.common.redaction import Redactor

PARENT_UID = "parent"  # the `trial_uid` of operations on the parent run


def now_ms() -> int:
    """Return the time as Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class StartRun:
    """Create the run of a trial, or find the existing one, and set its status to RUNNING."""

    trial_uid: str
    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class LogEpoch:
    """Log the metrics of one epoch, and parameters that became known in it."""

    trial_uid: str
    step: int
    metrics: Mapping[str, float]
    params: Mapping[str, object] = field(default_factory=dict)
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class SetParamsAndTags:
    """Set parameters and tags of an existing run."""

    trial_uid: str
    params: Mapping[str, object]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LogInput:
    """Log the data set that a run was trained on; the keys of ``dataset`` are MLflow's fields."""

    trial_uid: str
    dataset: Mapping[str, str]


@dataclass(frozen=True)
class LogText:
    """Log a text as the artifact ``path`` of a run."""

    trial_uid: str
    path: str
    text: str


@dataclass(frozen=True)
class LogFile:
    """Log a file (absolute path) as an artifact in ``folder``; the file must exist until it is delivered."""

    trial_uid: str
    file: str
    folder: str


@dataclass(frozen=True)
class EndRun:
    """Set the final status of a run, and tags that explain it."""

    trial_uid: str
    status: str
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=now_ms)


Operation = StartRun | LogEpoch | SetParamsAndTags | LogInput | LogText | LogFile | EndRun
KINDS = {kind.__name__: kind for kind in (StartRun, LogEpoch, SetParamsAndTags, LogInput, LogText, LogFile, EndRun)}


def to_json(operation: Operation) -> str:
    """Return the operation as one line of JSON; NaN and infinity are written as in Python."""
    return json.dumps({"kind": type(operation).__name__, **vars(operation)}, default=str)


def from_fields(fields: Mapping[str, object]) -> Operation:
    """Return the operation from the parsed JSON of ``to_json``.

    Raises:
        KeyError, TypeError: the kind or its fields are unknown.
    """
    arguments = dict(fields)
    kind: type[Operation] = KINDS[str(arguments.pop("kind"))]
    return kind(**arguments)  # type: ignore[arg-type]


def describe_operation(operation: Operation) -> str:
    """Return a short description of the operation for messages."""
    owner = "the search" if operation.trial_uid == PARENT_UID else f"trial {operation.trial_uid}"
    match operation:
        case LogEpoch():
            return f"epoch {operation.step} of {owner}"
        case LogText():
            return f"{operation.path} of {owner}"
        case LogFile():
            return f"{operation.file} of {owner}"
        case _:
            return f"{type(operation).__name__} of {owner}"


def redacted_operation(operation: Operation, redactor: Redactor) -> Operation:
    """Return a copy of the operation with the secrets in its texts masked."""
    fields: dict[str, Any] = {name: redactor.value(value) for name, value in vars(operation).items()}
    return type(operation)(**fields)
