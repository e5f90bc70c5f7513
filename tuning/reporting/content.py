"""The content of a report as values: the page is rendered from these alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from data.audit.report import Audit
from models.evaluation.metrics import ClassificationMetrics
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.search.reruns import Improvement, RerunTrial
from tuning.search.selection import CostedTrial, Limits, default_trial, ranked, serving_spec_of


@dataclass(frozen=True)
class ReportTrial:
    """A trial, and its validation balanced accuracy after each epoch."""

    trial: TrialRecord
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Misclassification:
    """A misclassified image, with the model's probabilities of the predicted and the true class."""

    thumbnail: bytes
    path: str
    true_label: str
    predicted_label: str
    probability: float
    true_label_probability: float


@dataclass(frozen=True)
class Example:
    """An image of the data set and its augmented versions; none for validation images."""

    path: str
    label: str
    thumbnail: bytes
    augmented: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A group of related images from the audit: their paths and thumbnails; None for an unreadable file."""

    paths: tuple[str, ...]
    thumbnails: tuple[bytes | None, ...]


@dataclass(frozen=True)
class ReportContent:
    """The content of a search's report.

    Thumbnails are the bytes of WebP files, made by ``tuning.reporting.thumbnails``.

    Attributes:
        search: id of the parent run.
        created: time of creation, formatted.
        candidate: the packaged winner with its test metrics.
        scores: the winner's test metrics by class.
        decision: the registry's decision about the candidate, as a sentence.
        model: the candidate's address in the registry; empty if it was not registered.
        trials: all trials by number.
        best: number of the winner.
        reruns: trials that were re-run with other seeds, best first.
        improvement: of the winner over the default; None if the default was not trained to its end.
        costed_trials: best trial of each network whose serving cost is known, best first.
        limits: upper limits on the winner's serving cost.
        machine: hardware that latencies were measured on.
        baseline: test accuracy of logistic regression on the raw pixels, if it was measured.
        mistakes: misclassified test images, most confident first.
        train_examples: training images with their augmented versions.
        val_examples: validation images.
        audit: the data set's audit.
        pairs: related images of the audit's findings, by the finding's kind.
    """

    search: str
    created: str
    candidate: Candidate
    scores: ClassificationMetrics
    decision: str
    model: str
    trials: tuple[ReportTrial, ...]
    best: int
    reruns: tuple[RerunTrial, ...]
    improvement: Improvement | None
    costed_trials: tuple[CostedTrial, ...]
    limits: Limits
    machine: str
    baseline: float | None
    mistakes: tuple[Misclassification, ...]
    train_examples: tuple[Example, ...]
    val_examples: tuple[Example, ...]
    audit: Audit
    pairs: dict[str, tuple[Pair, ...]]

    @cached_property
    def winner(self) -> ReportTrial:
        """The winning trial."""
        return next(trial for trial in self.trials if trial.trial.number == self.best)

    @cached_property
    def default(self) -> TrialRecord | None:
        """The trial of the default configuration, if it has a score."""
        default = default_trial(trial.trial for trial in self.trials)
        return default if default and default.is_eligible else None

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """All eligible trials, best first, then the others by number."""
        trials = [trial.trial for trial in self.trials]
        return ranked(trials) + [trial for trial in trials if not trial.is_eligible]

    @cached_property
    def cost_of_winner(self) -> CostedTrial | None:
        """The winner's serving cost, if known."""
        num_classes = len(self.candidate.classes)
        spec = serving_spec_of(self.winner.trial, num_classes)
        return next(
            (costed for costed in self.costed_trials if serving_spec_of(costed.trial, num_classes) == spec), None
        )


@dataclass(frozen=True)
class EvaluationContent:
    """The content of an evaluation's report.

    Attributes:
        model: the model's address.
        created: time of creation, formatted.
        data: the data set's name.
        split: the evaluated images: ``test``, ``val``, ``train`` or ``all``.
        data_fingerprint: of the data set.
        scores: metrics on these images.
        intervals: 95% confidence intervals by metric.
        calibration_error: expected calibration error.
        mistakes: misclassified images, most confident first.
    """

    model: str
    created: str
    data: str
    split: str
    data_fingerprint: str
    scores: ClassificationMetrics
    intervals: dict[str, tuple[float, float]]
    calibration_error: float
    mistakes: tuple[Misclassification, ...]

    @property
    def num_images(self) -> int:
        """The number of evaluated images."""
        return sum(row.support for row in self.scores.per_class)

    def to_dict(self) -> dict[str, object]:
        """Return all numbers for a JSON file."""
        return {
            "model": self.model,
            "data_fingerprint": self.data_fingerprint,
            "scores": self.scores.model_dump(),
            "intervals": self.intervals,
            "calibration_error": self.calibration_error,
        }
