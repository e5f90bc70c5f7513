"""A network's graph: traced, run to learn what flows through it, and cut in two.

A cut is a node after which exactly one activation is live. The graph is run once for two batch sizes to learn which
values are tensors; a live size that doesn't depend on the batch is written into the second half as a number.

Shapes: b pictures of s pixels a side; an activation is [b, ...].
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from data.errors import BackboneError

logger = logging.getLogger(__name__)

TRACE_BATCH_SIZES = (2, 3)  # pictures in the two runs that tell a size that depends on the batch from one that doesn't
BATCH_SIZE = "<batch size>"  # stands in ``Cut.constants`` for a size that is b

Constant = bool | int | float | str | None | tuple[int, ...]


class _Tracer(fx.Tracer):
    """Traces down to modules without children, so that dropout and its like ask for their mode when they run."""

    def __init__(self) -> None:
        from timm.layers import _fx

        super().__init__(autowrap_functions=tuple(_fx.get_notrace_functions()))  # type: ignore[no-untyped-call]
        self.leaves = set(_fx.get_notrace_modules())  # type: ignore[no-untyped-call]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        childless = next(m.children(), None) is None
        return childless or type(m) in self.leaves or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.Graph | None:
    """Return the graph of the network in eval mode with one placeholder, or None where it can't be traced."""
    if isinstance(network, fx.GraphModule):  # ``truncate_at`` made it; traced again, its nodes would get other names
        return network.graph
    defaults = {name: p.default for name, p in list(inspect.signature(network.forward).parameters.items())[1:]}
    try:
        with _eval_mode(network):
            graph = _Tracer().trace(network, concrete_args=defaults)
    except Exception as error:  # forward is the library's code: a Proxy in an if, an index or a loop raises anything
        logger.debug("%s can't be traced: %s", type(network).__name__, error)
        return None
    _remove_unused_inputs(graph, list(graph.nodes)[1:])
    return graph


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for a while; each module gets its own mode back."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _remove_unused_inputs(graph: fx.Graph, nodes: Iterable[fx.Node]) -> None:
    """Take out the placeholders of bound arguments and the checks that fx put on them."""
    for placeholder in [node for node in nodes if node.op == "placeholder"]:
        for user in list(placeholder.users):
            for check in list(user.users):
                graph.erase_node(check)
            graph.erase_node(user)
        graph.erase_node(placeholder)


# --- what flows through the graph ---


@dataclass(frozen=True)
class NodeValue:
    """What one node gave: the shape of a tensor, or a constant, or (neither) something that can't cross a cut."""

    shape: tuple[int, ...] | None = None
    constant: Constant = None
    is_constant: bool = False


class ValueRecorder(fx.Interpreter):
    """Runs a graph and notes what each node gave."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.seen: dict[str, NodeValue] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  (fx's own signature)
        value = super().run_node(n)
        self.seen[n.name] = _node_value(value)
        return value


def _node_value(value: object) -> NodeValue:
    if isinstance(value, Tensor):
        return NodeValue(shape=tuple(value.shape))
    if isinstance(value, torch.Size):
        value = tuple(value)
    plain = value is None or isinstance(value, (bool, int, float, str))
    if plain or (isinstance(value, tuple) and all(type(item) is int for item in value)):
        return NodeValue(constant=value, is_constant=True)  # type: ignore[arg-type]
    return NodeValue()


@torch.no_grad()
def _record(network: nn.Module, graph: fx.Graph, image_size: int) -> tuple[dict[str, NodeValue], ...]:
    """Run the graph once for each of ``TRACE_BATCH_SIZES`` in eval mode; return what each node gave."""
    first = next(network.parameters())
    recorders = [ValueRecorder(network, graph) for _ in TRACE_BATCH_SIZES]
    try:
        with _eval_mode(network):
            for batch, recorder in zip(TRACE_BATCH_SIZES, recorders, strict=True):
                recorder.run(torch.zeros(batch, 3, image_size, image_size, device=first.device, dtype=first.dtype))
    except Exception as error:  # as above
        name, reason = type(network).__name__, next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BackboneError(
            f"{name} can't take pictures of {image_size} px: {reason}; choose another image_size or backbone"
        ) from error
    return tuple(recorder.seen for recorder in recorders)


def _from_input(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value depends on the pictures."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


@dataclass(frozen=True)
class CutPoint:
    """A node whose value is the one live activation after it, and the live constants beside it, by their nodes.

    ``position`` is the node's in the graph, ``shape`` its value's for one picture.
    """

    position: int
    node: str
    shape: tuple[int, ...]
    constants: dict[str, Constant]


def find_cut_points(network: nn.Module, graph: fx.Graph, image_size: int) -> list[CutPoint]:
    """Return where a network that takes [b, 3, s, s] can be cut, first to last; the last one is its result.

    Raises:
        BackboneError: the network can't take pictures of this size.
    """
    runs = _record(network, graph, image_size)
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
    result = nodes[-1].all_input_nodes[0]
    shape = runs[0][result.name].shape or ()
    return [*(at for at in found if at.node != result.name), CutPoint(len(nodes) - 1, result.name, shape[1:], {})]


def _cut_at(index: int, node: fx.Node, live: list[fx.Node], runs: tuple[dict[str, NodeValue], ...]) -> CutPoint | None:
    if node.op == "placeholder":
        return None
    shapes = [run[node.name].shape for run in runs]
    if any(not shape or shape[0] != batch for shape, batch in zip(shapes, TRACE_BATCH_SIZES, strict=True)):
        return None
    others = {other.name: [run[other.name] for run in runs] for other in live if other is not node}
    constants = {name: _constant(seen) for name, seen in others.items()}
    if any(seen is None for seen in constants.values()):
        return None
    numbers = {name: seen.constant for name, seen in constants.items() if seen}
    return CutPoint(index, node.name, (shapes[0] or ())[1:], numbers)


def _constant(seen: list[NodeValue]) -> NodeValue | None:
    """Return what stands in the suffix for a live value that isn't an activation, or None if nothing can."""
    if not all(one.is_constant for one in seen):
        return None
    if [one.constant for one in seen] == list(TRACE_BATCH_SIZES):
        return NodeValue(constant=BATCH_SIZE, is_constant=True)
    return seen[0] if seen[0] == seen[1] else None


def parameters_in(network: nn.Module, graph: fx.Graph, first: int, last: int) -> set[nn.Parameter]:
    """Return what is learned in the nodes at positions first..last."""
    found: set[nn.Parameter] = set()
    for node in list(graph.nodes)[first : last + 1]:
        if node.op == "call_module":
            found.update(network.get_submodule(str(node.target)).parameters())
        elif node.op == "get_attr":
            found.update(parameter for name, parameter in network.named_parameters() if name == node.target)
    return found


# --- the two halves ---


def split_graph(
    network: nn.Module, graph: fx.Graph, node: str, constants: dict[str, Constant]
) -> tuple[nn.Module, nn.Module]:
    """Return what comes up to a cut's node, and what comes after it; both use the network's own modules."""
    nodes = list(graph.nodes)
    at = next(index for index, other in enumerate(nodes) if other.name == node)
    return (
        fx.GraphModule(network, _prefix(nodes[: at + 1]), "Prefix"),
        fx.GraphModule(network, _suffix(nodes, at, constants), "Suffix"),
    )


def split_at(
    network: nn.Module, graph: fx.Graph, cuts: Sequence[tuple[str, dict[str, Constant]]]
) -> list[fx.GraphModule]:
    """Return the parts of a network up to, between and after cuts, each its node's name and constants, in order."""
    nodes = list(graph.nodes)
    position = {node.name: index for index, node in enumerate(nodes)}
    places = [position[name] for name, _ in cuts]
    parts = [_prefix(nodes[: places[0] + 1])]
    for (_, constants), at, end in zip(cuts, places, [*places[1:], len(nodes) - 1], strict=True):
        parts.append(_suffix(nodes[: end + 1], at, constants))
    return [fx.GraphModule(network, part, "Part") for part in parts]


def _prefix(nodes: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[nodes[-1]])
    _drop_unused_parameters(graph)
    return graph


def _drop_unused_parameters(graph: fx.Graph) -> None:
    """Take out parameters that only what was cut off uses: they mustn't count as frozen, or as part of the network."""
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:  # what is done in place has no user either, but does something
            graph.erase_node(node)


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
    if nodes[-1].op != "output":
        graph.output(copies[nodes[-1]])
    return graph


# --- ends before the end ---


def truncate_at(network: nn.Module, graph: fx.Graph, node: str, axes: tuple[int, ...]) -> fx.GraphModule:
    """Return the network up to a node, whose value's mean over the axes it returns; it holds nothing of what follows.

    Without axes the value is returned as it is. The network's own modules are used, under their own names.
    """
    ended, (mean,) = _up_to(graph, {node: axes})
    ended.output(mean)
    _drop_unused_parameters(ended)
    return fx.GraphModule(network, ended, type(network).__name__)


def extract_at(network: nn.Module, graph: fx.Graph, axes: Mapping[str, tuple[int, ...]]) -> fx.GraphModule:
    """Return what gives, in one pass, the tuple of what ``truncate_at`` gives for each node and its axes."""
    ended, means = _up_to(graph, axes)
    ended.output(tuple(means))
    _drop_unused_parameters(ended)
    return fx.GraphModule(network, ended, "Taps")


def concat_at(network: nn.Module, graph: fx.Graph, axes: Mapping[str, tuple[int, ...]]) -> fx.GraphModule:
    """Return the network up to the last of some nodes; it returns [b, f], what ``extract_at`` gives side by side."""
    ended, means = _up_to(graph, axes)
    ended.output(ended.call_function(torch.cat, (means, 1)))
    _drop_unused_parameters(ended)
    return fx.GraphModule(network, ended, type(network).__name__)


def _up_to(graph: fx.Graph, ends: Mapping[str, tuple[int, ...]]) -> tuple[fx.Graph, list[fx.Node]]:
    """Return the graph up to the last of some nodes, without output, and the means of these nodes' values."""
    nodes = list(graph.nodes)
    last = max(index for index, node in enumerate(nodes) if node.name in ends)
    ended = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    means: dict[str, fx.Node] = {}
    for node in nodes[: last + 1]:
        copies[node] = ended.node_copy(node, copies.__getitem__)
        if node.name in ends:  # at once, and never the value itself: what comes next may change it in place
            axes = ends[node.name]
            mean = ("mean", (copies[node], axes)) if axes else ("clone", (copies[node],))
            means[node.name] = ended.call_method(*mean)
    return ended, [means[name] for name in ends]
