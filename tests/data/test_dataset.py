"""Loading a data set: splits, fingerprint, skipped files and errors."""

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


def splits_by_hash(dataset: Dataset) -> dict[str, str]:
    return {sample.content_hash: sample.split for sample in dataset.samples}


def test_every_image_is_in_a_split_with_its_label(image_folder: Path) -> None:
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


def test_renaming_images_changes_neither_splits_nor_fingerprint(image_folder: Path) -> None:
    before = load_dataset(str(image_folder))
    for number, path in enumerate(sorted((image_folder / "red").iterdir(), reverse=True)):
        path.rename(path.with_name(f"new {number}.jpeg"))
    after = load_dataset(str(image_folder))
    assert splits_by_hash(after) == splits_by_hash(before)
    assert after.fingerprint == before.fingerprint


def test_the_fingerprint_depends_on_images_and_class_names(image_folder: Path) -> None:
    before = load_dataset(str(image_folder)).fingerprint
    (image_folder / "red").rename(image_folder / "rot")
    renamed = load_dataset(str(image_folder)).fingerprint
    tiny_image(9, 9).save(image_folder / "blue" / "new.png")
    assert len({before, renamed, load_dataset(str(image_folder)).fingerprint}) == 3


def test_copies_of_an_image_are_in_the_same_split(image_folder: Path) -> None:
    for path in sorted((image_folder / "red").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
        Image.open(path).save(path.with_name(f"{path.stem}.bmp"))
    dataset = load_dataset(str(image_folder))
    red = [sample for sample in dataset.samples if sample.label == dataset.classes.index("red")]
    assert len(red) == 24
    assert len({(sample.content_hash, sample.split) for sample in red}) == 8


def test_an_image_in_two_classes_is_in_no_split(image_folder: Path) -> None:
    shutil.copy(image_folder / "red" / "000.png", image_folder / "blue" / "other.png")
    dataset = load_dataset(str(image_folder))
    assert {file.path: file.reason for file in dataset.skipped} == {
        "blue/other.png": "is identical to red/000.png, which has a different label",
        "red/000.png": "is identical to blue/other.png, which has a different label",
    }
    assert len(dataset.samples) == 23


def test_unreadable_files_are_skipped_with_a_reason(image_folder: Path) -> None:
    (image_folder / "red" / "notes.txt").write_text("no image")
    (image_folder / "red" / "empty.png").touch()
    skipped = {file.path: file.reason for file in load_dataset(str(image_folder)).skipped}
    assert skipped == {
        "red/empty.png": "is empty (0 bytes)",
        "red/notes.txt": "is not an image that Pillow can read",
    }


def test_provided_splits_are_kept_and_leaks_are_excluded_from_training(make_folder: MakeFolder) -> None:
    root = make_folder({f"{split}/{label}": 4 for split in ("train", "val", "test") for label in ("cat", "dog")})
    shutil.copy(root / "test" / "cat" / "000.png", root / "train" / "cat" / "leak.png")
    dataset = load_dataset(str(root))
    assert all(sample.path.startswith(sample.split) for sample in dataset.samples)
    assert [(file.path, file.reason) for file in dataset.skipped] == [
        (
            "train/cat/leak.png",
            "matches test/cat/000.png in the test split (duplicate, near-duplicate or same group)",
        )
    ]


@pytest.mark.parametrize(("given", "missing"), [("test", "val"), ("val", "test")])
def test_a_missing_split_is_taken_from_the_training_split(make_folder: MakeFolder, given: str, missing: str) -> None:
    root = make_folder({f"{split}/{label}": 20 for split in ("train", given) for label in ("cat", "dog")})
    counts = load_dataset(str(root)).counts()
    assert counts["train"] == {"cat": 17, "dog": 17}
    assert counts[missing] == {"cat": 3, "dog": 3}
    assert counts[given] == {"cat": 20, "dog": 20}


def test_a_second_load_reads_only_changed_files(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(str(image_folder))
    reads: list[Path] = []
    real = data.dataset.image_index.decode_image
    monkeypatch.setattr(data.dataset.image_index, "decode_image", lambda path: reads.append(path) or real(path))
    assert load_dataset(str(image_folder)) == first
    assert reads == []
    tiny_image(5, 99).save(image_folder / "red" / "000.png")
    assert load_dataset(str(image_folder)) != first
    assert reads == [image_folder / "red" / "000.png"]


def test_a_corrupt_image_index_is_rebuilt(image_folder: Path, freezeline_home: Path) -> None:
    first = load_dataset(str(image_folder))
    (index_file,) = (freezeline_home / "image_index").iterdir()
    index_file.write_text("{truncated")
    assert load_dataset(str(image_folder)) == first


def test_loading_reports_progress(image_folder: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    load_dataset(str(image_folder), progress=lambda *report: reports.append(report))
    assert reports[-1] == ("reading images", 24, 24)


def test_loading_changes_nothing_in_the_users_folder(image_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in image_folder.rglob("*")}
    load_dataset(str(image_folder))
    assert {path: path.stat().st_mtime_ns for path in image_folder.rglob("*")} == before


def test_all_classes_with_too_few_images_are_named_in_one_error(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 5, "cow": 2, "dog": 1})
    shutil.copy(root / "dog" / "000.png", root / "dog" / "copy.png")
    (root / "emu").mkdir()
    with pytest.raises(DataError, match=r"at least 3 distinct .*: cow \(2\), dog \(1\), emu \(0\); add images"):
        load_dataset(str(root))


def test_a_folder_without_readable_images_is_refused(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.png").write_text("text")
    with pytest.raises(DataError, match=r"got none among 2 files .*such as cat/a.png: is not an image"):
        load_dataset(str(tmp_path))


def test_the_demo_has_fixed_splits() -> None:
    counts = load_dataset("demo").counts()
    assert {split: sum(by_class.values()) for split, by_class in counts.items()} == {
        "train": 1259,
        "val": 269,
        "test": 269,
    }


def test_a_split_can_be_limited_by_class(make_folder: MakeFolder) -> None:
    dataset = load_dataset(str(make_folder({"a": 80, "b": 40})))
    limited = dataset.with_limited("val", 12)
    counts = limited.counts()
    assert sum(dataset.counts()["val"].values()) == 18
    assert (counts["val"], counts["train"], counts["test"]) == (
        {"a": 8, "b": 6},  # at least 8 of a class, if it has them
        dataset.counts()["train"],
        dataset.counts()["test"],
    )
    assert limited.layout[-1] == "val: 14 of 18 images, drawn by class"
    assert limited.limits == {"val": 12}
    assert limited.fingerprint == dataset.fingerprint == dataset.samples_fingerprint != limited.samples_fingerprint
    assert dataset.with_limited("val", 18) is dataset
    both = limited.with_limited("train", 42)
    assert (both.counts()["train"], both.counts()["val"]) == ({"a": 28, "b": 14}, counts["val"])
    assert both.limits == {"val": 12, "train": 42}
