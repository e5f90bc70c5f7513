"""A search's folder holds weights of the best trials and checkpoints of running trials, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.factories import epoch_report, start_trial, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.search import weights_cleanup
from tuning.search.weights_cleanup import WeightsCleanup


def test_only_weights_of_the_best_and_files_of_running_trials_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_cleanup, "KEEP_TOP_K", 2)
    paths, store = SearchPaths(tmp_path), trial_store(tmp_path)
    paths.trials.mkdir()
    cleanup = WeightsCleanup(paths, store)
    uids = []
    for score in (0.5, 0.9, 0.1, 0.7):
        uid = start_trial(store).trial_uid
        uids.append(uid)
        store.report(uid, epoch_report(1, score))
        paths.weights(uid, 1).touch()
        paths.checkpoint(uid).touch()
        cleanup.on_trial_end(store.finish(uid, "complete", ""), None)
    running = start_trial(store).trial_uid
    paths.weights(running, 1).touch()
    paths.checkpoint(running).touch()
    expected = {paths.weights(uid, 1) for uid in (uids[1], uids[3], running)} | {paths.checkpoint(running)}
    assert set(paths.trials.iterdir()) == expected
    paths.checkpoint(uids[1]).touch()  # left by a killed process
    monkeypatch.setattr(weights_cleanup, "KEEP_TOP_K", 1)
    WeightsCleanup(paths, trial_store(tmp_path))
    assert set(paths.trials.iterdir()) == expected - {paths.weights(uids[3], 1)}


def test_all_files_of_a_failed_trial_are_deleted(tmp_path: Path) -> None:
    paths, store = SearchPaths(tmp_path), trial_store(tmp_path)
    paths.trials.mkdir()
    uid = start_trial(store).trial_uid
    store.report(uid, epoch_report(1, 0.9))
    paths.weights(uid, 1).touch()
    WeightsCleanup(paths, store).on_trial_end(store.finish(uid, "failed", "no"), None)
    assert list(paths.trials.iterdir()) == []
