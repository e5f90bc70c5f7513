"""Truncation: networks without their last blocks, and pooled features of several blocks.

Shapes: b images, f features.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from data.errors import BackboneError
from models.freezing.blocks import Block, Shape, truncation_graph
from models.freezing.fx_graph import truncate_at
from models.heads.spec import HeadFeatures


def truncate_network(
    network: nn.Module, blocks: Sequence[Block], truncate: int, head_features: HeadFeatures = "last"
) -> tuple[nn.Module, tuple[Block, ...], tuple[int, ...]]:
    """Return the network without its last ``truncate`` blocks, the remaining blocks, and each feature level's width.

    The activation of the last remaining block is averaged over its spatial axes to [b, f]; with ``head_features="all"``
    the averages of every remaining block are concatenated. The result uses the network's own modules and parameters
    under their own names, and holds none of the dropped blocks. With ``truncate=0`` and ``head_features="last"`` it is
    the network itself, and the widths are empty.

    Raises:
        BackboneError: no block would remain, the network can't be split, or it can't end there (``spatial_axes``).
    """
    if truncate == 0 and head_features == "last":
        return network, tuple(blocks), ()
    graph, levels = truncation_graph(network, blocks, truncate), pooled_levels(blocks, truncate)
    if head_features == "last":
        levels = levels[-1:]
    truncated = truncate_at(network, graph, {level.block.node: level.axes for level in levels})
    widths = tuple(level.columns.stop - level.columns.start for level in levels)
    return truncated, tuple(blocks[: len(blocks) - truncate]), widths


class FeatureLevel(NamedTuple):
    """One block's part of the features of all levels: its averaged axes, and its columns in [b, f]."""

    block: Block
    axes: tuple[int, ...]
    columns: slice


def pooled_levels(blocks: Sequence[Block], truncate: int) -> list[FeatureLevel]:
    """Return the feature levels of a network without its last ``truncate`` blocks, first to last.

    Blocks whose channel axis is ambiguous are skipped, except the last one.

    Raises:
        BackboneError: the network can't end there (``spatial_axes``).
    """
    axes = {
        t: spatial_axes(blocks, t) for t in range(truncate, len(blocks)) if t == truncate or is_valid_end(blocks, t)
    }
    levels, end = list[FeatureLevel](), 0
    for t in reversed(axes):
        block, begin = blocks[-1 - t], end
        end += math.prod(size for axis, size in enumerate(block.output_shape, start=1) if axis not in axes[t])
        levels.append(FeatureLevel(block, axes[t], slice(begin, end)))
    return levels


def max_truncation(blocks: Sequence[Block]) -> int:
    """Return the largest n for which each of 1..n trailing blocks can be dropped; 0 if the network can't be split."""
    ends = itertools.takewhile(functools.partial(is_valid_end, blocks), range(1, len(blocks) if blocks[0].node else 1))
    return sum(1 for _ in ends)


def is_valid_end(blocks: Sequence[Block], truncate: int) -> bool:
    """Return whether a network's last ``truncate`` blocks can be dropped; see ``spatial_axes``."""
    return truncate < len(blocks) and _channels_axis_at(blocks, truncate) is not None


def spatial_axes(blocks: Sequence[Block], truncate: int) -> tuple[int, ...]:
    """Return the axes to average in the last remaining block's activation; the batch is axis 0.

    These are all axes but the channels: the last two of [b, c, h, w], the middle ones of [b, h, w, c], of tokens
    [b, n, c] and of tokens in windows [b, w, n, c].

    Raises:
        BackboneError: the activation has an unsupported shape, or its channel axis is ambiguous.
    """
    last, channels = blocks[-1 - truncate], _channels_axis_at(blocks, truncate)
    if channels is None:
        raise BackboneError(
            "truncate must end the network at a block whose channel axis can be identified, "
            f"got {truncate}, which ends at {last.name} with shape {list(last.output_shape)}; choose another truncate"
        )
    return tuple(axis for axis in range(1, len(last.output_shape) + 1) if axis != channels)


def _channels_axis_at(blocks: Sequence[Block], truncate: int) -> int | None:
    return channels_axis(blocks[-1 - truncate].output_shape, [block.output_shape for block in blocks])


def channels_axis(shape: Shape, shapes: Sequence[Shape]) -> int | None:
    """Return the channel axis of an activation, given the shapes of all blocks' activations; None if it is ambiguous.

    Images are square, so two equal sizes are spatial; if all three are equal, the network's other activations decide.
    Three different sizes are tokens in windows if the last size is the network's number of features. In networks with
    windows, [., n, n] is ambiguous: the number of tokens can equal the number of channels.
    """
    if len(shape) < 3:
        return len(shape)
    num_sizes = len(set(shape))
    if len(shape) != 3 or num_sizes == 3:
        return 3 if shape[2:] == shapes[-1] else None
    candidates = {_channels_axis_by_equal_sizes(other) for other in ([shape] if num_sizes == 2 else shapes)} - {None}
    has_windows = any(len(set(other)) == 3 for other in shapes)
    return candidates.pop() if len(candidates) == 1 and (candidates == {3} or not has_windows) else None


def _channels_axis_by_equal_sizes(shape: Shape) -> int | None:
    """Return the channel axis of [h, w, c] or [c, h, w] with h = w; None if the sizes don't decide."""
    if len(shape) != 3 or (shape[0] == shape[1]) == (shape[1] == shape[2]):
        return None
    return 3 if shape[0] == shape[1] else 1
