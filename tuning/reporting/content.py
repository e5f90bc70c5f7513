"""What a report shows, as values: the page is made of these and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from data.audit.report import Audit
from models.evaluation.metrics import ClassificationMetrics
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.search.reevaluation import Improvement, RerunTrial
from tuning.search.selection import CostedTrial, Limits, default_trial, ranked, serving_spec_of


@dataclass(frozen=True)
class ReportTrial:
    """A trial, and its validation balanced accuracy after each of its epochs."""

    trial: TrialRecord
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Misclassification:
    """A picture that the model took for something else; both probabilities are the model's."""

    thumbnail: bytes
    path: str
    true_label: str
    predicted_label: str
    probability: float
    true_label_probability: float


@dataclass(frozen=True)
class Example:
    """A picture of the data set, and the variants of it that training saw; none where it is only looked at."""

    path: str
    label: str
    thumbnail: bytes
    augmented: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Pictures that the audit found to belong together: their paths, and what they look like."""

    paths: tuple[str, ...]
    thumbnails: tuple[bytes | None, ...]


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows.

    Pictures are the bytes of WebP files, as ``tuning.reporting.thumbnails`` makes them.

    Attributes:
        search: id of the parent run.
        made: when, as it is shown.
        candidate: the winner as it was measured on the test pictures.
        scores: of the winner on the test pictures.
        decision: what became of it, a sentence.
        model: its address in the registry; empty if it was not registered.
        trials: by number, all of them.
        best: number of the trial that won.
        finals: the trials that were trained again with other seeds, best first.
        gain: of the winner over the default, where that was trained to its end.
        priced: the best trial of each network whose cost is known, best first.
        limits: what the winner may cost.
        machine: that latencies were measured on.
        baseline: test accuracy of logistic regression on the raw pixels, if it was measured.
        mistakes: the worst first.
        train_examples: training pictures with what augmentation made of them.
        val_examples: validation pictures.
        audit: of the data set.
        pairs: of the audit's findings, by the finding's kind.
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
        """The trial that won."""
        return next(trial for trial in self.trials if trial.trial.number == self.best)

    @cached_property
    def default(self) -> TrialRecord | None:
        """What an expert would try first, if it has a score."""
        default = default_trial(trial.trial for trial in self.trials)
        return default if default and default.is_eligible else None

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """All trials that count, best first, then the others by number."""
        results = [trial.trial for trial in self.trials]
        return ranked(results) + [result for result in results if not result.is_eligible]

    @cached_property
    def cost_of_winner(self) -> CostedTrial | None:
        """What the winner costs, if that is known."""
        classes = len(self.candidate.classes)
        form = serving_spec_of(self.winner.trial, classes)
        return next((one for one in self.costed_trials if serving_spec_of(one.trial, classes) == form), None)


@dataclass(frozen=True)
class EvaluationContent:
    """All that the report of an evaluation shows.

    Attributes:
        model: its address.
        made: when, as it is shown.
        data: the data set's name.
        split: which of its pictures: ``test``, ``val``, ``train`` or ``all``.
        data_fingerprint: of the data set.
        scores: on these pictures.
        intervals: of 95 %, by the score's name.
        calibration_error: expected calibration error.
        mistakes: the worst first.
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
        """How many pictures were looked at."""
        return sum(row.support for row in self.scores.per_class)

    def numbers(self) -> dict[str, object]:
        """Return all numbers, as they are written to a JSON file."""
        return {
            "model": self.model,
            "data_fingerprint": self.data_fingerprint,
            "scores": self.scores.model_dump(),
            "intervals": self.intervals,
            "calibration_error": self.calibration_error,
        }
