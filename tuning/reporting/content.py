"""The content of a report as values: the page is rendered from these alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from data.audit.report import Audit
from models.evaluation.metrics import ClassificationMetrics
from tuning.common.promotion_types import Candidate
from tuning.search.search_result import SearchResult


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


class Decision(NamedTuple):
    """The registry's decision about a candidate as a sentence, and the model's URI; empty if it is not registered."""

    text: str
    model: str


@dataclass(frozen=True)
class ReportContent:
    """The content of a search's report.

    Thumbnails are the bytes of WebP files, made by ``tuning.reporting.thumbnails``.

    Attributes:
        search: id of the parent run.
        created: time of creation, formatted.
        candidate: the packaged winner with its test metrics.
        scores: the winner's test metrics by class.
        decision: the registry's decision about the candidate.
        result: the trials of the search and its winner.
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
    decision: Decision
    result: SearchResult
    machine: str
    baseline: float | None
    mistakes: tuple[Misclassification, ...]
    train_examples: tuple[Example, ...]
    val_examples: tuple[Example, ...]
    audit: Audit
    pairs: dict[str, tuple[Pair, ...]]


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
