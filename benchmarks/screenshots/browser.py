"""Headless Chromium, told what to show through its DevTools pipe: pages as they are once they are complete."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from PIL import Image

LIMIT_S = 90.0  # MLflow's pages ask their server a dozen times before they are complete
POLL_S = 0.25
SETTLED_S = 1.0  # what is drawn after the last text has come: charts, fonts
COLORS = 256  # of the palette that a picture is written with: a third of the bytes, and nobody sees it
HIDE = """
    for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();)
        walker.currentNode.data = walker.currentNode.data.replaceAll(%s, "…");
"""
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


class Screen(NamedTuple):
    """What a page is shown on: sides in CSS pixels, device pixels for each of them, light or dark."""

    width: int
    height: int
    scale: float = 1.0
    dark: bool = False


class Browser:
    """One Chromium for several pictures; a context manager that ends it by its process id."""

    def __enter__(self) -> Browser:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise SystemExit("the pictures need Chromium, which is not installed; apt-get install chromium")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs, ours = os.pipe(), os.pipe()  # Chromium reads commands from its file 3 and answers on its file 4
        wired = f'exec "$@" 3<&{theirs[0]} 4>&{ours[1]}'
        command = ["bash", "-c", wired, "bash", program, *OPTIONS, f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(command, pass_fds=(theirs[0], ours[1]), stderr=subprocess.DEVNULL)
        os.close(theirs[0])
        os.close(ours[1])
        self._commands, self._answers = open(theirs[1], "wb"), open(ours[0], "rb")  # noqa: PTH123  (descriptors)
        self._asked = 0
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._commands.close()
        self._answers.close()
        self._profile.cleanup()

    def picture(
        self,
        url: str,
        screen: Screen,
        until: str,
        file: Path,
        scroll_to: str = "",
        clicked: Sequence[str] = (),
        hidden: str = "",
    ) -> None:
        """Write a page as a PNG, once the JavaScript expression ``until`` is true in it.

        ``scroll_to`` is a CSS selector of what is to be at the top, ``clicked`` are those of what is clicked before, if
        it is there. ``hidden`` is a text, such as a folder of this machine, in whose place the page shows "…".

        Raises:
            TimeoutError: it was not within ``LIMIT_S``.
        """
        self._ask("Emulation.setDeviceMetricsOverride", width=screen.width, height=screen.height,
                  deviceScaleFactor=screen.scale, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Page.navigate", url="about:blank")  # two addresses that differ after # only are one page
        self._ask("Page.navigate", url=url)
        self._wait(until)
        for selector in clicked:
            self._ask("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})?.click()")
        if scroll_to:
            self._ask(
                "Runtime.evaluate", expression=f"document.querySelector({json.dumps(scroll_to)}).scrollIntoView()"
            )
        time.sleep(SETTLED_S)
        if hidden:
            self._ask("Runtime.evaluate", expression=HIDE % json.dumps(hidden))
        png = base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(small(png))

    def _wait(self, until: str) -> None:
        ends = time.monotonic() + LIMIT_S
        while not self._ask("Runtime.evaluate", expression=f"Boolean({until})")["result"].get("value"):
            if time.monotonic() > ends:
                raise TimeoutError(f"{until} was not true within {LIMIT_S:g} s")
            time.sleep(POLL_S)

    def _ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result; events in between are of no interest."""
        self._asked += 1
        message: dict[str, object] = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> bytes:
        parts = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium has ended")
            parts += byte
        return bytes(parts)


def small(png: bytes) -> bytes:
    """Return a PNG with a palette of ``COLORS``."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
