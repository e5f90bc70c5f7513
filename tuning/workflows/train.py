"""Training one configuration in this process: the same code as a trial, one run of its own in MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.audit.report import audit
from data.errors import TrackingError
from models.trial_config import TrialConfig
from tuning.common.event_bus import enter, say, tell
from tuning.common.events import Audited, Measured, Trained
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import caught
from tuning.common.trial_record import TrialReport
from tuning.recipe.domains import Choice
from tuning.recipe.schema import Recipe, Training
from tuning.registry.build_candidate import absolute, make_candidate
from tuning.registry.deferred import leave
from tuning.search.space import SearchSpace
from tuning.search.trial_worker import TrialTask
from tuning.search.trial_worker import train as train_task
from tuning.tracking.connection import connect, take_run_id
from tuning.tracking.operations import now_ms
from tuning.tracking.parent_run import ParentRun, lifecycle
from tuning.workflows.preflight import check_ground

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRIAL_UID = "train"


@dataclass(frozen=True)
class Again:
    """A finished trial's configuration, and the data, name and threads that it was trained with."""

    training: Training
    config: TrialConfig


def train(training: Training, run: str) -> int:
    """Train one configuration: of the trial whose run is ``run``, or the first of the training's space.

    Raises:
        UserError: with all that is wrong, before anything is trained.
    """
    given_run = take_run_id()
    with caught() as interrupts:
        config = None
        if run:
            again = finished_trial(connect(), run)
            training, config = again.training, again.config
        ground = check_ground(training, given_run)
        training = ground.settled(training)
        found = audit(ground.dataset)
        tell(Audited(found))
        if config is None:
            space = SearchSpace(training, ground.dataset.imbalance, ground.uncut, tiny=ground.dataset.is_tiny)
            config = space.trial_config(space.first_settings(), ground.preprocessings)
        name = training.name or ground.dataset.name
        parent = ParentRun.open(ground.client, given_run, name)
        with lifecycle(parent, interrupts):
            paths = SearchPaths.of(parent.run_id)
            paths.write(training, ground.dataset)
            tags = {
                "trial_config": config.to_json(),
                "data_fingerprint": ground.dataset.fingerprint,
                "recipe": as_recipe(training).to_json(),
            }
            parent.log_audit(found)
            parent.describe(training.asked(), tags, ground.dataset)

            def told(report: TrialReport) -> None:
                parent.log_epoch(report.epoch, report.metrics, now_ms())
                tell(Trained(report))

            task = TrialTask(
                trial_uid=TRIAL_UID, config=config, search_root=paths.root, threads=training.cpus_per_trial
            )
            enter("training")
            weights = paths.weights(TRIAL_UID, train_task(task, told))
            enter("packaging it and measuring it on the test pictures")
            candidate = make_candidate(
                name=name,
                parent=parent,
                dataset=ground.dataset,
                data=absolute(training.data),
                config=config,
                weights=weights,
                folder=paths.package,
                gate=training.gate,
            )
            tell(Measured(candidate, None))
            if candidate.model_uri:
                say(f"to register it: python -m tuning promote --run {parent.run_id}")
            else:
                leave(paths, candidate, decides=False)
    return 0


def as_recipe(training: Training) -> Recipe:
    """Return a training as the recipe of a search of one trial, as ``finished_trial`` reads it back."""
    shared = {name: getattr(training, name) for name in Training.model_fields}
    return Recipe.model_validate({**shared, "trials": 1})


def finished_trial(client: MlflowClient, run_id: str) -> Again:
    """Return how the trial of an MLflow run was trained.

    Raises:
        TrackingError: if there is no such run, or it is no trial.
    """
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_run(run_id).data.tags
        parent = client.get_run(tags.get("mlflow.parentRunId", run_id)).data.tags
    except MlflowException:
        raise TrackingError(
            f"run must be the id of a trial's run, got {run_id!r}, which does not exist; mlflow ui shows them"
        ) from None
    if "trial_config" not in tags:
        raise TrackingError(
            f"run must be a trial's run, below its search, but {run_id} holds no configuration; give one of its trials"
        )
    if "recipe" not in parent:
        raise TrackingError(
            f"run must be a trial of a search or a training, but no recipe is kept with {run_id}; give another run"
        )
    config = TrialConfig.from_json(tags["trial_config"])
    return Again(_of_one(Recipe.from_json(parent["recipe"]), config), config)


def _of_one(recipe: Recipe, config: TrialConfig) -> Recipe:
    """Return the recipe with the network of one trial only: others need not be there to train it again."""
    network = {
        "backbone": Choice(options=(config.network.backbone,)),
        "image_size": Choice(options=(config.preprocessing.image_size,)),
        "truncate": Choice(options=(config.network.truncate,)),
    }
    here = {"weights": config.network.weights, "variants": (), "tracking": Training.model_fields["tracking"].default}
    return recipe.model_copy(update={**network, **here})
