"""The diagram of docs/freeze.md: freeze lines in a real network, and the size of its cached features."""

from __future__ import annotations

import io
import math
from pathlib import Path

from benchmarks.screenshots.browser import small
from models.backbones.factory import create_backbone
from models.freezing.blocks import Block, find_blocks

BACKBONE, IMAGE_SIZE = "tf_efficientnet_lite0", 128
DROPPED = 3
FROZEN, TRAINED, DROPPED_COLOR = "#1f65a8", "#d9822b", "#e6e9ec"
INK = "#1f272f"


def write_diagram(file: Path) -> None:
    """Write the diagram as a PNG: a row per freeze line, a field per block, the size of the cached features."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    blocks = find_blocks(create_backbone(BACKBONE, "none", IMAGE_SIZE).network, IMAGE_SIZE)
    count = len(blocks)
    figure, (rows, bars) = pyplot.subplots(
        2, 1, figsize=(11, 4.6), sharex=True, height_ratios=(3, 1.4), layout="constrained"
    )
    rows_by_label = {
        "freeze_fraction=0\neverything trained": (0, count),
        "freeze_fraction=0.5\nhalf frozen": (count // 2, count),
        "freeze_fraction=1\na linear probe": (count, count),
        f"freeze_fraction=1, truncate={DROPPED}\na probe of the truncated network": (count - DROPPED, count - DROPPED),
    }
    for row, (depth, end) in enumerate(rows_by_label.values()):
        colors = [FROZEN if at < depth else TRAINED if at < end else DROPPED_COLOR for at in range(count)]
        rows.barh([row] * count, 0.92, left=[at + 0.04 for at in range(count)], height=0.62, color=colors)
        rows.barh(row, 0.92, left=count + 0.04, height=0.62, color=TRAINED)
        rows.plot([depth, depth], [row - 0.45, row + 0.45], color=INK, linewidth=3)
    rows.set_yticks(range(len(rows_by_label)), rows_by_label, fontsize=9)
    rows.invert_yaxis()
    rows.set_title(
        f"{BACKBONE}: blue is frozen and computed once, orange is trained; the black bar is the freeze line",
        fontsize=10,
        loc="left",
        color=INK,
    )
    bars.bar([at + 0.5 for at in range(count)], [kilobytes(block) for block in blocks], width=0.8, color=FROZEN)
    bars.set_yscale("log")
    bars.set_ylabel("KB per image", fontsize=9)
    bars.set_xticks(
        [at + 0.5 for at in range(count + 1)], [*(block.name for block in blocks), "head"], rotation=60, ha="right"
    )
    bars.tick_params(labelsize=8)
    bars.set_title(f"size of the cached features after each block, at {IMAGE_SIZE} px in fp16", fontsize=9, loc="left")
    for axes in (rows, bars):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    pyplot.close(figure)
    file.write_bytes(small(stream.getvalue()))


def kilobytes(block: Block) -> float:
    """Return the kilobytes of a block's cached features per image: two bytes per element."""
    return 2 * math.prod(block.output_shape) / 1000
