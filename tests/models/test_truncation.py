"""Networks without their last blocks: what they compute, what they hold, and several ends in one pass."""

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
    feature_taps,
    is_valid_end,
    max_truncation,
    pooled_levels,
    spatial_axes,
    truncate_network,
)
from models.training.loop import fit
from models.trial_config import FitConfig, NetworkConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, MakeBatches
from tests.models.test_blocks import Wayward

# backbone, image size in px, blocks dropped, the module that then is the last, axes that are averaged after it
ENDS = [
    ("timm/resnet18", 32, 1, "layer4.0", (2, 3)),
    ("torchvision/resnet34", 32, 3, "layer3.5", (2, 3)),
    ("timm/convnext_atto", 64, 1, "stages.3.blocks.0", (2, 3)),
    ("torchvision/swin_t", 64, 1, "features.7.0", (1, 2)),
    ("timm/swin_tiny_patch4_window7_224", 64, 3, "layers.2.blocks.5", (1, 2)),
    ("timm/vit_tiny_patch16_224", 48, 2, "blocks.9", (1,)),
    ("torchvision/vit_b_32", 64, 1, "encoder.layers.encoder_layer_10", (1,)),
]


def watched(network: nn.Module, path: str, x: Tensor) -> Tensor:
    """Return what a module of a network gives in eval mode."""
    seen: list[Tensor] = []
    hook = network.get_submodule(path).register_forward_hook(lambda _, __, result: seen.append(result.clone()))
    with torch.no_grad():
        network.eval()(x)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("name", "size", "truncate", "last", "axes"), ENDS, ids=[row[0] for row in ENDS])
def test_a_truncated_network_gives_the_mean_of_its_last_blocks_activation(
    name: str, size: int, truncate: int, last: str, axes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = create_backbone(name, "none", size).network
    blocks = find_blocks(network, size)
    ended, left, widths = truncate_network(network, blocks, truncate)
    assert left == blocks[:-truncate]
    assert left[-1].name == last
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        found = ended.eval()(x)
    assert torch.equal(found, watched(network, last, x).mean(axes))
    assert found.shape == (2, *widths)


def test_a_truncated_network_holds_nothing_of_what_was_dropped_and_the_rest_under_its_own_names() -> None:
    network = create_backbone("timm/resnet18", "none", 32).network
    blocks = find_blocks(network, 32)
    ended, left, _ = truncate_network(network, blocks, 2)
    own = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    kept = {name: id(tensor) for name, tensor in ended.state_dict(keep_vars=True).items()}
    assert kept == {name: tensor for name, tensor in own.items() if not name.startswith("layer4.")}
    assert sum(parameter.numel() for parameter in ended.parameters()) == sum(block.parameters for block in left)


@pytest.mark.parametrize("name", [NETWORK, "timm/test_vit", "timm/pvt_v2_b0", "torchvision/densenet121"])
def test_halves_of_a_truncated_network_are_the_truncated_network(name: str) -> None:
    torch.manual_seed(0)
    network = create_backbone(name, "none", 48).network.eval()
    ended, left, _ = truncate_network(network, find_blocks(network, 48), 2)
    x = torch.randn(3, 3, 48, 48)
    with torch.no_grad():
        whole = ended.eval()(x)
        for depth in range(len(left) + 1):
            prefix, suffix = split(ended, left, depth)
            assert torch.equal(suffix.eval()(prefix.eval()(x)), whole), f"depth {depth}"


@pytest.mark.parametrize("truncate", [0, 2])
@pytest.mark.parametrize(
    "name", [NETWORK, "timm/test_vit", "timm/convnext_atto", "torchvision/swin_t", "timm/swin_tiny_patch4_window7_224"]
)
def test_all_levels_are_the_means_of_every_block_side_by_side(name: str, truncate: int) -> None:
    torch.manual_seed(0)
    network = create_backbone(name, "none", 64).network.eval()
    blocks = find_blocks(network, 64)
    joined, left, widths = truncate_network(network, blocks, truncate, "all")
    assert left == blocks[: len(blocks) - truncate]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        each = [truncate_network(network, blocks, t)[0].eval()(x) for t in reversed(range(truncate, len(blocks)))]
        found = joined.eval()(x)
    assert torch.equal(found, torch.cat(each, dim=1))
    assert [level.shape[1] for level in each] == list(widths)
    assert len(each) >= 5


def blocks_of(shapes: list[tuple[int, ...]]) -> list[Block]:
    return [
        Block(index=index, name=f"block{index}", node=str(index), output_shape=shape, parameters=0)
        for index, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(32, 64, 64), (64, 64, 64)], (2, 3)),  # [64, 64, 64] alone doesn't tell, the block before it does
        ([(16, 16, 8), (8, 8, 8)], (1, 2)),
        ([(4, 32, 32), (8, 16, 16), (8, 8, 8)], (2, 3)),
        ([(7, 1, 1)], (2, 3)),
        ([(1, 1, 7)], (1, 2)),
        ([(10, 192)], (1,)),
        ([(192,)], ()),
    ],
)
def test_the_axes_that_hold_places_are_told_by_their_lengths(
    shapes: list[tuple[int, ...]], axes: tuple[int, ...]
) -> None:
    assert spatial_axes(blocks_of(shapes), 0) == axes


# As timm's nest_tiny has at 128 px: tokens in windows, and pictures between the levels.
WINDOWS = [(16, 64, 96), (96, 32, 32), (4, 64, 192), (192, 16, 16), (1, 64, 384), (1, 64, 384), (384,)]


def test_tokens_in_windows_are_told_by_the_features_that_the_network_ends_with() -> None:
    blocks = blocks_of(WINDOWS)
    assert [spatial_axes(blocks, truncate) for truncate in (1, 2)] == [(1, 2), (1, 2)]
    assert max_truncation(blocks) == 2
    assert spatial_axes(blocks_of([(16, 16, 96), (4, 16, 192), (384,)]), 2) == (1, 2)  # as many windows as tokens


def test_a_level_whose_places_cannot_be_told_from_channels_is_left_out() -> None:
    levels = pooled_levels(blocks_of(WINDOWS), 1)
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
def test_an_activation_that_does_not_tell_places_from_channels_is_refused(
    shapes: list[tuple[int, ...]], truncate: int
) -> None:
    blocks = blocks_of(shapes)
    name, shape = blocks[-1 - truncate].name, re.escape(str(list(shapes[-1 - truncate])))
    with pytest.raises(BackboneError, match=rf"can't end after {name}, .* of {shape} doesn't tell.*another truncate"):
        spatial_axes(blocks, truncate)
    assert not is_valid_end(blocks, truncate)


def test_a_network_of_windows_is_averaged_over_places_alone_or_refused() -> None:
    torch.manual_seed(0)
    network = create_backbone("timm/nest_tiny", "none", 128).network
    blocks = find_blocks(network, 128)
    assert max_truncation_of("timm/nest_tiny", 128) == 8
    ended, left, widths = truncate_network(network, blocks, 8)
    assert (left[-1].output_shape, widths) == ((1, 64, 384), (384,))
    with pytest.raises(BackboneError, match=r"can't end after .* of \[192, 16, 16\]"):
        truncate_network(network, blocks, 9)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(ended.eval()(x), split(network.eval(), blocks, len(left))[0](x).mean((1, 2)))


@pytest.mark.parametrize("truncate", [7, 40])
def test_a_truncation_that_leaves_no_block_is_refused_with_the_range(truncate: int) -> None:
    with pytest.raises(BackboneError, match=rf"truncate must be 0\.\.6 for this network, got {truncate}"):
        build_classifier(NetworkConfig(backbone=NETWORK, weights="none", truncate=truncate), 2, SIZE, seed=0)


def test_a_network_that_cannot_be_cut_cannot_be_truncated() -> None:
    network = Wayward()
    blocks = find_blocks(network, 16)
    assert truncate_network(network, blocks, 0)[0] is network
    assert max_truncation(blocks) == 0
    with pytest.raises(BackboneError, match="truncate must be 0 for Wayward, which can't be cut, got 1; or choose"):
        truncate_network(network, blocks, 1)


def test_a_negative_truncation_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        NetworkConfig(truncate=-1)


# --- the classifier of a truncated network ---


def truncated_classifier(fraction: float, truncate: int = 2, backbone: str = NETWORK) -> Classifier:
    config = NetworkConfig(backbone=backbone, weights="none", truncate=truncate, freeze_fraction=fraction, dropout=0.0)
    return build_classifier(config, len(CLASSES), SIZE, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_a_fraction_is_frozen_of_the_blocks_left(fraction: float) -> None:
    classifier = truncated_classifier(fraction)
    assert [block.name for block in classifier.blocks][-1] == "blocks.3.0"
    assert classifier.freeze_depth == freeze_depth(fraction, 5)
    names = {name for name, _ in classifier.named_parameters()} | set(classifier.trainable_state_dict())
    assert not [name for name in names if "blocks.4" in name or "conv_head" in name]


def test_a_truncated_classifier_trains_its_suffix_and_leaves_its_prefix(make_batches: MakeBatches) -> None:
    classifier = truncated_classifier(0.5)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    result = fit(classifier, make_batches(48, training=True), make_batches(24), FitConfig(lr=0.01, max_epochs=3))
    changed = {name for name, tensor in classifier.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(result.best_state)
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_with_all_frozen_the_mean_belongs_to_the_prefix() -> None:
    classifier = truncated_classifier(1.0).eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    assert classifier.prefix(x).shape == (2, 48)
    assert isinstance(classifier.suffix, nn.Identity)


def test_a_head_for_as_many_features_starts_alike_whatever_was_dropped() -> None:
    heads = [truncated_classifier(1.0, truncate, "timm/resnet18").head[1].weight for truncate in (0, 1)]
    assert torch.equal(*heads)


@pytest.mark.parametrize("backbone", [NETWORK, "timm/test_vit"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_a_classifier_that_takes_features_gives_the_logits_of_their_pictures(backbone: str, fraction: float) -> None:
    classifier = truncated_classifier(fraction, 1, backbone).eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected, features = classifier(x), classifier.prefix(x)
        classifier.expects_features = True
        assert torch.equal(classifier(features), expected)


# --- several ends in one pass ---


@pytest.mark.parametrize("name", [NETWORK, "timm/test_vit", "torchvision/squeezenet1_1", "torchvision/densenet121"])
def test_taps_give_what_the_prefix_of_each_truncation_gives_bit_for_bit(name: str) -> None:
    config = NetworkConfig(backbone=name, weights="none", freeze_fraction=1.0)
    whole = build_classifier(config, len(CLASSES), SIZE, seed=0).eval()
    x = torch.randn(3, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    truncations = (0, 3, 1, 2)
    with torch.no_grad():
        found = feature_taps(whole.network, whole.blocks, truncations)(x)
        assert len(found) == 4
        for truncate, features in zip(truncations, found, strict=True):
            single = config.model_copy(update={"truncate": truncate})
            assert torch.equal(features, build_classifier(single, 2, SIZE, seed=0).eval().prefix(x)), truncate


class Overwriting(nn.Module):
    """A network whose second block changes what the first one gave in place."""

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


def test_taps_see_an_activation_before_it_is_changed_in_place() -> None:
    torch.manual_seed(0)
    network = Overwriting().eval()
    ends = {"first": (4, 14, 14), "flat": (720,), "third": (6,), "fourth": (7,)}  # before what overwrites their values
    blocks = [
        Block(index=index, name=node, node=node, output_shape=shape, parameters=0)
        for index, (node, shape) in enumerate(ends.items())
    ]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found = feature_taps(network, blocks, (1, 3, 0))(x)
        first = network.first(x)
        assert torch.equal(found[1], first.mean((2, 3)))
        assert torch.equal(found[0], network.third(network.flat(network.second(first.relu()))))


@pytest.mark.parametrize("truncations", [(0, 7), (0, 1, 8)])
def test_a_tap_that_leaves_no_block_is_refused(truncations: tuple[int, ...]) -> None:
    network = create_backbone(NETWORK, "none", SIZE).network
    with pytest.raises(BackboneError, match=rf"truncate must be 0\.\.6 for this network, got {truncations[-1]}"):
        feature_taps(network, find_blocks(network, SIZE), truncations)


def test_taps_of_a_network_that_cannot_be_cut_are_refused() -> None:
    network = Wayward()
    with pytest.raises(BackboneError, match="Wayward, which can't be cut"):
        feature_taps(network, find_blocks(network, 16), (0,))
