"""The picture of the live view: ``python -m benchmarks.screenshots.live OUT.svg [--minutes 8] [--log FILE]``.

A real search on the demo digits in a terminal of 100 columns, and of all that it showed the moment at which most was to
be seen of the trials that ran. ``--log`` keeps what the search wrote to its terminal, or takes what an earlier call has
left there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import re
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
FONT = re.compile(r"@font-face\s*{[^}]*}")  # rich's is fetched from a server when the picture is looked at
TITLE = "python -m tuning tune"


def record(minutes: str, log: Path | None) -> str:
    """Return what a search writes to its terminal, and keep it in ``log``."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory() as home:
        own = {"FREEZELINE_HOME": home, "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "tuning", "tune", "--minutes", minutes]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **own}, stdin=slave, stdout=slave)
        os.close(slave)
        chunks = []
        with contextlib.suppress(OSError):  # Linux says so when nobody has the terminal open any more
            while chunk := os.read(master, 65536):
                chunks.append(chunk)
        if log:
            log.write_bytes(b"".join(chunks))
        if process.wait():
            raise RuntimeError(f"the search must end well, but ended with {process.returncode}")
    return b"".join(chunks).decode()


def screens(written: str) -> Iterator[list[str]]:
    """Yield what was to be seen, styles included, before each time that something was erased."""
    lines, row = [""], 0
    for match in CONTROL.finditer(written):
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


def richest(written: str) -> list[str]:
    """Return the screen with the most letters of curves, of several the last; its lines that fit the terminal."""
    shown = max(enumerate(screens(written)), key=lambda one: (sum(map(len, CURVE.findall("\n".join(one[1])))), one[0]))
    return shown[1][-LINES:]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", default="8")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    if arguments.log and arguments.log.exists():
        written = arguments.log.read_bytes().decode()
    else:
        written = record(arguments.minutes, arguments.log)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in richest(written):
        console.print(Text.from_ansi(line), soft_wrap=True)
    arguments.out.write_text(FONT.sub("", console.export_svg(title=TITLE)))


if __name__ == "__main__":
    main()
