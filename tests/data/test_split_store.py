"""Persisted splits: images keep their split when the data set changes."""

from __future__ import annotations

import json
import shutil
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


def test_known_test_images_are_test_images_of_a_copy_of_the_data_set(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"cat": 20, "dog": 20})
    before = load_dataset(str(root))
    # The copy has another URI, so no split is persisted, and with more images others would be test images.
    grown = shutil.copytree(root, tmp_path / "copy")
    shutil.copytree(make_folder({"cat": 30, "dog": 30}, first=20), grown, dirs_exist_ok=True)
    # Some that would not be test images of the copy either, whatever its size.
    known = [sample.content_hash[:16] for sample in (*before.split("test"), *before.split("train")[:4])]
    after = load_dataset(str(grown), test_hashes=known)
    is_test = {sample.content_hash[:16]: sample.split == "test" for sample in after.samples}
    assert len(after.samples) == 100
    assert all(is_test[prefix] for prefix in known)
    assert sum(is_test.values()) == 2 * round(0.15 * 50)
    assert splits_by_hash(load_dataset(str(grown))) == splits_by_hash(after), "they are persisted"


def test_an_image_with_a_split_keeps_it_even_if_it_is_a_known_test_image(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 20, "dog": 20})
    before = load_dataset(str(root))
    trained = [sample.content_hash[:16] for sample in before.split("train")]
    assert splits_by_hash(load_dataset(str(root), test_hashes=trained)) == splits_by_hash(before)


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
