"""Events as JSON lines, for programs: one object a line, described in docs/events.md.

The schema is stable: within a version of it an event or a field may be added, none is renamed, taken away or given
another meaning. Numbers that JSON has no word for (NaN, infinity) are null; secrets are hidden.
"""

from __future__ import annotations

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
    ProgressUpdated,
    PromotionDecided,
    ReportWritten,
    SearchPlanned,
    StageStarted,
    TrainingEpochEnded,
    TrialEnded,
    TrialStarted,
)
from tuning.common.redaction import redact

if TYPE_CHECKING:
    from tuning.common.trial_record import TrialRecord

SCHEMA = 1  # version of it
PROGRESS_EVERY_S = 0.5  # seconds between two lines of one task; its end is always told

Fields = dict[str, Any]  # of a line, by their names


class JsonLinesRenderer:
    """Writes each event that is in the schema as a line to ``file``, at once."""

    def __init__(self, file: IO[str], command: str) -> None:
        """Write to ``file`` what ``command`` tells."""
        self._file = file
        self._told: tuple[str, float] = ("", -math.inf)  # the task whose progress was told last, and when
        self._write("began", {"schema": SCHEMA, "command": command})

    def handle(self, event: Event) -> None:
        """Write an event."""
        if isinstance(event, ProgressUpdated) and not self._is_due(event):
            return
        found = line_of(event)
        if found is not None:
            self._write(*found)

    def close(self) -> None:
        """Leave the file open: it is standard output."""

    def _is_due(self, event: ProgressUpdated) -> bool:
        what, told_s = self._told
        now_s = time.monotonic()
        if event.task == what and event.done < event.total and now_s - told_s < PROGRESS_EVERY_S:
            return False
        self._told = (event.task, now_s)
        return True

    def _write(self, name: str, fields: Fields) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(_clean({"event": name, "at": at, **fields}), ensure_ascii=False, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()


def line_of(event: Event) -> tuple[str, Fields] | None:
    """Return an event's name in the schema and its fields; None for what is for people only."""
    if isinstance(event, Message) and not event.is_warning:
        return None
    named = LINES.get(type(event))
    return (named[0], named[1](event)) if named else None


def _epoch(event: EpochEnded | TrainingEpochEnded) -> Fields:
    nobody: Fields = {"trial": None, "uid": None, "origin": None}
    whose = _trial(event.trial) if isinstance(event, EpochEnded) else nobody
    report = event.report
    return {**whose, "epoch": report.epoch, "metrics": report.metrics, "facts": report.runtime_info}


def _audit(event: AuditCompleted) -> Fields:
    audit = event.audit
    return {
        "data": audit.name,
        "fingerprint": audit.fingerprint,
        "classes": list(audit.counts["train"]),
        "pictures": {split: sum(by_class.values()) for split, by_class in audit.counts.items()},
        "left_out": audit.num_skipped,
        "findings": {finding.kind: finding.count for finding in audit.findings},
    }


def _plan(plan: SearchPlanned) -> Fields:
    ends = None if plan.ends_s is None else datetime.fromtimestamp(plan.ends_s, UTC).isoformat(timespec="seconds")
    return {
        "run_id": plan.run_id,
        "trials": plan.trials,
        "tried": plan.tried,
        "probes": plan.probes,
        "max_epochs": plan.max_epochs,
        "at_once": plan.max_concurrent,
        "ends_at": ends,
    }


def _trial(result: TrialRecord) -> Fields:
    return {"trial": result.number, "uid": result.trial_uid, "origin": result.origin}


def _end(event: TrialEnded) -> Fields:
    result = event.trial
    return {
        **_trial(result),
        "status": result.status,
        "reason": result.reason,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch or None,
        "score": result.score,
    }


def _measured(event: CandidateEvaluated) -> Fields:
    candidate = event.candidate
    return {
        "run_id": candidate.run_id,
        "model_uri": candidate.model_uri,
        "test_pictures": candidate.num_test_images,
        "test_looks": candidate.test_evaluations,
        "metrics": candidate.metrics,
        "intervals": candidate.intervals,
        "raw_pixel_accuracy": event.baseline,
        "latency_ms": candidate.latency_ms,
        "size_mb": candidate.size_mb,
    }


def _decided(event: PromotionDecided) -> Fields:
    model = {"model": event.candidate.name, "version": event.version}
    return {**model, "alias": event.promotion.alias, "reason": event.promotion.reason}


# An event -> its name in the schema, and what makes its fields.
LINES: dict[type[Event], tuple[str, Callable[[Any], Fields]]] = {
    Message: ("warning", lambda event: {"text": event.text}),
    StageStarted: ("part", lambda event: {"part": event.part}),
    ProgressUpdated: ("progress", lambda event: {"what": event.what, "done": event.done, "of": event.of}),
    AuditCompleted: ("audit", _audit),
    SearchPlanned: ("plan", _plan),
    TrialStarted: ("trial_started", lambda event: {**_trial(event.result), "settings": event.result.settings}),
    EpochEnded: ("epoch", _epoch),
    TrainingEpochEnded: ("epoch", _epoch),
    TrialEnded: ("trial_ended", _end),
    CandidateEvaluated: ("result", _measured),
    PromotionDecided: ("decision", _decided),
    ReportWritten: ("report", lambda event: {"file": str(event.file)}),
    CommandEnded: ("ended", lambda event: {"exit_status": event.exit_status, "problems": event.problems}),
}


def _clean(value: object) -> object:
    """Return a value as JSON can have it, without secrets."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _clean(inner) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [_clean(inner) for inner in value]
    return value
