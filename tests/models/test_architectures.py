"""Networks of many families, split at several depths: the halves compute the network, and frozen blocks don't change.

Weights are random and images small; all comparisons are bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from models.backbones.factory import create_backbone
from models.classifier import Classifier
from models.freezing.blocks import Block, as_modules, find_blocks, split

# backbone, image size in px, number of blocks, some of their names
ARCHITECTURES = [
    ("timm/resnet18", 32, 9, ["conv1", "layer1.0", "layer3.1", "layer4.1"]),
    ("torchvision/resnet34", 32, 17, ["conv1", "layer3.5", "layer4.2"]),
    ("timm/resnet50", 32, 17, ["layer3.1", "layer4.2"]),
    ("timm/mobilenetv2_100", 32, 19, ["conv_stem", "blocks.0.0", "blocks.5.2", "conv_head"]),
    ("torchvision/mobilenet_v2", 32, 19, ["features.0", "features.12", "features.18"]),
    ("timm/mobilenetv3_large_100", 32, 18, ["blocks.5.2", "blocks.6.0", "conv_head"]),
    ("torchvision/mobilenet_v3_small", 32, 14, ["features.0", "features.12", "classifier"]),
    ("timm/tf_efficientnet_lite0", 32, 18, ["conv_stem", "blocks.5.3", "conv_head"]),
    ("timm/tf_efficientnetv2_b0", 32, 23, ["conv_stem", "blocks.0.0", "blocks.5.7", "conv_head"]),
    ("torchvision/efficientnet_b0", 32, 18, ["features.0", "features.6.3", "features.8"]),
    ("timm/convnext_atto", 32, 16, ["stem", "stages.2.downsample", "stages.2.blocks.4"]),
    ("torchvision/convnext_tiny", 32, 22, ["features.0", "features.5.8"]),
    ("torchvision/vgg11_bn", 32, 10, ["features.0", "features.25", "classifier.3"]),
    ("timm/repvgg_a0", 32, 22, ["stem", "stages.2.13", "stages.3.0"]),
    ("timm/vit_tiny_patch16_224", 48, 13, ["patch_embed", "blocks.7", "blocks.11"]),
    ("timm/deit_tiny_patch16_224", 48, 13, ["patch_embed", "blocks.7", "blocks.11"]),
    ("timm/test_vit", 48, 7, ["patch_embed", "blocks.3"]),
    ("timm/swin_tiny_patch4_window7_224", 64, 16, ["patch_embed", "layers.2.blocks.4", "layers.3.downsample"]),
    ("timm/pvt_v2_b0", 32, 12, ["stages.1.blocks.1"]),  # its token count and batch size are live at its cut points
    ("timm/mixer_s32_224", 64, 9, ["stem", "blocks.0", "blocks.7"]),
    ("timm/mobilevit_xxs", 64, 12, ["stem", "stages.4.1", "final_conv"]),
    ("timm/regnety_004", 32, 17, ["stem", "s3.b4"]),
    ("torchvision/regnet_y_400mf", 32, 17, ["stem", "trunk_output.block4.block4-5"]),
    ("timm/densenet121", 32, 8, ["features.denseblock2", "features.transition3"]),
    ("torchvision/squeezenet1_1", 32, 9, ["features.0", "features.12"]),
    ("torchvision/shufflenet_v2_x0_5", 32, 18, ["conv1", "stage2.0", "stage4.3", "conv5"]),
    ("torchvision/mnasnet0_5", 32, 20, ["layers.0", "layers.12.3", "layers.14"]),
    ("torchvision/googlenet", 64, 12, ["inception4a", "inception5b"]),
    ("timm/inception_v3", 96, 16, ["Conv2d_1a_3x3", "Mixed_7a", "Mixed_7c"]),
    ("timm/test_nfnet", 64, 9, ["stem.conv4", "stages.3.0"]),  # fx does not trace into its blocks
    ("timm/ghostnet_100", 32, 19, ["blocks.6.3", "conv_head"]),
    ("freezeline/small_cnn", 16, 4, ["stages.0", "stages.3"]),
]
NUM_CLASSES = 3
MAX_TRAINED = 30_000_000  # parameters after the freeze line in the gradient tests: more takes gigabytes


class Architecture(NamedTuple):
    """One row of the table with its network."""

    network: nn.Module
    num_features: int
    blocks: tuple[Block, ...]
    size: int
    num_blocks: int
    some_names: list[str]

    def images(self) -> Tensor:
        """Return four images: batch norm over 1 x 1 pixels can't be trained with one."""
        return torch.randn(4, 3, self.size, self.size)

    def classifier(self) -> Classifier:
        """Return a classifier with half of its blocks frozen, or more if the rest exceeds ``MAX_TRAINED``."""
        trained = [sum(block.parameters for block in self.blocks[depth:]) for depth in range(self.num_blocks)]
        depth = next(d for d in range(self.num_blocks // 2, self.num_blocks) if trained[d] < MAX_TRAINED)
        torch.manual_seed(1)
        return Classifier(self.network, self.blocks, depth, nn.Linear(self.num_features, NUM_CLASSES))


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=[row[0] for row in ARCHITECTURES])
def shared_architecture(request: pytest.FixtureRequest) -> Architecture:
    """Return one architecture, created once for all tests of this module."""
    name, size, num_blocks, some_names = request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = create_backbone(name, "none", size)
    return Architecture(
        backbone.network, backbone.num_features, find_blocks(backbone.network, size), size, num_blocks, some_names
    )


@pytest.fixture
def architecture(shared_architecture: Architecture) -> Iterator[Architecture]:
    """Yield one architecture with nothing frozen and no gradients."""
    torch.manual_seed(0)
    yield shared_architecture
    for parameter in shared_architecture.network.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None


def test_the_table_covers_many_families_and_all_libraries() -> None:
    assert len(ARCHITECTURES) == len({row[0] for row in ARCHITECTURES}) == 32
    assert len({row[0].partition("/")[2][:4] for row in ARCHITECTURES}) > 15
    assert {row[0].partition("/")[0] for row in ARCHITECTURES} == {"timm", "torchvision", "freezeline"}


def test_blocks_are_named_after_modules_of_the_library(architecture: Architecture) -> None:
    names = [block.name for block in architecture.blocks]
    assert len(names) == len(set(names)) == architecture.num_blocks
    assert set(architecture.some_names) <= set(names)
    for name in names:
        architecture.network.get_submodule(name)  # raises if there is no such module


def test_prefix_and_suffix_compute_the_network(architecture: Architecture) -> None:
    network, blocks, num_blocks = architecture.network.eval(), architecture.blocks, architecture.num_blocks
    x = architecture.images()
    with torch.no_grad():
        expected = network(x)
        for depth in (0, 1, num_blocks // 2, num_blocks - 1, num_blocks):
            prefix, suffix = split(network, blocks, depth)
            activation = prefix(x)
            if depth > 0:
                assert activation.shape == (4, *blocks[depth - 1].output_shape)
            assert torch.equal(suffix(activation), expected), f"depth {depth}"


def test_the_modules_of_all_blocks_in_sequence_compute_the_network(architecture: Architecture) -> None:
    network = architecture.network.eval()
    x = architecture.images()
    with torch.no_grad():
        expected = network(x)
        modules = as_modules(network, architecture.blocks)
        assert len(modules) == architecture.num_blocks
        for module, block in zip(modules, architecture.blocks, strict=True):
            x = module(x)
            assert x.shape == (4, *block.output_shape)
    assert torch.equal(x, expected)


def frozen_by_requires_grad(classifier: Classifier) -> nn.Module:
    """Return the unsplit network with its head, frozen by ``requires_grad`` and eval mode of its frozen modules."""
    network = classifier.network.eval()
    trained = {id(module) for module in classifier.suffix.modules()}
    for module in network.modules():
        module.training = id(module) in trained
    suffix = {id(parameter) for parameter in classifier.suffix.parameters()}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in suffix)
    return nn.Sequential(network, classifier.head)


def gradients(network: nn.Module, classifier: Classifier, x: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the classifier's parameters after a pass through ``network``, and reset them."""
    torch.manual_seed(2)  # for stochastic depth
    nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 2, 0])).backward()
    gradients_by_name = {name: p.grad for name, p in classifier.named_parameters() if p.grad is not None}
    classifier.zero_grad()
    return gradients_by_name


def test_gradients_equal_those_of_an_unsplit_network_frozen_by_requires_grad(architecture: Architecture) -> None:
    classifier = architecture.classifier().train()
    x = architecture.images()
    actual = gradients(classifier, classifier, x)
    expected = gradients(frozen_by_requires_grad(classifier), classifier, x)
    assert actual.keys() == expected.keys() == {name for name, _ in classifier.trainable_parameters()}
    assert len(actual) > 2
    assert [name for name, gradient in actual.items() if not torch.equal(gradient, expected[name])] == []
    assert any(gradient.any() for name, gradient in actual.items() if name.startswith("network."))


def test_training_does_not_change_frozen_parameters_and_statistics(architecture: Architecture) -> None:
    classifier = architecture.classifier().train()
    frozen = (*classifier.prefix.parameters(), *classifier.prefix.buffers())
    before = [tensor.detach().clone() for tensor in frozen]
    trained = {name: tensor.clone() for name, tensor in classifier.suffix.state_dict().items()}
    parameters = [parameter for _, parameter in classifier.trainable_parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(architecture.images()), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    assert len(before) > 1
    assert all(torch.equal(tensor, old) for tensor, old in zip(frozen, before, strict=True))
    changed = {
        name for name, tensor in classifier.suffix.state_dict().items() if not torch.equal(tensor, trained[name])
    }
    assert changed
    statistics = {name for name in trained if name.endswith("running_mean")}
    assert statistics <= changed
