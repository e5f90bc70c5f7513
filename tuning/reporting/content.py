"""The content of a report as values: the page is rendered from these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.audit.report import Audit, audit
from data.dataset.dataset import Dataset
from data.loading.pixel_cache import pixel_cache
from data.text import pluralize
from models.evaluation.calibration import ReliabilityBin, reliability_bins, remove_temperature, softmax
from models.evaluation.label_issues import find_label_issues
from models.evaluation.metrics import ClassificationMetrics, compute_metrics
from models.profiling.hardware import hardware
from tuning.common.promotion_types import Candidate, Promotion
from tuning.reporting.classified_images import MAX_LOST, MAX_WON, ClassifiedImage, ClassifiedSamples
from tuning.reporting.downloads import LEADERBOARD, TEST_PREDICTIONS, Table, package_command, predictions_csv
from tuning.reporting.overlays import Overlays
from tuning.reporting.provenance import Provenance
from tuning.reporting.thumbnails import Example, Pair, audit_pairs, train_examples, val_examples
from tuning.search.leaderboard import leaderboard_csv
from tuning.search.search_result import SearchResult

if TYPE_CHECKING:
    from models.evaluation.metrics import Floats, Labels, Probabilities


class Decision(NamedTuple):
    """The registry's decision about a candidate as a sentence, and the model's URI; empty if it is not registered.

    ``promotion`` has the decision's evidence and ``version`` the registered version; both None if it is not decided.
    """

    text: str
    model: str
    version: int | None = None
    promotion: Promotion | None = None


@dataclass(frozen=True)
class EvaluatedWinner:
    """The packaged winner and its evaluation on the test images.

    ``probabilities`` [n, k] are calibrated; they and ``labels`` [n] are in the order of ``dataset.split("test")``.
    ``baseline`` is the test accuracy of logistic regression on raw pixels.
    """

    candidate: Candidate
    baseline: float
    probabilities: Probabilities
    labels: Labels


class LabelIssues(NamedTuple):
    """The number of training and validation images whose label is probably wrong, and the first of them."""

    num_images: int = 0
    images: tuple[ClassifiedImage, ...] = ()


@dataclass(frozen=True)
class ReportContent:
    """The content of a search's report.

    Thumbnails are the bytes of WebP files. ``search`` is the id of the parent run, ``machine`` the hardware that
    latencies were measured on, ``warnings`` the reasons to distrust the result, ``reliability`` the bins of the test
    images before and after calibration, ``won`` and ``lost`` some test images that only the model, or only the
    champion, classifies correctly, ``pairs`` related images by kind of finding.
    """

    search: str
    created: str
    winner: EvaluatedWinner
    scores: ClassificationMetrics
    decision: Decision
    result: SearchResult
    machine: str
    provenance: Provenance
    warnings: tuple[str, ...]
    reliability: tuple[list[ReliabilityBin], list[ReliabilityBin]]
    mistakes: tuple[ClassifiedImage, ...]
    correct: tuple[ClassifiedImage, ...]
    label_issues: LabelIssues
    won: tuple[ClassifiedImage, ...]
    lost: tuple[ClassifiedImage, ...]
    trials_table: Table
    predictions_table: Table
    train_examples: tuple[Example, ...]
    val_examples: tuple[Example, ...]
    audit: Audit
    pairs: dict[str, tuple[Pair, ...]]

    @property
    def candidate(self) -> Candidate:
        """The packaged winner."""
        return self.winner.candidate

    @property
    def package_command(self) -> str:
        """The command that downloads the winner's files; empty if it is not registered."""
        return package_command(self.candidate.name, self.decision.version)


def build_report_content(
    dataset: Dataset,
    result: SearchResult,
    winner: EvaluatedWinner,
    decision: Decision,
    warnings: Sequence[str],
    provenance: Provenance,
    out_of_fold: Floats | None = None,
    overlays: Overlays | None = None,
) -> ReportContent:
    """Return the content of a search's report; pixels are read from the cache, or decoded again.

    ``out_of_fold`` are the logits [n, k] of the training images, followed by the validation images. ``overlays`` draws
    those of some test images.
    """
    probabilities, labels = winner.probabilities, winner.labels
    test_images = ClassifiedSamples(dataset, dataset.split("test"), probabilities, labels, overlays)
    won, lost = _changed_images(test_images, decision)
    cache = pixel_cache(dataset, result.winner.config.preprocessing)
    data_audit = audit(dataset)
    return ReportContent(
        search=winner.candidate.run_id,
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        winner=winner,
        scores=compute_metrics(probabilities, labels, dataset.classes),
        decision=decision,
        result=result,
        machine=hardware(),
        provenance=provenance,
        warnings=tuple(warnings),
        reliability=(
            reliability_bins(remove_temperature(probabilities, winner.candidate.temperature), labels),
            reliability_bins(probabilities, labels),
        ),
        mistakes=test_images.mistakes(),
        correct=test_images.correct(),
        label_issues=LabelIssues() if out_of_fold is None else _label_issues(dataset, out_of_fold),
        won=won,
        lost=lost,
        trials_table=Table(LEADERBOARD, leaderboard_csv(result.trials)),
        predictions_table=Table(
            TEST_PREDICTIONS, predictions_csv(test_images.samples, dataset.classes, probabilities, labels)
        ),
        train_examples=train_examples(dataset, cache.split("train")[0], result.winner),
        val_examples=val_examples(dataset, cache.split("val")[0]),
        audit=data_audit,
        pairs=audit_pairs(data_audit),
    )


def _label_issues(dataset: Dataset, logits: Floats) -> LabelIssues:
    labels = np.array([sample.label for sample in dataset.development], dtype=np.int64)
    issues = find_label_issues(logits, labels)
    images = ClassifiedSamples(dataset, dataset.development, softmax(np.nan_to_num(logits)), labels)
    return LabelIssues(len(issues), images.with_label_issues(issues))


def with_decision(
    content: ReportContent, dataset: Dataset, decision: Decision, provenance: Provenance
) -> ReportContent:
    """Return the content after the registry's decision, which no chart depends on."""
    winner = content.winner
    test_images = ClassifiedSamples(dataset, dataset.split("test"), winner.probabilities, winner.labels)
    won, lost = _changed_images(test_images, decision)
    return replace(
        content,
        decision=decision,
        provenance=provenance,
        won=won,
        lost=lost,
    )


def _changed_images(test_images: ClassifiedSamples, decision: Decision) -> list[tuple[ClassifiedImage, ...]]:
    """Return test images that only the model, and those that only the champion, classifies correctly."""
    promotion = decision.promotion
    won, lost = (promotion.won_images, promotion.lost_images) if promotion else ((), ())
    return [test_images.most_confident(won, MAX_WON), test_images.most_confident(lost, MAX_LOST)]


@dataclass(frozen=True)
class EvaluationContent:
    """The content of an evaluation's report; ``split`` is ``test``, ``val``, ``train`` or ``all``."""

    model: str
    created: str
    data: str
    split: str
    data_fingerprint: str
    scores: ClassificationMetrics
    intervals: dict[str, tuple[float, float]]
    calibration_error: float
    mistakes: tuple[ClassifiedImage, ...]

    @property
    def num_images(self) -> int:
        """The number of evaluated images."""
        return sum(row.support for row in self.scores.per_class)

    def __repr__(self) -> str:
        metrics = [
            f"{name} {getattr(self.scores, name):.4f} [95% CI {low:.4f}, {high:.4f}]"
            for name, (low, high) in self.intervals.items()
        ]
        return "\n".join(
            [f"{self.model} on {pluralize(self.num_images, 'image')} of {self.data} ({self.split})", *metrics]
        )

    def to_dict(self) -> dict[str, object]:
        """Return all numbers for a JSON file."""
        return {
            "model": self.model,
            "data_fingerprint": self.data_fingerprint,
            "scores": self.scores.model_dump(),
            "intervals": self.intervals,
            "calibration_error": self.calibration_error,
        }
