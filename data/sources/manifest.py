"""A table of pictures: one row each with its path, label, and perhaps its split and group."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError, did_you_mean
from data.sources.base import SPLIT_ALIASES, DataSource, ImageFile, SkippedFile, is_plain, to_utf8, valid_name

ENDINGS = (".csv", ".tsv", ".parquet")
COLUMNS = ("path", "label", "split", "group")


class Row(NamedTuple):
    """A row of a manifest: its number in the file and its four columns, empty where it has none."""

    number: int
    path: str
    label: str
    split: str
    group: str


def open_manifest(
    file: Path, name: str | None = None, uri: str | None = None, confine_to: Path | None = None
) -> DataSource:
    """Return the labelled files that a manifest names; their paths are relative to the manifest.

    It is CSV (UTF-8, with commas, semicolons, or tabs) or Parquet with the columns path and label, and if wanted split
    (train, val, test) and group (what must not be divided: a person, a video). With ``inside``, a row may
    name no file outside that folder.

    Raises:
        DataError: it can't be read, lacks a column, names an unknown split, or fewer than two classes.
    """
    rows = list(_rows(file))
    _check_splits(file, rows)
    listed: defaultdict[str, list[Row]] = defaultdict(list)
    found: list[ImageFile] = []
    left_out: list[SkippedFile] = []
    for row in rows:
        if row.path and row.label:
            listed[_resolve_path(file.parent, row.path)].append(row)
        else:
            what = "label" if row.path else "path"
            left_out.append(
                SkippedFile(path=row.path or f"row {row.number}", reason=f"has no {what} in row {row.number}")
            )
    for path, same in listed.items():
        problem = _problem(file.parent, path, same, confine_to)
        if problem:
            left_out.append(problem)
        else:
            found.append(_image_file(path, same[0]))
    classes = tuple(sorted({row.label for row in rows if row.label}))
    if len(classes) < 2:
        raise DataError(f"data must have at least 2 classes, got {len(classes)} in {file}; check its column label")
    return DataSource(
        name=name or valid_name(file.stem),
        uri=uri or str(file),
        root=file.parent,
        classes=classes,
        images=tuple(sorted(found, key=lambda picture: picture.path)),
        skipped=tuple(left_out),
    )


def is_manifest(file: Path) -> bool:
    """Return whether a file is a table that has the columns path and label."""
    try:
        return file.suffix.lower() in ENDINGS and file.is_file() and bool(list(_rows(file)))
    except DataError:
        return False


def _image_file(path: str, row: Row) -> ImageFile:
    split = SPLIT_ALIASES[row.split.lower()] if row.split else None
    return ImageFile(path=path, label=row.label, split=split, group=row.group or None)


def _resolve_path(root: Path, text: str) -> str:
    """Return a row's path as it is on this machine, where a manifest may have been made on Windows."""
    path = os.path.normpath(text)
    if "\\" in text and not (root / path).exists():
        path = os.path.normpath(text.replace("\\", "/"))
    return path


def _problem(root: Path, path: str, rows: Sequence[Row], inside: Path | None) -> SkippedFile | None:
    labels = sorted({row.label for row in rows})
    numbers = " and ".join(str(row.number) for row in rows)
    if len(labels) > 1:
        reason = f"is listed as {' and '.join(labels)} in rows {numbers}"
        return SkippedFile(path=path, reason=reason, kind="conflict")
    if len({row[3:] for row in rows}) > 1:
        return SkippedFile(path=path, reason=f"is listed with different splits or groups in rows {numbers}")
    if not is_plain(path):
        return SkippedFile(path=to_utf8(path), reason="has a name that is not valid UTF-8")
    if inside and not (root / path).resolve().is_relative_to(inside.resolve()):
        return SkippedFile(path=path, reason=f"lies outside the data set (row {rows[0].number})")
    try:
        exists = (root / path).is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
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
        f"{did_you_mean(split.lower(), SPLIT_ALIASES) or '; correct it'}"
        for split, number in unknown.items()
    ]
    if problems:
        raise DataError(*problems)


def _rows(file: Path) -> Iterator[Row]:
    """Yield the rows that are not empty, cells without the blanks around them."""
    try:
        lines = _parquet_lines(file) if file.suffix.lower() == ".parquet" else _text_lines(file)
        header = [cell.strip().lower() for cell in next(lines, [])]
        _check_header(file, header)
        for number, line in enumerate(lines, start=2):
            cells = [cell.strip() for cell in line]
            if any(cells):
                _check_width(file, number, cells, header)
                named = dict(zip(header, cells, strict=False))
                yield Row(number, *(named.get(column, "") for column in COLUMNS))
    except UnicodeDecodeError as error:
        raise DataError(f"a manifest must be text in UTF-8, got other bytes in {file}; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"a manifest must be a table that can be read, got {file}: {error}; mend it") from error


def _check_header(file: Path, header: Sequence[str]) -> None:
    missing = [column for column in ("path", "label") if column not in header]
    doubled = sorted({column for column in COLUMNS if header.count(column) > 1})
    if missing:
        raise DataError(
            f"a manifest must have the columns path and label (and may have split and group), "
            f"got {', '.join(header) or 'none'} in {file}; name its columns so in the first row"
        )
    if doubled:
        raise DataError(f"a manifest's columns must differ, got {', '.join(doubled)} twice in {file}; rename one")


def _check_width(file: Path, number: int, cells: Sequence[str], header: Sequence[str]) -> None:
    if len(cells) > len(header):
        raise DataError(
            f"a manifest's rows must have no more than its {len(header)} columns, got {len(cells)} in row {number} "
            f'of {file}; put quotes (") around what holds a comma'
        )


def _text_lines(file: Path) -> Iterator[list[str]]:
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
        raise DataError(f"a manifest must be a table that can be read, got {file}: {error}; write it anew") from error
    yield [str(column) for column in table.columns]
    for line in table.itertuples(index=False, name=None):
        yield ["" if pd.isna(cell) else str(cell) for cell in line]
