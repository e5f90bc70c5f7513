"""Events as JSON Lines for programs: one object per line, documented in docs/events.md.

The schema is stable: within a schema version events and fields may be added, but none is renamed, removed or given
another meaning. NaN and infinite numbers are written as null; secrets are masked.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from tuning.common.events import (
    AuditCompleted,
    CandidateEvaluated,
    CommandEnded,
    EpochEnded,
    Event,
    Message,
    PhaseStarted,
    ProgressUpdated,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    SearchStarted,
    StageStarted,
    TrainingEpochEnded,
    TrialEnded,
    TrialStarted,
)
from tuning.common.redaction import redact

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

SCHEMA = 2  # the schema's version
PROGRESS_INTERVAL_S = 0.5  # between two progress lines of one task; the last one is always written

Fields = dict[str, Any]  # the fields of a line by name


class JsonLinesRenderer:
    """Writes each event of the schema to ``file`` as a line, and flushes it."""

    def __init__(self, file: IO[str], command: str) -> None:
        """Write the first line, with the schema's version and the command's name."""
        self._file = file
        self._last_progress: tuple[str, float] = ("", -math.inf)  # task and time of the last progress line
        self._write("started", {"schema": SCHEMA, "command": command})

    def handle(self, event: Event) -> None:
        """Write an event."""
        if isinstance(event, ProgressUpdated) and not self._is_progress_due(event):
            return
        line = to_line(event)
        if line is not None:
            self._write(*line)

    def close(self) -> None:
        """Leave the file open: it is standard output."""

    def _is_progress_due(self, event: ProgressUpdated) -> bool:
        last_task, last_s = self._last_progress
        now_s = time.monotonic()
        if event.task == last_task and event.done < event.total and now_s - last_s < PROGRESS_INTERVAL_S:
            return False
        self._last_progress = (event.task, now_s)
        return True

    def _write(self, name: str, fields: Fields) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(_to_json({"event": name, "at": at, **fields}), ensure_ascii=False, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()


def to_line(event: Event) -> tuple[str, Fields] | None:
    """Return the name and fields of an event in the schema; None for an event that is for people only."""
    if isinstance(event, Message) and not event.is_warning:
        return None
    entry = SCHEMA_EVENTS.get(type(event))
    return (entry[0], entry[1](event)) if entry else None


def _epoch(event: EpochEnded | TrainingEpochEnded) -> Fields:
    no_trial: Fields = {"trial": None, "uid": None, "origin": None}
    trial = _trial(event.trial) if isinstance(event, EpochEnded) else no_trial
    report = event.report
    return {**trial, "epoch": report.epoch, "metrics": report.metrics, "runtime_info": report.runtime_info}


def _audit(event: AuditCompleted) -> Fields:
    audit = event.audit
    return {
        "data": audit.name,
        "fingerprint": audit.fingerprint,
        "classes": list(audit.counts["train"]),
        "images": {split: sum(by_class.values()) for split, by_class in audit.counts.items()},
        "skipped": audit.num_skipped,
        "findings": {finding.kind: finding.count for finding in audit.findings},
    }


def _plan(plan: SearchPlanned) -> Fields:
    ends = None if plan.ends_s is None else datetime.fromtimestamp(plan.ends_s, UTC).isoformat(timespec="seconds")
    return {
        "run_id": plan.run_id,
        "trials": plan.trials,
        "finished": plan.finished,
        "probes": plan.probes,
        "max_epochs": plan.max_epochs,
        "max_concurrent": plan.max_concurrent,
        "ends_at": ends,
        "device": plan.device,
        "device_name": plan.device_name,
        "probes_dropped": plan.probes_dropped,
    }


def _trial(trial: TrialRecord) -> Fields:
    return {"trial": trial.number, "uid": trial.trial_uid, "origin": trial.origin}


def _trial_ended(event: TrialEnded) -> Fields:
    trial = event.trial
    return {
        **_trial(trial),
        "status": trial.status,
        "seconds": trial.seconds,
        "reason": trial.reason,
        "epochs": trial.epochs,
        "best_epoch": trial.best_epoch or None,
        "score": trial.score,
    }


def _result(event: CandidateEvaluated) -> Fields:
    candidate = event.candidate
    return {
        "run_id": candidate.run_id,
        "model_uri": candidate.model_uri,
        "test_images": candidate.num_test_images,
        "test_evaluations": candidate.test_evaluations,
        "metrics": candidate.metrics,
        "intervals": candidate.intervals,
        "pixel_baseline_accuracy": event.baseline,
        "latency_ms": candidate.latency_ms,
        "size_mb": candidate.size_mb,
    }


def _promotion(event: PromotionDecided) -> Fields:
    model = {"model": event.candidate.name, "version": event.version}
    return {**model, "alias": event.promotion.alias, "reason": event.promotion.reason}


# Event class -> its name in the schema and the function that returns its fields.
SCHEMA_EVENTS: dict[type[Event], tuple[str, Callable[[Any], Fields]]] = {
    Message: ("warning", lambda event: {"text": event.text}),
    StageStarted: ("stage", lambda event: {"stage": event.stage}),
    ProgressUpdated: ("progress", lambda event: {"task": event.task, "done": event.done, "total": event.total}),
    AuditCompleted: ("audit", _audit),
    SearchStarted: ("search", dataclasses.asdict),
    SearchPlanned: ("plan", _plan),
    PhaseStarted: ("phase", dataclasses.asdict),
    TrialStarted: ("trial_started", lambda event: {**_trial(event.trial), "settings": event.trial.settings}),
    EpochEnded: ("epoch", _epoch),
    TrainingEpochEnded: ("epoch", _epoch),
    TrialEnded: ("trial_ended", _trial_ended),
    CandidateEvaluated: ("result", _result),
    PromotionDecided: ("promotion", _promotion),
    ReportWritten: ("report", lambda event: {"file": str(event.file)}),
    CommandEnded: ("ended", lambda event: {"exit_status": event.exit_status, "problems": event.problems}),
}


def _to_json(value: object) -> object:
    """Return a value that JSON can represent, with secrets masked."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _to_json(inner) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [_to_json(inner) for inner in value]
    return value
