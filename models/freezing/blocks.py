"""The freeze line: a network's blocks, and the two halves before and behind one of them.

Where a network can be cut is found in its graph (``models.graph``). Cuts are grouped into blocks along the module
tree, so that nothing is said about any architecture:

* a module with at most one weight (a parameter of two or more dimensions) is one piece: conv + norm + activation;
* a plain ``Sequential`` or ``ModuleList``, and any class that holds a numbered row of like modules (``b1, b2``,
  ``blocks.0, blocks.1``), is walked through; any other module is one piece: a residual block;
* a block is a piece with a weight and what follows it without one (norm, activation, pooling), up to the last cut
  before the next such piece; pieces with no cut between them are one block.

Shapes: b pictures; an activation is [b, ...], and ``Block.output_shape`` leaves b out.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field, NonNegativeInt
from torch import Tensor, fx, nn

from data.errors import BackboneError
from data.values import Value
from models.graph import Constant, Cut, end_at, find_cuts, halve, join_at, learned_in, split_at, tap_at, trace
from models.heads import Levels

logger = logging.getLogger(__name__)

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Shape = tuple[int, ...]  # of an activation for one picture


class Block(Value):
    """A run of layers that is frozen whole.

    Attributes:
        index: position in the network, from 0.
        name: path of the module that the block is, as the library names it: ``layer3.1``.
        node: the graph's node whose value leaves the block; empty in a network that can't be traced.
        output_shape: of that value for one picture; empty in a network that can't be traced.
        parameters: how many numbers are learned in it.
        constants: sizes computed before the block's end and used after it, by their node's name.
    """

    index: NonNegativeInt
    name: str
    node: str
    output_shape: tuple[int, ...]
    parameters: NonNegativeInt
    constants: dict[str, Constant] = Field(default_factory=dict)


def find_blocks(network: nn.Module, image_size: int) -> tuple[Block, ...]:
    """Return the blocks of a network that takes [b, 3, image_size, image_size], first to last.

    A network that can't be traced, or has no cut before its end, gets the groups of its library (timm's
    ``group_matcher``, else its children): it can be frozen, but not be cut in two. The log says so once.

    Raises:
        BackboneError: the network can't take pictures of this size.
    """
    graph = trace(network)
    found = _traced_blocks(network, graph, image_size) if graph else ()
    if len(found) > 1:
        return found
    _say_uncut(type(network).__name__)
    return tuple(_grouped_blocks(network))


def truncated(
    network: nn.Module, blocks: Sequence[Block], truncate: int, levels: Levels = "last"
) -> tuple[nn.Module, tuple[Block, ...], tuple[int, ...]]:
    """Return the network without its last ``truncate`` blocks, the blocks left, and how many features each level gives.

    It ends after the last block left, whose activation is averaged to [b, f] over all places (``pooled_axes``); with
    all ``levels`` it gives such averages of every block left, side by side. It uses the network's own modules and
    parameters under their own names, and holds nothing of the blocks dropped. With 0 and the last level it is the
    network itself, and how many features that gives isn't said (no level).

    Raises:
        BackboneError: no block would be left, the network can't be cut, or it can't end there (``pooled_axes``).
    """
    if levels == "all":
        left = tuple(blocks[: len(blocks) - truncate])
        graph, pooled = _graph_for(network, blocks, truncate), pooled_levels(blocks, truncate)
        joined = join_at(network, graph, {level.block.node: level.axes for level in pooled})
        return joined, left, tuple(pooled_features(level.block, level.axes) for level in pooled)
    if truncate == 0:
        return network, tuple(blocks), ()
    graph, last = _graph_for(network, blocks, truncate), blocks[-1 - truncate]
    axes = pooled_axes(blocks, truncate)
    ended = end_at(network, graph, last.node, axes)
    return ended, tuple(blocks[:-truncate]), (pooled_features(last, axes),)


def taps(network: nn.Module, blocks: Sequence[Block], truncations: Sequence[int]) -> nn.Module:
    """Return what gives, in one pass over pictures, a tuple of [b, f]: the network's features for each truncation.

    Each is bit for bit what the network that ``truncated`` gives for it computes in eval mode; ``blocks`` are all of
    the network's. Nothing is copied.

    Raises:
        BackboneError: as ``truncated``, for truncations that are all 0 too where the network can't be cut.
    """
    graph = _graph_for(network, blocks, max(truncations))
    tapped = tap_at(network, graph, {blocks[-1 - t].node: pooled_axes(blocks, t) for t in truncations})
    return tapped.train(network.training)


class Level(NamedTuple):
    """What one block gives a head that sees all levels: the averaged axes, and which columns of [b, f] they become."""

    block: Block
    axes: tuple[int, ...]
    columns: slice


def pooled_levels(blocks: Sequence[Block], truncate: int) -> list[Level]:
    """Return the blocks that a network without its last ``truncate`` ones gives averages of, first to last.

    All whose places can be told from channels, and the last one, as where it alone is seen.

    Raises:
        BackboneError: the network can't end there (``pooled_axes``).
    """
    axes = {t: pooled_axes(blocks, t) for t in range(truncate, len(blocks)) if t == truncate or can_end(blocks, t)}
    levels, end = list[Level](), 0
    for t in reversed(axes):
        block, begin = blocks[-1 - t], end
        end += pooled_features(block, axes[t])
        levels.append(Level(block, axes[t], slice(begin, end)))
    return levels


def pooled_features(block: Block, axes: tuple[int, ...]) -> int:
    """Return how many numbers are left of a block's activation once these axes, the batch being 0, are averaged."""
    return math.prod(size for axis, size in enumerate(block.output_shape, start=1) if axis not in axes)


def most_dropped(blocks: Sequence[Block]) -> int:
    """Return up to how many of a network's last blocks can be dropped, each number up to it; 0 if it can't be cut."""
    ends = itertools.takewhile(functools.partial(can_end, blocks), range(1, len(blocks) if blocks[0].node else 1))
    return sum(1 for _ in ends)


def can_end(blocks: Sequence[Block], truncate: int) -> bool:
    """Return whether a network without its last ``truncate`` blocks has something to average."""
    if truncate >= len(blocks):
        return False
    try:
        pooled_axes(blocks, truncate)
    except BackboneError:
        return False
    return True


def pooled_axes(blocks: Sequence[Block], truncate: int) -> tuple[int, ...]:
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


def _graph_for(network: nn.Module, blocks: Sequence[Block], truncate: int) -> fx.Graph:
    if truncate >= len(blocks):
        raise BackboneError(
            f"truncate must be 0..{len(blocks) - 1} for this network, got {truncate}; "
            "python -m tuning blocks shows its blocks"
        )
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        name = type(network).__name__
        raise BackboneError(
            f"truncate must be 0 for {name}, which can't be cut, got {truncate}; or choose another backbone"
        )
    return graph


def cut(network: nn.Module, blocks: Sequence[Block], depth: int) -> tuple[nn.Module, nn.Module]:
    """Return (prefix, suffix): ``suffix(prefix(x))`` equals ``network(x)`` bit for bit in eval mode.

    A network that ``truncated`` gave is cut likewise, by the blocks that it gave with it.

    ``depth`` blocks are in the prefix: 0 makes it the identity, ``len(blocks)`` makes the suffix the identity. Both
    use the network's own modules and parameters under their own names; nothing is copied. Without a graph the
    prefix stays the identity and the suffix is the network with its leading groups frozen.

    Raises:
        ValueError: ``depth`` isn't 0..len(blocks).
    """
    if not 0 <= depth <= len(blocks):
        raise ValueError(f"freeze_depth must be 0..{len(blocks)} for this network, got {depth}")
    if depth == len(blocks):
        return network, nn.Identity()
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        return nn.Identity(), PartlyFrozen(network, depth)
    if depth == 0:  # not the network itself: some return more than the features in training mode
        return nn.Identity(), fx.GraphModule(network, graph, "Suffix")
    last = blocks[depth - 1]
    return halve(network, graph, last.node, last.constants)


def parts(network: nn.Module, blocks: Sequence[Block]) -> list[nn.Module]:
    """Return a module for each block; one after another they are the network. There are none if it can't be cut."""
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        return []
    return [*split_at(network, graph, [(block.node, block.constants) for block in blocks[:-1]])]


def learned_by_block(network: nn.Module, blocks: Sequence[Block]) -> list[set[nn.Parameter]]:
    """Return what is learned in each block of a network, or of what ``truncated`` gave."""
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        return [{network.get_parameter(name) for name in names} for _, names in _groups(network)]
    position = {node.name: index for index, node in enumerate(graph.nodes)}
    ends = [position[block.node] for block in blocks]
    starts = [0, *(at + 1 for at in ends)]
    return [learned_in(network, graph, first, last) for first, last in zip(starts, ends, strict=False)]


class PartlyFrozen(nn.Module):
    """A network that can't be cut, with its first ``depth`` groups frozen: no gradient, always in eval mode."""

    def __init__(self, network: nn.Module, depth: int) -> None:
        super().__init__()
        self.network = network
        self.frozen = {name for _, names in _groups(network)[:depth] for name in names}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in self.frozen)

    def train(self, mode: bool = True) -> PartlyFrozen:
        """Set the mode of all modules but the frozen ones."""
        super().train(mode)
        for path, module in self.network.named_modules():
            names = {f"{path}.{name}" if path else name for name, _ in module.named_parameters()}
            if names and names <= self.frozen:
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's [b, f] of pictures [b, 3, s, s]."""
        features: Tensor = self.network(x)
        return features


@functools.cache
def _say_uncut(name: str) -> None:
    logger.warning("%s can't be cut in two: it is frozen by its library's parameter groups, without reuse", name)


# --- cuts grouped into blocks ---


def _weights(module: nn.Module) -> int:
    return sum(parameter.ndim > 1 for parameter in module.parameters())


def _members(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of a module, looking through plain containers."""
    for name, child in module.named_children():
        if type(child) in CONTAINERS:
            for path, member in _members(child):
                yield f"{name}.{path}", member
        else:
            yield name, child


def _is_row(module: nn.Module) -> bool:
    """Tell whether the module holds two pieces of one class whose names differ by their numbers only."""
    kinds = [(type(member), re.sub(r"\d+", "", name)) for name, member in _members(module) if _weights(member) > 1]
    return len(kinds) > len(set(kinds))


def _pieces(network: nn.Module) -> dict[str, int]:
    """Return the pieces' paths and their numbers of weights, in the order of the module tree."""
    rows = {type(module) for module in network.modules() if _is_row(module)} | {type(network), *CONTAINERS}

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, int]]:
        weights = _weights(module)
        wraps_one = type(module) in CONTAINERS and len(list(module.children())) == 1
        if path and not wraps_one and (weights < 2 or type(module) not in rows):
            yield path, weights
            return
        for name, child in module.named_children():
            yield from walk(f"{path}.{name}" if path else name, child)

    return dict(walk("", network))


def _piece_of(node: fx.Node, pieces: dict[str, int]) -> str | None:
    stack = node.meta.get("nn_module_stack", {})
    return next((path for path, _ in stack.values() if path in pieces), None)


def _holds_a_piece(path: str, pieces: dict[str, int]) -> bool:
    return path not in pieces and any(piece.startswith(f"{path}.") for piece in pieces)


@dataclass
class _Span:
    """Pieces with no cut between them, and where their nodes lie in the graph."""

    names: list[str]
    first: int
    last: int


def _spans(network: nn.Module, graph: fx.Graph) -> list[_Span]:
    """Return the pieces that have a weight, in the order in which the graph enters them."""
    pieces = _pieces(network)
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    # A module that isn't traced into is a piece, though the tree would have been walked through it.
    pieces |= {path: _weights(network.get_submodule(path)) for path in called if _holds_a_piece(path, pieces)}
    spans: dict[str, _Span] = {}
    for index, node in enumerate(graph.nodes):
        piece = _piece_of(node, pieces)
        if piece is not None and pieces[piece]:
            spans.setdefault(piece, _Span([piece], index, index)).last = index
    return sorted(spans.values(), key=lambda span: span.first)


def _merged(spans: list[_Span], cuts: list[Cut]) -> Iterator[tuple[_Span, Cut]]:
    """Yield each block's span and the cut that ends it."""
    current = spans[0]
    for following in spans[1:]:
        between = [at for at in cuts if current.last <= at.position < following.first]
        if between:
            yield current, between[-1]
            current = following
        else:
            names = current.names + following.names
            current = _Span(names, current.first, max(current.last, following.last))
    yield current, cuts[-1]


def _common_path(names: list[str]) -> str:
    """Return the module that holds all of them, or the last one where that is the whole network."""
    columns = itertools.takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(name.split(".") for name in names), strict=False)
    )
    return ".".join(parts[0] for parts in columns) or names[-1]


def _traced_blocks(network: nn.Module, graph: fx.Graph, image_size: int) -> tuple[Block, ...]:
    cuts, spans = find_cuts(network, graph, image_size), _spans(network, graph)
    if not spans:
        return ()
    found = list(_merged(spans, cuts))
    names = _names([span for span, _ in found])
    starts = [0, *(at.position + 1 for _, at in found)]
    return tuple(
        Block(
            index=index,
            name=names[index],
            node=at.node,
            output_shape=at.shape,
            parameters=sum(p.numel() for p in learned_in(network, graph, starts[index], at.position)),
            constants=at.constants,
        )
        for index, (_, at) in enumerate(found)
    )


def _names(spans: list[_Span]) -> list[str]:
    """Name each block after the module that holds its pieces, or where two would be called alike, after its last."""
    paths = [_common_path(span.names) for span in spans]
    return [span.names[-1] if paths.count(path) > 1 else path for path, span in zip(paths, spans, strict=True)]


# --- networks that can't be traced ---


def _groups(network: nn.Module) -> list[tuple[str, list[str]]]:
    """Return (name, parameter names) of the library's own groups, first to last."""
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        return [
            (name, [f"{name}.{parameter}" for parameter, _ in child.named_parameters()])
            for name, child in network.named_children()
            if next(child.parameters(), None) is not None
        ]
    from timm.models import group_parameters

    groups = group_parameters(network, matcher())
    return [(_common_path([name.rpartition(".")[0] or name for name in names]), names) for names in groups.values()]


def _grouped_blocks(network: nn.Module) -> Iterator[Block]:
    for index, (name, names) in enumerate(_groups(network)):
        count = sum(network.get_parameter(parameter).numel() for parameter in names)
        yield Block(index=index, name=name, node="", output_shape=(), parameters=count)
