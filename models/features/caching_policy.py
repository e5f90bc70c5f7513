"""Whether a trial keeps its features: from its configuration, never from what a disk holds or how fast it is.

The store's limit belongs to the configuration: it is set by the user, and the same for all trials of a search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from data.loading.batch_config import BatchConfig
from models.trial_config import FeaturesConfig

MOST_BYTES = 4 * 10**9  # that one trial's training features may take up; above it the prefix is run in every epoch
SHARE = 4  # ... and so many trials' must fit into the store, or one would throw out what another has just made
DISK_FULL = "live (disk full)"  # in a trial's facts: features were to be kept, but there was no room for all of them

Kept = Literal["half", "exact", "live"]
BYTES: dict[Kept, int] = {"half": 2, "exact": 4}  # of a number


class Plan(NamedTuple):
    """How a trial's features are kept, ``live``: not at all; and the views of a picture, 0: as many as epochs."""

    kept: Kept
    views: int


def plan(features: FeaturesConfig, batches: BatchConfig, numbers: int, pictures: int, limit_bytes: int) -> Plan:
    """Return what is kept for a trial on so many training pictures whose frozen blocks give so many numbers for each.

    ``numbers`` is 0 where nothing is frozen or the network can't be cut: training is live then. So it is without
    views of what is augmented, and where pictures are mixed. What would take more than ``MOST_BYTES``, or a quarter of
    the store's ``limit_bytes``, is shown in the same views, live.
    """
    from data.loading.views import views_of

    views = len(views_of(batches.augmentation, batches.balance, features.views))
    varied = batches.augmentation != "none" or batches.balance == "oversample"
    if numbers == 0 or batches.mix != "none" or (varied and features.views == 0):
        return Plan("live", 0)
    kept: Kept = "half" if features.reuse == "on" else "exact"
    most = min(MOST_BYTES, limit_bytes // SHARE)
    if features.reuse == "off" or pictures * views * numbers * BYTES[kept] > most:
        return Plan("live", views)
    return Plan(kept, views)
