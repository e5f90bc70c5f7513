"""Whether and how a trial's features are cached.

The decision depends on the trial's configuration and the cache's size limit, which is the same for all trials of a
search. It never depends on the cache's content or the disk's speed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from data.loading.batch_config import BatchConfig
from models.trial_config import FeaturesConfig

# Limit for one trial's training features; above it the prefix is computed in every epoch.
MAX_BYTES_PER_TRIAL = 4 * 10**9
# The cache must hold the features of this many trials, otherwise one trial would evict those of the previous one.
MIN_TRIALS_IN_CACHE = 4
# Value of ``features`` in a trial's runtime info if caching was planned but the disk had too little space.
DISK_FULL = "uncached (disk full)"

Precision = Literal["fp16", "fp32", "uncached"]
BYTES_PER_ELEMENT: dict[Precision, int] = {"fp16": 2, "fp32": 4}


class CachingPlan(NamedTuple):
    """Precision of a trial's cached features, and the number of views per image (0: a new one in every epoch)."""

    precision: Precision
    num_views: int


def caching_plan(
    features: FeaturesConfig, batches: BatchConfig, elements_per_image: int, num_images: int, limit_bytes: int
) -> CachingPlan:
    """Return the caching plan of a trial, whose frozen blocks return ``elements_per_image`` (0: nothing is frozen).

    Features are uncached if nothing is frozen or the network can't be split, if images are augmented without fixed
    views, or if images are mixed. Features that would exceed ``MAX_BYTES_PER_TRIAL`` or a quarter of the cache's
    limit are not cached either, but computed in every epoch from the same views.
    """
    from data.loading.views import views_for

    num_views = len(views_for(batches.augmentation, batches.balance, features.cached_augmentations))
    is_varied = batches.augmentation != "none" or batches.balance == "oversample"
    if elements_per_image == 0 or batches.mix != "none" or (is_varied and features.cached_augmentations == 0):
        return CachingPlan("uncached", 0)
    precision: Precision = "fp16" if features.feature_cache == "fp16" else "fp32"
    max_bytes = min(MAX_BYTES_PER_TRIAL, limit_bytes // MIN_TRIALS_IN_CACHE)
    num_bytes = num_images * num_views * elements_per_image * BYTES_PER_ELEMENT[precision]
    if features.feature_cache == "off" or num_bytes > max_bytes:
        return CachingPlan("uncached", num_views)
    return CachingPlan(precision, num_views)
