"""The training loop: plain PyTorch, which knows neither Ray nor MLflow.

Shapes: b pictures of s pixels a side, n pictures in a pass, k classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
DIVERGED = 3.0  # training loss, as a multiple of that of guessing, at which training will not come back
SMALLEST_PART = 4  # pictures; batch norm learns little from fewer, and nothing from one
MOMENTUM = 0.9  # of SGD, with Nesterov's correction: the usual choice in fine-tuning


class Divergence(FreezelineError):
    """Training that can't go on: the loss is no finite number or beyond return; ``str()`` is the reason."""


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
    """All epochs, which was best, and the trained tensors after it (``Classifier.trained_state``).

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
    """What ``data.batches.Batches`` is to the loop."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @property
    def class_weights(self) -> Tensor | None:
        """What the training loss is weighed with, [k]; None where all classes count alike."""

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised pictures [b, 3, s, s] and labels [b], or the classes' shares [b, k] of mixed pictures."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands after an epoch: with it, ``fit`` goes on as if it had never stopped.

    All else that training has, such as the learning rate and what ``plateau`` waits for, follows from the history.

    Attributes:
        history: the epochs so far, from the first.
        trained: ``Classifier.trained_state`` after the last of them.
        optimizer: the optimizer's tensors after it, as ``PARAMETER.NAME``.
    """

    history: tuple[EpochResult, ...]
    trained: dict[str, Tensor]
    optimizer: dict[str, Tensor]


OnEpoch = Callable[[EpochResult, bool], None]
Keep = Callable[[Callable[[], Progress]], None]


def fit(
    classifier: Classifier,
    train: EpochBatches,
    val: EpochBatches,
    config: FitConfig,
    on_epoch: OnEpoch | None = None,
    *,
    seed: int = 0,
    chunks: int = 1,
    progress: Progress | None = None,
    keep: Keep | None = None,
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
    learner = Learner(classifier, config, steps=len(train), class_weights=train.class_weights, chunks=chunks)
    history = list(progress.history) if progress else []
    best = _go_on(classifier, learner, progress) if progress else FitResult(0, {}, ())
    for epoch in range(len(history) + 1, config.max_epochs + 1):
        if _is_out_of_patience(history, config.patience):
            break
        torch.manual_seed(1_000_003 * seed + epoch)
        result = _run_epoch(classifier, train, val, learner, epoch)
        history.append(result)
        is_best = is_better(result, history[:-1])
        if is_best:
            best = FitResult(epoch, classifier.trained_state(), tuple(history))
        if on_epoch:
            on_epoch(result, is_best)
        if keep and epoch < config.max_epochs:
            keep(partial(_progress, classifier, learner, tuple(history)))
    return FitResult(best.best_epoch, best.best_state, tuple(history))


def _progress(classifier: Classifier, learner: Learner, history: tuple[EpochResult, ...]) -> Progress:
    return Progress(history, classifier.trained_state(), learner.state())


def _go_on(classifier: Classifier, learner: Learner, progress: Progress) -> FitResult:
    """Put the classifier and the learner where they stood; return the best so far."""
    classifier.load_state_dict(progress.trained, strict=False)
    learner.go_on(progress)
    best = max(progress.history, key=_rank)  # the first among equals
    return FitResult(best.epoch, {}, progress.history)


def is_better(result: EpochResult, before: Sequence[EpochResult]) -> bool:
    """Return whether an epoch is better than all before it: higher balanced accuracy, or as high with a lower loss."""
    return all(_rank(result) > _rank(other) for other in before)


def _run_epoch(
    classifier: Classifier, train: EpochBatches, val: EpochBatches, learner: Learner, epoch: int
) -> EpochResult:
    began = time.perf_counter()
    logits, labels = run_pass(classifier, learner.parts(train.epoch(epoch)), learner)
    trained_s = time.perf_counter() - began
    train_loss = float(learner.loss(logits, labels))
    scores = score(*predict(classifier, val.epoch(epoch)))
    _check(epoch, train_loss, scores.loss, classes=logits.shape[1], lr=learner.lr)
    learner.end_epoch(scores.loss)
    return EpochResult(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=float((logits.argmax(dim=1) == hard(labels)).double().mean()),
        val=scores,
        lr=learner.lr,
        epoch_s=time.perf_counter() - began,
        images_per_s=len(labels) / trained_s,
    )


def _check(epoch: int, train_loss: float, val_loss: float, classes: int, lr: float) -> None:
    """Raise Divergence where an epoch's losses say that training is lost; the first epoch may begin badly."""
    if not math.isfinite(val_loss):
        raise Divergence(f"the validation loss became {val_loss} in epoch {epoch} (lr {lr:.3g})")
    if epoch > 1 and train_loss > DIVERGED * math.log(max(2, classes)):
        raise Divergence(
            f"the training loss is {train_loss:.3g} after epoch {epoch}, more than {DIVERGED:g} times that of guessing "
            f"(lr {lr:.3g})"
        )


def hard(labels: Tensor) -> Tensor:
    """Return labels [b] of labels [b], or of the classes' shares [b, k]: the class with the largest."""
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


def _rank(result: EpochResult) -> tuple[float, float]:
    return result.val.balanced_accuracy, -result.val.loss


def _is_out_of_patience(history: list[EpochResult], patience: int) -> bool:
    losses = [result.val.loss for result in history]
    return patience > 0 and bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


class Learner:
    """One training step after another: loss, gradient, optimizer, learning rate."""

    def __init__(
        self,
        classifier: Classifier,
        config: FitConfig,
        steps: int,
        class_weights: Tensor | None = None,
        chunks: int = 1,
    ) -> None:
        """Take ``steps``, the number of steps in an epoch, and what the loss weighs each class with, [k].

        A batch may come in ``chunks`` parts, one call for each; ``run_pass`` cuts it.
        """
        self.config = config
        self.class_weights = class_weights
        self.chunks = chunks
        self._parameters = dict(classifier.trainable_parameters())
        self.optimizer = _optimizer(classifier, config)
        self.steps = steps
        self.taken = 0
        self.plateau = _Plateau()
        self.lr = 0.0
        self._part = _Part()

    def parts(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, each in ``chunks`` parts where it is large enough; the learner steps after the last."""
        for x, y in batches:
            count = min(self.chunks, max(1, len(y) // SMALLEST_PART))
            for number, (part, labels) in enumerate(
                zip(x.tensor_split(count), y.tensor_split(count), strict=True), start=1
            ):
                self._part = _Part(len(labels) / len(y), is_first=number == 1, is_last=number == count)
                yield part, labels

    def __call__(self, logits: Tensor, labels: Tensor) -> None:
        """Learn from the logits [b, k] and labels [b], or shares of classes [b, k], of one batch or of its next part.

        Raises:
            Divergence: the loss is NaN or infinite; nothing has been changed then.
        """
        loss = self.loss(logits, labels)
        if not torch.isfinite(loss):
            epoch = self.taken // self.steps + 1
            raise Divergence(f"the training loss became {loss.item()} in epoch {epoch} (lr {self.lr:.3g})")
        if self._part.is_first:
            self.optimizer.zero_grad()
        (loss * self._part.share).backward()  # type: ignore[no-untyped-call]
        if self._part.is_last:
            self._step()

    def _step(self) -> None:
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

    def state(self) -> dict[str, Tensor]:
        """Return copies on the CPU of the optimizer's tensors, as ``PARAMETER.NAME``."""
        kept = {}
        for name, parameter in self._parameters.items():
            for key, tensor in self.optimizer.state.get(parameter, {}).items():
                kept[f"{name}.{key}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return kept

    def go_on(self, progress: Progress) -> None:
        """Put the optimizer, the count of steps and what ``plateau`` waits for where they stood."""
        for name, tensor in progress.optimizer.items():
            parameter_name, _, key = name.rpartition(".")
            parameter = self._parameters[parameter_name]
            # Fused steps go through parameter and state in the order of memory: it must be the same in both.
            like = parameter if tensor.shape == parameter.shape else tensor
            device = parameter.device
            self.optimizer.state[parameter][key] = torch.empty_like(like, device=device).copy_(tensor).detach()
        self.taken = len(progress.history) * self.steps
        for result in progress.history:
            self.end_epoch(result.val.loss)

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


@dataclass(frozen=True)
class _Part:
    """Which part of a batch comes next: its share of the pictures, and whether it is the first or the last."""

    share: float = 1.0
    is_first: bool = True
    is_last: bool = True


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
