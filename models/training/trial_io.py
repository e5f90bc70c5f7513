"""Input and output of a trial: the batches of a split, and the trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.errors import SearchError
from data.sources.base import SplitName
from models.trial_config import TrialConfig

if TYPE_CHECKING:
    import torch

    from data.loading.batch_loader import BatchLoader
    from data.loading.pixel_cache import FoldPixels, PixelCache
    from data.loading.views import SampleSource
    from models.classifier import Classifier


def split_batches(
    pixels: PixelCache | FoldPixels,
    config: TrialConfig,
    split: SplitName,
    num_classes: int,
    source: SampleSource | None = None,
    device: torch.device | None = None,
) -> BatchLoader:
    """Return the batches of one split, read from the images or from ``source`` (cached features).

    Only the batches of ``train`` are shuffled and augmented. Images are augmented and normalized on ``device`` (by
    default the CPU) where possible.
    """
    from data.dataset.stratified_parts import stratified_parts
    from data.loading.batch_loader import BatchLoader
    from data.loading.views import CPU, OnTheFlyImages

    images, labels = pixels.split(split)
    training = split == "train"
    parts = stratified_parts(labels, config.images_per_epoch) if training else None
    if source is None:
        augmentation, balance = (config.batches.augmentation, config.batches.balance) if training else ("none", "none")
        source = OnTheFlyImages(images, config.preprocessing, config.seed, augmentation, balance, device or CPU)
    return BatchLoader(source, labels, config.batches, config.seed, training, num_classes, parts)


def save_weights(classifier: Classifier, path: Path) -> None:
    """Write the trainable weights to ``path`` atomically."""
    from safetensors.torch import save

    write_atomically(path, save(classifier.trainable_state_dict()))


def load_classifier(config: TrialConfig, num_classes: int, path: Path) -> Classifier:
    """Return the classifier of ``config`` with the weights written by ``save_weights``.

    Raises:
        SearchError: the weights belong to another network; an earlier version may have built it differently.
    """
    from safetensors.torch import load_file

    from models.classifier import build_classifier

    classifier = build_classifier(config.network, num_classes, config.preprocessing.image_size, config.seed)
    state = load_file(path)
    if state.keys() != classifier.trainable_state_dict().keys():
        raise SearchError(
            f"a trial's weights must match the network of its configuration, but {path.name} was written by another "
            "version of Freezeline; start a new search"
        )
    classifier.load_state_dict(state, strict=False)
    return classifier
