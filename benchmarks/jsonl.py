"""Rows of results in a JSON Lines file, so that a benchmark can be continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Return the rows of a file; none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []


def append_row(path: Path | None, row: dict[str, Any]) -> None:
    """Append a row to a file, if one is given."""
    if path:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
