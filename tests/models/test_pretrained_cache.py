"""The cache of created networks: trials get independent copies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import models.backbones.pretrained_cache
from models.backbones.factory import create_backbone
from models.backbones.pretrained_cache import pretrained
from models.classifier import build_classifier
from models.trial_config import NetworkConfig
from tests.models.conftest import NETWORK, SIZE


def test_a_network_is_created_once_and_copied_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    config = NetworkConfig(backbone=NETWORK, weights="none", freeze_fraction=0.0)
    first = build_classifier(config, 3, SIZE, seed=5)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    for tensor in first.state_dict().values():
        tensor.zero_()
    monkeypatch.setattr(models.backbones.pretrained_cache, "create_backbone", None)
    second = build_classifier(config, 3, SIZE, seed=5).state_dict()
    assert all(torch.equal(second[name], value) for name, value in before.items())
    assert second["network.conv_stem.weight"].is_contiguous(memory_format=torch.channels_last)


def test_another_seed_or_a_changed_file_gives_another_network(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    fingerprints = [pretrained(NETWORK, "none", SIZE, seed).fingerprints for seed in (0, 1)]
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = create_backbone(NETWORK, "none", SIZE).network.state_dict()
        save_file(state, file)
        fingerprints.append(pretrained(NETWORK, str(file), SIZE, 0).fingerprints)
    assert len(set(fingerprints)) == 2
    assert fingerprints[:2] == fingerprints[2:]
