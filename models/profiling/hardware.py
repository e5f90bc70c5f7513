"""The hardware of this machine, and the cache keys of measurements made on it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = ("onnxruntime", "torch", "torchvision", "timm")  # their versions affect the speed of a network


def hardware() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measurement_key(kind: str, *settings: object) -> str:
    """Return the cache key of a measurement with these settings on this machine with the installed libraries."""
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    text = repr([settings, versions, hardware()])
    return f"{kind}/{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
