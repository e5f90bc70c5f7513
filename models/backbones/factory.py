"""From a name to a network without its classifier, its weights, and how its pictures are prepared.

A name is ``timm/NAME`` (a tag as in ``resnet34.a1_in1k`` is allowed), ``torchvision/NAME`` or
``freezeline/small_cnn``; without a library ours is asked first, then timm. timm and torchvision take seconds to
import, so they are imported where they are needed; the offline backbones' names and preprocessing need neither.

Shapes: b pictures of s pixels a side, f features.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.errors import BackboneError, did_you_mean
from data.preprocessing import INTERPOLATIONS, Preprocessing
from models.backbones.weight_packages import PACKAGES, UNPRETRAINED
from models.backbones.weights import HINT, load_weights, unpretrained_error, weights_file, weights_source

LIBRARIES = ("freezeline", "timm", "torchvision")
IMAGENET_CLASSES = 1000  # ImageNet's: the classifier that torchvision's networks are made with


@dataclass(frozen=True)
class Backbone:
    """A network that takes [b, 3, s, s] and returns [b, f]; ``features`` is f, ``name`` has its library."""

    network: nn.Module
    num_features: int
    name: str


def resolve(name: str) -> str:
    """Return the name with its library: ``resnet34`` becomes ``timm/resnet34``.

    Raises:
        BackboneError: no such classifier; the nearest names are said.
    """
    library, slash, architecture = name.rpartition("/")
    candidates = [name] if slash else [f"{known}/{name}" for known in LIBRARIES]
    for candidate in candidates:
        if candidate in PACKAGES or candidate in UNPRETRAINED or _exists(candidate):
            return candidate
    rule = "backbone must be an image classifier's name as NAME, timm/NAME or torchvision/NAME"
    word = architecture.partition(".")[0].lower()
    near = did_you_mean(word, sorted(set(_names(library)))) or "; timm.list_models() in Python shows most of them"
    raise BackboneError(f"{rule}, got {name!r}{near}")


def preprocessing_for(name: str, image_size: int) -> Preprocessing:
    """Return how pictures are prepared for a backbone: its own mean, std and interpolation, the whole short side.

    Raises:
        BackboneError: no such backbone.
        ValueError: an image size that ``Preprocessing`` refuses.
    """
    resolved = resolve(name)
    library, _, architecture = resolved.partition("/")
    if resolved in PACKAGES:
        package = PACKAGES[resolved]
        return Preprocessing(image_size, 1.0, package.interpolation, package.mean, package.std)
    if resolved in UNPRETRAINED:
        return Preprocessing(image_size, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if library == "timm":
        from timm.models import PretrainedCfg, get_pretrained_cfg

        config = get_pretrained_cfg(architecture) or PretrainedCfg()
        return _preprocessing(image_size, config.interpolation, config.mean, config.std)
    from torchvision.models import get_model_weights

    transforms = get_model_weights(architecture).DEFAULT.transforms()
    return _preprocessing(image_size, transforms.interpolation.value, transforms.mean, transforms.std)


def _preprocessing(image_size: int, interpolation: str, mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    known = interpolation if interpolation in INTERPOLATIONS else "bicubic"  # timm's "random" and the like
    return Preprocessing(image_size, 1.0, known, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def create_backbone(name: str, weights: str = "auto", image_size: int | None = 224) -> Backbone:
    """Return a backbone for pictures of ``image_size`` (None: of the library's own size), in training mode.

    Where weights don't say otherwise, torch's random state decides: seed it before.

    Raises:
        BackboneError: no such backbone, its weights can't be had or don't fit, or it can't take this image size.
    """
    resolved = resolve(name)
    library, _, architecture = resolved.partition("/")
    create = {"timm": _create_timm, "torchvision": _create_torchvision}.get(library, _create_own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own: how they will initialize, what torch will deprecate
        network: nn.Module = create(architecture, resolved, weights, image_size)
        return Backbone(network, _features(network, resolved, image_size), resolved)


def _names(library: str) -> list[str]:
    libraries = (library,) if library in LIBRARIES else LIBRARIES
    names: list[str] = []
    if "freezeline" in libraries:
        names += [name.partition("/")[2] for name in UNPRETRAINED]
    if "timm" in libraries:
        from timm import list_models

        names += list_models()
    if "torchvision" in libraries:
        from torchvision import models

        names += models.list_models(module=models)
    return names


def _exists(candidate: str) -> bool:
    library, _, architecture = candidate.partition("/")
    if library == "timm":
        from timm import list_models

        return architecture in list_models() or architecture in list_models(pretrained=True)
    return library == "torchvision" and architecture in _names("torchvision")


def _create_own(_architecture: str, name: str, weights: str, _image_size: int | None) -> nn.Module:
    problem = unpretrained_error(name, weights)
    if problem:
        raise BackboneError(problem)
    module, _, kind = UNPRETRAINED[name].partition(":")
    network: nn.Module = getattr(importlib.import_module(module), kind)()
    return network


def _create_timm(architecture: str, name: str, weights: str, image_size: int | None) -> Any:  # noqa: ANN401
    import timm

    source = weights_source(name, weights)
    network = _create(name, lambda: timm.create_model(architecture, pretrained=source == "hub", num_classes=0))
    fixed = image_size is not None and bool(network.pretrained_cfg.get("fixed_input_size"))
    resizable = hasattr(network, "set_input_size")
    if fixed and not resizable:
        sized: dict[str, Any] = {"pretrained": source == "hub", "num_classes": 0, "img_size": image_size}
        network = _create(name, lambda: timm.create_model(architecture, **sized))
    if source in {"package", "file"}:
        heads = network.pretrained_cfg.get("classifier") or ()
        load_weights(network, weights_file(name, weights), (heads,) if isinstance(heads, str) else tuple(heads))
    if fixed and resizable:
        _with_image_size(name, image_size, lambda: network.set_input_size(img_size=(image_size, image_size)))
    return network


def _create_torchvision(architecture: str, name: str, weights: str, image_size: int | None) -> Any:  # noqa: ANN401
    source = weights_source(name, weights)
    network = _torchvision_network(architecture, name, pretrained=source == "hub")
    head = _without_classifier(network)
    if source in {"package", "file"}:
        load_weights(network, weights_file(name, weights), (head,))
    if image_size in (None, getattr(network, "image_size", image_size)):
        return network
    # torchvision's networks with position embeddings are made for one size; it has a function that resizes them.
    from torchvision.models.vision_transformer import interpolate_embeddings

    resized = _torchvision_network(architecture, name, pretrained=False, image_size=image_size)
    _without_classifier(resized)
    patch, state = network.patch_size, network.state_dict()
    resized.load_state_dict(
        _with_image_size(name, image_size, lambda: interpolate_embeddings(image_size, patch, state))
    )
    return resized


def _torchvision_network(architecture: str, name: str, pretrained: bool, **options: int | None) -> Any:  # noqa: ANN401
    from torchvision.models import get_model

    return _create(name, lambda: get_model(architecture, weights="DEFAULT" if pretrained else None, **options))


def _without_classifier(network: nn.Module) -> str:
    """Take the last layer with ``CLASSES`` outputs off, and the dropout right before it; return the layer's path."""
    layers: list[str] = [
        path
        for path, module in network.named_modules()
        if IMAGENET_CLASSES in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]
    parent_path, _, name = layers[-1].rpartition(".")
    parent = network.get_submodule(parent_path)
    siblings = [child for child, _ in parent.named_children()]
    before = siblings[: siblings.index(name)][-1:]
    for child in [name, *(child for child in before if isinstance(parent.get_submodule(child), nn.Dropout))]:
        setattr(parent, child, nn.Identity())
    return layers[-1]


def _create(name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401  (timm and torchvision carry no types)
    try:
        return make()
    except Exception as error:  # what goes wrong with a hub or in a library's constructor is of any class
        raise BackboneError(f"{name} can't be created with its weights: {_first_line(error)}; {HINT}") from error


def _with_image_size(name: str, image_size: int | None, run: Callable[[], Any]) -> Any:  # noqa: ANN401
    try:
        return run()
    except Exception as error:  # forward is the library's code and raises anything
        reason = f"{name} can't take pictures of {image_size} px: {_first_line(error)}"
        raise BackboneError(f"{reason}; choose another image_size or backbone") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _features(network: nn.Module, name: str, image_size: int | None) -> int:
    """Run the network once in eval mode and return how many numbers it gives for a picture."""
    if image_size is None:
        return int(getattr(network, "num_features", 0))
    network.eval()
    with torch.no_grad():
        result = _with_image_size(name, image_size, lambda: network(torch.zeros(1, 3, image_size, image_size)))
    network.train()
    if not isinstance(result, torch.Tensor) or result.ndim != 2:
        raise BackboneError(f"{name} doesn't give one row of features for a picture; choose another backbone")
    return result.shape[1]
