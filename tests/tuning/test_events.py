"""Events: their delivery, the JSON Lines schema, quiet mode, and the choice of the renderer."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data.audit.report import Audit
from data.errors import SearchError, SettingError
from data.findings import Finding
from data.sources.base import SPLITS
from data.sources.options import DataOptions
from tests.system.output_filter import foreign_lines
from tests.tuning.factories import candidate, epoch_report, trial_record
from tuning.common.events import (
    AuditCompleted,
    CandidateEvaluated,
    CommandEnded,
    EpochEnded,
    Event,
    EventBus,
    Message,
    PhaseStarted,
    ProgressUpdated,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    SearchStarted,
    StageStarted,
    TablesShown,
    TrainingEpochEnded,
    TrialEnded,
    TrialStarted,
    log_stage,
)
from tuning.common.promotion_types import Promotion
from tuning.common.redaction import MASK
from tuning.recipe.schema import EventsForm
from tuning.ui.jsonl_renderer import JsonLinesRenderer
from tuning.ui.live.renderer import LiveRenderer
from tuning.ui.log_renderer import LogRenderer, QuietRenderer
from tuning.ui.session import PACKAGES, log_records_to, make_renderer, open_event_bus

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
ALL_EVENTS: list[Event] = [
    Message("hello"),
    Message("the disk is full", is_warning=True),
    TablesShown(("a table",)),
    StageStarted("starting Ray"),
    ProgressUpdated("reading images", 3, 9),
    SearchStarted("0.5.0", "tune", "pets", {"train": 9, "val": 2, "test": 3}, 2, "run", "pets", 0, "sqlite:///x.db"),
    AuditCompleted(AUDIT, ("pets",)),
    PhaseStarted(1, 4, "probes", 4),
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


def json_lines(*events: Event) -> list[dict[str, Any]]:
    """Return the parsed JSON lines of the events, without the first line."""
    file = io.StringIO()
    renderer = JsonLinesRenderer(file, "tune")
    for event in events:
        renderer.handle(event)
    return [json.loads(line, parse_constant=pytest.fail) for line in file.getvalue().splitlines()][1:]


# --- JSON Lines ---


def test_the_list_above_has_every_event() -> None:
    assert {type(event) for event in ALL_EVENTS} == set(Event.__subclasses__())


def test_every_event_that_is_not_for_people_only_has_a_line() -> None:
    names = [line["event"] for line in json_lines(*ALL_EVENTS)]
    assert names == [
        "warning", "stage", "progress", "search", "audit", "phase", "plan", "trial_started", "epoch", "trial_ended",
        "epoch", "result", "promotion", "report", "ended",
    ]  # fmt: skip


def test_the_first_line_names_the_schema_and_the_command() -> None:
    file = io.StringIO()
    JsonLinesRenderer(file, "resume")
    first = json.loads(file.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("at"))
    assert first == {"event": "started", "schema": 2, "command": "resume"}


def documented_fields() -> dict[str, set[str]]:
    """Return the fields of each event in docs/events.md."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}


def test_events_md_lists_every_event_with_its_fields() -> None:
    file = io.StringIO()
    JsonLinesRenderer(file, "tune")
    lines = [json.loads(file.getvalue()), *json_lines(*ALL_EVENTS)]
    fields = {line["event"]: set(line) - {"event", "at"} for line in lines}
    assert len(fields) == 15
    assert documented_fields() == fields


def test_the_example_in_events_md_matches_the_schema() -> None:
    example = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
    assert example
    lines = [json.loads(line) for line in example[1].splitlines()]
    assert (lines[0]["event"], lines[-1]["event"]) == ("started", "ended")
    fields = documented_fields()
    assert all(set(line) - {"event", "at"} == fields[line["event"]] for line in lines)


def test_a_trial_has_lines_for_its_start_its_epochs_and_its_end() -> None:
    started, epoch_line, ended = json_lines(*ALL_EVENTS[9:12])
    assert (started["trial"], started["uid"], started["origin"]) == (0, "uid0", "default")
    assert started["settings"]["optimizer"] == "adamw"
    assert (epoch_line["epoch"], epoch_line["metrics"]["val_balanced_accuracy"]) == (3, 0.5)
    assert {name: ended[name] for name in ("status", "epochs", "best_epoch", "score")} == {
        "status": "complete", "epochs": 3, "best_epoch": 2, "score": 0.5,
    }  # fmt: skip


def test_nan_and_infinity_are_null() -> None:
    report = epoch_report(1, 0.5).model_copy(update={"metrics": {"val_loss": math.nan, "lr": math.inf, "epoch_s": 1.0}})
    (line,) = json_lines(TrainingEpochEnded(report))
    assert line["metrics"] == {"val_loss": None, "lr": None, "epoch_s": 1.0}


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", 'quoted"secret')
    (line,) = json_lines(CommandEnded(1, ('the server says quoted"secret',)))
    assert line["problems"] == [f"the server says {MASK}"]


def test_a_trial_that_failed_in_its_first_epoch_has_no_score() -> None:
    (line,) = json_lines(TrialEnded(trial_record(1, None, "failed", "ValueError: no")))
    assert (line["best_epoch"], line["score"], line["reason"]) == (None, None, "ValueError: no")


def test_progress_is_throttled_but_its_end_is_always_written() -> None:
    events = [ProgressUpdated(task, done, 500) for task in ("reading", "resizing") for done in range(1, 501)]
    lines = [(line["task"], line["done"]) for line in json_lines(*events)]
    assert lines[0] == ("reading", 1)
    assert {("reading", 500), ("resizing", 1), ("resizing", 500)} <= set(lines)
    assert len(lines) < 100


def test_each_line_is_flushed(tmp_path: Path) -> None:
    with (tmp_path / "events").open("w") as file:
        JsonLinesRenderer(file, "tune").handle(StageStarted("starting Ray"))
        assert (tmp_path / "events").read_text().count("\n") == 2


# --- the event bus ---


class RecordingRenderer:
    def __init__(self) -> None:
        self.events: list[Event | str] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.events.append("closed")


def test_messages_warnings_and_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    bus = EventBus(LogRenderer())
    bus.info("a message")
    bus.warning("a warning")
    bus.show("a line")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[2] or line for line in lines] == ["a message", "! a warning", "a line"]


def test_every_renderer_gets_every_event() -> None:
    renderers = RecordingRenderer(), RecordingRenderer()
    bus = EventBus(*renderers)
    bus.progress("reading", 1, 2)
    bus.stage("starting Ray")
    assert bus.end(2, ("a problem",)) == 2
    bus.close()
    events = [ProgressUpdated("reading", 1, 2), StageStarted("starting Ray"), CommandEnded(2, ("a problem",)), "closed"]
    assert [renderer.events for renderer in renderers] == [events, events]


def test_events_of_several_threads_are_handled_one_at_a_time() -> None:
    is_handling = threading.Lock()

    class Exclusive(RecordingRenderer):
        def handle(self, event: Event) -> None:
            assert is_handling.acquire(blocking=False)
            time.sleep(0)  # lets another thread run
            super().handle(event)
            is_handling.release()

    renderer = Exclusive()
    bus = EventBus(renderer)
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(bus.info, ["text"] * 400))
    assert len(renderer.events) == 400


# --- log records ---

WORKER_LOGGER, OTHER_LOGGER = logging.getLogger("tuning.registry.any"), logging.getLogger("ray.any")


def test_log_records_of_this_project_are_messages_and_warnings_on_the_bus() -> None:
    renderer = RecordingRenderer()
    with log_records_to(EventBus(renderer)):
        WORKER_LOGGER.info("exported %s", "a model")
        WORKER_LOGGER.warning("the server is unavailable")
        WORKER_LOGGER.debug("not shown")
        OTHER_LOGGER.error("not shown")
        log_stage(WORKER_LOGGER, "exporting")
    messages = [Message("exported a model"), Message("the server is unavailable", is_warning=True)]
    assert renderer.events == [*messages, StageStarted("exporting")]


def test_log_records_are_shown_only_here_and_only_during_the_session(caplog: pytest.LogCaptureFixture) -> None:
    renderer, before = RecordingRenderer(), [(logging.getLogger(name).level) for name in PACKAGES]
    with log_records_to(EventBus(renderer)):
        WORKER_LOGGER.warning("inside")
    WORKER_LOGGER.warning("outside")
    assert renderer.events == [Message("inside", is_warning=True)]
    assert caplog.messages == ["outside"]
    assert [logging.getLogger(name).level for name in PACKAGES] == before


def test_quiet_shows_only_log_records_that_are_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with open_event_bus("tune", quiet=True, events="text"):
        WORKER_LOGGER.info("exported")
        WORKER_LOGGER.warning("the server is unavailable")
    captured = capsys.readouterr()
    assert (captured.out, captured.err.partition("  ")[2]) == ("", "the server is unavailable\n")


# --- quiet ---


def test_quiet_prints_results_to_stdout_and_warnings_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = QuietRenderer()
    for event in ALL_EVENTS:
        renderer.handle(event)
    renderer.handle(TablesShown(("RESULT", "CHAMPION"), is_result=True))
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["RESULT", "CHAMPION"]
    assert [line.partition("  ")[2] for line in captured.err.splitlines()] == ["the disk is full"]


def test_the_log_has_the_audits_findings_and_a_hint_where_to_find_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    duplicates = Finding(kind="duplicate", count=2, files=(("a.png", "b.png"),), action="kept")
    arguments = tuple(DataOptions(data="my pets", label_from="([a-z]+)_", layout="classes").command_arguments())
    LogRenderer().handle(AuditCompleted(AUDIT.model_copy(update={"findings": (duplicates,)}), arguments))
    *_, finding, hint = capsys.readouterr().out.splitlines()
    assert finding == "  audit     2 images with an exact duplicate in their class (1 group): kept"
    command = "freezeline audit 'my pets' --layout classes --label-from '([a-z]+)_'"
    assert hint.strip() == f"files: {command}"


def test_the_log_has_the_classes_whatever_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {split: {"genus: cat": 2, "dog": 1} for split in SPLITS}
    LogRenderer().handle(
        AuditCompleted(AUDIT.model_copy(update={"counts": counts, "layout": ("found in pets/",)}), ("pets",))
    )
    _, classes, folder, *_ = capsys.readouterr().out.splitlines()
    assert classes == "  classes   genus: cat 6, dog 3"
    assert folder == "  folder    found in pets/"


def test_quiet_warns_of_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    full = epoch_report(1, 0.5).model_copy(update={"runtime_info": {"features": "uncached (disk full)"}})
    QuietRenderer().handle(EpochEnded(trial_record(4), full))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the disk is full: trial 4" in captured.err


# --- lines of libraries, as detected by the system tests ---


def test_lines_of_libraries_are_detected() -> None:
    library_lines = [
        "[I 2026-01-02 03:04:05,678] A new study created in memory with name: search",
        "2026-01-02 03:04:05,678\tINFO worker.py:1927 -- Started a local Ray instance.",
        "2026/01/02 03:04:05 WARNING mlflow.models.model: Model logged without a signature",
        "(raylet) Warning: a worker died",
        "/lib/torch/x.py:1: UserWarning: The use of x is deprecated",
        "Trial status: 2 RUNNING",
    ]
    own_lines = [
        "03:04:05  starting Ray",
        "03:04:05    12  lite0           128   9/18    8/8    36  0.9348 * default",
        "[1/4] probes: 27 planned",
        "Freezeline 0.5.0  tune pets, seed 0",
        "  2 images with a near-duplicate (1 group)",
        "",
        "RESULT    test balanced accuracy 0.9",
        "Report    /searches/report.html",
    ]
    assert foreign_lines([*own_lines, *library_lines]) == library_lines


# --- the choice of the renderer ---


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Latin1Terminal(Terminal):
    encoding = "latin-1"


@pytest.mark.parametrize(
    ("quiet", "term", "file", "expected"),
    [
        (False, "xterm", Terminal(), LiveRenderer),
        (False, "xterm", io.StringIO(), LogRenderer),
        (False, "dumb", Terminal(), LogRenderer),
        (False, "xterm", Latin1Terminal(), LogRenderer),
        (True, "xterm", Terminal(), QuietRenderer),
    ],
)
def test_only_a_utf8_terminal_that_can_move_its_cursor_gets_the_live_view(
    quiet: bool, term: str, file: io.StringIO, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    with contextlib.redirect_stdout(io.StringIO()):
        renderer = make_renderer(quiet, file)
        renderer.close()
    assert type(renderer) is expected


def run_command(name: str, quiet: bool, events: EventsForm, error: BaseException | None = None) -> int:
    """Run a command that prints, emits a message, and raises ``error`` if there is one."""
    with open_event_bus(name, quiet, events) as bus:
        print("from a library")
        bus.info("a message")
        if error:
            raise error
        return bus.end(0)


@pytest.mark.parametrize(
    ("error", "status", "problems"),
    [
        (None, 0, []),
        (SettingError("one", "two"), 2, ["one", "two"]),
        (SearchError("no trial finished"), 1, ["no trial finished"]),
        (KeyboardInterrupt(), 130, []),
        (ValueError("a bug"), 1, ["ValueError: a bug"]),
    ],
)
def test_with_json_events_stdout_has_only_events_and_the_last_has_the_exit_status(
    error: BaseException | None, status: int, problems: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = re.escape(str(error)) or "^$"
    with pytest.raises(type(error), match=expected) if error else contextlib.nullcontext():
        assert run_command("train", False, "json", error) == status
    captured = capsys.readouterr()
    first, last = (json.loads(line) for line in captured.out.splitlines())
    assert first["command"] == "train"
    assert {name: last[name] for name in ("event", "exit_status", "problems")} == {
        "event": "ended", "exit_status": status, "problems": problems,
    }  # fmt: skip
    assert captured.err.splitlines()[0] == "from a library"
    assert captured.err.splitlines()[1].endswith("  a message")


def test_with_json_events_and_quiet_messages_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("tune", True, "json") == 0
    assert capsys.readouterr().err == "from a library\n"


def test_with_text_events_messages_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("tune", False, "text") == 0
    captured = capsys.readouterr()
    assert (len(captured.out.splitlines()), captured.err) == (2, "")
