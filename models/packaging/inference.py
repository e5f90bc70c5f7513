"""Predictions of a packaged model for image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.dataset.dataset import Dataset, Sample
from data.errors import TrackingError
from data.parallel import ProgressCallback

BATCH_SIZE = 32
KEEP_ALL = 1.0  # ``reject`` that rejects no image
REQUIRED_COLUMNS = ("label", "score", "error")  # output columns of a packaged model besides the classes
RESERVED_COLUMNS = (*REQUIRED_COLUMNS, "novelty")
RENAMED_COLUMNS = {f"{name}_": name for name in RESERVED_COLUMNS}  # column of a class with a reserved name -> class


class PackagedModel(Protocol):
    """A packaged model, as returned by ``tuning.registry.candidate_store.load_model``."""

    def predict(self, data: Any) -> Any:  # noqa: ANN401  # MLflow's own signature
        """Return a data frame with ``label``, ``score``, ``error`` and a column for each class."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file; only ``file`` and ``error`` are set if the file could not be read.

    ``label`` is empty if the image was rejected; ``novelty`` is None if the package does not compute it.
    ``overlay`` is the image file that explains the prediction, if there is one.
    """

    file: Path
    label: str = ""
    score: float = 0.0
    probabilities: tuple[tuple[str, float], ...] = ()
    error: str = ""
    novelty: float | None = None
    overlay: Path | None = None


def predict_files(
    model: PackagedModel, files: Sequence[Path], progress: ProgressCallback | None = None, reject: float = KEEP_ALL
) -> Iterator[Prediction]:
    """Yield the prediction for each file, in order; the label is empty if the novelty is above ``reject``.

    Raises:
        TrackingError: the model was not packaged by Freezeline, or without novelty, which ``reject`` needs.
    """
    for start in range(0, len(files), BATCH_SIZE):
        batch = list(files[start : start + BATCH_SIZE])
        yield from _predict_batch(model, batch, reject)
        if progress:
            progress("classifying", start + len(batch), len(files))


def _predict_batch(model: PackagedModel, files: list[Path], reject: float) -> Iterator[Prediction]:
    frame = model.predict(files)
    if not set(REQUIRED_COLUMNS) <= set(frame.columns):
        raise TrackingError(
            f"model must be one packaged by Freezeline, with the output columns {', '.join(REQUIRED_COLUMNS)}, got "
            f"{', '.join(map(str, frame.columns))}; choose another model"
        )
    if reject < KEEP_ALL and "novelty" not in frame.columns:
        raise TrackingError(
            f"reject must be 1 for a model that was packaged without novelty, got {reject:g}; leave it out, or search "
            "again with novelty=on"
        )
    for file, row in zip(files, frame.to_dict("records"), strict=True):
        if isinstance(row["error"], str):  # an empty cell is None or NaN
            yield Prediction(file, error=row["error"])
            continue
        probabilities = tuple(
            (RENAMED_COLUMNS.get(name, name), float(value))
            for name, value in row.items()
            if name not in RESERVED_COLUMNS
        )
        novelty = float(row["novelty"]) if "novelty" in row else None
        label = "" if novelty is not None and novelty > reject else str(row["label"])
        yield Prediction(file, label, float(row["score"]), probabilities, novelty=novelty)


def predict_proba(
    model: PackagedModel, dataset: Dataset, samples: Sequence[Sample]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the model's probabilities [n, k], in the data set's order of classes, and the labels [n].

    Raises:
        TrackingError: the classes of the model and the data set differ, or the model cannot read an image.
    """
    rows = []
    for prediction in predict_files(model, [dataset.root / sample.path for sample in samples]):
        if prediction.error:
            raise TrackingError(
                f"{prediction.file} must be readable by the model, but it {prediction.error}; fix or remove the file"
            )
        by_class = dict(prediction.probabilities)
        if set(by_class) != set(dataset.classes):
            raise TrackingError(
                f"the model must have the classes of {dataset.name} ({', '.join(dataset.classes)}), got "
                f"{', '.join(by_class)}; choose a data set with these classes, or another model"
            )
        rows.append([by_class[name] for name in dataset.classes])
    return np.array(rows), np.array([sample.label for sample in samples], dtype=np.int64)
