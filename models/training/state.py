"""What training has done so far: the results of its epochs, and what it resumes from."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import Tensor

from data.frozen_model import FrozenModel
from models.evaluation.metrics import ClassificationMetrics


class EpochResult(FrozenModel):
    """What one epoch gave.

    Attributes:
        epoch: from 1.
        train_loss: mean of the loss that is trained on (with label smoothing), while it was trained.
        train_accuracy: likewise.
        val: scores on the validation pictures after the epoch.
        lr: learning rate of the epoch's last step.
        epoch_s: seconds for training and validation.
        images_per_s: training pictures per second of training.
    """

    epoch: PositiveInt
    train_loss: float
    train_accuracy: float
    val: ClassificationMetrics
    lr: float
    epoch_s: float
    images_per_s: float

    def metrics(self) -> dict[str, float]:
        """Return the numbers by their names in MLflow; ``val_top5_accuracy`` only with more than five classes."""
        names = ("train_loss", "train_accuracy", "lr", "epoch_s", "images_per_s")
        return self.val.to_dict("val") | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after an epoch: with it, ``fit`` goes on as if it had never stopped.

    All else that training has, such as the learning rate and what ``plateau`` waits for, follows from the history.

    Attributes:
        history: the epochs so far, from the first.
        trained: ``Classifier.trainable_state_dict`` after the last of them.
        optimizer: the optimizer's tensors after it, as ``PARAMETER.NAME``.
    """

    history: tuple[EpochResult, ...]
    trainable_state: dict[str, Tensor]
    optimizer: dict[str, Tensor]
