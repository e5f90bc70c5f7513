"""What is assumed of the networks of ``backbone=auto`` without running them, and the licenses of their weights."""

from __future__ import annotations

import pytest

from models.backbones.pretrained_cache import pretrained
from models.backbones.weight_packages import AUTO_BACKBONES, HUB_BACKBONES, OFFLINE_BACKBONES, weights_license
from models.freezing.truncation import max_truncation
from tuning.recipe.auto import GPU_IMAGE_SIZES, MIN_AUTO_BLOCKS, accepts_size


@pytest.mark.parametrize("name", AUTO_BACKBONES)
def test_the_weights_of_the_networks_of_auto_may_be_used_commercially(name: str) -> None:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    assert config.license == weights_license(name).lower() == "apache-2.0"
    assert config.hf_hub_id


@pytest.mark.parametrize("name", AUTO_BACKBONES)
def test_the_networks_of_auto_can_be_split_and_truncated_at_the_smallest_size(name: str) -> None:
    network = pretrained(name, "none", GPU_IMAGE_SIZES[0], 0)
    assert network.blocks[0].node
    assert max_truncation(network.blocks) >= MIN_AUTO_BLOCKS


def test_only_sizes_that_were_not_tried_are_validated_by_running_a_network() -> None:
    assert all(accepts_size(name, size) for name in AUTO_BACKBONES for size in GPU_IMAGE_SIZES)
    assert accepts_size(OFFLINE_BACKBONES[0], 8)
    assert not accepts_size(HUB_BACKBONES[1], 16)
    assert not accepts_size("resnet34", 48)
