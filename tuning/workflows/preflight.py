"""Validate the inputs of a search or a training before the first trial.

A workflow calls ``load_data``, ``prepare_inputs`` and ``connect_tracking``, and reports their problems together.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.dataset.dataset import Dataset
from data.errors import BackboneError, DataError, UserError
from data.load_dataset import load_dataset
from data.machine import available_cores
from data.parallel import ProgressCallback
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from tuning.common.names import PROJECT_SOURCE_TAG
from tuning.recipe.auto import (
    NetworkRequest,
    TrainingT,
    accepts_size,
    auto_truncations,
    fixed_options,
    image_sizes,
    max_truncation,
    requested_networks,
    variants_of,
)
from tuning.recipe.domains import Categorical
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.search.defaults import (
    MIN_EPOCH_IMAGES,
    allows_fit,
    allows_folds,
    auto_images_per_epoch,
    max_train_images,
    max_val_images,
    probe_sizes,
)
from tuning.search.ray_runtime import RayRuntime
from tuning.search.space import Preprocessings, SearchSpace
from tuning.tracking.connection import check_available, connect
from tuning.tracking.system_metrics import system_metrics_enabled

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Problems:
    """The problems that several checks of the user's input find, raised together."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Context manager: collect the problems of a ``UserError``; the rest of the block is skipped."""
        try:
            yield
        except UserError as error:
            self._texts.extend(error.problems)

    def __bool__(self) -> bool:
        return bool(self._texts)

    def raise_any(self) -> None:
        """Raise a UserError with all problems, if there are any."""
        if self._texts:
            raise UserError(*self._texts)


@dataclass(frozen=True)
class SearchInputs:
    """Validated inputs of a search or a training.

    Attributes:
        preprocessings: by backbone and image size.
        on_gpu: whether the trials run on a GPU.
    """

    dataset: Dataset
    preprocessings: Preprocessings
    unsplittable_backbones: frozenset[str]
    on_gpu: bool

    def search_space(self, training: TrainingSettings) -> SearchSpace:
        """Return the search space of the settings on this data set."""
        data, fits_all = self.dataset, self._allows_folds(training)
        sizes: tuple[int, ...] = ()
        affordable: list[int] = []
        if not fits_all and training.validation == "split":
            sizes = probe_sizes(len(data.split("train")))
            affordable = [size for size in sizes if allows_fit(size, len(data.classes), _budget_s(training))]
        return SearchSpace(
            training,
            data.imbalance,
            self.unsplittable_backbones,
            small_images=data.has_small_images,
            regression_probes=fits_all or bool(affordable),
            probe_images=sizes if affordable else (),
            max_probe_images=max(affordable, default=0),
        )

    def _allows_folds(self, training: TrainingSettings) -> bool:
        data = self.dataset
        return allows_folds(len(data.development), len(data.classes), _budget_s(training))

    def resolve_auto(self, training: TrainingT) -> TrainingT:
        """Return the settings with backbones, image sizes and truncations filled in where unset, also per variant.

        ``validation=auto`` becomes ``folds``, or ``split`` if the data set provides a validation split or is large;
        ``precision=auto`` becomes what is fast on this machine, so that all nodes and a resumed search use the same.
        ``gpus_per_trial=auto`` becomes 0 without a GPU; with one, the share stays open until Ray has started.
        """
        if isinstance(training, Recipe) and training.gpus_per_trial is None and not self.on_gpu:
            training = training.model_copy(update={"gpus_per_trial": 0.0})
        if training.validation == "auto":
            uses_folds = "val" not in self.dataset.provided_splits and self._allows_folds(training)
            training = training.model_copy(update={"validation": "folds" if uses_folds else "split"})
        if training.precision == "auto":
            training = training.model_copy(update={"precision": _precision(self.on_gpu)})
        if training.images_per_epoch is None:
            training = training.model_copy(update={"images_per_epoch": self._images_per_epoch(training)})
        if not isinstance(training, Recipe) or not training.variants:
            return training.model_copy(update=self._auto_values(training))
        variants = []
        for variant in training.variants:
            values = self._auto_values(training.with_variant(variant))
            texts = {name: str(domain) for name, domain in values.items()}
            variants.append(variant.model_copy(update={"settings": {**variant.settings, **texts}}))
        return training.model_copy(update={"variants": tuple(variants)})

    def _images_per_epoch(self, training: TrainingSettings) -> int:
        from models.profiling.training_cost import FORWARD_AND_BACKWARD, network_flops

        budget_s, num_images = _budget_s(training), len(self.dataset.split("train"))
        if budget_s is None or training.validation == "folds" or num_images <= MIN_EPOCH_IMAGES:
            return 0
        flops = FORWARD_AND_BACKWARD * sum(network_flops(*next(iter(self.preprocessings))).gflops)
        device = "cuda" if self.on_gpu else "cpu"
        return auto_images_per_epoch(num_images, flops, training.max_epochs, budget_s, device)

    def _auto_values(self, training: TrainingSettings) -> dict[str, Categorical]:
        """Return the values of the settings that are not set."""
        sizes = image_sizes(training, self.dataset.median_short_side, self.on_gpu)
        networks = requested_networks(training, self.on_gpu)
        values = {
            "backbone": Categorical(options=tuple(network.backbone for network in networks)),
            "image_size": Categorical(options=sizes),
            "truncate": Categorical(options=auto_truncations(networks, sizes)),
        }
        return {name: domain for name, domain in values.items() if getattr(training, name) is None}


def trains_on_gpu(recipe: Recipe, num_gpus: Callable[[], float]) -> bool:
    """Return whether trials run on a GPU; with ``gpus_per_trial=auto``, if ``num_gpus`` returns any.

    The result must be the same for all functions of a command, and a cluster may change: call this once.
    """
    return num_gpus() > 0 if recipe.gpus_per_trial is None else recipe.uses_gpu


def load_data(
    training: TrainingSettings,
    progress: ProgressCallback,
    on_gpu: Callable[[], bool],
    ray: RayRuntime | None = None,
    test_hashes: Collection[str] = (),
    limits: Mapping[SplitName, int] | None = None,
) -> Dataset:
    """Return the data set of a search or a training, after its backbones and weights have been validated.

    ``ray`` starts in the background as soon as the data set is loaded, because validating networks imports torch.
    ``on_gpu`` returns whether the trials run on a GPU; it is called after that, since it may wait for Ray or import
    torch. ``test_hashes`` are those of ``load_dataset``. ``limits`` are the largest numbers of images by split; None:
    those that fit into the search's time budget.

    Raises:
        UserError: with all problems.
    """
    problems = Problems()
    dataset = None
    with problems.collect():
        dataset = load_dataset(training, progress, training.on_leak == "keep", test_hashes)
    if ray is not None and not problems:
        ray.start_async()
    with problems.collect():
        system_metrics_enabled()
    from models.backbones.validation import BackboneRequest, validate_backbones

    with problems.collect():
        networks = _networks(training, not problems and on_gpu())
        validate_backbones(
            BackboneRequest(network.backbone, network.weights, *network.sizes[:1]) for network in networks
        )
    problems.raise_any()
    assert dataset is not None  # noqa: S101  # for mypy
    if limits is None:
        limits = _split_limits(training, on_gpu) if isinstance(training, Recipe) else {}
    for split, max_images in limits.items():
        dataset = dataset.with_limited(split, max_images)
    if training.on_label_issue == "drop":
        from tuning.workflows.label_audit import audit_labels

        dataset = audit_labels(dataset, progress).without_issues()
    return dataset


def _split_limits(recipe: Recipe, on_gpu: Callable[[], bool]) -> dict[SplitName, int]:
    """Return the largest numbers of images of a search; a cluster has more cores than this machine."""
    limits: dict[SplitName, int] = {"val": max_val_images(recipe.budget_s)}
    has_few_cores = not os.environ.get("RAY_ADDRESS") and not on_gpu()
    if recipe.budget_s is not None and recipe.images_per_epoch is None and has_few_cores:
        limits["train"] = max_train_images(recipe.budget_s, available_cores())
    return limits


def prepare_inputs(training: TrainingSettings, dataset: Dataset, on_gpu: bool) -> SearchInputs:
    """Validate all image sizes, truncations and head features of the backbones, and return the inputs.

    ``on_gpu`` is whether the trials run on a GPU, as for ``load_data``.

    Raises:
        UserError: with all problems.
    """
    from models.backbones.factory import preprocessing_for
    from models.backbones.validation import BackboneRequest, validate_backbones

    auto_sizes = image_sizes(training, dataset.median_short_side, on_gpu)
    preprocessings: dict[tuple[str, int], Preprocessing] = {}
    unchecked = []
    for backbone, weights, fixed_sizes in _networks(training, on_gpu):
        sizes = fixed_sizes or auto_sizes
        new_sizes = sizes[1:] if fixed_sizes else sizes  # ``load_data`` has checked the first fixed size
        untried = (size for size in new_sizes if not accepts_size(backbone, size))
        unchecked += [BackboneRequest(backbone, weights, size) for size in untried]
        for size in sizes:
            preprocessing = preprocessing_for(backbone, size)
            preprocessings[backbone, size] = dataclasses.replace(preprocessing, value_range=dataset.value_range)
    validate_backbones(unchecked)
    first_sizes = dict(reversed(preprocessings))
    unsplittable = frozenset(backbone for backbone, size in first_sizes.items() if _is_unsplittable(backbone, size))
    problems = Problems()
    for variant in variants_of(training):
        with problems.collect():
            _check_truncations(variant, auto_sizes, on_gpu)
        with problems.collect():
            _check_head_features(variant, unsplittable, on_gpu)
    problems.raise_any()
    return SearchInputs(dataset, preprocessings, unsplittable, on_gpu)


def connect_tracking(training: TrainingSettings, given_run: str | None, problems: Problems) -> MlflowClient | None:
    """Return a client of the tracking server; None with ``tracking=offline``.

    Raises:
        UserError: with ``problems``, and: the server cannot be reached, or ``data`` is relative and ``given_run`` is a
            run from a git URL.
    """
    client = None
    with problems.collect():
        client = _connect(training, given_run, will_start=not problems)
    problems.raise_any()
    return client


def _connect(training: TrainingSettings, given_run: str | None, *, will_start: bool) -> MlflowClient | None:
    if training.tracking == "offline":
        return None
    if not (will_start or given_run):
        check_available()  # a command that will not start creates no local database
        return None
    client = connect()
    if given_run:
        check_data_path_of_url_run(client, given_run, training.data)
    return client


def _precision(on_gpu: bool) -> Literal["fp32", "bf16", "bf16-frozen"]:
    """Return the precision that is fast: the default networks, which are depthwise, train slower in bf16 on a CPU."""
    from models.precision import has_fast_bf16

    if on_gpu:
        return "bf16"
    return "bf16-frozen" if has_fast_bf16() else "fp32"


def _budget_s(training: TrainingSettings) -> float | None:
    return training.budget_s if isinstance(training, Recipe) else None


def _networks(training: TrainingSettings, on_gpu: bool) -> list[NetworkRequest]:
    """Return the backbones of all variants, each once."""
    networks = (network for variant in variants_of(training) for network in requested_networks(variant, on_gpu))
    return list(dict.fromkeys(networks))


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


def _is_unsplittable(backbone: str, size: int) -> bool:
    """Return whether a backbone cannot be split into blocks; this is logged once."""
    from models.backbones.pretrained_cache import pretrained
    from models.backbones.weight_packages import AUTO_BACKBONES

    return backbone not in AUTO_BACKBONES and not pretrained(backbone, "none", size, 0).blocks[0].node


def _check_truncations(training: TrainingSettings, sizes: Sequence[int], on_gpu: bool) -> None:
    truncate = max((int(count) for count in fixed_options(training.truncate)), default=0)
    problems = []
    for network in requested_networks(training, on_gpu) if truncate else ():
        max_truncate = max_truncation(network, sizes, truncate)
        if truncate > max_truncate:
            problems.append(
                f"truncate must be 0..{max_truncate} for {network.backbone}, got {truncate}; "
                "freezeline blocks lists its blocks"
            )
    if problems:
        raise BackboneError(*problems)


def _check_head_features(training: TrainingSettings, unsplittable: frozenset[str], on_gpu: bool) -> None:
    networks = requested_networks(training, on_gpu)
    backbones = [network.backbone for network in networks if network.backbone in unsplittable]
    if backbones and "last" not in training.head_features.options:
        raise BackboneError(
            f"head_features must be last for {backbones[0]}, which cannot be split into blocks, "
            f"got {training.head_features}; use head_features=last or another backbone"
        )
