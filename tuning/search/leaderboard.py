"""The table of all trials of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.common.trial_record import TrialRecord
from tuning.search.selection import ranked

if TYPE_CHECKING:
    import pandas as pd


def leaderboard_csv(trials: Sequence[TrialRecord]) -> str:
    """Return the table of all trials as CSV."""
    return str(leaderboard_frame(trials).to_csv(index=False))


def leaderboard_frame(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return a row for each trial, the best first: score, status, metrics of the best epoch, and settings."""
    import pandas as pd

    scored = ranked(trials)
    uids = {trial.trial_uid for trial in scored}
    others = [trial for trial in trials if trial.trial_uid not in uids]

    rows = [
        {
            "score": trial.score,
            "trial": trial.number,
            "origin": trial.origin,
            "status": trial.status,
            "reason": trial.reason,
            "epochs": trial.epochs,
            "best_epoch": trial.best_epoch,
            **trial.metrics,
            **trial.settings,
            **trial.runtime_info,
            "seed": trial.config.seed,
            "trial_uid": trial.trial_uid,
        }
        for trial in (*scored, *others)
    ]
    return pd.DataFrame(rows, dtype=object)
