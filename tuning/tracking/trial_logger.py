"""Trial logger: a search callback that logs each trial as a child run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuning.common.formatting import run_name
from tuning.common.names import (
    OBJECTIVE_METRIC,
    ORIGIN_TAG,
    REASON_TAG,
    RERUN_OF_TAG,
    RUN_NAME_TAG,
    STATUS_TAG,
    TRIAL_CONFIG_TAG,
    TRIAL_NUMBER_PARAM,
)
from tuning.common.trial_record import TrialCallback, TrialRecord, TrialReport, TrialStatus
from tuning.tracking.async_writer import AsyncWriter
from tuning.tracking.operations import EndRun, LogEpoch, LogFile, LogInput, LogText, StartRun

if TYPE_CHECKING:
    from tuning.common.search_paths import SearchPaths

TRACEBACK_FILE = "traceback.txt"
RUN_STATUS: Mapping[TrialStatus, str] = {  # MLflow's names
    "complete": "FINISHED",
    "out of time": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "running": "KILLED",
}


class TrialLogger(TrialCallback):
    """Logs one child run per trial, with the data set as its input; ``dataset_fields`` are those of ``LogInput``."""

    def __init__(self, writer: AsyncWriter, dataset_fields: Mapping[str, str], paths: SearchPaths) -> None:
        self._writer = writer
        self._dataset_fields = dataset_fields
        self._paths = paths
        self._runtime_info: dict[str, Mapping[str, object]] = {}  # as logged, by trial uid

    def replay_missing(self, trials: Sequence[TrialRecord]) -> None:
        """Log what the trial store holds but a killed process had not sent yet.

        This includes the epochs of trials that will be resumed: their new worker does not report them.
        """
        outbox = self._writer.outbox
        for trial in trials:
            uid, is_running = trial.trial_uid, trial.status == "running"
            if uid in outbox.ended_uids or (is_running and not trial.epochs):
                continue
            if uid not in outbox.starts:
                self.on_trial_start(trial)
            for epoch in range(outbox.last_epochs.get(uid, 0) + 1, trial.epochs + 1):
                self._writer.send(LogEpoch(uid, epoch, trial.history[epoch - 1], trial.runtime_info))
            if not is_running:
                self.on_trial_end(trial, None)

    def on_trial_start(self, trial: TrialRecord) -> None:
        """Start the trial's run with its parameters and its reproducible configuration, or set it to RUNNING again."""
        is_new = trial.trial_uid not in self._writer.outbox.starts
        if trial.epochs:  # a resumed trial, whose runtime info has already been logged
            self._runtime_info[trial.trial_uid] = trial.runtime_info
        tags = {TRIAL_CONFIG_TAG: trial.config.to_json(), ORIGIN_TAG: trial.origin}
        if trial.rerun_of:
            tags[RERUN_OF_TAG] = trial.rerun_of
        self._writer.send(
            StartRun(
                trial_uid=trial.trial_uid,
                name=run_name(trial),
                params={TRIAL_NUMBER_PARAM: trial.number, **trial_params(trial)},
                tags=tags,
            )
        )
        if is_new:
            self._writer.send(LogInput(trial.trial_uid, self._dataset_fields))

    def on_epoch_end(self, trial: TrialRecord, report: TrialReport) -> None:
        """Log an epoch; the first one also logs the runtime info of the built network."""
        runtime_info = report.runtime_info if trial.trial_uid not in self._runtime_info else {}
        self._runtime_info.setdefault(trial.trial_uid, runtime_info)
        # MLflow's comparison page shows the first metric by default: the objective.
        metrics = {OBJECTIVE_METRIC: report.metrics[OBJECTIVE_METRIC], **report.metrics}
        self._writer.send(LogEpoch(trial.trial_uid, report.epoch, metrics, runtime_info))

    def on_trial_end(self, trial: TrialRecord, report: TrialReport | None) -> None:
        """End the run with its name, status and reason, the best epoch's metrics, and changed runtime info.

        Out-of-fold predictions become an artifact; the artifact ``folds.csv`` of the parent run names their rows.

        MLflow parameters are immutable: runtime info that changed after it was logged (for example because the disk is
        full) is stored as a tag.
        """
        if trial.score is not None:
            best = {f"best_{name}": value for name, value in trial.metrics.items() if name.startswith("val_")}
            totals = {"best_epoch": trial.best_epoch, "trained_s": trial.seconds}
            self._writer.send(LogEpoch(trial.trial_uid, trial.epochs, {**best, **totals}))
        logged = self._runtime_info.pop(trial.trial_uid, {})
        tags = {
            name: str(value) for name, value in trial.runtime_info.items() if name in logged and logged[name] != value
        }
        tags |= {RUN_NAME_TAG: run_name(trial), REASON_TAG: trial.reason, STATUS_TAG: trial.status}
        predictions = self._paths.predictions(trial.trial_uid)
        if trial.config.fit.validation == "folds" and predictions.exists():
            self._writer.send(LogFile(trial.trial_uid, str(predictions), ""))
        if report is not None and report.traceback:
            self._writer.send(LogText(trial.trial_uid, TRACEBACK_FILE, report.traceback))
        self._writer.send(EndRun(trial.trial_uid, RUN_STATUS[trial.status], tags))


def trial_params(trial: TrialRecord) -> Mapping[str, object]:
    """Return the parameters of a trial that have an effect, under the names of the options, and ``log10_lr``."""
    parts = trial.config.settings()
    of_config = {**parts["network"], **parts["batches"], **parts["fit"], **parts["features"]}
    # Searched values come last: MLflow rejects a changed text, such as 1.0 for 1, when a search is resumed.
    params = {**of_config, **trial.settings, "seed": trial.config.seed}
    if "lr" in of_config:
        params["log10_lr"] = round(math.log10(trial.config.fit.lr), 6)
    return params
