"""Create, save and restore the bucket of MLflow's artifacts. A standalone script that needs only boto3.

``python artifact_backup.py make`` | ``save FOLDER`` | ``load FOLDER``; the endpoint and the keys come from the
environment, as in MLflow. ``save`` downloads new objects and those with another size; ``load`` uploads
them likewise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUCKET = "mlflow"


def client() -> Any:  # noqa: ANN401  # boto3 creates its client classes at run time
    """Return a client of the configured S3 endpoint."""
    import boto3  # type: ignore[import-untyped]

    return boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])


def create_bucket(s3: Any) -> None:  # noqa: ANN401
    """Create the bucket if it does not exist."""
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)


def objects(s3: Any) -> Iterator[tuple[str, int]]:  # noqa: ANN401
    """Yield the key and the size in bytes of each object."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", ()):
            yield item["Key"], item["Size"]


def save(s3: Any, folder: Path) -> int:  # noqa: ANN401
    """Download new and changed objects to the folder; return their number."""
    count = 0
    for key, size in objects(s3):
        path = folder / key
        if not path.exists() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, key, str(path))
            count += 1
    return count


def load(s3: Any, folder: Path) -> int:  # noqa: ANN401
    """Upload the files that the bucket lacks or has with another size; return their number."""
    create_bucket(s3)
    sizes = dict(objects(s3))
    count = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = path.relative_to(folder).as_posix()
        if sizes.get(key) != path.stat().st_size:
            s3.upload_file(str(path), BUCKET, key)
            count += 1
    return count


def main(command: str, folder: str = "") -> None:
    """Run one command."""
    s3 = client()
    if command == "make":
        create_bucket(s3)
    elif command in {"save", "load"} and folder:
        count = (save if command == "save" else load)(s3, Path(folder))
        print(f"{command}: {count} objects")
    else:
        raise SystemExit(f"the command must be make, save FOLDER or load FOLDER, got {command!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
