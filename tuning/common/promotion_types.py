"""Values of a promotion: the gate's limits, the candidate, the champion and the decision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from data.frozen_model import FrozenModel


class Gate(FrozenModel):
    """What a candidate must keep to; the defaults are those of the recipe's options.

    Attributes:
        metric: what is compared on the test pictures.
        min_gain: the least gain that is worth a change.
        significance: highest chance, by a paired test, that the gain is luck; 1 asks for no proof.
        max_class_loss: how much of a class's recall may be lost; one picture of a class may always be.
        max_latency_ms: for one picture; None: no limit.
        max_mb: of the package; None: no limit.
    """

    metric: Metric
    min_gain: float
    significance: float
    max_class_loss: float
    max_latency_ms: float | None = None
    max_mb: float | None = None


class Candidate(FrozenModel):
    """A packaged model that was measured on the test pictures and may become champion.

    Attributes:
        name: of the registered model.
        run_id: the run that holds the packaged model.
        model_uri: where the package is.
        commit: of the code that trained it; empty outside git.
        test_looks: how often this data set's test pictures had been looked at, this time included.
        metrics: on the test pictures, by their names in MLflow: test_loss, test_accuracy, ...
        intervals: 95 % interval of some of the metrics, low and high.
        truth: class of each test picture, as an index into ``classes``, in the data set's order.
        predicted: what the model says of it.
        test_digests: each test picture's, shortened to ``DIGEST_PREFIX_LENGTH``.
        seen_digests: of the pictures that it was trained and validated on, likewise.
        leaks: test pictures that are tied to pictures it has seen, and were kept.
        gate: what it must keep to.
        temperature: that its logits are divided by.
        max_difference: largest difference of a logit between the package and torch.
        checked_pictures: on how many test pictures that was checked.
        size_mb: of the package's graph.
        latency_ms: for one picture; None if it was not measured.
    """

    name: str
    run_id: str
    model_uri: str
    commit: str = ""
    data: str
    data_fingerprint: str
    classes: tuple[str, ...]
    test_evaluations: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    y_true: tuple[NonNegativeInt, ...] = Field(min_length=1)
    y_pred: tuple[NonNegativeInt, ...]
    test_hashes: tuple[str, ...]
    seen_hashes: tuple[str, ...]
    leaks: NonNegativeInt
    gate: Gate
    temperature: float
    max_difference: float
    num_checked_images: int
    size_mb: float
    latency_ms: float | None = None

    @property
    def num_test_images(self) -> int:
        """How many test pictures it was measured on."""
        return len(self.y_true)

    @property
    def model_id(self) -> str:
        """The package's id in MLflow."""
        return self.model_uri.removeprefix("models:/")


class Champion(FrozenModel):
    """The version that serves today.

    Attributes:
        version: its number.
        classes: that it knows.
        predicted: what it says of each of the candidate's test pictures, as an index into the candidate's classes;
            None if it could not be asked.
        seen_digests: of the pictures that it was trained and validated on; empty if nobody knows.
        test_digests: of those that it was measured on.
    """

    version: int
    classes: tuple[str, ...]
    y_pred: tuple[NonNegativeInt, ...] | None
    seen_hashes: frozenset[str] = frozenset()
    test_hashes: frozenset[str] = frozenset()


class Promotion(FrozenModel):
    """What was decided of a candidate, why, and with which numbers."""

    alias: Literal["champion", "challenger"]
    reason: str = Field(min_length=1)
    evidence: dict[str, float]
    forced: bool = False


Metric = Literal["balanced_accuracy", "accuracy"]


ChangeKind = Literal["promoted", "forced", "rolled back"]


class ChampionChange(FrozenModel):
    """One change of the champion.

    Attributes:
        number: of the event; the first is 1.
        version: that became champion.
        previous: the champion before; None for the first.
        kind: by the gate, by a person against the gate, or back to an earlier champion.
        reason: in words.
        at: when, in ISO 8601, UTC.
    """

    number: PositiveInt
    version: PositiveInt
    previous: PositiveInt | None
    kind: ChangeKind
    reason: str = Field(min_length=1)
    at: str
