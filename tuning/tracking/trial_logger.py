"""What the trials' runs hold: translates the search's events into the writer's operations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuning.common.names import (
    OBJECTIVE_METRIC,
    ORIGIN_TAG,
    REASON_TAG,
    RERUN_OF_TAG,
    TRIAL_CONFIG_TAG,
    TRIAL_NUMBER_PARAM,
)
from tuning.common.trial_record import TrialRecord, TrialReport
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import EndRun, LogEpoch, LogText, StartRun

TRACEBACK = "traceback.txt"  # its end
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "running": "KILLED"}  # as MLflow's own


class TrialLogger:
    """A listener of the search that keeps one child run for each trial."""

    def __init__(self, writer: AsyncWriter) -> None:
        self._writer = writer
        self._runtime_info: dict[str, Mapping[str, object]] = {}  # as they were logged, by trial

    def replay_missing(self, results: Sequence[TrialRecord]) -> None:
        """Tell what the process that began the search had in its ledger, but was killed before it told it.

        Of trials that are to go on, too: the epochs that the ledger has are not told by their new worker.
        """
        for result in results:
            uid, goes_on = result.trial_uid, result.status == "running"
            if self._writer.has_ended(uid) or (goes_on and not result.epochs):
                continue
            if not self._writer.is_known(uid):
                self.on_trial_start(result)
            for epoch in range(self._writer.last_epoch(uid) + 1, result.epochs + 1):
                self._writer.send(LogEpoch(uid, epoch, result.history[epoch - 1], result.runtime_info))
            if not goes_on:
                self.on_trial_end(result, None)

    def on_trial_start(self, result: TrialRecord) -> None:
        """Make the trial's run, with its settings and the configuration that makes it again; or let it run again."""
        if result.epochs:  # it goes on, and its facts are there
            self._runtime_info[result.trial_uid] = result.runtime_info
        self._writer.send(
            StartRun(
                trial_uid=result.trial_uid,
                name=f"trial-{result.number:03d}",
                params={TRIAL_NUMBER_PARAM: result.number, **trial_params(result)},
                tags={TRIAL_CONFIG_TAG: result.config.to_json(), ORIGIN_TAG: result.origin, **_again(result)},
            )
        )

    def on_epoch_end(self, result: TrialRecord, report: TrialReport) -> None:
        """Log an epoch; with the first, what is known once the network is built."""
        facts = report.runtime_info if result.trial_uid not in self._runtime_info else {}
        self._runtime_info.setdefault(result.trial_uid, facts)
        # The UI's comparison opens with the first metric: the one that selects.
        metrics = {OBJECTIVE_METRIC: report.metrics[OBJECTIVE_METRIC], **report.metrics}
        self._writer.send(LogEpoch(result.trial_uid, report.epoch, metrics, facts))

    def on_trial_end(self, result: TrialRecord, report: TrialReport | None) -> None:
        """End the run with its status, reason, best epoch's scores, seconds, and what is no longer as it was logged.

        MLflow's parameters can't be changed: a fact that has become another, as on a disk that is full, is a tag.
        """
        if result.score is not None:
            best = {f"best_{name}": value for name, value in result.metrics.items() if name.startswith("val_")}
            whole = {"best_epoch": result.best_epoch, "trained_s": result.seconds}
            self._writer.send(LogEpoch(result.trial_uid, result.epochs, {**best, **whole}))
        logged = self._runtime_info.pop(result.trial_uid, {})
        tags = {
            name: str(fact) for name, fact in result.runtime_info.items() if name in logged and logged[name] != fact
        }
        tags[REASON_TAG] = result.reason
        if report is not None and report.traceback:
            self._writer.send(LogText(result.trial_uid, TRACEBACK, report.traceback))
        self._writer.send(EndRun(result.trial_uid, STATUS[result.status], tags))


def _again(result: TrialRecord) -> dict[str, str]:
    return {RERUN_OF_TAG: result.rerun_of} if result.rerun_of else {}


def trial_params(result: TrialRecord) -> Mapping[str, object]:
    """Return a trial's parameters under the names that the user knows."""
    config = result.config
    return {
        **result.settings,
        "log10_lr": round(math.log10(config.fit.lr), 6),
        "weights": config.network.weights,
        "feature_cache": config.features.feature_cache,
        "cached_augmentations": config.features.cached_augmentations,
        "max_epochs": config.fit.max_epochs,
        "patience": config.fit.patience,
        "step_epochs": config.fit.step_epochs,
        "seed": config.seed,
    }
