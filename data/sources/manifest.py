"""Data source: a manifest, a table with the path and label of each image, and optionally its split and group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError, did_you_mean
from data.sources.base import (
    SPLIT_ALIASES,
    DataSource,
    ImageFile,
    SkippedFile,
    SplitName,
    is_utf8,
    to_utf8,
    valid_name,
)
from data.sources.columns import Columns, cell, find_columns, has_exact_names, is_image_name
from data.sources.image_paths import resolve_paths
from data.sources.layout import split_of, splits_of
from data.sources.options import DataOptions
from data.sources.parquet_images import extract_parquet_images
from data.sources.tables import ENDINGS, read_lines
from data.text import pluralize

NUM_PROBED_ROWS = 20


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
    options: DataOptions | None = None,
) -> DataSource:
    """Open a manifest (CSV, Parquet or JSON Lines, see ``read_lines``); its URI is by default its path.

    The columns have the usual names (see ``find_columns``): the path of an image, its label, and optionally its split
    (train, val, test) and group (an identifier of images that must be in the same split, such as a person or a video).
    Paths are relative to the manifest, or to ``options.images``. Files outside of ``confine_to`` are skipped.

    Raises:
        DataError: the manifest is unreadable, lacks a column, has an unknown split, too few classes, or no path
            that exists.
    """
    table_name = file.name
    images_in_file = extract_parquet_images(file) if file.suffix.lower() == ".parquet" else None
    if images_in_file:
        name, uri, file = name or valid_name(file.stem), uri or str(file), images_in_file
        confine_to = file.parent
    options = options or DataOptions()
    rows, columns = _rows(file, options)
    _check_splits(file, rows)
    rows_by_path, skipped, note = _by_path(file, rows, options.images)
    images: list[ImageFile] = []
    splits = splits_of({row.split for row in rows if row.split})
    for path, path_rows in rows_by_path.items():
        problem = _problem(file.parent, path, path_rows, confine_to)
        if problem:
            skipped.append(problem)
        else:
            images.append(_image_file(path, path_rows[0], splits))
    classes = tuple(sorted({row.label for row in rows if row.label}))
    if len(classes) < options.min_classes:
        rule = f"data must have at least {pluralize(options.min_classes, 'class')}"
        raise DataError(f"{rule}, got {len(classes)} in {file}; check its column label")
    return DataSource(
        name=name or valid_name(file.stem),
        uri=uri or str(file),
        root=file.parent,
        classes=classes,
        images=tuple(sorted(images, key=lambda image: image.path)),
        skipped=tuple(skipped),
        layout=(f"table: {table_name}", *([note] if note else []), *_group_line(rows, columns)),
    )


def is_manifest(file: Path, label_column: str = "", *, exact_names: bool = False) -> bool:
    """Return whether a file is a table with a column of paths and labels; ``exact_names``: named path and label."""
    return is_table(file) and not table_problem(file, label_column, exact_names=exact_names)


def is_table(file: Path) -> bool:
    """Return whether a file is a table that is looked at without being named; text files are too often others."""
    return file.suffix.lower() in ENDINGS and file.suffix.lower() != ".txt" and file.is_file()


def table_problem(file: Path, label_column: str = "", *, exact_names: bool = False) -> str:
    """Return why a table cannot be a manifest; empty if it can, judged by its first rows."""
    try:
        lines = list(islice(read_lines(file), NUM_PROBED_ROWS + 1))
        header, rows, _ = _with_header(file, lines)
        if exact_names and not has_exact_names(header):
            return "its columns are not called path and label"
        find_columns(file, header, rows, label_column)
    except DataError as error:
        return error.problems[0]
    return "" if any(map(any, rows)) else f"a manifest must have rows, got none in {file}; add them"


def _by_path(file: Path, rows: Sequence[Row], images: str) -> tuple[dict[str, list[Row]], list[SkippedFile], str]:
    """Return the usable rows by their file, the others, and how the files were found."""
    complete = [row for row in rows if row.path and row.label]
    paths, note = resolve_paths(file.parent, sorted({row.path for row in complete}), images, split_of(file.stem))
    rows_by_path: defaultdict[str, list[Row]] = defaultdict(list)
    for row in complete:
        rows_by_path[paths[row.path]].append(row)
    skipped = [
        SkippedFile(
            path=row.path or f"row {row.number}",
            reason=f"has no {'label' if row.path else 'path'} in row {row.number}",
        )
        for row in rows
        if not (row.path and row.label)
    ]
    return rows_by_path, skipped, note


def _group_line(rows: Sequence[Row], columns: Columns) -> tuple[str, ...]:
    groups = {row.group for row in rows if row.group}
    text = f"groups: {pluralize(len(groups), 'group')} of column {columns.group_name}, each kept in one split"
    return (text,) if groups else ()


def _image_file(path: str, row: Row, splits: Mapping[str, SplitName]) -> ImageFile:
    return ImageFile(path=path, label=row.label, split=splits.get(row.split), group=row.group or None)


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
        if row.split and not split_of(row.split):
            unknown.setdefault(row.split, row.number)
    problems = [
        f"split must be train, val, test or empty, got {split!r} in row {number} of {file}"
        f"{did_you_mean(split.lower(), SPLIT_ALIASES) or '; use one of these'}"
        for split, number in unknown.items()
    ]
    if problems:
        raise DataError(*problems)


def _rows(file: Path, options: DataOptions) -> tuple[list[Row], Columns]:
    """Return the non-empty rows, and the columns."""
    header, lines, first = _with_header(file, list(read_lines(file)))
    columns = find_columns(file, header, lines, options.label_column)
    rows = []
    for number, cells in enumerate(lines, start=first):
        if any(cells):
            _check_width(file, number, cells, header)
            split, group = cell(cells, columns.split), cell(cells, columns.group)
            rows.append(Row(number, cell(cells, columns.path), columns.label_of(cells), split, group))
    return rows, columns


def _with_header(file: Path, lines: list[list[str]]) -> tuple[list[str], list[list[str]], int]:
    """Return the header, the other lines and the number of the first of them; a table may have no header."""
    header = lines[0] if lines else []
    if len(header) > 1 and _is_path(file, header[0]):
        return ["path", "label", *(f"column {number}" for number in range(3, len(header) + 1))], lines, 1
    return header, lines[1:], 2


def _is_path(file: Path, text: str) -> bool:
    try:
        return is_image_name(text) or (file.parent / text).is_file()
    except (OSError, ValueError):  # too long, or with a null byte
        return False


def _check_width(file: Path, number: int, cells: Sequence[str], header: Sequence[str]) -> None:
    if len(cells) > len(header):
        raise DataError(
            f"rows of a manifest must not have more cells than its header ({len(header)}), got {len(cells)} in "
            f'row {number} of {file}; put quotes (") around cells that contain a comma'
        )
