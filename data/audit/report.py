"""An audit as a value and as lines of text."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from data.dataset.dataset import Dataset
from data.findings import Finding
from data.frozen_model import FrozenModel
from data.sources.base import SPLITS

MAX_NAMED_FILES = 20  # files of a finding that are named in the terminal; the JSON has all


class Audit(FrozenModel):
    """What is in a data set, and every problem that was found.

    Attributes:
        name: of the data set.
        root: absolute folder that all paths are relative to.
        fingerprint: of the pictures that are learned from.
        counts: pictures by split and class.
        left_out: files that are in no split.
        imbalance: training pictures of the largest class for one of the smallest.
        median_side: median short side, in pixels.
        findings: one for each kind of problem; empty where all is well.
    """

    name: str
    root: Path
    fingerprint: str
    counts: dict[str, dict[str, int]]
    num_skipped: int
    imbalance: float
    median_short_side: int
    findings: tuple[Finding, ...]

    @property
    def num_images(self) -> int:
        """How many pictures there are in all splits."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())

    @property
    def headline(self) -> str:
        """The data set and its pictures, in all and by split."""
        said = ", ".join(f"{sum(self.counts[split].values()):,} {split}" for split in SPLITS)
        return f"{self.name}: {self.num_images:,} pictures of {len(self.counts['train'])} classes ({said})"

    def lines(self, named: int = MAX_NAMED_FILES) -> list[str]:
        """Return the audit for a terminal: totals, then each finding with up to ``named`` of its files; 0 for none."""
        lines = [f"{self.headline}, median short side {self.median_short_side} px, {self.num_skipped:,} left out"]
        for finding in self.findings:
            lines += _told(finding, named, is_of_all=finding.count == self.num_images)
        return lines if self.findings else [*lines, "nothing to complain about"]


def audit(dataset: Dataset) -> Audit:
    """Return the audit of a data set."""
    return Audit(
        name=dataset.name,
        root=dataset.root,
        fingerprint=dataset.fingerprint,
        counts=dataset.counts(),
        num_skipped=len(dataset.skipped),
        imbalance=dataset.imbalance,
        median_short_side=dataset.median_short_side,
        findings=dataset.findings,
    )


def _told(finding: Finding, named: int, is_of_all: bool) -> list[str]:
    head = f"  {finding.count:,} {finding.title}: {finding.action}"
    if is_of_all and finding.files:
        return [f"{head} (these are all pictures)"]
    rows = [finding.detail] if finding.detail else []
    most = max(named, len(rows))
    for group, reason in zip_longest(finding.files, finding.reasons, fillvalue=""):
        rows.append(f"{' = '.join(group)} {reason}".rstrip())
    more = [f"    ... and {len(rows) - most:,} more"] if named and len(rows) > most else []
    return [head, *(f"    {_printable(row)}" for row in rows[:most]), *more]


def _printable(text: str) -> str:
    """Return a name on one line, so that one with a line break in it can't pass for two."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
