"""Everything that can be wrong is found before the first trial, and said at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.dataset import Dataset, load_dataset
from data.errors import DataError, UserError
from data.preprocess import Preprocessing
from tuning.domains import Choice
from tuning.recipe import Training
from tuning.tracking.parent import connect
from tuning.views.progress import ProgressView

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLONED_FROM = "mlflow.source.git.repoURL"  # the tag of a run whose project mlflow run has cloned

# Side in px that pictures are resized to when the recipe leaves it open. Tiny pictures are enlarged, or a network
# that halves its input five times sees a point; larger ones cost time with the square of the side.
TINY_SIDE, TINY_SIZE = 32, 48
STEP = 32
LARGEST_AUTO = 128


@dataclass(frozen=True)
class Ground:
    """What a search stands on, checked: the tracking client, the data set, and each backbone's preprocessing."""

    client: MlflowClient
    dataset: Dataset
    preprocessings: Mapping[str, Preprocessing]


def check_ground(training: Training, given_run: str | None = None) -> Ground:
    """Check the backbones and weights, the tracking server and the data set.

    ``given_run`` is the run that ``mlflow run`` opened.

    Raises:
        UserError: with all that is wrong.
    """
    from models.backbones import OFFLINE_BACKBONES, check_weights, preprocessing_for

    backbones = _backbones(training)
    problems: list[str] = []

    for backbone in backbones:
        with _gathered(problems):
            check_weights(backbone, training.weights, training.image_size)
    client = None
    with _gathered(problems):
        client = connect()
    with _gathered(problems), ProgressView() as progress:
        if client and given_run:
            check_from_url(client, given_run, training.data)
        dataset = load_dataset(training.data, progress, keep_leaks=training.leaks == "keep")
    if problems or client is None:
        raise UserError(*problems)
    size = training.image_size or automatic_size(dataset.median_side)
    for backbone in backbones:
        if not training.image_size and backbone not in OFFLINE_BACKBONES:  # those take every size
            check_weights(backbone, training.weights, size)
    return Ground(client, dataset, {backbone: preprocessing_for(backbone, size) for backbone in backbones})


def check_from_url(client: MlflowClient, given_run: str, data: str) -> None:
    """Refuse a relative ``data`` in a run from a git URL: it would start at MLflow's temporary clone.

    Raises:
        DataError: if it is one.
    """
    if data == "demo" or "://" in data or Path(data).expanduser().is_absolute():
        return
    if CLONED_FROM in client.get_run(given_run).data.tags:
        raise DataError(f"data must be an absolute path in a run from a URL, got {data!r}; write the whole path")


@contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    """Within: a user's mistake is added to ``problems`` instead of raised."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


def _backbones(training: Training) -> tuple[str, ...]:
    domain = training.backbone
    return tuple(str(name) for name in domain.options) if isinstance(domain, Choice) else ()


def automatic_size(median_side: int) -> int:
    """Return the side in px to resize pictures to whose median short side is ``median_side`` px."""
    if median_side <= TINY_SIDE:
        return TINY_SIZE
    return min(LARGEST_AUTO, -(-median_side // STEP) * STEP)
