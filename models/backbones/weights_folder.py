"""Folders of packed weights: networks by name, for machines that reach no model hub.

A folder holds a ``.safetensors`` file for each network, and ``weights.json`` with the checksum, license and
preprocessing of each.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from data.errors import BackboneError
from data.frozen_model import FrozenModel
from data.preprocessing import Preprocessing

INDEX = "weights.json"


class PackedNetwork(FrozenModel):
    """The weights of a network in a folder; ``license`` is empty if it is unknown."""

    file: str
    sha256: str
    license: str
    preprocessing: Preprocessing


class WeightsIndex(FrozenModel):
    """The networks of a folder by name with the library, such as ``timm/resnet34`` (``pack_weights`` writes it)."""

    networks: dict[str, PackedNetwork]


def read_index(folder: Path) -> WeightsIndex:
    """Return the networks of a folder.

    Raises:
        BackboneError: the folder has no index, or not one of ``pack_weights``.
    """
    try:
        return WeightsIndex.from_json((folder / INDEX).read_text())
    except (OSError, ValidationError) as error:
        raise BackboneError(
            f"a folder of weights must have {INDEX}, written by freezeline weights pack, got {folder}; "
            "pack the networks on a machine that reaches the hub"
        ) from error


def packed_file(folder: Path, name: str) -> Path:
    """Return the file of a network, whose name has its library, after checking its checksum.

    Raises:
        BackboneError: the folder does not have the network, or its file has changed.
    """
    index = read_index(folder)
    if name not in index.networks:
        have = ", ".join(index.networks) or "none"
        raise BackboneError(
            f"weights of {name} must be in {folder}, which has {have}; add them on a machine that reaches the hub: "
            f"freezeline weights pack {name} --to FOLDER"
        )
    network = index.networks[name]
    file = folder / network.file
    if not file.is_file() or _sha256(file) != network.sha256:
        raise BackboneError(f"{file} must be complete, but is not the packed file; copy the folder again")
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
