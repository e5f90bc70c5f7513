"""Parquet files with the bytes of images, as on the Hugging Face hub: they are extracted once into the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.cache.content_cache import ContentCache
from data.errors import DataError, first_line

TABLE = "table.parquet"
BATCH_ROWS = 256
VERSION = 1


def extract_parquet_images(file: Path) -> Path | None:
    """Return a manifest of the extracted images in the cache; None if the file has no column of image bytes.

    The names of a label column of the type ``ClassLabel`` replace its numbers.

    Raises:
        DataError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"a manifest must be a readable table, got {file}: {first_line(error)}; create it again"
        ) from error
    columns = [field.name for field in schema if _holds_bytes(field.type)]
    if not columns:
        return None
    stat = file.stat()
    key = f"{VERSION} {file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    names = _class_names(schema.metadata or {})
    return (
        ContentCache().get_or_create(f"parquet/{digest}", lambda folder: _extract(file, folder, columns[0], names))
        / TABLE
    )


def _holds_bytes(kind: Any) -> bool:  # noqa: ANN401  pyarrow has no type hints
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(number).name == "bytes" for number in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes by column, from the metadata that the package datasets writes."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _extract(file: Path, folder: Path, column: str, names: Mapping[str, Sequence[str]]) -> None:
    import pandas as pd
    import pyarrow.parquet as pq

    tables: list[pd.DataFrame] = []
    start = 0
    for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
        values = batch.column(batch.schema.get_field_index(column)).to_pylist()
        table = batch.drop_columns([column]).to_pandas()
        paths = [_write(folder, start + number, value) for number, value in enumerate(values)]
        table.insert(0, "path", paths, allow_duplicates=True)
        tables.append(table)
        start += len(values)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"path": []})
    for label, classes in names.items():
        if label in table.columns:
            table[label] = [_class_name(value, classes) for value in table[label]]
    table.to_parquet(folder / TABLE)


def _write(folder: Path, number: int, value: Any) -> str:  # noqa: ANN401
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        return ""
    path = f"{number // 1000:04}/{number:07}"
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(content)
    return path


def _class_name(value: Any, classes: Sequence[str]) -> str | None:  # noqa: ANN401
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):  # missing
        return None
    return classes[number] if 0 <= number < len(classes) else None
