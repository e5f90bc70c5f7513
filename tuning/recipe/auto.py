"""What ``auto`` means: networks, image sizes and truncations that a recipe leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tuning.common.trial_record import Setting
from tuning.recipe.domains import Domain
from tuning.recipe.schema import Recipe, Training

if TYPE_CHECKING:
    pass

# Sides in px that pictures are resized to when the recipe leaves it open: three neighbours of this ladder, the largest
# of them the first that is at least the pictures' own. Tiny pictures are enlarged, or a network that halves its input
# five times sees a point; above the ladder's end time grows with the square of the side, and accuracy hardly.
LADDER = (48, 64, 96, 128, 160, 224)
RUNGS = 3

DROPPED = 3  # blocks from the end, where the recipe leaves it open and the networks have twice as many to spare
MANY = 14  # blocks that each of the offline backbones has to spare, at every size

Some = TypeVar("Some", bound=Training)


def _parts(training: Training) -> Sequence[Training]:
    """Return the recipe's variants, or the training itself where it has none."""
    if isinstance(training, Recipe) and training.variants:
        return [training.varied(variant) for variant in training.variants]
    return [training]


class _Network(NamedTuple):
    """A backbone that a training names, its weights, and the image sizes that are given, none if they are left open."""

    backbone: str
    weights: str
    sizes: tuple[int, ...]


def _networks(training: Training) -> list[_Network]:
    backbones = _given(training.backbone) or automatic_backbones(training.weights)
    sizes = tuple(int(size) for size in _given(training.image_size))
    return [_Network(str(backbone), training.weights, sizes) for backbone in backbones]


def automatic_backbones(weights: str) -> tuple[str, ...]:
    """Return the networks of ``backbone=auto``: those that need no hub, and more where one answers.

    A weights file fits one network only, and is taken for the first.
    """
    from models.backbones.weight_packages import HUB_BACKBONES, OFFLINE_BACKBONES
    from models.backbones.weights import hub_answers, source_of

    source = source_of("", weights)
    if source == "file":
        return OFFLINE_BACKBONES[:1]
    return OFFLINE_BACKBONES + HUB_BACKBONES if source == "hub" and hub_answers() else OFFLINE_BACKBONES


def _given(domain: Domain | None) -> tuple[Setting, ...]:
    return domain.options if domain else ()


def _automatic_cuts(networks: Sequence[_Network], sizes: Sequence[int]) -> tuple[int, ...]:
    """Return how many blocks to drop where the recipe leaves it open: none, and a few of networks that have many."""
    return (0, DROPPED) if all(_most_truncated(network, sizes) >= 2 * DROPPED for network in networks) else (0,)


def _most_truncated(network: _Network, sizes: Sequence[int], wanted: int = MANY) -> int:
    """Return how many blocks can be dropped at most, at least ``wanted`` where that is known without a look."""
    from models.backbones.pretrained_cache import most_truncated
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    if network.backbone in OFFLINE_BACKBONES and wanted <= MANY:
        return MANY
    return min(most_truncated(network.backbone, each) for each in network.sizes or sizes)


def automatic_sizes(median_side: int) -> tuple[int, ...]:
    """Return the sides in px to resize pictures to whose median short side is ``median_side`` px, smallest first."""
    top = next((at for at, side in enumerate(LADDER) if side >= median_side), len(LADDER) - 1)
    end = max(top + 1, RUNGS)
    return LADDER[end - RUNGS : end]
