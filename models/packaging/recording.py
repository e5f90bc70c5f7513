"""Recording of what a packaged model answers, for ``freezeline monitor``; it imports nothing from the project.

With the environment variable ``FREEZELINE_RECORD=FOLDER``, each predicted image adds a line of JSON to a file there:

    time        Unix time in seconds
    image       the first 16 hex digits of the SHA-256 of the image's content; the image itself is never stored
    model       identifies the package
    label, score, novelty, latency_ms
    features    its coordinates along the first directions of variance, in standard deviations

A thread writes the lines, and answers do not wait for it: if it falls behind by ``MAX_QUEUED`` batches, the next ones
are not recorded. Each process writes files of its own, one a day.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VARIABLE = "FREEZELINE_RECORD"
MAX_QUEUED = 100  # batches; their images are in memory
ID_LENGTH = 16  # hex digits of digests
DECIMALS = 6
FLUSH_TIMEOUT_S = 5.0  # at the end of the process


class Recorder:
    """Appends rows to the files of a folder, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        """Create the folder.

        Raises:
            OSError: the folder cannot be created, or not be written to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{VARIABLE} must be a folder in which files can be written, got {folder}")
        self._folder = folder
        self._pid = 0
        self._queue: queue.Queue[Callable[[], list[dict[str, Any]]] | None] = queue.Queue(MAX_QUEUED)
        self._thread = threading.Thread()

    def record(
        self,
        common: Mapping[str, object],
        sources: Sequence[Any],
        labels: Sequence[str],
        probabilities: npt.NDArray[np.float64],
        novelty: npt.NDArray[np.float64] | None,
        summarize: Callable[[], npt.NDArray[np.float64]] | None,
    ) -> None:
        """Write a row soon for each of the images ``sources``, or drop them if the disk does not keep up.

        ``common`` are the fields that all rows have; ``summarize`` computes the summaries [n, 8] of the features.
        """
        if self._pid != os.getpid():  # also in a process that was forked after the model was loaded
            self._start()

        # The caller may change an image in memory; files are read by the thread.
        images = [source if isinstance(source, (bytes, Path)) else image_id(source) for source in sources]

        def rows() -> list[dict[str, Any]]:
            chosen = probabilities.argmax(axis=1)
            summaries = None if summarize is None else summarize()
            return [
                {
                    **common,
                    "image": image if isinstance(image, str) else image_id(image),
                    "label": labels[chosen[row]],
                    "score": round(float(probabilities[row, chosen[row]]), DECIMALS),
                    **({} if novelty is None else {"novelty": round(float(novelty[row]), DECIMALS)}),
                    **({} if summaries is None else {"features": summaries[row].round(3).tolist()}),
                }
                for row, image in enumerate(images)
            ]

        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(rows)

    def _start(self) -> None:
        self._pid, self._queue = os.getpid(), queue.Queue(MAX_QUEUED)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Write the rows in the queue, and stop."""
        if self._pid == os.getpid() and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(FLUSH_TIMEOUT_S)

    def _run(self) -> None:
        while (rows := self._queue.get()) is not None:
            file = self._folder / f"{time.strftime('%Y-%m-%d', time.gmtime())}-{self._pid}.jsonl"
            try:
                lines = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows())
                with file.open("ab") as out:
                    out.write(lines.encode("utf-8", "replace"))
            except OSError as error:  # the disk is full, or an image file was deleted: the next answers are recorded
                print(f"{VARIABLE}: {error}", file=sys.stderr)


def recorder_from_environment() -> Recorder | None:
    """Return a recorder for the folder in ``FREEZELINE_RECORD``; None if it is not set."""
    folder = os.environ.get(VARIABLE)
    return Recorder(Path(folder).expanduser()) if folder else None


def image_id(source: Any) -> str:  # noqa: ANN401  # bytes, a file, a PIL image or an array
    """Return the id of an image: a digest of its file's content, or of the pixels of an image in memory."""
    content = (
        source.read_bytes() if isinstance(source, Path) else source if isinstance(source, bytes) else source.tobytes()
    )
    return hashlib.sha256(content).hexdigest()[:ID_LENGTH]
