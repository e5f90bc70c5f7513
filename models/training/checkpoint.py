"""The state of a training run, and its checkpoint: a safetensors file with the history as JSON in its metadata.

The file contains no pickle and is written atomically. The network that loads it checks the tensor names and shapes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from data.atomic_write import write_atomically
from data.frozen_model import FrozenModel
from models.evaluation.metrics import ClassificationMetrics
from models.training.best_epoch import EpochScore

HISTORY = "history"  # key in the file's metadata
SECTIONS = ("trainable_state", "optimizer")  # fields of TrainingState; tensors are stored as SECTION/NAME


class EpochResult(FrozenModel):
    """The metrics of one epoch, from 1.

    Attributes:
        train_loss: mean of the optimized loss (with label smoothing) over the epoch's training steps.
        val: metrics on the validation images after the epoch.
        lr: learning rate of the epoch's last step; None if the fit has no steps.
        epoch_s: seconds for training and validation.
        images_per_s: training images per second of training; of a probe, all images per second of its only epoch.
    """

    epoch: PositiveInt
    train_loss: float
    train_accuracy: float
    val: ClassificationMetrics
    lr: float | None = None
    epoch_s: float
    images_per_s: float

    @property
    def score(self) -> EpochScore:
        """What the best epoch is chosen by."""
        return EpochScore(self.val.balanced_accuracy, self.val.loss)

    def metrics(self) -> dict[str, float]:
        """Return the values by MLflow metric name; ``val_top5_accuracy`` only with more than five classes."""
        names = ("train_loss", "train_accuracy", "lr", "epoch_s", "images_per_s")
        values = {name: getattr(self, name) for name in names}
        return self.val.to_dict("val_") | {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class TrainingState:
    """The state after an epoch, from which ``fit`` resumes with the same results as without an interruption.

    Holds all epochs so far, ``Classifier.trainable_state_dict``, and the optimizer's tensors, named ``PARAMETER.NAME``.
    Everything else, such as the learning rate and the patience of ``plateau``, is derived from the history.
    """

    history: tuple[EpochResult, ...]
    trainable_state: dict[str, Tensor]
    optimizer: dict[str, Tensor]


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
