"""What a report shows, as values: the page is made of these and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from data.audit.report import Audit
from models.evaluation.metrics import Scores
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialResult
from tuning.search.reevaluation import Finalist, Gain
from tuning.search.selection import Limits, Priced, default_of, form_of, ranked


@dataclass(frozen=True)
class ReportTrial:
    """A trial, and its validation balanced accuracy after each of its epochs."""

    result: TrialResult
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Mistake:
    """A picture that the model took for something else; both probabilities are the model's."""

    picture: bytes
    path: str
    truth: str
    answer: str
    probability: float
    probability_of_truth: float


@dataclass(frozen=True)
class Example:
    """A picture of the data set, and the variants of it that training saw; none where it is only looked at."""

    path: str
    label: str
    picture: bytes
    variants: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Pictures that the audit found to belong together: their paths, and what they look like."""

    paths: tuple[str, ...]
    pictures: tuple[bytes | None, ...]


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
    made: str
    candidate: Candidate
    scores: Scores
    decision: str
    model: str
    trials: tuple[ReportTrial, ...]
    best: int
    finals: tuple[Finalist, ...]
    gain: Gain | None
    priced: tuple[Priced, ...]
    limits: Limits
    machine: str
    baseline: float | None
    mistakes: tuple[Mistake, ...]
    train_examples: tuple[Example, ...]
    val_examples: tuple[Example, ...]
    audit: Audit
    pairs: dict[str, tuple[Pair, ...]]

    @cached_property
    def winner(self) -> ReportTrial:
        """The trial that won."""
        return next(trial for trial in self.trials if trial.result.number == self.best)

    @cached_property
    def default(self) -> TrialResult | None:
        """What an expert would try first, if it has a score."""
        default = default_of(trial.result for trial in self.trials)
        return default if default and default.counts else None

    @cached_property
    def ranked(self) -> list[TrialResult]:
        """All trials that count, best first, then the others by number."""
        results = [trial.result for trial in self.trials]
        return ranked(results) + [result for result in results if not result.counts]

    @cached_property
    def price(self) -> Priced | None:
        """What the winner costs, if that is known."""
        classes = len(self.candidate.classes)
        form = form_of(self.winner.result, classes)
        return next((one for one in self.priced if form_of(one.result, classes) == form), None)


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
    made: str
    data: str
    split: str
    data_fingerprint: str
    scores: Scores
    intervals: dict[str, tuple[float, float]]
    calibration_error: float
    mistakes: tuple[Mistake, ...]

    @property
    def pictures(self) -> int:
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
