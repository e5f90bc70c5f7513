"""Helpers for tests of the trial store: finishing trials, and reading the journal like another process."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tests.tuning.factories import epoch_report, start_trial
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord, TrialStatus
from tuning.recipe.schema import Recipe
from tuning.search.selection import ranked
from tuning.search.study import STUDY_NAME, TrialStore


def read_journal(root: Path) -> list[FrozenTrial]:
    """Return the started trials as another process reads them, through a separate storage."""
    storage = JournalStorage(JournalFileBackend(str(SearchPaths(root).journal)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        trials = optuna.load_study(study_name=STUDY_NAME, storage=storage).trials
    return [trial for trial in trials if trial.state is not TrialState.WAITING]


def run_trial(
    store: TrialStore, score: float | None, status: TrialStatus = "complete", search_recipe: Recipe | None = None
) -> TrialRecord:
    """Start a trial and finish it after one epoch with ``score``, or before its first epoch if ``score`` is None."""
    uid = start_trial(store, search_recipe).trial_uid
    if score is not None:
        store.report(uid, epoch_report(1, score))
    return store.finish(uid, status, "")


def best_trial(store: TrialStore) -> TrialRecord | None:
    return next(iter(ranked(store.trials())), None)
