"""A packaged model measured on a data set's pictures."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from data.dataset.dataset import Dataset
from data.sources.base import SplitName
from models.evaluation.calibration import calibration_error
from models.evaluation.intervals import interval
from models.evaluation.metrics import score
from models.packaging.inference import Model, probabilities_of
from tuning.registry.build_candidate import INTERVALS
from tuning.reporting.content import EvaluationContent
from tuning.reporting.thumbnails import worst_mistakes


def evaluate(model: Model, address: str, dataset: Dataset, split: SplitName | Literal["all"]) -> EvaluationContent:
    """Return what the model, loaded from ``address``, is worth on the pictures of a split, or of ``all``.

    Raises:
        TrackingError: if the model doesn't know the data set's classes, or can't read one of its pictures.
    """
    samples = dataset.samples if split == "all" else dataset.split(split)
    probabilities, labels = probabilities_of(model, dataset, samples)
    return EvaluationContent(
        model=address,
        made=f"{datetime.now():%Y-%m-%d %H:%M}",
        data=dataset.name,
        split=split,
        data_fingerprint=dataset.fingerprint,
        scores=score(probabilities, labels, dataset.classes),
        intervals={metric: interval(metric, probabilities, labels) for metric in INTERVALS},
        calibration_error=calibration_error(probabilities, labels),
        mistakes=worst_mistakes(dataset, samples, probabilities, labels),
    )
