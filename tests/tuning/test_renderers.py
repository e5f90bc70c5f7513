"""What a person looks at in the terminal."""

from __future__ import annotations

import io
import json
import re
import shlex
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from models.evaluation.metrics import compute_metrics
from tests.tuning.conftest import FakeClock
from tests.tuning.factories import candidate, epoch_report, recipe, trial_record, trial_store
from tuning.common.event_bus import print_table, use_renderer
from tuning.common.events import EpochEnded, Event, ProgressUpdated, TrialEnded, TrialStarted
from tuning.common.formatting import format_decision, format_score
from tuning.common.promotion_types import Promotion
from tuning.search.selection import ranked
from tuning.tracking.ui_links import MlflowLinks, absolute_url
from tuning.ui.console import ConsoleRenderer
from tuning.ui.log_renderer import LogRenderer
from tuning.ui.progress_bar import ProgressBar
from tuning.ui.summary import leaderboard, next_commands, plan_line, result_lines, run_note
from tuning.ui.tables.evaluation import class_table, score_lines


def printed(table: Table, width: int = 80) -> list[str]:
    """Return the table's lines as a terminal of that width shows them."""
    out = io.StringIO()
    Console(file=out, width=width, markup=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


# --- the leaderboard ---


def test_the_best_trials_come_first_and_the_earlier_of_equals() -> None:
    results = [trial_record(number, value) for number, value in enumerate((0.5, None, 0.9, 0.9, 0.1))]
    assert [result.number for result in ranked(results)] == [2, 3, 0, 4]
    assert [result.number for result in ranked(results)[:1]] == [2]


def test_a_failed_trial_does_not_lead_the_board() -> None:
    results = [trial_record(0, 0.9, "failed"), trial_record(1, 0.5)]
    assert ranked(results)[0].number == 1


def test_the_leaderboard_fits_into_80_columns_and_says_what_was_tried() -> None:
    lines = printed(leaderboard([trial_record(12_345, 0.98765)]))
    row = next(line for line in lines if "12345" in line)
    assert max(map(len, lines)) <= 80
    for part in ("0.9877", "2/3", "9/18", "tf_efficientnet_lite0", "32", "1.0e-03", "light"):
        assert part in row


def test_the_leaderboard_names_a_trials_variant() -> None:
    result = trial_record()
    varied = result.model_copy(update={"settings": {**result.settings, "variant": "mobilenetv2-1"}})
    assert any("mobilenetv2-1" in line for line in printed(leaderboard([varied])))


def test_a_leaderboard_without_a_scored_trial_has_no_row() -> None:
    assert leaderboard([trial_record(0, None, "failed")]).row_count == 0


# --- the result ---


def test_the_test_result_has_its_interval_and_how_often_the_pictures_were_seen() -> None:
    lines = result_lines(candidate(0.8, test_evaluations=2), baseline=0.75)
    assert "20 test pictures" in lines[0]
    assert "2" in lines[0].replace("20", "")
    assert lines[1].strip() == "accuracy 0.8000 (95 %: 0.7500 to 0.8500)"
    assert "raw pixels" in lines[-1]
    assert lines[-1].endswith("0.7500")


def test_without_a_baseline_none_is_shown() -> None:
    assert not any("raw pixels" in line for line in result_lines(candidate(), None))


def test_the_decision_names_alias_version_and_reason() -> None:
    promotion = Promotion(alias="challenger", reason="not better", evidence={})
    assert format_decision(candidate(), 7, promotion) == "models:/pets@challenger is now version 7: not better."


def test_scores_are_shown_by_class_and_with_their_intervals() -> None:
    scores = compute_metrics(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]), ("[bold]", "dog"))
    row = next(line for line in printed(class_table(scores)) if "[bold]" in line)
    assert re.findall(r"[\d.]+", row) == ["1", "0.500", "1.000", "0.667"]
    lines = score_lines(scores, {"accuracy": (0.1, 0.9)})
    assert "accuracy           0.6667  (95 %: 0.1000 to 0.9000)" in lines
    assert {line.split()[0] for line in lines} == {"loss", "accuracy", "balanced_accuracy", "macro_f1"}


# --- what to type next ---

LOCAL, REMOTE = "sqlite:///mlflow.db", "https://mlflow.example/team/"


@pytest.mark.parametrize(("uri", "server"), [(LOCAL, "http://127.0.0.1:5000"), (REMOTE, "https://mlflow.example/team")])
def test_the_comparison_opens_the_runs_of_the_experiment_the_best_one_first(uri: str, server: str) -> None:
    results = [trial_record(0, 0.5), trial_record(1, 0.9), trial_record(2, None), trial_record(3, 0.7)]
    pages = MlflowLinks("12", "search", {f"uid{number}": f"run{number}" for number in range(3)})
    link = absolute_url(uri, pages.comparison_url(results))
    address, _, fragment = link.partition("#")
    assert address == f"{server}/"
    page, _, query = fragment.partition("?")
    assert query.startswith("runs=")  # or MLflow's page can't read them
    assert query.endswith("&workflowType=machine_learning")
    asked = {name: json.loads(texts[0]) for name, texts in urllib.parse.parse_qs(query).items() if texts[0][0] == "["}
    assert (page, asked) == ("/compare-runs", {"runs": ["run1", "run0"], "experiments": ["12"]})


def test_a_page_on_a_server_holds_no_password() -> None:
    assert absolute_url("http://me:secret@host:5000/", "#/runs") == "http://host:5000/#/runs"


def test_the_description_leads_on_to_the_trials_the_report_and_what_freezing_did() -> None:
    results = [trial_record(0, 0.5), trial_record(1, 0.9)]
    plain = run_note(results, results[1], candidate(), "decided.")
    assert "#/" not in plain
    assert "| 1 | 0.9000 |" in plain
    linked = run_note(results, results[1], candidate(), "decided.", MlflowLinks("12", "search", {"uid1": "run1"}))
    ours = "#/experiments/12/runs/run1?workflowType=machine_learning"
    assert linked.startswith(f"decided.\n\n[Trial 1, the best]({ours}) · [all trials compared](#/compare-runs?runs=")
    assert "[report](#/experiments/12/runs/search/artifacts/report.html?workflowType=machine_learning)" in linked
    assert "![accuracy by freeze depth](get-artifact?path=charts%2Ffreeze.png&run_uuid=search)" in linked
    assert f"| [1]({ours}) | 0.9000 |" in linked
    assert "| 0 | 0.5000 |" in linked, "a trial whose run is not known yet"


def test_a_picture_with_spaces_in_its_path_can_be_copied() -> None:
    picture = Path("/my photos/it's a cat.png")
    _, predict, _ = next_commands(LOCAL, "LINK", "models:/pets@champion", picture)
    words = shlex.split(predict.partition("python")[2])
    assert words == ["-m", "tuning", "predict", "--model", "models:/pets@champion", "--files", str(picture)]


@pytest.mark.parametrize(("uri", "starts_ui"), [(LOCAL, True), (REMOTE, False)])
def test_a_local_database_needs_its_ui_started_first(uri: str, starts_ui: bool) -> None:
    look, _, tune = next_commands(uri, "LINK", "models:/pets@champion", Path("cat.png"))
    assert ("mlflow ui" in look) is starts_ui
    assert look.rstrip("'").endswith("LINK")
    assert "mlflow run . -e tune" in tune


def test_a_database_elsewhere_is_named_to_mlflow_ui() -> None:
    look, *_ = next_commands("sqlite:////srv/my runs.db", "LINK", "models:/pets@champion", Path("cat.png"))
    assert "mlflow ui --backend-store-uri 'sqlite:////srv/my runs.db'" in look


@pytest.mark.parametrize("line", ["a" * 300, "[bold]x[/bold]", "[/x]"])
def test_a_line_is_printed_as_it_is(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with use_renderer(ConsoleRenderer()):
        print_table(line)
    assert capsys.readouterr().out == f"{line}\n"


def test_a_path_with_colons_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with use_renderer(ConsoleRenderer()):
        print_table("predict --files /photos/:cat:/1.png")
    assert capsys.readouterr().out == "predict --files /photos/:cat:/1.png\n"


# --- lines as it goes ---


def progress_said(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what is printed where no terminal is, of three steps of three seconds each."""
    with ProgressBar() as progress, use_renderer(ConsoleRenderer()):
        for done in range(0, 3000, 1000):
            progress("pictures read", done, 3000)
            clock.now_s += 3
    return [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]


def test_without_a_terminal_progress_is_a_line_now_and_then(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tuning.ui.console.time", clock)
    assert progress_said(clock, capsys) == ["pictures read: 2,000 of 3,000"]


def test_a_part_that_is_over_at_once_says_nothing_of_its_progress(capsys: pytest.CaptureFixture[str]) -> None:
    view = LogRenderer()
    for what in ("pictures read", "pictures resized"):
        view.handle(ProgressUpdated(what, 1, 1))
    assert capsys.readouterr().out == ""


def told(capsys: pytest.CaptureFixture[str], *events: Event) -> list[str]:
    """Return the lines that a log gets of the events, without their times."""
    view = LogRenderer()
    for event in events:
        view.handle(event)
    return [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]


def test_each_trial_says_that_it_runs_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    worse, better = trial_record(0, 0.5), trial_record(1, 0.7, "pruned")
    said = told(
        capsys,
        TrialStarted(worse),
        *(EpochEnded(worse, epoch_report(number, 0.5)) for number in (1, 2)),
        *map(TrialEnded, (worse, better, trial_record(2, None, "failed", "ValueError: no"))),
    )
    assert said[0].startswith(
        "trial 0 runs: tf_efficientnet_lite0 at 32 px, optimizer adamw, lr 0.001, freeze_fraction 0.5, batch_size 32"
    )
    assert said[1:] == [
        "trial 0 complete after 3 epochs: 0.5000, best 0.5000 by trial 0 (1 ended)",
        "trial 1 pruned after 3 epochs: 0.7000, best 0.7000 by trial 1 (2 ended)",
        "trial 2 failed: ValueError: no (3 ended)",
    ]


def test_a_probe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    probe = trial_record(3, 0.9).model_copy(update={"origin": "probe"})
    assert told(capsys, EpochEnded(probe, epoch_report(1, 0.9)), TrialEnded(probe)) == [
        "trial 3, linear probe of tf_efficientnet_lite0 at 32 px: 0.9000, best 0.9000 by trial 3 (1 ended)"
    ]


def test_a_full_disk_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    full = {"features": "uncached (disk full)"}
    reports = (epoch_report(number, 0.5).model_copy(update={"runtime_info": full}) for number in (2, 3))
    (line,) = told(capsys, *(EpochEnded(trial_record(4), report) for report in reports))
    assert "the disk is full: trial 4, at least, computes its frozen blocks in every epoch; make room" in line


@pytest.mark.parametrize(
    ("texts", "begun", "line"),
    [
        ({}, 0, "2 linear probes, then 16 trials of up to 8 epochs, 2 at once, 5 minutes in all"),
        ({"trials": "3", "sweep": "off"}, 0, "3 trials of up to 8 epochs, 2 at once"),
        ({"minutes": "1.5", "sweep": "off"}, 0, "trials of up to 8 epochs, 2 at once, 1.5 minutes in all"),
        (
            {"trials": "3", "sweep": "off"},
            2,
            "2 trials so far, 2 of them go on; 1 trials of up to 8 epochs, 2 at once",
        ),
    ],
)
def test_a_search_says_what_it_is_about_to_do(tmp_path: Path, texts: dict[str, str], begun: int, line: str) -> None:
    ledger = trial_store(tmp_path, recipe(**texts))
    for _ in range(begun):
        ledger.ask()
    ledger.requeue_running()
    assert plan_line(recipe(**texts), ledger, 2) == line


def test_a_trial_without_an_epoch_has_no_score_to_show() -> None:
    assert (format_score(trial_record(0, None)), format_score(trial_record(0, 0.0))) == ("-", "0.0000")
