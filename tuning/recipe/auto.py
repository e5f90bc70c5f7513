"""The values of ``auto``: backbones, image sizes and truncations that a recipe leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tuning.common.option_types import ParamValue
from tuning.recipe.domains import Domain
from tuning.recipe.schema import Recipe, TrainingSettings

# Image sizes in px if the recipe leaves them open: three consecutive ones, the largest being the first that is at least
# the median image size. Small images are upscaled, because five stride-2 stages would reduce them to a single position.
# From 32 px on, up to 128 px: linear probes of CIFAR-10 (32 px, 4,000 images) reached 0.769 with 96 and 0.789 with 128
# px, those of faces of 48 px (294 validation images) 0.42 with 48 px and 0.47 with 96 and 128 px.
# Above 224 px the time grows with the square of the size while accuracy hardly improves: only a GPU has that time.
IMAGE_SIZES = (48, 64, 96, 128, 160, 224)
GPU_IMAGE_SIZES = (*IMAGE_SIZES, 288, 384)
NUM_IMAGE_SIZES = 3
MIN_UPSCALED_SIDE, UPSCALED_SIZE = 32, 128  # px

DEFAULT_TRUNCATE = 3  # blocks dropped from the end, if every network can drop at least 2 * 3
MIN_AUTO_BLOCKS = 14  # blocks that every network of backbone=auto can drop, at every image size

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


def requested_networks(training: TrainingSettings, on_gpu: bool) -> list[NetworkRequest]:
    """Return a request for each backbone of the settings; ``on_gpu`` is whether the trials run on a GPU.

    If ``backbone`` is open, these are the automatic ones, and those of ``start_settings``.
    """
    backbones = fixed_options(training.backbone)
    if not backbones:
        started = (start["backbone"] for start in _start_settings(training))
        backbones = tuple(dict.fromkeys([*auto_backbones(training.weights, on_gpu), *started]))
    sizes = tuple(int(size) for size in fixed_options(training.image_size))
    return [NetworkRequest(str(backbone), training.weights, sizes) for backbone in backbones]


def auto_backbones(weights: str, on_gpu: bool) -> tuple[str, ...]:
    """Return the backbones of ``backbone=auto``: the offline ones, plus more if the hub is reachable, more on a GPU.

    A weights file fits a single network, so only the first backbone is returned for it. A folder of packed weights has
    its own networks. The larger networks of a GPU are the last, so the default and the first probes stay the same.
    """
    from models.backbones.weight_packages import GPU_BACKBONES, HUB_BACKBONES, OFFLINE_BACKBONES
    from models.backbones.weights import hub_reachable, is_weights_folder, weights_source
    from models.backbones.weights_folder import read_index

    if is_weights_folder(weights):
        return tuple(read_index(Path(weights).expanduser()).networks)
    source = weights_source("", weights)
    if source == "file":
        return OFFLINE_BACKBONES[:1]
    if source != "hub" or not hub_reachable():
        return OFFLINE_BACKBONES
    return OFFLINE_BACKBONES + HUB_BACKBONES + (GPU_BACKBONES if on_gpu else ())


def fixed_options(domain: Domain | None) -> tuple[ParamValue, ...]:
    """Return the options of a domain, or an empty tuple if it is left open."""
    return domain.options if domain else ()


def auto_truncations(networks: Sequence[NetworkRequest], sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the truncations of ``truncate=auto``: 0, and ``DEFAULT_TRUNCATE`` if all networks are deep enough."""
    are_deep = all(max_truncation(network, sizes) >= 2 * DEFAULT_TRUNCATE for network in networks)
    return (0, DEFAULT_TRUNCATE) if are_deep else (0,)


def max_truncation(network: NetworkRequest, sizes: Sequence[int], required: int = MIN_AUTO_BLOCKS) -> int:
    """Return the largest possible truncation; a lower bound of at least ``required`` if it is known without tracing."""
    from models.backbones.pretrained_cache import max_truncation_of
    from models.backbones.weight_packages import AUTO_BACKBONES

    if network.backbone in AUTO_BACKBONES and required <= MIN_AUTO_BLOCKS:
        return MIN_AUTO_BLOCKS
    return min(max_truncation_of(network.backbone, size) for size in network.sizes or sizes)


def image_sizes(training: TrainingSettings, median_side: int, on_gpu: bool) -> tuple[int, ...]:
    """Return the image sizes in px if ``image_size`` is open: the automatic ones, and those of ``start_settings``."""
    started = (int(start["image_size"]) for start in _start_settings(training))
    return tuple(dict.fromkeys([*auto_image_sizes(median_side, on_gpu), *started]))


def auto_image_sizes(median_side: int, on_gpu: bool) -> tuple[int, ...]:
    """Return the image sizes in px of ``image_size=auto``, smallest first; ``median_side`` is the median short side."""
    sizes = GPU_IMAGE_SIZES if on_gpu else IMAGE_SIZES
    target = max(median_side, UPSCALED_SIZE) if median_side >= MIN_UPSCALED_SIDE else median_side
    top = next((index for index, size in enumerate(sizes) if size >= target), len(sizes) - 1)
    end = max(top + 1, NUM_IMAGE_SIZES)
    return sizes[end - NUM_IMAGE_SIZES : end]


def accepts_size(backbone: str, size: int) -> bool:
    """Return whether a network is known to accept images of ``size`` px, without running it.

    Offline backbones accept every size; the other networks of ``backbone=auto`` need more than a few pixels.
    """
    from models.backbones.weight_packages import AUTO_BACKBONES, OFFLINE_BACKBONES

    return backbone in OFFLINE_BACKBONES or (backbone in AUTO_BACKBONES and size >= IMAGE_SIZES[0])


def _start_settings(training: TrainingSettings) -> Sequence[Mapping[str, ParamValue]]:
    return training.start_settings if isinstance(training, Recipe) else ()
