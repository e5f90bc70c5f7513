"""The state of a training run: the results of its epochs, and the tensors needed to resume it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import Tensor

from data.frozen_model import FrozenModel
from models.evaluation.metrics import ClassificationMetrics


class EpochResult(FrozenModel):
    """The metrics of one epoch.

    Attributes:
        epoch: from 1.
        train_loss: mean of the optimized loss (with label smoothing) over the epoch's training steps.
        train_accuracy: accuracy over the same steps.
        val: metrics on the validation images after the epoch.
        lr: learning rate of the epoch's last step.
        epoch_s: seconds for training and validation.
        images_per_s: training images per second of training.
    """

    epoch: PositiveInt
    train_loss: float
    train_accuracy: float
    val: ClassificationMetrics
    lr: float
    epoch_s: float
    images_per_s: float

    def metrics(self) -> dict[str, float]:
        """Return the values by MLflow metric name; ``val_top5_accuracy`` only with more than five classes."""
        names = ("train_loss", "train_accuracy", "lr", "epoch_s", "images_per_s")
        return self.val.to_dict("val_") | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class TrainingState:
    """The state after an epoch, from which ``fit`` resumes with the same results as without an interruption.

    Everything else, such as the learning rate and the patience of ``plateau``, is derived from the history.

    Attributes:
        history: all epochs so far, starting with the first.
        trainable_state: ``Classifier.trainable_state_dict`` after the last of them.
        optimizer: the optimizer's tensors at the same point, named ``PARAMETER.NAME``.
    """

    history: tuple[EpochResult, ...]
    trainable_state: dict[str, Tensor]
    optimizer: dict[str, Tensor]
