"""Terminal output: leaderboard, test result, next commands and log lines."""

from __future__ import annotations

import io
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from models.evaluation.metrics import compute_metrics
from tests.tuning.conftest import FakeClock
from tests.tuning.factories import (
    candidate,
    epoch_metrics,
    epoch_report,
    recipe,
    search_result,
    trial_config,
    trial_record,
)
from tuning.common.events import (
    EpochEnded,
    Event,
    PhaseStarted,
    ProgressUpdated,
    SearchPlanned,
    SearchStarted,
    StageStarted,
    TrialEnded,
    TrialStarted,
)
from tuning.common.formatting import format_decision, format_score, short_network
from tuning.common.promotion_types import Promotion
from tuning.search.leaderboard import leaderboard_csv
from tuning.search.selection import ranked
from tuning.search.start_trial import start_settings
from tuning.search.time_budget import Elapsed
from tuning.tracking.experiment import view_key
from tuning.tracking.ui_links import MlflowLinks, absolute_url
from tuning.ui import trial_rows
from tuning.ui.console import print_tables, progress_bar
from tuning.ui.log_renderer import LogRenderer
from tuning.ui.result_text import (
    MAX_WIDTH,
    RegisteredVersion,
    command_lines,
    continue_lines,
    decision_lines,
    metrics_lines,
    next_commands,
    time_lines,
)
from tuning.ui.summary import leaderboard, plan_line, run_note
from tuning.ui.tables.evaluation import class_table, confusion_table, score_lines
from tuning.ui.tables.text_table import TextTable


def rendered(table: Table | TextTable, width: int = 80) -> list[str]:
    """Return the table's lines in a terminal of that width."""
    out = io.StringIO()
    Console(file=out, width=width, markup=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


# --- the leaderboard ---


def test_trials_are_ranked_by_score_and_ties_by_number() -> None:
    trials = [trial_record(number, score) for number, score in enumerate((0.5, None, 0.9, 0.9, 0.1))]
    assert [trial.number for trial in ranked(trials)] == [2, 3, 0, 4]


def test_a_failed_trial_is_not_ranked() -> None:
    trials = [trial_record(0, 0.9, "failed"), trial_record(1, 0.5)]
    assert [trial.number for trial in ranked(trials)] == [1]


def test_the_leaderboard_fits_into_80_columns_and_shows_the_settings() -> None:
    lines = rendered(leaderboard([trial_record(12_345, 0.98765)]))
    row = next(line for line in lines if "12345" in line)
    assert max(map(len, lines)) <= 80
    for cell in ("0.9877", "9/18", "lite0", "32", "1.0e-03", "light"):
        assert cell in row


def test_the_leaderboard_shows_a_trials_variant() -> None:
    trial = trial_record()
    trial = trial.model_copy(update={"settings": {**trial.settings, "variant": "mobilenetv2-1"}})
    assert any("mobilenetv2-1" in line for line in rendered(leaderboard([trial])))


def test_the_leaderboard_marks_the_winner_even_if_others_have_a_better_score() -> None:
    timed = [epoch_metrics(0.5) | {"epoch_s": 7.4}] * 2
    winner = trial_record(9, 0.5).model_copy(update={"history": tuple(timed)})
    trials = [trial_record(number, 0.9) for number in range(7)] + [winner]
    lines = rendered(leaderboard(trials, [winner]))
    assert lines[0] == "Best trials by validation: 6 of 8 (* winner)"
    assert [line.split()[0] for line in lines[2:7]] == ["0", "1", "2", "3", "4"]
    assert lines[7].split()[:6] == ["*", "9", "0.5000", "-", "2", "15"]
    assert max(map(len, lines)) <= 80


def test_a_leaderboard_without_a_scored_trial_is_empty() -> None:
    table = leaderboard([trial_record(0, None, "failed")])
    assert (table.title, table.rows) == ("Best trials by validation: 0 of 1, 1 without a score", [])


def test_the_seconds_of_a_trial_are_those_from_its_start_to_its_end() -> None:
    epochs = tuple([epoch_metrics(0.5) | {"epoch_s": 7.0}] * 2)
    changes = {"history": epochs, "started_s": 1000.0, "ended_s": 1060.0}
    probe = trial_record().model_copy(update=changes)
    assert (probe.seconds, probe.wall_s) == (14, 60)
    assert leaderboard([probe]).rows[0][4] == "60"
    assert trial_rows.row(probe, is_best=False).split()[6] == "60"
    restarted = probe.model_copy(update={"started_s": 1055.0})
    assert (restarted.wall_s, probe.model_copy(update={"ended_s": None}).wall_s) == (14, 14)


def test_the_csv_has_the_best_trial_first_and_its_score_in_the_first_column() -> None:
    trials = [trial_record(0, 0.5), trial_record(1, None, "failed"), trial_record(2, 0.9), trial_record(3, 0.7)]
    header, *rows = leaderboard_csv(trials).splitlines()
    assert header.startswith("score,trial,origin,status,")
    assert [row.split(",")[:2] for row in rows] == [["0.9", "2"], ["0.7", "3"], ["0.5", "0"], ["", "1"]]


# --- the test result ---


def test_the_test_result_has_confidence_intervals_baselines_and_the_number_of_evaluations() -> None:
    lines = list(metrics_lines(candidate(0.8, test_evaluations=2), 0.75))
    assert lines == [
        "RESULT    test balanced accuracy 0.8000 [95% CI 0.7500, 0.8500]",
        "          accuracy 0.8000 [0.7500, 0.8500], macro-F1 0.8000 [0.7500, 0.8500]",
        "          on 20 images; test set evaluated 2 times",
        "          baselines (accuracy): majority class 0.5000, raw pixels 0.7500",
    ]


def test_the_decision_is_labeled_with_the_alias_and_fits_into_80_columns() -> None:
    lines = decision_lines("models:/pets@champion is now version 1: " + "better " * 20, "models:/pets@champion")
    assert lines[0].startswith("CHAMPION  models:/pets@champion is now version 1: better")
    assert max(map(len, lines)) <= MAX_WIDTH
    assert decision_lines("Not decided yet.", "") == ["REGISTRY  Not decided yet."]


def test_the_decision_has_alias_version_and_reason() -> None:
    promotion = Promotion(alias="challenger", reason="not better", evidence={})
    assert format_decision(candidate(), 7, promotion) == "models:/pets@challenger is now version 7: not better."


def test_metrics_are_shown_by_class_and_with_confidence_intervals() -> None:
    scores = compute_metrics(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]), ("[bold]", "dog"))
    row = next(line for line in rendered(class_table(scores)) if "[bold]" in line)
    assert re.findall(r"[\d.]+", row) == ["1", "0.5000", "1.0000", "0.6667"]
    assert [line.split() for line in rendered(confusion_table(scores))[-2:]] == [
        ["1", "[bold]", "1", "."],
        ["2", "dog", "1", "1"],
    ]
    lines = score_lines(scores, {"accuracy": (0.1, 0.9)})
    assert "accuracy           0.6667  [95% CI 0.1000, 0.9000]" in lines
    assert {line.split()[0] for line in lines} == {"loss", "accuracy", "balanced_accuracy", "macro_f1"}


# --- next commands ---

LOCAL_URI, REMOTE_URI = "sqlite:///mlflow.db", "https://mlflow.example/team/"


@pytest.mark.parametrize(
    ("uri", "server"), [(LOCAL_URI, "http://127.0.0.1:5000"), (REMOTE_URI, "https://mlflow.example/team")]
)
def test_the_link_to_the_trials_is_short_and_names_the_view_of_the_search(uri: str, server: str) -> None:
    run_id = "0123456789abcdef0123456789abcdef"
    link = absolute_url(uri, MlflowLinks("12", run_id, {}).trials_url())
    view = view_key(run_id)
    assert link == f"{server}/#/experiments/12/runs?workflowType=machine_learning&viewStateShareKey={view}"


def test_every_link_opens_the_mode_of_the_ui_that_shows_models_and_trials() -> None:
    links = MlflowLinks("12", "search", {})
    urls = [links.run_url("search"), links.artifact_url("report.html"), links.trials_url()]
    assert all("workflowType=machine_learning" in url for url in urls)


def test_a_link_to_a_server_has_no_password() -> None:
    assert absolute_url("http://me:secret@host:5000/", "#/runs") == "http://host:5000/#/runs"


def test_the_run_description_links_the_trials_the_report_and_the_freeze_chart() -> None:
    trials = [trial_record(0, 0.5), trial_record(1, 0.9)]
    result = search_result(trials, trials[1])
    plain = run_note(result, candidate(), "decided.")
    assert "#/" not in plain
    assert "| * 1 | 0.9000 |" in plain
    linked = run_note(result, candidate(), "decided.", (), MlflowLinks("12", "search", {"uid1": "run1"}))
    run_link = "#/experiments/12/runs/run1?workflowType=machine_learning"
    assert linked.startswith(
        f"decided.\n\n[Trial 1, the winner]({run_link}) · [all trials by score](#/experiments/12/runs?"
    )
    assert "[report](#/experiments/12/runs/search/artifacts/report.html?workflowType=machine_learning)" in linked
    assert "![accuracy by freeze depth](get-artifact?path=charts%2Ffreeze.png&run_uuid=search)" in linked
    assert f"| * [1]({run_link}) | 0.9000 |" in linked
    assert "| 0 | 0.5000 |" in linked, "a trial without a known run has no link"
    assert "\n\n- Warning: few images\n\n**Test**" in run_note(result, candidate(), "decided.", ["few images"])


RUN_URL = "http://127.0.0.1:5000/#/experiments/1/runs/" + "a" * 32


def registered(alias: Literal["champion", "challenger"] = "champion", champion: int | None = None) -> RegisteredVersion:
    """Return version 2 of pets, and the decision about it."""
    return RegisteredVersion("pets", 2, Promotion(alias=alias, reason="r", evidence={}, champion=champion))


def test_every_next_command_is_on_one_line_that_fits_into_80_columns() -> None:
    lines = next_commands(LOCAL_URI, RUN_URL, registered(), Path("pets/cat.png"))
    lines += continue_lines("a" * 32)
    assert lines == [
        "MLflow    mlflow ui",
        f"  {RUN_URL}",
        "Predict   freezeline predict models:/pets@champion pets/cat.png",
        "Serve",
        "  mlflow models serve -m models:/pets@champion --env-manager local -p 5001",
        "          champion is version 2, the model of this search",
        f"Continue  freezeline resume {'a' * 32} --minutes 10",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("champion", "alias", "note"),
    [
        (1, "champion", "champion is still version 1; the model of this search is version 2,"),
        (None, "challenger", "there is no champion yet; the model of this search is version 2,"),
    ],
)
def test_the_commands_of_a_rejected_model_use_the_champion_if_there_is_one(
    champion: int | None, alias: str, note: str
) -> None:
    lines = next_commands(LOCAL_URI, "", registered("challenger", champion), Path("cat.png"))
    assert lines[0] == f"Predict   freezeline predict models:/pets@{alias} cat.png"
    assert f"mlflow models serve -m models:/pets@{alias} --env-manager" in "".join(lines[1:3])
    assert [line.strip() for line in lines[-2:]] == [note, "models:/pets@challenger"]


def test_a_command_that_is_too_long_gets_a_line_of_its_own() -> None:
    assert command_lines("Report", "x" * 71) == ["Report", f"  {'x' * 71}"]


@pytest.mark.parametrize(
    ("elapsed", "budget_s", "text"),
    [
        (Elapsed(269.0), 180.0, "4:29, 1:29 over the budget of 3:00"),
        (Elapsed(180.4), 180.0, "3:00, within the budget of 3:00"),
        (Elapsed(4000.0), None, "1:06:40"),
        (Elapsed(68.0, 128.0), 60.0, "1:08, 0:08 over the budget of 1:00; 3:16 with earlier sessions"),
    ],
)
def test_the_last_line_is_the_total_time_and_by_how_much_it_exceeds_the_budget(
    elapsed: Elapsed, budget_s: float | None, text: str
) -> None:
    assert time_lines(elapsed, budget_s) == [f"Time      {text}"]


def test_a_path_with_spaces_is_quoted_in_the_predict_command() -> None:
    image = Path("/my photos/it's a cat.png")
    predict = "".join(next_commands(LOCAL_URI, "", registered(), image)[:2]).partition("Serve")[0]
    words = shlex.split(predict.removeprefix("Predict"))
    assert words == ["freezeline", "predict", "models:/pets@champion", str(image)]


@pytest.mark.parametrize(("uri", "first"), [(LOCAL_URI, "MLflow    mlflow ui"), (REMOTE_URI, f"MLflow\n  {RUN_URL}")])
def test_mlflow_ui_is_suggested_for_a_local_database_only(uri: str, first: str) -> None:
    assert "\n".join(next_commands(uri, RUN_URL, None, Path("cat.png"))).startswith(first)


def test_another_database_is_passed_to_mlflow_ui() -> None:
    command = next_commands("sqlite:////srv/my runs.db", RUN_URL, None, Path("cat.png"))[0]
    assert command == "MLflow    mlflow ui --backend-store-uri 'sqlite:////srv/my runs.db'"


@pytest.mark.parametrize("line", ["a" * 300, "[bold]x[/bold]", "[/x]"])
def test_a_line_is_printed_unchanged(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(line)
    assert capsys.readouterr().out == f"{line}\n"


def test_a_path_with_colons_is_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables("predict --files /photos/:cat:/1.png")
    assert capsys.readouterr().out == "predict --files /photos/:cat:/1.png\n"


# --- log lines ---


def progress_lines(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the progress lines, without a terminal, of three steps of three seconds each."""
    with progress_bar() as progress:
        for done in range(0, 3000, 1000):
            progress("images read", done, 3000)
            clock.now_s += 3
    return [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]


def test_without_a_terminal_progress_is_a_line_every_few_seconds(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tuning.ui.console.time", clock)
    assert progress_lines(clock, capsys) == ["images read: 2,000 of 3,000"]


def test_a_short_task_prints_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = LogRenderer()
    for task in ("images read", "images resized"):
        renderer.handle(ProgressUpdated(task, 1, 1))
    assert capsys.readouterr().out == ""


def log_lines(capsys: pytest.CaptureFixture[str], *events: Event) -> list[str]:
    """Return the log lines of the events, with 0 in place of the digits of their times."""
    renderer = LogRenderer()
    for event in events:
        renderer.handle(event)
    lines = capsys.readouterr().out.splitlines()
    return [re.sub(r"^\d\d:\d\d:\d\d", "00:00:00", line) for line in lines]


def test_each_trial_has_one_aligned_row_that_fits_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    worse, better = trial_record(0, 0.5, "out of time"), trial_record(1, 0.7)
    network = better.config.network.model_copy(update={"head_features": "all", "truncate": 3})
    better = better.model_copy(update={"config": better.config.model_copy(update={"network": network})})
    times = {"started_s": 1000.0, "ended_s": 1012.0}
    failed = trial_record(2, None, "failed", "ValueError: no").model_copy(update=times)
    lines = log_lines(
        capsys,
        TrialStarted(worse),
        PhaseStarted(1, 2, "trials", 3),
        *(EpochEnded(worse, epoch_report(number, 0.5)) for number in (1, 2)),
        *map(TrialEnded, (worse, better, trial_record(3, 0.6, "pruned"), failed)),
        PhaseStarted(2, 2, "test, package, register"),
    )
    assert lines == [
        "",
        "[1/2] trials: 3 planned",
        "time     trial  network          px frozen epochs     s   score   note",
        "00:00:00     0  lite0            32   9/18    3/4     0  0.5000 * out of time",
        "00:00:00     1  lite0 all -3     32   9/18    3/4     0  0.7000 *",
        "00:00:00     3  lite0            32   9/18    3/4     0  0.6000   pruned",
        "00:00:00     2  lite0            32   9/18      -    12       -   failed",
        "          trial 2 failed: ValueError: no",
        "          4/3 done, best 0.7000 by trial 1",
        "",
        "[2/2] test, package, register",
    ]
    assert max(map(len, lines)) <= 80


def test_the_best_trial_is_named_only_when_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial_record(number, 0.9 if number == 2 else 0.5) for number in range(30)]
    lines = log_lines(capsys, PhaseStarted(1, 2, "trials"), *map(TrialEnded, trials))
    assert [line.strip() for line in lines if "done" in line] == [
        "10 done, best 0.9000 by trial 2", "20 done", "30 done",
    ]  # fmt: skip


def test_a_long_variant_is_shortened() -> None:
    trial = trial_record()
    trial = trial.model_copy(update={"settings": {**trial.settings, "variant": "mobilenetv3_large_100"}})
    assert short_network(trial, 14) == "mobilenetv3_l~"


def test_the_header_has_the_run_the_data_the_store_the_device_and_the_budget(
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = {"train": 1200, "val": 45, "test": 9}
    started = SearchStarted("0.5.0", "tune", "pets", images, 2, "a" * 32, "pets", 7, "sqlite:///mlflow.db")
    planned = SearchPlanned("run", "a plan", 16, 4, 0, 8, 1, ends_s=0.0, budget_s=90.0)
    lines = log_lines(capsys, StageStarted("checking the images"), started, planned)
    assert lines[:6] == [
        "Freezeline 0.5.0  tune pets, seed 7",
        f"  run       {'a' * 32} in experiment pets",
        "  data      1,254 images, 2 classes: 1,200 train, 45 val, 9 test",
        "  tracking  sqlite:///mlflow.db",
        "  device    CPU, 1 trial in parallel",
        f"  budget    1.5 min, target {datetime.fromtimestamp(0):%H:%M:%S}: trials stop before, the end may be later",
    ]
    assert lines[6:] == ["  plan      a plan"]


def test_a_full_disk_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    full = {"features": "uncached (disk full)"}
    reports = (epoch_report(number, 0.5).model_copy(update={"runtime_info": full}) for number in (2, 3))
    (line,) = log_lines(capsys, *(EpochEnded(trial_record(4), report) for report in reports))
    assert "the disk is full: trial 4 recomputes its frozen blocks in every epoch" in line


@pytest.mark.parametrize(
    ("options", "num_running", "line"),
    [
        ({}, 0, "2 probes, then 16 trials of up to 8 epochs"),
        ({"trials": "3", "sweep": "off"}, 0, "3 trials of up to 8 epochs"),
        ({"minutes": "1.5", "sweep": "off"}, 0, "trials of up to 8 epochs"),
        ({"images_per_epoch": "2812"}, 0, "2 probes, then 16 trials of up to 8 epochs of about 2,812 images"),
        ({"trials": "3", "sweep": "off"}, 2, "resuming: 0 trials done, 2 unfinished; 1 trial of up to 8 epochs"),
    ],
)
def test_the_plan_has_probes_trials_and_epochs(options: dict[str, str], num_running: int, line: str) -> None:
    trials = [trial_record(number, None, "running") for number in range(num_running)]
    num_probes = 2 if "sweep" not in options else 0
    assert plan_line(recipe(**options), trials, num_probes, 0) == line


@pytest.mark.parametrize(("count", "words"), [(1, "configuration"), (3, "3 configurations")])
def test_the_plan_begins_with_the_configurations_of_the_champion(count: int, words: str) -> None:
    starts = [start_settings(trial_config(lr=lr)) for lr in (1e-3, 2e-3, 3e-3)[:count]]
    started = recipe(trials="3", start_from="pets@2", start_settings=starts)
    assert plan_line(started, [], 0, 0) == f"first the {words} of pets@2; 3 trials of up to 8 epochs"
    assert "pets" not in plan_line(started, [trial_record()], 0, 0)


def test_a_resumed_search_says_that_the_sweep_is_dropped() -> None:
    text = plan_line(recipe(trials="3"), [trial_record()], 0, 24)
    assert text.startswith(
        "resuming: 1 trial done, 0 unfinished; 24 probes dropped, because the sweep is over; 2 trials"
    )


def test_a_trial_without_a_finished_epoch_has_no_score() -> None:
    assert (format_score(trial_record(0, None)), format_score(trial_record(0, 0.0))) == ("-", "0.0000")
