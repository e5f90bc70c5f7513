"""Outbox: appended operations survive any end of the process; corrupt lines are reported and skipped."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import TrackingError
from tuning.tracking.operations import (
    PARENT_UID,
    EndRun,
    LogEpoch,
    LogFile,
    LogInput,
    LogText,
    Operation,
    SetParamsAndTags,
    StartRun,
)
from tuning.tracking.outbox import Outbox

OPERATIONS: tuple[Operation, ...] = (
    StartRun("uid0", "trial-000", {"lr": 1e-3, "optimizer": "adam", "trial": 0}, {"origin": "default"}, time_ms=1),
    LogEpoch("uid0", 1, {"loss": 0.1 + 0.2, "big": math.inf}, {"blocks": 18}, time_ms=2),
    SetParamsAndTags(PARENT_UID, {"recipe.lr": "1e-3"}, {"freezeline.search_folder": "/x"}),
    LogInput(PARENT_UID, {"name": "pets", "digest": "d"}),
    LogText(PARENT_UID, "why.txt", "one\nüß\r\u2028two"),
    LogFile(PARENT_UID, "/x/report.html", ""),
    EndRun("uid0", "FAILED", {"reason": "because"}, time_ms=3),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "search" / "outbox.jsonl"


def append(path: Path, *operations: Operation) -> list[int]:
    with closing(Outbox(path)) as outbox:
        return [outbox.append(operation) for operation in operations]


def reopened(path: Path) -> Outbox:
    """Return the outbox as another process loads it, already closed."""
    with closing(Outbox(path)) as outbox:
        return outbox


def pending(path: Path) -> list[Operation]:
    return list(reopened(path).pending.values())


def test_every_operation_is_loaded_unchanged_and_in_order(path: Path) -> None:
    append(path, *OPERATIONS)
    assert pending(path) == list(OPERATIONS)


@given(st.text(), st.floats(allow_nan=False))
def test_any_text_and_number_is_loaded_unchanged(
    tmp_path_factory: pytest.TempPathFactory, text: str, value: float
) -> None:
    path = tmp_path_factory.mktemp("any") / "outbox.jsonl"
    if not text.isprintable():
        text = ascii(text)
    operations = [LogText("uid0", "a.txt", text), LogEpoch("uid0", 1, {"loss": value}, time_ms=1)]
    append(path, *operations)
    assert pending(path) == operations


def test_nan_is_loaded_as_nan(path: Path) -> None:
    append(path, LogEpoch("uid0", 1, {"loss": math.nan}))
    (operation,) = pending(path)
    assert isinstance(operation, LogEpoch)
    assert math.isnan(operation.metrics["loss"])


def test_delivered_operations_are_not_pending(path: Path) -> None:
    offsets = append(path, *OPERATIONS)
    with closing(Outbox(path)) as outbox:
        outbox.mark_delivered([offsets[0], offsets[3]])
        outbox.record_run("uid0", "run0")
    outbox = reopened(path)
    assert list(outbox.pending.values()) == [OPERATIONS[index] for index in (1, 2, 4, 5, 6)]
    assert outbox.run_ids == {"uid0": "run0"}
    assert outbox.starts == {"uid0": OPERATIONS[0]}


@pytest.mark.parametrize("lost_bytes", [1, 2, 10, 40])
def test_an_incomplete_last_line_is_dropped_and_the_next_line_is_complete(path: Path, lost_bytes: int) -> None:
    append(path, *OPERATIONS[:3])
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    append(path, OPERATIONS[3])
    assert pending(path) == [OPERATIONS[0], OPERATIONS[1], OPERATIONS[3]]
    assert reopened(path).corrupt_lines == []


def test_a_corrupt_line_is_reported_and_skipped(path: Path) -> None:
    offsets = append(path, *OPERATIONS)
    content = bytearray(path.read_bytes())
    content[offsets[2] + 30] ^= 1
    path.write_bytes(content)
    assert pending(path) == [*OPERATIONS[:2], *OPERATIONS[3:]]
    assert reopened(path).corrupt_lines == [f"line 3 of {path} is corrupt and was skipped"]


def test_an_operation_of_an_unknown_kind_is_reported_and_skipped(path: Path) -> None:
    with closing(Outbox(path)) as outbox:
        outbox._append('{"kind": "Unknown", "trial_uid": "uid0"}')
    append(path, OPERATIONS[0])
    assert pending(path) == [OPERATIONS[0]]
    assert len(reopened(path).corrupt_lines) == 1


def test_only_one_process_has_the_outbox_open(path: Path) -> None:
    with closing(Outbox(path)), pytest.raises(TrackingError, match="open in one process only"):
        Outbox(path)
    reopened(path)


def test_other_users_cannot_read_the_outbox(path: Path) -> None:
    reopened(path)
    assert path.stat().st_mode & 0o077 == 0
