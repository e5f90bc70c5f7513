"""Builds a classifier head from its specification."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.heads.level_norm import PerLevelRMSNorm
from models.heads.spec import hidden_layers

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


def build_head(spec: str, widths: Sequence[int], num_classes: int, dropout: float) -> nn.Module:
    """Return a module that turns features [b, f] into logits [b, k].

    Several feature levels are each divided by their root mean square first: activations of the last blocks are many
    times smaller than those of the first blocks and would have little influence (Head2Toe, see
    ``models.trial_config.NetworkConfig``, scales each level to the same norm).

    Args:
        spec: hidden layers in the syntax of ``models.heads.spec``.
        widths: number of features of each level, f in total.
        num_classes: k.
        dropout: dropout probability in front of each linear layer.

    Raises:
        SettingError: see ``validate_head``.
    """
    layers: list[nn.Module] = [PerLevelRMSNorm(widths)] if len(widths) > 1 else []
    in_features = sum(widths)
    for hidden in hidden_layers(spec):
        layers += [nn.Dropout(dropout), nn.Linear(in_features, hidden.units)]
        layers += [nn.BatchNorm1d(hidden.units)] if hidden.norm else []
        layers += [ACTIVATIONS[hidden.activation]()]
        in_features = hidden.units
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(in_features, num_classes))
