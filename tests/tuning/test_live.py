"""The live view: its state after events, the rendered block, and the terminal after it closes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import time
from collections.abc import Iterator, Sequence

import pytest
from rich.console import Console

from tests.terminal import screen_of
from tests.tuning.factories import epoch_report, trial_record
from tuning.common.events import (
    EpochEnded,
    Event,
    Message,
    ProgressUpdated,
    SearchPlanned,
    StageStarted,
    TrainingEpochEnded,
    TrialEnded,
    TrialStarted,
)
from tuning.common.formatting import clock
from tuning.common.trial_record import TrialOrigin, TrialRecord, TrialStatus
from tuning.ui.live.render import render, sparkline
from tuning.ui.live.renderer import LiveRenderer
from tuning.ui.live.state import LiveState, reduce

START_S = 1_000_000.0


def planned(
    trials: int | None = 16, ends_s: float | None = START_S + 300, best: TrialRecord | None = None
) -> SearchPlanned:
    return SearchPlanned(
        "run", "the plan", trials, probes=4, finished=0, max_epochs=8, max_concurrent=2, ends_s=ends_s, best=best
    )


def trial(
    number: int, score: float | None = 0.5, status: TrialStatus = "running", origin: TrialOrigin = "sampler"
) -> TrialRecord:
    return trial_record(number, score, status).model_copy(update={"origin": origin})


def reduced(*events: Event, at_s: float = START_S) -> LiveState:
    state = LiveState(START_S)
    for event in events:
        state = reduce(state, event, at_s)
    return state


def rendered(state: LiveState, now_s: float = START_S + 60, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of the block in a terminal of that size."""
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(render(state, now_s, width, height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


# --- the state ---


def test_trials_are_counted_by_status_and_origin() -> None:
    state = reduced(
        planned(),
        *(TrialStarted(trial(number)) for number in range(6)),
        TrialEnded(trial(0, 0.9, "complete", "default")),
        TrialEnded(trial(1, 0.8, "complete", "probe")),
        TrialEnded(trial(2, 0.7, "pruned")),
        TrialEnded(trial(3, None, "failed")),
        TrialEnded(trial(4, 0.95, "complete", "rerun")),
        TrialEnded(trial(6, 0.6, "complete", "champion")),
    )
    assert (state.finished, state.probes, state.reruns) == (4, 1, 1)
    assert state.statuses == {"complete": 4, "pruned": 1, "failed": 1}
    assert [running.trial.number for running in state.running.values()] == [5]


def test_the_best_is_a_finished_or_running_trial_but_no_rerun_and_no_failed_one() -> None:
    finished = reduced(
        planned(), TrialEnded(trial(0, 0.8, "complete")), TrialEnded(trial(1, 0.99, "complete", "rerun"))
    )
    assert finished.best == trial(0, 0.8, "complete")
    running = reduce(finished, EpochEnded(trial(2, 0.9), epoch_report(3, 0.9)), START_S)
    assert running.best == trial(2, 0.9)
    assert reduce(running, TrialEnded(trial(2, 0.9, "failed")), START_S).best == trial(0, 0.8, "complete")


def test_a_resumed_search_starts_with_its_best_trial() -> None:
    assert reduced(planned(best=trial(3, 0.7, "complete"))).best == trial(3, 0.7, "complete")


def test_a_stage_starts_once_whatever_the_number_of_progress_events() -> None:
    state = reduce(reduced(ProgressUpdated("resizing", 1, 9)), ProgressUpdated("resizing", 2, 9), START_S + 5)
    assert (state.stage, state.stage_started_s, state.progress) == (
        "resizing",
        START_S,
        ProgressUpdated("resizing", 2, 9),
    )
    assert reduce(state, StageStarted("starting Ray"), START_S + 7).progress is None


def test_a_message_does_not_change_the_state() -> None:
    assert reduced(Message("hello")) == LiveState(START_S)


# --- the block ---


def test_a_running_trial_has_a_row_with_epoch_score_curve_and_network() -> None:
    started = reduced(planned(), TrialStarted(trial(7, None)), TrialStarted(trial(8, None, origin="probe")))
    lines = rendered(reduce(started, EpochEnded(trial(7, 0.9), epoch_report(3, 0.9)), START_S + 30))
    assert lines[1] == "trial epoch  time  left  score curve network          px frozen      lr batch"
    assert lines[2] == "    7   3/4  1:00     - 0.9000 ▁█▁   lite0            32   9/18 1.0e-03    32"
    assert lines[3] == "    8   0/4  1:00     -      -       lite0            32   9/18 1.0e-03    32"
    assert lines[4] == "best 0.9000 by trial 7: tf_efficientnet_lite0, 32 px, 9/18 frozen"
    assert lines[5] == "probes 0/4 done, trials 0/16 done"
    assert max(map(len, lines)) < 80


def test_the_rest_of_a_trial_is_estimated_from_its_epochs() -> None:
    running = trial(7, 0.9)
    running = running.model_copy(update={"history": tuple(entry | {"epoch_s": 40.0} for entry in running.history)})
    state = reduced(planned(), TrialStarted(running), EpochEnded(running, epoch_report(3, 0.9)))
    assert rendered(state, START_S + 15)[2].split()[:4] == ["7", "3/4", "0:15", "0:25"]


def test_failed_pruned_and_out_of_time_trials_are_counted_also_those_from_before_a_resume() -> None:
    previous = [trial(0, 0.5, "pruned"), trial(1, 0.5, "out of time"), trial(2, 0.5, "complete", "probe")]
    plan = dataclasses.replace(planned(), previous=previous, finished=2)
    state = reduced(plan, TrialEnded(trial(3, None, "failed")))
    assert rendered(state)[-2] == "probes 1/5 done, trials 3/16 done, 1 out of time, 1 pruned, 1 failed"


def test_a_task_that_is_done_has_no_full_bar_while_other_work_goes_on() -> None:
    assert "100%" not in rendered(reduced(ProgressUpdated("comparing images", 72, 72)))[1]
    assert rendered(reduced(ProgressUpdated("comparing images", 36, 72)))[1].endswith("━━━━━━━━━━━━╸───────────  50%")


@pytest.mark.parametrize(
    ("plan", "elapsed_s", "filled", "text"),
    [
        (planned(), 75, 6, "3:45 left"),
        (planned(), 330, 24, "0:30 over the time budget"),
        (planned(trials=None), 150, 12, "2:30 left"),
        (planned(ends_s=None), 3700, 0, "1:01:40 elapsed"),
    ],
)
def test_the_bar_and_the_clock_show_the_remaining_budget(
    plan: SearchPlanned, elapsed_s: float, filled: int, text: str
) -> None:
    last = rendered(reduced(plan), START_S + elapsed_s)[-1]
    assert last.count("━") == filled
    assert last.endswith(f"{filled / 24:.0%}  {text}")


def test_the_bar_shows_the_larger_used_share_of_trials_and_time() -> None:
    state = reduced(planned(trials=2), TrialEnded(trial(0, 0.5, "complete")))
    assert rendered(state, START_S + 3)[-1] == "━━━━━━━━━━━━╸───────────  50%  4:57 left"


MANY_TRIALS = reduced(planned(), *(TrialStarted(trial(number, 0.9)) for number in range(1000)))
STATES = [
    LiveState(START_S, stage="starting"),
    reduced(ProgressUpdated("resizing images", 123_456, 1_234_567)),
    reduced(
        planned(),
        StageStarted("packaging trial 12345, the best: a stage with a long name that does not fit"),
    ),
    MANY_TRIALS,
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", [(80, 24), (120, 50), (40, 10), (20, 6), (5, 3), (1, 1)])
def test_the_block_fits_the_terminal(state: LiveState, size: tuple[int, int]) -> None:
    width, height = size
    lines = rendered(state, width=width, height=height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert max(map(len, lines)) <= max(1, width - 1)


def test_the_first_line_is_empty_if_there_is_room() -> None:
    assert rendered(MANY_TRIALS)[0] == ""
    assert rendered(MANY_TRIALS, height=4)[0] != ""


def test_trials_that_do_not_fit_are_counted() -> None:
    lines = rendered(MANY_TRIALS)
    assert "and 993 more trials" in lines
    assert len(lines) <= 14


def test_a_single_training_shows_its_curve() -> None:
    state = reduced(
        *(TrainingEpochEnded(epoch_report(number, score)) for number, score in enumerate((0.5, 0.6, 0.9), start=1))
    )
    assert rendered(state)[1] == "epoch 3  0.9000  ▁▃█"


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ((), ""),
        ((0.5,), "▅"),
        ((0.0, 1.0), "▁█"),
        ((-1.0, 2.0, float("nan")), "▁█▁"),
        ((0.0, 0.0, 0.9, 1.0, 1.0), "▇██"),
    ],
)
def test_a_sparkline_has_a_character_for_each_of_the_last_values(values: Sequence[float], curve: str) -> None:
    assert sparkline(values, 0.0, 1.0, max_values=3) == curve


def test_a_sparkline_of_equal_values_is_flat() -> None:
    assert sparkline([0.5, 0.5], 0.5, 0.5, max_values=3) == "▁▁"


def test_durations_have_hours_from_one_hour() -> None:
    assert [clock(seconds) for seconds in (-3, 0, 61, 3600)] == ["0:00", "0:00", "1:01", "1:00:00"]


def test_rendering_many_trials_takes_milliseconds() -> None:
    start_s = time.process_time()
    for _ in range(10):
        rendered(MANY_TRIALS)
    assert time.process_time() - start_s < 0.5


# --- in a terminal ---


class FakeTerminal(io.StringIO):
    """A terminal that records its output."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LiveRenderer, FakeTerminal]]:
    """Context manager: a live renderer on a terminal of 80 columns in place of standard output."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    out = FakeTerminal()
    with contextlib.redirect_stdout(out):
        renderer = LiveRenderer()
        try:
            yield renderer, out
        finally:
            renderer.close()


def test_lines_stay_above_the_block_and_the_block_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (renderer, out):
        for event in (
            planned(),
            TrialStarted(trial(0)),
            EpochEnded(trial(0), epoch_report(1, 0.5)),
            TrialEnded(trial(0, 0.5, "complete")),
            TrialEnded(trial(1, None, "failed")),
        ):
            renderer.handle(event)
        deadline_s = time.monotonic() + 10
        while "no trial is running" not in out.getvalue() and time.monotonic() < deadline_s:
            time.sleep(0.01)  # the block is drawn four times per second
        assert "over the time budget" in screen_of(out.getvalue())[-1]
    device, plan, row, failed, reason = screen_of(out.getvalue())
    assert (device, plan) == ("  device    CPU, 2 trials in parallel", "  plan      the plan")
    assert row.endswith("3/4     0  0.5000 *")
    assert failed.endswith("failed")
    assert reason.strip() == "trial 1 failed:"


def test_a_stage_is_drawn_however_short_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [f"stage {number}" for number in range(20)]
    with live(monkeypatch) as (renderer, out):
        for stage in stages:
            renderer.handle(StageStarted(stage))
        assert [stage for stage in stages if stage not in out.getvalue()] == []


def test_the_block_is_drawn_while_a_library_has_replaced_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example while an exporter is silenced."""
    with live(monkeypatch) as (renderer, out), contextlib.redirect_stdout(io.StringIO()):
        renderer.handle(StageStarted("exporting"))
        assert "exporting" in out.getvalue()


def test_a_long_message_is_wrapped_unless_it_holds_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"the model is saved on this machine; freezeline sync {'a' * 32} delivers it when the server is back"
    with live(monkeypatch) as (renderer, out):
        renderer.handle(Message("a few words " * 11))
        renderer.handle(Message(command))
    first, *others = screen_of(out.getvalue())
    assert first.endswith("  " + "a few words " * 5 + "a few")
    assert others[0] == " " * 10 + "words" + " a few words" * 5
    assert others[1].endswith(f"  {command}")


def test_the_style_of_a_line_does_not_apply_to_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (renderer, out):
        renderer.handle(Message("careful", is_warning=True))
    yellow = re.findall(r"\x1b\[(?:\d+;)*33m([^\x1b]*)", out.getvalue())
    assert len(yellow) == 1
    assert yellow[0].endswith("! careful")


def test_other_output_goes_above_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (_, out):
        print("a line of a library")
    assert screen_of(out.getvalue()) == ["a line of a library"]


def test_the_cursor_is_never_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (renderer, out):
        renderer.handle(planned())
        assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")
