"""The training loop: plain PyTorch, independent of Ray and MLflow.

Shapes: b images of s x s pixels, n images in an epoch, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from models.classifier import Classifier
from models.device import choose_device
from models.evaluation.inference import predict, run_epoch
from models.evaluation.metrics import compute_metrics
from models.training.state import EpochResult, TrainingState
from models.training.train_step import TrainStep, check_divergence, hard_labels
from models.trial_config import FitConfig


@dataclass(frozen=True)
class FitResult:
    """The result of training.

    Attributes:
        best_epoch: number of the best epoch, from 1.
        best_state: ``Classifier.trainable_state_dict`` after the best epoch; empty if that epoch precedes the state
            that training was resumed from.
        history: all epochs.
    """

    best_epoch: int
    best_state: dict[str, Tensor]
    history: tuple[EpochResult, ...]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest validation balanced accuracy; ties are broken by the lower validation loss."""
        return self.history[self.best_epoch - 1]


Batches = Iterator[tuple[Tensor, Tensor]]


class EpochBatches(Protocol):
    """The interface of ``data.loading.batch_loader.BatchLoader`` that the loop uses."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @property
    def class_weights(self) -> Tensor | None:
        """Weights of the classes in the training loss, [k]; None for equal weights."""

    def epoch(self, number: int) -> Batches:
        """Yield normalized images [b, 3, s, s] with labels [b], or class probabilities [b, k] of mixed images."""


OnEpoch = Callable[[EpochResult, bool], None]
SaveState = Callable[[Callable[[], TrainingState]], None]


def fit(
    classifier: Classifier,
    train: EpochBatches,
    val: EpochBatches,
    config: FitConfig,
    on_epoch: OnEpoch | None = None,
    *,
    on_batch: Callable[[], None] | None = None,
    seed: int = 0,
    accumulation_steps: int = 1,
    state: TrainingState | None = None,
    on_checkpoint: SaveState | None = None,
) -> FitResult:
    """Train the classifier in place and return the history and the best weights.

    The classifier ends with the weights of the last epoch. Randomness in training (dropout) depends only on ``seed``
    and the epoch number.

    Args:
        classifier: as returned by ``build_classifier``, also when training is resumed.
        train: training batches.
        val: validation batches, evaluated after every epoch.
        config: optimizer, schedule and number of epochs.
        on_epoch: called with (result, is_best) after every epoch; may save the weights, and may raise to stop.
        on_batch: called before every batch of training and validation.
        seed: random seed.
        accumulation_steps: micro-batches per batch, whose gradients are summed: less memory for the same steps,
            except that batch norm sees one micro-batch at a time.
        state: resume from this state of an earlier call with the same classifier, batches and configuration.
        on_checkpoint: called after ``on_epoch`` for every epoch but the last, with a function that returns the
            current state.

    Raises:
        Divergence: a loss is NaN or infinite, or training is far worse than random guessing.
    """
    classifier.to(choose_device())
    train_step = TrainStep(classifier, config, len(train), train.class_weights, accumulation_steps)
    history = list(state.history) if state else []
    best = _resume(classifier, train_step, state) if state else FitResult(0, {}, ())
    for epoch in range(len(history) + 1, config.max_epochs + 1):
        if _is_out_of_patience(history, config.patience):
            break
        torch.manual_seed(1_000_003 * seed + epoch)
        train_batches, val_batches = (_observed(split.epoch(epoch), on_batch) for split in (train, val))
        result = _run_epoch(classifier, train_batches, val_batches, train_step, epoch)
        history.append(result)
        is_best = is_better(result, history[:-1])
        if is_best:
            best = FitResult(epoch, classifier.trainable_state_dict(), tuple(history))
        if on_epoch:
            on_epoch(result, is_best)
        if on_checkpoint and epoch < config.max_epochs:
            on_checkpoint(partial(_training_state, classifier, train_step, tuple(history)))
    return FitResult(best.best_epoch, best.best_state, tuple(history))


def _training_state(classifier: Classifier, train_step: TrainStep, history: tuple[EpochResult, ...]) -> TrainingState:
    return TrainingState(history, classifier.trainable_state_dict(), train_step.state())


def _resume(classifier: Classifier, train_step: TrainStep, state: TrainingState) -> FitResult:
    """Restore the classifier and the training step; return the best epoch so far."""
    classifier.load_state_dict(state.trainable_state, strict=False)
    train_step.load_state(state)
    best = max(state.history, key=_rank)  # the first of equals
    return FitResult(best.epoch, {}, state.history)


def is_better(result: EpochResult, previous: Sequence[EpochResult]) -> bool:
    """Return whether an epoch beats all previous ones by balanced accuracy, or by loss if that is equal."""
    return all(_rank(result) > _rank(other) for other in previous)


def _run_epoch(classifier: Classifier, train: Batches, val: Batches, train_step: TrainStep, epoch: int) -> EpochResult:
    started = time.perf_counter()
    logits, labels = run_epoch(classifier, train_step.micro_batches(train), train_step)
    train_s = time.perf_counter() - started
    train_loss = float(train_step.loss(logits, labels))
    val_metrics = compute_metrics(*predict(classifier, val))
    check_divergence(epoch, train_loss, val_metrics.loss, num_classes=logits.shape[1], lr=train_step.lr)
    train_step.end_epoch(val_metrics.loss)
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=float((logits.argmax(dim=1) == hard_labels(labels)).double().mean()),
        val=val_metrics,
        lr=train_step.lr,
        epoch_s=time.perf_counter() - started,
        images_per_s=len(labels) / train_s,
    )


def _observed(batches: Batches, on_batch: Callable[[], None] | None) -> Batches:
    for batch in batches:
        if on_batch:
            on_batch()
        yield batch


def _rank(result: EpochResult) -> tuple[float, float]:
    return result.val.balanced_accuracy, -result.val.loss


def _is_out_of_patience(history: list[EpochResult], patience: int) -> bool:
    losses = [result.val.loss for result in history]
    return patience > 0 and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience
