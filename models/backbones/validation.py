"""Checks that backbones and their weights are available before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from data.errors import BackboneError
from models.backbones.factory import create_backbone, resolve
from models.backbones.weight_packages import UNPRETRAINED
from models.backbones.weights import file_error, hub_errors, unpretrained_error, weights_source


class BackboneRequest(NamedTuple):
    """A backbone and its weights as the user names them, and the required image size if it is known."""

    backbone: str
    weights: str
    image_size: int | None = None


def validate_backbones(requests: Iterable[BackboneRequest]) -> None:
    """Check that backbones and their weights are available.

    A local file is loaded, and with an ``image_size`` the network is run once.

    Raises:
        BackboneError: all problems together: unknown backbone, missing file, tensors that don't fit, unreachable hub,
            unsupported image size. Backbones that need an unreachable hub share one message.
    """
    checked = [(request, *_check_names(request)) for request in requests]
    problems = [problem for *_, errors in checked for problem in errors]
    valid = [
        (request, weights_source(resolved, request.weights), resolved)
        for request, resolved, errors in checked
        if not errors
    ]
    unavailable = hub_errors(resolved for _, source, resolved in valid if source == "hub")
    for request, source, _ in valid:
        if source == "file" or (request.image_size and not (source == "hub" and unavailable)):
            problems += _load_errors(request, request.weights if source == "file" else "none")
    if problems or unavailable:
        raise BackboneError(*dict.fromkeys([*problems, *unavailable]))


def _check_names(request: BackboneRequest) -> tuple[str, list[str]]:
    """Return a backbone's resolved name, empty if it is unknown, and all errors that need neither a hub nor loading."""
    problems: list[str] = []
    try:
        resolved = resolve(request.backbone)
    except BackboneError as error:
        problems += error.problems
        resolved = ""
    source = weights_source(resolved, request.weights)
    if resolved in UNPRETRAINED:
        problems += filter(None, [unpretrained_error(resolved, request.weights)])
    elif source == "file" or (source == "package" and resolved):
        problems += filter(None, [file_error(resolved, request.weights)])
    return resolved, problems


def _load_errors(request: BackboneRequest, weights: str) -> tuple[str, ...]:
    try:
        create_backbone(request.backbone, weights, request.image_size)
    except BackboneError as error:
        return error.problems
    return ()
