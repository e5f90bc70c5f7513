"""Going on with a search that was ended or killed, or that is to be longer: what was kept of it, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from data.dataset import Dataset
from data.errors import DataError, TrackingError
from tuning.recipe import Recipe
from tuning.search.budget import spent_s
from tuning.search.paths import SearchPaths
from tuning.tracking.sync import searches
from tuning.tracking.target import Target

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuning.commands.resume import ResumeOptions

FOLDER = "search_folder"  # the parent run's tag that says where the search keeps its state


class Kept(NamedTuple):
    """What a search left in its folder."""

    paths: SearchPaths
    target: Target
    recipe: Recipe
    dataset: Dataset

    @property
    def spent_s(self) -> float:
        """The seconds that it has taken."""
        return spent_s(self.paths.spent)


def kept_search(client: MlflowClient | None, run: str) -> Kept:
    """Return what the search of the parent run ``run`` left.

    Raises:
        TrackingError: its folder is not on this machine, or was made by another version; the sentence says where it is.
    """
    try:
        (paths,) = searches(run)
    except TrackingError:
        raise TrackingError(_not_here(client, run)) from None
    try:
        recipe = Recipe.from_json(paths.recipe.read_text())
        dataset = Dataset.from_json(paths.dataset.read_text())
        target = Target.from_json(paths.target.read_text())
    except (OSError, ValidationError) as error:
        raise TrackingError(
            f"run must be a search of this version that had begun, but {paths.root} holds none that can be read "
            f"({type(error).__name__}); begin a new search"
        ) from None
    return Kept(paths, target if client is None else target.settled(client), recipe, dataset)


def _not_here(client: MlflowClient | None, run: str) -> str:
    from mlflow.exceptions import MlflowException

    rule = f"run must be the parent run of a search, got {run!r}"
    try:
        tags = client.get_run(run).data.tags if client else {}
    except MlflowException:
        return f"{rule}, which does not exist; see the runs in MLflow"
    if FOLDER not in tags:
        return f"{rule}, which is none; give the run above the trials' runs"
    return (
        f"a search goes on from its folder, but that of {run} is not on this machine: it was {tags[FOLDER]}; "
        "resume there, or set FREEZELINE_HOME to where the folder is"
    )


def check_same_pictures(kept: Dataset, now: Dataset) -> None:
    """Refuse to go on with other pictures: the trials before and after could not be compared.

    Raises:
        DataError: the data set is another one now.
    """
    if kept.fingerprint != now.fingerprint:
        raise DataError(
            f"a search goes on with the pictures that it began with, but {now.root} has changed since (fingerprint "
            f"{now.fingerprint} instead of {kept.fingerprint}); put them back, or begin a new search"
        )


def continued(recipe: Recipe, options: ResumeOptions, tried: int) -> Recipe:
    """Return the recipe with the budget of what is to come; ``tried`` is how many configurations it has tried."""
    if not options.extends:
        return recipe
    total = None if options.trials is None else tried + options.trials
    return recipe.model_copy(update={"trials": total, "minutes": options.minutes})
