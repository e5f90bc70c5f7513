"""A terminal for tests: the screen that results from a program's output, and programs that run in a terminal."""

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

TIMEOUT_S = 240
CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def screen_of(written: str) -> list[str]:
    """Return the lines on a terminal of unlimited height and width.

    It supports the control codes of rich's live view: carriage return, erase line, cursor up, styles.
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
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = ""
        elif command not in {"m", "h", "l"}:
            raise ValueError(f"the test terminal does not support {match.group()!r}")
    return [line.rstrip() for line in lines if line.strip()]


@contextmanager
def on_a_terminal(columns: int = 80, lines: int = 24) -> Iterator[list[str]]:
    """Context manager: standard output is a real terminal; on exit the list holds the text written to it."""
    written: list[str] = []
    master, slave = pty.openpty()
    reader = threading.Thread(target=_read_all, args=(master, written), daemon=True)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w", encoding="utf-8") as out:
        for name, value in {"TERM": "xterm", "COLUMNS": str(columns), "LINES": str(lines)}.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(out):
            yield written
    reader.join(TIMEOUT_S)
    os.close(master)


def _read_all(master: int, written: list[str]) -> None:
    chunks = []
    with contextlib.suppress(OSError):  # raised by Linux after the last process has closed the terminal
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    written.append(b"".join(chunks).decode())


class Terminal:
    """A program in its own terminal, where it leads the foreground process group."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.output = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            os.execvp(arguments[0], arguments)  # noqa: S606

    @property
    def screen(self) -> list[str]:
        """The lines on the screen, including those that have scrolled away."""
        return screen_of(self.output)

    def read_until(self, pattern: str) -> None:
        """Read output until it matches ``pattern``."""
        deadline = time.monotonic() + TIMEOUT_S
        while not re.search(pattern, self.output):
            assert time.monotonic() < deadline, f"no {pattern!r} after {TIMEOUT_S} s:\n{self.output}"
            assert self._read(), f"the program ended without {pattern!r}:\n{self.output}"

    def type(self, text: bytes) -> None:
        """Type into the terminal."""
        os.write(self._terminal, text)

    def wait(self) -> int:
        """Read until the program ends; return its exit status."""
        while self._read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], TIMEOUT_S)
        assert ready, f"no output for {TIMEOUT_S} s:\n{self.output}"
        try:
            chunk = os.read(self._terminal, 65536)
        except OSError:  # raised by Linux after the last process has closed the terminal
            return False
        self.output += chunk.decode(errors="replace")
        return bool(chunk)
