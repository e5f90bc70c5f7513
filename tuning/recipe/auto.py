"""What ``auto`` means: networks, image sizes and truncations that a recipe leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tuning.common.trial_record import ParamValue
from tuning.recipe.domains import Domain
from tuning.recipe.schema import Recipe, TrainingSettings

if TYPE_CHECKING:
    pass

# Sides in px that pictures are resized to when the recipe leaves it open: three neighbours of this ladder, the largest
# of them the first that is at least the pictures' own. Tiny pictures are enlarged, or a network that halves its input
# five times sees a point; above the ladder's end time grows with the square of the side, and accuracy hardly.
IMAGE_SIZES = (48, 64, 96, 128, 160, 224)
NUM_IMAGE_SIZES = 3

DEFAULT_TRUNCATE = (
    3  # blocks from the end, where the recipe leaves it open and the networks have twice as many to spare
)
MIN_OFFLINE_BLOCKS = 14  # blocks that each of the offline backbones has to spare, at every size

TrainingT = TypeVar("TrainingT", bound=TrainingSettings)


def variants_of(training: TrainingSettings) -> Sequence[TrainingSettings]:
    """Return the recipe's variants, or the training itself where it has none."""
    if isinstance(training, Recipe) and training.variants:
        return [training.with_variant(variant) for variant in training.variants]
    return [training]


class NetworkRequest(NamedTuple):
    """A backbone that a training names, its weights, and the image sizes that are given, none if they are left open."""

    backbone: str
    weights: str
    sizes: tuple[int, ...]


def requested_networks(training: TrainingSettings) -> list[NetworkRequest]:
    backbones = fixed_options(training.backbone) or auto_backbones(training.weights)
    sizes = tuple(int(size) for size in fixed_options(training.image_size))
    return [NetworkRequest(str(backbone), training.weights, sizes) for backbone in backbones]


def auto_backbones(weights: str) -> tuple[str, ...]:
    """Return the networks of ``backbone=auto``: those that need no hub, and more where one answers.

    A weights file fits one network only, and is taken for the first.
    """
    from models.backbones.weight_packages import HUB_BACKBONES, OFFLINE_BACKBONES
    from models.backbones.weights import hub_reachable, weights_source

    source = weights_source("", weights)
    if source == "file":
        return OFFLINE_BACKBONES[:1]
    return OFFLINE_BACKBONES + HUB_BACKBONES if source == "hub" and hub_reachable() else OFFLINE_BACKBONES


def fixed_options(domain: Domain | None) -> tuple[ParamValue, ...]:
    return domain.options if domain else ()


def auto_truncations(networks: Sequence[NetworkRequest], sizes: Sequence[int]) -> tuple[int, ...]:
    """Return how many blocks to drop where the recipe leaves it open: none, and a few of networks that have many."""
    return (
        (0, DEFAULT_TRUNCATE)
        if all(max_truncation(network, sizes) >= 2 * DEFAULT_TRUNCATE for network in networks)
        else (0,)
    )


def max_truncation(network: NetworkRequest, sizes: Sequence[int], wanted: int = MIN_OFFLINE_BLOCKS) -> int:
    """Return how many blocks can be dropped at most, at least ``wanted`` where that is known without a look."""
    from models.backbones.pretrained_cache import max_truncation_of
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    if network.backbone in OFFLINE_BACKBONES and wanted <= MIN_OFFLINE_BLOCKS:
        return MIN_OFFLINE_BLOCKS
    return min(max_truncation_of(network.backbone, each) for each in network.sizes or sizes)


def auto_image_sizes(median_side: int) -> tuple[int, ...]:
    """Return the sides in px to resize pictures to whose median short side is ``median_side`` px, smallest first."""
    top = next((at for at, side in enumerate(IMAGE_SIZES) if side >= median_side), len(IMAGE_SIZES) - 1)
    end = max(top + 1, NUM_IMAGE_SIZES)
    return IMAGE_SIZES[end - NUM_IMAGE_SIZES : end]
