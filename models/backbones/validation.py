"""Checks that backbones and their weights are available before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from data.errors import BackboneError
from models.backbones.factory import create_backbone, resolve
from models.backbones.weights import hub_errors, is_weights_folder, source_error, weights_source


class BackboneRequest(NamedTuple):
    """A backbone and its weights as the user names them, and the required image size if it is known."""

    backbone: str
    weights: str
    image_size: int | None = None


def validate_backbones(requests: Iterable[BackboneRequest]) -> None:
    """Check that backbones and their weights are available; load local files, and run networks of known image size.

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
    try:
        resolved, problems = resolve(request.backbone), list[str]()
    except BackboneError as error:
        resolved, problems = "", list(error.problems)
    if resolved or (weights_source(resolved, request.weights) == "file" and not is_weights_folder(request.weights)):
        problems += filter(None, [source_error(resolved, request.weights)])
    return resolved, problems


def _load_errors(request: BackboneRequest, weights: str) -> tuple[str, ...]:
    try:
        create_backbone(request.backbone, weights, request.image_size)
    except BackboneError as error:
        return error.problems
    return ()
