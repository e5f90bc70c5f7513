"""The decision who is champion: pure, always with a reason in words and the numbers behind it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data.values import Value

METRIC = "test_balanced_accuracy"


class Candidate(Value):
    """A packaged model that was measured on the test pictures and may become champion.

    Attributes:
        name: of the registered model.
        run_id: the run that holds the packaged model.
        model_uri: where the package is.
        test_looks: how often this data set's test pictures had been looked at, this time included.
        metrics: on the test pictures, by their names in MLflow: test_loss, test_accuracy, ...
        intervals: 95 % interval of some of the metrics, low and high.
    """

    name: str
    run_id: str
    model_uri: str
    data: str
    data_fingerprint: str
    classes: tuple[str, ...]
    test_pictures: int
    test_looks: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class Champion(Value):
    """The version that serves today, measured on the candidate's test pictures; ``score`` is None if it can't be."""

    version: int
    classes: tuple[str, ...]
    score: float | None


class Promotion(Value):
    """What was decided of a candidate, why, and with which numbers."""

    alias: Literal["champion", "challenger"]
    reason: str = Field(min_length=1)
    evidence: dict[str, float]


def decide(candidate: Candidate, champion: Champion | None) -> Promotion:
    """Return the candidate's alias: champion if it is better on the same test pictures or has no rival."""
    score = candidate.metrics[METRIC]
    evidence = {"candidate": score}
    if champion is None:
        return Promotion(alias="champion", reason="there was no champion before", evidence=evidence)
    if set(champion.classes) != set(candidate.classes):
        reason = (
            f"champion version {champion.version} knows other classes ({', '.join(champion.classes)}), "
            "so the two can't be compared"
        )
        return Promotion(alias="challenger", reason=reason, evidence=evidence)
    if champion.score is None:
        reason = f"champion version {champion.version} could not be measured on these test pictures"
        return Promotion(alias="challenger", reason=reason, evidence=evidence)
    evidence["champion"] = champion.score
    numbers = (
        f"test balanced accuracy {score:.4f} against {champion.score:.4f} of champion version {champion.version} "
        f"on the same {candidate.test_pictures} pictures"
    )
    if score > champion.score:
        return Promotion(alias="champion", reason=f"better: {numbers}", evidence=evidence)
    return Promotion(alias="challenger", reason=f"not better: {numbers}", evidence=evidence)
