"""Backbones by name: resolution, preprocessing, and networks without their classifier."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from data.errors import BackboneError
from models.backbones.factory import create_backbone, preprocessing_for, resolve
from models.backbones.validation import BackboneRequest, validate_backbones
from models.backbones.weight_packages import DEFAULT_BACKBONE, OFFLINE_BACKBONES
from models.freezing.blocks import find_blocks, split


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"),
        ("timm/resnet34", "timm/resnet34"),
        ("torchvision/resnet34", "torchvision/resnet34"),
        ("resnet34", "timm/resnet34"),
        ("mobilenet_v2", "torchvision/mobilenet_v2"),
        ("resnet34.a1_in1k", "timm/resnet34.a1_in1k"),
        ("small_cnn", "freezeline/small_cnn"),
        ("freezeline/small_cnn", "freezeline/small_cnn"),
    ],
)
def test_names_resolve_to_their_library_with_timm_before_torchvision(name: str, resolved: str) -> None:
    assert resolve(name) == resolved


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet343", "; did you mean resnet34 or "),
        ("ResNet34", "; did you mean resnet34 or "),
        ("timm/resnet34.no_such_tag", "; did you mean resnet34"),
        ("torchvision/mobilenet_v9", "; did you mean mobilenet_v2"),
        ("small_cn", "; did you mean small_cnn"),
        ("nolibrary/zzzzzzzz", "; timm.list_models"),
        ("", "; timm.list_models"),
    ],
)
def test_an_unknown_name_is_rejected_with_suggestions(name: str, hint: str) -> None:
    rule = "backbone must be an image classifier's name as NAME, timm/NAME or torchvision/NAME, got"
    with pytest.raises(BackboneError, match=rf"^{rule} '{name}'{hint}") as caught:
        resolve(name)
    suggestions = str(caught.value).partition("did you mean ")[2].rstrip("?").split(" or ")
    assert len(set(suggestions)) == len(suggestions)


def test_segmentation_networks_are_not_classifiers() -> None:
    with pytest.raises(BackboneError, match="image classifier's name"):
        resolve("torchvision/fcn_resnet50")


def test_offline_backbones_need_no_library_import_for_names_and_preprocessing() -> None:
    code = (
        "import sys; from models.backbones.factory import preprocessing_for;"
        "from models.backbones.validation import BackboneRequest, validate_backbones;"
        "from models.backbones.weight_packages import DEFAULT_BACKBONE;"
        "validate_backbones([BackboneRequest(DEFAULT_BACKBONE, 'auto')]);"
        "preprocessing_for(DEFAULT_BACKBONE, 64);"
        "sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_networks_of_timm_and_torchvision_do_not_import_the_compiler_of_torch() -> None:
    code = (
        "import sys, torch; from models.backbones.factory import create_backbone;"
        "networks = [create_backbone(name, 'none', 64).network for name in ('timm/resnet18', 'torchvision/resnet18')];"
        "[network(torch.zeros(2, 3, 64, 64)).sum().backward() for network in networks];"
        "assert 'torch._dynamo' not in sys.modules;"
        "torch.optim.AdamW(networks[0].parameters()).step();"  # imports the real one
        "assert torch.compiler.disable(len)([1]) == 1 and torch._dynamo.utils.__file__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", OFFLINE_BACKBONES)
def test_the_preprocessing_of_weight_packages_is_that_of_timm(name: str) -> None:
    from timm.models import get_pretrained_cfg

    expected = get_pretrained_cfg(name)
    preprocessing = preprocessing_for(name, 96)
    assert (preprocessing.mean, preprocessing.std) == (expected.mean, expected.std)
    assert preprocessing.interpolation == expected.interpolation
    assert (preprocessing.image_size, preprocessing.crop_fraction) == (96, 1.0)


def test_preprocessing_follows_the_pretrained_configuration() -> None:
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    timm_resnet = preprocessing_for("timm/resnet34", 64)
    assert (timm_resnet.mean, timm_resnet.std) == imagenet
    vit = preprocessing_for("vit_tiny_patch16_224", 64)
    assert (vit.mean, vit.std, vit.interpolation) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    torchvision_resnet = preprocessing_for("torchvision/resnet34", 64)
    assert (torchvision_resnet.mean, torchvision_resnet.std) == imagenet
    assert torchvision_resnet.interpolation == "bilinear"


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("timm/test_resnet", 32, 96),
        ("timm/mobilenetv3_small_050", 32, 1024),
        ("timm/test_vit", 64, 64),
        ("torchvision/mobilenet_v2", 32, 1280),
        ("torchvision/squeezenet1_1", 32, 512),
        ("torchvision/shufflenet_v2_x0_5", 32, 1024),
    ],
)
def test_a_backbone_returns_one_feature_vector_per_image(name: str, size: int, features: int) -> None:
    backbone = create_backbone(name, "none", size)
    assert (backbone.name, backbone.num_features) == (name, features)
    assert backbone.network.training
    assert backbone.network(torch.zeros(2, 3, size, size)).shape == (2, features)


def test_the_dropout_before_the_classifier_is_removed_with_it() -> None:
    network = create_backbone("torchvision/mobilenet_v2", "none", 32).network
    assert [type(module) for module in network.classifier] == [nn.Identity, nn.Identity]


@pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/vit_b_32", "timm/mixer_s32_224"])
def test_networks_of_a_fixed_size_are_resized_to_the_image_size(name: str) -> None:
    network = create_backbone(name, "none", 64).network.eval()
    assert network(torch.zeros(1, 3, 64, 64)).ndim == 2


def test_position_embeddings_are_interpolated_instead_of_initialized_again() -> None:
    torch.manual_seed(0)
    network = create_backbone("torchvision/vit_b_32", "none", 64).network
    torch.manual_seed(0)
    original = create_backbone("torchvision/vit_b_32", "none", 224).network
    assert torch.equal(network.encoder.pos_embedding[:, 0], original.encoder.pos_embedding[:, 0])
    assert torch.equal(network.conv_proj.weight, original.conv_proj.weight)


def test_validation_detects_an_unsupported_image_size() -> None:
    with pytest.raises(BackboneError, match=r"inception_v3 does not accept images of 64 px.*; choose another"):
        validate_backbones([BackboneRequest("timm/inception_v3", "none", 64)])


def test_the_default_backbone_is_available_offline() -> None:
    assert DEFAULT_BACKBONE in OFFLINE_BACKBONES


# --- small_cnn, the baseline trained from scratch ---


@pytest.mark.parametrize("size", [16, 17, 48])
def test_small_cnn_has_blocks_and_can_be_split(size: int) -> None:
    backbone = create_backbone("small_cnn", "auto", size)
    assert backbone.num_features == 256
    assert 100_000 < sum(parameter.numel() for parameter in backbone.network.parameters()) < 1_000_000
    blocks = find_blocks(backbone.network, size)
    assert [block.name for block in blocks] == ["stages.0", "stages.1", "stages.2", "stages.3"]
    x = torch.randn(2, 3, size, size)
    prefix, suffix = split(backbone.network.eval(), blocks, 2)
    assert torch.equal(suffix(prefix(x)), backbone.network(x))


def test_small_cnn_rejects_images_that_are_too_small() -> None:
    with pytest.raises(BackboneError, match=r"small_cnn does not accept images of 15 px: .*; choose another"):
        validate_backbones([BackboneRequest("small_cnn", "auto", 15)])


def test_small_cnn_has_its_own_preprocessing_and_needs_no_library() -> None:
    code = (
        "import sys; from models.backbones.factory import preprocessing_for;"
        "from models.backbones.validation import BackboneRequest, validate_backbones;"
        "validate_backbones([BackboneRequest('small_cnn', 'auto', 16)]);"
        "print(preprocessing_for('small_cnn', 64).to_dict());"
        "sys.exit('timm.models' in sys.modules or 'torchvision' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]" in process.stdout


@pytest.mark.parametrize("weights", ["auto", "none"])
def test_small_cnn_is_initialized_randomly(weights: str) -> None:
    validate_backbones([BackboneRequest("small_cnn", weights)])
    torch.manual_seed(0)
    first = create_backbone("small_cnn", weights, 16).network.state_dict()
    second = create_backbone("small_cnn", weights, 16).network.state_dict()
    assert not torch.equal(first["stages.0.0.weight"], second["stages.0.0.weight"])


@pytest.mark.parametrize("weights", ["hub", "package", "mine.pth"])
def test_pretrained_weights_for_small_cnn_are_rejected(weights: str) -> None:
    message = f"small_cnn is trained from scratch: its weights must be auto or none, got '{weights}'; or choose another"
    with pytest.raises(BackboneError, match=message) as caught:
        validate_backbones([BackboneRequest("small_cnn", weights)])
    assert len(caught.value.problems) == 1
    with pytest.raises(BackboneError, match=message):
        create_backbone("small_cnn", weights)
