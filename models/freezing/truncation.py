"""Networks without their last blocks, and the features of every block."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from data.errors import BackboneError
from models.freezing.blocks import Block, Shape, _graph_for
from models.freezing.fx_graph import (
    concat_at,
    extract_at,
    truncate_at,
)
from models.heads.spec import HeadFeatures


def truncate_network(
    network: nn.Module, blocks: Sequence[Block], truncate: int, head_features: HeadFeatures = "last"
) -> tuple[nn.Module, tuple[Block, ...], tuple[int, ...]]:
    """Return the network without its last ``truncate`` blocks, the blocks left, and how many features each level gives.

    It ends after the last block left, whose activation is averaged to [b, f] over all places (``spatial_axes``); with
    all ``levels`` it gives such averages of every block left, side by side. It uses the network's own modules and
    parameters under their own names, and holds nothing of the blocks dropped. With 0 and the last level it is the
    network itself, and how many features that gives isn't said (no level).

    Raises:
        BackboneError: no block would be left, the network can't be cut, or it can't end there (``spatial_axes``).
    """
    if head_features == "all":
        left = tuple(blocks[: len(blocks) - truncate])
        graph, pooled = _graph_for(network, blocks, truncate), pooled_levels(blocks, truncate)
        joined = concat_at(network, graph, {level.block.node: level.axes for level in pooled})
        return joined, left, tuple(pooled_features(level.block, level.axes) for level in pooled)
    if truncate == 0:
        return network, tuple(blocks), ()
    graph, last = _graph_for(network, blocks, truncate), blocks[-1 - truncate]
    axes = spatial_axes(blocks, truncate)
    ended = truncate_at(network, graph, last.node, axes)
    return ended, tuple(blocks[:-truncate]), (pooled_features(last, axes),)


def feature_taps(network: nn.Module, blocks: Sequence[Block], truncations: Sequence[int]) -> nn.Module:
    """Return what gives, in one pass over pictures, a tuple of [b, f]: the network's features for each truncation.

    Each is bit for bit what the network that ``truncate_network`` gives for it computes in eval mode; ``blocks`` are all of
    the network's. Nothing is copied.

    Raises:
        BackboneError: as ``truncate_network``, for truncations that are all 0 too where the network can't be cut.
    """
    graph = _graph_for(network, blocks, max(truncations))
    tapped = extract_at(network, graph, {blocks[-1 - t].node: spatial_axes(blocks, t) for t in truncations})
    return tapped.train(network.training)


class FeatureLevel(NamedTuple):
    """What one block gives a head that sees all levels: the averaged axes, and which columns of [b, f] they become."""

    block: Block
    axes: tuple[int, ...]
    columns: slice


def pooled_levels(blocks: Sequence[Block], truncate: int) -> list[FeatureLevel]:
    """Return the blocks that a network without its last ``truncate`` ones gives averages of, first to last.

    All whose places can be told from channels, and the last one, as where it alone is seen.

    Raises:
        BackboneError: the network can't end there (``spatial_axes``).
    """
    axes = {
        t: spatial_axes(blocks, t) for t in range(truncate, len(blocks)) if t == truncate or is_valid_end(blocks, t)
    }
    levels, end = list[FeatureLevel](), 0
    for t in reversed(axes):
        block, begin = blocks[-1 - t], end
        end += pooled_features(block, axes[t])
        levels.append(FeatureLevel(block, axes[t], slice(begin, end)))
    return levels


def pooled_features(block: Block, axes: tuple[int, ...]) -> int:
    """Return how many numbers are left of a block's activation once these axes, the batch being 0, are averaged."""
    return math.prod(size for axis, size in enumerate(block.output_shape, start=1) if axis not in axes)


def max_truncation(blocks: Sequence[Block]) -> int:
    """Return up to how many of a network's last blocks can be dropped, each number up to it; 0 if it can't be cut."""
    ends = itertools.takewhile(functools.partial(is_valid_end, blocks), range(1, len(blocks) if blocks[0].node else 1))
    return sum(1 for _ in ends)


def is_valid_end(blocks: Sequence[Block], truncate: int) -> bool:
    """Return whether a network without its last ``truncate`` blocks has something to average."""
    if truncate >= len(blocks):
        return False
    try:
        spatial_axes(blocks, truncate)
    except BackboneError:
        return False
    return True


def spatial_axes(blocks: Sequence[Block], truncate: int) -> tuple[int, ...]:
    """Return the axes, 0 being the batch, that are averaged after a network's last block but ``truncate``.

    All that hold places, none that holds channels: the last two of [b, c, h, w], the middle ones of [b, h, w, c], of
    tokens [b, n, c] and of tokens in windows [b, w, n, c].

    Raises:
        BackboneError: an activation of another form, or one whose axes can't be told apart.
    """
    last = blocks[-1 - truncate]
    count = len(last.output_shape)
    channels = count if count < 3 else _channels_axis(last.output_shape, [block.output_shape for block in blocks])
    if channels is None:
        raise BackboneError(
            f"the network can't end after {last.name}, whose activation of {list(last.output_shape)} doesn't tell "
            "places from channels; choose another truncate"
        )
    return tuple(axis for axis in range(1, count + 1) if axis != channels)


def _channels_axis(shape: Shape, shapes: Sequence[Shape]) -> int | None:
    """Return which axis of an activation holds channels, given all of the network's, None where that can't be told.

    Pictures are square, so the two sides that are alike hold places; where all three are alike, the other activations
    tell. With three different sides they are tokens in windows if the last one is as long as the network's features.
    Where there are windows, [., n, n] may be as many tokens as channels.
    """
    different = len(set(shape))
    if len(shape) != 3 or different == 3:
        return 3 if shape[2:] == shapes[-1] else None
    told = {_by_sides(other) for other in ([shape] if different == 2 else shapes)} - {None}
    in_windows = any(len(set(other)) == 3 for other in shapes)
    return told.pop() if len(told) == 1 and (told == {3} or not in_windows) else None


def _by_sides(shape: Shape) -> int | None:
    """Tell [h, w, c] from [c, h, w] by the two sides that are alike; None where that doesn't tell."""
    if len(shape) != 3 or (shape[0] == shape[1]) == (shape[1] == shape[2]):
        return None
    return 3 if shape[0] == shape[1] else 1
