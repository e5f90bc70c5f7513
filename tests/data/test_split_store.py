"""TODO"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.dataset.dataset import Dataset
from data.dataset.split_store import persisted_splits
from data.errors import DataError
from data.load_dataset import load_dataset
from tests.conftest import MakeFolder


def splits(dataset: Dataset) -> dict[str, str]:
    return {sample.content_hash: sample.split for sample in dataset.samples}


def test_old_pictures_stay_where_they_are_when_a_folder_grows(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 10, "dog": 10})
    before = splits(load_dataset(str(root)))
    make_folder({"cat": 40, "dog": 3}, first=10)
    after = splits(load_dataset(str(root)))
    assert len(after) == 63
    assert {digest: after[digest] for digest in before} == before


def test_a_picture_that_comes_back_is_where_it_was(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 10, "dog": 10})
    before = splits(load_dataset(str(root)))
    aside = root / "cat" / "000.png"
    content = aside.read_bytes()
    aside.unlink()
    load_dataset(str(root))
    (root / "cat" / "back.png").write_bytes(content)
    assert splits(load_dataset(str(root))) == before


def test_nothing_is_remembered_of_a_block_that_failed() -> None:
    def fail() -> None:
        with persisted_splits("here") as memory:
            memory["digest"] = "val"
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    with persisted_splits("here") as memory:
        assert memory == {}
        memory["digest"] = "val"
    with persisted_splits("here") as memory:
        assert memory == {"digest": "val"}


@pytest.mark.parametrize("content", ["{half", "[]", json.dumps({"other": 1})])
def test_a_spoiled_split_file_is_refused_rather_than_pictures_moved(freezeline_home: Path, content: str) -> None:
    with persisted_splits("here") as memory:
        memory["digest"] = "val"
    (path,) = (freezeline_home / "splits").glob("*.json")
    path.write_text(content)
    with pytest.raises(DataError, match="must be the JSON that Freezeline wrote"), persisted_splits("here"):
        pass
