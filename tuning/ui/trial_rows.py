"""One aligned row for each trial that has ended, under a heading for each phase; it fits into 80 columns."""

from __future__ import annotations

from datetime import datetime

from tuning.common.events import PhaseStarted
from tuning.common.formatting import format_score, frozen_text, short_network
from tuning.common.trial_record import TrialRecord

NETWORK_WIDTH = 14
SUMMARY_INTERVAL = 10  # rows between two lines with the number of trials that are done
TIME_WIDTH = len("00:00:00")
PHASE_UNITS = {"probes": "probe", "trials": "trial", "re-runs": "re-run"}


def heading(phase: PhaseStarted) -> str:
    """Return the heading of a phase."""
    planned = f": {phase.planned:,} planned" if phase.planned else ""
    return f"[{phase.number}/{phase.total}] {phase.name}{planned}"


def column_names() -> str:
    """Return the line above the rows."""
    return _row("time", "trial", "network", "px", "frozen", "epochs", "s", "score", " ", "note")


def row(trial: TrialRecord, is_best: bool) -> str:
    """Return the row of a trial that has ended; ``*`` marks a new best score."""
    config = trial.config
    return _row(
        f"{datetime.now():%H:%M:%S}",
        str(trial.number),
        short_network(trial, NETWORK_WIDTH),
        str(config.preprocessing.image_size),
        frozen_text(trial),
        f"{trial.epochs}/{config.fit.max_epochs}" if trial.epochs else "-",
        f"{trial.wall_s:.0f}",
        format_score(trial),
        "*" if is_best else " ",
        _note(trial),
    )


def summary(num_done: int, planned: int | None, new_best: TrialRecord | None) -> str:
    """Return the number of trials that are done, and the best one if it has changed."""
    done = f"{num_done}/{planned} done" if planned else f"{num_done} done"
    best = f", best {format_score(new_best)} by trial {new_best.number}" if new_best else ""
    return f"{' ' * TIME_WIDTH}  {done}{best}"


def _row(*cells: str) -> str:
    time, number, network, px, frozen, epochs, seconds, score, mark, note = cells
    return (
        f"{time:{TIME_WIDTH}} {number:>5}  {network:{NETWORK_WIDTH}} {px:>4} {frozen:>6} {epochs:>6} {seconds:>5}  "
        f"{score:>6} {mark} {note}"
    ).rstrip()


def _note(trial: TrialRecord) -> str:
    if trial.status != "complete":
        return trial.status
    if trial.origin == "rerun":
        return f"seed {trial.config.seed}"
    return {"champion": "champion", "default": "default", "fine_tune": "fine-tune"}.get(trial.origin, "")
