"""``compare``: summaries of searches loaded from MLflow, as a table and as a chart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pytest
from PIL import Image
from rich.console import Console

from data.errors import TrackingError
from tests.tuning.factories import candidate, recipe
from tuning.__main__ import main
from tuning.registry.candidate_store import save_candidate
from tuning.reporting.comparison import draw_comparison
from tuning.tracking.search_summary import ScorePoint, SearchSummary, load_search_summary
from tuning.ui.tables.searches import ComparedSearch, common_line, searches_table

if TYPE_CHECKING:
    from mlflow import MlflowClient

Capture = pytest.CaptureFixture[str]


def log_search(
    client: MlflowClient,
    name: str,
    scores: list[float | None],
    start_ms: int = 1_000_000,
    fingerprint: str = "f",
    winner: int | None = None,
) -> str:
    """Log a search with consecutive trials of one minute each; a trial without a score has failed."""
    existing = client.get_experiment_by_name(name)
    experiment = existing.experiment_id if existing else client.create_experiment(name)
    tags = {
        "freezeline.search_folder": "/s",
        "freezeline.data_fingerprint": fingerprint,
        "promotion": "champion",
        "version": "3",
    }
    parent = client.create_run(experiment, start_time=start_ms, tags=tags).info.run_id
    client.log_metric(parent, "test_balanced_accuracy", 0.75)
    for number, score in enumerate(scores):
        trial_start_ms = start_ms + 60_000 * number
        trial_tags = {"mlflow.parentRunId": parent}
        run = client.create_run(experiment, start_time=trial_start_ms, tags=trial_tags).info.run_id
        client.log_param(run, "trial", number)
        client.log_param(run, "backbone", f"net{number}")
        client.log_param(run, "image_size", 32)
        if score is not None:
            client.log_metric(run, "best_val_balanced_accuracy", score)
        client.set_terminated(run, "FAILED" if score is None else "FINISHED", end_time=trial_start_ms + 60_000)
    if winner is not None:
        client.log_metric(parent, "best_trial", winner)
    client.set_terminated(parent, "FINISHED", end_time=start_ms + 60_000 * (len(scores) + 1))
    return str(parent)


def test_the_winner_is_named_even_if_another_trial_has_a_higher_score_on_validation(client: MlflowClient) -> None:
    summary = load_search_summary(client, log_search(client, "pets", [0.9, 0.8, 0.9], winner=1))
    assert (summary.winner, summary.score) == ("1 net1@32", 0.8)


def test_the_logged_minutes_count_all_sessions_of_a_resumed_search(client: MlflowClient) -> None:
    run_id = log_search(client, "pets", [0.5])
    assert load_search_summary(client, run_id).minutes == 2
    client.log_metric(run_id, "search_minutes", 1.5)
    assert load_search_summary(client, run_id).minutes == 1.5


def test_a_summary_has_the_best_trial_and_each_improvement(client: MlflowClient) -> None:
    summary = load_search_summary(client, log_search(client, "pets", [0.5, 0.4, 0.9, None, 0.7]))
    assert (summary.name, summary.num_trials, summary.winner, summary.score) == (
        "pets",
        5,
        "2 net2@32",
        0.9,
    )
    assert (summary.test_score, summary.promotion, summary.minutes) == (0.75, "champion 3", 6)
    assert summary.improvements == (ScorePoint(seconds=60, score=0.5), ScorePoint(seconds=180, score=0.9))


def test_an_experiment_name_selects_its_latest_search(client: MlflowClient) -> None:
    latest = log_search(client, "pets", [0.6], start_ms=9_000_000)
    log_search(client, "pets", [0.5])
    assert load_search_summary(client, "pets").run_id == latest


def test_a_search_without_a_trial_has_an_empty_summary(client: MlflowClient) -> None:
    summary = load_search_summary(client, log_search(client, "pets", []))
    assert (summary.num_trials, summary.score, summary.winner) == (0, None, "")
    assert (summary.improvements, summary.minutes, summary.trials_s) == ((), 1, 0)
    assert (summary.budget, summary.seed) == ("", None)


@pytest.mark.parametrize("kind", ["unknown name", "run without a search"])
def test_a_name_or_run_without_a_search_is_an_error(client: MlflowClient, kind: str) -> None:
    experiment = client.create_experiment("pets")
    name = "nothing" if kind == "unknown name" else client.create_run(experiment).info.run_id
    with pytest.raises(
        TrackingError, match=f"ID of a search's parent run.* got '{name}', which is not in sqlite.*; use mlflow ui"
    ):
        load_search_summary(client, name)


def test_the_command_prints_a_table_and_writes_the_chart(client: MlflowClient, tmp_path: Path, capsys: Capture) -> None:
    first, second = log_search(client, "pets", [0.5, 0.6]), log_search(client, "cars", [0.8])
    file = tmp_path / "compared.png"
    assert main(["compare", "--runs", f"{first}, cars", "--chart", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["search", "name", "trials", "min", "val", "test", "[95%", "CI]", "winner", "status"]
    assert lines[2].split() == [
        first[:8],
        "pets",
        "2",
        "3.0",
        "0.6000",
        "0.7500",
        "1",
        "net1@32",
        "champion",
        "3",
    ]
    assert lines[3].split()[:2] == [second[:8], "cars"]
    assert not any("not comparable" in line for line in lines)
    assert Image.open(io.BytesIO(file.read_bytes())).width > 600


def test_a_search_is_not_compared_with_itself(client: MlflowClient, capsys: Capture) -> None:
    earlier, latest = log_search(client, "pets", [0.5]), log_search(client, "pets", [0.6], start_ms=9_000_000)
    assert main(["compare", "pets", latest]) == 2
    assert capsys.readouterr().err.strip() == (
        f"compare: runs must be two or more different searches, got 'pets' and '{latest}', which are the same "
        f"search {latest[:8]}; replace one by the parent run ID of another search (mlflow ui lists them)."
    )
    assert main(["compare", "pets", latest, earlier]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows.count(latest[:8]) == rows.count(earlier[:8]) == 1


def log_recipe(client: MlflowClient, run_id: str, **options: object) -> None:
    client.set_tag(run_id, "freezeline.recipe", recipe(**options).to_json())


def test_the_test_score_has_its_interval_and_what_differs_is_a_column(
    client: MlflowClient, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    first, second = (log_search(client, name, [0.5]) for name in ("pets", "cars"))
    save_candidate(client, candidate(0.8, run_id=first, images_per_class=500))
    save_candidate(client, candidate(0.7, run_id=second, model_uri="models:/m-2"))
    log_recipe(client, first, minutes="3")
    log_recipe(client, second, minutes="3", trials="4")
    assert main(["compare", first, second]) == 0
    header, *rows, common = capsys.readouterr().out.splitlines()[1:]
    assert header.split()[8:10] == ["images", "budget"]
    assert [row.split()[5:9] for row in rows if row.startswith((first[:8], second[:8]))] == [
        ["0.7500", "[0.750-0.850]", "1000", "3"],
        ["0.7500", "[0.650-0.750]", "20", "3"],
    ]
    assert "3 min or 4" in "\n".join(rows)
    assert common == "the same in all: seed 0"


def test_a_table_with_all_columns_fits_into_100_columns() -> None:
    summary = SearchSummary(
        run_id="a" * 32, name="photos", data_fingerprint="f", status="FINISHED", num_trials=100, winner="18 lite2@224",
        score=0.9, test_score=0.9, minutes=20.1, trials_s=1100, budget="20 min", seed=0, promotion="challenger 2",
        improvements=(),
    )  # fmt: skip
    other = summary.model_copy(update={"budget": "5 min", "seed": 1})
    model = candidate()
    table = searches_table([ComparedSearch(summary, model), ComparedSearch(other, None)])
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    _, *lines = out.getvalue().rstrip().splitlines()
    assert len(lines) == 3
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert common_line([ComparedSearch(summary, model)] * 2) == "the same in all: 20 test images, budget 20 min, seed 0"


def test_the_chart_ends_with_the_last_trial_at_most_at_100_percent_and_shows_equal_lines() -> None:
    points = (ScorePoint(seconds=60, score=0.5), ScorePoint(seconds=120, score=1.0))
    search = SearchSummary(
        run_id="a" * 32, name="photos", data_fingerprint="f", status="FINISHED", num_trials=3, winner="", score=1.0,
        test_score=None, minutes=60, trials_s=180, budget="", seed=None, promotion="", improvements=points,
    )  # fmt: skip
    figure = draw_comparison([search, search.model_copy(update={"run_id": "b" * 32})])
    (axes,) = figure.axes
    below, above = axes.get_lines()
    assert list(below.get_xdata()) == list(above.get_xdata()) == [1, 2, 3]
    assert axes.get_ylim()[1] == 1.0
    assert max(axes.get_yticks()) <= 1.0
    assert below.get_linewidth() > above.get_linewidth() + 1
    plt.close(figure)


def test_searches_on_different_data_are_compared_with_a_warning(client: MlflowClient, capsys: Capture) -> None:
    runs = [log_search(client, name, [0.5], fingerprint=name) for name in ("pets", "cars")]
    assert main(["compare", "--runs", ",".join(runs)]) == 0
    assert "different images or splits: their scores are not comparable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "pets"], "runs must be two or more searches, got 'pets'; add another"),
        (
            ["--runs", "pets,pets"],
            "runs must be two or more searches, got 'pets'; add another",
        ),
        (
            ["--runs", "a,b", "--chart", "x.jpg"],
            "chart must be a .png file, got 'x.jpg'; use for example compared.png",
        ),
    ],
)
def test_an_invalid_option_is_an_error(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr().err.strip() == f"compare: {message}."
