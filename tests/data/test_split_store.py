"""Persisted splits: images keep their split when the data set changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.dataset.dataset import Dataset
from data.dataset.splitting import persisted_splits
from data.errors import DataError
from data.load_dataset import load_dataset
from tests.conftest import MakeFolder


def splits_by_hash(dataset: Dataset) -> dict[str, str]:
    return {sample.content_hash: sample.split for sample in dataset.samples}


def test_existing_images_keep_their_split_when_the_folder_grows(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 10, "dog": 10})
    before = splits_by_hash(load_dataset(str(root)))
    make_folder({"cat": 40, "dog": 3}, first=10)
    after = splits_by_hash(load_dataset(str(root)))
    assert len(after) == 63
    assert {content_hash: after[content_hash] for content_hash in before} == before


def test_an_image_that_is_added_again_keeps_its_split(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 10, "dog": 10})
    before = splits_by_hash(load_dataset(str(root)))
    file = root / "cat" / "000.png"
    content = file.read_bytes()
    file.unlink()
    load_dataset(str(root))
    (root / "cat" / "back.png").write_bytes(content)
    assert splits_by_hash(load_dataset(str(root))) == before


def test_nothing_is_persisted_if_an_exception_occurs() -> None:
    def fail() -> None:
        with persisted_splits("here") as splits:
            splits["hash"] = "val"
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    with persisted_splits("here") as splits:
        assert splits == {}
        splits["hash"] = "val"
    with persisted_splits("here") as splits:
        assert splits == {"hash": "val"}


@pytest.mark.parametrize("content", ["{truncated", "[]", json.dumps({"other": 1})])
def test_a_corrupt_split_file_is_refused_instead_of_replaced(freezeline_home: Path, content: str) -> None:
    with persisted_splits("here") as splits:
        splits["hash"] = "val"
    (path,) = (freezeline_home / "splits").glob("*.json")
    path.write_text(content)
    with pytest.raises(DataError, match="must be JSON written by Freezeline"), persisted_splits("here"):
        pass
