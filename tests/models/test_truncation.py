"""Truncation: output and parameters of truncated networks, and features of several levels."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from data.errors import BackboneError
from models.backbones.factory import create_backbone
from models.backbones.pretrained_cache import max_truncation_of
from models.classifier import Classifier, build_classifier, freeze_depth
from models.freezing.blocks import Block, find_blocks, split
from models.freezing.truncation import (
    is_valid_end,
    max_truncation,
    pooled_levels,
    spatial_axes,
    truncate_network,
)
from models.training.loop import fit
from models.trial_config import FitConfig, NetworkConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, MakeBatches
from tests.models.test_blocks import Untraceable

# backbone, image size in px, number of dropped blocks, last remaining module, averaged axes of its output
TRUNCATED = [
    ("timm/resnet18", 32, 1, "layer4.0", (2, 3)),
    ("torchvision/resnet34", 32, 3, "layer3.5", (2, 3)),
    ("timm/convnext_atto", 64, 1, "stages.3.blocks.0", (2, 3)),
    ("torchvision/swin_t", 64, 1, "features.7.0", (1, 2)),
    ("timm/swin_tiny_patch4_window7_224", 64, 3, "layers.2.blocks.5", (1, 2)),
    ("timm/vit_tiny_patch16_224", 48, 2, "blocks.9", (1,)),
    ("torchvision/vit_b_32", 64, 1, "encoder.layers.encoder_layer_10", (1,)),
]


def activation_of(network: nn.Module, path: str, x: Tensor) -> Tensor:
    """Return the output of one module of a network in eval mode."""
    outputs: list[Tensor] = []
    hook = network.get_submodule(path).register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
    with torch.no_grad():
        network.eval()(x)
    hook.remove()
    return outputs[0]


@pytest.mark.parametrize(("name", "size", "truncate", "last", "axes"), TRUNCATED, ids=[row[0] for row in TRUNCATED])
def test_a_truncated_network_returns_the_mean_of_its_last_activation(
    name: str, size: int, truncate: int, last: str, axes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = create_backbone(name, "none", size).network
    blocks = find_blocks(network, size)
    truncated, remaining, widths = truncate_network(network, blocks, truncate)
    assert remaining == blocks[:-truncate]
    assert remaining[-1].name == last
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = truncated.eval()(x)
    assert torch.equal(features, activation_of(network, last, x).mean(axes))
    assert features.shape == (2, *widths)


def test_a_truncated_network_holds_only_the_remaining_blocks_under_their_own_names() -> None:
    network = create_backbone("timm/resnet18", "none", 32).network
    blocks = find_blocks(network, 32)
    truncated, remaining, _ = truncate_network(network, blocks, 2)
    original = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    tensors = {name: id(tensor) for name, tensor in truncated.state_dict(keep_vars=True).items()}
    assert tensors == {name: tensor for name, tensor in original.items() if not name.startswith("layer4.")}
    assert sum(p.numel() for p in truncated.parameters()) == sum(block.parameters for block in remaining)


@pytest.mark.parametrize("name", [NETWORK, "timm/test_vit", "timm/pvt_v2_b0", "torchvision/densenet121"])
def test_the_halves_of_a_truncated_network_compute_the_truncated_network(name: str) -> None:
    torch.manual_seed(0)
    network = create_backbone(name, "none", 48).network.eval()
    truncated, remaining, _ = truncate_network(network, find_blocks(network, 48), 2)
    x = torch.randn(3, 3, 48, 48)
    with torch.no_grad():
        expected = truncated.eval()(x)
        for depth in range(len(remaining) + 1):
            prefix, suffix = split(truncated, remaining, depth)
            assert torch.equal(suffix.eval()(prefix.eval()(x)), expected), f"depth {depth}"


@pytest.mark.parametrize("truncate", [0, 2])
@pytest.mark.parametrize(
    "name", [NETWORK, "timm/test_vit", "timm/convnext_atto", "torchvision/swin_t", "timm/swin_tiny_patch4_window7_224"]
)
def test_features_of_all_levels_are_the_concatenated_means_of_every_block(name: str, truncate: int) -> None:
    torch.manual_seed(0)
    network = create_backbone(name, "none", 64).network.eval()
    blocks = find_blocks(network, 64)
    joined, remaining, widths = truncate_network(network, blocks, truncate, "all")
    assert remaining == blocks[: len(blocks) - truncate]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        levels = [truncate_network(network, blocks, t)[0].eval()(x) for t in reversed(range(truncate, len(blocks)))]
        features = joined.eval()(x)
    assert torch.equal(features, torch.cat(levels, dim=1))
    assert [level.shape[1] for level in levels] == list(widths)
    assert len(levels) >= 5


def blocks_with_shapes(shapes: list[tuple[int, ...]]) -> list[Block]:
    return [
        Block(index=index, name=f"block{index}", node=str(index), output_shape=shape, parameters=0)
        for index, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(32, 64, 64), (64, 64, 64)], (2, 3)),  # [64, 64, 64] is ambiguous, the block before it is not
        ([(16, 16, 8), (8, 8, 8)], (1, 2)),
        ([(4, 32, 32), (8, 16, 16), (8, 8, 8)], (2, 3)),
        ([(7, 1, 1)], (2, 3)),
        ([(1, 1, 7)], (1, 2)),
        ([(10, 192)], (1,)),
        ([(192,)], ()),
    ],
)
def test_spatial_axes_are_identified_by_their_sizes(shapes: list[tuple[int, ...]], axes: tuple[int, ...]) -> None:
    assert spatial_axes(blocks_with_shapes(shapes), 0) == axes


# Shapes of timm's nest_tiny at 128 px: tokens in windows, and [c, h, w] between its levels.
WINDOWS = [(16, 64, 96), (96, 32, 32), (4, 64, 192), (192, 16, 16), (1, 64, 384), (1, 64, 384), (384,)]


def test_tokens_in_windows_are_identified_by_the_number_of_features() -> None:
    blocks = blocks_with_shapes(WINDOWS)
    assert [spatial_axes(blocks, truncate) for truncate in (1, 2)] == [(1, 2), (1, 2)]
    assert max_truncation(blocks) == 2
    equal_numbers_of_windows_and_tokens = blocks_with_shapes([(16, 16, 96), (4, 16, 192), (384,)])
    assert spatial_axes(equal_numbers_of_windows_and_tokens, 2) == (1, 2)


def test_a_level_with_an_ambiguous_channel_axis_is_skipped() -> None:
    levels = pooled_levels(blocks_with_shapes(WINDOWS), 1)
    assert [(level.block.name, level.axes, level.columns) for level in levels] == [
        ("block4", (1, 2), slice(0, 384)),
        ("block5", (1, 2), slice(384, 768)),
    ]


@pytest.mark.parametrize(
    ("shapes", "truncate"),
    [
        ([(8, 3, 4, 4)], 0),
        ([(8, 8, 8)], 0),
        ([(28, 28, 64), (64, 28, 28), (28, 28, 28)], 0),
        ([(64, 16, 64), (64,)], 1),
        (WINDOWS, 4),
        ([(4, 64, 192), (4, 64, 64), (192,)], 1),  # [windows, tokens, channels] or [c, h, w]
    ],
)
def test_an_activation_with_an_ambiguous_channel_axis_is_rejected(shapes: list[tuple[int, ...]], truncate: int) -> None:
    blocks = blocks_with_shapes(shapes)
    name, shape = blocks[-1 - truncate].name, re.escape(str(list(shapes[-1 - truncate])))
    with pytest.raises(BackboneError, match=rf"got {truncate}, which ends at {name} with shape {shape};"):
        spatial_axes(blocks, truncate)
    assert not is_valid_end(blocks, truncate)


def test_a_network_with_windows_is_averaged_over_spatial_axes_or_rejected() -> None:
    torch.manual_seed(0)
    network = create_backbone("timm/nest_tiny", "none", 128).network
    blocks = find_blocks(network, 128)
    assert max_truncation_of("timm/nest_tiny", 128) == 8
    truncated, remaining, widths = truncate_network(network, blocks, 8)
    assert (remaining[-1].output_shape, widths) == ((1, 64, 384), (384,))
    with pytest.raises(BackboneError, match=r"got 9, which ends at .* with shape \[192, 16, 16\]"):
        truncate_network(network, blocks, 9)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(truncated.eval()(x), split(network.eval(), blocks, len(remaining))[0](x).mean((1, 2)))


@pytest.mark.parametrize("truncate", [7, 40])
def test_a_truncation_that_leaves_no_block_is_rejected_with_the_range(truncate: int) -> None:
    with pytest.raises(BackboneError, match=rf"truncate must be 0\.\.6 for this network, got {truncate}"):
        build_classifier(NetworkConfig(backbone=NETWORK, weights="none", truncate=truncate), 2, SIZE, seed=0)


def test_a_network_that_cannot_be_split_cannot_be_truncated() -> None:
    network = Untraceable()
    blocks = find_blocks(network, 16)
    assert truncate_network(network, blocks, 0)[0] is network
    assert max_truncation(blocks) == 0
    with pytest.raises(BackboneError, match="truncate must be 0 for Untraceable, which can't be split, got 1;"):
        truncate_network(network, blocks, 1)


def test_a_negative_truncation_is_rejected() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        NetworkConfig(truncate=-1)


# --- classifiers of truncated networks ---


def truncated_classifier(fraction: float, truncate: int = 2, backbone: str = NETWORK) -> Classifier:
    config = NetworkConfig(backbone=backbone, weights="none", truncate=truncate, freeze_fraction=fraction, dropout=0.0)
    return build_classifier(config, len(CLASSES), SIZE, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_the_freeze_fraction_applies_to_the_remaining_blocks(fraction: float) -> None:
    classifier = truncated_classifier(fraction)
    assert [block.name for block in classifier.blocks][-1] == "blocks.3.0"
    assert classifier.freeze_depth == freeze_depth(fraction, 5)
    names = {name for name, _ in classifier.named_parameters()} | set(classifier.trainable_state_dict())
    assert not [name for name in names if "blocks.4" in name or "conv_head" in name]


def test_training_a_truncated_classifier_changes_only_its_suffix_and_head(make_batches: MakeBatches) -> None:
    classifier = truncated_classifier(0.5)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    history = fit(classifier, make_batches(48, training=True), make_batches(24), FitConfig(lr=0.01, max_epochs=3))
    changed = {name for name, tensor in classifier.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(classifier.trainable_state_dict())
    assert history[-1].train_loss < history[0].train_loss


def test_with_everything_frozen_the_prefix_includes_the_pooling() -> None:
    classifier = truncated_classifier(1.0).eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    assert classifier.prefix(x).shape == (2, 48)
    assert isinstance(classifier.suffix, nn.Identity)


def test_the_initial_head_depends_on_the_number_of_features_but_not_on_truncation() -> None:
    heads = [truncated_classifier(1.0, truncate, "timm/resnet18").head[1].weight for truncate in (0, 1)]
    assert torch.equal(*heads)


@pytest.mark.parametrize("backbone", [NETWORK, "timm/test_vit"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_a_classifier_returns_the_same_logits_for_images_and_their_features(backbone: str, fraction: float) -> None:
    classifier = truncated_classifier(fraction, 1, backbone).eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected, features = classifier(x), classifier.prefix(x)
        classifier.expects_features = True
        assert torch.equal(classifier(features), expected)


class InPlaceNetwork(nn.Module):
    """A network whose second block changes the output of the first one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 5, 3)
        self.flat = nn.Flatten()
        self.third = nn.Linear(5 * 12 * 12, 6)
        self.fourth = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flat(self.second(self.relu(self.first(x))))
        return self.fourth(self.third(x).relu_())


def test_an_activation_is_averaged_before_it_is_changed_in_place() -> None:
    torch.manual_seed(0)
    network = InPlaceNetwork().eval()
    ends = {"first": (4, 14, 14), "flat": (720,), "third": (6,), "fourth": (7,)}  # in front of the in-place operations
    blocks = [
        Block(index=index, name=node, node=node, output_shape=shape, parameters=0)
        for index, (node, shape) in enumerate(ends.items())
    ]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        features = truncate_network(network, blocks, 0, "all")[0](x)
        first = network.first(x)
        assert torch.equal(features[:, :4], first.mean((2, 3)))
        assert torch.equal(features[:, 724:730], network.third(network.flat(network.second(first.relu()))))
