"""``mlflow run .`` as a person types it: from a terminal, to its end and ended by Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import psutil

from tests.system.conftest import ROOT, SMALL, World, program, runs_of

LIMIT_S = 240


class Terminal:
    """A program in a terminal of its own, of whose foreground group it is the leader."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.shown = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            os.execvp(arguments[0], arguments)  # noqa: S606

    def read_until(self, pattern: str) -> None:
        """Read what is shown until ``pattern`` is in it."""
        ends = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.shown):
            assert time.monotonic() < ends, f"{pattern!r} never came:\n{self.shown}"
            assert self._read(), f"ended before {pattern!r} came:\n{self.shown}"

    def type(self, text: bytes) -> None:
        """Type into the terminal."""
        os.write(self._terminal, text)

    def wait(self) -> int:
        """Read to the end and return the exit status."""
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], LIMIT_S)
        assert ready, f"silent for {LIMIT_S} s:\n{self.shown}"
        try:
            chunk = os.read(self._terminal, 65536)
        except OSError:  # Linux says so when the last process on the terminal has gone
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)


def mlflow_run(world: World, **options: str) -> list[str]:
    settings = {"data": str(world.photos), **SMALL, **options}
    parameters = [word for name, text in settings.items() for word in ("-P", f"{name}={text}")]
    return [
        "mlflow",
        "run",
        str(ROOT),
        "-e",
        "tune",
        "--env-manager",
        "local",
        "--experiment-name",
        "photos",
        *parameters,
    ]


def test_ctrl_c_ends_cleanly_reports_what_is_finished_and_leaves_no_run_running(world: World) -> None:
    terminal = Terminal(mlflow_run(world, trials="200", max_epochs="3"), world.folder)
    terminal.read_until(r"trial \d+ complete")
    group = list(psutil.Process(terminal.pid).children(recursive=True))
    assert group
    terminal.type(b"\x03")
    status = terminal.wait()
    assert status != 0
    assert "the best so far is packaged" in terminal.shown
    assert "Best trials by validation" in terminal.shown
    assert "Traceback (most recent call last)" not in terminal.shown.split("the best so far is packaged")[0]
    ends = time.monotonic() + 30
    while runs_of(world.client)[0].info.status != "KILLED" and time.monotonic() < ends:
        time.sleep(0.1)  # mlflow run has set it to FAILED; a process of ours puts that right
    parent, children = runs_of(world.client)
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    assert world.client.search_registered_models() == []
    files = {file.path for file in world.client.list_artifacts(parent.info.run_id)}
    assert "candidate.json" in files
    _, alive = psutil.wait_procs(group, timeout=20)
    assert alive == []


def test_a_mistake_ends_mlflow_run_with_our_sentence_and_the_run_that_it_opened_failed(world: World) -> None:
    done = program(*mlflow_run(world, data=str(world.folder / "nowhere"), trials="0"))
    assert done.returncode == 1
    assert "tune: trials must be at least 1, got '0'." in done.stderr
    runs = world.client.search_runs([world.client.get_experiment_by_name("photos").experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]
