"""Where a network is computed, and in which precision and memory layout."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


def choose_device() -> torch.device:
    """Return the first CUDA device that this process may see, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context that computes in bfloat16 where the GPU can, which needs no loss scaling; else a plain one."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a batch on the device; on the way to a GPU it goes through pinned memory, so that the copy overlaps."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def to_channels_last(network: nn.Module) -> None:
    """Lay a network's convolutions out for channels_last: it trains about twice as fast on a CPU.

    ``Module.to(memory_format=...)`` would do the same, but fails for networks with parameters of five dimensions.
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
