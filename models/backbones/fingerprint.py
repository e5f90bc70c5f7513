"""What a network's activations are known by: a hash of everything that they are computed with.

Two networks that agree up to a cut, in their operations, settings and tensors, have the same name for it, whatever they
are called, whatever follows, and wherever their weights came from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from models.backbones.weights import BN_COUNTER
from models.freezing.blocks import Block
from models.freezing.fx_graph import trace

LIBRARIES = ("torch", "torchvision", "timm")  # what a module of a class computes is theirs to change
PLAIN = (bool, int, float, str, tuple)  # settings of a module; anything else that it holds is a tensor or a module
Hash = Callable[[bytes], None]


def activation_fingerprints(network: nn.Module, blocks: Sequence[Block]) -> tuple[str, ...]:
    """Return the name of each block's activation in eval mode; none for a network that can't be traced."""
    graph = trace(network) if blocks[0].node else None
    if graph is None:
        return ()
    found: dict[str, str] = {}
    running = hashlib.blake2b(repr([importlib.metadata.version(name) for name in LIBRARIES]).encode(), digest_size=16)
    for node in graph.nodes:
        running.update(_node_signature(node).encode())
        if node.op == "call_module":
            _add_module(running.update, network.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            _add_tensor(running.update, _attribute(network, str(node.target)))
        found[node.name] = running.copy().hexdigest()
    return tuple(found[block.node] for block in blocks)


def _node_signature(node: fx.Node) -> str:
    target = node.target
    called = target if isinstance(target, str) else f"{target.__module__}.{getattr(target, '__qualname__', target)}"
    return repr((node.op, called, node.name, node.args, node.kwargs))


def _add_module(add: Hash, module: nn.Module) -> None:
    for path, part in module.named_modules():
        plain = {name: value for name, value in vars(part).items() if isinstance(value, PLAIN)}
        plain.pop("training", None)
        add(repr((path, torch.typename(part), part.extra_repr(), sorted(plain.items()))).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not name.endswith(BN_COUNTER):
            add(name.encode())
            _add_tensor(add, tensor)


def _add_tensor(add: Hash, value: object) -> None:
    if not isinstance(value, Tensor):
        add(repr(value).encode())
        return
    add(repr((value.dtype, tuple(value.shape))).encode())
    add(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)  # type: ignore[arg-type]


def _attribute(network: nn.Module, path: str) -> object:
    parent, _, name = path.rpartition(".")
    return getattr(network.get_submodule(parent), name)
