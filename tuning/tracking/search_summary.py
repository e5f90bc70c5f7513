"""Summaries of searches, loaded from MLflow for ``compare``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data.errors import TrackingError
from data.frozen_model import FrozenModel
from tuning.common.formatting import budget_text, short_network_name
from tuning.common.names import (
    BEST_OBJECTIVE_METRIC,
    DATA_FINGERPRINT_TAG,
    PARENT_RUN_TAG,
    PROMOTION_TAG,
    RECIPE_TAG,
    SAMPLES_FINGERPRINT_TAG,
    SEARCH_FOLDER_TAG,
    SEARCH_MINUTES_METRIC,
    TEST_METRIC,
    TRIAL_NUMBER_PARAM,
    VERSION_TAG,
    WINNER_METRIC,
    WINNER_TAG,
)
from tuning.recipe.schema import Recipe
from tuning.tracking.connection import store_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class ScorePoint(FrozenModel):
    """The best score so far, and the seconds since the start of the first trial."""

    seconds: float
    score: float


class SearchSummary(FrozenModel):
    """Summary of a search.

    Attributes:
        name: name of the experiment.
        status: FINISHED, KILLED, FAILED or RUNNING.
        num_trials: number of trials with a run.
        winner: number, network and image size of the winner, or of the best trial so far; empty if there is none.
        score: its validation balanced accuracy.
        test_score: test balanced accuracy of the candidate; None if it was not measured.
        minutes: wall-clock time of the search, of all sessions if it was resumed.
        trials_s: seconds from the start of the first trial to the end of the last one.
        budget: the minutes and trials of its recipe, such as ``5 min or 16 trials``; empty if unknown.
        seed: its seed; None if unknown.
        promotion: ``champion`` or ``challenger`` and the version; empty if no model was registered.
        improvements: each new best score, in order of time.
    """

    run_id: str
    name: str
    data_fingerprint: str
    status: str
    num_trials: int
    winner: str
    score: float | None
    test_score: float | None
    minutes: float
    trials_s: float
    budget: str
    seed: int | None
    promotion: str
    improvements: tuple[ScorePoint, ...]

    @property
    def short_id(self) -> str:
        """First eight characters of the run id."""
        return self.run_id[:8]


def load_search_summary(client: MlflowClient, name_or_run_id: str) -> SearchSummary:
    """Return the summary of the search with this parent run, or of the latest search in this experiment.

    Raises:
        TrackingError: there is no such search.
    """
    parent = _find_parent(client, name_or_run_id)
    children = sorted(_load_children(parent), key=lambda run: run.info.end_time or run.info.start_time)
    scored = [run for run in children if BEST_OBJECTIVE_METRIC in run.data.metrics and run.info.status != "FAILED"]
    best = _find_winner(parent, scored)
    start_ms = min((run.info.start_time for run in children), default=0)
    tags, recipe = parent.data.tags, _recipe(parent)
    return SearchSummary(
        run_id=parent.info.run_id,
        name=str(client.get_experiment(parent.info.experiment_id).name),
        data_fingerprint=tags.get(SAMPLES_FINGERPRINT_TAG) or tags.get(DATA_FINGERPRINT_TAG, ""),
        status=parent.info.status,
        num_trials=len(children),
        winner=parent.data.tags.get(WINNER_TAG) or (_describe(best) if best else ""),
        score=best.data.metrics[BEST_OBJECTIVE_METRIC] if best else None,
        test_score=parent.data.metrics.get(TEST_METRIC),
        minutes=_minutes(parent, children),
        trials_s=max(((run.info.end_time or run.info.start_time) - start_ms for run in children), default=0) / 1000,
        budget=budget_text(recipe.budget_s, recipe.max_trials) if recipe else "",
        seed=recipe.seed if recipe else None,
        promotion=f"{tags[PROMOTION_TAG]} {tags.get(VERSION_TAG, '')}".rstrip() if PROMOTION_TAG in tags else "",
        improvements=_improvements(scored, start_ms),
    )


def _find_parent(client: MlflowClient, name_or_run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    run: Run | None
    try:
        run = client.get_run(name_or_run_id)
    except MlflowException:
        run = _latest_search(client, name_or_run_id)
    if run is None or SEARCH_FOLDER_TAG not in run.data.tags:
        raise TrackingError(
            "each run must be the ID of a search's parent run, or the name of an experiment with a search, "
            f"got {name_or_run_id!r}, which is not in {store_text()}; use mlflow ui to list them"
        )
    return run


def _latest_search(client: MlflowClient, name: str) -> Run | None:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    runs = client.search_runs(
        [experiment.experiment_id],
        f"tags.`{SEARCH_FOLDER_TAG}` LIKE '%'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return next(iter(runs), None)


def _load_children(parent: Run) -> list[Run]:
    import mlflow

    is_child = f"tags.`{PARENT_RUN_TAG}` = '{parent.info.run_id}'"
    runs: list[Run] = mlflow.search_runs([parent.info.experiment_id], is_child, output_format="list")
    return runs


def _find_winner(parent: Run, scored: list[Run]) -> Run | None:
    """Return the run of the winner; of an unfinished search, the run with the best score."""
    number = parent.data.metrics.get(WINNER_METRIC)
    winner = (
        run for run in scored if number is not None and run.data.params.get(TRIAL_NUMBER_PARAM) == f"{number:.0f}"
    )
    best = max(scored, key=lambda run: run.data.metrics[BEST_OBJECTIVE_METRIC], default=None)
    return next(winner, best)


def _minutes(parent: Run, children: list[Run]) -> float:
    """Return the logged time; of a search that never finished, the time from its start to its last change."""
    if SEARCH_MINUTES_METRIC in parent.data.metrics:
        return float(parent.data.metrics[SEARCH_MINUTES_METRIC])
    start_ms = parent.info.start_time
    end_ms = parent.info.end_time or max(
        (run.info.end_time or run.info.start_time for run in children), default=start_ms
    )
    return float(end_ms - start_ms) / 60_000


def _recipe(parent: Run) -> Recipe | None:
    """Return the recipe of a search; None if it has none, or one of another version."""
    with contextlib.suppress(KeyError, ValidationError):
        return Recipe.from_json(parent.data.tags[RECIPE_TAG])
    return None


def _describe(run: Run) -> str:
    params = run.data.params
    network = f"{short_network_name(params.get('backbone', '?'))}@{params.get('image_size', '?')}"
    return f"{params.get(TRIAL_NUMBER_PARAM, '?')} {network}"


def _improvements(scored: list[Run], start_ms: int) -> tuple[ScorePoint, ...]:
    """Return each new best score of runs sorted by their end; ``start_ms`` is as Unix time in milliseconds."""
    points: list[ScorePoint] = []
    for run in scored:
        score = run.data.metrics[BEST_OBJECTIVE_METRIC]
        if not points or score > points[-1].score:
            end_ms = run.info.end_time or run.info.start_time
            points.append(ScorePoint(seconds=(end_ms - start_ms) / 1000, score=score))
    return tuple(points)
