"""How pictures vary: as they are, augmented anew in every epoch, or in a few views made once and for all.

A view is one augmented variant of a picture, by its number; what it looks like depends on the policy, the picture's
row and the view's number alone, so whatever is computed of it holds for other trials too. All pictures of an epoch show
the same number, the next one where an epoch shows a picture again: it needs one view of each, or few, and what is made
for it is of use to every trial.

Shapes: b pictures, n pictures in all, s pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch

from data.loading.augmentation import Augmentation, build_augmentation
from data.loading.class_balance import Balance, Indices
from data.preprocessing import Pixels, Preprocessing, normalize

GatherFn = Callable[[Indices, Indices], torch.Tensor]
OVERSAMPLE_AUGMENTATION = "light"  # how a picture is varied that oversampling shows again, where nothing else is


class SampleSource(Protocol):
    """What the rows of a split turn into, epoch by epoch."""

    def epoch(self, number: int) -> GatherFn:
        """Return what gives for rows [b], and how often each was shown before in the epoch [b], a tensor [b, ...]."""


class AugmentedView(NamedTuple):
    """One variant of each picture: a policy of ``data.loading.augmentation``, and which of its views."""

    augmentation: str
    number: int


IDENTITY_VIEW = AugmentedView("none", 0)


def views_for(augmentation: str, balance: Balance, count: int) -> tuple[AugmentedView, ...]:
    """Return the views that training shows of each picture, ``count`` of them where pictures are augmented.

    Without augmentation there is one, the picture itself; where oversampling shows it again, others as well.
    """
    if augmentation != IDENTITY_VIEW.augmentation:
        return tuple(AugmentedView(augmentation, number) for number in range(count))
    again = count if balance == "oversample" else 0
    return (IDENTITY_VIEW, *(AugmentedView(OVERSAMPLE_AUGMENTATION, number) for number in range(again)))


def views_in_epoch(views: tuple[AugmentedView, ...], seed: int, epoch: int, repeat: Indices) -> Indices:
    """Return for each picture [b] of an epoch which of the views it shows: the next one each time it is shown again.

    The views take turns from epoch to epoch. A picture's plain view among others is for the first time in an epoch.
    """
    turn = repeat + seed + epoch
    if views[0] == IDENTITY_VIEW and len(views) > 1:
        return np.where(repeat == 0, 0, 1 + turn % (len(views) - 1))
    return np.asarray(turn % len(views))


class OnTheFlyImages:
    """Normalised pictures, in training augmented anew in every epoch."""

    def __init__(
        self, pixels: Pixels, preprocessing: Preprocessing, seed: int, augmentation: str, balance: Balance
    ) -> None:
        """Take pixels, uint8 [n, s, s, 3]; an ``augmentation`` of none leaves them as they are."""
        self._pixels = pixels
        self._preprocessing = preprocessing
        self._seed = seed
        self._policy = build_augmentation(augmentation, preprocessing.image_size)
        # What is shown again in an epoch must not be the very same picture.
        again = (
            OVERSAMPLE_AUGMENTATION if balance == "oversample" and self._policy is None else IDENTITY_VIEW.augmentation
        )
        self._again = build_augmentation(again, preprocessing.image_size)

    def epoch(self, number: int) -> GatherFn:
        """Return what gives float32 [b, 3, s, s] in channels_last format."""
        seeds = np.random.SeedSequence((self._seed, number)).generate_state(len(self._pixels)).astype(np.uint32)

        def take(rows: Indices, again: Indices) -> torch.Tensor:
            pictures = np.array(self._pixels[rows])
            for at, (row, times) in enumerate(zip(rows, again, strict=True)):
                policy = self._policy or (self._again if times else None)
                if policy:
                    pictures[at] = policy(pictures[at], (int(seeds[row]) + int(times)) % 2**32)
            return torch.from_numpy(normalize(pictures, self._preprocessing))

        return take


class FixedViewImages:
    """Normalised pictures in views, each computed when it is asked for."""

    def __init__(
        self, pixels: Pixels, preprocessing: Preprocessing, seed: int, views: tuple[AugmentedView, ...]
    ) -> None:
        """Take pixels, uint8 [n, s, s, 3], and the views that epochs take turns with."""
        self.views = views
        self._pixels = pixels
        self._preprocessing = preprocessing
        self._seed = seed
        self._augmentations: dict[str, Augmentation] = {}

    def __len__(self) -> int:
        """Return how many pictures there are, each in all views."""
        return len(self._pixels)

    def epoch(self, number: int) -> GatherFn:
        """Return what gives float32 [b, 3, s, s] in channels_last format."""
        return lambda rows, again: self.images(rows, self.view_indices(number, again))

    def view_indices(self, epoch: int, again: Indices) -> Indices:
        """Return for each picture [b] of an epoch which of ``views`` it shows."""
        return views_in_epoch(self.views, self._seed, epoch, again)

    def images(self, rows: Indices, shown: Indices) -> torch.Tensor:
        """Return rows [b] in the views [b] that are named by their place in ``views``, float32 [b, 3, s, s]."""
        pictures = np.array(self._pixels[rows])
        for at, (row, which) in enumerate(zip(rows, shown, strict=True)):
            policy, number = self.views[which]
            if policy != IDENTITY_VIEW.augmentation:
                pictures[at] = self._augmentation(policy)(pictures[at], _view_seed(int(row), number))
        return torch.from_numpy(normalize(pictures, self._preprocessing))

    def _augmentation(self, name: str) -> Augmentation:
        if (
            name not in self._augmentations
        ):  # not before: Albumentations takes seconds to import, and kept views need none
            policy = build_augmentation(name, self._preprocessing.image_size)
            assert policy is not None, name  # noqa: S101  (``views_for`` names none only as ``IDENTITY_VIEW``)
            self._augmentations[name] = policy
        return self._augmentations[name]


def _view_seed(row: int, number: int) -> int:
    return int(np.random.SeedSequence((row, number)).generate_state(1)[0])
