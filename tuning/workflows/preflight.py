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
from tuning.recipe.auto import Some, _automatic_cuts, _given, _most_truncated, _networks, _parts, automatic_sizes
from tuning.recipe.domains import Choice
from tuning.recipe.schema import Recipe, Training
from tuning.search.space import Preprocessings
from tuning.tracking.connection import connect
from tuning.tracking.system_metrics import load_is_wanted

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The tag of a run that mlflow run opened: the project's folder as file://FOLDER#PART or FOLDER, or the URL that it has
# cloned. (That the tag mlflow.source.git.repoURL is there says nothing: a clone of the user's own has it, too.)
SOURCE = "mlflow.source.name"


@dataclass(frozen=True)
class Ground:
    """What a search stands on, checked: the tracking client, the data set, and how each network sees pictures.

    ``client`` is None where no server is asked (``tracking=spool``). ``uncut`` are networks that can't be cut in two.
    """

    client: MlflowClient | None
    dataset: Dataset
    preprocessings: Preprocessings
    uncut: frozenset[str]

    def settled(self, training: Some) -> Some:
        """Return the training, and its variants, with the networks and image sizes that were left open."""
        if not isinstance(training, Recipe) or not training.variants:
            return training.model_copy(update=self._left_open(training))
        variants = []
        for variant in training.variants:
            found = {name: str(domain) for name, domain in self._left_open(training.varied(variant)).items()}
            variants.append(variant.model_copy(update={"settings": {**variant.settings, **found}}))
        return training.model_copy(update={"variants": tuple(variants)})

    def _left_open(self, training: Training) -> dict[str, Choice]:
        sizes = automatic_sizes(self.dataset.median_side)
        networks = _networks(training)
        found = {
            "backbone": Choice(options=tuple(network.backbone for network in networks)),
            "image_size": Choice(options=sizes),
            "truncate": Choice(options=_automatic_cuts(networks, sizes)),
        }
        return {name: domain for name, domain in found.items() if getattr(training, name) is None}


def check_ground(training: Training, given_run: str | None = None, then: Callable[[], None] = lambda: None) -> Ground:
    """Check the backbones and weights, the data set and the tracking server.

    ``given_run`` is the run that ``mlflow run`` opened. ``then`` is called when nothing is wrong and the server is
    still to be asked, which takes seconds.

    Raises:
        UserError: with all that is wrong.
    """
    from models.backbones.factory import preprocessing_for
    from models.backbones.validation import Wanted, check_networks
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    networks = dict.fromkeys(network for part in _parts(training) for network in _networks(part))
    problems: list[str] = []
    with _gathered(problems):
        check_networks(Wanted(network.backbone, network.weights, *network.sizes[:1]) for network in networks)
    with _gathered(problems):
        load_is_wanted()
    with _gathered(problems):
        dataset = load_dataset(training.data, event_bus.progress, keep_leaks=training.leaks == "keep")
    if not problems:
        then()
    client = None
    with _gathered(problems):
        client = connect() if training.tracking == "server" else None
    with _gathered(problems):
        if client and given_run:
            check_from_url(client, given_run, training.data)
    if problems:
        raise UserError(*problems)
    preprocessings: dict[tuple[str, int], Preprocessing] = {}
    left = []
    for backbone, weights, given in networks:
        sizes = given or automatic_sizes(dataset.median_side)
        if backbone not in OFFLINE_BACKBONES:  # those take every size
            left += [Wanted(backbone, weights, size) for size in sizes[1 if given else 0 :]]
        preprocessings |= {(backbone, size): preprocessing_for(backbone, size) for size in sizes}
    check_networks(left)
    for part in _parts(training):
        _check_cuts(part, automatic_sizes(dataset.median_side))
    first_sizes = dict(reversed(preprocessings))
    uncut = frozenset(backbone for backbone, size in first_sizes.items() if _is_uncut(backbone, size))
    for part in _parts(training):
        _check_levels(part, uncut)
    return Ground(client, dataset, preprocessings, uncut)


def check_from_url(client: MlflowClient, given_run: str, data: str) -> None:
    """Refuse a relative ``data`` in a run from a git URL: it would start at MLflow's temporary clone.

    Raises:
        DataError: if it is one.
    """
    if data == "demo" or "://" in data or Path(data).expanduser().is_absolute():
        return
    source = client.get_run(given_run).data.tags.get(SOURCE, ".")
    if not Path(source.partition("#")[0].removeprefix("file://")).is_dir():
        raise DataError(f"data must be an absolute path in a run from a URL, got {data!r}; write the whole path")


@contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    """Within: a user's mistake is added to ``problems`` instead of raised."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


def _is_uncut(backbone: str, size: int) -> bool:
    """Return whether a network can't be cut in two; the log says so, once."""
    from models.backbones.pretrained_cache import prepared
    from models.backbones.weight_packages import OFFLINE_BACKBONES

    return backbone not in OFFLINE_BACKBONES and not prepared(backbone, "none", size, 0).blocks[0].node


def _check_cuts(training: Training, sizes: Sequence[int]) -> None:
    wanted = max((int(count) for count in _given(training.truncate)), default=0)
    problems = []
    for network in _networks(training) if wanted else ():
        most = _most_truncated(network, sizes, wanted)
        if wanted > most:
            rule = f"truncate must be 0..{most} for {network.backbone}"
            problems.append(f"{rule}, got {wanted}; python -m tuning blocks shows its blocks")
    if problems:
        raise BackboneError(*problems)


def _check_levels(training: Training, uncut: frozenset[str]) -> None:
    whole = [network.backbone for network in _networks(training) if network.backbone in uncut]
    if whole and "last" not in training.levels.options:
        raise BackboneError(
            f"levels must be last for {whole[0]}, which can't be cut, got {training.levels}; or choose another backbone"
        )
