"""Parameters and FLOPs of classifiers, compared with published values."""

from __future__ import annotations

import pytest
import torch

from models.classifier import build_classifier
from models.heads.spec import HeadFeatures
from models.profiling.flops import model_cost
from models.trial_config import NetworkConfig


@pytest.mark.parametrize(
    ("backbone", "millions", "gigaflops"),
    [("torchvision/mobilenet_v2", 3.5, 0.6), ("resnet34", 21.8, 7.34), ("vit_tiny_patch16_224", 5.72, 2.5)],
)
def test_parameters_and_flops_match_the_published_values(backbone: str, millions: float, gigaflops: float) -> None:
    cost = model_cost(NetworkConfig(backbone=backbone), 1000, 224)
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert cost.flops / 1e9 == pytest.approx(gigaflops, rel=0.02)


@pytest.mark.parametrize(("truncate", "head_features"), [(0, "last"), (2, "last"), (0, "all"), (2, "all")])
def test_the_head_is_counted_and_truncated_blocks_are_not(truncate: int, head_features: HeadFeatures) -> None:
    shape = {"backbone": "test_resnet", "weights": "none", "truncate": truncate, "head_features": head_features}
    config = NetworkConfig.model_validate({**shape, "freeze_fraction": 1, "head": "64:norm:relu"})
    cost, classifier = model_cost(config, 7, 32), build_classifier(config, 7, 32, seed=0)
    assert cost.parameters == sum(parameter.numel() for parameter in classifier.parameters())
    assert cost.bytes == 4 * sum(tensor.numel() for tensor in classifier.state_dict().values())


def test_counting_keeps_the_random_state_and_needs_no_weights() -> None:
    before = torch.random.get_rng_state()
    assert model_cost(NetworkConfig(backbone="test_resnet", weights="hub"), 3, 32).flops > 0
    assert torch.equal(torch.random.get_rng_state(), before)
