"""A network's blocks, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.filesize import decimal
from rich.table import Table

from models.features.caching_policy import BYTES_PER_ELEMENT
from models.freezing.blocks import Block
from models.profiling.block_latency import BATCH_SIZE, NUM_RUNS

NOTHING = "-"
COLUMNS = (("depth", True), ("block", False), ("output", True), ("parameters", True), ("time", True), ("kept", True))


def blocks_table(blocks: Sequence[Block], seconds: Sequence[float]) -> Table:
    """Return a row for each block; without ``seconds``, the network's are groups that can't be cut."""
    table = Table(box=None)
    for name, right in COLUMNS:
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for block in blocks:
        table.add_row(str(block.index + 1), block.name, *_cells(block, seconds))
    return table


def _cells(block: Block, seconds: Sequence[float]) -> list[str]:
    parameters = f"{block.parameters:,}"
    if not seconds:
        return [NOTHING, parameters, NOTHING, NOTHING]
    shape = " x ".join(str(side) for side in block.output_shape)
    kept = decimal(math.prod(block.output_shape) * BYTES_PER_ELEMENT["fp16"])
    return [shape, parameters, f"{seconds[block.index] / sum(seconds):.1%}", kept]


def legend_lines(name: str, image_size: int, blocks: Sequence[Block], seconds: Sequence[float]) -> list[str]:
    """Return what the table is of, what its columns mean, and how its times were measured."""
    what = f"{name}: {len(blocks)} blocks, {sum(block.parameters for block in blocks):,} parameters, {image_size} px"
    depth = "depth: freeze_depth when the block is the last one frozen"
    if not seconds:
        return [what, depth]
    ms = f"{1000 * sum(seconds):.2f} ms a picture"
    return [
        what,
        depth,
        f"time: share of the forward pass, {ms} on one thread (medians of {NUM_RUNS} passes of {BATCH_SIZE} pictures)",
        "output, kept: of one picture, the latter in half precision",
    ]
