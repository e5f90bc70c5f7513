"""What earlier searches in the same MLflow know: the best configurations of data sets like this one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data.likeness import Likeness
from data.values import Value
from models.config import TrialConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from tuning.tracking.parent import ParentRun

LIKENESS = "data_likeness"  # the parent run's tag that holds its data set's statistics
FINGERPRINT = "data_fingerprint"
SCORE = "best_val_balanced_accuracy"
MOST_SEARCHES = 1000  # the newest, that are looked through
MOST_STARTS = 3  # of data sets, one configuration each: more would take the trials from the sampler


class Past(Value):
    """The best configuration of an earlier search.

    Attributes:
        run_id: the search's parent run.
        name: of its registered model.
        data: the fingerprint of its data set.
        distance: how far that lies from the data set at hand; 0 for the same one.
        score: the trial's validation balanced accuracy, on that data set.
        config: the trial's configuration.
    """

    run_id: str
    name: str
    data: str
    distance: float
    score: float
    config: TrialConfig


def take_past(parent: ParentRun, wanted: Likeness) -> tuple[Past, ...]:
    """Return what earlier searches know of data sets like this one, and log it on the search's parent run.

    Without a server there is nobody to ask, and nothing is known.
    """
    found = past_bests(parent.client, wanted, parent.run_id) if parent.client else ()
    rows = [past.model_dump(mode="json") for past in found]
    parent.log_text(json.dumps(rows, indent=2), "warm_start.json")
    parent.tag(warm_start=", ".join(past.run_id for past in found) or "nothing to start from")
    return found


def past_line(found: Sequence[Past]) -> str:
    """Return what a person is told of it."""
    if not found:
        return "warm start: no earlier search in this MLflow has a best trial to start from"
    listed = ", ".join(f"{past.name} (distance {past.distance:.2f}, {past.score:.4f} there)" for past in found)
    return f"warm start: the best trials of {listed} come after the default"


def past_bests(client: MlflowClient, wanted: Likeness, not_of: str) -> tuple[Past, ...]:
    """Return the best configurations of the most similar data sets, the most similar first.

    Of several searches on the same pictures the best counts; the run ``not_of`` is the search that asks.
    """
    known = [(run, alike) for run in _searches(client) if run.info.run_id != not_of and (alike := _likeness(run))]
    known.sort(key=lambda one: (wanted.distance(one[1]), -one[0].data.metrics[SCORE]))
    bests: dict[str, Past] = {}
    for run, alike in known:
        data = run.data.tags.get(FINGERPRINT, "")
        config = None if data in bests else _best_config(client, run)
        if config is not None:
            bests[data] = Past(
                run_id=run.info.run_id,
                name=run.data.tags.get("registered_model", ""),
                data=data,
                distance=round(wanted.distance(alike), 4),
                score=run.data.metrics[SCORE],
                config=config,
            )
        if len(bests) == MOST_STARTS:
            break
    return tuple(bests.values())


def _searches(client: MlflowClient) -> Iterator[Run]:
    """Yield the parent runs that have a best trial and their data set's statistics, the newest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    # A tag is there if it is like anything; runs of a search that has no model have no such metric.
    kept = f"tags.{LIKENESS} LIKE '{{%' AND metrics.{SCORE} >= 0"
    yield from client.search_runs(experiments, kept, max_results=MOST_SEARCHES, order_by=["attributes.start_time DESC"])


def _likeness(run: Run) -> Likeness | None:
    try:
        return Likeness.from_json(run.data.tags[LIKENESS])
    except ValidationError:  # written by another version
        return None


def _best_config(client: MlflowClient, run: Run) -> TrialConfig | None:
    """Return the configuration of a search's best trial, or None where it can't be read."""
    below = f"tags.`mlflow.parentRunId` = '{run.info.run_id}' AND metrics.{SCORE} >= 0"
    best = client.search_runs(
        [run.info.experiment_id], below, max_results=1, order_by=[f"metrics.{SCORE} DESC", "attributes.start_time"]
    )
    try:
        return TrialConfig.from_json(best[0].data.tags["trial_config"]) if best else None
    except (KeyError, ValidationError):
        return None
