"""The machine that something was measured on: its name, and the store's key of such a measurement."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = ("onnxruntime", "torch", "torchvision", "timm")  # that a network's speed depends on


def hardware() -> str:
    """Return what a latency holds for: the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def measurement_key(kind: str, *settings: object) -> str:
    """Return the key of what was measured on this machine, with these settings and the libraries that there are."""
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    text = repr([settings, versions, hardware()])
    return f"{kind}/{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
