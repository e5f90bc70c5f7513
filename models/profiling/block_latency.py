"""Forward-pass latency per block."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.device import disable_malloc_trim, one_thread, to_channels_last
from models.freezing.blocks import Block, as_modules

BATCH_SIZE = 4  # small enough that a large network is measured within a minute
NUM_RUNS = 7


def time_blocks(network: nn.Module, blocks: Sequence[Block], image_size: int) -> tuple[float, ...]:
    """Return the seconds per image of each block, or an empty tuple if the network cannot be split into blocks.

    Measured on one CPU thread without gradients: with several threads, small blocks wait for each other on a busy
    machine. A block's time is its median over ``NUM_RUNS`` passes of ``BATCH_SIZE`` images, after one warm-up pass. The
    network is left in eval mode and channels_last.
    """
    disable_malloc_trim()
    to_channels_last(network.eval())
    modules = [module.eval() for module in as_modules(network, blocks)]
    images = torch.zeros(BATCH_SIZE, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    with one_thread():
        passes = [_time_pass(modules, images) for _ in range(NUM_RUNS + 1)][1:]
    return tuple(statistics.median(times) / BATCH_SIZE for times in zip(*passes, strict=True))


@torch.no_grad()
def _time_pass(modules: Sequence[nn.Module], x: Tensor) -> list[float]:
    times = []
    for module in modules:
        started = time.perf_counter()
        x = module(x)
        times.append(time.perf_counter() - started)
    return times
