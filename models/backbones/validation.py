"""Checks that backbones and their weights are available before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from data.errors import BackboneError
from models.backbones.factory import create_backbone, resolve
from models.backbones.weight_packages import UNPRETRAINED
from models.backbones.weights import file_error, hub_errors, unpretrained_error, weights_source


class BackboneRequest(NamedTuple):
    """A backbone and its weights as the user names them, and the size that it has to take, if that is known."""

    backbone: str
    weights: str
    image_size: int | None = None


def validate_backbones(requests: Iterable[BackboneRequest]) -> None:
    """Find out before anything starts whether backbones and their weights can be had.

    A local file is loaded for a try, and with an ``image_size`` the network is run once.

    Raises:
        BackboneError: all that is wrong: no such backbone, no such file, tensors that don't fit, no hub, no such size.
            All whose weights the hub would have to give share one sentence.
    """
    looked_up = [(wanted, *_look_up(wanted)) for wanted in requests]
    problems = [problem for *_, found in looked_up for problem in found]
    right = [
        (wanted, weights_source(resolved, wanted.weights), resolved)
        for wanted, resolved, found in looked_up
        if not found
    ]
    away = hub_errors(resolved for _, source, resolved in right if source == "hub")
    for wanted, source, _ in right:
        if source == "file" or (wanted.image_size and not (source == "hub" and away)):
            problems += _load_errors(wanted, wanted.weights if source == "file" else "none")
    if problems or away:
        raise BackboneError(*dict.fromkeys([*problems, *away]))


def _look_up(wanted: BackboneRequest) -> tuple[str, list[str]]:
    """Return a backbone's whole name, empty if there is none, and what can be seen to be wrong without asking a hub."""
    problems: list[str] = []
    try:
        resolved = resolve(wanted.backbone)
    except BackboneError as error:
        problems += error.problems
        resolved = ""
    source = weights_source(resolved, wanted.weights)
    if resolved in UNPRETRAINED:
        problems += filter(None, [unpretrained_error(resolved, wanted.weights)])
    elif source == "file" or (source == "package" and resolved):
        problems += filter(None, [file_error(resolved, wanted.weights)])
    return resolved, problems


def _load_errors(wanted: BackboneRequest, weights: str) -> tuple[str, ...]:
    try:
        create_backbone(wanted.backbone, weights, wanted.image_size)
    except BackboneError as error:
        return error.problems
    return ()
