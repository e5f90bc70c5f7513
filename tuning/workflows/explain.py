"""Explain the predictions of a packaged model: an overlay for each image file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import SettingError
from data.preprocessing import ImageError, decode_image

if TYPE_CHECKING:
    from models.packaging.explanation import PreparedImage
    from models.packaging.inference import Prediction

SUFFIX = ".explained.jpg"
MAX_SIZE = 1024  # px of an overlay's longer side
QUALITY = 90  # of JPEG
CHUNK_SIZE = 8  # images per pass


def create_folder(text: str) -> Path:
    """Return the folder for overlays, which is created if it is missing.

    Raises:
        SettingError: it is a file, or cannot be created.
    """
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "which is a file" if folder.exists() else f"which cannot be created ({error.strerror})"
        raise SettingError(f"explain must be a folder to write to, got {text!r}, {reason}; use another") from None
    return folder


def write_overlays(
    predictions: Iterable[Prediction], model_uri: str, files: Sequence[Path], folder: Path
) -> Iterator[Prediction]:
    """Yield the predictions for ``files``, each with the overlay that was written into ``folder`` for its label.

    Raises:
        BackboneError: the model's network has no class activation maps.
    """
    writer: _OverlayWriter | None = None
    pairs = zip(predictions, overlay_paths(files, folder), strict=True)
    while chunk := list(itertools.islice(pairs, CHUNK_SIZE)):
        if writer is None and any(not prediction.error for prediction, _ in chunk):
            writer = _OverlayWriter(model_uri)  # only now: the first prediction has checked the model
        yield from writer.write(chunk) if writer else (prediction for prediction, _ in chunk)


class _OverlayWriter:
    """Writes overlays of images for a packaged model."""

    def __init__(self, model_uri: str) -> None:
        from models.packaging.explanation import Explainer
        from models.packaging.mlflow_model import load_checkpoint

        checkpoint = load_checkpoint(model_uri)
        self._explainer, self._classes = Explainer(checkpoint.members), checkpoint.classes

    def write(self, chunk: Sequence[tuple[Prediction, Path]]) -> list[Prediction]:
        """Write an overlay for the most probable class to each path; return the predictions with their overlays."""
        prepared = {row: image for row, (prediction, _) in enumerate(chunk) if (image := self._prepare(prediction))}
        classes = [self._class_index(chunk[row][0]) for row in prepared]
        predictions = [prediction for prediction, _ in chunk]
        overlays = self._explainer.overlays(list(prepared.values()), classes) if prepared else []
        for row, overlay in zip(prepared, overlays, strict=True):
            prediction, path = chunk[row]
            path.parent.mkdir(parents=True, exist_ok=True)
            overlay.save(path, quality=QUALITY)
            predictions[row] = replace(prediction, overlay=path)
        return predictions

    def _prepare(self, prediction: Prediction) -> PreparedImage | None:
        """Return the image; None if it could not be classified, or has been changed or deleted since."""
        try:
            return None if prediction.error else self._explainer.prepare(decode_image(prediction.file), MAX_SIZE)
        except ImageError:
            return None

    def _class_index(self, prediction: Prediction) -> int:
        name, _ = max(prediction.probabilities, key=lambda item: item[1])
        return self._classes.index(name)


def overlay_paths(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return a different path in ``folder`` for each file, with the folders in which the files differ.

    Files that differ only in their extension are numbered.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100  # resolve() follows links
    root = os.path.commonpath([file.parent for file in absolute])
    paths: list[Path] = []
    taken: set[str] = set()
    for file in absolute:
        stem, number = folder / file.relative_to(root).with_suffix(""), 1
        path = stem.with_name(stem.name + SUFFIX)
        while str(path).casefold() in taken:
            number += 1
            path = stem.with_name(f"{stem.name}-{number}{SUFFIX}")
        taken.add(str(path).casefold())
        paths.append(path)
    return paths
