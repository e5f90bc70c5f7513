"""Graphs of networks: tracing, finding cut points, and splitting.

A cut point is a node after which exactly one activation is live. The graph is run with two batch sizes to find the
values that are tensors; a live size that doesn't depend on the batch becomes a constant in the second half.

Shapes: b images of s x s pixels; an activation is [b, ...].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from data.errors import BackboneError, first_line

TRACE_BATCH_SIZES = (2, 3)  # two different ones, to find the sizes that depend on the batch
POOLED_AXES = "freezeline.pooled_axes"  # key of the averaged axes in ``GraphModule.meta``
BATCH_SIZE = "<batch size>"  # placeholder in ``CutPoint.constants`` for a size that equals b

Constant = bool | int | float | str | None | tuple[int, ...]


class _Tracer(fx.Tracer):
    """Keeps modules without children as calls, so that dropout and similar modules check their mode at run time."""

    def __init__(self) -> None:
        from timm.layers import _fx

        super().__init__(autowrap_functions=tuple(_fx.get_notrace_functions()))  # type: ignore[no-untyped-call]
        self.leaves = set(_fx.get_notrace_modules())  # type: ignore[no-untyped-call]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_no_children = next(m.children(), None) is None
        return has_no_children or type(m) in self.leaves or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.Graph | None:
    """Return the graph of the network in eval mode with one placeholder, or None if it can't be traced."""
    if isinstance(network, fx.GraphModule):  # from ``truncate_at``; tracing again would rename its nodes
        return network.graph
    defaults = {name: p.default for name, p in list(inspect.signature(network.forward).parameters.items())[1:]}
    try:
        with _eval_mode(network):
            graph = _Tracer().trace(network, concrete_args=defaults)
    except Exception:  # library code raises any class for a Proxy in a condition, an index or a loop
        return None
    _remove_unused_inputs(graph, list(graph.nodes)[1:])
    return graph


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Context manager that sets eval mode, and restores each module's mode on exit."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _remove_unused_inputs(graph: fx.Graph, nodes: Iterable[fx.Node]) -> None:
    """Remove the placeholders of bound arguments and the checks that fx adds for them."""
    for placeholder in [node for node in nodes if node.op == "placeholder"]:
        for user in list(placeholder.users):
            for check in list(user.users):
                graph.erase_node(check)
            graph.erase_node(user)
        graph.erase_node(placeholder)


# --- values of the nodes ---


@dataclass(frozen=True)
class NodeValue:
    """A node's value: a tensor's shape or a constant; with neither, an object that cannot cross a cut point."""

    shape: tuple[int, ...] | None = None
    constant: Constant = None
    is_constant: bool = False


class ValueRecorder(fx.Interpreter):
    """Runs a graph and records the value of each node."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.values: dict[str, NodeValue] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  (fx's signature)
        """Run one node and record its value."""
        value = super().run_node(n)
        self.values[n.name] = _node_value(value)
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
def _record(
    network: nn.Module, graph: fx.Graph, image_size: int, input_shape: tuple[int, ...]
) -> tuple[dict[str, NodeValue], ...]:
    """Run the graph in eval mode with each of ``TRACE_BATCH_SIZES``; return each run's values by node name."""
    first = next(network.parameters())
    recorders = [ValueRecorder(network, graph) for _ in TRACE_BATCH_SIZES]
    try:
        with _eval_mode(network):
            for batch, recorder in zip(TRACE_BATCH_SIZES, recorders, strict=True):
                recorder.run(torch.zeros(batch, *input_shape, device=first.device, dtype=first.dtype))
    except Exception as error:  # library code
        raise BackboneError(
            f"{type(network).__name__} does not accept images of {image_size} px: {first_line(error)}; "
            "choose another image_size or backbone"
        ) from error
    return tuple(recorder.values for recorder in recorders)


def _input_dependent(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose value depends on the images."""
    dependent: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    return dependent


@dataclass(frozen=True)
class CutPoint:
    """A node whose value is the only live activation after it: its index and name, and its shape for one image.

    ``constants`` holds the other live values by node name; none of them is an activation.
    """

    position: int
    node: str
    shape: tuple[int, ...]
    constants: dict[str, Constant]


def find_cut_points(
    network: nn.Module, graph: fx.Graph, image_size: int, input_shape: tuple[int, ...] = ()
) -> list[CutPoint]:
    """Return the cut points of a network that takes [b, 3, s, s], first to last; the last one is the network's output.

    ``input_shape`` is that of one input of the second half of a network, which takes an activation instead.

    Raises:
        BackboneError: the network does not accept images of this size.
    """
    runs = _record(network, graph, image_size, input_shape or (3, image_size, image_size))
    nodes = list(graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    dependent = _input_dependent(graph)
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    live: list[fx.Node] = []
    cut_points = []
    for index, node in enumerate(nodes):
        live = [other for other in live if last_use[other] > index]
        if node in dependent and last_use[node] > index:
            live.append(node)
            if (cut_point := _cut_point_at(index, node, live, runs)) is not None:
                cut_points.append(cut_point)
    result = nodes[-1].all_input_nodes[0]
    shape = runs[0][result.name].shape or ()
    end = CutPoint(len(nodes) - 1, result.name, shape[1:], {})
    return [*(point for point in cut_points if point.node != result.name), end]


def _cut_point_at(
    index: int, node: fx.Node, live: list[fx.Node], runs: tuple[dict[str, NodeValue], ...]
) -> CutPoint | None:
    if node.op == "placeholder":
        return None
    shapes = [run[node.name].shape for run in runs]
    if any(not shape or shape[0] != batch for shape, batch in zip(shapes, TRACE_BATCH_SIZES, strict=True)):
        return None
    others = {other.name: [run[other.name] for run in runs] for other in live if other is not node}
    replacements = {name: _constant(values) for name, values in others.items()}
    if any(value is None for value in replacements.values()):
        return None
    constants = {name: value.constant for name, value in replacements.items() if value}
    return CutPoint(index, node.name, (shapes[0] or ())[1:], constants)


def _constant(values: list[NodeValue]) -> NodeValue | None:
    """Return the constant that can replace a live value in the suffix, given its value in each traced run; or None."""
    if not all(value.is_constant for value in values):
        return None
    if [value.constant for value in values] == list(TRACE_BATCH_SIZES):
        return NodeValue(constant=BATCH_SIZE, is_constant=True)
    return values[0] if values[0] == values[1] else None


def parameters_in(network: nn.Module, graph: fx.Graph, first: int, last: int) -> set[nn.Parameter]:
    """Return the parameters that the nodes at positions first..last use."""
    parameters: set[nn.Parameter] = set()
    for node in list(graph.nodes)[first : last + 1]:
        if node.op == "call_module":
            parameters.update(network.get_submodule(str(node.target)).parameters())
        elif node.op == "get_attr":
            parameters.update(parameter for name, parameter in network.named_parameters() if name == node.target)
    return parameters


# --- splitting ---


def split_at(
    network: nn.Module, graph: fx.Graph, cut_points: Sequence[tuple[str, dict[str, Constant]]]
) -> list[fx.GraphModule]:
    """Return the parts of a network before, between and after cut points, given as (node name, constants) in order.

    All parts use the network's own modules.
    """
    nodes = list(graph.nodes)
    position = {node.name: index for index, node in enumerate(nodes)}
    positions = [position[name] for name, _ in cut_points]
    parts = [_prefix(nodes[: positions[0] + 1])]
    for (_, constants), start, end in zip(cut_points, positions, [*positions[1:], len(nodes) - 1], strict=True):
        parts.append(_suffix(nodes[: end + 1], start, constants))
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
    """Remove parameters that only the dropped nodes use: they must not count as frozen or as part of the network."""
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:  # other nodes without users may be in-place operations
            graph.erase_node(node)


def _suffix(nodes: list[fx.Node], position: int, constants: dict[str, Constant]) -> fx.Graph:
    graph = fx.Graph()
    features = graph.placeholder("features")
    copies: dict[fx.Node, fx.Node] = {nodes[position]: features}
    if BATCH_SIZE in constants.values():
        batch_size = graph.call_method("size", (features, 0))

    def copy_node(node: fx.Node) -> Any:  # noqa: ANN401  (a node, or the constant that replaces it)
        if node.name in constants:
            value = constants[node.name]
            return batch_size if value == BATCH_SIZE else value
        if node not in copies:  # computed from parameters alone, so the suffix can compute it
            copies[node] = graph.node_copy(node, copy_node)
        return copies[node]

    for node in nodes[position + 1 :]:
        copy_node(node)
    if nodes[-1].op != "output":
        graph.output(copies[nodes[-1]])
    return graph


# --- truncating ---


def truncate_at(network: nn.Module, graph: fx.Graph, axes: Mapping[str, tuple[int, ...]]) -> fx.GraphModule:
    """Return the network up to the last of several nodes; it returns the concatenated means of their values.

    ``axes`` holds the axes of each mean by node name; without axes the value itself is used. The result uses the
    network's own modules under their own names, and holds none of the later ones.
    """
    nodes = list(graph.nodes)
    last = max(index for index, node in enumerate(nodes) if node.name in axes)
    truncated = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    means: dict[str, fx.Node] = {}
    for node in nodes[: last + 1]:
        copies[node] = truncated.node_copy(node, copies.__getitem__)
        if node.name in axes:  # right after the node, and as a copy: the next node may change the value in place
            method, arguments = ("mean", (axes[node.name],)) if axes[node.name] else ("clone", ())
            # Named, because a later node, by which a block is found, may have the name "mean".
            name = f"pooled_{node.name}"
            means[node.name] = truncated.create_node("call_method", method, (copies[node], *arguments), name=name)
    outputs = [means[name] for name in axes]
    truncated.output(outputs[0] if len(outputs) == 1 else truncated.call_function(torch.cat, (outputs, 1)))
    _drop_unused_parameters(truncated)
    module = fx.GraphModule(network, truncated, type(network).__name__)
    module.meta[POOLED_AXES] = dict(axes)
    return module


def pooled_axes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the ``axes`` of ``truncate_at`` for a network that it returned; empty for any other network."""
    return dict(network.meta.get(POOLED_AXES, {})) if isinstance(network, fx.GraphModule) else {}
