"""The freeze line: the blocks of a network, and splitting the network in two at the end of a block.

Cut points come from the network's graph (``models.freezing.fx_graph``). They are grouped into blocks along the module
tree, without special cases for any architecture:

* a module with at most one weight (a parameter of two or more dimensions) is one unit: conv + norm + activation;
* a plain ``Sequential`` or ``ModuleList``, and any class that holds a numbered stack of similar modules (``b1, b2``,
  ``blocks.0, blocks.1``), is descended into; any other module is one unit, for example a residual block;
* a block is a unit with a weight plus the weightless operations after it (norm, activation, pooling), up to the last
  cut point before the next unit with a weight; units without a cut point between them form one block.

Shapes: b images; an activation is [b, ...], and ``Block.output_shape`` omits b.
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
    trace,
)

logger = logging.getLogger(__name__)

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Shape = tuple[int, ...]  # of an activation, without the batch axis


class Block(FrozenModel):
    """A group of consecutive layers that is frozen as a whole.

    Attributes:
        index: position in the network, from 0.
        name: path of the block's module in the library's network: ``layer3.1``.
        node: graph node of the block's output; empty in a network that can't be traced.
        output_shape: shape of that output for one image; empty in a network that can't be traced.
        parameters: number of parameters.
        constants: non-tensor values that are computed before the block's end and used after it, by node name.
    """

    index: NonNegativeInt
    name: str
    node: str
    output_shape: tuple[int, ...]
    parameters: NonNegativeInt
    constants: dict[str, Constant] = Field(default_factory=dict)


def find_blocks(network: nn.Module, image_size: int) -> tuple[Block, ...]:
    """Return the blocks of a network that takes [b, 3, image_size, image_size], first to last.

    A network that can't be traced, or has no cut point before its end, gets the parameter groups of its library (timm's
    ``group_matcher``, else the network's children): it can be frozen, but not split in two. This is logged once.

    Raises:
        BackboneError: the network does not accept images of this size.
    """
    graph = trace(network)
    blocks = _blocks_from_graph(network, graph, image_size) if graph else ()
    if len(blocks) > 1:
        return blocks
    _warn_unsplittable(type(network).__name__)
    return tuple(_blocks_from_groups(network))


def graph_of(network: nn.Module, blocks: Sequence[Block]) -> fx.Graph | None:
    """Return the graph whose nodes the blocks name, or None for a network that can't be split."""
    return trace(network) if blocks[0].node else None


def truncation_graph(network: nn.Module, blocks: Sequence[Block], truncate: int) -> fx.Graph:
    """Return the graph of a network whose last ``truncate`` blocks will be dropped.

    Raises:
        BackboneError: no block would remain, or the network can't be split.
    """
    if truncate >= len(blocks):
        raise BackboneError(
            f"truncate must be 0..{len(blocks) - 1} for this network, got {truncate}; "
            "freezeline blocks shows its blocks"
        )
    graph = graph_of(network, blocks)
    if graph is None:
        name = type(network).__name__
        raise BackboneError(
            f"truncate must be 0 for {name}, which can't be split, got {truncate}; "
            "use --truncate 0 or choose another backbone"
        )
    return graph


def split(network: nn.Module, blocks: Sequence[Block], depth: int) -> tuple[nn.Module, nn.Module]:
    """Return (prefix, suffix): ``suffix(prefix(x))`` equals ``network(x)`` bit for bit in eval mode.

    Also splits a truncated network, given the blocks that ``truncate_network`` returned with it.

    The prefix holds the first ``depth`` blocks: with 0 it is the identity, with ``len(blocks)`` the suffix is. Both use
    the network's own modules and parameters under their own names; nothing is copied. Without a graph the prefix is
    always the identity, and the suffix is the network with its leading groups frozen.

    Raises:
        ValueError: ``depth`` isn't 0..len(blocks).
    """
    if not 0 <= depth <= len(blocks):
        raise ValueError(f"freeze_depth must be 0..{len(blocks)} for this network, got {depth}")
    if depth == len(blocks):
        return network, nn.Identity()
    graph = graph_of(network, blocks)
    if graph is None:
        return nn.Identity(), PartiallyFrozen(network, depth)
    if depth == 0:  # traced, because some networks return more than the features in training mode
        return nn.Identity(), fx.GraphModule(network, graph, "Suffix")
    last = blocks[depth - 1]
    prefix, suffix = split_at(network, graph, [(last.node, last.constants)])
    return prefix, suffix


def as_modules(network: nn.Module, blocks: Sequence[Block]) -> list[nn.Module]:
    """Return one module per block, which in sequence compute the network; empty if the network can't be split."""
    graph = graph_of(network, blocks)
    if graph is None:
        return []
    return [*split_at(network, graph, [(block.node, block.constants) for block in blocks[:-1]])]


def parameters_by_block(network: nn.Module, blocks: Sequence[Block]) -> list[set[nn.Parameter]]:
    """Return the parameters of each block of a network or of a truncated network."""
    graph = graph_of(network, blocks)
    if graph is None:
        return [{network.get_parameter(name) for name in names} for _, names in _parameter_groups(network)]
    position = {node.name: index for index, node in enumerate(graph.nodes)}
    ends = [position[block.node] for block in blocks]
    starts = [0, *(end + 1 for end in ends)]
    return [parameters_in(network, graph, first, last) for first, last in zip(starts, ends, strict=False)]


class PartiallyFrozen(nn.Module):
    """A network that can't be split, with its first ``depth`` groups frozen: no gradient, always in eval mode."""

    def __init__(self, network: nn.Module, depth: int) -> None:
        super().__init__()
        self.network = network
        self.frozen = {name for _, names in _parameter_groups(network)[:depth] for name in names}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in self.frozen)

    def train(self, mode: bool = True) -> PartiallyFrozen:
        """Set the mode of all modules that are not frozen."""
        super().train(mode)
        for path, module in self.network.named_modules():
            names = {f"{path}.{name}" if path else name for name, _ in module.named_parameters()}
            if names and names <= self.frozen:
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return features [b, f] of images [b, 3, s, s]."""
        features: Tensor = self.network(x)
        return features


@functools.cache
def _warn_unsplittable(name: str) -> None:
    logger.warning(
        "%s can't be split: its layers are frozen by the parameter groups that its library defines, "
        "and its features are not cached",
        name,
    )


# --- grouping cut points into blocks ---


def _count_weights(module: nn.Module) -> int:
    return sum(parameter.ndim > 1 for parameter in module.parameters())


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of a module; plain containers are replaced by their children."""
    for name, child in module.named_children():
        if type(child) in CONTAINERS:
            for path, grandchild in _children(child):
                yield f"{name}.{path}", grandchild
        else:
            yield name, child


def _is_stack(module: nn.Module) -> bool:
    """Return whether the module holds two units of one class whose names differ only in their numbers."""
    kinds = [(type(child), re.sub(r"\d+", "", name)) for name, child in _children(module) if _count_weights(child) > 1]
    return len(kinds) > len(set(kinds))


def _units(network: nn.Module) -> dict[str, int]:
    """Map each unit's path to its number of weights, in module-tree order; a unit is not divided further."""
    stacks = {type(module) for module in network.modules() if _is_stack(module)} | {type(network), *CONTAINERS}

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, int]]:
        num_weights = _count_weights(module)
        is_wrapper = type(module) in CONTAINERS and len(list(module.children())) == 1
        if path and not is_wrapper and (num_weights < 2 or type(module) not in stacks):
            yield path, num_weights
            return
        for name, child in module.named_children():
            yield from walk(f"{path}.{name}" if path else name, child)

    return dict(walk("", network))


def _unit_of(node: fx.Node, units: dict[str, int]) -> str | None:
    stack = node.meta.get("nn_module_stack", {})
    return next((path for path, _ in stack.values() if path in units), None)


def _contains_unit(path: str, units: dict[str, int]) -> bool:
    return path not in units and any(unit.startswith(f"{path}.") for unit in units)


@dataclass
class _UnitSpan:
    """Units without a cut point between them, and the positions of their first and last node in the graph."""

    names: list[str]
    first: int
    last: int


def _unit_spans(network: nn.Module, graph: fx.Graph) -> list[_UnitSpan]:
    """Return a span for each unit that has a weight, in the order in which the graph enters them."""
    units = _units(network)
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    # A module that fx does not trace into is a unit, even if the module tree below it holds several.
    units |= {path: _count_weights(network.get_submodule(path)) for path in called if _contains_unit(path, units)}
    spans: dict[str, _UnitSpan] = {}
    for index, node in enumerate(graph.nodes):
        unit = _unit_of(node, units)
        if unit is not None and units[unit]:
            spans.setdefault(unit, _UnitSpan([unit], index, index)).last = index
    return sorted(spans.values(), key=lambda span: span.first)


def _merge_spans(spans: list[_UnitSpan], cut_points: list[CutPoint]) -> Iterator[tuple[_UnitSpan, CutPoint]]:
    """Yield each block's span and the cut point at its end."""
    current = spans[0]
    for following in spans[1:]:
        between = [point for point in cut_points if current.last <= point.position < following.first]
        if between:
            yield current, between[-1]
            current = following
        else:
            names = current.names + following.names
            current = _UnitSpan(names, current.first, max(current.last, following.last))
    yield current, cut_points[-1]


def _common_path(names: list[str]) -> str:
    """Return the path of the module that contains all names, or the last name if that is the whole network."""
    columns = itertools.takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(name.split(".") for name in names), strict=False)
    )
    return ".".join(parts[0] for parts in columns) or names[-1]


def _blocks_from_graph(network: nn.Module, graph: fx.Graph, image_size: int) -> tuple[Block, ...]:
    cut_points, spans = find_cut_points(network, graph, image_size), _unit_spans(network, graph)
    if not spans:
        return ()
    merged = list(_merge_spans(spans, cut_points))
    names = _block_names([span for span, _ in merged])
    starts = [0, *(point.position + 1 for _, point in merged)]
    return tuple(
        Block(
            index=index,
            name=names[index],
            node=point.node,
            output_shape=point.shape,
            parameters=sum(p.numel() for p in parameters_in(network, graph, starts[index], point.position)),
            constants=point.constants,
        )
        for index, (_, point) in enumerate(merged)
    )


def _block_names(spans: list[_UnitSpan]) -> list[str]:
    """Name each block after the module that contains its units; blocks with equal names after their last unit."""
    paths = [_common_path(span.names) for span in spans]
    return [span.names[-1] if paths.count(path) > 1 else path for path, span in zip(paths, spans, strict=True)]


# --- networks that can't be traced ---


def _parameter_groups(network: nn.Module) -> list[tuple[str, list[str]]]:
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


def _blocks_from_groups(network: nn.Module) -> Iterator[Block]:
    for index, (name, names) in enumerate(_parameter_groups(network)):
        count = sum(network.get_parameter(parameter).numel() for parameter in names)
        yield Block(index=index, name=name, node="", output_shape=(), parameters=count)
