"""``tune --from NAME@champion``: a search that starts from the configuration of a registered version.

The version is looked up once, and the recipe keeps its number and its settings: a resumed search starts from the same
configuration, also if there is another champion by then.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.dataset.dataset import Dataset
from data.errors import DataError, SettingError, TrackingError
from data.text import pluralize
from tuning.common.names import VARIANT
from tuning.common.promotion_types import Candidate
from tuning.recipe.auto import variants_of
from tuning.recipe.domains import Categorical, Domain
from tuning.recipe.schema import Recipe, TrainingSettings, Variant
from tuning.registry.candidate_store import find_version, load_candidate_of_version
from tuning.registry.client import CHAMPION, ModelRegistry
from tuning.registry.gate import DIGEST_PREFIX_LENGTH, class_changes
from tuning.search.start_trial import start_settings
from tuning.tracking.connection import connect_to_existing

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.common.option_types import ParamValue

SHARED_WEIGHTS = ("auto", "package", "hub")  # exist for several networks; other files fit one
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A search's recipe with the configuration that it starts from, and the champion that its model must beat."""

    recipe: Recipe
    champion: Candidate | None = None
    champion_version: int | None = None

    @property
    def test_hashes(self) -> tuple[str, ...]:
        """The truncated content hashes of the champion's test images, which must stay test images."""
        return self.champion.test_hashes if self.champion else ()

    def check(self, dataset: Dataset) -> None:
        """Check that the gate can compare both models on images that neither was trained on; warn of other classes.

        Raises:
            DataError: a test image of the champion would be trained on, or the champion was trained on all test images.
        """
        if self.champion is None:
            return
        name = f"version {self.champion_version} of {self.champion.name}"
        hashes = {split: _hashes(dataset, split == "test") for split in ("development", "test")}
        moved = len(hashes["development"] & set(self.champion.test_hashes))
        if moved:
            raise DataError(
                f"test images of {name} must not be used for training or validation, but {dataset.root} has "
                f"{pluralize(moved, 'such image')} there; move them back to the test split, or use the path and the "
                "FREEZELINE_HOME of the search that made that version"
            )
        seen = hashes["test"] & set(self.champion.seen_hashes)
        if seen == hashes["test"]:
            raise DataError(
                f"the test split must have images that {name} was not trained on, but {dataset.root} has none; add "
                "images, or use the FREEZELINE_HOME of the search that made that version"
            )
        if changes := class_changes(self.champion.classes, dataset.classes):
            logger.warning(
                "%s has other classes (%s), so the gate cannot compare the models; freezeline promote RUN_ID --force "
                "REASON replaces it after the search",
                name,
                changes,
            )
        elif seen:
            logger.info(
                "%s was trained on %d of the %d test images: the gate leaves these out",
                name,
                len(seen),
                len(hashes["test"]),
            )


def _hashes(dataset: Dataset, is_test: bool) -> set[str]:
    samples = dataset.split("test") if is_test else dataset.development
    return {sample.content_hash[:DIGEST_PREFIX_LENGTH] for sample in samples}


def load_start(recipe: Recipe) -> Start:
    """Return the recipe with the version of its ``start_from``, whose networks are added to the space.

    Raises:
        UserError: there is no such version, or the tracking store is not available.
    """
    if not recipe.start_from:
        return Start(recipe)
    if recipe.tracking == "offline":
        raise SettingError(
            f"start_from needs tracking=server, because the registry has the configuration of {recipe.start_from}, "
            "got offline; remove one of the two"
        )
    client = connect_to_existing()
    name, version = find_version(client, recipe.start_from, "start_from")
    candidate = load_candidate_of_version(client, name, version)
    recipe = with_configuration(recipe, candidate, version)
    return Start(recipe, *_champion(client, recipe.name, candidate, version))


def _champion(client: MlflowClient, name: str, start: Candidate, version: int) -> tuple[Candidate | None, int | None]:
    """Return the champion of ``name`` and its version; None if there is none or its candidate cannot be read."""
    registry = ModelRegistry(client, name)
    with contextlib.suppress(TrackingError):
        registry.check_exists()
        champion = registry.version_of_alias(CHAMPION)
        if (name, champion) == (start.name, version):
            return start, version
        if champion is not None:
            return load_candidate_of_version(client, name, champion), champion
    return None, None


def with_configuration(recipe: Recipe, candidate: Candidate, version: int) -> Recipe:
    """Return the recipe with the settings of a version's networks, and its space extended by these networks.

    Name and weights are those of the version unless the recipe has its own.
    """
    configs = [member.config for member in candidate.members]
    changes: dict[str, object] = {"start_from": f"{candidate.name}@{version}", "name": recipe.name or candidate.name}
    weights = {config.network.weights for config in configs}
    if "weights" not in recipe.model_fields_set and len(weights) == 1:
        changes["weights"] = (source := weights.pop())
        if recipe.backbone is None and not (source in SHARED_WEIGHTS or Path(source).expanduser().is_dir()):
            changes["backbone"] = Categorical(options=tuple({config.network.backbone: 0 for config in configs}))
    recipe = recipe.model_copy(update=changes)
    starts = []
    for config in configs:
        settings = start_settings(config)
        recipe, variant = _with_network(recipe, config.network.backbone, config.preprocessing.image_size)
        starts.append({**({VARIANT: variant} if variant else {}), **settings})
    return recipe.model_copy(update={"start_settings": tuple(starts)})


def _with_network(recipe: Recipe, backbone: str, image_size: int) -> tuple[Recipe, str]:
    """Return the recipe whose space contains a network, and the variant that contains it (empty without variants).

    Where ``backbone`` or ``image_size`` is open it stays open: ``tuning.recipe.auto`` adds the values of the start.
    """
    if not recipe.variants:
        return recipe.model_copy(update=_extended(recipe, backbone, image_size)), ""
    spaces = [_extended(space, backbone, image_size) for space in variants_of(recipe)]
    index = next((index for index, changes in enumerate(spaces) if not changes), 0)
    variants = list(recipe.variants)
    texts = {name: str(domain) for name, domain in spaces[index].items()}
    variants[index] = Variant(name=variants[index].name, settings={**variants[index].settings, **texts})
    return recipe.model_copy(update={"variants": tuple(variants)}), variants[index].name


def _extended(training: TrainingSettings, backbone: str, image_size: int) -> dict[str, Domain]:
    """Return the domains that a network adds a value to, with that value."""
    domains: dict[str, Domain] = {}
    if training.backbone is not None and backbone not in training.backbone.options:
        domains["backbone"] = _with_option(training.backbone.options, backbone)
    if training.image_size is not None and image_size not in training.image_size.options:
        domains["image_size"] = _with_option(training.image_size.options, image_size)
    return domains


def _with_option(options: tuple[ParamValue, ...], option: ParamValue) -> Categorical:
    return Categorical(options=(*options, option))
