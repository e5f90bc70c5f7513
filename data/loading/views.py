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

from data.loading.augmentation import Policy, build_policy
from data.loading.class_balance import Balance, Rows
from data.preprocessing import Pixels, Preprocessing, normalize

Take = Callable[[Rows, Rows], torch.Tensor]
AGAIN = "light"  # how a picture is varied that oversampling shows again, where nothing else is


class Source(Protocol):
    """What the rows of a split turn into, epoch by epoch."""

    def epoch(self, number: int) -> Take:
        """Return what gives for rows [b], and how often each was shown before in the epoch [b], a tensor [b, ...]."""


class View(NamedTuple):
    """One variant of each picture: a policy of ``data.loading.augmentation``, and which of its views."""

    policy: str
    number: int


PLAIN = View("none", 0)


def views_of(augmentation: str, balance: Balance, count: int) -> tuple[View, ...]:
    """Return the views that training shows of each picture, ``count`` of them where pictures are augmented.

    Without augmentation there is one, the picture itself; where oversampling shows it again, others as well.
    """
    if augmentation != PLAIN.policy:
        return tuple(View(augmentation, number) for number in range(count))
    again = count if balance == "oversample" else 0
    return (PLAIN, *(View(AGAIN, number) for number in range(again)))


def shown_views(views: tuple[View, ...], seed: int, epoch: int, again: Rows) -> Rows:
    """Return for each picture [b] of an epoch which of the views it shows: the next one each time it is shown again.

    The views take turns from epoch to epoch. A picture's plain view among others is for the first time in an epoch.
    """
    turn = again + seed + epoch
    if views[0] == PLAIN and len(views) > 1:
        return np.where(again == 0, 0, 1 + turn % (len(views) - 1))
    return np.asarray(turn % len(views))


class LivePictures:
    """Normalised pictures, in training augmented anew in every epoch."""

    def __init__(
        self, pixels: Pixels, preprocessing: Preprocessing, seed: int, augmentation: str, balance: Balance
    ) -> None:
        """Take pixels, uint8 [n, s, s, 3]; an ``augmentation`` of none leaves them as they are."""
        self._pixels = pixels
        self._preprocessing = preprocessing
        self._seed = seed
        self._policy = build_policy(augmentation, preprocessing.image_size)
        # What is shown again in an epoch must not be the very same picture.
        again = AGAIN if balance == "oversample" and self._policy is None else PLAIN.policy
        self._again = build_policy(again, preprocessing.image_size)

    def epoch(self, number: int) -> Take:
        """Return what gives float32 [b, 3, s, s] in channels_last format."""
        seeds = np.random.SeedSequence((self._seed, number)).generate_state(len(self._pixels)).astype(np.uint32)

        def take(rows: Rows, again: Rows) -> torch.Tensor:
            pictures = np.array(self._pixels[rows])
            for at, (row, times) in enumerate(zip(rows, again, strict=True)):
                policy = self._policy or (self._again if times else None)
                if policy:
                    pictures[at] = policy(pictures[at], (int(seeds[row]) + int(times)) % 2**32)
            return torch.from_numpy(normalize(pictures, self._preprocessing))

        return take


class ViewedPictures:
    """Normalised pictures in views, each computed when it is asked for."""

    def __init__(self, pixels: Pixels, preprocessing: Preprocessing, seed: int, views: tuple[View, ...]) -> None:
        """Take pixels, uint8 [n, s, s, 3], and the views that epochs take turns with."""
        self.views = views
        self._pixels = pixels
        self._preprocessing = preprocessing
        self._seed = seed
        self._policies: dict[str, Policy] = {}

    def __len__(self) -> int:
        """Return how many pictures there are, each in all views."""
        return len(self._pixels)

    def epoch(self, number: int) -> Take:
        """Return what gives float32 [b, 3, s, s] in channels_last format."""
        return lambda rows, again: self.pictures(rows, self.shown(number, again))

    def shown(self, epoch: int, again: Rows) -> Rows:
        """Return for each picture [b] of an epoch which of ``views`` it shows."""
        return shown_views(self.views, self._seed, epoch, again)

    def pictures(self, rows: Rows, shown: Rows) -> torch.Tensor:
        """Return rows [b] in the views [b] that are named by their place in ``views``, float32 [b, 3, s, s]."""
        pictures = np.array(self._pixels[rows])
        for at, (row, which) in enumerate(zip(rows, shown, strict=True)):
            policy, number = self.views[which]
            if policy != PLAIN.policy:
                pictures[at] = self._policy(policy)(pictures[at], _view_seed(int(row), number))
        return torch.from_numpy(normalize(pictures, self._preprocessing))

    def _policy(self, name: str) -> Policy:
        if name not in self._policies:  # not before: Albumentations takes seconds to import, and kept views need none
            policy = build_policy(name, self._preprocessing.image_size)
            assert policy is not None, name  # noqa: S101  (``views_of`` names none only as ``PLAIN``)
            self._policies[name] = policy
        return self._policies[name]


def _view_seed(row: int, number: int) -> int:
    return int(np.random.SeedSequence((row, number)).generate_state(1)[0])
