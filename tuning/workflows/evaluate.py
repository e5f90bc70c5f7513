"""The evaluate workflow: the scores of a packaged model on a labeled data set."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from data.dataset.dataset import Dataset
from data.errors import DataError
from data.load_dataset import load_dataset
from data.load_labeled import load_labeled_images
from data.sources.base import SplitName
from data.sources.options import DataOptions
from models.evaluation.calibration import expected_calibration_error
from models.evaluation.intervals import confidence_interval
from models.evaluation.metrics import compute_metrics
from models.packaging.inference import PackagedModel, predict_files, predict_proba
from tuning.registry.build_candidate import METRICS_WITH_CI, record_test_evaluation
from tuning.reporting.classified_images import ClassifiedSamples
from tuning.reporting.content import EvaluationContent


def evaluate(
    model: PackagedModel, model_uri: str, dataset: Dataset, split: SplitName | Literal["all"]
) -> EvaluationContent:
    """Evaluate a model, loaded from ``model_uri``, on one split of a data set, or on all of its images.

    An evaluation of test images is counted, as those of searches and trainings.

    Raises:
        DataError: images have a class that the model does not know.
        TrackingError: the model cannot read an image.
    """
    dataset = _with_classes_of(model, dataset)
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


def load_evaluation_data(options: DataOptions, split: SplitName | Literal["all"]) -> Dataset:
    """Load all labeled images; for one split, by the rules of training, which assign images to splits.

    Raises:
        DataError: the data set cannot be used.
    """
    return load_labeled_images(options) if split == "all" else load_dataset(options)


def _with_classes_of(model: PackagedModel, dataset: Dataset) -> Dataset:
    """Return the data set with the classes of the model, of which it may have only some."""
    first = next(predict_files(model, [dataset.root / dataset.samples[0].path]))
    known = tuple(name for name, _ in first.probabilities)
    if first.error or set(known) == set(dataset.classes):
        return dataset
    unknown = [name for name in dataset.classes if name not in known]
    if unknown:
        raise DataError(
            f"the images must have classes of the model ({', '.join(known)}), got {', '.join(unknown)} in "
            f"{dataset.root}; rename or move these folders, or choose another model"
        )
    return dataset.with_classes(known)
