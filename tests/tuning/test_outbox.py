"""The spool: what was appended is there again, whatever ended the process; spoiled lines are told and skipped."""

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

EACH: tuple[Operation, ...] = (
    StartRun("uid0", "trial-000", {"lr": 1e-3, "optimizer": "adam", "trial": 0}, {"origin": "default"}, time_ms=1),
    LogEpoch("uid0", 1, {"loss": 0.1 + 0.2, "big": math.inf}, {"blocks": 18}, time_ms=2),
    SetParamsAndTags(PARENT_UID, {"recipe.lr": "1e-3"}, {"search_folder": "/x"}),
    LogInput(PARENT_UID, {"name": "pets", "digest": "d"}),
    LogText(PARENT_UID, "why.txt", "one\nüß\r\u2028two"),
    LogFile(PARENT_UID, "/x/report.html", ""),
    EndRun("uid0", "FAILED", {"reason": "because"}, time_ms=3),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "search" / "spool.jsonl"


def filled(path: Path, *operations: Operation) -> list[int]:
    with closing(Outbox(path)) as spool:
        return [spool.append(operation) for operation in operations]


def opened(path: Path) -> Outbox:
    """Return the spool as another process finds it; it is closed again."""
    with closing(Outbox(path)) as spool:
        return spool


def pending(path: Path) -> list[Operation]:
    return list(opened(path).pending.values())


def test_every_operation_comes_back_as_it_was_and_in_order(path: Path) -> None:
    filled(path, *EACH)
    assert pending(path) == list(EACH)


@given(st.text(), st.floats(allow_nan=False))
def test_any_text_and_number_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str, value: float) -> None:
    path = tmp_path_factory.mktemp("any") / "spool.jsonl"
    if not text.isprintable():
        text = ascii(text)
    sent = [LogText("uid0", "a.txt", text), LogEpoch("uid0", 1, {"loss": value}, time_ms=1)]
    filled(path, *sent)
    assert pending(path) == sent


def test_a_nan_comes_back(path: Path) -> None:
    filled(path, LogEpoch("uid0", 1, {"loss": math.nan}))
    (operation,) = pending(path)
    assert isinstance(operation, LogEpoch)
    assert math.isnan(operation.metrics["loss"])


def test_what_was_delivered_is_not_pending(path: Path) -> None:
    tickets = filled(path, *EACH)
    with closing(Outbox(path)) as spool:
        spool.delivered([tickets[0], tickets[3]])
        spool.record_run("uid0", "run0")
    again = opened(path)
    assert list(again.pending.values()) == [EACH[at] for at in (1, 2, 4, 5, 6)]
    assert again.run_ids == {"uid0": "run0"}
    assert again.starts == {"uid0": EACH[0]}


@pytest.mark.parametrize("lost", [1, 2, 10, 40])
def test_a_last_line_that_a_crash_cut_is_dropped_and_the_next_begins_anew(path: Path, lost: int) -> None:
    filled(path, *EACH[:3])
    path.write_bytes(path.read_bytes()[:-lost])
    filled(path, EACH[3])
    assert pending(path) == [EACH[0], EACH[1], EACH[3]]
    assert opened(path).corrupt_lines == []


def test_a_spoiled_line_is_told_and_skipped(path: Path) -> None:
    tickets = filled(path, *EACH)
    content = bytearray(path.read_bytes())
    content[tickets[2] + 30] ^= 1
    path.write_bytes(content)
    assert pending(path) == [*EACH[:2], *EACH[3:]]
    assert opened(path).corrupt_lines == [f"line 3 of {path} is spoiled and was skipped"]


def test_a_line_of_an_unknown_kind_is_told_and_skipped(path: Path) -> None:
    with closing(Outbox(path)) as spool:
        spool._append('{"kind": "Unheard", "trial_uid": "uid0"}')
    filled(path, EACH[0])
    assert pending(path) == [EACH[0]]
    assert len(opened(path).corrupt_lines) == 1


def test_one_process_at_a_time_has_it(path: Path) -> None:
    with closing(Outbox(path)), pytest.raises(TrackingError, match="in one process at a time"):
        Outbox(path)
    opened(path)


def test_others_can_not_read_it(path: Path) -> None:
    opened(path)
    assert path.stat().st_mode & 0o077 == 0
