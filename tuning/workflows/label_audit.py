"""The audit of labels: images whose label is probably wrong, as a table, a manifest to edit, and a contact sheet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from data.atomic_write import write_atomically
from data.audit.contact_sheets import sheet_of_groups
from data.dataset.dataset import Dataset
from data.findings import FINDING_TEXTS, Finding
from data.parallel import ProgressCallback
from data.sources.base import SkippedFile
from models.backbones.factory import preprocessing_for
from models.backbones.weight_packages import DEFAULT_BACKBONE
from models.evaluation.label_issues import LabelIssue, find_label_issues
from models.training.out_of_fold import out_of_fold
from tuning.recipe.auto import auto_image_sizes
from tuning.ui.tables.text_table import TextTable

MAX_ROWS = 20  # of the table in the terminal
MAX_ON_SHEET = 40
MAX_DROPPED_SHARE = 0.5  # of the images of a class in a split
COLUMNS = ("path", "label", "split", "likely_label", "rank", "label_probability", "likely_probability")


@dataclass(frozen=True)
class LabelAudit:
    """The images of a data set whose label is probably wrong, the most certain first."""

    dataset: Dataset
    issues: Sequence[LabelIssue]

    def table(self) -> TextTable:
        """Return the first issues as a table."""
        shown = self.issues[:MAX_ROWS]
        more = f", the first {len(shown)} of {len(self.issues):,}" if len(shown) < len(self.issues) else ""
        title = f"Labels that are probably wrong ({len(self.issues):,} of {len(self.dataset.samples):,}{more})"
        rows = [
            [
                self._label(issue.row),
                self.dataset.classes[issue.likely],
                f"{issue.likely_probability:.2f}",
                self._path(issue.row),
            ]
            for issue in shown
        ]
        columns = ("label", "likely", "prob.", "file")
        return TextTable(title, columns, rows, text_columns={"label", "likely", "file"}, wrapped={"file"})

    def write_manifest(self, file: Path) -> None:
        """Write all images as a table that can be edited and used as ``data``: those with an issue come first."""
        ranks = {issue.row: (rank, issue) for rank, issue in enumerate(self.issues, start=1)}
        order = [*ranks, *(row for row in range(len(self.dataset.samples)) if row not in ranks)]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in order:
            sample = self.dataset.samples[row]
            finding: tuple[object, ...] = ("", "", "", "")
            if row in ranks:
                rank, issue = ranks[row]
                probabilities = (f"{issue.given_probability:.4f}", f"{issue.likely_probability:.4f}")
                finding = (self.dataset.classes[issue.likely], rank, *probabilities)
            path = (self.dataset.root / sample.path).as_posix()
            writer.writerow([path, self._label(row), sample.split, *finding])
        write_atomically(file, text.getvalue().encode())

    def write_sheet(self, file: Path) -> None:
        """Write a contact sheet of the first issues, each with the most similar images."""
        groups = [[self._path(row) for row in (issue.row, *issue.neighbors)] for issue in self.issues[:MAX_ON_SHEET]]
        captions = dict(self._captions())
        sheet_of_groups(self.dataset.root, groups, captions).save(file)

    def without_issues(self) -> Dataset:
        """Return the data set without the training and validation images that have an issue.

        Of a class of which more than half of a split would be left out, all images are kept.
        """
        dropped = {issue.row: issue for issue in self.issues if self._may_be_dropped(issue.row)}
        if not dropped:
            return self.dataset
        skipped = [
            SkippedFile(
                path=self._path(row),
                reason=f"is probably {self.dataset.classes[issue.likely]}, not {self._label(row)}",
                kind="label_issue",
            )
            for row, issue in dropped.items()
        ]
        kept = self.dataset.with_samples(
            sample for row, sample in enumerate(self.dataset.samples) if row not in dropped
        )
        files = tuple((file.path,) for file in skipped)
        finding = Finding(
            kind="label_issue",
            count=len(files),
            files=files,
            reasons=tuple(file.reason for file in skipped),
            action=FINDING_TEXTS["label_issue"].action,
        )
        return kept.model_copy(
            update={"skipped": (*self.dataset.skipped, *skipped), "findings": (*self.dataset.findings, finding)}
        )

    def _may_be_dropped(self, row: int) -> bool:
        split, label = self.dataset.samples[row].split, self.dataset.samples[row].label
        return split != "test" and self._share_with_issue[split, label] <= MAX_DROPPED_SHARE

    @cached_property
    def _share_with_issue(self) -> dict[tuple[str, int], float]:
        """The share of the images with an issue by split and class."""
        samples = self.dataset.samples
        totals = Counter((sample.split, sample.label) for sample in samples)
        found = Counter((samples[issue.row].split, samples[issue.row].label) for issue in self.issues)
        return {key: found[key] / total for key, total in totals.items()}

    def _captions(self) -> Iterator[tuple[str, str]]:
        for issue in self.issues[:MAX_ON_SHEET]:
            for row in issue.neighbors:
                yield self._path(row), self._label(row)
        for issue in self.issues[:MAX_ON_SHEET]:
            yield self._path(issue.row), f"{self._label(issue.row)}/or {self.dataset.classes[issue.likely]}?"

    def _path(self, row: int) -> str:
        return self.dataset.samples[row].path

    def _label(self, row: int) -> str:
        return self.dataset.classes[self.dataset.samples[row].label]


def audit_labels(dataset: Dataset, progress: ProgressCallback) -> LabelAudit:
    """Find the images whose label is probably wrong, by probes of the default network at the largest usual size."""
    size = auto_image_sizes(dataset.median_short_side, on_gpu=False)[-1]  # the same issues on all machines
    preprocessing = replace(preprocessing_for(DEFAULT_BACKBONE, size), value_range=dataset.value_range)
    predictions = out_of_fold(dataset, DEFAULT_BACKBONE, preprocessing, progress)
    return LabelAudit(dataset, find_label_issues(predictions.logits, predictions.labels, predictions.features))
