"""Values of a promotion: the candidate, the champion and the decision."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data.frozen_model import FrozenModel
from data.sources.options import DataOptions
from models.trial_config import TrialConfig
from tuning.common.option_types import Gate


class CandidateMember(FrozenModel):
    """A trained network of a candidate, and its weight in the candidate's probabilities."""

    config: TrialConfig
    weight: PositiveFloat = 1.0


class Candidate(FrozenModel):
    """A packaged model that was evaluated on the test images and may become champion.

    Attributes:
        members: the networks whose probabilities are averaged, usually one, each with everything needed to train it
            again.
        run_id: the run that holds the packaged model.
        model_uri: the URI of the package.
        commit: the git commit of the code that trained it; empty outside a repository.
        data: the data set, as given by the user.
        data_options: how it was read; None in candidates of earlier versions, which had no such options.
        evaluated_ms: the time of the evaluation on the test images, as Unix time in milliseconds.
        test_evaluations: how often the test images of this data set have been evaluated, including this time.
        metrics: metrics on the test images by their MLflow names: test_loss, test_accuracy, ...
        intervals: 95 % confidence intervals of some of the metrics, as (low, high).
        y_true: the class of each test image as an index into ``classes``, in the data set's order.
        y_pred: the predicted class of each test image.
        test_hashes: the content hash of each test image, truncated to ``DIGEST_PREFIX_LENGTH``.
        seen_hashes: the truncated content hashes of the training and validation images.
        leaks: the number of test images that duplicate a training or validation image and were kept.
        temperature: the temperature by which the logits are divided.
        max_difference: the largest difference of a logit between the package and PyTorch.
        num_checked_images: the number of test images on which ``max_difference`` was measured.
        size_mb: the size of the package's graph in MB.
        latency_ms: the latency per image; None if not measured.
    """

    name: str
    members: tuple[CandidateMember, ...] = Field(min_length=1)
    run_id: str
    model_uri: str
    commit: str = ""
    data: str
    data_options: DataOptions | None = None
    data_fingerprint: str
    classes: tuple[str, ...]
    evaluated_ms: int
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

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        total = math.fsum(member.weight for member in self.members)
        if not math.isclose(total, 1):
            raise ValueError(f"weights of the members must sum to 1, got {total:g}; divide each by their sum")
        return self

    @property
    def is_ensemble(self) -> bool:
        """Whether it has several networks."""
        return len(self.members) > 1

    @property
    def num_test_images(self) -> int:
        """The number of test images."""
        return len(self.y_true)

    @property
    def model_id(self) -> str:
        """The ID of the package in MLflow."""
        return self.model_uri.removeprefix("models:/")


class Champion(FrozenModel):
    """The current champion.

    Attributes:
        y_pred: the predicted class of each of the candidate's test images, as an index into the candidate's classes;
            None if the champion could not be loaded.
        problem: why it could not be loaded.
        seen_hashes: the truncated content hashes of its training and validation images; empty if unknown.
        test_hashes: the truncated content hashes of its test images.
    """

    version: int
    classes: tuple[str, ...]
    y_pred: tuple[NonNegativeInt, ...] | None
    problem: str = ""
    seen_hashes: frozenset[str] = frozenset()
    test_hashes: frozenset[str] = frozenset()


class Promotion(FrozenModel):
    """A promotion decision with its reason and evidence.

    ``won_images`` are the positions of the candidate's test images that only the candidate classifies correctly,
    ``lost_images`` of those that only the champion does; of images that neither was trained on.
    ``champion`` is the version of the champion at the time of the decision; None if there was none.
    """

    alias: Literal["champion", "challenger"]
    reason: str = Field(min_length=1)
    evidence: dict[str, float]
    won_images: tuple[NonNegativeInt, ...] = ()
    lost_images: tuple[NonNegativeInt, ...] = ()
    forced: bool = False
    champion: PositiveInt | None = None


ChangeKind = Literal["promoted", "forced", "rolled back"]


class ChampionChange(FrozenModel):
    """A change of the champion.

    Attributes:
        number: the number of the change, starting at 1.
        version: the version that became champion.
        previous: the previous champion; None for the first.
        kind: promoted by the gate, forced by a user, or rolled back to an earlier champion.
        reason: the reason as text.
        at: the time in ISO 8601, UTC.
    """

    number: PositiveInt
    version: PositiveInt
    previous: PositiveInt | None
    kind: ChangeKind
    reason: str = Field(min_length=1)
    at: str
