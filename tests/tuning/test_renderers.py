"""Terminal output: leaderboard, test result, next commands and log lines."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from models.evaluation.metrics import compute_metrics
from tests.tuning.conftest import FakeClock
from tests.tuning.factories import candidate, epoch_report, recipe, search_result, trial_record
from tuning.common.events import EpochEnded, Event, ProgressUpdated, TrialEnded, TrialStarted
from tuning.common.formatting import format_decision, format_score
from tuning.common.promotion_types import Promotion
from tuning.search.selection import ranked
from tuning.tracking.experiment import view_key
from tuning.tracking.ui_links import MlflowLinks, absolute_url
from tuning.ui.console import print_tables, progress_bar
from tuning.ui.log_renderer import LogRenderer
from tuning.ui.summary import leaderboard, leaderboard_csv, next_commands, plan_line, result_lines, run_note
from tuning.ui.tables.evaluation import class_table, score_lines
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
    for cell in ("0.9877", "2/3", "9/18", "tf_efficientnet_lite0", "32", "1.0e-03", "light"):
        assert cell in row


def test_the_leaderboard_shows_a_trials_variant() -> None:
    trial = trial_record()
    trial = trial.model_copy(update={"settings": {**trial.settings, "variant": "mobilenetv2-1"}})
    assert any("mobilenetv2-1" in line for line in rendered(leaderboard([trial])))


def test_a_leaderboard_without_a_scored_trial_is_empty() -> None:
    assert leaderboard([trial_record(0, None, "failed")]).rows == []


def test_the_csv_has_the_best_trial_first_and_its_score_in_the_first_column() -> None:
    trials = [trial_record(0, 0.5), trial_record(1, None, "failed"), trial_record(2, 0.9), trial_record(3, 0.7)]
    header, *rows = leaderboard_csv(trials).splitlines()
    assert header.startswith("score,trial,origin,status,")
    assert [row.split(",")[:2] for row in rows] == [["0.9", "2"], ["0.7", "3"], ["0.5", "0"], ["", "1"]]


# --- the test result ---


def test_the_test_result_has_confidence_intervals_and_the_number_of_evaluations() -> None:
    lines = result_lines(candidate(0.8, test_evaluations=2), baseline=0.75)
    assert lines[0] == "Test result on 20 images (test set evaluated 2 times):"
    assert lines[1].strip() == "accuracy 0.8000 (95% CI 0.7500 to 0.8500)"
    assert "raw pixels" in lines[-1]
    assert lines[-1].endswith("0.7500")


def test_without_a_baseline_there_is_no_baseline_line() -> None:
    assert not any("baseline" in line for line in result_lines(candidate(), None))


def test_the_decision_has_alias_version_and_reason() -> None:
    promotion = Promotion(alias="challenger", reason="not better", evidence={})
    assert format_decision(candidate(), 7, promotion) == "models:/pets@challenger is now version 7: not better."


def test_metrics_are_shown_by_class_and_with_confidence_intervals() -> None:
    scores = compute_metrics(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]), ("[bold]", "dog"))
    row = next(line for line in rendered(class_table(scores)) if "[bold]" in line)
    assert re.findall(r"[\d.]+", row) == ["1", "0.500", "1.000", "0.667"]
    lines = score_lines(scores, {"accuracy": (0.1, 0.9)})
    assert "accuracy           0.6667  (95% CI 0.1000 to 0.9000)" in lines
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


def test_a_link_to_a_server_has_no_password() -> None:
    assert absolute_url("http://me:secret@host:5000/", "#/runs") == "http://host:5000/#/runs"


def test_the_run_description_links_the_trials_the_report_and_the_freeze_chart() -> None:
    trials = [trial_record(0, 0.5), trial_record(1, 0.9)]
    result = search_result(trials, trials[1])
    plain = run_note(result, candidate(), "decided.")
    assert "#/" not in plain
    assert "| 1 | 0.9000 |" in plain
    linked = run_note(result, candidate(), "decided.", (), MlflowLinks("12", "search", {"uid1": "run1"}))
    run_link = "#/experiments/12/runs/run1?workflowType=machine_learning"
    assert linked.startswith(
        f"decided.\n\n[Trial 1, the best]({run_link}) · [all trials by score](#/experiments/12/runs?"
    )
    assert "[report](#/experiments/12/runs/search/artifacts/report.html?workflowType=machine_learning)" in linked
    assert "![accuracy by freeze depth](get-artifact?path=charts%2Ffreeze.png&run_uuid=search)" in linked
    assert f"| [1]({run_link}) | 0.9000 |" in linked
    assert "| 0 | 0.5000 |" in linked, "a trial without a known run has no link"
    assert "\n\n- Warning: few images\n\n**Test**" in run_note(result, candidate(), "decided.", ["few images"])


def test_a_path_with_spaces_is_quoted_in_the_predict_command() -> None:
    image = Path("/my photos/it's a cat.png")
    _, predict, _ = next_commands(LOCAL_URI, "LINK", "models:/pets@champion", image)
    words = shlex.split(predict.partition("python")[2])
    assert words == ["-m", "tuning", "predict", "--model", "models:/pets@champion", "--files", str(image)]


@pytest.mark.parametrize(("uri", "starts_ui"), [(LOCAL_URI, True), (REMOTE_URI, False)])
def test_mlflow_ui_is_suggested_for_a_local_database_only(uri: str, starts_ui: bool) -> None:
    compare, _, tune = next_commands(uri, "LINK", "models:/pets@champion", Path("cat.png"))
    assert ("mlflow ui" in compare) is starts_ui
    assert compare.rstrip("'").endswith("LINK")
    assert "mlflow run . -e tune" in tune


def test_another_database_is_passed_to_mlflow_ui() -> None:
    compare, *_ = next_commands("sqlite:////srv/my runs.db", "LINK", "models:/pets@champion", Path("cat.png"))
    assert "mlflow ui --backend-store-uri 'sqlite:////srv/my runs.db'" in compare


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
    """Return the log lines of the events, without their times."""
    renderer = LogRenderer()
    for event in events:
        renderer.handle(event)
    return [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]


def test_each_trial_has_a_line_when_it_starts_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    worse, better = trial_record(0, 0.5), trial_record(1, 0.7, "pruned")
    lines = log_lines(
        capsys,
        TrialStarted(worse),
        *(EpochEnded(worse, epoch_report(number, 0.5)) for number in (1, 2)),
        *map(TrialEnded, (worse, better, trial_record(2, None, "failed", "ValueError: no"))),
    )
    assert lines[0].startswith(
        "trial 0 started: tf_efficientnet_lite0 at 32 px, optimizer adamw, lr 0.001, freeze_fraction 0.5, batch_size 32"
    )
    assert lines[1:] == [
        "trial 0 complete after 3 epochs: 0.5000, best 0.5000 by trial 0 (1 finished)",
        "trial 1 pruned after 3 epochs: 0.7000, best 0.7000 by trial 1 (2 finished)",
        "trial 2 failed: ValueError: no (3 finished)",
    ]


def test_a_probe_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    probe = trial_record(3, 0.9).model_copy(update={"origin": "probe"})
    assert log_lines(capsys, EpochEnded(probe, epoch_report(1, 0.9)), TrialEnded(probe)) == [
        "trial 3, linear probe of tf_efficientnet_lite0 at 32 px: 0.9000, best 0.9000 by trial 3 (1 finished)"
    ]


def test_a_full_disk_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    full = {"features": "uncached (disk full)"}
    reports = (epoch_report(number, 0.5).model_copy(update={"runtime_info": full}) for number in (2, 3))
    (line,) = log_lines(capsys, *(EpochEnded(trial_record(4), report) for report in reports))
    assert "the disk is full: trial 4 recomputes its frozen blocks in every epoch" in line


@pytest.mark.parametrize(
    ("options", "num_running", "line"),
    [
        ({}, 0, "2 linear probes, then 16 trials of up to 8 epochs, 2 in parallel, time budget 5 minutes"),
        ({"trials": "3", "sweep": "off"}, 0, "3 trials of up to 8 epochs, 2 in parallel"),
        ({"minutes": "1.5", "sweep": "off"}, 0, "trials of up to 8 epochs, 2 in parallel, time budget 1.5 minutes"),
        (
            {"trials": "3", "sweep": "off"},
            2,
            "resuming: 0 trials finished, 2 unfinished; 1 trial of up to 8 epochs, 2 in parallel",
        ),
    ],
)
def test_the_plan_has_probes_trials_epochs_and_budget(options: dict[str, str], num_running: int, line: str) -> None:
    trials = [trial_record(number, None, "running") for number in range(num_running)]
    num_probes = 2 if "sweep" not in options else 0
    assert plan_line(recipe(**options), trials, num_probes, 2) == line


def test_a_trial_without_a_finished_epoch_has_no_score() -> None:
    assert (format_score(trial_record(0, None)), format_score(trial_record(0, 0.0))) == ("-", "0.0000")
