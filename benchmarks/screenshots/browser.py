"""Headless Chromium, controlled through its DevTools pipe: screenshots of pages once they are complete."""

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
COLORS = 256  # of a screenshot's palette: a third of the bytes, without a visible difference
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
    """A screen: size in CSS pixels, device pixels per CSS pixel, light or dark mode."""

    width: int
    height: int
    scale: float = 1.0
    dark: bool = False


class Browser:
    """Context manager: one Chromium for several screenshots, terminated by its process id."""

    def __enter__(self) -> Browser:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise SystemExit("screenshots need Chromium, which is not installed; run apt-get install chromium")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, responses = os.pipe(), os.pipe()  # Chromium reads from descriptor 3 and writes to descriptor 4
        wired = f'exec "$@" 3<&{commands[0]} 4>&{responses[1]}'
        command = ["bash", "-c", wired, "bash", program, *OPTIONS, f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(command, pass_fds=(commands[0], responses[1]), stderr=subprocess.DEVNULL)
        os.close(commands[0])
        os.close(responses[1])
        self._commands, self._responses = open(commands[1], "wb"), open(responses[0], "rb")  # noqa: PTH123  (descriptors)
        self._last_id = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._commands.close()
        self._responses.close()
        self._profile.cleanup()

    def screenshot(
        self,
        url: str,
        screen: Screen,
        until: str,
        file: Path,
        scroll_to: str = "",
        clicks: Sequence[str] = (),
        hidden: str = "",
    ) -> None:
        """Write a page as a PNG once the JavaScript expression ``until`` is true.

        ``scroll_to`` is the CSS selector of the element at the top, ``clicks`` are selectors of elements that are
        clicked before, if they exist. ``hidden`` is a text, such as a local folder, that is replaced by "…".

        Raises:
            TimeoutError: the expression was not true within ``LIMIT_S``.
        """
        self._call("Emulation.setDeviceMetricsOverride", width=screen.width, height=screen.height,
                  deviceScaleFactor=screen.scale, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url="about:blank")  # URLs that differ only after # would not reload
        self._call("Page.navigate", url=url)
        self._wait(until)
        for selector in clicks:
            self._call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})?.click()")
        if scroll_to:
            self._call(
                "Runtime.evaluate", expression=f"document.querySelector({json.dumps(scroll_to)}).scrollIntoView()"
            )
        time.sleep(SETTLED_S)
        if hidden:
            self._call("Runtime.evaluate", expression=HIDE % json.dumps(hidden))
        png = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(small(png))

    def _wait(self, until: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not self._call("Runtime.evaluate", expression=f"Boolean({until})")["result"].get("value"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{until} was not true within {LIMIT_S:g} s")
            time.sleep(POLL_S)

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result; ignore events."""
        self._last_id += 1
        message: dict[str, object] = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            response = json.loads(self._read())
            if response.get("id") == self._last_id:
                if "error" in response:
                    raise RuntimeError(f"{method}: {response['error']['message']}")
                result: dict[str, Any] = response["result"]
                return result

    def _read(self) -> bytes:
        parts = bytearray()
        while (byte := self._responses.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium has ended")
            parts += byte
        return bytes(parts)


def small(png: bytes) -> bytes:
    """Return a PNG with a palette of ``COLORS``."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
