"""A data set as MLflow's input of a run, and the folds of its images as an artifact."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from data.dataset.folds import ALWAYS_TRAINING, development_folds
from tuning.common.names import DATA_FINGERPRINT_TAG, DATA_LIMITS_TAG, SAMPLES_FINGERPRINT_TAG

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset

MAX_DIGEST_LENGTH = 36  # characters; MLflow's limit for the digest of a data set
SCHEMA = {  # in the form of mlflow.types.Schema, which the UI shows as a table
    "mlflow_colspec": [
        {"type": "binary", "name": "image", "required": True},
        {"type": "string", "name": "label", "required": True},
    ]
}


def dataset_digest(dataset: Dataset) -> str:
    """Return MLflow's digest of a data set, by the images in use: MLflow logs one profile for each digest."""
    return dataset.samples_fingerprint[:MAX_DIGEST_LENGTH]


def data_tags(dataset: Dataset) -> dict[str, str]:
    """Return the tags that identify the images of a run."""
    return {
        DATA_FINGERPRINT_TAG: dataset.fingerprint,
        SAMPLES_FINGERPRINT_TAG: dataset.samples_fingerprint,
        DATA_LIMITS_TAG: json.dumps(dataset.limits),
    }


def dataset_fields(dataset: Dataset) -> dict[str, str]:
    """Return the fields of MLflow's data set: name, digest, source, schema and profile."""
    images = {split: sum(counts.values()) for split, counts in dataset.counts().items()}
    return {
        "name": dataset.name,
        "digest": dataset_digest(dataset),
        "source_type": "local",
        "source": json.dumps({"uri": str(dataset.root)}),
        "schema": json.dumps(SCHEMA),
        "profile": json.dumps({"num_rows": len(dataset.samples), **images, "classes": list(dataset.classes)}),
    }


def folds_csv(dataset: Dataset) -> str:
    """Return the fold of each training and validation image as CSV, in the order of the out-of-fold predictions.

    The fold is empty for images that are in the training part of every fold.
    """
    folds = development_folds(dataset)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "class", "split", "fold"])
    for row, sample in enumerate(dataset.development):
        fold = "" if folds is None or folds[row] == ALWAYS_TRAINING else int(folds[row])
        table.writerow([sample.path, dataset.classes[sample.label], sample.split, fold])
    return text.getvalue()
