"""Validate the inputs of a search or a training before the first trial, and report all problems together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.dataset.dataset import Dataset
from data.errors import BackboneError, DataError, UserError
from data.load_dataset import load_dataset
from data.preprocessing import Preprocessing
from tuning.common import event_bus
from tuning.common.names import PROJECT_SOURCE_TAG
from tuning.recipe.auto import (
    TrainingT,
    auto_image_sizes,
    auto_truncations,
    fixed_options,
    max_truncation,
    requested_networks,
    variants_of,
)
from tuning.recipe.domains import Categorical
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.search.space import Preprocessings
from tuning.tracking.connection import connect
from tuning.tracking.system_metrics import system_metrics_enabled

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class SearchContext:
    """Validated inputs of a search or a training run.

    Attributes:
        client: tracking client; None with ``tracking=offline``.
        dataset: the loaded data set.
        preprocessings: preprocessing by backbone and image size.
        unsplittable_backbones: backbones that cannot be split into blocks.
    """

    client: MlflowClient | None
    dataset: Dataset
    preprocessings: Preprocessings
    unsplittable_backbones: frozenset[str]

    def resolve_auto(self, training: TrainingT) -> TrainingT:
        """Return the settings with backbones, image sizes and truncations filled in where unset, also per variant."""
        if not isinstance(training, Recipe) or not training.variants:
            return training.model_copy(update=self._auto_values(training))
        variants = []
        for variant in training.variants:
            values = self._auto_values(training.with_variant(variant))
            texts = {name: str(domain) for name, domain in values.items()}
            variants.append(variant.model_copy(update={"settings": {**variant.settings, **texts}}))
        return training.model_copy(update={"variants": tuple(variants)})

    def _auto_values(self, training: TrainingSettings) -> dict[str, Categorical]:
        """Return the values of the settings that are not set."""
        sizes = auto_image_sizes(self.dataset.median_short_side)
        networks = requested_networks(training)
        values = {
            "backbone": Categorical(options=tuple(network.backbone for network in networks)),
            "image_size": Categorical(options=sizes),
            "truncate": Categorical(options=auto_truncations(networks, sizes)),
        }
        return {name: domain for name, domain in values.items() if getattr(training, name) is None}


def prepare_context(
    training: TrainingSettings, given_run: str | None = None, on_valid: Callable[[], None] = lambda: None
) -> SearchContext:
    """Validate the backbones, the weights, the data set and the tracking server.

    Args:
        training: settings of a search or a training.
        given_run: run that ``mlflow run`` created for this command.
        on_valid: called if backbones and data are valid, before the tracking server is contacted, which takes seconds.

    Raises:
        UserError: with all problems.
    """
    from models.backbones.factory import preprocessing_for
    from models.backbones.validation import BackboneRequest, validate_backbones
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    variants = variants_of(training)
    networks = dict.fromkeys(network for variant in variants for network in requested_networks(variant))
    problems: list[str] = []
    with collect_errors(problems):
        validate_backbones(
            BackboneRequest(network.backbone, network.weights, *network.sizes[:1]) for network in networks
        )
    with collect_errors(problems):
        system_metrics_enabled()
    with collect_errors(problems):
        dataset = load_dataset(training.data, event_bus.emit_progress, keep_leaks=training.on_leak == "keep")
    if not problems:
        on_valid()
    client = None
    with collect_errors(problems):
        client = connect() if training.tracking == "server" else None
    with collect_errors(problems):
        if client and given_run:
            check_data_path_of_url_run(client, given_run, training.data)
    if problems:
        raise UserError(*problems)
    auto_sizes = auto_image_sizes(dataset.median_short_side)
    preprocessings: dict[tuple[str, int], Preprocessing] = {}
    unchecked = []
    for backbone, weights, fixed_sizes in networks:
        sizes = fixed_sizes or auto_sizes
        if backbone not in OFFLINE_BACKBONES:  # offline backbones accept every size
            unchecked += [BackboneRequest(backbone, weights, size) for size in sizes[1 if fixed_sizes else 0 :]]
        preprocessings |= {(backbone, size): preprocessing_for(backbone, size) for size in sizes}
    validate_backbones(unchecked)
    for variant in variants:
        _check_truncations(variant, auto_sizes)
    first_sizes = dict(reversed(preprocessings))
    unsplittable = frozenset(backbone for backbone, size in first_sizes.items() if _is_unsplittable(backbone, size))
    for variant in variants:
        _check_head_features(variant, unsplittable)
    return SearchContext(client, dataset, preprocessings, unsplittable)


def check_data_path_of_url_run(client: MlflowClient, given_run: str, data: str) -> None:
    """Reject a relative ``data`` path in a run from a git URL: it would be relative to MLflow's temporary clone.

    Raises:
        DataError: the path is relative.
    """
    if data == "demo" or "://" in data or Path(data).expanduser().is_absolute():
        return
    # The tag is FOLDER or file://FOLDER#SUBFOLDER for a local project, otherwise the cloned URL. The tag
    # mlflow.source.git.repoURL does not distinguish the two: a local clone has it, too.
    source = client.get_run(given_run).data.tags.get(PROJECT_SOURCE_TAG, ".")
    if not Path(source.partition("#")[0].removeprefix("file://")).is_dir():
        raise DataError(
            f"data must be an absolute path when the project is run from a URL, got {data!r}; use the absolute path"
        )


@contextmanager
def collect_errors(problems: list[str]) -> Iterator[None]:
    """Context manager: append the problems of a user's mistake to ``problems`` instead of raising it."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


def _is_unsplittable(backbone: str, size: int) -> bool:
    """Return whether a backbone cannot be split into blocks; this is logged once."""
    from models.backbones.pretrained_cache import pretrained
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    return backbone not in OFFLINE_BACKBONES and not pretrained(backbone, "none", size, 0).blocks[0].node


def _check_truncations(training: TrainingSettings, sizes: Sequence[int]) -> None:
    truncate = max((int(count) for count in fixed_options(training.truncate)), default=0)
    problems = []
    for network in requested_networks(training) if truncate else ():
        max_truncate = max_truncation(network, sizes, truncate)
        if truncate > max_truncate:
            problems.append(
                f"truncate must be 0..{max_truncate} for {network.backbone}, got {truncate}; "
                "python -m tuning blocks lists its blocks"
            )
    if problems:
        raise BackboneError(*problems)


def _check_head_features(training: TrainingSettings, unsplittable: frozenset[str]) -> None:
    backbones = [network.backbone for network in requested_networks(training) if network.backbone in unsplittable]
    if backbones and "last" not in training.head_features.options:
        raise BackboneError(
            f"head_features must be last for {backbones[0]}, which cannot be split into blocks, "
            f"got {training.head_features}; use head_features=last or another backbone"
        )
