"""Whether a trial keeps its features: from its configuration, never from what a disk holds or how fast it is.

The store's limit belongs to the configuration: it is set by the user, and the same for all trials of a search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from data.loading.batch_config import BatchConfig
from models.trial_config import FeaturesConfig

MAX_BYTES_PER_TRIAL = (
    4 * 10**9
)  # that one trial's training features may take up; above it the prefix is run in every epoch
MIN_TRIALS_IN_CACHE = (
    4  # ... and so many trials' must fit into the store, or one would throw out what another has just made
)
DISK_FULL = (
    "uncached (disk full)"  # in a trial's facts: features were to be kept, but there was no room for all of them
)

Precision = Literal["fp16", "fp32", "uncached"]
BYTES_PER_ELEMENT: dict[Precision, int] = {"fp16": 2, "fp32": 4}  # of a number


class CachingPlan(NamedTuple):
    """How a trial's features are kept, ``live``: not at all; and the views of a picture, 0: as many as epochs."""

    precision: Precision
    views: int


def caching_plan(
    features: FeaturesConfig, batches: BatchConfig, elements_per_image: int, num_images: int, limit_bytes: int
) -> CachingPlan:
    """Return what is kept for a trial on so many training pictures whose frozen blocks give so many numbers for each.

    ``parse_numbers`` is 0 where nothing is frozen or the network can't be cut: training is live then. So it is without
    views of what is augmented, and where pictures are mixed. What would take more than ``MOST_BYTES``, or a quarter of
    the store's ``size_limit_bytes``, is shown in the same views, live.
    """
    from data.loading.views import views_for

    views = len(views_for(batches.augmentation, batches.balance, features.cached_augmentations))
    varied = batches.augmentation != "none" or batches.balance == "oversample"
    if elements_per_image == 0 or batches.mix != "none" or (varied and features.cached_augmentations == 0):
        return CachingPlan("uncached", 0)
    kept: Precision = "fp16" if features.feature_cache == "fp16" else "fp32"
    most = min(MAX_BYTES_PER_TRIAL, limit_bytes // MIN_TRIALS_IN_CACHE)
    if features.feature_cache == "off" or num_images * views * elements_per_image * BYTES_PER_ELEMENT[kept] > most:
        return CachingPlan("uncached", views)
    return CachingPlan(kept, views)
