"""One optimization step: forward, loss, backward, update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from data.errors import FreezelineError
from models.classifier import Classifier
from models.training.lr_schedule import STEPS_DOWN, WARMUP_STEPS, ReduceOnPlateau, one_cycle
from models.training.optimizer import build_optimizer
from models.training.state import TrainingState
from models.trial_config import FitConfig

DIVERGENCE_FACTOR = 3.0  # training loss, as a multiple of that of guessing, at which training will not come back
MIN_MICRO_BATCH = 4  # pictures; batch norm learns little from fewer, and nothing from one


class Divergence(FreezelineError):
    """Training that can't go on: the loss is no finite number or beyond return; ``str()`` is the reason."""


def check_divergence(epoch: int, train_loss: float, val_loss: float, classes: int, lr: float) -> None:
    """Raise Divergence where an epoch's losses say that training is lost; the first epoch may begin badly."""
    if not math.isfinite(val_loss):
        raise Divergence(f"the validation loss became {val_loss} in epoch {epoch} (lr {lr:.3g})")
    if epoch > 1 and train_loss > DIVERGENCE_FACTOR * math.log(max(2, classes)):
        raise Divergence(
            f"the training loss is {train_loss:.3g} after epoch {epoch}, more than {DIVERGENCE_FACTOR:g} times that of guessing "
            f"(lr {lr:.3g})"
        )


def hard_labels(labels: Tensor) -> Tensor:
    """Return labels [b] of labels [b], or of the classes' shares [b, k]: the class with the largest."""
    return labels.argmax(dim=1) if labels.ndim == 2 else labels


class TrainStep:
    """One training step after another: loss, gradient, optimizer, learning rate."""

    def __init__(
        self,
        classifier: Classifier,
        config: FitConfig,
        steps: int,
        class_weights: Tensor | None = None,
        accumulation_steps: int = 1,
    ) -> None:
        """Take ``steps``, the number of steps in an epoch, and what the loss weighs each class with, [k].

        A batch may come in ``chunks`` parts, one call for each; ``run_epoch`` cuts it.
        """
        self.config = config
        self.class_weights = class_weights
        self.accumulation_steps = accumulation_steps
        self._parameters = dict(classifier.trainable_parameters())
        self.optimizer = build_optimizer(classifier, config)
        self.steps = steps
        self.taken = 0
        self.plateau = ReduceOnPlateau()
        self.lr = 0.0
        self._part = MicroBatch()

    def micro_batches(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, each in ``chunks`` parts where it is large enough; the learner steps after the last."""
        for x, y in batches:
            count = min(self.accumulation_steps, max(1, len(y) // MIN_MICRO_BATCH))
            for number, (part, labels) in enumerate(
                zip(x.tensor_split(count), y.tensor_split(count), strict=True), start=1
            ):
                self._part = MicroBatch(len(labels) / len(y), is_first=number == 1, is_last=number == count)
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
        self.lr = self.config.lr * self._lr_factor()
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

    def load_state(self, progress: TrainingState) -> None:
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

    def _lr_factor(self) -> float:
        """Return what the learning rate is multiplied by in the step to come."""
        done = self.taken / (self.steps * self.config.max_epochs)
        if self.config.lr_scheduler == "one_cycle":
            return one_cycle(done)
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
class MicroBatch:
    """Which part of a batch comes next: its share of the pictures, and whether it is the first or the last."""

    share: float = 1.0
    is_first: bool = True
    is_last: bool = True
