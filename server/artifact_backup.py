"""The bucket of MLflow's artifacts: made, saved into a folder, loaded from one. Runs alone, with boto3 only.

``python artifact_backup.py make`` | ``save FOLDER`` | ``load FOLDER``; the endpoint and the keys are those of the environment,
as MLflow reads them. ``save`` fetches what is new or changed in size; ``load`` puts back what is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUCKET = "mlflow"


def client() -> Any:  # noqa: ANN401  # boto3's clients are made at run time
    """Return a client of the endpoint that the environment names."""
    import boto3  # type: ignore[import-untyped]

    return boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])


def make(s3: Any) -> None:  # noqa: ANN401
    """Make the bucket if it is not there."""
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)


def objects(s3: Any) -> Iterator[tuple[str, int]]:  # noqa: ANN401
    """Yield each object's key and its size in bytes."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", ()):
            yield item["Key"], item["Size"]


def save(s3: Any, folder: Path) -> int:  # noqa: ANN401
    """Bring the bucket's objects into the folder; return how many came."""
    count = 0
    for key, size in objects(s3):
        path = folder / key
        if not path.exists() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, key, str(path))
            count += 1
    return count


def load(s3: Any, folder: Path) -> int:  # noqa: ANN401
    """Put the folder's files into the bucket where they are missing there; return how many were."""
    make(s3)
    there = dict(objects(s3))
    count = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = path.relative_to(folder).as_posix()
        if there.get(key) != path.stat().st_size:
            s3.upload_file(str(path), BUCKET, key)
            count += 1
    return count


def main(command: str, folder: str = "") -> None:
    """Do one command."""
    s3 = client()
    if command == "make":
        make(s3)
    elif command in {"save", "load"} and folder:
        done = (save if command == "save" else load)(s3, Path(folder))
        print(f"{command}: {done} objects")
    else:
        raise SystemExit(f"the command must be make, save FOLDER or load FOLDER, got {command!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
