"""List a network's blocks, with the run time of each and the size of its cached features."""

from __future__ import annotations

from pydantic import Field

from data.frozen_model import FrozenModel

EXAMPLE = "freezeline blocks resnet34 --image-size 128"
POSITIONALS = ("backbone",)


class Options(FrozenModel):
    """The options of ``blocks``; it needs no weights, and so no model hub."""

    backbone: str = Field(min_length=1, description="network: NAME, timm/NAME or torchvision/NAME")
    image_size: int = Field(224, ge=8, le=2048, description="side of the images in pixels")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Print a row for each block, from the input to the output."""
    from models.backbones.factory import create_backbone
    from models.freezing.blocks import find_blocks
    from models.profiling.block_latency import time_blocks
    from tuning.ui.console import print_tables
    from tuning.ui.tables.blocks import blocks_table, legend_lines

    backbone = create_backbone(options.backbone, "none", options.image_size)
    blocks = find_blocks(backbone.network, options.image_size)
    seconds = time_blocks(backbone.network, blocks, options.image_size)
    print_tables(blocks_table(blocks, seconds), *legend_lines(backbone.name, options.image_size, blocks, seconds))
    return 0
