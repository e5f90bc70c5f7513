"""Training checkpoints: the training state as a safetensors file, with the history as JSON in its metadata.

The file contains no pickle and is written atomically. The network that loads it checks the tensor names and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from data.atomic_write import write_atomically
from models.training.state import EpochResult, TrainingState

HISTORY = "history"  # key in the file's metadata
SECTIONS = ("trainable_state", "optimizer")  # fields of TrainingState; tensors are stored as SECTION/NAME


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the training state to ``path``, atomically replacing an earlier checkpoint.

    Raises:
        OSError: for example if the disk is full; the file at ``path`` is unchanged.
    """
    tensors = {f"{section}/{name}": tensor for section in SECTIONS for name, tensor in getattr(state, section).items()}
    history = json.dumps([json.loads(result.to_json()) for result in state.history])
    write_atomically(path, save(tensors, {HISTORY: history}))


def load_checkpoint(path: Path) -> TrainingState | None:
    """Return the training state stored in ``path``, or None if the file is missing or unreadable."""
    try:
        with safe_open(path, framework="pt") as file:
            epochs = json.loads(file.metadata()[HISTORY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    sections: dict[str, dict[str, Tensor]] = {section: {} for section in SECTIONS}
    for path_in_file, tensor in tensors.items():
        section, _, name = path_in_file.partition("/")
        sections[section][name] = tensor
    return TrainingState(history=tuple(EpochResult.from_json(json.dumps(epoch)) for epoch in epochs), **sections)
