"""Pack pretrained weights into a folder, for machines that reach no model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import Several

EXAMPLE = "freezeline weights pack resnet34 mobilenetv2_100 --to weights"
POSITIONALS = ("action", "backbones")


class Options(FrozenModel):
    """The options of ``weights``."""

    action: Literal["pack"] = Field(description="pack: save the weights of networks in a folder")
    backbones: Several = Field((), description="networks: NAME, timm/NAME or torchvision/NAME")
    recipe: str = Field("", description="add the networks of a recipe: a name, or a .yaml file")
    to: str = Field(min_length=1, description="folder; networks that it has already are kept")


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Save each network with its preprocessing, license and checksum, and print how to use the folder."""
    from models.backbones.pack_weights import pack_weights
    from models.backbones.validation import BackboneRequest, validate_backbones
    from tuning.ui.console import print_tables

    names = list(dict.fromkeys([*options.backbones, *(networks_of(options.recipe) if options.recipe else ())]))
    if not names:
        raise SettingError("backbones must be one or more networks, or a recipe must be given, got neither")
    validate_backbones(BackboneRequest(name, "hub") for name in names)
    folder = Path(options.to).expanduser()
    index = pack_weights(names, folder)
    for name, network in index.networks.items():
        print_tables(f"{name}: {network.file}, license {network.license or 'unknown'}")
    print_tables(f"use them where no hub is reachable: freezeline tune photos/ --weights {options.to}")
    return 0


def networks_of(recipe: str) -> list[str]:
    """Return the networks of a recipe that have pretrained weights on the hub.

    Those that ``backbone=auto`` adds on a GPU are left out: a search uses all networks of a folder, also on a CPU.
    """
    from models.backbones.factory import resolve
    from models.backbones.weights import weights_source
    from tuning.recipe.auto import requested_networks, variants_of
    from tuning.recipe.loader import load_recipe

    variants = variants_of(load_recipe({"recipe": recipe}))
    requests = [request for variant in variants for request in requested_networks(variant, on_gpu=False)]
    names = dict.fromkeys(resolve(request.backbone) for request in requests)
    return [name for name in names if weights_source(name, "auto") == "hub"]
