"""A search's folder holds the weights of its best trials and the checkpoints of those that run, and no others."""

from __future__ import annotations

from pathlib import Path

from tests.tuning.factories import epoch_report, trial_store
from tuning.common.search_paths import SearchPaths
from tuning.search.weights_cleanup import WeightsCleanup


def test_weights_of_the_best_and_checkpoints_of_the_running_stay(tmp_path: Path) -> None:
    paths, ledger = SearchPaths(tmp_path), trial_store(tmp_path)
    paths.trials.mkdir()
    tidying = WeightsCleanup(paths, ledger, keep_top_k=2)
    uids = []
    for score in (0.5, 0.9, 0.1, 0.7):
        uid = ledger.ask().trial_uid
        uids.append(uid)
        ledger.report(uid, epoch_report(1, score))
        paths.weights(uid, 1).touch()
        paths.checkpoint(uid).touch()
        tidying.on_trial_end(ledger.finish(uid, "complete", ""), None)
    running = ledger.ask().trial_uid
    paths.weights(running, 1).touch()
    paths.checkpoint(running).touch()
    expected = {paths.weights(uid, 1) for uid in (uids[1], uids[3], running)} | {paths.checkpoint(running)}
    assert set(paths.trials.iterdir()) == expected
    paths.checkpoint(uids[1]).touch()  # left by a process that was killed
    WeightsCleanup(paths, trial_store(tmp_path), keep_top_k=1)
    assert set(paths.trials.iterdir()) == expected - {paths.weights(uids[3], 1)}


def test_a_failed_trial_leaves_nothing(tmp_path: Path) -> None:
    paths, ledger = SearchPaths(tmp_path), trial_store(tmp_path)
    paths.trials.mkdir()
    uid = ledger.ask().trial_uid
    ledger.report(uid, epoch_report(1, 0.9))
    paths.weights(uid, 1).touch()
    WeightsCleanup(paths, ledger).on_trial_end(ledger.finish(uid, "failed", "no"), None)
    assert list(paths.trials.iterdir()) == []
