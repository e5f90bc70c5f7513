"""Data source ``s3://bucket/prefix``: a local mirror that downloads each object once, by its ETag.

Endpoint and credentials come from the standard AWS variables and files (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).
An interrupted download is resumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlparse

from filelock import FileLock

from data.atomic_write import write_atomically
from data.errors import DataError
from data.home import state_dir
from data.parallel import ProgressCallback, parallel_map
from data.sources.archive import ENDINGS as ARCHIVES
from data.sources.archive import open_archive, open_tree
from data.sources.base import DataSource, valid_name
from data.sources.manifest import ENDINGS as MANIFESTS
from data.sources.manifest import open_manifest

CHUNK = 2**20  # bytes
ATTEMPTS = 4
MAX_WORKERS = 16  # parallel downloads; they mostly wait for the network
SAVE_INTERVAL = 100  # the index is saved after this number of files, so that a killed process loses few downloads


class S3Object(NamedTuple):
    """An object in a bucket: key, ETag of its content, size in bytes."""

    key: str
    etag: str
    size: int


def open_s3(url: str, progress: ProgressCallback | None = None, min_classes: int = 2) -> DataSource:
    """Open a folder ``s3://bucket/prefix``, an archive, or a manifest with the files in its folder.

    Raises:
        DataError: the bucket cannot be accessed, or has no data set below the prefix.
    """
    bucket, prefix = _parsed(url)
    name = valid_name(PurePosixPath(prefix or bucket).name)
    try:
        if prefix.lower().endswith(ARCHIVES):
            archive = _mirror(url, bucket, str(PurePosixPath(prefix).parent), prefix, progress)
            return open_archive(archive / PurePosixPath(prefix).name, url, progress, min_classes)
        if prefix.lower().endswith(MANIFESTS):
            file = PurePosixPath(prefix)
            root = _mirror(url, bucket, str(file.parent), None, progress)
            return open_manifest(root / file.name, uri=url, confine_to=root, min_classes=min_classes)
        return open_tree(_mirror(url, bucket, prefix, None, progress), name, url, min_classes)
    except _client_errors() as error:
        raise DataError(_error_message(url, error)) from error


def _parsed(url: str) -> tuple[str, str]:
    parts = urlparse(url, allow_fragments=False)
    prefix = parts.path.strip("/") + (f"?{parts.query}" if parts.query else "")
    if not parts.netloc or "@" in parts.netloc:
        redacted = url.rsplit("@", maxsplit=1)[-1]  # the part before @ may be a secret
        raise DataError(f"data on S3 must be s3://bucket/prefix, got {redacted!r}; pass the name of the bucket")
    return parts.netloc, prefix


def _mirror(url: str, bucket: str, folder: str, key: str | None, progress: ProgressCallback | None) -> Path:
    """Download all objects below ``folder`` (or only ``key``) and return the local folder."""
    client = _client()
    prefix = "" if folder in (".", "") else f"{folder}/"
    objects = _list_objects(client, bucket, prefix, key)
    if not objects:
        raise DataError(f"data on S3 must contain files, got none below {url}; check the bucket and the prefix")
    root = state_dir() / "s3" / hashlib.blake2b(f"{bucket}/{prefix}".encode(), digest_size=16).hexdigest()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        mirror = _Mirror(root, prefix)
        if key is None:
            mirror.delete_others(objects)
        missing = [obj for obj in objects if not mirror.has(obj)]
        try:
            downloads = parallel_map(
                lambda obj: mirror.download(client, bucket, obj), missing, "downloading files", progress, MAX_WORKERS
            )
            for completed, _ in enumerate(downloads, start=1):
                if completed % SAVE_INTERVAL == 0:
                    mirror.save_index()
        finally:
            mirror.save_index()
    return root


def _list_objects(client: Any, bucket: str, prefix: str, key: str | None) -> list[S3Object]:  # noqa: ANN401
    if key is not None:
        head = client.head_object(Bucket=bucket, Key=key)
        return [S3Object(key, head["ETag"], head["ContentLength"])]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    objects = [S3Object(item["Key"], item["ETag"], item["Size"]) for page in pages for item in page.get("Contents", [])]
    return [obj for obj in objects if not obj.key.endswith("/")]


class _Mirror:
    """A local folder of downloaded objects, with an index of their ETags."""

    def __init__(self, root: Path, prefix: str) -> None:
        self.root = root
        self.prefix = prefix
        self._index = root / ".etags.json"
        try:
            self._etags: dict[str, str] = json.loads(self._index.read_bytes())
        except (OSError, ValueError):  # missing or corrupt: download again
            self._etags = {}

    def local_path(self, obj: S3Object) -> Path:
        """Return the local path of an object; raise DataError if its key leads outside the mirror."""
        path = PurePosixPath(obj.key.removeprefix(self.prefix))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"S3 keys must not lead outside their prefix, got {obj.key!r}; rename or delete the object")
        return self.root.joinpath(*path.parts)

    def has(self, obj: S3Object) -> bool:
        """Return whether the current content of an object is completely downloaded."""
        path = self.local_path(obj)
        return self._etags.get(obj.key) == obj.etag and path.is_file() and path.stat().st_size == obj.size

    def download(self, client: Any, bucket: str, obj: S3Object) -> None:  # noqa: ANN401
        """Download an object; resume an interrupted download of the same content."""
        path = self.local_path(obj)
        path.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(f"{obj.key} {obj.etag}".encode(), digest_size=12).hexdigest()
        part = path.parent / f".{name}.part"
        offset = part.stat().st_size if part.exists() else 0
        if offset < obj.size:
            self._append(client, bucket, obj, part, offset)
        elif not part.exists():
            part.touch()
        if part.stat().st_size != obj.size:
            part.unlink()
            raise DataError(
                f"s3://{bucket}/{obj.key} must have {obj.size:,} bytes, got another size; run the command again"
            )
        part.replace(path)
        self._etags[obj.key] = obj.etag

    @staticmethod
    def _append(client: Any, bucket: str, obj: S3Object, part: Path, offset: int) -> None:  # noqa: ANN401
        range_kwargs = {"Range": f"bytes={offset}-"} if offset else {}
        response = client.get_object(Bucket=bucket, Key=obj.key, IfMatch=obj.etag, **range_kwargs)
        with part.open("ab") as file:
            for chunk in response["Body"].iter_chunks(CHUNK):
                file.write(chunk)

    def save_index(self) -> None:
        """Save the ETags of the downloaded objects."""
        write_atomically(self._index, json.dumps(dict(self._etags)).encode())

    def delete_others(self, objects: Sequence[S3Object]) -> None:
        """Delete the local copies of objects that are no longer in the bucket."""
        current_keys = {obj.key for obj in objects}
        for key in [key for key in self._etags if key not in current_keys]:
            self.local_path(S3Object(key, "", 0)).unlink(missing_ok=True)
            del self._etags[key]


def _client() -> Any:  # noqa: ANN401  boto3 creates the types of its clients at run time
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    settings = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=MAX_WORKERS,
    )
    session = boto3.Session()
    return session.client("s3", config=settings, region_name=session.region_name or "us-east-1")


def _client_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError  # type: ignore[import-untyped]

    return BotoCoreError, ClientError, HTTPClientError


def _error_message(url: str, error: Exception) -> str:
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__))
    next_steps = {
        "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "EndpointConnectionError": "check AWS_ENDPOINT_URL and the network",
        "ConnectTimeoutError": "check AWS_ENDPOINT_URL and the network",
        "NoSuchBucket": "check the name of the bucket",
        "NoSuchKey": "check the key",
        "404": "check the name of the bucket and the key",
        "PreconditionFailed": "the object changed during the download; run the command again",
    }
    step = next_steps.get(code, "check the name of the bucket and your permissions to list and read it")
    return f"data on S3 must be readable, got {code} for {url}; {step}"
