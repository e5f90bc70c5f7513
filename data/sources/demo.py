"""Data source ``demo``: the 1,797 handwritten digits of scikit-learn, as class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data.cache.content_cache import ContentCache
from data.home import state_dir
from data.sources.base import DataSource
from data.sources.folder import open_folder

NAME = "digits"


def open_demo() -> DataSource:
    """Open the demo images; they are written to the state folder on first use, without network access."""
    return open_folder(ContentCache(state_dir() / "demo").get_or_create(NAME, write_digits), name=NAME, uri="demo")


def write_digits(folder: Path) -> None:
    """Write the grayscale PNG files, 8 x 8 pixels, to ``<folder>/<digit>/<number>.png``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for digit in sorted(set(digits.target.tolist())):
        (folder / str(digit)).mkdir()
    for number, (image, digit) in enumerate(zip(pixels, digits.target, strict=True)):
        Image.fromarray(image).save(folder / str(digit) / f"{number:04}.png")
