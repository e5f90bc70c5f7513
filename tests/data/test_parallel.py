"""Parallel work in threads and in processes: order, errors, progress, and a script without a main guard."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import data.parallel
from data.errors import DataError
from data.parallel import process_map


def square_in_process(excluded_pid: int, number: int) -> int:
    assert os.getpid() != excluded_pid
    return number**2


def die_in_another_process(pid: int, number: int) -> int:
    if number == 200 and os.getpid() != pid:
        os._exit(1)
    return number


def fail_at(limit: int, number: int) -> int:
    if number == limit:
        raise DataError("first problem", "second problem")
    return number


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.parallel, "MIN_ITEMS_FOR_PROCESSES", 100)
    monkeypatch.setattr(data.parallel, "available_cores", lambda: 2)


@pytest.mark.usefixtures("in_processes")
def test_many_items_are_processed_in_other_processes_in_order() -> None:
    progress: list[tuple[str, int, int]] = []
    work = partial(square_in_process, os.getpid())
    results = list(process_map(work, range(300), "squaring", lambda *event: progress.append(event)))
    assert results == [number**2 for number in range(300)]
    assert progress == [("squaring", number, 300) for number in range(1, 301)]


@pytest.mark.usefixtures("in_processes")
def test_an_error_in_a_process_keeps_its_problems() -> None:
    with pytest.raises(DataError) as info:
        list(process_map(partial(fail_at, 150), range(300)))
    assert info.value.problems == ("first problem", "second problem")


@pytest.mark.usefixtures("in_processes")
def test_threads_do_the_rest_if_a_process_is_killed() -> None:
    progress: list[int] = []
    work = partial(die_in_another_process, os.getpid())
    results = list(process_map(work, range(300), "working", lambda _, done, total: progress.append(done + total)))
    assert results == list(range(300))
    assert progress == list(range(301, 601))


@pytest.mark.usefixtures("in_processes")
def test_threads_do_all_if_processes_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError("no semaphores")

    monkeypatch.setattr("joblib.externals.loky.ProcessPoolExecutor", fail)
    assert set(process_map(lambda _: os.getpid(), range(200))) == {os.getpid()}


def pids_in_a_pool(_: None) -> set[int]:
    data.parallel.MIN_ITEMS_FOR_PROCESSES, data.parallel.available_cores = 10, lambda: 2
    return {os.getpid()} | set(process_map(pid_of, range(50)))


def pid_of(_: int) -> int:
    return os.getpid()


def test_a_process_that_may_not_start_others_uses_threads() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert len(pool.apply(pids_in_a_pool, (None,))) == 1


def test_few_items_are_processed_in_this_process() -> None:
    assert set(process_map(lambda _: os.getpid(), range(10))) == {os.getpid()}


def test_a_script_without_a_main_guard_does_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import data.parallel\n"
        "print('started', flush=True)\n"
        "data.parallel.MIN_ITEMS_FOR_PROCESSES, data.parallel.available_cores = 10, lambda: 2\n"
        "print(sum(data.parallel.process_map(abs, range(100))))\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("started\n4950\n", "")
