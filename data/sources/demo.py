"""The 1,797 handwritten digits that come with scikit-learn, as a folder of class folders like anyone else's."""

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
    """Return the demo pictures, which are written under ``home()`` the first time; needs no network."""
    return open_folder(ContentCache(state_dir() / "demo").get_or_create(NAME, write_digits), name=NAME, uri="demo")


def write_digits(folder: Path) -> None:
    """Write the 8 x 8 gray PNG files as ``<digit>/<number>.png`` into ``folder``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for digit in sorted(set(digits.target.tolist())):
        (folder / str(digit)).mkdir()
    for number, (picture, digit) in enumerate(zip(pixels, digits.target, strict=True)):
        Image.fromarray(picture).save(folder / str(digit) / f"{number:04}.png")
