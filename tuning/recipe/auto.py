"""The values of ``auto``: backbones, image sizes and truncations that a recipe leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tuning.common.option_types import ParamValue
from tuning.recipe.domains import Domain
from tuning.recipe.schema import Recipe, TrainingSettings

# Image sizes in px if the recipe leaves them open: three consecutive ones, the largest being the first that is at least
# the median image size. Small images are upscaled, because five stride-2 stages would reduce them to a single position.
# Above 224 px the time grows with the square of the size while accuracy hardly improves.
IMAGE_SIZES = (48, 64, 96, 128, 160, 224)
NUM_IMAGE_SIZES = 3

DEFAULT_TRUNCATE = 3  # blocks dropped from the end, if every network can drop at least 2 * 3
MIN_OFFLINE_BLOCKS = 14  # blocks that every offline backbone can drop, at every image size

TrainingT = TypeVar("TrainingT", bound=TrainingSettings)


def variants_of(training: TrainingSettings) -> Sequence[TrainingSettings]:
    """Return the settings of each variant, or the settings themselves if there are no variants."""
    if isinstance(training, Recipe) and training.variants:
        return [training.with_variant(variant) for variant in training.variants]
    return [training]


class NetworkRequest(NamedTuple):
    """A backbone of a training, its weights, and its image sizes (empty if left open)."""

    backbone: str
    weights: str
    sizes: tuple[int, ...]


def requested_networks(training: TrainingSettings) -> list[NetworkRequest]:
    """Return a request for each backbone of the settings."""
    backbones = fixed_options(training.backbone) or auto_backbones(training.weights)
    sizes = tuple(int(size) for size in fixed_options(training.image_size))
    return [NetworkRequest(str(backbone), training.weights, sizes) for backbone in backbones]


def auto_backbones(weights: str) -> tuple[str, ...]:
    """Return the backbones of ``backbone=auto``: the offline ones, plus more if the hub is reachable.

    A weights file fits a single network, so only the first backbone is returned for it. A folder of packed weights has
    its own networks.
    """
    from models.backbones.weight_packages import HUB_BACKBONES, OFFLINE_BACKBONES
    from models.backbones.weights import hub_reachable, is_weights_folder, weights_source
    from models.backbones.weights_folder import read_index

    if is_weights_folder(weights):
        return tuple(read_index(Path(weights).expanduser()).networks)
    source = weights_source("", weights)
    if source == "file":
        return OFFLINE_BACKBONES[:1]
    return OFFLINE_BACKBONES + HUB_BACKBONES if source == "hub" and hub_reachable() else OFFLINE_BACKBONES


def fixed_options(domain: Domain | None) -> tuple[ParamValue, ...]:
    """Return the options of a domain, or an empty tuple if it is left open."""
    return domain.options if domain else ()


def auto_truncations(networks: Sequence[NetworkRequest], sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the truncations of ``truncate=auto``: 0, and ``DEFAULT_TRUNCATE`` if all networks are deep enough."""
    are_deep = all(max_truncation(network, sizes) >= 2 * DEFAULT_TRUNCATE for network in networks)
    return (0, DEFAULT_TRUNCATE) if are_deep else (0,)


def max_truncation(network: NetworkRequest, sizes: Sequence[int], required: int = MIN_OFFLINE_BLOCKS) -> int:
    """Return the largest possible truncation; a lower bound of at least ``required`` if it is known without tracing."""
    from models.backbones.pretrained_cache import max_truncation_of
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    if network.backbone in OFFLINE_BACKBONES and required <= MIN_OFFLINE_BLOCKS:
        return MIN_OFFLINE_BLOCKS
    return min(max_truncation_of(network.backbone, size) for size in network.sizes or sizes)


def image_sizes(training: TrainingSettings, median_side: int) -> tuple[int, ...]:
    """Return the image sizes in px if ``image_size`` is open: the automatic ones, and those of ``start_settings``."""
    starts = training.start_settings if isinstance(training, Recipe) else ()
    return tuple(dict.fromkeys([*auto_image_sizes(median_side), *(int(start["image_size"]) for start in starts)]))


def auto_image_sizes(median_side: int) -> tuple[int, ...]:
    """Return the image sizes in px of ``image_size=auto``, smallest first; ``median_side`` is the median short side."""
    top = next((index for index, size in enumerate(IMAGE_SIZES) if size >= median_side), len(IMAGE_SIZES) - 1)
    end = max(top + 1, NUM_IMAGE_SIZES)
    return IMAGE_SIZES[end - NUM_IMAGE_SIZES : end]
