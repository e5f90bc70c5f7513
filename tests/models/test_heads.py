"""Heads: their specification and their layers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from data.errors import SettingError
from models.classifier import build_classifier
from models.heads.build import build_head
from models.heads.spec import hidden_layers
from models.training.loop import fit
from models.trial_config import FitConfig, NetworkConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, MakeBatches

LAYERS = [
    ("linear", [nn.Dropout, nn.Linear]),
    ("256", [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]),
    ("8:leaky_relu", [nn.Dropout, nn.Linear, nn.LeakyReLU, nn.Dropout, nn.Linear]),
    ("8:norm:relu", [nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]),
    ("8:relu:norm", [nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]),
    ("8:norm", [nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]),
    (
        "8:leaky_relu+4:relu",
        [nn.Dropout, nn.Linear, nn.LeakyReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear],
    ),
]


@pytest.mark.parametrize(("spec", "layer_types"), LAYERS, ids=[row[0] for row in LAYERS])
def test_a_head_has_the_specified_layers_with_dropout_before_every_linear_layer(
    spec: str, layer_types: list[type[nn.Module]]
) -> None:
    hidden_layers(spec)
    head = build_head(spec, (6,), num_classes=3, dropout=0.4)
    assert [type(layer) for layer in head] == layer_types
    assert {layer.p for layer in head if isinstance(layer, nn.Dropout)} == {0.4}
    assert head(torch.zeros(2, 6)).shape == (2, 3)


def test_layers_have_the_specified_sizes() -> None:
    head = build_head("8:norm+4", (6,), num_classes=3, dropout=0.0)
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(6, 8), (8, 4), (4, 3)]


def test_the_parameter_names_of_the_linear_head_are_stable() -> None:
    assert list(build_head("linear", (6,), 3, 0.1).state_dict()) == ["1.weight", "1.bias"]


def test_feature_levels_are_scaled_to_the_same_norm() -> None:
    torch.manual_seed(0)
    head = build_head("linear", (3, 5), num_classes=2, dropout=0.0).eval()
    first, second = torch.randn(4, 3), torch.randn(4, 5)
    logits = head(torch.cat([first, second], dim=1))
    torch.testing.assert_close(head(torch.cat([first, 1000 * second], dim=1)), logits)
    levels = head[0](torch.cat([50 * first, second], dim=1)).split([3, 5], dim=1)
    for level in levels:
        torch.testing.assert_close(level.square().mean(1), torch.ones(4))
    assert torch.isfinite(head(torch.zeros(1, 8))).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", r"layer must begin with its size, 1\.\.16384, got ''; write linear, or layers as"),
        ("liner", r"must begin with its size, 1\.\.16384, got 'liner'; did you mean linear\?"),
        ("0", r"must begin with its size, 1\.\.16384, got '0'"),
        ("16385:relu", r"must begin with its size, 1\.\.16384, got '16385:relu'"),
        ("9" * 5000, r"must begin with its size, 1\.\.16384, got '999"),
        ("²", r"must begin with its size, 1\.\.16384, got '²'"),
        ("256+", r"must begin with its size, 1\.\.16384, got '256\+'"),
        (
            "256:rely",
            r"layer must be relu, leaky_relu or norm, got '256:rely'; did you mean relu\?",
        ),
        ("256:", r"layer must be relu, leaky_relu or norm, got '256:'"),
        ("linear+256", r"must begin with its size, 1\.\.16384, got 'linear\+256'"),
        ("256:relu:leaky_relu", "must have at most one activation and one norm, got '256:relu:leaky_relu'"),
        ("256:norm:norm", "must have at most one activation and one norm, got '256:norm:norm'"),
    ],
)
def test_an_invalid_head_is_rejected_with_one_message(spec: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        hidden_layers(spec)
    assert len(caught.value.problems) == 1
    with pytest.raises(ValueError, match=message):
        NetworkConfig(head=spec)


def test_a_head_is_validated_without_importing_torch() -> None:
    code = (
        "import sys; from models.heads.spec import hidden_layers;"
        "hidden_layers('8:norm+4'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_head_with_hidden_layers_learns_on_a_frozen_network(make_batches: MakeBatches) -> None:
    config = NetworkConfig(backbone=NETWORK, weights="none", freeze_fraction=1, head="16:norm+8:leaky_relu", dropout=0)
    classifier = build_classifier(config, len(CLASSES), SIZE, seed=0)
    history = fit(
        classifier, make_batches(48, training=True), make_batches(24, seed=1), FitConfig(lr=0.02, max_epochs=8)
    )
    assert history[-1].train_loss < 0.7 * history[0].train_loss
    state = classifier.trainable_state_dict()
    assert {name.partition(".")[0] for name in state} == {"head"}
    assert "head.2.running_mean" in state
