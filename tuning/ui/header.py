"""The first lines of a search: what runs where, on which data, for how long."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from datetime import datetime

from data.sources.base import SPLITS
from data.text import pluralize
from tuning.common.events import AuditCompleted, SearchPlanned, SearchStarted
from tuning.common.formatting import budget_text
from tuning.ui.console import wrap_hanging

LABEL_WIDTH = 12
MAX_WIDTH = 80
OFFLINE = "none (tracking=offline); freezeline sync delivers later"


def header_lines(event: SearchStarted) -> Iterator[str]:
    """Yield the command, the run, the data and the tracking store."""
    yield f"Freezeline {event.version}  {event.command} {event.data}, seed {event.seed}"
    yield _line("run", f"{event.run_id} in experiment {event.experiment}")
    splits = ", ".join(f"{event.images[split]:,} {split}" for split in SPLITS)
    images = pluralize(sum(event.images.values()), "image")
    yield _line("data", f"{images}, {pluralize(event.classes, 'class')}: {splits}")
    yield f"  {'tracking':{LABEL_WIDTH - 2}}{event.tracking_uri or OFFLINE}"


def audit_lines(event: AuditCompleted) -> Iterator[str]:
    """Yield the findings of the audit, with what was done about each."""
    audit = event.audit
    for line in (audit.class_line, *audit.layout):
        label, separator, text = line.partition(": ")
        yield _line(label, text) if separator else _line("folder", line)
    labels = ["audit"] + [""] * len(audit.findings)
    if not audit.findings:
        yield _line("audit", "no problems found")
    for label, finding in zip(labels, audit.findings, strict=False):
        detail = f" ({finding.detail})" if finding.detail else ""
        yield _line(label, f"{finding.headline}: {finding.action}{detail}")
    if any(finding.files for finding in audit.findings):
        data, *options = event.arguments
        command = shlex.join([_short_path(data), *options])
        yield f"{'':{LABEL_WIDTH}}files: freezeline audit {command}"  # not wrapped: it is copied


def plan_lines(event: SearchPlanned) -> Iterator[str]:
    """Yield the device, the budget and the plan."""
    device = event.device_name or event.device
    yield _line("device", f"{device}, {pluralize(event.max_concurrent, 'trial')} in parallel")
    if event.budget_s is not None and event.ends_s is not None:
        target = f"{datetime.fromtimestamp(event.ends_s):%H:%M:%S}"
        text = f"{budget_text(event.budget_s, None)}, target {target}: trials stop before, the end may be later"
        yield _line("budget", text)
    yield _line("plan", event.text)


def _line(label: str, text: str) -> str:
    return f"  {label:{LABEL_WIDTH - 2}}{wrap_hanging(text, MAX_WIDTH - LABEL_WIDTH, LABEL_WIDTH)}"


def _short_path(data: str) -> str:
    return min(data, os.path.relpath(data), key=len) if os.path.isabs(data) else data  # noqa: PTH117
