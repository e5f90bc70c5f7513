"""Record the live view: ``python -m benchmarks.screenshots.live OUT.svg [--minutes 4] [--log FILE]``.

Runs a real search on the demo digits, or on the photos of ``--data``, in a terminal of 100 columns and writes the
screen that showed most of the running trials' curves. ``--log`` keeps the terminal output, or uses the one that an
earlier call has left there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tuning.ui.live.render import BARS

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, LINES = 100, 24
CONTROL = re.compile(r"(\r)|(\n)|\x1b\[(\d*)A|(\x1b\[2K)|\x1b\[\?25[hl]|([^\x1b\r\n]+|\x1b\[[\d;]*m)")
CURVE = re.compile(f"[{BARS}]{{2,}}")
FONT = re.compile(r"@font-face\s*{[^}]*}")  # rich's font would be downloaded when the file is viewed
TITLE = "freezeline tune"


def record(data: str, minutes: str, log: Path | None) -> str:
    """Return the terminal output of a search, and write it to ``log``."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory() as home:
        variables = {
            "FREEZELINE_HOME": home,
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
            "TERM": "xterm-256color",
            "PYTHONPATH": str(ROOT),
        }
        if data != "demo":
            shutil.copytree(data, Path(home) / Path(data).name)
        command = [sys.executable, "-m", "tuning", "tune", Path(data).name, "--minutes", minutes]
        process = subprocess.Popen(command, cwd=home, env={**os.environ, **variables}, stdin=slave, stdout=slave)
        os.close(slave)
        chunks = []
        with contextlib.suppress(OSError):  # raised on Linux once no process has the terminal open
            while chunk := os.read(master, 65536):
                chunks.append(chunk)
        if log:
            log.write_bytes(b"".join(chunks))
        if process.wait():
            raise RuntimeError(f"the search must succeed, but exited with {process.returncode}")
    return b"".join(chunks).decode()


def screens(output: str) -> Iterator[list[str]]:
    """Yield the screen, including styles, before each erasure."""
    lines, row = [""], 0
    for match in CONTROL.finditer(output):
        _, feed, up, erase, text = match.groups()
        if feed:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif up is not None:
            row = max(0, row - int(up or 1))
        elif erase:
            if row == len(lines) - 1 and lines[row]:
                yield list(lines)
            lines[row] = ""
            del lines[row + 1 :]
        elif text:
            lines[row] += text


def richest(output: str) -> list[str]:
    """Return the screen with the longest curves (the last of several), cut to the terminal's height."""
    numbered = enumerate(screens(output))
    _, screen = max(numbered, key=lambda item: (sum(map(len, CURVE.findall("\n".join(item[1])))), item[0]))
    return screen[-LINES:]


def main() -> None:
    """Write the SVG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--minutes", default="4")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    if arguments.log and arguments.log.exists():
        output = arguments.log.read_bytes().decode()
    else:
        output = record(arguments.data, arguments.minutes, arguments.log)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in richest(output):
        console.print(Text.from_ansi(line), soft_wrap=True)
    arguments.out.write_text(FONT.sub("", console.export_svg(title=TITLE)))


if __name__ == "__main__":
    main()
