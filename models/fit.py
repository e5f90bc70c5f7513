"""The training loop: plain PyTorch, which knows neither Ray nor MLflow.

Shapes: b pictures of s pixels a side, n pictures in a pass, k classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import Parameter, functional

from data.errors import FreezelineError
from data.values import Value
from models.classifier import Classifier
from models.device import choose_device
from models.evaluate import Scores, predict, run_pass, score

WARMUP_STEPS = 20  # at most; a new head's first gradients are large, and Adam's first estimates are poor
STEPS_DOWN = 3  # ``step``: the learning rate is divided by ten at each third of the epochs
PLATEAU_FACTOR = 0.3  # ``plateau``: what the learning rate is multiplied by ...
PLATEAU_EPOCHS = 2  # ... after so many epochs without a lower validation loss
CYCLE_RISE = 0.3  # ``one_cycle``: share of the steps in which the learning rate rises ...
CYCLE_START = (
    0.04  # ... from so much of it; as fastai and torch have it, after Smith & Topin, "Super-Convergence" (2017)
)
MOMENTUM = 0.9  # of SGD, with Nesterov's correction: the usual choice in fine-tuning


class Divergence(FreezelineError):
    """Training that can't go on: the loss is no finite number any more; ``str()`` is the reason."""


class FitConfig(Value):
    """How a classifier is trained.

    Attributes:
        optimizer: SGD has Nesterov momentum; Adam's weight decay is part of the gradient, AdamW's isn't.
        lr: learning rate after the warmup, of the head.
        lr_decay: each trained block has the learning rate of the one behind it, the last one the head's, times this
            (discriminative fine-tuning: Howard & Ruder, "ULMFiT", 2018); 1 trains all of them alike.
        weight_decay: on weights only, not on norm layers and biases.
        lr_scheduler: ``cosine`` falls to 0 over all steps, ``step`` to a tenth every ``step_epochs``, ``one_cycle``
            rises over the first 30 % of the steps and falls to 0, ``plateau`` falls when the validation loss doesn't.
        step_epochs: epochs between two steps of ``step``; 0 makes them at each third of the epochs.
        max_epochs: times that training sees every picture.
        patience: epochs without a lower validation loss after which training stops; 0 never stops.
        label_smoothing: share of the probability that the training target spreads over all classes.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: float = Field(default=1e-2, ge=0)
    lr_decay: float = Field(default=1.0, gt=0, le=1)
    lr_scheduler: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = "cosine"
    step_epochs: NonNegativeInt = 0
    max_epochs: PositiveInt = 10
    patience: NonNegativeInt = 0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class EpochResult(Value):
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
    val: Scores
    lr: float
    epoch_s: float
    images_per_s: float

    def metrics(self) -> dict[str, float]:
        """Return the numbers by their names in MLflow; ``val_top5_accuracy`` only with more than five classes."""
        names = ("train_loss", "train_accuracy", "lr", "epoch_s", "images_per_s")
        return self.val.metrics("val") | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class FitResult:
    """All epochs, which was best, and the trained tensors after it (``Classifier.trained_state``)."""

    best_epoch: int
    best_state: dict[str, Tensor]
    history: tuple[EpochResult, ...]

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest validation balanced accuracy; among equals the lowest validation loss."""
        return self.history[self.best_epoch - 1]


class EpochBatches(Protocol):
    """What ``data.batches.Batches`` is to the loop."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @property
    def class_weights(self) -> Tensor | None:
        """What the training loss is weighed with, [k]; None where all classes count alike."""

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised pictures [b, 3, s, s] and labels [b], or the classes' shares [b, k] of mixed pictures."""


OnEpoch = Callable[[EpochResult, bool], None]


def fit(
    classifier: Classifier,
    train: EpochBatches,
    val: EpochBatches,
    config: FitConfig,
    on_epoch: OnEpoch | None = None,
    *,
    seed: int = 0,
) -> FitResult:
    """Train the classifier in place and return what came of it; the classifier ends with the last epoch's weights.

    ``on_epoch(result, is_best)`` is called after every epoch: it may save the weights, and may raise to
    stop. What training draws at random (dropout) depends on ``seed`` and the epoch's number alone.

    Raises:
        Divergence: a loss is NaN or infinite.
    """
    classifier.to(choose_device())
    learner = Learner(classifier, config, steps=len(train), class_weights=train.class_weights)
    history: list[EpochResult] = []
    best = FitResult(0, {}, ())
    for epoch in range(1, config.max_epochs + 1):
        torch.manual_seed(1_000_003 * seed + epoch)
        result = _run_epoch(classifier, train, val, learner, epoch)
        history.append(result)
        is_best = best.best_epoch == 0 or _rank(result) > _rank(best.best)
        if is_best:
            best = FitResult(epoch, classifier.trained_state(), tuple(history))
        if on_epoch:
            on_epoch(result, is_best)
        if _is_out_of_patience(history, config.patience):
            break
    return FitResult(best.best_epoch, best.best_state, tuple(history))


def _run_epoch(
    classifier: Classifier, train: EpochBatches, val: EpochBatches, learner: Learner, epoch: int
) -> EpochResult:
    began = time.perf_counter()
    logits, labels = run_pass(classifier, train.epoch(epoch), learner)
    trained_s = time.perf_counter() - began
    scores = score(*predict(classifier, val.epoch(epoch)))
    if not math.isfinite(scores.loss):
        raise Divergence(f"the validation loss became {scores.loss} in epoch {epoch} (lr {learner.lr:.3g})")
    learner.end_epoch(scores.loss)
    return EpochResult(
        epoch=epoch,
        train_loss=float(learner.loss(logits, labels)),
        train_accuracy=float((logits.argmax(dim=1) == hard(labels)).double().mean()),
        val=scores,
        lr=learner.lr,
        epoch_s=time.perf_counter() - began,
        images_per_s=len(labels) / trained_s,
    )


def hard(labels: Tensor) -> Tensor:
    """Return labels [b] of labels [b], or of the classes' shares [b, k]: the class with the largest."""
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


def _rank(result: EpochResult) -> tuple[float, float]:
    return result.val.balanced_accuracy, -result.val.loss


def _is_out_of_patience(history: list[EpochResult], patience: int) -> bool:
    losses = [result.val.loss for result in history]
    return patience > 0 and len(losses) - 1 - losses.index(min(losses)) >= patience


class Learner:
    """One training step after another: loss, gradient, optimizer, learning rate."""

    def __init__(
        self, classifier: Classifier, config: FitConfig, steps: int, class_weights: Tensor | None = None
    ) -> None:
        """Take ``steps``, the number of steps in an epoch, and what the loss weighs each class with, [k]."""
        self.config = config
        self.class_weights = class_weights
        self.optimizer = _optimizer(classifier, config)
        self.steps = steps
        self.taken = 0
        self.plateau = _Plateau()
        self.lr = 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> None:
        """Learn from one batch's logits [b, k] and labels [b], or shares of classes [b, k].

        Raises:
            Divergence: the loss is NaN or infinite; nothing has been changed then.
        """
        loss = self.loss(logits, labels)
        if not torch.isfinite(loss):
            epoch = self.taken // self.steps + 1
            raise Divergence(f"the training loss became {loss.item()} in epoch {epoch} (lr {self.lr:.3g})")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.lr = self.config.lr * self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["lr_factor"]
        self.optimizer.step()
        self.taken += 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, with class weights and label smoothing: what is trained on."""
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        targets = labels.to(logits.dtype) if labels.ndim == 2 else labels
        return functional.cross_entropy(logits, targets, weights, label_smoothing=self.config.label_smoothing)

    def end_epoch(self, val_loss: float) -> None:
        """Take note of an epoch's validation loss; ``plateau`` acts on it."""
        if self.config.lr_scheduler == "plateau":
            self.plateau.see(val_loss)

    def _factor(self) -> float:
        """Return what the learning rate is multiplied by in the step to come."""
        done = self.taken / (self.steps * self.config.max_epochs)
        if self.config.lr_scheduler == "one_cycle":
            return _one_cycle(done)
        warmup = min(1.0, (self.taken + 1) / (min(WARMUP_STEPS, self.steps) + 1))
        if self.config.lr_scheduler == "cosine":
            return warmup * (1 + math.cos(math.pi * done)) / 2
        if self.config.lr_scheduler == "step":
            return warmup * 0.1 ** self._steps_down(self.taken // self.steps)
        return warmup * self.plateau.factor

    def _steps_down(self, epoch: int) -> int:
        """Return how often ``step`` has lowered the learning rate before an epoch, counted from 0."""
        if self.config.step_epochs:
            return epoch // self.config.step_epochs
        return STEPS_DOWN * epoch // self.config.max_epochs


def _one_cycle(done: float) -> float:
    """Return the factor after a share of the steps: half a cosine up, and half a cosine down to 0."""
    if done < CYCLE_RISE:
        return CYCLE_START + (1 - CYCLE_START) * (1 - math.cos(math.pi * done / CYCLE_RISE)) / 2
    return (1 + math.cos(math.pi * (done - CYCLE_RISE) / (1 - CYCLE_RISE))) / 2


@dataclass
class _Plateau:
    """Lowers the learning rate when the validation loss stops falling."""

    factor: float = 1.0
    lowest: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> None:
        self.waited = 0 if loss < self.lowest else self.waited + 1
        self.lowest = min(loss, self.lowest)
        if self.waited >= PLATEAU_EPOCHS:
            self.factor *= PLATEAU_FACTOR
            self.waited = 0


def _groups(classifier: Classifier, config: FitConfig) -> list[dict[str, Any]]:
    """Return what is trained, in groups that share their weight decay and what their learning rate is multiplied by."""
    distances = classifier.distances() if config.lr_decay < 1 else {}
    groups: dict[tuple[float, float], list[Parameter]] = {}
    for _, parameter in classifier.trainable_parameters():
        weight_decay = config.weight_decay if parameter.ndim > 1 else 0.0  # norm layers and biases have one dimension
        factor = config.lr_decay ** distances.get(parameter, 0)
        groups.setdefault((factor, weight_decay), []).append(parameter)
    return [{"params": p, "lr_factor": factor, "weight_decay": decay} for (factor, decay), p in groups.items()]


def _optimizer(classifier: Classifier, config: FitConfig) -> torch.optim.Optimizer:
    groups = _groups(classifier, config)
    # fused: one pass over each tensor, 9.4 -> 3.2 ms a step for AdamW on EfficientNet-Lite0 and one CPU thread.
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=MOMENTUM, nesterov=True, fused=True)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
