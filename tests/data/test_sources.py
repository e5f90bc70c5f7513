"""Folders and the demo as data sources: layouts, skipped files and errors."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.sources.base import valid_name
from data.sources.resolve import open_source
from tests.conftest import MakeFolder


def test_a_folder_of_class_folders_gives_labeled_files(image_folder: Path) -> None:
    source = open_source(str(image_folder))
    assert source.name == "images"
    assert source.root == image_folder
    assert source.classes == ("blue", "green", "red")
    assert [(image.path, image.label) for image in source.images[:2]] == [
        ("blue/000.png", "blue"),
        ("blue/001.png", "blue"),
    ]
    assert {image.split for image in source.images} == {None}


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Testing")])
def test_split_folders_are_kept(make_folder: MakeFolder, names: tuple[str, ...]) -> None:
    root = make_folder({f"{name}/{label}": 3 for name in names for label in ("cat", "dog")})
    source = open_source(str(root))
    assert source.classes == ("cat", "dog")
    assert {image.split for image in source.images} == {"train", "val", "test"}
    assert {image.split for image in source.images if image.path.startswith(names[1])} == {"val"}


def test_a_class_may_be_named_train(make_folder: MakeFolder) -> None:
    assert open_source(str(make_folder({"train": 3, "car": 3, "bus": 3}))).classes == ("bus", "car", "train")


def test_hidden_files_and_macos_metadata_are_ignored(image_folder: Path) -> None:
    (image_folder / ".DS_Store").write_bytes(b"x")
    (image_folder / "blue" / "._000.png").write_bytes(b"x")
    shutil.copytree(image_folder / "blue", image_folder / "__MACOSX")
    shutil.copytree(image_folder / "blue", image_folder / ".git")
    source = open_source(str(image_folder))
    assert len(source.images) == 24
    assert source.skipped == ()


def test_subfolders_of_a_class_are_searched_and_link_cycles_are_detected(image_folder: Path) -> None:
    (image_folder / "blue" / "nested").mkdir()
    (image_folder / "blue" / "000.png").rename(image_folder / "blue" / "nested" / "000.png")
    (image_folder / "blue" / "nested" / "back").symlink_to(image_folder / "blue")
    source = open_source(str(image_folder))
    assert sum(image.label == "blue" for image in source.images) == 8


def test_files_that_cannot_be_images_are_skipped_with_a_reason(image_folder: Path) -> None:
    (image_folder / "readme.txt").write_text("hello")
    (image_folder / "blue" / "gone.png").symlink_to("/no/such/file")
    os.mkfifo(image_folder / "blue" / "pipe")
    Path(os.fsdecode(os.fsencode(image_folder) + b"/blue/\xff.png")).write_bytes(b"x")
    skipped = {file.path: file.reason for file in open_source(str(image_folder)).skipped}
    assert skipped == {
        "readme.txt": "is outside the class folders",
        "blue/gone.png": "is a link to a file that does not exist",
        "blue/pipe": "is not a regular file",
        "blue/\ufffd.png": "has a name that is not valid UTF-8; rename it to include it",
    }


def test_a_folder_next_to_the_splits_is_skipped(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3, "test/cat": 3, "test/dog": 3, "notes/x": 1})
    assert [file.path for file in open_source(str(root)).skipped] == ["notes/"]


def test_the_path_may_be_relative_or_in_the_home_folder(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image_folder.parent)
    monkeypatch.setenv("HOME", str(image_folder.parent))
    for text in ("images", "./images/", "~/images", " images "):
        assert open_source(text).root == image_folder


def test_the_demo_has_1797_digits_that_are_written_once(freezeline_home: Path) -> None:
    source = open_source("demo")
    assert (source.name, len(source.images), len(source.classes)) == ("digits", 1797, 10)
    assert source.root == freezeline_home / "demo" / "digits"
    mtimes = {image.path: (source.root / image.path).stat().st_mtime_ns for image in source.images}
    assert open_source("demo") == source
    assert all((source.root / path).stat().st_mtime_ns == mtime for path, mtime in mtimes.items())


@pytest.mark.parametrize(
    ("text", "name"),
    [("cats & dogs", "cats-dogs"), ("Größe", "Groe"), ("v1.2_a-b", "v1.2_a-b"), ("///", "data"), ("写真", "data")],
)
def test_names_are_made_valid(text: str, name: str) -> None:
    assert valid_name(text) == name


def test_a_missing_path_is_refused_with_a_suggestion(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"existing folder, got .*imges.*did you mean images\?"):
        open_source(str(image_folder.parent / "imges"))


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_value_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="got an empty value; pass data=PATH or data=demo"):
        open_source(text)


@pytest.mark.parametrize("text", ["a\0b", "~no-such-user/x", "x" * 5000])
def test_an_invalid_path_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"data must be (a path|an existing folder)"):
        open_source(text)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got an empty folder"):
        open_source(str(tmp_path))


def test_images_without_class_folders_are_refused(image_folder: Path) -> None:
    with pytest.raises(DataError, match="got 8 files and no folder"):
        open_source(str(image_folder / "blue"))


def test_a_single_class_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 3})
    with pytest.raises(DataError, match=r"at least 2 classes, got 1 \(cat\)"):
        open_source(str(root))


def test_a_training_split_without_class_folders_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train": 3, "test": 3})
    with pytest.raises(DataError, match="train/ must contain one folder per class"):
        open_source(str(root))


def test_two_folders_for_one_split_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({f"{split}/{label}": 3 for split in ("train", "val", "valid") for label in ("cat", "dog")})
    with pytest.raises(DataError, match="the val split must be one folder, got val/ and valid/"):
        open_source(str(root))


def test_a_folder_or_file_without_permission_is_skipped(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (image_folder / "blue" / "forbidden").mkdir()
    real_scan, real_stat = os.scandir, Path.stat

    def scan(path: Path) -> Any:
        if Path(path).name == "forbidden":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_scan(path)

    def stat(self: Path, **options: Any) -> Any:
        if self.parts[-2:] == ("red", "000.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_stat(self, **options)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(Path, "stat", stat)
    assert [(file.path, file.reason) for file in open_source(str(image_folder)).skipped] == [
        ("blue/forbidden", "is a folder that cannot be opened"),
        ("red/000.png", "cannot be accessed: Permission denied"),
    ]
