"""What the folders of a data set are taken for, and the questions that a doubtful layout raises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data.audit.report import audit
from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.layout import split_of, splits_of
from data.sources.options import DataOptions
from data.sources.resolve import open_source
from tests.conftest import MakeFolder, tiny_image

CLASSES = ("cat", "dog")


def split_folders(make_folder: MakeFolder, *names: str, size: int = 4) -> Path:
    return make_folder({f"{name}/{label}": size for name in names for label in CLASSES}, size=(48, 40))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("seg_train", "seg_test"), ("train", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("train_images", "valid_images"), ("train", "val")),
        (("Train-2017", "Holdout"), ("train", "test")),
        (("train", "dev", "test"), ("train", "val", "test")),
        (("train", "eval"), ("train", "test")),
        (("train", "eval", "test"), ("train", "val", "test")),
        (("train", "validation"), ("train", "val")),
    ],
)
def test_usual_names_of_splits_are_splits(
    make_folder: MakeFolder, names: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    source = open_source(str(split_folders(make_folder, *names)))
    assert source.classes == CLASSES
    by_folder = {image.path.split("/")[0]: image.split for image in source.images}
    assert tuple(by_folder[name] for name in names) == splits


@pytest.mark.parametrize("name", ["strain", "latest", "protest", "trainer", "devil", "test_train", "cats"])
def test_other_names_are_not_splits(name: str) -> None:
    assert split_of(name) is None


def test_the_evaluation_split_depends_on_its_neighbors() -> None:
    assert splits_of(["train", "eval"]) == {"train": "train", "eval": "test"}
    assert splits_of(["train", "val", "eval"])["eval"] == "test"
    assert splits_of(["eval_set", "test_set"]) == {"eval_set": "val", "test_set": "test"}


def test_the_audit_shows_classes_and_splits_first(make_folder: MakeFolder) -> None:
    lines = audit(load_dataset(str(split_folders(make_folder, "seg_train", "seg_test", size=9)))).lines()
    assert lines[1:3] == [
        "  classes: cat 18, dog 18",
        "  splits: train from seg_train/, test from seg_test/; val taken from train",
    ]


def test_the_names_of_many_classes_are_cut(make_folder: MakeFolder) -> None:
    root = make_folder({f"class {number:02}": 3 for number in range(40)} | {"x" * 80: 3})
    (line,) = [line for line in audit(load_dataset(str(root))).lines() if line.startswith("  classes: ")]
    assert line.endswith("class 29 3, and 11 more")


def test_a_folder_beside_the_splits_is_reported_with_its_files(make_folder: MakeFolder) -> None:
    root = split_folders(make_folder, "train", "test")
    shutil.copytree(root / "train", root / "extra")
    dataset = load_dataset(str(root))
    assert dataset.num_skipped == 8
    lines = audit(dataset).lines()
    assert "8 files skipped" in lines[0]
    assert "    extra/ has 8 files in no split; name it train/, val/ or test/ to use it" in lines


def test_a_split_without_labels_is_not_used_and_its_command_is_shown(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 8, "train/dog": 8, "test": 5}, size=(48, 40))
    dataset = load_dataset(str(root))
    assert len(dataset.samples) == 16
    (skipped,) = dataset.skipped
    assert (skipped.path, skipped.num_files) == ("test/", 5)
    assert skipped.reason.endswith(f"freezeline predict models:/NAME@champion {root}/test")


@pytest.mark.parametrize(
    ("folders", "question"),
    [
        (("a/cat", "a/dog", "b/cat", "b/dog"), "all hold the folders cat/, dog/"),
        (("train", "test", "bus"), "got none in test/, train/ .* are they classes"),
        (("train_station", "test_tube", "bus"), "got none in test_tube/, train_station/ .* are they classes"),
        (("train_station/x", "test_tube/y"), "must have classes in common, got none in"),
        (("train/cat", "train/dog", "notes"), "of which train/ has sub-folders; is it the data set"),
    ],
)
def test_a_doubtful_layout_is_a_question_that_an_option_answers(
    make_folder: MakeFolder, folders: tuple[str, ...], question: str
) -> None:
    root = make_folder(dict.fromkeys(folders, 3))
    with pytest.raises(DataError, match=rf"(?s){question}.*layout=classes"):
        open_source(str(root))
    classes = tuple(sorted({folder.split("/")[0] for folder in folders}))
    assert open_source(DataOptions(data=str(root), layout="classes")).classes == classes


@pytest.mark.parametrize(
    "name", ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".ipynb_checkpoints", "__MACOSX"]
)
def test_folders_of_systems_are_ignored(image_folder: Path, name: str) -> None:
    expected = open_source(str(image_folder))
    for folder in (image_folder / name, image_folder / "red" / name):
        folder.mkdir()
        tiny_image(9, 9).save(folder / "thumbnail.png")
    for file in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (image_folder / "red" / file).write_bytes(b"x")
    assert open_source(str(image_folder)) == expected


def test_a_class_without_a_training_image_is_refused(make_folder: MakeFolder) -> None:
    root = split_folders(make_folder, "train", "test")
    for number in range(3):
        (root / "test" / "owl").mkdir(exist_ok=True)
        tiny_image(5, number, (48, 40)).save(root / "test" / "owl" / f"{number}.png")
    with pytest.raises(DataError, match=r"must have a training image, got none for owl \(3 test\) in"):
        load_dataset(str(root))


def test_the_fingerprint_of_class_folders_is_that_of_earlier_versions(make_folder: MakeFolder) -> None:
    assert load_dataset(str(make_folder(size=(48, 40)))).fingerprint == "6e3ea9f747aaf9bc5b8a39be539b0f3a"


def test_the_fingerprint_of_split_folders_is_that_of_earlier_versions(make_folder: MakeFolder) -> None:
    dataset = load_dataset(str(split_folders(make_folder, "train", "test")))
    assert dataset.fingerprint == "7e4297bc1ad6768a6e4a93cb5a859055"
