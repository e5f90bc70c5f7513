"""The pictures of a report: the worst mistakes, what the network saw, and what the audit found, small and encoded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from data.audit.contact_sheets import VISUAL_KINDS
from data.audit.report import Audit
from data.preprocessing import ImageError, Pixels, Preprocessing, read_image
from tuning.common.trial_record import TrialRecord
from tuning.reporting.content import Example, Misclassification, Pair

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset, Sample
    from models.evaluation.metrics import Labels, Probabilities

MAX_MISTAKES = 16
MAX_EXAMPLES = 4  # pictures of each split
NUM_AUGMENTED = 4  # of a training picture
MAX_PAIRS = 6  # of each kind of finding
MAX_IMAGES_PER_PAIR = 4  # pictures
SIDE = 160  # px, at most; a smaller picture is kept as it is, and enlarged by the page
LOSSLESS_SIDE = 64  # px up to which a picture is not compressed with losses: one sees its single pixels
QUALITY = 80  # of WebP


def to_webp(picture: Image.Image) -> bytes:
    """Return a small copy of a picture as WebP, which every browser shows."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.convert("RGB").save(out, "WEBP", quality=QUALITY, lossless=max(small.size) <= LOSSLESS_SIDE)
    return out.getvalue()


def top_losses(
    dataset: Dataset,
    samples: Sequence[Sample],
    probabilities: Probabilities,
    labels: Labels,
    most: int = MAX_MISTAKES,
) -> tuple[Misclassification, ...]:
    """Return the samples of which the model was most sure and wrong; row i of the arrays is of ``samples[i]``."""
    classes = dataset.classes
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    order = wrong[np.argsort(-probabilities[wrong, answers[wrong]], kind="stable")][:most]
    mistakes = []
    for row in order.tolist():
        picture = _of_file(dataset.root / samples[row].path)
        if picture is not None:
            of_answer, of_truth = (float(probabilities[row, label]) for label in (answers[row], labels[row]))
            truth, answer = classes[int(labels[row])], classes[int(answers[row])]
            mistakes.append(Misclassification(picture, samples[row].path, truth, answer, of_answer, of_truth))
    return tuple(mistakes)


def train_examples(dataset: Dataset, pixels: Pixels, result: TrialRecord) -> tuple[Example, ...]:
    """Return some training pictures, each with the first variants of it that the trial saw.

    ``pixels``, uint8 [n, s, s, 3], are of ``dataset.split("train")`` at the trial's preprocessing.
    """
    samples = dataset.split("train")
    rows = _spread(samples)
    if result.config.batches.augmentation == "none" and result.config.batches.mix == "none":
        variants: list[list[bytes]] = [[] for _ in rows]
    else:
        variants = _variants(np.asarray(pixels), rows, result, len(dataset.classes), samples)
    return tuple(
        Example(samples[row].path, dataset.classes[samples[row].label], _of_pixels(pixels[row]), tuple(seen))
        for row, seen in zip(rows, variants, strict=True)
    )


def val_examples(dataset: Dataset, pixels: Pixels) -> tuple[Example, ...]:
    """Return some validation pictures as the network sees them."""
    samples = dataset.split("val")
    return tuple(
        Example(samples[row].path, dataset.classes[samples[row].label], _of_pixels(pixels[row]))
        for row in _spread(samples)
    )


def audit_pairs(audit: Audit) -> dict[str, tuple[Pair, ...]]:
    """Return pictures of what the audit found, by the kind of finding; a file that can't be read has none."""
    found: dict[str, tuple[Pair, ...]] = {}
    for finding in audit.findings:
        if finding.kind in VISUAL_KINDS and finding.files:
            groups = [group[:MAX_IMAGES_PER_PAIR] for group in finding.files[:MAX_PAIRS]]
            found[finding.kind] = tuple(
                Pair(group, tuple(_of_file(audit.root / path) for path in group)) for group in groups
            )
    return found


def _spread(samples: Sequence[Sample]) -> list[int]:
    """Return the rows of a few pictures, of as many classes as there are."""
    firsts: dict[tuple[int, int], int] = {}  # by how many of the class came before, and the class
    seen: dict[int, int] = {}
    for row, sample in enumerate(samples):
        seen[sample.label] = seen.get(sample.label, -1) + 1
        firsts[seen[sample.label], sample.label] = row
    return [firsts[key] for key in sorted(firsts)[:MAX_EXAMPLES]]


def _variants(
    pixels: Pixels, rows: list[int], result: TrialRecord, classes: int, samples: Sequence[Sample]
) -> list[list[bytes]]:
    """Return for each row the variants of its first epochs, made by what made them in training."""
    import torch

    from data.loading.mixup import apply_mixup
    from data.loading.views import FixedViewImages, OnTheFlyImages, views_for

    config, batches = result.config, result.config.batches
    count = int(result.runtime_info.get("views_shown", 0))
    source: OnTheFlyImages | FixedViewImages
    if count:
        views = views_for(batches.augmentation, batches.balance, config.features.cached_augmentations)
        source = FixedViewImages(pixels, config.preprocessing, config.seed, views)
    else:
        source = OnTheFlyImages(pixels, config.preprocessing, config.seed, batches.augmentation, batches.balance)
    which, again = np.array(rows), np.zeros(len(rows), dtype=np.int64)
    labels = torch.tensor([samples[row].label for row in rows])
    found: list[list[bytes]] = [[] for _ in rows]
    for epoch in range(min(NUM_AUGMENTED, count or NUM_AUGMENTED)):
        x = source.epoch(epoch)(which, again)
        if batches.mix != "none":
            x, _ = apply_mixup(x, labels, batches.mix, classes, np.random.default_rng((config.seed, epoch)))
        for seen, picture in zip(found, _denormalized(x.numpy(), config.preprocessing), strict=True):
            seen.append(_of_pixels(picture))
    return found


def _denormalized(x: np.ndarray, preprocessing: Preprocessing) -> Pixels:
    """Return uint8 [b, s, s, 3] of what ``data.preprocessing.normalize`` gives, [b, 3, s, s]."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return np.asarray(np.clip(np.rint(255 * (x.transpose(0, 2, 3, 1) * std + mean)), 0, 255), dtype=np.uint8)


def _of_pixels(pixels: Pixels) -> bytes:
    return to_webp(Image.fromarray(np.asarray(pixels)))


def _of_file(file: Path) -> bytes | None:
    try:
        return to_webp(read_image(file))
    except (ImageError, OSError):
        return None
