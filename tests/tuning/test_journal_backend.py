"""The journal: what one process writes, Optuna's own backend can read, whatever the disk did to the last line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import Study

from tuning.search.journal_backend import BLOCK_SIZE, SingleWriterJournalBackend


def study(backend: BaseJournalBackend) -> Study:
    storage: BaseStorage = JournalStorage(backend)
    return optuna.create_study(study_name="search", storage=storage, load_if_exists=True)


def run(given: Study, count: int) -> list[float]:
    """Run so many trials; return the numbers that were proposed in all of the study's."""
    for _ in range(count):
        trial = given.ask()
        trial.set_user_attr("note", "été")
        trial.report(trial.suggest_float("x", 0, 1), 1)
        given.tell(trial, 0.5)
    return [trial.params["x"] for trial in given.trials]


@pytest.mark.parametrize("read", [lambda path: JournalFileBackend(str(path)), SingleWriterJournalBackend])
def test_what_is_written_can_be_read_by_optunas_own_backend_and_by_another_of_ours(
    tmp_path: Path, read: Callable[[Path], BaseJournalBackend]
) -> None:
    values = run(study(SingleWriterJournalBackend(tmp_path / "journal")), 5)
    assert [trial.params["x"] for trial in study(read(tmp_path / "journal")).trials] == values


def test_a_search_goes_on_in_the_journal_of_another_process(tmp_path: Path) -> None:
    first = run(study(SingleWriterJournalBackend(tmp_path / "journal")), 3)
    both = run(study(SingleWriterJournalBackend(tmp_path / "journal")), 2)
    assert (both[:3], len(both)) == (first, 5)
    assert run(study(JournalFileBackend(str(tmp_path / "journal"))), 0) == both


@pytest.mark.parametrize("tail", ['{"op_code":4', "\x00\x00\x00", '{"op_code":4,"worker_id":"' + "x" * BLOCK_SIZE])
def test_a_line_that_was_cut_short_is_taken_off(tmp_path: Path, tail: str) -> None:
    values = run(study(SingleWriterJournalBackend(tmp_path / "journal")), 3)
    with (tmp_path / "journal").open("a") as file:
        file.write(tail)
    again = run(study(SingleWriterJournalBackend(tmp_path / "journal")), 1)
    assert (again[:3], len(again)) == (values, 4)
    assert run(study(JournalFileBackend(str(tmp_path / "journal"))), 0) == again


def test_a_full_disk_leaves_the_journal_as_it_was(small_disk: Path) -> None:
    journal = SingleWriterJournalBackend(small_disk / "journal")
    given = study(journal)
    values = run(given, 2)
    (small_disk / "other").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    with pytest.raises(OSError, match=r"No space left|a part of a line") as raised:
        given.set_user_attr("note", "x" * 100_000)
    assert raised.value.errno in {errno.ENOSPC, None}
    (small_disk / "other").unlink()
    again = run(given, 1)
    assert again[:2] == values
    assert run(study(SingleWriterJournalBackend(small_disk / "journal")), 0) == again


def test_the_disk_is_waited_for_when_a_trial_is_settled_and_not_for_each_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = study(SingleWriterJournalBackend(tmp_path / "journal"))
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    trial = given.ask()
    for at in range(10):
        trial.suggest_float(f"x{at}", 0, 1)
    assert waits == []
    trial.set_user_attr("result", {})
    assert len(waits) == 1
    given.tell(trial, 0.5)
    assert len(waits) == 2


def test_all_lines_can_be_read_again_and_those_that_were_read_come_from_the_file(tmp_path: Path) -> None:
    journal = SingleWriterJournalBackend(tmp_path / "journal")
    run(study(journal), 4)
    lines = (tmp_path / "journal").read_text().splitlines()
    assert len(lines) > 16
    assert list(journal.read_logs(len(lines))) == []
    assert list(journal.read_logs(0)) == list(map(json.loads, lines))
