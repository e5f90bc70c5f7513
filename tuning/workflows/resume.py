"""Going on with a search that was ended or killed, or that is to be longer: what was kept of it, checked."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tuning.common.names import RESUMES_TAG, SEARCH_FOLDER_TAG
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import handle_signals
from tuning.recipe.schema import Recipe
from tuning.search.ray_runtime import RayRuntime
from tuning.search.time_budget import load_elapsed_s
from tuning.tracking.connection import connect, pop_run_id_from_env
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.workflows.preflight import prepare_context

if TYPE_CHECKING:
    from tuning.recipe.resume import ResumeRequest
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from data.dataset.dataset import Dataset
from data.errors import DataError, TrackingError
from tuning.tracking.run_target import RunTarget
from tuning.tracking.sync import find_searches
from tuning.workflows.search_session import SearchSession

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.recipe.resume import ResumeRequest


class ResumableSearch(NamedTuple):
    """What a search left in its folder."""

    paths: SearchPaths
    target: RunTarget
    recipe: Recipe
    dataset: Dataset

    @property
    def elapsed_s(self) -> float:
        """The seconds that it has taken."""
        return load_elapsed_s(self.paths.elapsed)


def load_search(client: MlflowClient | None, run: str) -> ResumableSearch:
    """Return what the search of the parent run ``run`` left.

    Raises:
        TrackingError: its folder is not on this machine, or was made by another version; the sentence says where it is.
    """
    try:
        (paths,) = find_searches(run)
    except TrackingError:
        raise TrackingError(_not_here(client, run)) from None
    paths.check_schema()
    try:
        recipe = Recipe.from_json(paths.recipe.read_text())
        dataset = Dataset.from_json(paths.dataset.read_text())
        target = RunTarget.from_json(paths.target.read_text())
    except (OSError, ValidationError) as error:
        raise TrackingError(
            f"run must be a search of this version that had begun, but {paths.root} holds none that can be read "
            f"({type(error).__name__}); begin a new search"
        ) from None
    return ResumableSearch(paths, target if client is None else target.resolve(client), recipe, dataset)


def _not_here(client: MlflowClient | None, run: str) -> str:
    from mlflow.exceptions import MlflowException

    rule = f"run must be the parent run of a search, got {run!r}"
    try:
        tags = client.get_run(run).data.tags if client else {}
    except MlflowException:
        return f"{rule}, which does not exist; see the runs in MLflow"
    if SEARCH_FOLDER_TAG not in tags:
        return f"{rule}, which is none; give the run above the trials' runs"
    return (
        f"a search goes on from its folder, but that of {run} is not on this machine: it was {tags[SEARCH_FOLDER_TAG]}; "
        "resume there, or set FREEZELINE_HOME to where the folder is"
    )


def check_same_data(kept: Dataset, now: Dataset) -> None:
    """Refuse to go on with other pictures: the trials before and after could not be compared.

    Raises:
        DataError: the data set is another one now.
    """
    if kept.fingerprint != now.fingerprint:
        raise DataError(
            f"a search goes on with the pictures that it began with, but {now.root} has changed since (fingerprint "
            f"{now.fingerprint} instead of {kept.fingerprint}); put them back, or begin a new search"
        )


def resume(request: ResumeRequest) -> int:
    """Go on with a search in its own parent run, with what is left of its budget or a new one; as ``run_search``.

    Raises:
        UserError: its state or its pictures are not there, before any trial starts.
    """
    given_run = pop_run_id_from_env()
    with handle_signals() as interrupts:
        kept = load_search(connect(), request.run)
        ground = prepare_context(kept.recipe)
        check_same_data(kept.dataset, ground.dataset)
        if given_run and ground.client:  # mlflow run has opened a run for this command, which ends with it
            ground.client.set_tag(given_run, RESUMES_TAG, kept.target.run_id)
        parent = ParentRun.of(kept.target, ground.client)
        parent.reopen()
        with parent_run_lifecycle(parent, interrupts), closing(RayRuntime(kept.recipe)) as ray:
            ray.start_async()
            return SearchSession(kept.recipe, ground, parent, interrupts, ray, request).run()
