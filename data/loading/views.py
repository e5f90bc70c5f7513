"""Sources of training samples: images augmented on the fly, or a fixed set of augmented views of each image.

A view is one augmented variant of an image, identified by its number. It depends only on the augmentation, the index
of the image and the number, so that everything computed from it can be shared by trials. In an epoch, all images
use the same view number, and the next one for each repetition: only one or few views per image are computed for it.

Shapes: b = batch size, n = number of images, s = image size in pixels, 3 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from data.dataset.stratified_parts import StratifiedParts
from data.loading.augmentation import Augmentation, build_augmentation, described_transforms
from data.loading.batch_config import Balance
from data.loading.class_balance import Indices
from data.loading.device_augmentation import DeviceAugmentation, augments_on
from data.loading.pixel_cache import SelectedPixels
from data.preprocessing import Pixels, Preprocessing, normalize

GatherFn = Callable[[Indices, Indices], torch.Tensor]
CPU = torch.device("cpu")
OVERSAMPLE_AUGMENTATION = "light"  # applied to the repeats of oversampled images if no augmentation is configured


class SampleSource(Protocol):
    """Converts image indices to tensors."""

    def epoch(self, number: int) -> GatherFn:
        """Return a function for this epoch that maps image indices [b] and repeat counts [b] to a tensor [b, ...].

        The repeat count is the number of earlier occurrences of the index in the epoch.
        """


class AugmentedView(NamedTuple):
    """One augmented variant of every image: an augmentation of ``data.loading.augmentation`` and a number."""

    augmentation: str
    number: int


IDENTITY_VIEW = AugmentedView("none", 0)


def views_for(augmentation: str, balance: Balance, count: int) -> tuple[AugmentedView, ...]:
    """Return the views that training uses: ``count`` of them with augmentation, else the unchanged image.

    Without augmentation, oversampling adds ``count`` views for repeated images.
    """
    if augmentation != IDENTITY_VIEW.augmentation:
        return tuple(AugmentedView(augmentation, number) for number in range(count))
    num_repeat_views = count if balance == "oversample" else 0
    return (IDENTITY_VIEW, *(AugmentedView(OVERSAMPLE_AUGMENTATION, number) for number in range(num_repeat_views)))


class OnTheFlyImages:
    """Normalized images with new random augmentations in every epoch."""

    def __init__(
        self,
        pixels: Pixels | SelectedPixels,
        preprocessing: Preprocessing,
        seed: int,
        augmentation: str = "none",
        balance: Balance = "none",
        device: torch.device = CPU,
    ) -> None:
        """Take pixels, uint8 [n, s, s, 3], and the name of an augmentation (none: images are unchanged).

        ``device`` is where the batches are used: a GPU also augments and normalizes them, if it can.
        """
        self._pixels = pixels
        self._seed = seed
        # Repeated images are augmented in any case, so that an epoch contains no identical images.
        self._only_repeats = described_transforms(augmentation) == ()
        name = OVERSAMPLE_AUGMENTATION if self._only_repeats and balance == "oversample" else augmentation
        self._to_batch = (
            DeviceAugmentation(name, preprocessing, device)
            if augments_on(device, name)
            else HostAugmentation(name, preprocessing)
        )

    def epoch(self, number: int) -> GatherFn:
        """Return a function that gathers float32 [b, 3, s, s] in channels_last format, on the CPU or the GPU."""
        seeds = np.random.SeedSequence((self._seed, number)).generate_state(len(self._pixels)).astype(np.uint32)

        def gather(indices: Indices, repeat: Indices) -> torch.Tensor:
            is_augmented = (repeat > 0) | (not self._only_repeats)
            image_seeds = seeds[indices] + repeat.astype(np.uint32)  # modulo 2**32
            return self._to_batch(np.array(self._pixels[indices]), image_seeds, is_augmented)

        return gather


class HostAugmentation:
    """Albumentations' transforms, followed by ``normalize``, on the CPU."""

    def __init__(self, name: str, preprocessing: Preprocessing) -> None:
        self._augmentation = build_augmentation(name, preprocessing.image_size)
        self._preprocessing = preprocessing

    def __call__(
        self, pixels: Pixels, seeds: npt.NDArray[np.uint32], is_augmented: npt.NDArray[np.bool_]
    ) -> torch.Tensor:
        """Return the same as ``DeviceAugmentation``; ``pixels`` is overwritten."""
        if self._augmentation:
            for position in np.flatnonzero(is_augmented):
                pixels[position] = self._augmentation(pixels[position], int(seeds[position]))
        return torch.from_numpy(normalize(pixels, self._preprocessing))


class JoinedSources:
    """Selected samples of two sources that follow each other: of the training images and the validation images."""

    def __init__(self, sources: tuple[SampleSource, SampleSource], num_first: int, rows: npt.NDArray[np.int64]) -> None:
        """Take the sources, the number of samples of the first one, and the selected rows of both together."""
        self._sources = sources
        self._num_first = num_first
        self._rows = rows

    def epoch(self, number: int) -> GatherFn:
        """Return the function that gathers an epoch's batches."""
        first, second = (source.epoch(number) for source in self._sources)

        def gather(indices: Indices, repeat: Indices) -> torch.Tensor:
            rows = self._rows[indices]
            is_first = rows < self._num_first
            parts = [
                (np.flatnonzero(selected), source(rows[selected] - offset, repeat[selected]))
                for source, selected, offset in ((first, is_first, 0), (second, ~is_first, self._num_first))
                if selected.any()
            ]
            return scatter(parts)

        return gather


class PartedSource:
    """Samples of which each epoch uses a part; the source of a part is created when it is first used."""

    def __init__(self, parts: StratifiedParts, source_of: Callable[[Indices], SampleSource]) -> None:
        """Take the parts, and a function that returns the source of the samples with the given indices."""
        self._parts = parts
        self._source_of = source_of
        self._sources: dict[int, SampleSource] = {}

    def epoch(self, number: int) -> GatherFn:
        """Return the function that gathers an epoch's batches; a part that returns comes in its next view."""
        part, rows = number % self._parts.count, self._parts.rows(number)
        if part not in self._sources:
            self._sources[part] = self._source_of(rows)
        gather = self._sources[part].epoch(self._parts.repetition(number))
        return lambda indices, repeat: gather(np.searchsorted(rows, indices), repeat)


class SegmentedSource:
    """Samples in segments that have a source each."""

    def __init__(self, segments: Sequence[tuple[Indices, SampleSource]]) -> None:
        """Take the sorted indices of the samples of each segment, and their source."""
        self._segments = segments

    def epoch(self, number: int) -> GatherFn:
        """Return the function that gathers an epoch's batches."""
        segments = [(rows, source.epoch(number)) for rows, source in self._segments]

        def gather(indices: Indices, repeat: Indices) -> torch.Tensor:
            parts = []
            for rows, source in segments:
                positions = np.flatnonzero(np.isin(indices, rows))
                if len(positions):
                    parts.append((positions, source(np.searchsorted(rows, indices[positions]), repeat[positions])))
            return scatter(parts)

        return gather


def scatter(parts: Sequence[tuple[Indices, torch.Tensor]]) -> torch.Tensor:
    """Return a batch assembled from parts, each given with its positions in it; the memory format is kept."""
    (_, first), *others = parts
    if not others:
        return first
    values = torch.empty_strided((sum(len(positions) for positions, _ in parts), *first.shape[1:]), first.stride())
    for positions, part in parts:
        values[torch.from_numpy(positions)] = part
    return values


class FixedViewImages:
    """Normalized images in a fixed set of views, computed on demand."""

    def __init__(
        self, pixels: Pixels | SelectedPixels, preprocessing: Preprocessing, seed: int, views: tuple[AugmentedView, ...]
    ) -> None:
        """Take pixels, uint8 [n, s, s, 3], and the views that alternate between epochs."""
        self.views = views
        self._pixels = pixels
        self._preprocessing = preprocessing
        self._seed = seed
        self._augmentations: dict[str, Augmentation] = {}

    def __len__(self) -> int:
        """Return the number of images, not counting views."""
        return len(self._pixels)

    def epoch(self, number: int) -> GatherFn:
        """Return a function that gathers float32 [b, 3, s, s] in channels_last format."""
        return lambda indices, repeat: self.images(indices, self.view_indices(number, repeat))

    def view_indices(self, epoch: int, repeat: Indices) -> Indices:
        """Return the index into ``views`` for each image [b] of an epoch, given its repeat count [b].

        Views alternate from epoch to epoch and with each repetition. If the identity view is one of several, it is
        used for the first occurrence of an image in an epoch.
        """
        offset = repeat + self._seed + epoch
        if self.views[0] == IDENTITY_VIEW and len(self.views) > 1:
            return np.where(repeat == 0, 0, 1 + offset % (len(self.views) - 1))
        return np.asarray(offset % len(self.views))

    def images(self, indices: Indices, view_indices: Indices) -> torch.Tensor:
        """Return the images [b] in the given views [b] (indices into ``views``), float32 [b, 3, s, s]."""
        images = np.array(self._pixels[indices])
        for position, (index, view_index) in enumerate(zip(indices, view_indices, strict=True)):
            name, number = self.views[view_index]
            if name != IDENTITY_VIEW.augmentation:
                images[position] = self._augmentation(name)(images[position], _view_seed(int(index), number))
        return torch.from_numpy(normalize(images, self._preprocessing))

    def _augmentation(self, name: str) -> Augmentation:
        # Built on first use: importing Albumentations takes seconds, and cached views do not need it.
        if name not in self._augmentations:
            augmentation = build_augmentation(name, self._preprocessing.image_size)
            assert augmentation is not None, name  # noqa: S101  (``views_for`` uses none only in ``IDENTITY_VIEW``)
            self._augmentations[name] = augmentation
        return self._augmentations[name]


def _view_seed(index: int, number: int) -> int:
    return int(np.random.SeedSequence((index, number)).generate_state(1)[0])
