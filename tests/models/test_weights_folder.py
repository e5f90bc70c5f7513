"""Folders of packed weights: each network by name, with preprocessing, license and checksum, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from data.errors import BackboneError
from models.backbones.factory import create_backbone, preprocessing_for
from models.backbones.pack_weights import pack_weights
from models.backbones.validation import BackboneRequest, validate_backbones
from models.backbones.weights import weights_source
from models.backbones.weights_folder import INDEX, read_index
from tuning.recipe.auto import auto_backbones

NAMES = ("timm/test_resnet", "torchvision/squeezenet1_1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two networks, whose weights are random."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(7)
    for name in NAMES:
        pack_weights([name], folder, "none")
    return folder


def first_tensor(weights: str, name: str) -> torch.Tensor:
    torch.manual_seed(0)
    return next(iter(create_backbone(name, weights, 32).network.state_dict().values()))


def test_a_network_is_found_by_name_with_and_without_its_library(folder: Path) -> None:
    packed = first_tensor(str(folder), "test_resnet")
    assert torch.equal(packed, first_tensor(str(folder), "timm/test_resnet"))
    assert not torch.equal(packed, first_tensor("none", "test_resnet"))
    assert first_tensor(str(folder), NAMES[1]).shape == (64, 3, 3, 3)
    validate_backbones(BackboneRequest(name, str(folder), 32) for name in NAMES)


def test_the_index_has_license_and_preprocessing_of_each_network(folder: Path) -> None:
    networks = read_index(folder).networks
    assert tuple(networks) == NAMES
    assert networks[NAMES[0]].preprocessing == preprocessing_for(NAMES[0], 224)
    assert networks[NAMES[0]].license == "apache-2.0"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [INDEX, "timm--test_resnet.safetensors", "torchvision--squeezenet1_1.safetensors"]
    )


@pytest.mark.parametrize("on_gpu", [False, True])
def test_auto_searches_the_networks_of_the_folder(folder: Path, on_gpu: bool) -> None:
    assert auto_backbones(str(folder), on_gpu) == NAMES


def test_networks_without_weights_and_with_a_package_need_no_entry(folder: Path) -> None:
    assert weights_source("freezeline/small_cnn", str(folder)) == "none"
    assert weights_source("timm/tf_efficientnet_lite0", str(folder)) == "package"


def test_a_missing_network_is_named_with_the_command_that_packs_it(folder: Path) -> None:
    with pytest.raises(BackboneError, match="freezeline weights pack timm/resnet18 --to FOLDER"):
        validate_backbones([BackboneRequest("resnet18", str(folder))])


def test_an_incomplete_copy_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / INDEX).write_text((folder / INDEX).read_text())
    file = json.loads((copy / INDEX).read_text())["networks"][NAMES[0]]["file"]
    for content in (None, (folder / file).read_bytes()[:-1]):
        if content:
            (copy / file).write_bytes(content)
        with pytest.raises(BackboneError, match="must be complete, but is not the packed file; copy the folder again"):
            validate_backbones([BackboneRequest(NAMES[0], str(copy))])


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"a folder of weights must have weights.json"):
        validate_backbones([BackboneRequest("resnet18", str(tmp_path))])
