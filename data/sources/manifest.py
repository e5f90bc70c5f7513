"""Data source: a manifest, a table with the path and label of each image, and optionally its split and group."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError, did_you_mean
from data.sources.base import SPLIT_ALIASES, DataSource, ImageFile, SkippedFile, is_utf8, to_utf8, valid_name

ENDINGS = (".csv", ".tsv", ".parquet")
COLUMNS = ("path", "label", "split", "group")


class Row(NamedTuple):
    """A row of a manifest: its number in the file and its columns; missing values are empty."""

    number: int
    path: str
    label: str
    split: str
    group: str


def open_manifest(
    file: Path,
    name: str | None = None,
    uri: str | None = None,
    confine_to: Path | None = None,
    min_classes: int = 2,
) -> DataSource:
    """Open a manifest: CSV (UTF-8, separated by comma, semicolon or tab) or Parquet; its URI is by default its path.

    The columns are path (relative to the manifest), label, and optionally split (train, val, test) and group
    (an identifier of images that must be in the same split, such as a person or a video). Files outside of
    ``confine_to`` are skipped.

    Raises:
        DataError: the manifest is unreadable, lacks a column, has an unknown split, or too few classes.
    """
    rows = list(_rows(file))
    _check_splits(file, rows)
    rows_by_path: defaultdict[str, list[Row]] = defaultdict(list)
    images: list[ImageFile] = []
    skipped: list[SkippedFile] = []
    for row in rows:
        if row.path and row.label:
            rows_by_path[_resolve_path(file.parent, row.path)].append(row)
        else:
            missing = "label" if row.path else "path"
            skipped.append(
                SkippedFile(path=row.path or f"row {row.number}", reason=f"has no {missing} in row {row.number}")
            )
    for path, path_rows in rows_by_path.items():
        problem = _problem(file.parent, path, path_rows, confine_to)
        if problem:
            skipped.append(problem)
        else:
            images.append(_image_file(path, path_rows[0]))
    classes = tuple(sorted({row.label for row in rows if row.label}))
    if len(classes) < min_classes:
        raise DataError(
            f"data must have at least {min_classes} classes, got {len(classes)} in {file}; check its column label"
        )
    return DataSource(
        name=name or valid_name(file.stem),
        uri=uri or str(file),
        root=file.parent,
        classes=classes,
        images=tuple(sorted(images, key=lambda image: image.path)),
        skipped=tuple(skipped),
    )


def is_manifest(file: Path) -> bool:
    """Return whether a file is a table with the columns path and label."""
    try:
        return file.suffix.lower() in ENDINGS and file.is_file() and bool(list(_rows(file)))
    except DataError:
        return False


def _image_file(path: str, row: Row) -> ImageFile:
    split = SPLIT_ALIASES[row.split.lower()] if row.split else None
    return ImageFile(path=path, label=row.label, split=split, group=row.group or None)


def _resolve_path(root: Path, text: str) -> str:
    """Normalize a path; backslashes of manifests written on Windows are converted."""
    path = os.path.normpath(text)
    if "\\" in text and not (root / path).exists():
        path = os.path.normpath(text.replace("\\", "/"))
    return path


def _problem(root: Path, path: str, rows: Sequence[Row], confine_to: Path | None) -> SkippedFile | None:
    labels = sorted({row.label for row in rows})
    numbers = " and ".join(str(row.number) for row in rows)
    if len(labels) > 1:
        reason = f"has the labels {' and '.join(labels)} in rows {numbers}"
        return SkippedFile(path=path, reason=reason, kind="conflict")
    if len({row[3:] for row in rows}) > 1:
        return SkippedFile(path=path, reason=f"has different splits or groups in rows {numbers}")
    if not is_utf8(path):
        return SkippedFile(path=to_utf8(path), reason="has a name that is not valid UTF-8")
    if confine_to and not (root / path).resolve().is_relative_to(confine_to.resolve()):
        return SkippedFile(path=path, reason=f"is outside the data set (row {rows[0].number})")
    try:
        exists = (root / path).is_file()
    except (OSError, ValueError):  # the path is too long or contains a null byte
        exists = False
    if exists:
        return None
    return SkippedFile(path=path, reason=f"does not exist (row {rows[0].number})", kind="missing")


def _check_splits(file: Path, rows: Iterable[Row]) -> None:
    unknown: dict[str, int] = {}
    for row in rows:
        if row.split and row.split.lower() not in SPLIT_ALIASES:
            unknown.setdefault(row.split, row.number)
    problems = [
        f"split must be train, val, test or empty, got {split!r} in row {number} of {file}"
        f"{did_you_mean(split.lower(), SPLIT_ALIASES) or '; use one of these'}"
        for split, number in unknown.items()
    ]
    if problems:
        raise DataError(*problems)


def _rows(file: Path) -> Iterator[Row]:
    """Yield the non-empty rows, with whitespace around cells removed."""
    try:
        lines = _parquet_lines(file) if file.suffix.lower() == ".parquet" else _csv_lines(file)
        header = [cell.strip().lower() for cell in next(lines, [])]
        _check_header(file, header)
        for number, line in enumerate(lines, start=2):
            cells = [cell.strip() for cell in line]
            if any(cells):
                _check_width(file, number, cells, header)
                by_column = dict(zip(header, cells, strict=False))
                yield Row(number, *(by_column.get(column, "") for column in COLUMNS))
    except UnicodeDecodeError as error:
        raise DataError(f"a manifest must be UTF-8 text, got another encoding in {file}; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"a manifest must be a readable table, got {file}: {error}; fix it") from error


def _check_header(file: Path, header: Sequence[str]) -> None:
    missing = [column for column in ("path", "label") if column not in header]
    duplicates = sorted({column for column in COLUMNS if header.count(column) > 1})
    if missing:
        raise DataError(
            f"a manifest must have the columns path and label (optional: split, group), "
            f"got {', '.join(header) or 'none'} in {file}; add a header with these names"
        )
    if duplicates:
        raise DataError(
            f"column names of a manifest must be unique, got {', '.join(duplicates)} twice in {file}; rename one"
        )


def _check_width(file: Path, number: int, cells: Sequence[str], header: Sequence[str]) -> None:
    if len(cells) > len(header):
        raise DataError(
            f"rows of a manifest must not have more cells than its header ({len(header)}), got {len(cells)} in "
            f'row {number} of {file}; put quotes (") around cells that contain a comma'
        )


def _csv_lines(file: Path) -> Iterator[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        delimiter = max(",;\t", key=first.count)
        stream.seek(0)
        yield from csv.reader(stream, delimiter=delimiter, strict=True)


def _parquet_lines(file: Path) -> Iterator[list[str]]:
    import pandas as pd

    try:
        table = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise DataError(f"a manifest must be a readable table, got {file}: {error}; create it again") from error
    yield [str(column) for column in table.columns]
    for line in table.itertuples(index=False, name=None):
        yield ["" if pd.isna(cell) else str(cell) for cell in line]
