"""Where a network can be cut, and the two halves: the frozen prefix and the trained suffix.

A cut is found in the network's graph (``torch.fx``): after a node where exactly one activation is live, all that
comes later depends on this activation alone. The graph is run once for two batch sizes to learn which values are
tensors; a live size that doesn't depend on the batch is written into the suffix as a number. Cuts are grouped into
blocks along the module tree, so that nothing is said about any architecture:

* a module with at most one weight (a parameter of two or more dimensions) is one piece: conv + norm + activation;
* a plain ``Sequential`` or ``ModuleList``, and any class that holds a numbered row of like modules (``b1, b2``,
  ``blocks.0, blocks.1``), is walked through; any other module is one piece: a residual block;
* a block is a piece with a weight and what follows it without one (norm, activation, pooling), up to the last cut
  before the next such piece; pieces with no cut between them are one block.

Shapes: b pictures; an activation is [b, ...], and ``Block.output_shape`` leaves b out.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, fx, nn

from data.errors import BackboneError
from data.values import Value

logger = logging.getLogger(__name__)

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
BATCHES = (2, 3)  # pictures in the two runs that tell a size that depends on the batch from one that doesn't
BATCH_SIZE = "<batch size>"  # stands in ``Block.constants`` for a size that is b

Constant = bool | int | float | str | None | tuple[int, ...]


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
    graph = _trace(network)
    found = _traced_blocks(network, graph, image_size) if graph else ()
    if len(found) > 1:
        return found
    _say_uncut(type(network).__name__)
    return tuple(_grouped_blocks(network))


def cut(network: nn.Module, blocks: Sequence[Block], depth: int) -> tuple[nn.Module, nn.Module]:
    """Return (prefix, suffix): ``suffix(prefix(x))`` equals ``network(x)`` bit for bit in eval mode.

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
    graph = _trace(network) if blocks[0].node else None
    if graph is None:
        return nn.Identity(), PartlyFrozen(network, depth)
    if depth == 0:  # not the network itself: some return more than the features in training mode
        return nn.Identity(), fx.GraphModule(network, graph, "Suffix")
    return _halves(network, graph, blocks[depth - 1])


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


class _Tracer(fx.Tracer):
    """Traces down to modules without children, so that dropout and its like ask for their mode when they run."""

    def __init__(self) -> None:
        from timm.layers import _fx

        super().__init__(autowrap_functions=tuple(_fx.get_notrace_functions()))  # type: ignore[no-untyped-call]
        self.leaves = set(_fx.get_notrace_modules())  # type: ignore[no-untyped-call]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        childless = next(m.children(), None) is None
        return childless or type(m) in self.leaves or super().is_leaf_module(m, module_qualified_name)


def _trace(network: nn.Module) -> fx.Graph | None:
    """Return the graph of the network in eval mode with one placeholder, or None where it can't be traced."""
    defaults = {name: p.default for name, p in list(inspect.signature(network.forward).parameters.items())[1:]}
    training = {module for module in network.modules() if module.training}
    network.eval()
    try:
        graph = _Tracer().trace(network, concrete_args=defaults)
    except Exception as error:  # forward is the library's code: a Proxy in an if, an index or a loop raises anything
        logger.debug("%s can't be traced: %s", type(network).__name__, error)
        return None
    finally:
        for module in training:
            module.training = True
    _unplug(graph, list(graph.nodes)[1:])
    return graph


def _unplug(graph: fx.Graph, nodes: Iterable[fx.Node]) -> None:
    """Take out the placeholders of bound arguments and the checks that fx put on them."""
    for placeholder in [node for node in nodes if node.op == "placeholder"]:
        for user in list(placeholder.users):
            for check in list(user.users):
                graph.erase_node(check)
            graph.erase_node(user)
        graph.erase_node(placeholder)


@functools.cache
def _say_uncut(name: str) -> None:
    logger.warning("%s can't be cut in two: it is frozen by its library's parameter groups, without reuse", name)


# --- what flows through the graph ---


@dataclass(frozen=True)
class _Seen:
    """What one node gave: the shape of a tensor, or a constant, or (neither) something that can't cross a cut."""

    shape: tuple[int, ...] | None = None
    constant: Constant = None
    is_constant: bool = False


class _Recorder(fx.Interpreter):
    """Runs a graph and notes what each node gave."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.seen: dict[str, _Seen] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  (fx's own signature)
        value = super().run_node(n)
        self.seen[n.name] = _seen(value)
        return value


def _seen(value: object) -> _Seen:
    if isinstance(value, Tensor):
        return _Seen(shape=tuple(value.shape))
    if isinstance(value, torch.Size):
        value = tuple(value)
    plain = value is None or isinstance(value, (bool, int, float, str))
    if plain or (isinstance(value, tuple) and all(type(item) is int for item in value)):
        return _Seen(constant=value, is_constant=True)  # type: ignore[arg-type]
    return _Seen()


@torch.no_grad()
def _record(network: nn.Module, graph: fx.Graph, image_size: int) -> tuple[dict[str, _Seen], ...]:
    """Run the graph once for each of ``BATCHES`` in eval mode; return what each node gave."""
    first = next(network.parameters())
    training = {module for module in network.modules() if module.training}
    network.eval()
    recorders = [_Recorder(network, graph) for _ in BATCHES]
    try:
        for batch, recorder in zip(BATCHES, recorders, strict=True):
            recorder.run(torch.zeros(batch, 3, image_size, image_size, device=first.device, dtype=first.dtype))
    except Exception as error:
        raise BackboneError(
            f"{type(network).__name__} can't take pictures of {image_size} px "
            f"({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}); "
            "choose another image_size or backbone"
        ) from error
    finally:
        for module in training:
            module.training = True
    return tuple(recorder.seen for recorder in recorders)


def _from_input(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value depends on the pictures."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


@dataclass(frozen=True)
class _Cut:
    """A node after which it is the one live activation, and the live constants beside it."""

    position: int
    node: str
    shape: tuple[int, ...]
    constants: dict[str, Constant]


def _cuts(graph: fx.Graph, runs: tuple[dict[str, _Seen], ...]) -> list[_Cut]:
    nodes = list(graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    dependent = _from_input(graph)
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    live: list[fx.Node] = []
    found = []
    for index, node in enumerate(nodes):
        live = [other for other in live if last_use[other] > index]
        if node in dependent and last_use[node] > index:
            live.append(node)
            if (at := _cut_at(index, node, live, runs)) is not None:
                found.append(at)
    return found


def _cut_at(index: int, node: fx.Node, live: list[fx.Node], runs: tuple[dict[str, _Seen], ...]) -> _Cut | None:
    if node.op == "placeholder":
        return None
    shapes = [run[node.name].shape for run in runs]
    if any(not shape or shape[0] != batch for shape, batch in zip(shapes, BATCHES, strict=True)):
        return None
    others = {other.name: [run[other.name] for run in runs] for other in live if other is not node}
    constants = {name: _constant(seen) for name, seen in others.items()}
    if any(seen is None for seen in constants.values()):
        return None
    return _Cut(
        index, node.name, (shapes[0] or ())[1:], {name: seen.constant for name, seen in constants.items() if seen}
    )


def _constant(seen: list[_Seen]) -> _Seen | None:
    """Return what stands in the suffix for a live value that isn't an activation, or None if nothing can."""
    if not all(one.is_constant for one in seen):
        return None
    if [one.constant for one in seen] == list(BATCHES):
        return _Seen(constant=BATCH_SIZE, is_constant=True)
    return seen[0] if seen[0] == seen[1] else None


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


def _merged(spans: list[_Span], cuts: list[_Cut]) -> Iterator[tuple[_Span, _Cut | None]]:
    """Yield each block's span and the cut that ends it; the last one has None."""
    current = spans[0]
    for following in spans[1:]:
        between = [at for at in cuts if current.last <= at.position < following.first]
        if between:
            yield current, between[-1]
            current = following
        else:
            names = current.names + following.names
            current = _Span(names, current.first, max(current.last, following.last))
    yield current, None


def _common_path(names: list[str]) -> str:
    """Return the module that holds all of them, or the last one where that is the whole network."""
    columns = itertools.takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(name.split(".") for name in names), strict=False)
    )
    return ".".join(parts[0] for parts in columns) or names[-1]


def _traced_blocks(network: nn.Module, graph: fx.Graph, image_size: int) -> tuple[Block, ...]:
    runs = _record(network, graph, image_size)
    spans = _spans(network, graph)
    if not spans:
        return ()
    result = _result(graph)
    end = _Cut(len(graph.nodes) - 1, result.name, (runs[0][result.name].shape or ())[1:], {})
    found = [(span, at or end) for span, at in _merged(spans, _cuts(graph, runs))]
    names = _names([span for span, _ in found])
    starts = [0, *(at.position + 1 for _, at in found)]
    learned = [_learned(network, graph, start, at.position) for start, (_, at) in zip(starts, found, strict=False)]
    return tuple(
        Block(
            index=index,
            name=names[index],
            node=at.node,
            output_shape=at.shape,
            parameters=learned[index],
            constants=at.constants,
        )
        for index, (_, at) in enumerate(found)
    )


def _names(spans: list[_Span]) -> list[str]:
    """Name each block after the module that holds its pieces, or where two would be called alike, after its last."""
    paths = [_common_path(span.names) for span in spans]
    return [span.names[-1] if paths.count(path) > 1 else path for path, span in zip(paths, spans, strict=True)]


def _result(graph: fx.Graph) -> fx.Node:
    """Return the node whose value the network returns."""
    output: fx.Node = next(iter(reversed(graph.nodes)))
    return output.all_input_nodes[0]


def _learned(network: nn.Module, graph: fx.Graph, first: int, last: int) -> int:
    """Return how many numbers are learned in the nodes at positions first..last."""
    found: set[nn.Parameter] = set()
    for node in list(graph.nodes)[first : last + 1]:
        if node.op == "call_module":
            found.update(network.get_submodule(str(node.target)).parameters())
        elif node.op == "get_attr":
            found.update(parameter for name, parameter in network.named_parameters() if name == node.target)
    return sum(parameter.numel() for parameter in found)


# --- the two halves ---


def _halves(network: nn.Module, graph: fx.Graph, last: Block) -> tuple[nn.Module, nn.Module]:
    nodes = list(graph.nodes)
    at = next(index for index, node in enumerate(nodes) if node.name == last.node)
    return (
        fx.GraphModule(network, _prefix(nodes[: at + 1]), "Prefix"),
        fx.GraphModule(network, _suffix(nodes, at, last.constants), "Suffix"),
    )


def _prefix(nodes: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[nodes[-1]])
    for node in reversed(list(graph.nodes)):
        # Parameters that only the suffix uses mustn't count as frozen. What is done in place has no user either.
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    return graph


def _suffix(nodes: list[fx.Node], at: int, constants: dict[str, Constant]) -> fx.Graph:
    graph = fx.Graph()
    features = graph.placeholder("features")
    copies: dict[fx.Node, fx.Node] = {nodes[at]: features}
    if BATCH_SIZE in constants.values():
        batch_size = graph.call_method("size", (features, 0))

    def copied(node: fx.Node) -> Any:  # noqa: ANN401  (a node, or the constant that takes its place)
        if node.name in constants:
            value = constants[node.name]
            return batch_size if value == BATCH_SIZE else value
        if node not in copies:  # it doesn't depend on the pictures: a parameter, or made of parameters
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in nodes[at + 1 :]:
        copied(node)
    return graph


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
