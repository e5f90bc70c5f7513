"""Explain the predictions of a packaged model: an overlay for each image file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import SettingError
from data.preprocessing import ImageError, decode_image

if TYPE_CHECKING:
    from models.packaging.inference import Prediction

SUFFIX = ".explained.jpg"
MAX_SIZE = 1024  # px of an overlay's longer side
QUALITY = 90  # of JPEG


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
        raise SettingError(
            f"explain must be a folder to write images to, got {text!r}, {reason}; use another"
        ) from None
    return folder


def write_overlays(
    predictions: Iterable[Prediction], model_uri: str, files: Sequence[Path], folder: Path
) -> Iterator[Prediction]:
    """Yield the predictions for ``files``, each with the overlay that was written into ``folder`` for its label.

    Raises:
        BackboneError: the model's network has no class activation maps.
    """
    writer: _OverlayWriter | None = None
    for prediction, path in zip(predictions, overlay_paths(files, folder), strict=True):
        if prediction.error:
            yield prediction
            continue
        writer = writer or _OverlayWriter(model_uri)  # only now: the first prediction has checked the model
        yield replace(prediction, overlay=path if writer.write(prediction, path) else None)


class _OverlayWriter:
    """Writes overlays of images for a packaged model."""

    def __init__(self, model_uri: str) -> None:
        from models.packaging.explanation import Explainer
        from models.packaging.mlflow_model import load_checkpoint

        checkpoint = load_checkpoint(model_uri)
        self._explainer, self._classes = Explainer(checkpoint.members), checkpoint.classes

    def write(self, prediction: Prediction, path: Path) -> bool:
        """Write the overlay for the most probable class; return whether the image can still be read."""
        from data.dataset.value_range import stretched

        try:
            image = decode_image(prediction.file)
        except ImageError:
            return False
        shown = stretched(image)
        shown.thumbnail((MAX_SIZE, MAX_SIZE))
        name, _ = max(prediction.probabilities, key=lambda item: item[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._explainer.overlay(image, shown, self._classes.index(name)).save(path, quality=QUALITY)
        return True


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
