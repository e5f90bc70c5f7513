"""Background work in a thread that ends with a ``with`` block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background_thread(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Context manager: run ``work(stop_event)`` in a daemon thread called ``name``; on exit set the event and join."""
    stop_event = threading.Event()
    thread = threading.Thread(target=work, args=(stop_event,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_event.set()
        thread.join()
