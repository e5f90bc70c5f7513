"""The live view: what its state is after events, what its picture is, and how it leaves a terminal."""

from __future__ import annotations

import contextlib
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
from tuning.common.trial_record import TrialOrigin, TrialRecord, TrialStatus
from tuning.ui.live.render import clock, render, sparkline
from tuning.ui.live.renderer import LiveRenderer
from tuning.ui.live.state import LiveState, reduce

BEGAN_S = 1_000_000.0


def planned(
    trials: int | None = 16, ends_s: float | None = BEGAN_S + 300, best: TrialRecord | None = None
) -> SearchPlanned:
    return SearchPlanned(
        "run", "the plan", trials, probes=4, tried=0, max_epochs=8, max_concurrent=2, ends_s=ends_s, best=best
    )


def trial(
    number: int, score: float | None = 0.5, status: TrialStatus = "running", origin: TrialOrigin = "sampler"
) -> TrialRecord:
    return trial_record(number, score, status).model_copy(update={"origin": origin})


def state_after(*events: Event, at_s: float = BEGAN_S) -> LiveState:
    state = LiveState(BEGAN_S)
    for event in events:
        state = reduce(state, event, at_s)
    return state


def drawn(state: LiveState, now_s: float = BEGAN_S + 60, width: int = 80, height: int = 24) -> list[str]:
    """Return the picture's lines as a terminal of that size shows them."""
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(render(state, now_s, width, height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


# --- the state ---


def test_trials_are_counted_by_how_they_ended_and_who_chose_them() -> None:
    state = state_after(
        planned(),
        *(TrialStarted(trial(number)) for number in range(6)),
        TrialEnded(trial(0, 0.9, "complete", "default")),
        TrialEnded(trial(1, 0.8, "complete", "probe")),
        TrialEnded(trial(2, 0.7, "pruned")),
        TrialEnded(trial(3, None, "failed")),
        TrialEnded(trial(4, 0.95, "complete", "rerun")),
    )
    assert (state.tried, state.probes, state.reruns, state.pruned, state.failed) == (3, 1, 1, 1, 1)
    assert [one.trial.number for one in state.running.values()] == [5]


def test_the_best_is_of_those_that_ended_or_run_but_no_final_and_none_that_failed() -> None:
    ended = state_after(
        planned(), TrialEnded(trial(0, 0.8, "complete")), TrialEnded(trial(1, 0.99, "complete", "rerun"))
    )
    assert ended.best == trial(0, 0.8, "complete")
    runs = reduce(ended, EpochEnded(trial(2, 0.9), epoch_report(3, 0.9)), BEGAN_S)
    assert runs.best == trial(2, 0.9)
    assert reduce(runs, TrialEnded(trial(2, 0.9, "failed")), BEGAN_S).best == trial(0, 0.8, "complete")


def test_a_search_that_goes_on_begins_with_the_best_of_before() -> None:
    assert state_after(planned(best=trial(3, 0.7, "complete"))).best == trial(3, 0.7, "complete")


def test_a_part_of_the_work_begins_once_however_often_its_progress_is_told() -> None:
    state = reduce(state_after(ProgressUpdated("resizing", 1, 9)), ProgressUpdated("resizing", 2, 9), BEGAN_S + 5)
    assert (state.stage, state.stage_began_s, state.progress) == (
        "resizing",
        BEGAN_S,
        ProgressUpdated("resizing", 2, 9),
    )
    assert reduce(state, StageStarted("starting Ray"), BEGAN_S + 7).progress is None


def test_a_sentence_changes_nothing() -> None:
    assert state_after(Message("hello")) == LiveState(BEGAN_S)


# --- the picture ---


def test_a_trial_that_runs_is_a_row_with_epoch_score_curve_and_network() -> None:
    began = state_after(planned(), TrialStarted(trial(7, None)), TrialStarted(trial(8, None, origin="probe")))
    lines = drawn(reduce(began, EpochEnded(trial(7, 0.9), epoch_report(3, 0.9)), BEGAN_S + 30))
    assert lines[1] == "trial  epoch   time   score  curve  network, size, frozen blocks"
    assert lines[2] == "    7    3/4   1:00  0.9000  ▁█▁    tf_efficientnet_lite0 32 px, 9/18"
    assert lines[3] == "    8    0/4   1:00       -         probe of tf_efficientnet_lite0 32 px, 9/18"
    assert lines[4] == "best 0.9000 by trial 7: tf_efficientnet_lite0 at 32 px, 9/18 frozen"
    assert lines[5] == "0 of 4 probes, 0 of 16 trials, 0 pruned, 0 failed"


@pytest.mark.parametrize(
    ("plan", "now_s", "full", "left"),
    [
        (planned(), 75, 6, "3:45 left"),
        (planned(), 330, 24, "0:30 over the time that was given"),
        (planned(trials=None), 150, 12, "2:30 left"),
        (planned(ends_s=None), 3700, 0, "1:01:40 so far"),
    ],
)
def test_the_bar_and_the_clock_say_what_is_left_of_the_budget(
    plan: SearchPlanned, now_s: float, full: int, left: str
) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="standard")
    console.print(render(state_after(plan), BEGAN_S + now_s, 80, 24))
    last = out.getvalue().splitlines()[-1]
    bar, _, _ = last.partition("\x1b[2m") if "\x1b[2m" in last else (last, "", "")
    assert bar.count("━") == full
    assert last.endswith(f"  {left}")


def test_of_trials_and_minutes_the_one_that_is_spent_further_fills_the_bar() -> None:
    ended = state_after(planned(trials=2), TrialEnded(trial(0, 0.5, "complete")))
    assert drawn(ended)[-1].startswith("━" * 24)
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard").print(render(ended, BEGAN_S + 3, 80, 24))
    assert out.getvalue().splitlines()[-1].partition("\x1b[2m")[0].count("━") == 12


CROWD = state_after(planned(), *(TrialStarted(trial(number, 0.9)) for number in range(1000)))
PARTS = [
    LiveState(BEGAN_S, stage="getting ready"),
    state_after(ProgressUpdated("resizing images", 123_456, 1_234_567)),
    state_after(planned(), StageStarted("packaging trial 12345, the best, and measuring it on the test pictures")),
    CROWD,
]


@pytest.mark.parametrize("state", PARTS)
@pytest.mark.parametrize("size", [(80, 24), (120, 50), (40, 10), (20, 6), (5, 3), (1, 1)])
def test_the_picture_stays_within_the_terminal(state: LiveState, size: tuple[int, int]) -> None:
    width, height = size
    lines = drawn(state, width=width, height=height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert max(map(len, lines)) <= max(1, width - 1)


def test_the_blocks_first_line_is_empty_where_there_is_room() -> None:
    assert drawn(CROWD)[0] == ""
    assert drawn(CROWD, height=4)[0] != ""


def test_of_a_crowd_some_are_shown_and_the_others_counted() -> None:
    lines = drawn(CROWD)
    assert "and 993 trials more" in lines
    assert len(lines) <= 14


def test_a_training_shows_its_curve() -> None:
    state = state_after(
        *(TrainingEpochEnded(epoch_report(number, score)) for number, score in enumerate((0.5, 0.6, 0.9), start=1))
    )
    assert drawn(state)[1] == "epoch 3  0.9000  ▁▃█"


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
def test_a_curve_is_a_letter_for_each_of_the_last_values(values: Sequence[float], curve: str) -> None:
    assert sparkline(values, 0.0, 1.0, most=3) == curve


def test_a_curve_without_a_span_is_flat() -> None:
    assert sparkline([0.5, 0.5], 0.5, 0.5, most=3) == "▁▁"


def test_times_have_hours_only_where_there_are_any() -> None:
    assert [clock(seconds) for seconds in (-3, 0, 61, 3600)] == ["0:00", "0:00", "1:01", "1:00:00"]


def test_drawing_a_crowd_takes_milliseconds() -> None:
    began_s = time.process_time()
    for _ in range(10):
        drawn(CROWD)
    assert time.process_time() - began_s < 0.5


# --- in a terminal ---


class FakeTerminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LiveRenderer, FakeTerminal]]:
    """Within: a view is open on a terminal of 80 columns that takes the place of standard output."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    out = FakeTerminal()
    with contextlib.redirect_stdout(out):
        view = LiveRenderer()
        try:
            yield view, out
        finally:
            view.close()


def test_lines_stay_above_the_block_and_nothing_of_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (view, out):
        for event in (
            planned(),
            TrialStarted(trial(0)),
            EpochEnded(trial(0), epoch_report(1, 0.5)),
            TrialEnded(trial(0, 0.5, "complete")),
            TrialEnded(trial(1, None, "failed")),
        ):
            view.handle(event)
        ends_s = time.monotonic() + 10
        while "no trial runs" not in out.getvalue() and time.monotonic() < ends_s:
            time.sleep(0.01)  # it is drawn four times in a second
        assert "time that was given" in screen_of(out.getvalue())[-1]
    lines = [line.partition("  ")[2] for line in screen_of(out.getvalue())]
    assert lines == ["the plan", "trial 0 complete after 3 epochs: 0.5000", "trial 1 failed:"]


def test_a_long_sentence_is_wrapped_between_words_but_a_command_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"stopped: the best so far is packaged; python -m tuning resume --run {'a' * 32} goes on"
    with live(monkeypatch) as (view, out):
        view.handle(Message("so many words " * 10))
        view.handle(Message(command))
    first, *others = screen_of(out.getvalue())
    assert first.endswith("  so many words so many words so many words so many words so many words")
    assert others[0] == " " * 10 + "so many words so many words so many words so many words so many words"
    assert others[1].endswith(f"  {command}")


def test_the_colour_of_a_line_is_not_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (view, out):
        view.handle(Message("careful", is_warning=True))
    yellow = re.findall(r"\x1b\[(?:\d+;)*33m([^\x1b]*)", out.getvalue())
    assert len(yellow) == 1
    assert yellow[0].endswith("careful")


def test_what_others_print_meanwhile_goes_above_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (_, out):
        print("a foreign line")
    assert screen_of(out.getvalue()) == ["a foreign line"]


def test_the_cursor_is_never_left_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with live(monkeypatch) as (view, out):
        view.handle(planned())
        assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")
