"""Heads: from a backbone's features to the user's classes.

A head is written ``linear``, or as hidden layers with ``+`` between, each ``SIZE[:relu|leaky_relu][:norm]``:

    256                             256 units, ReLU
    512:norm:relu                   batch norm before the activation
    256:leaky_relu+128:relu         two hidden layers

Dropout comes before every linear layer. torch is imported late, so that a text is checked in no time.

Shapes: b pictures, f features, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data.errors import SettingError, did_you_mean

if TYPE_CHECKING:
    pass

HeadFeatures = Literal["last", "all"]  # what a head sees: of a network's last block, or of all blocks
LINEAR = "linear"
ACTIVATIONS = ("relu", "leaky_relu")
NORM = "norm"
MAX_UNITS = 16384  # a wider layer is a typo: it would hold more than the backbone
HINT = "write linear, or layers as 256, 512:norm:relu or 256:leaky_relu+128:relu"


@dataclass(frozen=True)
class HiddenLayer:
    """One hidden layer: how many units, which activation, whether batch norm comes before it."""

    units: int
    activation: str
    norm: bool


def validate_head(text: str) -> None:
    """Find out whether a head's text can be read.

    Raises:
        SettingError: it can't; the rule, the text and the next step are said.
    """
    hidden_layers(text)


def hidden_layers(text: str) -> tuple[HiddenLayer, ...]:
    """Return a head's hidden layers, first to last; none for ``linear``.

    Raises:
        SettingError: as ``validate_head``.
    """
    return () if text == LINEAR else tuple(_hidden_layer(layer, text) for layer in text.split("+"))


def _hidden_layer(layer: str, text: str) -> HiddenLayer:
    size, *words = layer.split(":")
    activations = [word for word in words if word in ACTIVATIONS]
    unknown = next((word for word in words if word not in (*ACTIVATIONS, NORM)), None)
    is_number = size.isascii() and size.isdecimal() and len(size) <= len(str(MAX_UNITS))
    if not (is_number and 1 <= int(size) <= MAX_UNITS):
        rule = f"a head's layer must begin with its size, 1..{MAX_UNITS}"
        raise SettingError(_error(rule, text, did_you_mean(size, [LINEAR])))
    if unknown is not None:
        known = f"what follows a layer's size in a head must be {', '.join(ACTIVATIONS)} or {NORM}"
        raise SettingError(_error(known, text, did_you_mean(unknown, (*ACTIVATIONS, NORM))))
    if len(activations) > 1 or words.count(NORM) > 1:
        raise SettingError(_error(f"a head's layer must have one activation and one {NORM} at most", text))
    return HiddenLayer(int(size), activations[0] if activations else ACTIVATIONS[0], NORM in words)


def _error(rule: str, text: str, near: str = "") -> str:
    return f"{rule}, got {text!r}{near or f'; {HINT}'}"
