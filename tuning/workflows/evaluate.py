"""The evaluate workflow: the scores of a packaged model on a labeled data set."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from data.dataset.dataset import Dataset
from data.sources.base import SplitName
from models.evaluation.calibration import expected_calibration_error
from models.evaluation.intervals import confidence_interval
from models.evaluation.metrics import compute_metrics
from models.packaging.inference import PackagedModel, predict_proba
from tuning.registry.build_candidate import METRICS_WITH_CI, record_test_evaluation
from tuning.reporting.classified_images import ClassifiedSamples
from tuning.reporting.content import EvaluationContent


def evaluate(
    model: PackagedModel, model_uri: str, dataset: Dataset, split: SplitName | Literal["all"]
) -> EvaluationContent:
    """Evaluate a model, loaded from ``model_uri``, on one split of a data set, or on all of its images.

    An evaluation of test images is counted, as those of searches and trainings.

    Raises:
        TrackingError: the model's classes differ from those of the data set, or it cannot read an image.
    """
    samples = dataset.samples if split == "all" else dataset.split(split)
    probabilities, labels = predict_proba(model, dataset, samples)
    if split in ("test", "all"):
        record_test_evaluation(dataset)
    return EvaluationContent(
        model=model_uri,
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        data=dataset.name,
        split=split,
        data_fingerprint=dataset.fingerprint,
        scores=compute_metrics(probabilities, labels, dataset.classes),
        intervals={metric: confidence_interval(metric, probabilities, labels) for metric in METRICS_WITH_CI},
        calibration_error=expected_calibration_error(probabilities, labels),
        mistakes=ClassifiedSamples(dataset, samples, probabilities, labels).mistakes(),
    )
