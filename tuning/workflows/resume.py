"""The resume workflow: continue a search that was interrupted or killed, or extend a finished one."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data.dataset.dataset import Dataset
from data.errors import DataError, TrackingError
from tuning.common.names import RESUMES_TAG, SEARCH_FOLDER_TAG
from tuning.recipe.schema import Recipe, ResumeRequest
from tuning.search.ray_runtime import RayRuntime
from tuning.tracking.connection import connect, connect_to_existing, store_text
from tuning.tracking.parent_run import ParentRun, RunTarget, find_searches, parent_run_lifecycle
from tuning.workflows.context import Context
from tuning.workflows.finalize import finalize
from tuning.workflows.preflight import load_data, prepare_inputs
from tuning.workflows.search import Search, announce
from tuning.workflows.search_session import SearchSession

if TYPE_CHECKING:
    from mlflow import MlflowClient


def load_search(client: MlflowClient, run: str) -> tuple[RunTarget, Recipe, Dataset]:
    """Return the target, the recipe and the data set of the search whose parent run is ``run``, from its folder.

    Raises:
        TrackingError: its folder is not on this machine or was written by another version. The message names the
            folder.
    """
    try:
        (paths,) = find_searches(run)
    except TrackingError:
        raise TrackingError(_missing_folder_message(client, run)) from None
    paths.check_schema()
    try:
        recipe = Recipe.from_json(paths.recipe.read_text())
        dataset = Dataset.from_json(paths.dataset.read_text())
        target = RunTarget.from_json(paths.target.read_text())
    except (OSError, ValidationError) as error:
        raise TrackingError(
            f"run must be a search whose state can be read, but {paths.root} cannot be read ({type(error).__name__}); "
            "start a new search"
        ) from None
    return target.resolve(client), recipe, dataset


def _missing_folder_message(client: MlflowClient, run: str) -> str:
    from mlflow.exceptions import MlflowException

    rule = f"run must be the parent run of a search, got {run!r}"
    try:
        tags = client.get_run(run).data.tags
    except MlflowException:
        return f"{rule}, which does not exist in {store_text()}; mlflow ui lists the runs"
    if SEARCH_FOLDER_TAG not in tags:
        return f"{rule}, which is another kind of run; use the parent of the trials' runs"
    return (
        f"the folder of a search must be on this machine, but that of {run} is not: it was {tags[SEARCH_FOLDER_TAG]}; "
        "resume on that machine, or set FREEZELINE_HOME to the home that holds the folder"
    )


def connect_to_store_of(run: str) -> MlflowClient:
    """Return a client of the tracking store; only a search that started offline may create a database there."""
    with suppress(TrackingError, OSError, ValidationError):  # reported by ``load_search``
        (paths,) = find_searches(run)
        if not RunTarget.from_json(paths.target.read_text()).run_id:
            return connect()
    return connect_to_existing()


def check_same_data(before: Dataset, now: Dataset) -> None:
    """Refuse to resume if the images have changed: earlier and later trials would not be comparable.

    Raises:
        DataError: the data set has changed.
    """
    earlier, current = before.samples_fingerprint, now.samples_fingerprint
    if earlier != current:
        raise DataError(
            f"a search must resume with the images that it started with, but {now.root} has changed since (fingerprint "
            f"{current} instead of {earlier}); restore the images or start a new search"
        )


def resume(request: ResumeRequest, context: Context) -> int:
    """Resume a search in its own parent run, with the rest of its budget or a new one; return the exit status.

    A run that ``mlflow run`` created for this command only refers to the search.

    Raises:
        UserError: the state or the images are missing or have changed; raised before any trial starts.
    """
    context.bus.stage("connecting to MLflow")
    client = connect_to_store_of(request.run)
    target, recipe, dataset_before = load_search(client, request.run)
    with closing(RayRuntime(recipe)) as ray:
        context.bus.stage("checking the images")
        dataset = load_data(recipe, context.bus.progress, lambda: recipe.uses_gpu, ray, limits=dataset_before.limits)
        check_same_data(dataset_before, dataset)
        context.bus.stage("preparing the networks")
        inputs = prepare_inputs(recipe, dataset, recipe.uses_gpu)
        is_online = recipe.tracking == "server"
        if context.mlflow_run_id and is_online:
            client.set_tag(context.mlflow_run_id, RESUMES_TAG, target.run_id)
        parent = ParentRun.from_target(target, client if is_online else None)
        was_finished = parent.reopen()
        with parent_run_lifecycle(parent, context.signals, was_finished):
            search = Search(recipe, inputs, parent, context)
            announce(search, "resume")
            return finalize(search, SearchSession(search, ray, request).run())
