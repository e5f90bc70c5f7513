"""Finished searches, read back from MLflow so that they can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import TrackingError
from data.frozen_model import FrozenModel
from tuning.common.names import (
    BEST_OBJECTIVE_METRIC,
    DATA_FINGERPRINT_TAG,
    PARENT_RUN_TAG,
    PROMOTION_TAG,
    SEARCH_FOLDER_TAG,
    TEST_METRIC,
    VERSION_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000  # runs asked for at once


class ScorePoint(FrozenModel):
    """The best score that a search had reached so many seconds after its first trial began."""

    seconds: float
    score: float


class SearchSummary(FrozenModel):
    """A search as MLflow remembers it.

    Attributes:
        run_id: of its parent run.
        name: of its experiment.
        data_fingerprint: of the pictures that it learned from.
        status: FINISHED, KILLED, FAILED or RUNNING.
        trials: how many have a run.
        network: of the best trial, in words; empty without one.
        score: its validation balanced accuracy.
        test: balanced accuracy of the candidate on the test pictures, if it came to that.
        seconds: from the first trial's begin to the last one's end.
        promotion: champion or challenger, and the version; empty if nothing was registered.
        progress: each improvement, in order.
    """

    run_id: str
    name: str
    data_fingerprint: str
    status: str
    trials: int
    network: str
    score: float | None
    test: float | None
    seconds: float
    promotion: str
    progress: tuple[ScorePoint, ...]

    @property
    def short_id(self) -> str:
        """The first eight characters of its run id: enough to tell searches apart."""
        return self.run_id[:8]


def load_search_summary(client: MlflowClient, given: str) -> SearchSummary:
    """Return the search whose parent run is ``given``, or the latest one of the experiment of that name.

    Raises:
        TrackingError: there is none.
    """
    parent = _parent(client, given)
    children = sorted(_children(client, parent), key=lambda run: run.info.end_time or run.info.start_time)
    scored = [run for run in children if BEST_OBJECTIVE_METRIC in run.data.metrics and run.info.status != "FAILED"]
    best = max(scored, key=lambda run: run.data.metrics[BEST_OBJECTIVE_METRIC], default=None)
    began = min((run.info.start_time for run in children), default=0)
    ended = max((run.info.end_time or run.info.start_time for run in children), default=0)
    tags = parent.data.tags
    return SearchSummary(
        run_id=parent.info.run_id,
        name=str(client.get_experiment(parent.info.experiment_id).name),
        data_fingerprint=tags.get(DATA_FINGERPRINT_TAG, ""),
        status=parent.info.status,
        trials=len(children),
        network=_network(best) if best else "",
        score=best.data.metrics[BEST_OBJECTIVE_METRIC] if best else None,
        test=parent.data.metrics.get(TEST_METRIC),
        seconds=(ended - began) / 1000,
        promotion=f"{tags[PROMOTION_TAG]} {tags.get(VERSION_TAG, '')}".rstrip() if PROMOTION_TAG in tags else "",
        progress=_progress(scored, began),
    )


def _parent(client: MlflowClient, given: str) -> Run:
    from mlflow.exceptions import MlflowException

    run: Run | None
    try:
        run = client.get_run(given)
    except MlflowException:
        run = _latest(client, given)
    if run is None or SEARCH_FOLDER_TAG not in run.data.tags:
        raise TrackingError(
            f"runs must be parent runs of searches, or names of experiments that hold one, got {given!r}; "
            "mlflow ui shows them"
        )
    return run


def _latest(client: MlflowClient, name: str) -> Run | None:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`{SEARCH_FOLDER_TAG}` LIKE '%'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return next(iter(found), None)


def _children(client: MlflowClient, parent: Run) -> list[Run]:
    wanted = f"tags.`{PARENT_RUN_TAG}` = '{parent.info.run_id}'"
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([parent.info.experiment_id], wanted, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _network(run: Run) -> str:
    params = run.data.params
    return f"{params.get('backbone', '?')} at {params.get('image_size', '?')} px"


def _progress(scored: list[Run], began: int) -> tuple[ScorePoint, ...]:
    """Return the improvements of runs in the order of their ends; ``began`` is in milliseconds since 1970."""
    found: list[ScorePoint] = []
    for run in scored:
        score = run.data.metrics[BEST_OBJECTIVE_METRIC]
        if not found or score > found[-1].score:
            ended = run.info.end_time or run.info.start_time
            found.append(ScorePoint(seconds=(ended - began) / 1000, score=score))
    return tuple(found)
