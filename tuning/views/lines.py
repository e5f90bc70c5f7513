"""One plain line for each event of a search, with the time."""

from __future__ import annotations

import sys
from datetime import datetime

from models.features.plan import DISK_FULL
from tuning.search.results import TrialResult
from tuning.tracking.redact import redacted
from tuning.trial import TrialReport

SHOWN = ("optimizer", "lr", "freeze_fraction", "batch_size", "augmentation", "lr_scheduler")


def say(text: str) -> None:
    """Print a line with the time of day, secrets hidden."""
    sys.stdout.write(f"{datetime.now():%H:%M:%S}  {redacted(text)}\n")
    sys.stdout.flush()


class Lines:
    """A listener of the search that prints how each trial ended, and the best so far."""

    def __init__(self) -> None:
        self._ended = 0
        self._best: TrialResult | None = None
        self._is_full = False

    def trial_started(self, result: TrialResult) -> None:
        """Print nothing: Ray asks for a trial before a worker is free for it."""

    def epoch_ended(self, result: TrialResult, report: TrialReport) -> None:
        """Print a trial's settings with its first epoch: now it runs; a probe is over at once. A full disk once."""
        if report.epoch == 1 and result.origin != "probe":
            say(f"trial {result.number} runs: {settings_text(result)}")
        if not self._is_full and report.facts.get("features") == DISK_FULL:
            self._is_full = True
            what = f"the disk is full: trial {result.number}, at least, computes its frozen blocks in every epoch"
            say(f"{what}; make room, as with python -m tuning store --clear all")

    def trial_ended(self, result: TrialResult, report: TrialReport | None) -> None:
        """Print how a trial ended."""
        self._ended += 1
        if result.status == "failed":
            say(f"trial {result.number} failed: {result.reason} ({self._ended} ended)")
            return
        if self._best is None or result.rank > self._best.rank:
            self._best = result
        best = f"best {score_text(self._best)} by trial {self._best.number} ({self._ended} ended)"
        if result.origin == "probe":
            say(f"trial {result.number}, linear probe of {network_text(result)}: {score_text(result)}, {best}")
        else:
            say(f"trial {result.number} {result.status} after {result.epochs} epochs: {score_text(result)}, {best}")


def score_text(result: TrialResult) -> str:
    """Return a trial's score as it is shown everywhere."""
    return "-" if result.score is None else f"{result.score:.4f}"


def network_name(result: TrialResult) -> str:
    """Return a trial's network, after its variant if it is of one."""
    backbone = result.config.network.backbone
    return f"{result.variant}: {backbone}" if result.variant else backbone


def network_text(result: TrialResult) -> str:
    """Return the network, the size at which it sees pictures, and how many of its last blocks are dropped."""
    network = result.config.network
    cut = f" without its last {network.truncate} blocks" if network.truncate else ""
    return f"{network.backbone}{cut} at {result.config.preprocessing.image_size} px"


def settings_text(result: TrialResult) -> str:
    """Return the settings that tell one trial from another."""
    parts = [network_text(result)]
    for name in SHOWN:
        setting = result.settings[name]
        parts.append(f"{name} {setting:.3g}" if isinstance(setting, float) else f"{name} {setting}")
    return ", ".join(parts)
