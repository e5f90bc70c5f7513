"""The predicted cost of training a configuration: a number of floating-point operations that is known before it runs.

Relative costs of two configurations on the same images; how many seconds a unit takes depends on the machine. Trained
blocks run forward and backward (three times the forward pass) in every epoch. Frozen blocks run once for each cached
view of the images, and not at all if an earlier configuration has cached the same features; without a cache they run
in every epoch.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from pathlib import Path
from typing import NamedTuple

import torch

from data.cache.content_cache import ContentCache, size_limit_bytes
from data.dataset.stratified_parts import segment_ranges
from data.loading.views import IDENTITY_VIEW, AugmentedView, views_for
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from models.backbones.factory import create_backbone
from models.classifier import freeze_depth
from models.device import one_thread
from models.features.caching_policy import caching_plan
from models.freezing.blocks import Block, as_modules, find_blocks
from models.profiling.flops import count_flops
from models.profiling.hardware import measurement_key
from models.trial_config import TrialConfig

VERSION = 2  # of the computation
FILE = "flops.json"
FORWARD_AND_BACKWARD = 3  # passes that cost as much as one forward pass; the backward pass computes two gradients
# A core computes about 30 GFLOPs per second: 1.5 s to build a network, 0.3 ms to load an image and update the head.
GFLOPS_PER_TRIAL = 45.0
GFLOPS_PER_IMAGE = 0.01  # of each epoch


# torch.fx patches the modules of all threads while it traces one: no other thread of this process may run a network.
TRACING = threading.RLock()


class NetworkFlops(NamedTuple):
    """The forward pass of a network without head for one image.

    Attributes:
        gflops: of each block, first to last.
        elements: size of each block's output; empty for a network that can't be split.
    """

    gflops: tuple[float, ...]
    elements: tuple[int, ...]


@functools.cache
def network_flops(backbone: str, image_size: int) -> NetworkFlops:
    """Return the cost of a network's blocks, computed within half a second, or from the cache.

    Raises:
        BackboneError: see ``models.backbones.factory.create_backbone``.
    """
    key = measurement_key("flops", VERSION, backbone, image_size)
    entry = ContentCache().get_or_create(key, lambda folder: _compute_flops(folder, backbone, image_size))
    values = json.loads((entry / FILE).read_bytes())
    return NetworkFlops(tuple(values["gflops"]), tuple(values["elements"]))


def _compute_flops(folder: Path, backbone: str, image_size: int) -> None:
    with TRACING, one_thread():  # trials use all cores
        flops = _network_flops(backbone, image_size)
    (folder / FILE).write_text(json.dumps(flops._asdict()))


def _network_flops(backbone: str, image_size: int) -> NetworkFlops:
    with torch.random.fork_rng(devices=[]):
        network = create_backbone(backbone, "none", image_size).network.eval()
    blocks = find_blocks(network, image_size)
    modules = as_modules(network, blocks)
    flops = count_flops(modules or [network], image_size)
    gflops = [count / 1e9 for count in flops] if modules else _by_parameters(flops[0] / 1e9, blocks)
    elements = [math.prod(block.output_shape) for block in blocks] if modules else []
    return NetworkFlops(tuple(gflops), tuple(elements))


def _by_parameters(gflops: float, blocks: tuple[Block, ...]) -> list[float]:
    total = sum(block.parameters for block in blocks)
    return [gflops * block.parameters / max(1, total) for block in blocks]


class FrozenFeatures(NamedTuple):
    """Features that a trial caches: the output of the first ``depth`` blocks, of one network for one preprocessing.

    ``pooled`` is empty for an activation, else ``last`` or ``all``: the head's input if all blocks are frozen.
    """

    network: tuple[str, str, Preprocessing]
    depth: int
    pooled: str


class CachedView(NamedTuple):
    """Features of images of a split in one view; ``images`` are in the order of ``StratifiedParts``."""

    features: FrozenFeatures
    split: SplitName
    view: AugmentedView
    images: range


class Images(NamedTuple):
    """The numbers of training and validation images."""

    train: int
    val: int


class TrainingCosts:
    """The costs of configurations on the same images, given those that have run before (``add``).

    Trials have numbers; the order in which they are added makes no difference.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self._cached_by: dict[CachedView, int] = {}  # the lowest number of a trial that has cached it

    def add(self, config: TrialConfig, epochs: int, number: int = 0) -> None:
        """Record the features that a trial has cached in its first ``epochs``."""
        for view in self._views(_Plan.of(config, self._images.train), config, epochs):
            self._cached_by[view] = min(number, self._cached_by.get(view, number))

    def gflops(self, config: TrialConfig, epochs: int, number: float = math.inf) -> float:
        """Return the predicted cost of the first ``epochs`` of the trial with a number, with building its network."""
        plan = _Plan.of(config, self._images.train)
        views = self._views(plan, config, epochs)
        num_train = min(self._images.train, config.images_per_epoch or self._images.train)
        features = sum(len(view.images) * self._missing_gflops(plan, view, number) for view in views)
        frozen = 0.0 if plan.is_cached else sum(plan.gflops[: plan.depth])
        trained = sum(plan.gflops[plan.depth :])
        train = FORWARD_AND_BACKWARD * trained + frozen + GFLOPS_PER_IMAGE
        validate = trained + frozen + GFLOPS_PER_IMAGE
        return GFLOPS_PER_TRIAL + features + epochs * (num_train * train + self._images.val * validate)

    def _views(self, plan: _Plan, config: TrialConfig, epochs: int) -> list[CachedView]:
        """Return the views that a configuration needs in the cache for its first epochs; epochs cycle through them."""
        if not plan.is_cached:
            return []
        batches, features = config.batches, plan.features
        views = views_for(batches.augmentation, batches.balance, config.features.cached_augmentations)
        size = min(self._images.train, config.images_per_epoch or self._images.train)
        if config.is_probe and config.images_per_epoch:
            train = [CachedView(features, "train", views[0], segment) for segment in segment_ranges(size)]
        else:
            num_parts = -(-self._images.train // size)
            train = [
                CachedView(features, "train", views[epoch // num_parts % len(views)], _part(epoch % num_parts, size))
                for epoch in range(max(1, epochs))
            ]
        val = range(self._images.val)
        others = [CachedView(features, "val", IDENTITY_VIEW, val)]
        if config.fold is not None:  # its training and its validation images are of both splits
            others += [CachedView(features, "train", IDENTITY_VIEW, range(self._images.train))]
            others += [view._replace(split="val", images=val) for view in train]
        return list(dict.fromkeys([*train, *others]))

    def _missing_gflops(self, plan: _Plan, view: CachedView, number: float) -> float:
        """Return the cost per image of features that can be computed from those of an earlier block, if any."""

        def is_cached(features: FrozenFeatures) -> bool:
            return self._cached_by.get(view._replace(features=features), math.inf) < number

        features = view.features
        all_levels = features._replace(depth=len(plan.all_gflops), pooled="all")
        if is_cached(features) or (features.pooled == "last" and is_cached(all_levels)):
            return 0.0
        depths = range(1, features.depth + 1)
        earlier = [depth for depth in depths if is_cached(features._replace(depth=depth, pooled=""))]
        first = max(earlier, default=0) if features.pooled != "all" else 0
        return sum(plan.gflops[first : plan.depth])


def _part(number: int, size: int) -> range:
    return range(number * size, (number + 1) * size)


class _Plan(NamedTuple):
    """What a configuration trains, freezes and caches."""

    features: FrozenFeatures
    depth: int
    gflops: tuple[float, ...]  # of the blocks that remain after truncation
    all_gflops: tuple[float, ...]
    is_cached: bool

    @classmethod
    def of(cls, config: TrialConfig, num_images: int) -> _Plan:
        network = config.network
        flops = network_flops(network.backbone, config.preprocessing.image_size)
        gflops = flops.gflops[: len(flops.gflops) - network.truncate]
        depth = freeze_depth(network.freeze_fraction, len(gflops))
        pooled = network.head_features if depth == len(gflops) else ""
        features = FrozenFeatures((network.backbone, network.weights, config.preprocessing), depth, pooled)
        elements = 0 if not flops.elements or depth == 0 else 1 if pooled else flops.elements[depth - 1]
        num_used = config.num_used(num_images)
        plan = caching_plan(config.features, config.batches, elements, num_used, size_limit_bytes())
        return cls(features, depth, gflops, flops.gflops, plan.precision != "uncached")


def trains_a_block(config: TrialConfig) -> bool:
    """Return whether a configuration trains more than the head."""
    network = config.network
    num_blocks = len(network_flops(network.backbone, config.preprocessing.image_size).gflops) - network.truncate
    return freeze_depth(network.freeze_fraction, num_blocks) < num_blocks
