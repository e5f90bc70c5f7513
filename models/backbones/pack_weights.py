"""Packing the weights of networks into a folder, on a machine that reaches the model hub."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save

from data.atomic_write import write_atomically
from models.backbones.factory import create_backbone, license_of, preprocessing_for
from models.backbones.weights_folder import INDEX, PackedNetwork, WeightsIndex, read_index

IMAGE_SIZE = 224  # px; of the preprocessing in the index, which is the same at other sizes


def pack_weights(names: Sequence[str], folder: Path, weights: str = "hub") -> WeightsIndex:
    """Add the weights of networks to a folder, from the source ``weights``; return all networks of the folder.

    Raises:
        BackboneError: a network is unknown, or its weights are unavailable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    networks = dict(read_index(folder).networks) if (folder / INDEX).exists() else {}
    for name in names:
        backbone = create_backbone(name, weights, image_size=None)
        content = save({key: value.contiguous() for key, value in backbone.network.state_dict().items()})
        file = f"{backbone.name.replace('/', '--')}.safetensors"
        write_atomically(folder / file, content)
        networks[backbone.name] = PackedNetwork(
            file=file,
            sha256=hashlib.sha256(content).hexdigest(),
            license=license_of(backbone.name),
            preprocessing=preprocessing_for(backbone.name, IMAGE_SIZE),
        )
        write_atomically(folder / INDEX, WeightsIndex(networks=networks).to_json(indent=2).encode())
    return WeightsIndex(networks=networks)
