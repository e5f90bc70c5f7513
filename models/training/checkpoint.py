"""A training's progress as a file: safetensors with the history as its text, written so that a reader sees all or none.

There is no pickle in it, and it is read with its shapes and names checked by the network that takes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from data.atomic_write import write_atomically
from models.training.state import EpochResult, TrainingState

HISTORY = "history"  # in the file's metadata
PARTS = ("trained", "optimizer")


def save_checkpoint(path: Path, progress: TrainingState) -> None:
    """Write the progress to ``path``; what stood there before is replaced at once.

    Raises:
        OSError: the disk is full, say; the file is as it was before.
    """
    tensors = {f"{part}/{name}": tensor for part in PARTS for name, tensor in getattr(progress, part).items()}
    history = json.dumps([json.loads(result.to_json()) for result in progress.history])
    write_atomically(path, save(tensors, {HISTORY: history}))


def load_checkpoint(path: Path) -> TrainingState | None:
    """Return the progress in ``path``, or None if there is no such file or it can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            texts = json.loads(file.metadata()[HISTORY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    return TrainingState(history=tuple(EpochResult.from_json(json.dumps(text)) for text in texts), **parts)
