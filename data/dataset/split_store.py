"""Where each picture of a data set was put by earlier calls, so that no old picture moves when new ones come."""

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
    """Give the splits by digest of the data set at ``address``; what is added is kept when the block ends well.

    Nobody else reads or writes them meanwhile. Pictures that are gone stay remembered: they may come back.

    Raises:
        DataError: the file can't be understood; to split anew would move old pictures.
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
                f"a split file must be the JSON that Freezeline wrote, got something else in {path}; "
                "put back an older copy, or delete it to have the pictures split anew"
            ) from error
        splits = dict(before)
        yield splits
        if splits != before:
            write_atomically(path, json.dumps({"data": uri, "splits": splits}, indent=0, sort_keys=True).encode())
