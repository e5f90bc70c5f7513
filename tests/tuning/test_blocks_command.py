"""``freezeline blocks``: the table of a network's blocks."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

from models.backbones.factory import create_backbone
from models.freezing.blocks import Block, find_blocks
from models.profiling.block_latency import time_blocks
from tuning.__main__ import main
from tuning.ui.tables.blocks import blocks_table, legend_lines

Capture = pytest.CaptureFixture[str]


def printed_cells(capsys: Capture, *arguments: str) -> list[list[str]]:
    """Return the cells of each printed line, split at spaces."""
    assert main(["blocks", *arguments]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_each_block_has_a_row_with_output_parameters_time_and_cache_size(capsys: Capture) -> None:
    header, *rows = printed_cells(capsys, "--backbone", "small_cnn", "--image_size", "32")
    assert header == ["depth", "block", "output", "parameters", "time", "cached"]
    assert [row[:2] for row in rows[:4]] == [[str(depth), f"stages.{depth - 1}"] for depth in (1, 2, 3, 4)]
    assert rows[0][2:8] == ["32", "x", "16", "x", "16", "928"]
    assert rows[0][9:] == ["16.4", "kB"]  # 32 * 16 * 16 values of two bytes
    assert rows[3][2:4] == ["256", "295,424"]
    assert rows[3][5:] == ["512", "bytes"]
    assert sum(float(row[-3].rstrip("%")) for row in rows[:4]) == pytest.approx(100, abs=0.3)
    assert " ".join(rows[4]) == "freezeline/small_cnn: 4 blocks, 388,896 parameters, 32 px"


def test_the_slowest_block_has_the_longest_time() -> None:
    class SlowModule(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(200):
                x = x * 1.0
            return x

    layers = [torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Identity())]
    layers += [torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), SlowModule())]
    layers += [torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())]
    network = torch.nn.Sequential(*layers)
    threads = torch.get_num_threads()
    seconds = time_blocks(network, find_blocks(network, 16), 16)
    assert len(seconds) == 3
    assert seconds[1] > 3 * max(seconds[0], seconds[2])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["timm/test_efficientnet", "timm/pvt_v2_b0", "timm/swin_tiny_patch4_window7_224"])
def test_every_splittable_network_is_timed_by_block(name: str) -> None:
    network = create_backbone(name, "none", 32).network
    blocks = find_blocks(network, 32)
    seconds = time_blocks(network, blocks, 32)
    assert len(seconds) == len(blocks)
    assert min(seconds) > 0


def test_an_unsplittable_network_is_shown_by_groups(capsys: Capture) -> None:
    _, *rows = printed_cells(capsys, "--backbone", "crossvit_9_240", "--image_size", "240")
    assert [row[1:] for row in rows[1:3]] == [[name, "-", "2,604,032", "-", "-"] for name in ("blocks.0", "blocks.1")]
    assert " ".join(rows[4]) == "timm/crossvit_9_240: 4 blocks, 8,167,296 parameters, 240 px"
    assert len(rows) == 6


def test_the_table_of_groups_has_no_times() -> None:
    groups = [Block(index=0, name="stem", node="", output_shape=(), parameters=1000)]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(blocks_table(groups, ()))
    assert capture.get().split("\n")[1].split() == ["1", "stem", "-", "1,000", "-", "-"]
    assert legend_lines("mine", 64, groups, ())[0] == "mine: 1 block, 1,000 parameters, 64 px"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--backbone must be given: network"),
        (("--backbone", "resnet343"), "got 'resnet343'; did you mean resnet34"),
        (("--backbone", "small_cnn", "--image_size", "8"), "small_cnn does not accept images of 8 px"),
        (("--backbone", "small_cnn", "--image_size", "7"), "image_size must be at least 8, got '7'"),
        (("--backbone", "small_cnn", "--weights", "hub"), "there is no option --weights"),
    ],
)
def test_an_invalid_option_is_reported_in_one_line(arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    assert main(["blocks", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
