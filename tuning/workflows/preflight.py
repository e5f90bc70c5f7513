"""Everything that can be wrong is found before the first trial, and said at once."""

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

# The tag of a run that mlflow run opened: the project's folder as file://FOLDER#PART or FOLDER, or the URL that it has
# cloned. (That the tag mlflow.source.git.repoURL is there says nothing: a clone of the user's own has it, too.)


@dataclass(frozen=True)
class SearchContext:
    """What a search stands on, checked: the tracking client, the data set, and how each network sees pictures.

    ``client`` is None where no server is asked (``tracking=offline``). ``uncut`` are networks that can't be cut in two.
    """

    client: MlflowClient | None
    dataset: Dataset
    preprocessings: Preprocessings
    unsplittable_backbones: frozenset[str]

    def resolve_auto(self, training: TrainingT) -> TrainingT:
        """Return the training, and its variants, with the networks and image sizes that were left open."""
        if not isinstance(training, Recipe) or not training.variants:
            return training.model_copy(update=self._auto_values(training))
        variants = []
        for variant in training.variants:
            found = {name: str(domain) for name, domain in self._auto_values(training.with_variant(variant)).items()}
            variants.append(variant.model_copy(update={"settings": {**variant.settings, **found}}))
        return training.model_copy(update={"variants": tuple(variants)})

    def _auto_values(self, training: TrainingSettings) -> dict[str, Categorical]:
        sizes = auto_image_sizes(self.dataset.median_short_side)
        networks = requested_networks(training)
        found = {
            "backbone": Categorical(options=tuple(network.backbone for network in networks)),
            "image_size": Categorical(options=sizes),
            "truncate": Categorical(options=auto_truncations(networks, sizes)),
        }
        return {name: domain for name, domain in found.items() if getattr(training, name) is None}


def prepare_context(
    training: TrainingSettings, given_run: str | None = None, on_valid: Callable[[], None] = lambda: None
) -> SearchContext:
    """Check the backbones and weights, the data set and the tracking server.

    ``given_run`` is the run that ``mlflow run`` opened. ``then`` is called when nothing is wrong and the server is
    still to be asked, which takes seconds.

    Raises:
        UserError: with all that is wrong.
    """
    from models.backbones.factory import preprocessing_for
    from models.backbones.validation import BackboneRequest, validate_backbones
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    networks = dict.fromkeys(network for part in variants_of(training) for network in requested_networks(part))
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
    preprocessings: dict[tuple[str, int], Preprocessing] = {}
    left = []
    for backbone, weights, given in networks:
        sizes = given or auto_image_sizes(dataset.median_short_side)
        if backbone not in OFFLINE_BACKBONES:  # those take every size
            left += [BackboneRequest(backbone, weights, size) for size in sizes[1 if given else 0 :]]
        preprocessings |= {(backbone, size): preprocessing_for(backbone, size) for size in sizes}
    validate_backbones(left)
    for part in variants_of(training):
        _check_truncations(part, auto_image_sizes(dataset.median_short_side))
    first_sizes = dict(reversed(preprocessings))
    uncut = frozenset(backbone for backbone, size in first_sizes.items() if _is_unsplittable(backbone, size))
    for part in variants_of(training):
        _check_head_features(part, uncut)
    return SearchContext(client, dataset, preprocessings, uncut)


def check_data_path_of_url_run(client: MlflowClient, given_run: str, data: str) -> None:
    """Refuse a relative ``data`` in a run from a git URL: it would start at MLflow's temporary clone.

    Raises:
        DataError: if it is one.
    """
    if data == "demo" or "://" in data or Path(data).expanduser().is_absolute():
        return
    source = client.get_run(given_run).data.tags.get(PROJECT_SOURCE_TAG, ".")
    if not Path(source.partition("#")[0].removeprefix("file://")).is_dir():
        raise DataError(f"data must be an absolute path in a run from a URL, got {data!r}; write the whole path")


@contextmanager
def collect_errors(problems: list[str]) -> Iterator[None]:
    """Within: a user's mistake is added to ``problems`` instead of raised."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


def _is_unsplittable(backbone: str, size: int) -> bool:
    """Return whether a network can't be cut in two; the log says so, once."""
    from models.backbones.pretrained_cache import pretrained
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    return backbone not in OFFLINE_BACKBONES and not pretrained(backbone, "none", size, 0).blocks[0].node


def _check_truncations(training: TrainingSettings, sizes: Sequence[int]) -> None:
    wanted = max((int(count) for count in fixed_options(training.truncate)), default=0)
    problems = []
    for network in requested_networks(training) if wanted else ():
        most = max_truncation(network, sizes, wanted)
        if wanted > most:
            rule = f"truncate must be 0..{most} for {network.backbone}"
            problems.append(f"{rule}, got {wanted}; python -m tuning blocks shows its blocks")
    if problems:
        raise BackboneError(*problems)


def _check_head_features(training: TrainingSettings, uncut: frozenset[str]) -> None:
    whole = [network.backbone for network in requested_networks(training) if network.backbone in uncut]
    if whole and "last" not in training.head_features.options:
        raise BackboneError(
            f"levels must be last for {whole[0]}, which can't be cut, got {training.head_features}; or choose another backbone"
        )
