"""Values of the page that are computed from the content: the axis of scores, the configuration, the confusions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from models.evaluation.metrics import ClassificationMetrics
from tuning.common.formatting import member_text
from tuning.common.names import TEST_METRIC
from tuning.common.promotion_types import Candidate, Promotion
from tuning.reporting.content import ReportContent

MAX_CONFUSED_PAIRS = 5
AXIS_STEP = 0.1  # the axis of scores starts at a multiple of it


class ScoreMark(NamedTuple):
    """A score on the axis of the summary, with its interval if it has one.

    ``left`` and ``interval_left``, ``interval_width`` are positions on the axis in percent.
    """

    label: str
    note: str
    score: float
    is_main: bool
    left: float
    interval_left: float = 0.0
    interval_width: float = 0.0


class ScoreAxis(NamedTuple):
    """The axis of the summary, from ``low`` to 1, with the model's score and those that it is compared with."""

    low: float
    marks: list[ScoreMark]


def score_axis(content: ReportContent) -> ScoreAxis:
    """Return the test scores of the model and its baselines, and its validation score beside that of the default."""
    winner, default = content.result.winner, content.result.default
    choice = content.result.choice
    scores = [
        ("this model", "test", content.candidate.metrics[TEST_METRIC]),
        ("this model", "expected before the test", choice.estimate.score.mean if choice else None),
        ("logistic regression on raw pixels", "test accuracy", content.winner.baseline),
        ("always the same class", "test", 1 / len(content.candidate.classes)),
        ("first network" if content.candidate.is_ensemble else "this model", "validation", winner.score),
    ]
    if default is not None and default.number != winner.number:
        scores.append(("default configuration", f"validation, trial {default.number}", default.score))
    known = [(label, note, score) for label, note, score in scores if score is not None]
    interval = content.candidate.intervals[TEST_METRIC]
    lowest = min(interval[0], *(score for _, _, score in known))
    low = min(math.floor(lowest / AXIS_STEP) * AXIS_STEP, 1 - AXIS_STEP)

    def position(score: float) -> float:
        return round(100 * (score - low) / (1 - low), 2)

    left, right = position(interval[0]), position(interval[1])
    marks = [
        ScoreMark(label, note, score, number == 0, position(score)) for number, (label, note, score) in enumerate(known)
    ]
    marks[0] = marks[0]._replace(is_main=True, interval_left=left, interval_width=round(right - left, 2))
    return ScoreAxis(low, marks)


def configuration(candidate: Candidate) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the parts of each network's configuration, each part with its settings by name."""
    for member in candidate.members:
        of_network = f" ({member_text(member)})" if candidate.is_ensemble else ""
        parts = member.config.settings()
        yield f"network{of_network}", parts["network"]
        yield f"training{of_network}", {**parts["fit"], "seed": member.config.seed}
        yield f"images{of_network}", {**parts["preprocessing"], **parts["batches"], **parts["features"]}


class ConfusedPair(NamedTuple):
    """How many images of a class were predicted as another one, and their share of the class."""

    true_label: str
    predicted_label: str
    num_images: int
    share: float


def confused_pairs(scores: ClassificationMetrics, max_pairs: int = MAX_CONFUSED_PAIRS) -> list[ConfusedPair]:
    """Return the most frequent confusions, by number of images, then by share of the true class."""
    pairs = [
        ConfusedPair(truth.name, predicted.name, count, count / truth.support)
        for truth, row in zip(scores.per_class, scores.confusion, strict=True)
        for predicted, count in zip(scores.per_class, row, strict=True)
        if count and truth is not predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair.num_images, -pair.share))[:max_pairs]


def compares_champion(promotion: Promotion | None) -> bool:
    """Return whether a promotion's evidence is a comparison with the previous champion on the same images."""
    return promotion is not None and "wins" in promotion.evidence
