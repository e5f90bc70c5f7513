"""Blocks of a network, and its two halves; ``test_architectures`` splits many networks."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import Tensor, nn

from data.errors import BackboneError
from models.backbones.factory import create_backbone
from models.classifier import Classifier
from models.freezing.blocks import Block, PartiallyFrozen, find_blocks, split


def test_blocks_contain_every_parameter_once() -> None:
    network = create_backbone("timm/test_efficientnet", "none", 32).network
    blocks = find_blocks(network, 32)
    assert sum(block.parameters for block in blocks) == sum(p.numel() for p in network.parameters())


def test_finding_blocks_changes_neither_the_state_dict_nor_the_modes() -> None:
    network = create_backbone("timm/test_resnet", "none", 32).network
    network.layer1.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    find_blocks(network, 32)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes


def test_halves_share_the_parameters_of_the_network() -> None:
    network = create_backbone("timm/test_vit", "none", 48).network
    blocks = find_blocks(network, 48)
    prefix, suffix = split(network, blocks, 3)
    expected = {name: id(parameter) for name, parameter in network.named_parameters()}
    in_prefix = {name: id(parameter) for name, parameter in prefix.named_parameters()}
    in_suffix = {name: id(parameter) for name, parameter in suffix.named_parameters()}
    assert in_prefix | in_suffix == expected
    assert not in_prefix.keys() & in_suffix.keys()


def test_a_depth_out_of_range_is_rejected() -> None:
    network = create_backbone("timm/test_resnet", "none", 32).network
    blocks = find_blocks(network, 32)
    with pytest.raises(ValueError, match=r"freeze_depth must be 0\.\.7 for this network, got 8"):
        split(network, blocks, 8)


def test_an_unsupported_image_size_is_rejected() -> None:
    network = create_backbone("timm/inception_v3", "none", 96).network
    with pytest.raises(BackboneError, match=r"does not accept images of 64 px: .*; choose another image_size"):
        find_blocks(network, 64)


def test_a_block_survives_json() -> None:
    block = Block(
        index=1, name="a.1", node="add", output_shape=(3, 2), parameters=7, constants={"size": 4, "s": (1, 2)}
    )
    assert Block.from_json(block.to_json()) == block


class EarlyAccess(nn.Module):
    """A network that reads a parameter in its first block and uses it in its second."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale
        return (self.second(self.first(x)) * scale).mean((2, 3))


def test_a_parameter_belongs_to_the_half_that_uses_it() -> None:
    network = EarlyAccess()
    blocks = find_blocks(network, 16)
    assert [block.name for block in blocks] == ["first", "second"]
    prefix, suffix = split(network, blocks, 1)
    assert {name for name, _ in prefix.named_parameters()} == {"first.weight", "first.bias"}
    assert {name for name, _ in suffix.named_parameters()} == {"second.weight", "second.bias", "scale"}


class Untraceable(nn.Module):
    """A network with a branch that depends on the images, so that it can't be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.tail = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if x.mean() > 100:
            x = -x
        return self.tail(self.body(x)).mean((2, 3))


def test_an_untraceable_network_is_frozen_by_its_children(caplog: pytest.LogCaptureFixture) -> None:
    class NotLoggedYet(Untraceable):
        """A class that this process hasn't warned about yet."""

    torch.manual_seed(0)
    network = NotLoggedYet()
    with caplog.at_level(logging.WARNING, logger="models.freezing.blocks"):
        blocks = find_blocks(network, 16)
        find_blocks(network, 16)
    assert [block.name for block in blocks] == ["stem", "body", "tail"]
    assert caplog.text.count("NotLoggedYet can't be split") == 1
    classifier = Classifier(network, blocks, 2, nn.Linear(5, 2))
    frozen = copy.deepcopy({name: value for name, value in network.state_dict().items() if "tail" not in name})
    trained = [name for name, _ in classifier.trainable_parameters()]
    assert trained == [f"network.tail.{name}" for name in ("0.weight", "0.bias", "1.weight", "1.bias")] + [
        "head.weight",
        "head.bias",
    ]
    x = torch.randn(4, 3, 16, 16)
    optimizer = torch.optim.SGD([parameter for _, parameter in classifier.trainable_parameters()], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        classifier.train()(x).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in frozen.items())
    assert torch.equal(classifier(x), classifier(x))  # the frozen dropout is off
    assert isinstance(classifier.suffix, PartiallyFrozen)


def test_a_network_without_cut_points_uses_the_groups_of_its_library() -> None:
    network = create_backbone("timm/crossvit_9_240", "none", 240).network
    blocks = find_blocks(network, 240)
    assert [block.name for block in blocks][1:3] == ["blocks.0", "blocks.1"]
    assert all(not block.node for block in blocks)
    x = torch.randn(1, 3, 240, 240)
    prefix, suffix = split(network, blocks, 2)
    with torch.no_grad():
        assert torch.equal(suffix.eval()(prefix(x)), network(x))
