"""Backbones by name: networks without their classifier, their weights and their preprocessing.

A name is ``timm/NAME`` (a tag as in ``resnet34.a1_in1k`` is allowed), ``torchvision/NAME`` or
``freezeline/small_cnn``; a name without a library is looked up in freezeline, timm and torchvision, in this order.
timm and torchvision take seconds to import, so they are imported lazily; the names and the preprocessing of the offline
backbones need neither.

Shapes: b images of s x s pixels, f features.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.errors import BackboneError, did_you_mean, first_line
from data.preprocessing import INTERPOLATIONS, Preprocessing
from models.backbones.timm_import import import_timm
from models.backbones.weight_packages import PACKAGES, unpretrained, weights_license
from models.backbones.weights import HINT, load_weights, source_error, weights_file, weights_source

LIBRARIES = ("freezeline", "timm", "torchvision")
IMAGENET_CLASSES = 1000  # outputs of the classifier in torchvision's networks


@dataclass(frozen=True)
class Backbone:
    """A network [b, 3, s, s] -> [b, f] without its classifier, f, and its name with the library."""

    network: nn.Module
    num_features: int
    name: str


def resolve(name: str) -> str:
    """Return the name with its library: ``resnet34`` becomes ``timm/resnet34``.

    Raises:
        BackboneError: unknown backbone; the message suggests the nearest names.
    """
    library, slash, architecture = name.rpartition("/")
    candidates = [name] if slash else [f"{known}/{name}" for known in LIBRARIES]
    for candidate in candidates:
        if candidate in PACKAGES or candidate in unpretrained() or _exists(candidate):
            return candidate
    rule = "backbone must be an image classifier's name as NAME, timm/NAME or torchvision/NAME"
    untagged = architecture.partition(".")[0].lower()
    hint = did_you_mean(untagged, sorted(set(_names(library)))) or "; timm.list_models() in Python lists most names"
    raise BackboneError(f"{rule}, got {name!r}{hint}")


def preprocessing_for(name: str, image_size: int) -> Preprocessing:
    """Return a backbone's preprocessing: its mean, std and interpolation, with a center crop of the full short side.

    Raises:
        BackboneError: unknown backbone.
        ValueError: the image size is invalid (see ``Preprocessing``).
    """
    resolved = resolve(name)
    library, _, architecture = resolved.partition("/")
    if resolved in PACKAGES:
        package = PACKAGES[resolved]
        return Preprocessing(image_size, 1.0, package.interpolation, package.mean, package.std)
    if resolved in unpretrained():
        return Preprocessing(image_size, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if library == "timm":
        from timm.models import PretrainedCfg, get_pretrained_cfg

        config = get_pretrained_cfg(architecture) or PretrainedCfg()
        return _preprocessing(image_size, config.interpolation, config.mean, config.std)
    from torchvision.models import get_model_weights

    transforms = get_model_weights(architecture).DEFAULT.transforms()
    return _preprocessing(image_size, transforms.interpolation.value, transforms.mean, transforms.std)


def license_of(name: str) -> str:
    """Return the license of a backbone's pretrained weights; empty if it is unknown. The name has its library."""
    library, _, architecture = name.partition("/")
    if weights_license(name) or library != "timm":
        return weights_license(name)
    from timm.models import get_pretrained_cfg

    return str(getattr(get_pretrained_cfg(architecture), "license", None) or "")


def _preprocessing(image_size: int, interpolation: str, mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    supported = interpolation if interpolation in INTERPOLATIONS else "bicubic"  # not timm's "random", for example
    return Preprocessing(image_size, 1.0, supported, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def create_backbone(name: str, weights: str = "auto", image_size: int | None = 224) -> Backbone:
    """Return a backbone for images of ``image_size`` (None: the library's default size), in training mode.

    Tensors that the weights don't contain are initialized from torch's random state: seed it first.

    Raises:
        BackboneError: unknown backbone, unavailable or mismatched weights, or unsupported image size.
    """
    resolved = resolve(name)
    library, _, architecture = resolved.partition("/")
    create = {"timm": _create_timm, "torchvision": _create_torchvision}.get(library, _create_freezeline)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about initialization and deprecated torch functions
        network: nn.Module = create(architecture, resolved, weights, image_size)
        return Backbone(network, _count_features(network, resolved, image_size), resolved)


def _names(library: str) -> list[str]:
    libraries = (library,) if library in LIBRARIES else LIBRARIES
    names: list[str] = []
    if "freezeline" in libraries:
        names += [name.partition("/")[2] for name in unpretrained()]
    if "timm" in libraries:
        import_timm()
        from timm import list_models

        names += list_models()
    if "torchvision" in libraries:
        import_timm()
        from torchvision import models

        names += models.list_models(module=models)
    return names


def _exists(candidate: str) -> bool:
    library, _, architecture = candidate.partition("/")
    if library == "timm":
        import_timm()
        from timm import list_models

        return architecture in list_models() or architecture in list_models(pretrained=True)
    return library == "torchvision" and architecture in _names("torchvision")


def _create_freezeline(_architecture: str, name: str, weights: str, _image_size: int | None) -> nn.Module:
    problem = source_error(name, weights)
    if problem:
        raise BackboneError(problem)
    module, _, class_name = unpretrained()[name].partition(":")
    network: nn.Module = getattr(importlib.import_module(module), class_name)()
    return network


def _create_timm(architecture: str, name: str, weights: str, image_size: int | None) -> Any:  # noqa: ANN401
    import_timm()
    import timm

    source = weights_source(name, weights)
    network = _create(name, lambda: timm.create_model(architecture, pretrained=source == "hub", num_classes=0))
    is_fixed_size = image_size is not None and bool(network.pretrained_cfg.get("fixed_input_size"))
    is_resizable = hasattr(network, "set_input_size")
    if is_fixed_size and not is_resizable:
        kwargs: dict[str, Any] = {"pretrained": source == "hub", "num_classes": 0, "img_size": image_size}
        network = _create(name, lambda: timm.create_model(architecture, **kwargs))
    if source in {"package", "file"}:
        head = network.pretrained_cfg.get("classifier") or ()
        load_weights(network, weights_file(name, weights), (head,) if isinstance(head, str) else tuple(head))
    if is_fixed_size and is_resizable:
        _with_image_size(name, image_size, lambda: network.set_input_size(img_size=(image_size, image_size)))
    return network


def _create_torchvision(architecture: str, name: str, weights: str, image_size: int | None) -> Any:  # noqa: ANN401
    import_timm()
    source = weights_source(name, weights)
    network = _torchvision_network(architecture, name, pretrained=source == "hub")
    head = _remove_classifier(network)
    if source in {"package", "file"}:
        load_weights(network, weights_file(name, weights), (head,))
    if image_size in (None, getattr(network, "image_size", image_size)):
        return network
    # torchvision's networks with position embeddings are built for one size; the embeddings are interpolated.
    from torchvision.models.vision_transformer import interpolate_embeddings

    resized = _torchvision_network(architecture, name, pretrained=False, image_size=image_size)
    _remove_classifier(resized)
    patch_size, state = network.patch_size, network.state_dict()
    resized.load_state_dict(
        _with_image_size(name, image_size, lambda: interpolate_embeddings(image_size, patch_size, state))
    )
    return resized


def _torchvision_network(architecture: str, name: str, pretrained: bool, **kwargs: int | None) -> Any:  # noqa: ANN401
    from torchvision.models import get_model

    return _create(name, lambda: get_model(architecture, weights="DEFAULT" if pretrained else None, **kwargs))


def _remove_classifier(network: nn.Module) -> str:
    """Remove the last layer with ``IMAGENET_CLASSES`` outputs and the dropout before it; return the layer's path."""
    candidates: list[str] = [
        path
        for path, module in network.named_modules()
        if IMAGENET_CLASSES in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]
    parent_path, _, name = candidates[-1].rpartition(".")
    parent = network.get_submodule(parent_path)
    siblings = [child for child, _ in parent.named_children()]
    previous = siblings[: siblings.index(name)][-1:]
    for child in [name, *(child for child in previous if isinstance(parent.get_submodule(child), nn.Dropout))]:
        setattr(parent, child, nn.Identity())
    return candidates[-1]


def _create(name: str, factory: Callable[[], Any]) -> Any:  # noqa: ANN401  (timm and torchvision are untyped)
    try:
        return factory()
    except Exception as error:  # a hub or a library's constructor can raise any class
        raise BackboneError(f"{name} can't be created with its weights: {first_line(error)}; {HINT}") from error


def _with_image_size(name: str, image_size: int | None, run: Callable[[], Any]) -> Any:  # noqa: ANN401
    try:
        return run()
    except Exception as error:  # forward is library code that can raise any class
        reason = f"{name} does not accept images of {image_size} px: {first_line(error)}"
        raise BackboneError(f"{reason}; choose another image_size or backbone") from error


def _count_features(network: nn.Module, name: str, image_size: int | None) -> int:
    """Run the network once in eval mode and return its number of features."""
    if image_size is None:
        return int(getattr(network, "num_features", 0))
    network.eval()
    with torch.no_grad():
        features = _with_image_size(name, image_size, lambda: network(torch.zeros(1, 3, image_size, image_size)))
    network.train()
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise BackboneError(
            f"backbone must return one feature vector per image, but {name} does not; choose another backbone"
        )
    return features.shape[1]
