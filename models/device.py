"""Where a network is computed, and in which precision and memory layout."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


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
