"""The journal backend: compatible with Optuna's, and robust against truncated lines and a full disk."""

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


def open_study(backend: BaseJournalBackend) -> Study:
    storage: BaseStorage = JournalStorage(backend)
    return optuna.create_study(study_name="search", storage=storage, load_if_exists=True)


def run_trials(study: Study, count: int) -> list[float]:
    """Run ``count`` trials; return the value of x in all trials of the study."""
    for _ in range(count):
        trial = study.ask()
        trial.set_user_attr("note", "été")
        trial.report(trial.suggest_float("x", 0, 1), 1)
        study.tell(trial, 0.5)
    return [trial.params["x"] for trial in study.trials]


@pytest.mark.parametrize("make_backend", [lambda path: JournalFileBackend(str(path)), SingleWriterJournalBackend])
def test_a_journal_can_be_read_by_this_backend_and_by_optunas(
    tmp_path: Path, make_backend: Callable[[Path], BaseJournalBackend]
) -> None:
    values = run_trials(open_study(SingleWriterJournalBackend(tmp_path / "journal")), 5)
    assert [trial.params["x"] for trial in open_study(make_backend(tmp_path / "journal")).trials] == values


def test_a_study_continues_in_the_journal_of_another_process(tmp_path: Path) -> None:
    first = run_trials(open_study(SingleWriterJournalBackend(tmp_path / "journal")), 3)
    both = run_trials(open_study(SingleWriterJournalBackend(tmp_path / "journal")), 2)
    assert (both[:3], len(both)) == (first, 5)
    assert run_trials(open_study(JournalFileBackend(str(tmp_path / "journal"))), 0) == both


@pytest.mark.parametrize("tail", ['{"op_code":4', "\x00\x00\x00", '{"op_code":4,"worker_id":"' + "x" * BLOCK_SIZE])
def test_a_truncated_last_line_is_removed(tmp_path: Path, tail: str) -> None:
    values = run_trials(open_study(SingleWriterJournalBackend(tmp_path / "journal")), 3)
    with (tmp_path / "journal").open("a") as file:
        file.write(tail)
    continued = run_trials(open_study(SingleWriterJournalBackend(tmp_path / "journal")), 1)
    assert (continued[:3], len(continued)) == (values, 4)
    assert run_trials(open_study(JournalFileBackend(str(tmp_path / "journal"))), 0) == continued


def test_a_full_disk_leaves_the_journal_unchanged(small_disk: Path) -> None:
    journal = SingleWriterJournalBackend(small_disk / "journal")
    study = open_study(journal)
    values = run_trials(study, 2)
    (small_disk / "other").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    with pytest.raises(OSError, match=r"No space left|a part of a line") as raised:
        study.set_user_attr("note", "x" * 100_000)
    assert raised.value.errno in {errno.ENOSPC, None}
    (small_disk / "other").unlink()
    continued = run_trials(study, 1)
    assert continued[:2] == values
    assert run_trials(open_study(SingleWriterJournalBackend(small_disk / "journal")), 0) == continued


def test_fsync_is_called_for_a_record_and_the_end_of_a_trial_but_not_for_each_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(SingleWriterJournalBackend(tmp_path / "journal"))
    fsync_calls: list[int] = []
    monkeypatch.setattr(os, "fsync", fsync_calls.append)
    trial = study.ask()
    for index in range(10):
        trial.suggest_float(f"x{index}", 0, 1)
    assert fsync_calls == []
    trial.set_user_attr("trial_record", {})
    assert len(fsync_calls) == 1
    study.tell(trial, 0.5)
    assert len(fsync_calls) == 2


def test_lines_that_were_read_before_are_read_from_the_file(tmp_path: Path) -> None:
    journal = SingleWriterJournalBackend(tmp_path / "journal")
    run_trials(open_study(journal), 4)
    lines = (tmp_path / "journal").read_text().splitlines()
    assert len(lines) > 16
    assert list(journal.read_logs(len(lines))) == []
    assert list(journal.read_logs(0)) == list(map(json.loads, lines))
