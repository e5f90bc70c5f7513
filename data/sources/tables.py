"""Reading a table as text: CSV, Parquet and JSON Lines. Values are text as written; whole floats are whole numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import DataError, one_line

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".jsonl")


def read_lines(file: Path) -> Iterator[list[str]]:
    """Yield the header and the rows of a table, with whitespace around cells removed and missing cells empty.

    Raises:
        DataError: the file is no readable table.
    """
    readers = {".parquet": _parquet_lines, ".jsonl": _json_lines}
    try:
        for line in readers.get(file.suffix.lower(), _csv_lines)(file):
            yield [cell.strip() for cell in line]
    except UnicodeDecodeError as error:
        raise DataError(f"a manifest must be UTF-8 text, got another encoding in {file}; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"a manifest must be a readable table, got {file}: {one_line(error)}; fix it") from error


def _csv_lines(file: Path) -> Iterator[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        delimiter = max(",;\t", key=first.count)
        stream.seek(0)
        if delimiter in first:
            yield from csv.reader(stream, delimiter=delimiter, strict=True)
        else:  # one column, or columns separated by spaces: the names of images have none
            yield from (line.split() if " " in first else [line] for line in stream)


def _parquet_lines(file: Path) -> Iterator[list[str]]:
    import pandas as pd

    try:
        table = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise DataError(
            f"a manifest must be a readable table, got {file}: {one_line(error)}; create it again"
        ) from error
    yield [str(column) for column in table.columns]
    columns = [_texts(table.iloc[:, number]) for number in range(table.shape[1])]
    yield from (list(line) for line in zip(*columns, strict=True))


def _texts(column: pd.Series[Any]) -> list[str]:
    cells = ["" if missing else cell for cell, missing in zip(column, column.isna(), strict=True)]
    numbers = [cell for cell in cells if isinstance(cell, float)]
    are_whole = bool(numbers) and all(number.is_integer() for number in numbers)
    return [str(int(cell)) if are_whole and isinstance(cell, float) else str(cell) for cell in cells]


def _json_lines(file: Path) -> Iterator[list[str]]:
    header: list[str] = []
    with file.open(encoding="utf-8-sig") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            row = _json_object(file, number, text)
            if not header:
                header = list(row)
                yield header
            yield ["" if row.get(column) is None else str(row[column]) for column in header]


def _json_object(file: Path, number: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"each line of a .jsonl manifest must be JSON, got {one_line(error)} in line {number} of {file}"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"each line of a .jsonl manifest must be an object, got line {number} of {file}; fix it")
    return row
