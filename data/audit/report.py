"""The result of an audit, as a value and as lines of text."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from data.dataset.dataset import Dataset
from data.findings import Finding
from data.frozen_model import FrozenModel
from data.sources.base import SPLITS
from data.text import pluralize

MAX_NAMED_CLASSES = 30
MAX_NAME_LENGTH = 40
MAX_NAMED_FILES = 20  # or groups, per finding, in the terminal; the JSON lists all files


class Audit(FrozenModel):
    """The contents of a data set, whose fields it copies (see ``Dataset``), and all problems found in it.

    Attributes:
        counts: number of images by split and class.
        num_skipped: number of files that are in no split.
        layout: what was understood of the layout, one line each.
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
    layout: tuple[str, ...] = ()
    findings: tuple[Finding, ...]

    @property
    def num_images(self) -> int:
        """The number of images in all splits."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())

    @property
    def headline(self) -> str:
        """The name of the data set with its number of images, classes and images per split."""
        by_split = ", ".join(f"{sum(self.counts[split].values()):,} {split}" for split in SPLITS)
        classes = pluralize(len(self.counts["train"]), "class")
        return f"{self.name}: {pluralize(self.num_images, 'image')} in {classes} ({by_split})"

    @property
    def class_line(self) -> str:
        """The names of the classes with their number of images in all splits, at most ``MAX_NAMED_CLASSES``."""
        totals = {name: sum(self.counts[split][name] for split in SPLITS) for name in self.counts["train"]}
        named = [f"{_shortened(name)} {count:,}" for name, count in list(totals.items())[:MAX_NAMED_CLASSES]]
        more = f", and {len(totals) - len(named):,} more" if len(totals) > len(named) else ""
        return f"classes: {', '.join(named)}{more}"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return "\n".join(self.lines(max_files=0))

    def lines(self, max_files: int = MAX_NAMED_FILES) -> list[str]:
        """Return the audit as text: totals, then each finding with up to ``max_files`` files or groups (0: none)."""
        skipped = pluralize(self.num_skipped, "file")
        lines = [f"{self.headline}, median short side {self.median_short_side} px, {skipped} skipped"]
        lines += [f"  {_escaped(line)}" for line in (self.class_line, *self.layout)]
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
        num_skipped=dataset.num_skipped,
        layout=dataset.layout,
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


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def _escaped(text: str) -> str:
    """Escape non-printable characters, so that a file name with a line break stays on one line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
