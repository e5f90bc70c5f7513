"""Comparing searches that MLflow remembers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from data.errors import TrackingError
from tuning.__main__ import main
from tuning.tracking.search_summary import ScorePoint, load_search_summary

if TYPE_CHECKING:
    from mlflow import MlflowClient

Capture = pytest.CaptureFixture[str]


def search(
    client: MlflowClient, name: str, scores: list[float | None], began: int = 1_000_000, fingerprint: str = "f"
) -> str:
    """Keep a search whose trials take a minute each, one after another; without a score a trial has failed."""
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    tags = {"search_folder": "/s", "data_fingerprint": fingerprint, "promotion": "champion", "version": "3"}
    parent = client.create_run(experiment, start_time=began, tags=tags).info.run_id
    client.log_metric(parent, "test_balanced_accuracy", 0.75)
    for number, score in enumerate(scores):
        start = began + 60_000 * number
        run = client.create_run(experiment, start_time=start, tags={"mlflow.parentRunId": parent}).info.run_id
        client.log_param(run, "backbone", f"net{number}")
        client.log_param(run, "image_size", 32)
        if score is not None:
            client.log_metric(run, "best_val_balanced_accuracy", score)
        client.set_terminated(run, "FAILED" if score is None else "FINISHED", end_time=start + 60_000)
    client.set_terminated(parent, "FINISHED")
    return str(parent)


def test_a_search_is_read_back_with_its_best_trial_and_each_improvement(client: MlflowClient) -> None:
    found = load_search_summary(client, search(client, "pets", [0.5, 0.4, 0.9, None, 0.7]))
    assert (found.name, found.trials, found.network, found.score) == ("pets", 5, "net2 at 32 px", 0.9)
    assert (found.test, found.promotion, found.seconds) == (0.75, "champion 3", 300)
    assert found.progress == (ScorePoint(seconds=60, score=0.5), ScorePoint(seconds=180, score=0.9))


def test_a_name_stands_for_the_latest_search_of_that_experiment(client: MlflowClient) -> None:
    latest = search(client, "pets", [0.6], began=9_000_000)
    search(client, "pets", [0.5])
    assert load_search_summary(client, "pets").run_id == latest


def test_a_search_without_a_trial_is_a_row_of_dashes(client: MlflowClient) -> None:
    found = load_search_summary(client, search(client, "pets", []))
    assert (found.trials, found.score, found.network, found.progress, found.seconds) == (0, None, "", (), 0)


@pytest.mark.parametrize("given", ["nothing", "trial"])
def test_what_is_no_search_is_refused_with_a_sentence(client: MlflowClient, given: str) -> None:
    experiment = client.create_experiment("pets")
    name = client.create_run(experiment).info.run_id if given == "trial" else "nothing"
    with pytest.raises(TrackingError, match=f"runs must be parent runs of searches.* got '{name}'; mlflow ui"):
        load_search_summary(client, name)


def test_the_command_shows_a_table_and_writes_the_chart(client: MlflowClient, tmp_path: Path, capsys: Capture) -> None:
    first, second = search(client, "pets", [0.5, 0.6]), search(client, "cars", [0.8])
    file = tmp_path / "compared.png"
    assert main(["compare", "--runs", f"{first}, cars", "--chart", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [
        first[:8],
        "pets",
        "2",
        "2.0",
        "0.6000",
        "0.7500",
        "net1",
        "at",
        "32",
        "px",
        "champion",
        "3",
    ]
    assert lines[3].split()[:2] == [second[:8], "cars"]
    assert not any("can't be compared" in line for line in lines)
    assert Image.open(io.BytesIO(file.read_bytes())).width > 600


def test_searches_of_other_pictures_are_shown_with_a_warning(client: MlflowClient, capsys: Capture) -> None:
    runs = [search(client, name, [0.5], fingerprint=name) for name in ("pets", "cars")]
    assert main(["compare", "--runs", ",".join(runs)]) == 0
    assert "different pictures, or split differently: their scores can't be compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--runs", "pets"], "runs must be two or more searches separated by commas, got 'pets'; add another"),
        (
            ["--runs", "pets,pets"],
            "runs must be two or more searches separated by commas, got 'pets,pets'; add another",
        ),
        (
            ["--runs", "a,b", "--chart", "x.jpg"],
            "chart must be a .png file, got 'x.jpg'; use for example compared.png",
        ),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str, capsys: Capture) -> None:
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr().err.strip() == f"compare: {sentence}."
