"""``s3://bucket/prefix``: fetched once by ETag, and then a folder like any other.

Bucket, endpoint and credentials come from the usual AWS variables and files (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, ...). What has been fetched stays; an interrupted download goes on where it stopped.
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
from data.parallel import Progress, parallel_map
from data.sources.archive import ENDINGS as ARCHIVES
from data.sources.archive import open_archive, open_tree
from data.sources.base import DataSource, valid_name
from data.sources.manifest import ENDINGS as MANIFESTS
from data.sources.manifest import open_manifest

CHUNK = 2**20  # bytes
ATTEMPTS = 4
WORKERS = 16  # downloads at once: most of the time is spent waiting
INDEX_FILE = 100  # files after which a killed download must not begin again


class S3Object(NamedTuple):
    """An object in a bucket: its key, the ETag of its content, its size in bytes."""

    key: str
    etag: str
    size: int


def open_s3(url: str, progress: Progress | None = None) -> DataSource:
    """Return the labelled files at ``s3://bucket/prefix``, an archive, or a manifest with the files beside it.

    Raises:
        DataError: the bucket can't be reached or listed, holds nothing there, or no data set.
    """
    bucket, prefix = _parsed(url)
    name = valid_name(PurePosixPath(prefix or bucket).name)
    try:
        if prefix.lower().endswith(ARCHIVES):
            archive = _mirror(url, bucket, str(PurePosixPath(prefix).parent), [prefix], progress)
            return open_archive(archive / PurePosixPath(prefix).name, uri=url, progress=progress)
        if prefix.lower().endswith(MANIFESTS):
            file = PurePosixPath(prefix)
            root = _mirror(url, bucket, str(file.parent), None, progress)
            return open_manifest(root / file.name, uri=url, confine_to=root)
        return open_tree(_mirror(url, bucket, prefix, None, progress), name, url)
    except _client_errors() as error:
        raise DataError(_error_message(url, error)) from error


def _parsed(url: str) -> tuple[str, str]:
    parts = urlparse(url, allow_fragments=False)
    prefix = parts.path.strip("/") + (f"?{parts.query}" if parts.query else "")
    if not parts.netloc or "@" in parts.netloc:
        shown = url.rsplit("@", maxsplit=1)[-1]  # what stands before it may be a secret
        raise DataError(f"data on S3 must be s3://bucket/prefix, got {shown!r}; name the bucket")
    return parts.netloc, prefix


def _mirror(url: str, bucket: str, folder: str, keys: Sequence[str] | None, progress: Progress | None) -> Path:
    """Bring what lies below ``folder`` (or only ``keys``) onto this machine, and return where it is."""
    client = _client()
    above = "" if folder in (".", "") else f"{folder}/"
    things = _listed(client, bucket, above, keys)
    if not things:
        raise DataError(f"data on S3 must hold files, got none below {url}; check the bucket's name and the prefix")
    root = state_dir() / "s3" / hashlib.blake2b(f"{bucket}/{above}".encode(), digest_size=16).hexdigest()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        mirror = _Mirror(root, above)
        wanted = [thing for thing in things if not mirror.has(thing)]
        try:
            fetched = parallel_map(
                lambda thing: mirror.fetch(client, bucket, thing), wanted, "fetching files", progress, WORKERS
            )
            for done, _ in enumerate(fetched):
                if done % INDEX_FILE == 0:
                    mirror.save_index()
        finally:
            mirror.save_index()
        if keys is None:
            mirror.delete_others(things)
    return root


def _listed(client: Any, bucket: str, above: str, keys: Sequence[str] | None) -> list[S3Object]:  # noqa: ANN401
    if keys is not None:
        heads = [(key, client.head_object(Bucket=bucket, Key=key)) for key in keys]
        return [S3Object(key, head["ETag"], head["ContentLength"]) for key, head in heads]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=above)
    found = [S3Object(item["Key"], item["ETag"], item["Size"]) for page in pages for item in page.get("Contents", [])]
    return [thing for thing in found if not thing.key.endswith("/")]


class _Mirror:
    """A folder of fetched objects, and which content each of them is of."""

    def __init__(self, root: Path, above: str) -> None:
        self.root = root
        self.above = above
        self._index = root / ".etags.json"
        try:
            self._etags: dict[str, str] = json.loads(self._index.read_bytes())
        except (OSError, ValueError):  # none yet, or not ours: fetch again
            self._etags = {}

    def place(self, thing: S3Object) -> Path:
        """Return where an object belongs; raise DataError where its key would lead outside."""
        path = PurePosixPath(thing.key.removeprefix(self.above))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"keys on S3 must lie below their prefix, got {thing.key!r}; rename or remove it")
        return self.root.joinpath(*path.parts)

    def has(self, thing: S3Object) -> bool:
        """Return whether the very content is here, whole."""
        place = self.place(thing)
        return self._etags.get(thing.key) == thing.etag and place.is_file() and place.stat().st_size == thing.size

    def fetch(self, client: Any, bucket: str, thing: S3Object) -> None:  # noqa: ANN401
        """Bring one object here, going on with what an earlier call has left of the same content."""
        place = self.place(thing)
        place.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(f"{thing.key} {thing.etag}".encode(), digest_size=12).hexdigest()
        part = place.parent / f".{name}.part"
        there = part.stat().st_size if part.exists() else 0
        if there < thing.size:
            self._append(client, bucket, thing, part, there)
        elif not part.exists():
            part.touch()
        if part.stat().st_size != thing.size:
            part.unlink()
            raise DataError(f"s3://{bucket}/{thing.key} must have {thing.size:,} bytes, got others; start again")
        part.replace(place)
        self._etags[thing.key] = thing.etag

    @staticmethod
    def _append(client: Any, bucket: str, thing: S3Object, part: Path, there: int) -> None:  # noqa: ANN401
        ranged = {"Range": f"bytes={there}-"} if there else {}
        answer = client.get_object(Bucket=bucket, Key=thing.key, IfMatch=thing.etag, **ranged)
        with part.open("ab") as file:
            for chunk in answer["Body"].iter_chunks(CHUNK):
                file.write(chunk)

    def save_index(self) -> None:
        """Write down what is here."""
        write_atomically(self._index, json.dumps(dict(self._etags)).encode())

    def delete_others(self, things: Sequence[S3Object]) -> None:
        """Delete the copies of objects that are no longer in the bucket."""
        listed = {thing.key for thing in things}
        for key in [key for key in self._etags if key not in listed]:
            self.place(S3Object(key, "", 0)).unlink(missing_ok=True)
            del self._etags[key]
        self.save_index()


def _client() -> Any:  # noqa: ANN401  boto3 makes its clients' types at run time
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    settings = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=WORKERS,
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
        "NoSuchBucket": "check the bucket's name",
        "NoSuchKey": "check the key",
        "404": "check the bucket's name and the key",
        "PreconditionFailed": "it changed meanwhile: start again",
    }
    step = next_steps.get(code, "check the bucket's name and your rights to list and read it")
    return f"data on S3 must be readable, got {code} for {url}; {step}"
