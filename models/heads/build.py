"""Building a classifier head from its specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.heads.spec import hidden_layers

if TYPE_CHECKING:
    from torch import nn


def build_head(spec: str, widths: Sequence[int], num_classes: int, dropout: float) -> nn.Module:
    """Return what turns features [b, f] into logits [b, k].

    ``widths`` says how many features each level gives, f in all. Of several levels each is divided by its root mean
    square first: the last blocks' numbers are many times smaller than the first blocks', and would hardly count
    (Head2Toe, as in ``models.classifier``, scales each level to the same norm).

    Raises:
        SettingError: as ``validate_head``.
    """
    from torch import nn

    from models.heads.level_norm import PerLevelRMSNorm

    activations = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
    layers: list[nn.Module] = [PerLevelRMSNorm(widths)] if len(widths) > 1 else []
    features = sum(widths)
    for hidden in hidden_layers(spec):
        layers += [nn.Dropout(dropout), nn.Linear(features, hidden.units)]
        layers += [nn.BatchNorm1d(hidden.units)] if hidden.norm else []
        layers += [activations[hidden.activation]()]
        features = hidden.units
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(features, num_classes))
