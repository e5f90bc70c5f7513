"""Training one configuration in this process: the same code as a trial, one run of its own in MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.audit.report import audit
from data.errors import TrackingError
from models.trial_config import TrialConfig
from tuning.common.event_bus import emit, info, start_stage
from tuning.common.events import AuditCompleted, CandidateEvaluated, TrainingEpochEnded
from tuning.common.names import DATA_FINGERPRINT_TAG, PARENT_RUN_TAG, RECIPE_TAG, TRIAL_CONFIG_TAG
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import handle_signals
from tuning.common.trial_record import TrialReport
from tuning.recipe.domains import Categorical
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.registry.build_candidate import build_candidate, resolve_data_path
from tuning.registry.deferred import defer
from tuning.search.space import SearchSpace
from tuning.search.trial_worker import TrialTask
from tuning.search.trial_worker import train as train_task
from tuning.tracking.connection import connect, pop_run_id_from_env
from tuning.tracking.operations import now_ms
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.workflows.preflight import prepare_context

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRIAL_UID = "train"


@dataclass(frozen=True)
class ReproducibleTrial:
    """A finished trial's configuration, and the data, name and threads that it was trained with."""

    training: TrainingSettings
    config: TrialConfig


def train(training: TrainingSettings, trial_run_id: str) -> int:
    """Train one configuration: of the trial whose run is ``run``, or the first of the training's space.

    Raises:
        UserError: with all that is wrong, before anything is trained.
    """
    given_run = pop_run_id_from_env()
    with handle_signals() as interrupts:
        config = None
        if trial_run_id:
            again = load_finished_trial(connect(), trial_run_id)
            training, config = again.training, again.config
        ground = prepare_context(training, given_run)
        training = ground.resolve_auto(training)
        found = audit(ground.dataset)
        emit(AuditCompleted(found))
        if config is None:
            space = SearchSpace(
                training,
                ground.dataset.imbalance,
                ground.unsplittable_backbones,
                small_images=ground.dataset.has_small_images,
            )
            config = space.trial_config(space.default_settings(), ground.preprocessings)
        name = training.name or ground.dataset.name
        parent = ParentRun.open(ground.client, given_run, name)
        with parent_run_lifecycle(parent, interrupts):
            paths = SearchPaths.from_search_id(parent.run_id)
            paths.write(training, ground.dataset)
            tags = {
                TRIAL_CONFIG_TAG: config.to_json(),
                DATA_FINGERPRINT_TAG: ground.dataset.fingerprint,
                RECIPE_TAG: as_recipe(training).to_json(),
            }
            parent.log_audit(found)
            parent.log_search_metadata(training.to_params(), tags, ground.dataset)

            def told(report: TrialReport) -> None:
                parent.log_epoch(report.epoch, report.metrics, now_ms())
                emit(TrainingEpochEnded(report))

            task = TrialTask(
                trial_uid=TRIAL_UID, config=config, search_root=paths.root, threads=training.cpus_per_trial
            )
            start_stage("training")
            weights = paths.weights(TRIAL_UID, train_task(task, told))
            start_stage("packaging it and measuring it on the test pictures")
            candidate = build_candidate(
                name=name,
                parent=parent,
                dataset=ground.dataset,
                data=resolve_data_path(training.data),
                config=config,
                weights=weights,
                folder=paths.package,
                gate=training.gate,
            )
            emit(CandidateEvaluated(candidate, None))
            if candidate.model_uri:
                info(f"to register it: python -m tuning promote --run {parent.run_id}")
            else:
                defer(paths, candidate, needs_decision=False)
    return 0


def as_recipe(training: TrainingSettings) -> Recipe:
    """Return a training as the recipe of a search of one trial, as ``load_finished_trial`` reads it back."""
    shared = {name: getattr(training, name) for name in TrainingSettings.model_fields}
    return Recipe.model_validate({**shared, "trials": 1})


def load_finished_trial(client: MlflowClient, run_id: str) -> ReproducibleTrial:
    """Return how the trial of an MLflow run was trained.

    Raises:
        TrackingError: if there is no such run, or it is no trial.
    """
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_run(run_id).data.tags
        parent = client.get_run(tags.get(PARENT_RUN_TAG, run_id)).data.tags
    except MlflowException:
        raise TrackingError(
            f"run must be the id of a trial's run, got {run_id!r}, which does not exist; mlflow ui shows them"
        ) from None
    if TRIAL_CONFIG_TAG not in tags:
        raise TrackingError(
            f"run must be a trial's run, below its search, but {run_id} holds no configuration; give one of its trials"
        )
    if RECIPE_TAG not in parent:
        raise TrackingError(
            f"run must be a trial of a search or a training, but no recipe is kept with {run_id}; give another run"
        )
    config = TrialConfig.from_json(tags[TRIAL_CONFIG_TAG])
    return ReproducibleTrial(_single_trial_recipe(Recipe.from_json(parent[RECIPE_TAG]), config), config)


def _single_trial_recipe(recipe: Recipe, config: TrialConfig) -> Recipe:
    """Return the recipe with the network of one trial only: others need not be there to train it again."""
    network = {
        "backbone": Categorical(options=(config.network.backbone,)),
        "image_size": Categorical(options=(config.preprocessing.image_size,)),
        "truncate": Categorical(options=(config.network.truncate,)),
    }
    here = {
        "weights": config.network.weights,
        "variants": (),
        "tracking": TrainingSettings.model_fields["tracking"].default,
    }
    return recipe.model_copy(update={**network, **here})
