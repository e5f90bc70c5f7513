"""What earlier searches know, read from a real tracking database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.likeness import Likeness
from models.config import TrialConfig
from tests.tuning.making import trial_config
from tuning.tracking.parent import ParentRun
from tuning.tracking.past import FINGERPRINT, LIKENESS, MOST_STARTS, SCORE, past_bests, past_line, take_past
from tuning.tracking.target import experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

PETS = Likeness(classes=2, pictures=1000, imbalance=1.0, median_side=200, mean=0.5, deviation=0.25)


@pytest.fixture
def parent(client: MlflowClient) -> ParentRun:
    """Return the parent run of the search that asks."""
    asking = ParentRun.open(client, None, "asking")
    asking.tag(**{LIKENESS: PETS.to_json(), FINGERPRINT: "asking"})
    asking.writer.flush()
    return asking


def searched(client: MlflowClient, data: str, pictures: int, scores: dict[float, str], **tags: str) -> str:
    """Log a search that has ended, with a trial for each score and its configuration; return its parent run."""
    experiment_id = experiment(client, f"of {data}")
    alike = PETS.model_copy(update={"pictures": pictures}).to_json()
    every = {LIKENESS: alike, FINGERPRINT: data, "registered_model": f"{data}s", **tags}
    run_id = client.create_run(experiment_id, tags=every).info.run_id
    for score, config in scores.items():
        below = {"mlflow.parentRunId": run_id, "trial_config": config}
        child = client.create_run(experiment_id, tags=below).info.run_id
        client.log_metric(child, SCORE, score)
    if scores:
        client.log_metric(run_id, SCORE, max(scores))
    return str(run_id)


def config(lr: float) -> str:
    return trial_config(lr=lr).to_json()


def found(parent: ParentRun) -> list[tuple[str, float, float, float]]:
    bests = past_bests(parent.client, PETS, parent.run_id)
    return [(past.data, past.distance, past.score, past.config.fit.lr) for past in bests]


def test_the_best_trials_of_the_most_similar_data_come_first(client: MlflowClient, parent: ParentRun) -> None:
    searched(client, "far", 8000, {0.9: config(1e-2)})
    searched(client, "same", 1000, {0.5: config(1e-3), 0.8: config(2e-3), 0.7: config(3e-3)})
    searched(client, "near", 2000, {0.99: config(1e-4)})
    assert found(parent) == [("same", 0.0, 0.8, 2e-3), ("near", 1.0, 0.99, 1e-4), ("far", 3.0, 0.9, 1e-2)]


def test_of_several_searches_on_the_same_pictures_the_best_counts(client: MlflowClient, parent: ParentRun) -> None:
    for score, lr in ((0.7, 1e-3), (0.9, 2e-3), (0.8, 3e-3)):
        searched(client, "pet", 1000, {score: config(lr)})
    assert found(parent) == [("pet", 0.0, 0.9, 2e-3)]


def test_no_more_starts_are_taken_than_leave_trials_to_the_sampler(client: MlflowClient, parent: ParentRun) -> None:
    for power in range(MOST_STARTS + 2):
        searched(client, f"{power}", 1000 * 2**power, {0.5: config(1e-3)})
    assert [data for data, *_ in found(parent)] == [str(power) for power in range(MOST_STARTS)]


def test_what_cannot_be_read_is_left_out(client: MlflowClient, parent: ParentRun) -> None:
    searched(client, "no trial", 1000, {})
    searched(client, "other statistics", 1000, {0.9: config(1e-3)}, **{LIKENESS: '{"classes": 2}'})
    searched(client, "other configuration", 1000, {0.9: '{"seed": 0}'})
    searched(client, "good", 4000, {0.5: config(1e-3)})
    client.create_run(experiment(client, "foreign"), tags={"mlflow.note.content": "not ours"})
    assert [data for data, *_ in found(parent)] == ["good"]


def test_the_search_that_asks_is_not_its_own_past(client: MlflowClient, parent: ParentRun) -> None:
    client.log_metric(parent.run_id, SCORE, 1.0)
    assert found(parent) == []


def test_what_is_used_is_logged_on_the_parent_and_said(client: MlflowClient, parent: ParentRun) -> None:
    run_id = searched(client, "pet", 2000, {0.75: config(1e-3)})
    (past,) = take_past(parent, PETS)
    parent.writer.flush()
    assert client.get_run(parent.run_id).data.tags["warm_start"] == run_id
    (row,) = json.loads(Path(client.download_artifacts(parent.run_id, "warm_start.json")).read_text())
    assert TrialConfig.model_validate(row["config"]) == past.config
    assert (
        past_line([past]) == "warm start: the best trials of pets (distance 1.00, 0.7500 there) come after the default"
    )


def test_a_first_search_has_nothing_to_start_from_and_says_so(client: MlflowClient, parent: ParentRun) -> None:
    assert take_past(parent, PETS) == ()
    parent.writer.flush()
    assert client.get_run(parent.run_id).data.tags["warm_start"] == "nothing to start from"
    assert past_line(()) == "warm start: no earlier search in this MLflow has a best trial to start from"


def test_without_a_server_there_is_no_past() -> None:
    parent = ParentRun.open(None, None, "asking")
    assert take_past(parent, PETS) == ()
    parent.close()
