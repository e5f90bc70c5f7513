"""Class activation maps: they sum to the logit, and show the part of an image that decides its class."""

from __future__ import annotations

import pytest
import torch
from timm.models.nest import Nest
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from data.errors import BackboneError
from models.classifier import Classifier, build_classifier
from models.evaluation.class_activation import ClassActivation, _ConstantDivisors, _has_windows, _last_cut, _place
from models.freezing.blocks import find_blocks, graph_of
from models.freezing.fx_graph import truncate_at
from models.heads.spec import HeadFeatures
from models.trial_config import NetworkConfig
from tests.models.conftest import CLASSES
from tests.models.test_blocks import Untraceable

SMALL_CNN = "freezeline/small_cnn"
LABELS = torch.tensor([0, 2])


def classifier_of(
    backbone: str, size: int, truncate: int = 0, head_features: HeadFeatures = "last", head: str = "linear"
) -> Classifier:
    """Return a classifier with random weights, batch norm statistics and biases of norms."""
    config = NetworkConfig(
        backbone=backbone, weights="none", truncate=truncate, head_features=head_features, head=head, freeze_fraction=1
    )
    classifier = build_classifier(config, len(CLASSES), size, seed=0)
    torch.manual_seed(1)
    for module in classifier.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.normal_(module.bias, std=0.1)
    return classifier.eval()


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def relative_logits(classifier: Classifier, x: Tensor) -> Tensor:
    """Return each image's logit of its class in ``LABELS`` without the bias, relative to the mean of all classes."""
    linear = classifier.head[-1]  # type: ignore[index]
    with torch.no_grad():
        logits = classifier(x) - linear.bias
    return (logits - logits.mean(1, keepdim=True)).gather(1, LABELS[:, None])[:, 0]


# --- the sum ---

# backbone, image size in px, number of dropped blocks, levels, positions per side
EXACT = [
    (SMALL_CNN, 64, 0, "last", 4),
    (SMALL_CNN, 64, 1, "last", 8),
    (SMALL_CNN, 64, 0, "all", 32),
    (SMALL_CNN, 64, 1, "all", 32),
    ("timm/test_efficientnet", 128, 0, "last", 4),
    ("timm/test_efficientnet", 128, 0, "all", 64),
    ("timm/test_resnet", 128, 0, "last", 4),
    ("timm/test_resnet", 128, 0, "all", 64),
]


@pytest.mark.parametrize(("backbone", "size", "truncate", "levels", "side"), EXACT)
def test_the_map_of_an_average_and_a_linear_layer_sums_to_the_logit_without_the_bias(
    backbone: str, size: int, truncate: int, levels: HeadFeatures, side: int
) -> None:
    classifier = classifier_of(backbone, size, truncate, levels)
    maps = ClassActivation(classifier, size).maps(images(size), LABELS)
    assert maps.shape == (2, side, side)
    torch.testing.assert_close(maps.sum((1, 2)), relative_logits(classifier, images(size)), rtol=1e-4, atol=1e-5)


def test_the_map_of_an_average_and_a_linear_layer_is_its_class_activation_map() -> None:
    classifier = classifier_of(SMALL_CNN, 64)
    activation = classifier.network.stages(images(64))  # type: ignore[operator]
    weight = classifier.head[-1].weight  # type: ignore[index,union-attr]
    expected = torch.einsum("bchw,bc->bhw", activation, (weight - weight.mean(0))[LABELS]) / 16  # type: ignore[operator,union-attr,arg-type]
    torch.testing.assert_close(ClassActivation(classifier, 64).maps(images(64), LABELS), expected.detach())


def test_a_layer_norm_before_the_linear_layer_keeps_the_sum_except_for_its_bias() -> None:
    classifier = classifier_of("timm/test_convnext", 128)
    for module in classifier.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.zeros_(module.bias)
    maps = ClassActivation(classifier, 128).maps(images(128), LABELS)
    torch.testing.assert_close(maps.sum((1, 2)), relative_logits(classifier, images(128)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["timm/test_vit", "timm/test_convnext"])
def test_constant_divisors_change_no_output(backbone: str) -> None:
    classifier = classifier_of(backbone, 96)
    with torch.no_grad():
        expected = classifier(images(96))
        with _ConstantDivisors():
            torch.testing.assert_close(classifier(images(96)), expected)


def test_a_map_changes_no_weight_and_leaves_no_gradient() -> None:
    classifier = classifier_of(SMALL_CNN, 64)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    ClassActivation(classifier.train(), 64).maps(images(64), LABELS)
    assert not classifier.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())


# --- the place ---


def brightness_classifier(head_features: HeadFeatures = "last", head: str = "linear") -> Classifier:
    """Return a classifier whose features are the brightness, and whose second class is bright."""
    classifier = classifier_of(SMALL_CNN, 64, head_features=head_features, head=head)
    for module in classifier.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.weight, 1 / module.in_features)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        classifier.head[-1].weight *= torch.tensor([[-1.0], [1.0], [0.0]])  # type: ignore[index,operator,union-attr]
    return classifier


@pytest.mark.parametrize(("levels", "head"), [("last", "linear"), ("last", "8"), ("all", "linear")])
@pytest.mark.parametrize(("row", "column"), [(0, 3), (2, 1)])
def test_a_patch_that_alone_decides_the_class_is_the_maximum(
    levels: HeadFeatures, head: str, row: int, column: int
) -> None:
    classifier = brightness_classifier(levels, head)
    x = torch.zeros(1, 3, 64, 64)
    x[:, :, 16 * row + 3 : 16 * row + 13, 16 * column + 3 : 16 * column + 13] = 5
    assert classifier(x).argmax() == 1
    (values,) = ClassActivation(classifier, 64).maps(x, torch.tensor([1]))
    top, left = divmod(int(values.argmax()), values.shape[1])
    assert (4 * top // len(values), 4 * left // len(values)) == (row, column)
    (against,) = ClassActivation(classifier, 64).maps(x, torch.tensor([0]))
    assert against[top, left] < 0


def test_a_small_last_activation_gives_way_to_an_earlier_one() -> None:
    for levels in ("last", "all"):
        classifier = classifier_of("timm/test_resnet", 64, head_features=levels)  # type: ignore[arg-type]
        assert ClassActivation(classifier, 64).maps(images(64), LABELS).shape[1] >= 4


# --- transformers ---


@pytest.mark.parametrize(("truncate", "levels"), [(0, "last"), (1, "last"), (0, "all")])
def test_the_map_of_a_vision_transformer_has_its_patches_without_the_class_token(
    truncate: int, levels: HeadFeatures
) -> None:
    classifier = classifier_of("timm/test_vit", 96, truncate, levels)
    maps = ClassActivation(classifier, 96).maps(images(96), LABELS)
    assert maps.shape == (2, 6, 6)
    assert (maps != 0).all()


def test_the_map_of_averaged_tokens_is_that_of_each_patch() -> None:
    whole, truncated = classifier_of("timm/test_vit", 96), classifier_of("timm/test_vit", 96, truncate=1)
    whole.load_state_dict(truncated.state_dict(), strict=False)
    outputs: list[Tensor] = []
    block = whole.network.get_submodule(truncated.blocks[-1].name)
    block.register_forward_hook(lambda _, __, output: outputs.append(output))
    whole.network(images(96))
    weight = truncated.head[-1].weight  # type: ignore[index,union-attr]
    weights = (weight - weight.mean(0))[LABELS][:, None]  # type: ignore[operator,union-attr,arg-type]
    expected = ((outputs[0] * weights).sum(-1) / 37)[:, 1:].reshape(2, 6, 6).detach()
    torch.testing.assert_close(ClassActivation(truncated, 96).maps(images(96), LABELS), expected)


def headless(network: nn.Module, size: int) -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier(network, find_blocks(network, size), 0, nn.Sequential(nn.Linear(16, len(CLASSES))))
    nn.init.normal_(classifier.head[0].weight)  # type: ignore[index,arg-type,union-attr]
    return classifier.eval()


def test_a_swin_transformer_has_channels_last_maps_that_sum_to_the_logit() -> None:
    sizes = {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4}
    classifier = headless(SwinTransformer(img_size=32, num_classes=0, **sizes), 32)
    maps = ClassActivation(classifier, 32).maps(images(32), LABELS)
    assert maps.shape == (2, 4, 4)
    torch.testing.assert_close(maps.sum((1, 2)), relative_logits(classifier, images(32)), rtol=1e-4, atol=1e-5)


def test_tokens_in_several_windows_are_not_arranged_as_a_map() -> None:
    sizes = {"num_levels": 2, "embed_dims": (8, 16), "num_heads": (1, 2), "depths": (2, 2)}
    classifier = headless(Nest(img_size=64, num_classes=0, **sizes), 64)
    shapes = [block.output_shape for block in classifier.blocks]
    assert {(4, 64, 8), (1, 64, 16)} <= set(shapes)
    assert _has_windows(shapes)
    assert ClassActivation(classifier, 64).maps(images(64), LABELS).shape == (2, 8, 8)
    blocks = classifier.blocks[: shapes.index((4, 64, 8)) + 1]
    graph = graph_of(classifier.network, classifier.blocks)
    assert graph
    in_windows = truncate_at(classifier.network, graph, {blocks[-1].node: (1, 2)})
    assert _last_cut(in_windows, in_windows.graph, blocks, 64) == []


def test_as_many_windows_as_tokens_in_each_are_no_grid() -> None:
    grid, windows = (16, 16, 96), (4, 16, 192)
    assert _place(grid, [grid, (8, 8, 192), (384,)]) == ((1, 2), 16)
    assert _place(grid, [grid, windows, (384,)]) is None


def test_a_network_that_cannot_be_traced_is_rejected() -> None:
    classifier = Classifier(Untraceable(), find_blocks(Untraceable(), 16), 0, nn.Sequential(nn.Linear(8, 3)))
    with pytest.raises(BackboneError, match="but Untraceable has none at 16 px; use a larger image_size or another"):
        ClassActivation(classifier, 16)
