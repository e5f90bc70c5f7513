from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import data.dataset.image_index
from data.dataset.dataset import Dataset
from data.errors import DataError
from data.load_dataset import load_dataset
from tests.conftest import MakeFolder, tiny_image


def splits_by_digest(dataset: Dataset) -> dict[str, str]:
    return {sample.content_hash: sample.split for sample in dataset.samples}


def test_every_picture_is_in_a_split_with_its_label(image_folder: Path) -> None:
    dataset = load_dataset(str(image_folder))
    assert dataset.counts() == {
        "train": {"blue": 6, "green": 6, "red": 6},
        "val": {"blue": 1, "green": 1, "red": 1},
        "test": {"blue": 1, "green": 1, "red": 1},
    }
    assert all(sample.path.startswith(dataset.classes[sample.label]) for sample in dataset.samples)
    assert dataset.median_short_side == 16
    assert dataset.has_small_images
    assert not dataset.model_copy(update={"median_short_side": 32}).has_small_images
    assert Dataset.from_json(dataset.to_json()) == dataset


def test_renamed_pictures_stay_in_their_splits_and_the_fingerprint_stays(image_folder: Path) -> None:
    before = load_dataset(str(image_folder))
    for number, path in enumerate(sorted((image_folder / "red").iterdir(), reverse=True)):
        path.rename(path.with_name(f"new {number}.jpeg"))
    after = load_dataset(str(image_folder))
    assert splits_by_digest(after) == splits_by_digest(before)
    assert after.fingerprint == before.fingerprint


def test_the_fingerprint_changes_with_a_picture_or_a_class_name(image_folder: Path) -> None:
    before = load_dataset(str(image_folder)).fingerprint
    (image_folder / "red").rename(image_folder / "rot")
    renamed = load_dataset(str(image_folder)).fingerprint
    tiny_image(9, 9).save(image_folder / "blue" / "new.png")
    assert len({before, renamed, load_dataset(str(image_folder)).fingerprint}) == 3


def test_copies_of_a_picture_are_on_one_side(image_folder: Path) -> None:
    for path in sorted((image_folder / "red").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
        Image.open(path).save(path.with_name(f"{path.stem}.bmp"))
    dataset = load_dataset(str(image_folder))
    red = [sample for sample in dataset.samples if sample.label == dataset.classes.index("red")]
    assert len(red) == 24
    assert len({(sample.content_hash, sample.split) for sample in red}) == 8


def test_a_picture_in_two_classes_is_in_no_split(image_folder: Path) -> None:
    shutil.copy(image_folder / "red" / "000.png", image_folder / "blue" / "other.png")
    dataset = load_dataset(str(image_folder))
    assert {item.path: item.reason for item in dataset.skipped} == {
        "blue/other.png": "is the same picture as red/000.png, of another class",
        "red/000.png": "is the same picture as blue/other.png, of another class",
    }
    assert len(dataset.samples) == 23


def test_unreadable_files_are_left_out_by_name(image_folder: Path) -> None:
    (image_folder / "red" / "notes.txt").write_text("no picture")
    (image_folder / "red" / "empty.png").touch()
    left_out = {item.path: item.reason for item in load_dataset(str(image_folder)).skipped}
    assert left_out == {
        "red/empty.png": "is empty (0 bytes)",
        "red/notes.txt": "is no picture that Pillow can read",
    }


def test_given_splits_are_kept_and_a_leak_is_left_out_of_training(make_folder: MakeFolder) -> None:
    root = make_folder({f"{split}/{label}": 4 for split in ("train", "val", "test") for label in ("cat", "dog")})
    shutil.copy(root / "test" / "cat" / "000.png", root / "train" / "cat" / "leak.png")
    dataset = load_dataset(str(root))
    assert all(sample.path.startswith(sample.split) for sample in dataset.samples)
    assert [(item.path, item.reason) for item in dataset.skipped] == [
        ("train/cat/leak.png", "belongs together with test/cat/000.png of the test split")
    ]


@pytest.mark.parametrize(("given", "missing"), [("test", "val"), ("val", "test")])
def test_a_missing_split_is_taken_from_training(make_folder: MakeFolder, given: str, missing: str) -> None:
    root = make_folder({f"{split}/{label}": 20 for split in ("train", given) for label in ("cat", "dog")})
    counts = load_dataset(str(root)).counts()
    assert counts["train"] == {"cat": 17, "dog": 17}
    assert counts[missing] == {"cat": 3, "dog": 3}
    assert counts[given] == {"cat": 20, "dog": 20}


def test_a_second_load_decodes_nothing_and_a_changed_file_is_read_again(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset(str(image_folder))
    read: list[Path] = []
    real = data.dataset.image_index.read_image
    monkeypatch.setattr(data.dataset.image_index, "read_image", lambda path: read.append(path) or real(path))
    assert load_dataset(str(image_folder)) == first
    assert read == []
    tiny_image(5, 99).save(image_folder / "red" / "000.png")
    assert load_dataset(str(image_folder)) != first
    assert read == [image_folder / "red" / "000.png"]


def test_a_spoiled_memory_of_readings_is_read_anew(image_folder: Path, freezeline_home: Path) -> None:
    first = load_dataset(str(image_folder))
    (memory,) = (freezeline_home / "image_index").iterdir()
    memory.write_text("{half")
    assert load_dataset(str(image_folder)) == first


def test_progress_is_told(image_folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    load_dataset(str(image_folder), progress=lambda *step: told.append(step))
    assert told[-1] == ("reading pictures", 24, 24)


def test_nothing_in_the_users_folder_changes(image_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in image_folder.rglob("*")}
    load_dataset(str(image_folder))
    assert {path: path.stat().st_mtime_ns for path in image_folder.rglob("*")} == before


def test_all_classes_with_too_few_pictures_are_named_at_once(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 5, "cow": 2, "dog": 1})
    shutil.copy(root / "dog" / "000.png", root / "dog" / "copy.png")
    (root / "emu").mkdir()
    with pytest.raises(DataError, match=r"at least 3 different .*: cow \(2\), dog \(1\), emu \(0\); add pictures"):
        load_dataset(str(root))


def test_a_folder_where_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.png").write_text("text")
    with pytest.raises(DataError, match=r"got none among 2 files .*such as cat/a.png, which is no picture"):
        load_dataset(str(tmp_path))


def test_the_demo_has_its_fixed_splits() -> None:
    counts = load_dataset("demo").counts()
    assert {split: sum(of.values()) for split, of in counts.items()} == {"train": 1259, "val": 269, "test": 269}
