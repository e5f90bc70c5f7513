"""What is sent to MLflow: one small value for each thing that a run is told, with a JSON round trip for the spool.

Every operation carries the time at which it happened, so that a repeat stores the same point.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuning.common.redaction import Redactor

PARENT_UID = "parent"  # stands where a trial's uid stands, in what is said to the search's own run


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class StartRun:
    """Make (or find again) the run of a trial, and say that it runs."""

    trial_uid: str
    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class LogEpoch:
    """Metrics of one epoch, and parameters that became known with it."""

    trial_uid: str
    step: int
    metrics: Mapping[str, float]
    params: Mapping[str, object] = field(default_factory=dict)
    time_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class SetParamsAndTags:
    """Parameters and tags of a run that is there."""

    trial_uid: str
    params: Mapping[str, object]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LogInput:
    """The data set that a run learned from, as MLflow's own fields."""

    trial_uid: str
    dataset: Mapping[str, str]


@dataclass(frozen=True)
class LogText:
    """A text that becomes the artifact ``path`` of a run."""

    trial_uid: str
    path: str
    text: str


@dataclass(frozen=True)
class LogFile:
    """A file (absolute path) that becomes an artifact in the run's ``folder``; it must stay until it is delivered."""

    trial_uid: str
    file: str
    folder: str


@dataclass(frozen=True)
class EndRun:
    """The final status of a run, with tags that say why."""

    trial_uid: str
    status: str
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=now_ms)


Operation = StartRun | LogEpoch | SetParamsAndTags | LogInput | LogText | LogFile | EndRun
KINDS = {kind.__name__: kind for kind in (StartRun, LogEpoch, SetParamsAndTags, LogInput, LogText, LogFile, EndRun)}


def to_json(operation: Operation) -> str:
    """Return the operation as one line of JSON; NaN and the infinities keep Python's names."""
    return json.dumps({"kind": type(operation).__name__, **vars(operation)}, default=str)


def from_fields(fields: Mapping[str, object]) -> Operation:
    """Return the operation that ``to_json`` wrote, from its parsed JSON.

    Raises:
        KeyError, TypeError: for anything else.
    """
    arguments = dict(fields)
    kind: type[Operation] = KINDS[str(arguments.pop("kind"))]
    return kind(**arguments)  # type: ignore[arg-type]


def describe_operation(operation: Operation) -> str:
    """Return what the operation is called in a sentence."""
    whose = "the search" if operation.trial_uid == PARENT_UID else f"trial {operation.trial_uid}"
    match operation:
        case LogEpoch():
            return f"epoch {operation.step} of {whose}"
        case LogText():
            return f"{operation.path} of {whose}"
        case LogFile():
            return f"{operation.file} of {whose}"
        case _:
            return f"{type(operation).__name__} of {whose}"


def redacted_operation(operation: Operation, redactor: Redactor) -> Operation:
    """Return the operation with the secrets in its texts hidden."""
    hidden: dict[str, Any] = {name: redactor.value(value) for name, value in vars(operation).items()}
    return type(operation)(**hidden)
