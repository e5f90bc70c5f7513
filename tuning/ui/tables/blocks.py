"""The table of a network's blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.filesize import decimal

from data.text import pluralize
from models.features.caching_policy import BYTES_PER_ELEMENT
from models.freezing.blocks import Block
from models.profiling.block_latency import BATCH_SIZE, NUM_RUNS
from tuning.ui.tables.text_table import TextTable

MISSING = "-"


def blocks_table(blocks: Sequence[Block], seconds: Sequence[float]) -> TextTable:
    """Return a row per block; ``seconds`` is empty for a network that can't be split into blocks, only into groups."""
    rows = [[str(block.index + 1), block.name, *_cells(block, seconds)] for block in blocks]
    return TextTable("", ("depth", "block", "output", "parameters", "time", "cached"), rows, text_columns={"block"})


def _cells(block: Block, seconds: Sequence[float]) -> list[str]:
    parameters = f"{block.parameters:,}"
    if not seconds:
        return [MISSING, parameters, MISSING, MISSING]
    shape = " x ".join(str(size) for size in block.output_shape)
    cached = decimal(math.prod(block.output_shape) * BYTES_PER_ELEMENT["fp16"])
    return [shape, parameters, f"{seconds[block.index] / sum(seconds):.1%}", cached]


def legend_lines(name: str, image_size: int, blocks: Sequence[Block], seconds: Sequence[float]) -> list[str]:
    """Return a summary of the network, the meaning of the columns, and how the times were measured."""
    num_parameters = sum(block.parameters for block in blocks)
    summary = f"{name}: {pluralize(len(blocks), 'block')}, {num_parameters:,} parameters, {image_size} px"
    depth = "depth: the freeze_depth that freezes all blocks up to this one"
    if not seconds:
        return [summary, depth]
    ms = f"{1000 * sum(seconds):.2f} ms per image"
    return [
        summary,
        depth,
        f"time: share of the forward pass, {ms} on one thread (medians of {NUM_RUNS} passes of {BATCH_SIZE} images)",
        "output, cached: shape and size of one image's features; cached in half precision",
    ]
