"""Specification of a head, the layers from a backbone's features to the user's classes.

A head is ``linear``, or hidden layers joined by ``+``, each ``SIZE[:relu|leaky_relu][:norm]``:

    256                             256 units, ReLU
    512:norm:relu                   batch norm before the activation
    256:leaky_relu+128:relu         two hidden layers

Dropout precedes every linear layer. This module does not import torch, so that a specification is validated quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data.errors import SettingError, did_you_mean

HeadFeatures = Literal["last", "all"]  # input of the head: features of the last block, or of all blocks
LINEAR = "linear"
ACTIVATIONS = ("relu", "leaky_relu")
NORM = "norm"
MAX_UNITS = 16384  # a wider layer is a typo: it would have more parameters than the backbone
HINT = "write linear, or layers as 256, 512:norm:relu or 256:leaky_relu+128:relu"


@dataclass(frozen=True)
class HiddenLayer:
    """One hidden layer: its number of units, its activation, and whether batch norm precedes the activation."""

    units: int
    activation: str
    norm: bool


def hidden_layers(text: str) -> tuple[HiddenLayer, ...]:
    """Return a head's hidden layers, first to last; empty for ``linear``.

    Raises:
        SettingError: the specification is invalid.
    """
    return () if text == LINEAR else tuple(_hidden_layer(layer, text) for layer in text.split("+"))


def _hidden_layer(layer: str, text: str) -> HiddenLayer:
    size, *modifiers = layer.split(":")
    activations = [modifier for modifier in modifiers if modifier in ACTIVATIONS]
    unknown = next((modifier for modifier in modifiers if modifier not in (*ACTIVATIONS, NORM)), None)
    is_number = size.isascii() and size.isdecimal() and len(size) <= len(str(MAX_UNITS))
    if not (is_number and 1 <= int(size) <= MAX_UNITS):
        rule = f"a head's layer must begin with its size, 1..{MAX_UNITS}"
        raise SettingError(_error(rule, text, did_you_mean(size, [LINEAR])))
    if unknown is not None:
        rule = f"the modifiers after the size of a head's layer must be {', '.join(ACTIVATIONS)} or {NORM}"
        raise SettingError(_error(rule, text, did_you_mean(unknown, (*ACTIVATIONS, NORM))))
    if len(activations) > 1 or modifiers.count(NORM) > 1:
        raise SettingError(_error(f"a head's layer must have at most one activation and one {NORM}", text))
    return HiddenLayer(int(size), activations[0] if activations else ACTIVATIONS[0], NORM in modifiers)


def _error(rule: str, text: str, hint: str = "") -> str:
    return f"{rule}, got {text!r}{hint or f'; {HINT}'}"
