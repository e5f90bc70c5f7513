"""The training loop: plain PyTorch, independent of Ray and MLflow.

Shapes: b images of s x s pixels, n images in an epoch, k classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from data.loading.batch_loader import BatchLoader
from models.classifier import Classifier
from models.device import choose_device
from models.evaluation.inference import predict, run_epoch
from models.evaluation.metrics import Probabilities, compute_metrics
from models.training.best_epoch import best_epoch
from models.training.checkpoint import EpochResult, TrainingState
from models.training.train_step import TrainStep, check_divergence, hard_labels
from models.trial_config import FitConfig

Batches = Iterator[tuple[Tensor, Tensor]]


def _do_nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class FitHooks:
    """Functions that ``fit`` calls; each may raise to stop the training.

    Attributes:
        on_batch: called after every training batch and every validation batch.
        on_best: called with the validation probabilities [n, k] of the best epoch so far, before ``on_epoch``.
        on_epoch: called with (result, is_best) after every epoch.
        on_checkpoint: called after every epoch but the last, with a function that returns the current state.
    """

    on_batch: Callable[[], None] = _do_nothing
    on_best: Callable[[Probabilities], None] = _do_nothing
    on_epoch: Callable[[EpochResult, bool], None] = _do_nothing
    on_checkpoint: Callable[[Callable[[], TrainingState]], None] = _do_nothing


NO_HOOKS = FitHooks()


def fit(
    classifier: Classifier,
    train: BatchLoader,
    val: BatchLoader,
    config: FitConfig,
    hooks: FitHooks = NO_HOOKS,
    *,
    accumulation_steps: int = 1,
    state: TrainingState | None = None,
) -> tuple[EpochResult, ...]:
    """Train the classifier in place and return the results of all epochs.

    The classifier ends with the weights of the last epoch. Randomness in training (dropout) depends only on the seed of
    ``train`` and the epoch number.

    Args:
        classifier: as returned by ``build_classifier``, also when training is resumed.
        train: training batches.
        val: validation batches, evaluated after every epoch.
        config: optimizer, schedule and number of epochs.
        hooks: called during training.
        accumulation_steps: micro-batches per batch, whose gradients are summed: less memory for the same steps,
            except that batch norm sees one micro-batch at a time.
        state: resume from this state of an earlier call with the same classifier, batches and configuration.

    Raises:
        Divergence: a loss is NaN or infinite, or training is far worse than random guessing.
    """
    classifier.to(choose_device())
    train_step = TrainStep(classifier, config, len(train), train.class_weights, accumulation_steps)
    history: list[EpochResult] = []
    if state:
        classifier.load_state_dict(state.trainable_state, strict=False)
        train_step.load_state(state)
        history.extend(state.history)
    for epoch in range(len(history) + 1, config.max_epochs + 1):
        if _is_out_of_patience(history, config.patience):
            break
        torch.manual_seed(1_000_003 * train.seed + epoch)
        train_batches, val_batches = (_notifying(batches.epoch(epoch), hooks.on_batch) for batches in (train, val))
        result, val_probabilities = _run_epoch(classifier, train_batches, val_batches, train_step, epoch)
        history.append(result)
        is_best = best_epoch([result.score for result in history]) == epoch
        if is_best:
            hooks.on_best(val_probabilities)
        hooks.on_epoch(result, is_best)
        if epoch < config.max_epochs:
            hooks.on_checkpoint(partial(_training_state, classifier, train_step, tuple(history)))
    return tuple(history)


def _notifying(batches: Batches, on_batch: Callable[[], None]) -> Batches:
    for batch in batches:
        yield batch
        on_batch()


def _training_state(classifier: Classifier, train_step: TrainStep, history: tuple[EpochResult, ...]) -> TrainingState:
    return TrainingState(history, classifier.trainable_state_dict(), train_step.state())


def _run_epoch(
    classifier: Classifier, train: Batches, val: Batches, train_step: TrainStep, epoch: int
) -> tuple[EpochResult, Probabilities]:
    started = time.perf_counter()
    logits, labels = run_epoch(classifier, train_step.micro_batches(train), train_step)
    train_s = time.perf_counter() - started
    train_loss = float(train_step.loss(logits, labels))
    val_probabilities, val_labels = predict(classifier, val)
    val_metrics = compute_metrics(val_probabilities, val_labels)
    check_divergence(epoch, train_loss, val_metrics.loss, num_classes=logits.shape[1], lr=train_step.lr)
    train_step.val_losses.append(val_metrics.loss)
    result = EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=float((logits.argmax(dim=1) == hard_labels(labels)).double().mean()),
        val=val_metrics,
        lr=train_step.lr,
        epoch_s=time.perf_counter() - started,
        images_per_s=len(labels) / train_s,
    )
    return result, val_probabilities


def _is_out_of_patience(history: list[EpochResult], patience: int) -> bool:
    losses = [result.val.loss for result in history]
    return patience > 0 and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience
