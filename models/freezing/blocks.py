"""The freeze line: a network's blocks, and the two halves before and behind one of them.

Where a network can be cut is found in its graph (``models.freezing.fx_graph``). Cuts are grouped into blocks along the module
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
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field, NonNegativeInt
from torch import Tensor, fx, nn

from data.errors import BackboneError
from data.frozen_model import FrozenModel
from models.freezing.fx_graph import (
    Constant,
    CutPoint,
    find_cut_points,
    parameters_in,
    split_at,
    split_graph,
    trace,
)

logger = logging.getLogger(__name__)

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Shape = tuple[int, ...]  # of an activation for one picture


class Block(FrozenModel):
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
    _warn_unsplittable(type(network).__name__)
    return tuple(_grouped_blocks(network))


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


def split(network: nn.Module, blocks: Sequence[Block], depth: int) -> tuple[nn.Module, nn.Module]:
    """Return (prefix, suffix): ``suffix(prefix(x))`` equals ``network(x)`` bit for bit in eval mode.

    A network that ``truncate_network`` gave is cut likewise, by the blocks that it gave with it.

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
        return nn.Identity(), PartiallyFrozen(network, depth)
    if depth == 0:  # not the network itself: some return more than the features in training mode
        return nn.Identity(), fx.GraphModule(network, graph, "Suffix")
    last = blocks[depth - 1]
    return split_graph(network, graph, last.node, last.constants)


def as_modules(network: nn.Module, blocks: Sequence[Block]) -> list[nn.Module]:
    """Return a module for each block; one after another they are the network. There are none if it can't be cut."""
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        return []
    return [*split_at(network, graph, [(block.node, block.constants) for block in blocks[:-1]])]


def parameters_by_block(network: nn.Module, blocks: Sequence[Block]) -> list[set[nn.Parameter]]:
    """Return what is learned in each block of a network, or of what ``truncate_network`` gave."""
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        return [{network.get_parameter(name) for name in names} for _, names in _groups(network)]
    position = {node.name: index for index, node in enumerate(graph.nodes)}
    ends = [position[block.node] for block in blocks]
    starts = [0, *(at + 1 for at in ends)]
    return [parameters_in(network, graph, first, last) for first, last in zip(starts, ends, strict=False)]


class PartiallyFrozen(nn.Module):
    """A network that can't be cut, with its first ``depth`` groups frozen: no gradient, always in eval mode."""

    def __init__(self, network: nn.Module, depth: int) -> None:
        super().__init__()
        self.network = network
        self.frozen = {name for _, names in _groups(network)[:depth] for name in names}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in self.frozen)

    def train(self, mode: bool = True) -> PartiallyFrozen:
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
def _warn_unsplittable(name: str) -> None:
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


def _is_stack(module: nn.Module) -> bool:
    """Tell whether the module holds two pieces of one class whose names differ by their numbers only."""
    kinds = [(type(member), re.sub(r"\d+", "", name)) for name, member in _members(module) if _weights(member) > 1]
    return len(kinds) > len(set(kinds))


def _units(network: nn.Module) -> dict[str, int]:
    """Return the pieces' paths and their numbers of weights, in the order of the module tree."""
    rows = {type(module) for module in network.modules() if _is_stack(module)} | {type(network), *CONTAINERS}

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, int]]:
        weights = _weights(module)
        wraps_one = type(module) in CONTAINERS and len(list(module.children())) == 1
        if path and not wraps_one and (weights < 2 or type(module) not in rows):
            yield path, weights
            return
        for name, child in module.named_children():
            yield from walk(f"{path}.{name}" if path else name, child)

    return dict(walk("", network))


def _unit_of(node: fx.Node, pieces: dict[str, int]) -> str | None:
    stack = node.meta.get("nn_module_stack", {})
    return next((path for path, _ in stack.values() if path in pieces), None)


def _contains_unit(path: str, pieces: dict[str, int]) -> bool:
    return path not in pieces and any(piece.startswith(f"{path}.") for piece in pieces)


@dataclass
class _UnitSpan:
    """Pieces with no cut between them, and where their nodes lie in the graph."""

    names: list[str]
    first: int
    last: int


def _spans(network: nn.Module, graph: fx.Graph) -> list[_UnitSpan]:
    """Return the pieces that have a weight, in the order in which the graph enters them."""
    pieces = _units(network)
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    # A module that isn't traced into is a piece, though the tree would have been walked through it.
    pieces |= {path: _weights(network.get_submodule(path)) for path in called if _contains_unit(path, pieces)}
    spans: dict[str, _UnitSpan] = {}
    for index, node in enumerate(graph.nodes):
        piece = _unit_of(node, pieces)
        if piece is not None and pieces[piece]:
            spans.setdefault(piece, _UnitSpan([piece], index, index)).last = index
    return sorted(spans.values(), key=lambda span: span.first)


def _merged(spans: list[_UnitSpan], cuts: list[CutPoint]) -> Iterator[tuple[_UnitSpan, CutPoint]]:
    """Yield each block's span and the cut that ends it."""
    current = spans[0]
    for following in spans[1:]:
        between = [at for at in cuts if current.last <= at.position < following.first]
        if between:
            yield current, between[-1]
            current = following
        else:
            names = current.names + following.names
            current = _UnitSpan(names, current.first, max(current.last, following.last))
    yield current, cuts[-1]


def _common_path(names: list[str]) -> str:
    """Return the module that holds all of them, or the last one where that is the whole network."""
    columns = itertools.takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(name.split(".") for name in names), strict=False)
    )
    return ".".join(parts[0] for parts in columns) or names[-1]


def _traced_blocks(network: nn.Module, graph: fx.Graph, image_size: int) -> tuple[Block, ...]:
    cuts, spans = find_cut_points(network, graph, image_size), _spans(network, graph)
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
            parameters=sum(p.numel() for p in parameters_in(network, graph, starts[index], at.position)),
            constants=at.constants,
        )
        for index, (_, at) in enumerate(found)
    )


def _names(spans: list[_UnitSpan]) -> list[str]:
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
