"""Thumbnails of a report: training and validation examples, and the audit's findings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.audit.contact_sheets import VISUAL_KINDS
from data.audit.report import Audit
from data.dataset.value_range import stretched
from data.preprocessing import ImageError, Pixels, Preprocessing, decode_image
from tuning.common.trial_record import TrialRecord

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset, Sample

MAX_EXAMPLES = 4  # per split
NUM_AUGMENTED = 4  # per training image
MAX_PAIRS = 6  # per kind of finding
MAX_IMAGES_PER_PAIR = 4
MAX_SIZE = 160  # px; smaller images keep their size and are enlarged by the page
MAX_LOSSLESS_SIZE = 64  # px; in images up to this size single pixels are visible
QUALITY = 80  # of WebP


@dataclass(frozen=True)
class Example:
    """An image of the data set and its augmented versions; none for validation images."""

    path: str
    label: str
    thumbnail: bytes
    augmented: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A group of related images from the audit: their paths and thumbnails; None for an unreadable file."""

    paths: tuple[str, ...]
    thumbnails: tuple[bytes | None, ...]


def to_webp(image: Image.Image, max_size: int = MAX_SIZE) -> bytes:
    """Return a thumbnail of an image as WebP, at most ``max_size`` px wide and high."""
    thumbnail = image.copy()
    thumbnail.thumbnail((max_size, max_size))
    out = io.BytesIO()
    is_lossless = max(thumbnail.size) <= MAX_LOSSLESS_SIZE
    thumbnail.convert("RGB").save(out, "WEBP", quality=QUALITY, lossless=is_lossless)
    return out.getvalue()


def train_examples(dataset: Dataset, pixels: Pixels, trial: TrialRecord) -> tuple[Example, ...]:
    """Return some training images, each with the augmented versions of the trial's first epochs.

    ``pixels``, uint8 [n, s, s, 3], are those of ``dataset.split("train")`` with the trial's preprocessing.
    """
    samples = dataset.split("train")
    rows = example_rows(samples)
    if trial.config.batches.augmentation == "none" and trial.config.batches.mix == "none":
        augmented: list[list[bytes]] = [[] for _ in rows]
    else:
        augmented = _augmented(np.asarray(pixels), rows, trial, len(dataset.classes), samples)
    return tuple(
        Example(
            samples[row].path, dataset.classes[samples[row].label], _thumbnail_of_pixels(pixels[row]), tuple(versions)
        )
        for row, versions in zip(rows, augmented, strict=True)
    )


def val_examples(dataset: Dataset, pixels: Pixels) -> tuple[Example, ...]:
    """Return some validation images as the network sees them."""
    samples = dataset.split("val")
    return tuple(
        Example(samples[row].path, dataset.classes[samples[row].label], _thumbnail_of_pixels(pixels[row]))
        for row in example_rows(samples)
    )


def audit_pairs(audit: Audit) -> dict[str, tuple[Pair, ...]]:
    """Return groups of related images by kind of finding."""
    pairs: dict[str, tuple[Pair, ...]] = {}
    for finding in audit.findings:
        if finding.kind in VISUAL_KINDS and finding.files:
            groups = [group[:MAX_IMAGES_PER_PAIR] for group in finding.files[:MAX_PAIRS]]
            pairs[finding.kind] = tuple(
                Pair(group, tuple(thumbnail_of_file(audit.root / path) for path in group)) for group in groups
            )
    return pairs


def example_rows(samples: Sequence[Sample], max_examples: int = MAX_EXAMPLES) -> list[int]:
    """Return the rows of up to ``max_examples`` images, spread over as many classes as possible."""
    row_by_key: dict[tuple[int, int], int] = {}  # key: number of earlier images of the class, class
    last_index: dict[int, int] = {}
    for row, sample in enumerate(samples):
        last_index[sample.label] = last_index.get(sample.label, -1) + 1
        row_by_key[last_index[sample.label], sample.label] = row
    return [row_by_key[key] for key in sorted(row_by_key)[:max_examples]]


def _augmented(
    pixels: Pixels, rows: list[int], trial: TrialRecord, num_classes: int, samples: Sequence[Sample]
) -> list[list[bytes]]:
    """Return for each row its augmented versions of the first epochs, made by the training's own code for the CPU."""
    import torch

    from data.loading.mixup import apply_mixup
    from data.loading.views import FixedViewImages, OnTheFlyImages, views_for

    config, batches = trial.config, trial.config.batches
    num_views = int(trial.runtime_info.get("views_shown", 0))
    source: OnTheFlyImages | FixedViewImages
    if num_views:
        views = views_for(batches.augmentation, batches.balance, config.features.cached_augmentations)
        source = FixedViewImages(pixels, config.preprocessing, config.seed, views)
    else:
        source = OnTheFlyImages(pixels, config.preprocessing, config.seed, batches.augmentation, batches.balance)
    indices, repeats = np.array(rows), np.zeros(len(rows), dtype=np.int64)
    labels = torch.tensor([samples[row].label for row in rows])
    augmented: list[list[bytes]] = [[] for _ in rows]
    for epoch in range(min(NUM_AUGMENTED, num_views or NUM_AUGMENTED)):
        x = source.epoch(epoch)(indices, repeats)
        if batches.mix != "none":
            x, _ = apply_mixup(x, labels, batches.mix, num_classes, np.random.default_rng((config.seed, epoch)))
        for versions, image in zip(augmented, _denormalized(x.numpy(), config.preprocessing), strict=True):
            versions.append(_thumbnail_of_pixels(image))
    return augmented


def _denormalized(x: np.ndarray, preprocessing: Preprocessing) -> Pixels:
    """Return uint8 [b, s, s, 3] from the output of ``data.preprocessing.normalize``, [b, 3, s, s]."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return np.asarray(np.clip(np.rint(255 * (x.transpose(0, 2, 3, 1) * std + mean)), 0, 255), dtype=np.uint8)


def _thumbnail_of_pixels(pixels: Pixels) -> bytes:
    return to_webp(Image.fromarray(np.asarray(pixels)))


def thumbnail_of_file(file: Path, max_size: int = MAX_SIZE) -> bytes | None:
    """Return the thumbnail of an image file; None if it cannot be read."""
    image = decoded(file)
    return None if image is None else to_webp(stretched(image), max_size)


def decoded(file: Path) -> Image.Image | None:
    """Return the image of a file with its original values; None if it cannot be read."""
    try:
        return decode_image(file)
    except (ImageError, OSError):
        return None
