"""The result of an audit, as a value and as lines of text."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from data.dataset.dataset import Dataset
from data.findings import Finding
from data.frozen_model import FrozenModel
from data.sources.base import SPLITS

MAX_NAMED_FILES = 20  # or groups, per finding, in the terminal; the JSON lists all files


class Audit(FrozenModel):
    """The contents of a data set, whose fields it copies (see ``Dataset``), and all problems found in it.

    Attributes:
        counts: number of images by split and class.
        num_skipped: number of files that are in no split.
        imbalance: ratio of the largest to the smallest class of the training split.
        findings: one for each kind of problem that occurs.
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
        """The number of images in all splits."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())

    @property
    def headline(self) -> str:
        """The name of the data set with its number of images, classes and images per split."""
        by_split = ", ".join(f"{sum(self.counts[split].values()):,} {split}" for split in SPLITS)
        return f"{self.name}: {self.num_images:,} images in {len(self.counts['train'])} classes ({by_split})"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return "\n".join(self.lines(max_files=0))

    def lines(self, max_files: int = MAX_NAMED_FILES) -> list[str]:
        """Return the audit as text: totals, then each finding with up to ``max_files`` files or groups (0: none)."""
        lines = [f"{self.headline}, median short side {self.median_short_side} px, {self.num_skipped:,} files skipped"]
        for finding in self.findings:
            lines += _finding_lines(finding, max_files, affects_all=finding.count == self.num_images)
        return lines if self.findings else [*lines, "no problems found"]


def audit(dataset: Dataset) -> Audit:
    """Return the audit of a loaded data set."""
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


def _finding_lines(finding: Finding, max_files: int, affects_all: bool) -> list[str]:
    title = f"  {finding.headline}: {finding.action}"
    if affects_all and finding.files:
        return [f"{title} (all images)"]
    rows = [finding.detail] if finding.detail else []
    max_rows = max(max_files, len(rows))
    for group, reason in zip_longest(finding.files, finding.reasons, fillvalue=""):
        rows.append(f"{' = '.join(group)} {reason}".rstrip())
    num_omitted = len(rows) - max_rows if max_files else 0
    noun = f" group{'' if num_omitted == 1 else 's'}" if finding.is_grouped else ""
    omitted = [f"    ... and {num_omitted:,} more{noun}"] if num_omitted > 0 else []
    return [title, *(f"    {_escaped(row)}" for row in rows[:max_rows]), *omitted]


def _escaped(text: str) -> str:
    """Escape non-printable characters, so that a file name with a line break stays on one line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
