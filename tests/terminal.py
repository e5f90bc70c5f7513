"""A terminal of tests: what a person sees of what a program has written to it, and a program in one."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LIMIT_S = 240
CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def screen_of(written: str) -> list[str]:
    """Return the lines that are left on an endless terminal, too wide for any line to be wrapped.

    It knows what rich's live view uses: carriage returns, lines erased, the cursor moved up, styles.
    """
    lines, row, column = [""], 0, 0
    for match in CONTROL.finditer(written):
        number, command, carriage, feed, text = match.groups()
        if carriage:
            column = 0
        elif feed:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text:
            before = lines[row].ljust(column)
            lines[row] = before[:column] + text + before[column + len(text) :]
            column += len(text)
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = ""
        elif command not in {"m", "h", "l"}:
            raise ValueError(f"a terminal of tests must know what is written to it, but not {match.group()!r}")
    return [line.rstrip() for line in lines if line.strip()]


@contextmanager
def on_a_terminal(columns: int = 80, lines: int = 24) -> Iterator[list[str]]:
    """Within: standard output is a real terminal; afterwards the list holds what was written to it."""
    written: list[str] = []
    master, slave = pty.openpty()
    reader = threading.Thread(target=_read_all, args=(master, written), daemon=True)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w", encoding="utf-8") as out:
        for name, value in {"TERM": "xterm", "COLUMNS": str(columns), "LINES": str(lines)}.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(out):
            yield written
    reader.join(LIMIT_S)
    os.close(master)


def _read_all(master: int, written: list[str]) -> None:
    parts = []
    with contextlib.suppress(OSError):  # Linux says so when nobody has the terminal open any more
        while chunk := os.read(master, 65536):
            parts.append(chunk)
    written.append(b"".join(parts).decode())


class Terminal:
    """A program in a terminal of its own, of whose foreground group it is the leader."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.shown = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            os.execvp(arguments[0], arguments)  # noqa: S606

    @property
    def screen(self) -> list[str]:
        """The lines that a person sees, those that scrolled away among them."""
        return screen_of(self.shown)

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
