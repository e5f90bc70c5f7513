"""The train workflow: train one configuration in this process, with the code of a trial, as one MLflow run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.audit.report import audit
from data.dataset.dataset import Dataset
from data.errors import TrackingError
from data.sources.base import SplitName
from models.trial_config import TrialConfig
from tuning.common.events import AuditCompleted, CandidateEvaluated, EventBus, TrainingEpochEnded
from tuning.common.formatting import member_text, short_network_name
from tuning.common.names import (
    DATA_FINGERPRINT_TAG,
    DATA_LIMITS_TAG,
    PARENT_RUN_TAG,
    RECIPE_TAG,
    SAMPLES_FINGERPRINT_TAG,
    TEST_METRIC,
    TRIAL_CONFIG_TAG,
)
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.domains import Categorical
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.registry.build_candidate import build_candidate, with_absolute_paths
from tuning.registry.candidate_store import load_candidate_of_uri
from tuning.registry.deferred import defer
from tuning.registry.member_predictions import HeldOutPredictions, TrainedMember
from tuning.search.evidence import out_of_fold_predictions
from tuning.search.trial_worker import TrialTask
from tuning.search.trial_worker import train as train_task
from tuning.tracking.connection import connect_to_existing, store_text
from tuning.tracking.dataset_input import data_tags
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.ui import result_text
from tuning.workflows.context import Context
from tuning.workflows.preflight import Problems, SearchInputs, connect_tracking, load_data, prepare_inputs

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRIAL_UID = "train"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReproducibleTrial:
    """The configuration of a finished trial, and the settings and the data that it was trained with.

    Attributes:
        samples_fingerprint: of the images that were in use.
        limits: the largest numbers of images by split.
    """

    training: TrainingSettings
    config: TrialConfig
    samples_fingerprint: str
    limits: Mapping[SplitName, int]

    def warn_if_data_changed(self, dataset: Dataset) -> None:
        """Log a warning if the images or their splits differ from those of the trial."""
        if dataset.samples_fingerprint != self.samples_fingerprint:
            logger.warning(
                "the numbers will differ from the original ones, because %s has changed since (fingerprint %s instead "
                "of %s)",
                self.training.data,
                dataset.samples_fingerprint,
                self.samples_fingerprint,
            )


def train(training: TrainingSettings, run_id: str, model_uri: str, context: Context) -> int:
    """Train, evaluate and package one configuration, without registering it; return the exit status.

    ``run_id`` of a finished trial, or ``model_uri`` of a registered version, trains that one again and replaces
    ``training``; both may be empty.

    Raises:
        UserError: with all problems, before the training starts.
    """
    config, trial = None, None
    if run_id or model_uri:
        client = connect_to_existing()
        trial = load_finished_trial(client, run_id) if run_id else load_version(client, model_uri)
        training, config = trial.training, trial.config
    problems = Problems()
    with problems.collect():
        dataset = load_data(training, context.bus.progress, _has_gpu, limits=trial.limits if trial else None)
        inputs = prepare_inputs(training, dataset, _has_gpu())
    tracking = connect_tracking(training, context.mlflow_run_id, problems)
    if trial:
        trial.warn_if_data_changed(dataset)
    training = with_absolute_paths(inputs.resolve_auto(training))
    data_audit = audit(dataset)
    context.bus.emit(AuditCompleted(data_audit, tuple(training.command_arguments())))
    parent = ParentRun.open(tracking, context.mlflow_run_id, training.name or dataset.name)
    with parent_run_lifecycle(parent, context.signals):
        parent.log_audit(data_audit)
        _train_and_package(training, config or _default_config(training, inputs), dataset, parent, context.bus)
    return 0


def _has_gpu() -> bool:
    """Return whether this process, which trains, has a GPU."""
    from models.device import choose_device

    return choose_device().type == "cuda"


def _train_and_package(
    training: TrainingSettings, config: TrialConfig, dataset: Dataset, parent: ParentRun, bus: EventBus
) -> None:
    paths = SearchPaths.from_search_id(parent.run_id)
    paths.write(training, dataset)
    tags = {
        TRIAL_CONFIG_TAG: config.to_json(),
        **data_tags(dataset),
        RECIPE_TAG: as_recipe(training).to_json(),
    }
    backbone, image_size = config.network.backbone, config.preprocessing.image_size
    name = f"{training.name or dataset.name} {short_network_name(backbone)}@{image_size}"
    parent.rename(name)
    parent.log_search_metadata(training.given_params(), tags, dataset)

    def on_epoch_end(report: TrialReport) -> None:
        parent.log_epoch(report.epoch, report.metrics)
        bus.emit(TrainingEpochEnded(report))

    task = TrialTask(trial_uid=TRIAL_UID, config=config, search_root=paths.root, threads=training.cpus_per_trial)
    bus.stage("training")
    weights = paths.final_weights(TRIAL_UID, train_task(task, on_epoch_end))
    oof = out_of_fold_predictions(paths, dataset, TRIAL_UID)
    held_out = HeldOutPredictions(*oof) if oof else None
    candidate = build_candidate(parent, dataset, training, [TrainedMember(config, weights)], paths.package, held_out)
    parent.rename(f"{name} -> {candidate.metrics[TEST_METRIC]:.3f} test")
    bus.emit(CandidateEvaluated(candidate, None))
    bus.show_result(*result_text.metrics_lines(candidate, None))
    if candidate.model_uri:
        bus.show_result(*result_text.command_lines("Register", f"freezeline promote {parent.run_id}"))
    else:
        defer(paths, candidate, needs_decision=False)


def _default_config(training: TrainingSettings, inputs: SearchInputs) -> TrialConfig:
    """Return the configuration that a search with these settings would try first."""
    space = inputs.search_space(training)
    return space.trial_config(space.default_settings(), inputs.preprocessings)


def as_recipe(training: TrainingSettings) -> Recipe:
    """Return the settings as the recipe of a search with one trial, the form that ``load_finished_trial`` reads."""
    settings = {name: getattr(training, name) for name in TrainingSettings.model_fields}
    return Recipe.model_validate({**settings, "trials": 1})


def load_finished_trial(client: MlflowClient, run_id: str) -> ReproducibleTrial:
    """Return the configuration and the settings of a trial, from its MLflow run.

    Raises:
        TrackingError: the run does not exist, or it is not the run of a trial.
    """
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_run(run_id).data.tags
        parent_tags = client.get_run(tags.get(PARENT_RUN_TAG, run_id)).data.tags
    except MlflowException:
        raise TrackingError(
            f"run must be the id of a trial's run, got {run_id!r}, which does not exist in {store_text()}; "
            "mlflow ui lists the runs"
        ) from None
    if TRIAL_CONFIG_TAG not in tags:
        raise TrackingError(
            f"run must be a trial's run, but {run_id} has no trial configuration; use a child run of a search"
        )
    return _reproducible_trial(run_id, parent_tags, TrialConfig.from_json(tags[TRIAL_CONFIG_TAG]))


def load_version(client: MlflowClient, model_uri: str) -> ReproducibleTrial:
    """Return the configuration of a registered version, and the settings of the search or training that made it.

    Raises:
        TrackingError: there is no such version, it was not registered by a search or a training, or it is an ensemble.
    """
    candidate = load_candidate_of_uri(client, model_uri)
    if candidate.is_ensemble:
        networks = "; ".join(map(member_text, candidate.members))
        raise TrackingError(
            f"model must have a single network to be trained again, but {model_uri} has {len(candidate.members)} "
            f"({networks}); train one of them with --run and the ID of its trial's run, which mlflow ui lists below "
            f"run {candidate.run_id}"
        )
    (member,) = candidate.members
    return _reproducible_trial(candidate.run_id, client.get_run(candidate.run_id).data.tags, member.config)


def _reproducible_trial(run_id: str, parent_tags: Mapping[str, str], config: TrialConfig) -> ReproducibleTrial:
    if RECIPE_TAG not in parent_tags:
        raise TrackingError(
            f"the settings of run {run_id} must be known, but it has no recipe; use another run or version"
        )
    recipe = Recipe.from_json(parent_tags[RECIPE_TAG])
    fingerprint = parent_tags.get(SAMPLES_FINGERPRINT_TAG, parent_tags[DATA_FINGERPRINT_TAG])
    limits = json.loads(parent_tags.get(DATA_LIMITS_TAG, "{}"))
    return ReproducibleTrial(_single_trial_recipe(recipe, config), config, fingerprint, limits)


def _single_trial_recipe(recipe: Recipe, config: TrialConfig) -> Recipe:
    """Return the recipe reduced to the network of one trial; other networks may be unavailable here."""
    network = {
        "backbone": Categorical(options=(config.network.backbone,)),
        "image_size": Categorical(options=(config.preprocessing.image_size,)),
        "truncate": Categorical(options=(config.network.truncate,)),
    }
    overrides = {
        "weights": config.network.weights,
        "variants": (),
        "tracking": TrainingSettings.model_fields["tracking"].default,
    }
    return recipe.model_copy(update={**network, **overrides})
