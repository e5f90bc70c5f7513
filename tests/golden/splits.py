"""The splits of two data sets by content hash: the demo, and a manifest with groups and near duplicates."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from tests.conftest import tiny_image


def write_manifest(folder: Path) -> Path:
    """Write three classes of 24 images, some in groups, some resized copies; return the manifest."""
    rows = []
    for label, name in enumerate(("blue", "green", "red")):
        for number in range(24):
            image = gradient(label, number // 2) if number < 8 else tiny_image(label, number, (64, 48))
            if number < 8 and number % 2:
                image = image.resize((48, 40))
            path = folder / f"{name}-{number}.png"
            image.save(path)
            group = f"{name}-{number // 3}" if number >= 15 else ""
            rows.append((path.name, name, group))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return manifest


def gradient(label: int, number: int) -> Image.Image:
    """Return a smooth image [64, 48], whose resized copies are near duplicates."""
    generator = np.random.default_rng((label, number))
    coarse = generator.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def splits_of(dataset: Dataset) -> dict[str, str]:
    """Return the split of every image by content hash."""
    return {
        sample.content_hash: sample.split for sample in sorted(dataset.samples, key=lambda sample: sample.content_hash)
    }


def all_splits(folder: Path) -> dict[str, dict[str, str]]:
    """Return the splits of both data sets, in a home folder without earlier splits."""
    return {
        "demo": splits_of(load_dataset("demo")),
        "manifest": splits_of(load_dataset(str(write_manifest(folder)))),
    }
