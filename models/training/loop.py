"""The training loop: plain PyTorch, which knows neither Ray nor MLflow.

Shapes: b pictures of s pixels a side, n pictures in a pass, k classes.
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
    """All epochs, which was best, and the trained tensors after it (``Classifier.trainable_state_dict``).

    ``best_state`` is empty where the best epoch lies before the progress that training went on from.
    """

    best_epoch: int
    best_state: dict[str, Tensor]
    history: tuple[EpochResult, ...]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest validation balanced accuracy; among equals the lowest validation loss."""
        return self.history[self.best_epoch - 1]


class EpochBatches(Protocol):
    """What ``data.loading.batch_loader.BatchLoader`` is to the loop."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @property
    def class_weights(self) -> Tensor | None:
        """What the training loss is weighed with, [k]; None where all classes count alike."""

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalized pictures [b, 3, s, s] and labels [b], or the classes' shares [b, k] of mixed pictures."""


OnEpoch = Callable[[EpochResult, bool], None]
SaveState = Callable[[Callable[[], TrainingState]], None]


def fit(
    classifier: Classifier,
    train: EpochBatches,
    val: EpochBatches,
    config: FitConfig,
    on_epoch: OnEpoch | None = None,
    *,
    seed: int = 0,
    accumulation_steps: int = 1,
    state: TrainingState | None = None,
    on_checkpoint: SaveState | None = None,
) -> FitResult:
    """Train the classifier in place and return what came of it; the classifier ends with the last epoch's weights.

    What training draws at random (dropout) depends on ``seed`` and the epoch's number alone.

    Args:
        classifier: as ``build_classifier`` made it, also when training goes on.
        train: what is trained on.
        val: what each epoch is measured on.
        config: how it is trained.
        on_epoch: called with (result, is best) after every epoch: may save the weights, and may raise to stop.
        seed: of what is drawn at random.
        chunks: parts that a batch is computed in, one after another, its gradient summed: less memory, the same steps
            but for batch norm, which sees a part at a time.
        progress: where an earlier training of the same classifier, batches and configuration stood.
        keep: called after ``on_epoch`` for each epoch but the last, with what gives the progress so far.

    Raises:
        Divergence: a loss is NaN or infinite, or training is worse than guessing.
    """
    classifier.to(choose_device())
    learner = TrainStep(
        classifier, config, steps=len(train), class_weights=train.class_weights, accumulation_steps=accumulation_steps
    )
    history = list(state.history) if state else []
    best = _resume(classifier, learner, state) if state else FitResult(0, {}, ())
    for epoch in range(len(history) + 1, config.max_epochs + 1):
        if _is_out_of_patience(history, config.patience):
            break
        torch.manual_seed(1_000_003 * seed + epoch)
        result = _run_epoch(classifier, train, val, learner, epoch)
        history.append(result)
        is_best = is_better(result, history[:-1])
        if is_best:
            best = FitResult(epoch, classifier.trainable_state_dict(), tuple(history))
        if on_epoch:
            on_epoch(result, is_best)
        if on_checkpoint and epoch < config.max_epochs:
            on_checkpoint(partial(_training_state, classifier, learner, tuple(history)))
    return FitResult(best.best_epoch, best.best_state, tuple(history))


def _training_state(classifier: Classifier, learner: TrainStep, history: tuple[EpochResult, ...]) -> TrainingState:
    return TrainingState(history, classifier.trainable_state_dict(), learner.state())


def _resume(classifier: Classifier, learner: TrainStep, progress: TrainingState) -> FitResult:
    """Put the classifier and the learner where they stood; return the best so far."""
    classifier.load_state_dict(progress.trainable_state, strict=False)
    learner.load_state(progress)
    best = max(progress.history, key=_rank)  # the first among equals
    return FitResult(best.epoch, {}, progress.history)


def is_better(result: EpochResult, before: Sequence[EpochResult]) -> bool:
    """Return whether an epoch is better than all before it: higher balanced accuracy, or as high with a lower loss."""
    return all(_rank(result) > _rank(other) for other in before)


def _run_epoch(
    classifier: Classifier, train: EpochBatches, val: EpochBatches, learner: TrainStep, epoch: int
) -> EpochResult:
    began = time.perf_counter()
    logits, labels = run_epoch(classifier, learner.micro_batches(train.epoch(epoch)), learner)
    trained_s = time.perf_counter() - began
    train_loss = float(learner.loss(logits, labels))
    scores = compute_metrics(*predict(classifier, val.epoch(epoch)))
    check_divergence(epoch, train_loss, scores.loss, classes=logits.shape[1], lr=learner.lr)
    learner.end_epoch(scores.loss)
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=float((logits.argmax(dim=1) == hard_labels(labels)).double().mean()),
        val=scores,
        lr=learner.lr,
        epoch_s=time.perf_counter() - began,
        images_per_s=len(labels) / trained_s,
    )


def _rank(result: EpochResult) -> tuple[float, float]:
    return result.val.balanced_accuracy, -result.val.loss


def _is_out_of_patience(history: list[EpochResult], patience: int) -> bool:
    losses = [result.val.loss for result in history]
    return patience > 0 and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience
