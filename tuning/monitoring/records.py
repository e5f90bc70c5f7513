"""The records of a packaged model's answers (``models.packaging.recording``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.errors import DataError

if TYPE_CHECKING:
    from models.evaluation.metrics import Floats


class Records(NamedTuple):
    """Answers [n] in the order of their times (Unix seconds): class indices, probabilities, latencies, image ids.

    ``novelty`` [n] and ``summaries`` [n, 8] are None if the package has no novelty.
    """

    times: Floats
    images: npt.NDArray[np.str_]
    classes: npt.NDArray[np.int64]
    confidence: Floats
    latency_ms: Floats
    novelty: Floats | None
    summaries: Floats | None

    def select(self, rows: npt.NDArray[Any]) -> Records:
        """Return some rows, as a mask or as indices."""
        columns = {name: column[rows] for name, column in self._asdict().items() if column is not None}
        return self._replace(**columns)


def read_records(folder: Path, package_id: str, classes: Sequence[str], since_s: float, until_s: float) -> Records:
    """Return the records of a package between two times.

    Lines that are incomplete, as the last one of a killed process, are left out.

    Raises:
        DataError: there is no such folder, or it contains no record of this package.
    """
    if not folder.is_dir():
        raise DataError(
            f"records must be the folder that FREEZELINE_RECORD named when the model was used, got {folder}, which is "
            "no folder; check the path"
        )
    rows, others = list[dict[str, Any]](), 0
    for row in _rows(folder):
        if row.get("model") != package_id:
            others += 1
        elif since_s <= row["time"] <= until_s:
            rows.append(row)
    if not rows:
        found = f"{others:,} of other versions" if others else "none"
        raise DataError(
            f"records must contain answers of this version in the time to be checked, got {found} in {folder}; choose "
            "more days, another version or another folder"
        )
    rows.sort(key=lambda row: float(row["time"]))
    index = {name: number for number, name in enumerate(classes)}
    has_novelty = all("novelty" in row and "features" in row for row in rows)
    return Records(
        times=np.array([row["time"] for row in rows], dtype=np.float64),
        images=np.array([row["image"] for row in rows]),
        classes=np.array([index[row["label"]] for row in rows], dtype=np.int64),
        confidence=np.array([row["score"] for row in rows], dtype=np.float64),
        latency_ms=np.array([row["latency_ms"] for row in rows], dtype=np.float64),
        novelty=np.array([row["novelty"] for row in rows], dtype=np.float64) if has_novelty else None,
        summaries=np.array([row["features"] for row in rows], dtype=np.float64) if has_novelty else None,
    )


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row
