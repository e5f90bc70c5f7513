"""Networks and augmentations that another installed package offers as entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.errors import SettingError
from data.loading.augmentation import VERSION, augmentation_version, build_augmentation, validate_augmentation
from data.plugins import plugins
from models.backbones.factory import create_backbone, resolve

MODULE = """
from torch import nn

def blur(size):
    import albumentations as A

    return [A.GaussianBlur(sigma_limit=(1.0, 1.0), p=1.0)]

class TwoBlocks(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
ENTRY_POINTS = """
[freezeline.backbones]
two_blocks = their_package:TwoBlocks

[freezeline.augmentations]
blur = their_package:blur
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a package with entry points on the path, as pip installs it."""
    (tmp_path / "their_package.py").write_text(MODULE)
    info = tmp_path / "their_package-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    plugins.cache_clear()
    yield
    plugins.cache_clear()
    sys.modules.pop("their_package", None)


def test_an_augmentation_of_another_package_is_used_by_its_name(installed: None) -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    augmentation = build_augmentation("flip+blur", 32)
    assert augmentation is not None
    assert np.abs(np.diff(augmentation(image, 0).astype(int))).mean() < np.abs(np.diff(image.astype(int))).mean()


def test_cached_features_depend_on_the_version_of_the_other_package(installed: None) -> None:
    assert augmentation_version("flip+blur") == (VERSION, "their-package 1.2")
    assert augmentation_version("medium") == (VERSION,)


def test_an_unknown_augmentation_is_still_an_error_and_names_those_of_other_packages(installed: None) -> None:
    with pytest.raises(SettingError, match=r"blur.*got 'blurr'; did you mean blur"):
        validate_augmentation("flip+blurr")


def test_a_network_of_another_package_is_known_by_its_name(installed: None) -> None:
    assert resolve("two_blocks") == "freezeline/two_blocks"
    assert type(create_backbone("two_blocks", "none", 32).network).__name__ == "TwoBlocks"
