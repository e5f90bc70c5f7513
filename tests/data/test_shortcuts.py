"""Shortcuts: planted ones are named with their accuracy, and photos without one give none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.audit.report import audit
from data.audit.shortcuts import MIN_IMAGES
from data.findings import Finding
from data.load_dataset import load_dataset

Save = Callable[[Image.Image, Path], None]


def save_png(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".png"))


def save_jpeg(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".jpg"), quality=90)


def save_gray(image: Image.Image, path: Path) -> None:
    save_png(image.convert("L"), path)


def save_framed(image: Image.Image, path: Path) -> None:
    save_png(ImageOps.expand(image.crop((2, 2, 46, 38)), 2, "white"), path)


def save_large(image: Image.Image, path: Path) -> None:
    save_png(image.resize((96, 80)), path)


def save_red(image: Image.Image, path: Path) -> None:
    red = np.asarray(image, dtype=np.float64) * [1.0, 0.3, 0.3]
    save_png(Image.fromarray(red.astype(np.uint8)), path)


def shortcuts_of(folder: Path, save_b: Save, count: int = 40) -> Finding | None:
    """Return the finding for two classes of the same random images, of which b is saved by another function."""
    rng = np.random.default_rng(0)
    for name, save in (("a", save_png), ("b", save_b)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC)
            save(image, folder / name / str(number))
    findings = [finding for finding in audit(load_dataset(str(folder))).findings if finding.kind == "shortcut"]
    return findings[0] if findings else None


@pytest.mark.parametrize(
    ("save_b", "name"),
    [
        (save_jpeg, "file type"),
        (save_gray, "color mode"),
        (save_framed, "border color"),
        (save_large, "image size"),
        (save_red, "mean color"),
    ],
)
def test_a_property_that_tells_the_class_is_named_with_its_accuracy(save_b: Save, name: str, tmp_path: Path) -> None:
    finding = shortcuts_of(tmp_path / "photos", save_b)
    assert finding is not None
    named = dict(text.split(" alone tells the class of ") for text in finding.detail.split("; "))
    assert set(named) <= {name, "mean color"}  # a white border changes the mean color too
    assert int(named[name].partition("%")[0]) >= 90
    assert finding.detail.endswith("(guessing: 50%)")


def test_images_of_the_same_kind_have_no_shortcut(tmp_path: Path) -> None:
    assert shortcuts_of(tmp_path / "photos", save_png) is None


def test_few_images_are_not_judged(tmp_path: Path) -> None:
    assert shortcuts_of(tmp_path / "photos", save_jpeg, MIN_IMAGES // 2 - 1) is None
