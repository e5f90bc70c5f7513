"""Split assignments on disk, so that existing images keep their split when new images are added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from data.atomic_write import write_atomically
from data.errors import DataError
from data.home import state_dir
from data.sources.base import SplitName


@contextmanager
def persisted_splits(uri: str) -> Iterator[dict[str, SplitName]]:
    """Context manager: give the splits of the data set ``uri`` by content hash, and save them if no exception occurs.

    The file is locked inside the context. Images that were removed from the data set keep their entry, because they
    may be added again.

    Raises:
        DataError: the file is corrupt. It is not replaced, because new assignments would move existing images.
    """
    path = state_dir() / "splits" / f"{hashlib.blake2b(uri.encode(), digest_size=16).hexdigest()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        before: dict[str, SplitName] = {}
        try:
            before = json.loads(path.read_bytes())["splits"]
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"a split file must be JSON written by Freezeline, got other content in {path}; "
                "restore a backup, or delete the file to assign new splits"
            ) from error
        splits = dict(before)
        yield splits
        if splits != before:
            write_atomically(path, json.dumps({"data": uri, "splits": splits}, indent=0, sort_keys=True).encode())
