"""Predictions of a packaged model for the files of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.dataset.dataset import Dataset, Sample
from data.errors import TrackingError
from data.parallel import Progress

BATCH_SIZE = 32
RESERVED_COLUMNS = ("label", "score", "error")  # columns of an answer
RENAMED_COLUMNS = {
    f"{name}_": name for name in RESERVED_COLUMNS
}  # what the packaged model calls the columns of classes of these names


class PackagedModel(Protocol):
    """A packaged model, as ``registry.load_model`` returns it."""

    def predict(self, data: Any) -> Any:  # noqa: ANN401  # MLflow's own signature
        """Return a data frame with ``label``, ``compute_metrics``, ``error`` and a column for each class."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file; ``error`` instead, where the file is no picture that can be read."""

    file: Path
    label: str = ""
    score: float = 0.0
    probabilities: tuple[tuple[str, float], ...] = ()
    error: str = ""


def predict_files(
    model: PackagedModel, files: Sequence[Path], progress: Progress | None = None
) -> Iterator[Prediction]:
    """Yield the model's answer for each file, in order; ``progress(what, done, of)`` is called after each batch.

    Raises:
        TrackingError: the model is not one of ours.
    """
    for start in range(0, len(files), BATCH_SIZE):
        batch = list(files[start : start + BATCH_SIZE])
        yield from _predict_batch(model, batch)
        if progress:
            progress("classifying", start + len(batch), len(files))


def _predict_batch(model: PackagedModel, files: list[Path]) -> Iterator[Prediction]:
    frame = model.predict(files)
    if not set(RESERVED_COLUMNS) <= set(frame.columns):
        raise TrackingError(
            f"model must be one that this project packaged, which answers with {', '.join(RESERVED_COLUMNS)}, but "
            f"this one answers with {', '.join(map(str, frame.columns))}; name another"
        )
    for file, row in zip(files, frame.to_dict("records"), strict=True):
        if isinstance(row["error"], str):  # an empty cell is None or NaN
            yield Prediction(file, error=row["error"])
            continue
        known = tuple(
            (RENAMED_COLUMNS.get(name, name), float(value))
            for name, value in row.items()
            if name not in RESERVED_COLUMNS
        )
        yield Prediction(file, str(row["label"]), float(row["score"]), known)


def predict_proba(
    model: PackagedModel, dataset: Dataset, samples: Sequence[Sample]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the model's probabilities [n, k], in the data set's order of classes, and the labels [n].

    Raises:
        TrackingError: if the model doesn't know the data set's classes, or can't read one of its pictures.
    """
    rows = []
    for answer in predict_files(model, [dataset.root / sample.path for sample in samples]):
        if answer.error:
            raise TrackingError(
                f"{answer.file} must be readable by the model, but it {answer.error}; mend it, or take it away"
            )
        known = dict(answer.probabilities)
        if set(known) != set(dataset.classes):
            raise TrackingError(
                f"the model must know the classes of {dataset.name} ({', '.join(dataset.classes)}), "
                f"but it knows {', '.join(known)}; give pictures of those, or another model"
            )
        rows.append([known[name] for name in dataset.classes])
    return np.array(rows), np.array([sample.label for sample in samples], dtype=np.int64)
