"""The columns of a manifest: which one has the paths, the labels, the splits and the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError, did_you_mean

PATH_NAMES = (
    *("path", "file_path", "filepath", "image_path", "file_name", "filename", "file", "image", "img"),
    *("image_name", "imagename", "image_file", "images", "image_id", "id"),
)
GROUP_NAMES = ("group", "patient", "patient_id", "patientid", "subject_id")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic")
LABEL_NAMES = ("label", "class", "class_name", "target", "category")
TRUE, FALSE = frozenset(("1", "1.0", "true")), frozenset(("0", "0.0", "false", ""))


class Columns(NamedTuple):
    """Positions of the columns; ``one_hot`` has the class of each column of zeros and ones instead of ``label``.

    ``group_name`` is the header of the column of groups; empty without one.
    """

    path: int
    label: int | None
    split: int | None
    group: int | None
    one_hot: Mapping[int, str]
    group_name: str = ""

    def label_of(self, cells: Sequence[str]) -> str:
        """Return the label of a row; empty if it has none, or several classes are marked."""
        if self.label is not None:
            return cell(cells, self.label)
        marked = [name for number, name in self.one_hot.items() if cell(cells, number).lower() in TRUE]
        return marked[0] if len(marked) == 1 else ""


def cell(cells: Sequence[str], number: int | None) -> str:
    """Return a cell; empty if the column or the cell is missing."""
    return "" if number is None or number >= len(cells) else cells[number]


def find_columns(file: Path, header: Sequence[str], rows: Sequence[Sequence[str]], label_column: str = "") -> Columns:
    """Return the columns of a manifest by the usual names, in the order of ``PATH_NAMES`` and ``LABEL_NAMES``.

    Without a usual name, the column of paths is the one whose values end like images. Without a column of labels,
    columns of zeros and ones are classes if each row marks at most one.

    Raises:
        DataError: there is no such column, or its name occurs twice.
    """
    names = [name.lower() for name in header]
    path = next((name for name in PATH_NAMES if name in names), None) or _name_by_content(names, rows)
    group = next((name for name in GROUP_NAMES if name in names), "group")
    label = _label_name(file, header, names, label_column)
    if path is None:
        listed = ", ".join(header) or "none"
        raise DataError(
            "a manifest must have the columns path and label (optional: split, group), "
            f"got {listed} in {file}; rename the column of image files to path"
        )
    used = [name for name in (path, label, "split", group) if name]
    duplicates = sorted({name for name in used if names.count(name) > 1})
    if duplicates:
        raise DataError(
            f"column names of a manifest must be unique, got {', '.join(duplicates)} twice in {file}; rename one"
        )
    positions = {name: names.index(name) for name in used if name in names}
    rest = [number for number, name in enumerate(names) if name and number not in positions.values()]
    one_hot = {} if label else _one_hot(header, rows, rest)
    if not label and not one_hot:
        raise DataError(_no_label(file, header, rows, rest))
    label_position, group_position = positions[label] if label else None, positions.get(group)
    group_name = "" if group_position is None else header[group_position]
    return Columns(positions[path], label_position, positions.get("split"), group_position, one_hot, group_name)


def is_image_name(text: str) -> bool:
    """Return whether a text ends like the name of an image."""
    return text.lower().endswith(IMAGE_ENDINGS)


def _name_by_content(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    for number, name in enumerate(names):
        cells = [text for row in rows if (text := cell(row, number))]
        if name and cells and all(map(is_image_name, cells)):
            return name
    return None


def has_exact_names(header: Sequence[str]) -> bool:
    """Return whether a header has the columns path and label."""
    return {"path", "label"} <= {name.lower() for name in header}


def _label_name(file: Path, header: Sequence[str], names: Sequence[str], label_column: str) -> str | None:
    if not label_column:
        return next((name for name in LABEL_NAMES if name in names), None)
    if label_column.strip().lower() in names:
        return label_column.strip().lower()
    raise DataError(
        f"label_column must be a column of the manifest ({', '.join(header)}), got {label_column} for {file}"
        f"{did_you_mean(label_column.lower(), names) or '; pass one of them'}"
    )


def _one_hot(header: Sequence[str], rows: Sequence[Sequence[str]], rest: Sequence[int]) -> dict[int, str]:
    counts = _marked_counts(rows, rest)
    return {number: header[number] for number in rest} if counts and max(counts) == 1 else {}


def _marked_counts(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> list[int]:
    """Return the number of marks of each row in several columns of zeros and ones; empty if they are others."""
    marks = [[cell(cells, number).lower() for number in columns] for cells in rows]
    is_binary = len(columns) > 1 and all(mark in TRUE or mark in FALSE for line in marks for mark in line)
    return [sum(mark in TRUE for mark in line) for line in marks] if is_binary else []


def _no_label(file: Path, header: Sequence[str], rows: Sequence[Sequence[str]], rest: Sequence[int]) -> str:
    counts = _marked_counts(rows, rest)
    if counts and max(counts) > 1:
        number = next(number for number, count in enumerate(counts) if count > 1)
        return (
            f"an image must have one label, got several in {file}, such as in row {number + 2}; several labels per "
            "image are not supported: keep one class each"
        )
    others = [header[number] for number in rest]
    step = f"pass label_column={others[0]}" if len(others) == 1 else "name the column with label_column=NAME"
    return (
        "a manifest must have the columns path and label (optional: split, group), "
        f"got {', '.join(header)} in {file}; {step if others else 'add the column label'}"
    )
