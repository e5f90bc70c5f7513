"""Fingerprints of a network's activations: hashes of everything that they are computed with.

Two networks whose operations, settings and tensors agree up to a cut point have the same fingerprint there. Their
names, their later layers and the source of their weights don't matter.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from models.backbones.weights import BN_COUNTER
from models.freezing.blocks import Block, graph_of

LIBRARIES = ("torch", "torchvision", "timm")  # a new version may change what a module class computes
SETTING_TYPES = (bool, int, float, str, tuple)  # attributes of a module; all others are tensors or modules
HashUpdate = Callable[[bytes], None]


def activation_fingerprints(network: nn.Module, blocks: Sequence[Block]) -> tuple[str, ...]:
    """Return the fingerprint of each block's activation in eval mode; empty for a network that can't be traced."""
    graph = graph_of(network, blocks)
    if graph is None:
        return ()
    fingerprints: dict[str, str] = {}
    running = hashlib.blake2b(repr([importlib.metadata.version(name) for name in LIBRARIES]).encode(), digest_size=16)
    for node in graph.nodes:
        running.update(_node_signature(node).encode())
        if node.op == "call_module":
            _add_module(running.update, network.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            _add_tensor(running.update, _attribute(network, str(node.target)))
        fingerprints[node.name] = running.copy().hexdigest()
    return tuple(fingerprints[block.node] for block in blocks)


def _node_signature(node: fx.Node) -> str:
    target = node.target
    function = target if isinstance(target, str) else f"{target.__module__}.{getattr(target, '__qualname__', target)}"
    return repr((node.op, function, node.name, node.args, node.kwargs))


def _add_module(update: HashUpdate, module: nn.Module) -> None:
    for path, submodule in module.named_modules():
        settings = {name: value for name, value in vars(submodule).items() if isinstance(value, SETTING_TYPES)}
        settings.pop("training", None)
        update(repr((path, torch.typename(submodule), submodule.extra_repr(), sorted(settings.items()))).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not name.endswith(BN_COUNTER):
            update(name.encode())
            _add_tensor(update, tensor)


def _add_tensor(update: HashUpdate, value: object) -> None:
    if not isinstance(value, Tensor):
        update(repr(value).encode())
        return
    update(repr((value.dtype, tuple(value.shape))).encode())
    update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)  # type: ignore[arg-type]


def _attribute(network: nn.Module, path: str) -> object:
    parent, _, name = path.rpartition(".")
    return getattr(network.get_submodule(parent), name)
