"""Events: who is told, what a program reads of them, what quiet leaves, and which view a command opens."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from data.audit.report import Audit
from data.errors import SearchError, SettingError
from data.findings import Finding
from tests.system.output_filter import foreign
from tests.tuning.factories import candidate, epoch_report, trial_record
from tuning.common import event_bus
from tuning.common.event_bus import info, print_table, warning
from tuning.common.events import (
    AuditCompleted,
    CandidateEvaluated,
    CommandEnded,
    EpochEnded,
    Event,
    Message,
    ProgressUpdated,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    StageStarted,
    TablesShown,
    TrainingEpochEnded,
    TrialEnded,
    TrialStarted,
)
from tuning.common.promotion_types import Promotion
from tuning.common.redaction import MASK
from tuning.ui.console import ConsoleRenderer
from tuning.ui.jsonl_renderer import JsonLinesRenderer
from tuning.ui.live.renderer import LiveRenderer
from tuning.ui.log_renderer import LogRenderer, QuietRenderer
from tuning.ui.session import make_renderer, run_with_ui

AUDIT = Audit(
    name="pets",
    root=Path("/photos"),
    fingerprint="f" * 32,
    counts={"train": {"cat": 4, "dog": 5}, "val": {"cat": 1, "dog": 1}, "test": {"cat": 2, "dog": 1}},
    num_skipped=1,
    imbalance=1.25,
    median_short_side=32,
    findings=(Finding(kind="tiny", count=2, action="kept", files=(("a.png",), ("b.png",))),),
)
PROMOTION = Promotion(alias="champion", reason="better", evidence={})
EVERY: list[Event] = [
    Message("hello"),
    Message("the disk is full", is_warning=True),
    TablesShown(("a table",)),
    StageStarted("starting Ray"),
    ProgressUpdated("reading images", 3, 9),
    AuditCompleted(AUDIT),
    SearchPlanned("run", "a plan", 16, 4, 0, 8, 2, 1_800_000_000.0),
    TrialStarted(trial_record(0, None, "running")),
    EpochEnded(trial_record(0, 0.5, "running"), epoch_report(3, 0.5)),
    TrialEnded(trial_record(0, 0.5)),
    TrainingEpochEnded(epoch_report(1, 0.5)),
    CandidateEvaluated(candidate(), 0.6),
    PromotionDecided(candidate(), 3, PROMOTION),
    ReportWritten(Path("/searches/report.html")),
    CommandEnded(2, ("data must exist",)),
]
ROOT = Path(__file__).resolve().parents[2]


def written(*events: Event) -> list[dict[str, Any]]:
    """Return what a program reads of the events, the first line aside."""
    file = io.StringIO()
    view = JsonLinesRenderer(file, "tune")
    for event in events:
        view.handle(event)
    return [json.loads(line, parse_constant=pytest.fail) for line in file.getvalue().splitlines()][1:]


# --- JSON lines ---


def test_every_event_is_tried_here() -> None:
    assert {type(event) for event in EVERY} == set(get_args(Event))


def test_a_program_reads_every_event_but_those_for_people() -> None:
    names = [line["event"] for line in written(*EVERY)]
    assert names == [
        "warning", "part", "progress", "audit", "plan", "trial_started", "epoch", "trial_ended", "epoch", "result",
        "decision", "report", "ended",
    ]  # fmt: skip


def test_the_first_line_names_the_schema_and_the_command() -> None:
    file = io.StringIO()
    JsonLinesRenderer(file, "resume")
    first = json.loads(file.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("at"))
    assert first == {"event": "began", "schema": 1, "command": "resume"}


def documented() -> dict[str, set[str]]:
    """Return the fields of each event as docs/events.md has them."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}


def test_the_documentation_has_every_event_with_its_fields() -> None:
    file = io.StringIO()
    JsonLinesRenderer(file, "tune")
    lines = [json.loads(file.getvalue()), *written(*EVERY)]
    found = {line["event"]: set(line) - {"event", "at"} for line in lines}
    assert len(found) == 13
    assert documented() == found


def test_the_documentations_example_is_a_real_beginning_and_end() -> None:
    example = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
    assert example
    lines = [json.loads(line) for line in example[1].splitlines()]
    assert (lines[0]["event"], lines[-1]["event"]) == ("began", "ended")
    fields = documented()
    assert all(set(line) - {"event", "at"} == fields[line["event"]] for line in lines)


def test_a_trial_is_told_from_its_settings_to_its_end() -> None:
    started, epoch_line, ended = written(*EVERY[7:10])
    assert (started["trial"], started["uid"], started["origin"]) == (0, "uid0", "default")
    assert started["settings"]["optimizer"] == "adamw"
    assert (epoch_line["epoch"], epoch_line["metrics"]["val_balanced_accuracy"]) == (3, 0.5)
    assert {name: ended[name] for name in ("status", "epochs", "best_epoch", "score")} == {
        "status": "complete", "epochs": 3, "best_epoch": 2, "score": 0.5,
    }  # fmt: skip


def test_numbers_that_json_has_no_word_for_are_null() -> None:
    report = epoch_report(1, 0.5).model_copy(update={"metrics": {"val_loss": math.nan, "lr": math.inf, "epoch_s": 1.0}})
    (line,) = written(TrainingEpochEnded(report))
    assert line["metrics"] == {"val_loss": None, "lr": None, "epoch_s": 1.0}


def test_no_secret_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", 'quoted"secret')
    (line,) = written(CommandEnded(1, ('the server says quoted"secret',)))
    assert line["problems"] == [f"the server says {MASK}"]


def test_a_failed_trial_without_an_epoch_has_no_score() -> None:
    (line,) = written(TrialEnded(trial_record(1, None, "failed", "ValueError: no")))
    assert (line["best_epoch"], line["score"], line["reason"]) == (None, None, "ValueError: no")


def test_progress_is_told_now_and_then_and_at_its_end() -> None:
    told = [ProgressUpdated(what, done, 500) for what in ("reading", "resizing") for done in range(1, 501)]
    lines = [(line["what"], line["done"]) for line in written(*told)]
    assert lines[0] == ("reading", 1)
    assert {("reading", 500), ("resizing", 1), ("resizing", 500)} <= set(lines)
    assert len(lines) < 100


def test_a_line_is_there_as_soon_as_it_is_told(tmp_path: Path) -> None:
    with (tmp_path / "events").open("w") as file:
        JsonLinesRenderer(file, "tune").handle(StageStarted("starting Ray"))
        assert (tmp_path / "events").read_text().count("\n") == 2


# --- the stream ---


def test_without_a_view_sentences_and_tables_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_bus, "_renderers", [ConsoleRenderer()])  # one that has told no other test's progress
    info("a sentence")
    warning("a warning")
    print_table("a line")
    for event in EVERY[3:]:
        event_bus.emit(event)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[2] or line for line in said] == ["a sentence", "a warning", "a line"]


def test_the_view_that_was_opened_last_is_told_and_closed_whatever_happens() -> None:
    class Heard:
        def __init__(self) -> None:
            self.events: list[Event | str] = []

        def tell(self, event: Event) -> None:
            self.events.append(event)

        def close(self) -> None:
            self.events.append("closed")

    outer, inner = Heard(), Heard()
    with contextlib.suppress(RuntimeError), event_bus.use_renderer(outer):
        event_bus.emit_progress("reading", 1, 2)
        with event_bus.use_renderer(inner):
            event_bus.start_stage("starting Ray")
        raise RuntimeError("whatever")
    assert outer.events == [ProgressUpdated("reading", 1, 2), "closed"]
    assert inner.events == [StageStarted("starting Ray"), "closed"]


# --- quiet ---


def test_quiet_prints_what_matters_at_the_end_and_warns_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    view = QuietRenderer()
    for event in EVERY:
        view.handle(event)
    said = capsys.readouterr()
    assert said.out.splitlines()[0].startswith("On the 20 test pictures")
    assert said.out.splitlines()[-2:] == [
        "models:/pets@champion is now version 3: better.",
        "the report:           /searches/report.html",
    ]
    assert len(said.out.splitlines()) == 7
    assert [line.partition("  ")[2] for line in said.err.splitlines()] == ["the disk is full"]


def test_a_search_tells_what_the_audit_found_and_where_the_files_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    twins = Finding(kind="duplicate", count=2, files=(("a.png", "b.png"),), action="kept")
    LogRenderer().handle(AuditCompleted(AUDIT.model_copy(update={"findings": (twins,)})))
    _, found, names = capsys.readouterr().out.splitlines()
    assert found == "  2 exact duplicates within a class: kept"
    assert "audit.json names every file" in names


def test_quiet_still_warns_of_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    full = epoch_report(1, 0.5).model_copy(update={"runtime_info": {"features": "uncached (disk full)"}})
    QuietRenderer().handle(EpochEnded(trial_record(4), full))
    said = capsys.readouterr()
    assert said.out == ""
    assert "the disk is full: trial 4" in said.err


# --- the lines of others, as the system tests look for them ---


def test_lines_of_libraries_are_told_from_ours() -> None:
    theirs = [
        "[I 2026-01-02 03:04:05,678] A new study created in memory with name: search",
        "2026-01-02 03:04:05,678\tINFO worker.py:1927 -- Started a local Ray instance.",
        "2026/01/02 03:04:05 WARNING mlflow.models.model: Model logged without a signature",
        "(raylet) Warning: a worker died",
        "/lib/torch/x.py:1: UserWarning: The use of x is deprecated",
        "Trial status: 2 RUNNING",
    ]
    ours = [
        "03:04:05  trial 0 complete",
        "pets: 1,797 images in 10 classes (9 train)",
        "  2 near-duplicates",
        "",
        "no problems found",
    ]
    assert foreign([*ours, *theirs]) == theirs


# --- which view ---


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Latin(Terminal):
    encoding = "latin-1"


@pytest.mark.parametrize(
    ("quiet", "term", "file", "kind"),
    [
        (False, "xterm", Terminal(), LiveRenderer),
        (False, "xterm", io.StringIO(), LogRenderer),
        (False, "dumb", Terminal(), LogRenderer),
        (False, "xterm", Latin(), LogRenderer),
        (True, "xterm", Terminal(), QuietRenderer),
    ],
)
def test_a_terminal_that_can_show_it_gets_the_live_view(
    quiet: bool, term: str, file: io.StringIO, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    with contextlib.redirect_stdout(io.StringIO()):
        view = make_renderer(quiet, file)
        view.close()
    assert type(view) is kind


def ended(error: BaseException | None) -> Callable[[], int]:
    def work() -> int:
        print("from a library")
        info("a sentence")
        if error:
            raise error
        return 0

    return work


@pytest.mark.parametrize(
    ("error", "status", "problems"),
    [
        (None, 0, []),
        (SettingError("one", "two"), 2, ["one", "two"]),
        (SearchError("no trial finished"), 1, ["no trial finished"]),
        (KeyboardInterrupt(), 130, []),
        (ValueError("a fault of ours"), 1, ["ValueError: a fault of ours"]),
    ],
)
def test_as_json_nothing_but_events_is_on_standard_output_and_the_last_one_says_how_it_ended(
    error: BaseException | None, status: int, problems: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = re.escape(str(error)) or "^$"
    with pytest.raises(type(error), match=expected) if error else contextlib.nullcontext():
        assert run_with_ui("train", False, "json", ended(error)) == status
    said = capsys.readouterr()
    first, last = (json.loads(line) for line in said.out.splitlines())
    assert first["command"] == "train"
    assert {name: last[name] for name in ("event", "exit_status", "problems")} == {
        "event": "ended", "exit_status": status, "problems": problems,
    }  # fmt: skip
    assert said.err.splitlines()[0] == "from a library"
    assert said.err.splitlines()[1].endswith("  a sentence")


def test_as_json_and_quiet_standard_error_is_for_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with_ui("tune", True, "json", ended(None)) == 0
    assert capsys.readouterr().err == "from a library\n"


def test_without_json_a_command_is_watched_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with_ui("tune", False, "text", ended(None)) == 0
    said = capsys.readouterr()
    assert (len(said.out.splitlines()), said.err) == (2, "")
