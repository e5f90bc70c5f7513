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


def test_a_folder_of_class_folders_gives_labelled_files(image_folder: Path) -> None:
    source = open_source(str(image_folder))
    assert source.name == "images"
    assert source.root == image_folder
    assert source.classes == ("blue", "green", "red")
    assert [(picture.path, picture.label) for picture in source.images[:2]] == [
        ("blue/000.png", "blue"),
        ("blue/001.png", "blue"),
    ]
    assert source.given_splits == ()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Testing")])
def test_folders_of_splits_are_kept_as_given(make_folder: MakeFolder, names: tuple[str, ...]) -> None:
    root = make_folder({f"{name}/{label}": 3 for name in names for label in ("cat", "dog")})
    source = open_source(str(root))
    assert source.classes == ("cat", "dog")
    assert source.given_splits == ("train", "val", "test")
    assert {picture.split for picture in source.images if picture.path.startswith(names[1])} == {"val"}


def test_a_class_named_train_among_others_is_a_class(make_folder: MakeFolder) -> None:
    root = make_folder({"train": 3, "test": 3, "bus": 3})
    assert open_source(str(root)).classes == ("bus", "test", "train")


def test_hidden_files_and_what_a_mac_leaves_in_archives_are_passed_over(image_folder: Path) -> None:
    (image_folder / ".DS_Store").write_bytes(b"x")
    (image_folder / "blue" / "._000.png").write_bytes(b"x")
    shutil.copytree(image_folder / "blue", image_folder / "__MACOSX")
    shutil.copytree(image_folder / "blue", image_folder / ".git")
    source = open_source(str(image_folder))
    assert len(source.images) == 24
    assert source.skipped == ()


def test_files_deeper_inside_a_class_count_and_a_circle_of_links_ends(image_folder: Path) -> None:
    (image_folder / "blue" / "more").mkdir()
    (image_folder / "blue" / "000.png").rename(image_folder / "blue" / "more" / "000.png")
    (image_folder / "blue" / "more" / "back").symlink_to(image_folder / "blue")
    source = open_source(str(image_folder))
    assert sum(picture.label == "blue" for picture in source.images) == 8


def test_what_is_no_candidate_is_left_out_by_name(image_folder: Path) -> None:
    (image_folder / "readme.txt").write_text("hello")
    (image_folder / "blue" / "gone.png").symlink_to("/no/such/file")
    os.mkfifo(image_folder / "blue" / "pipe")
    Path(os.fsdecode(os.fsencode(image_folder) + b"/blue/\xff.png")).write_bytes(b"x")
    left_out = {item.path: item.reason for item in open_source(str(image_folder)).skipped}
    assert left_out == {
        "readme.txt": "lies outside the class folders",
        "blue/gone.png": "is a link to a file that does not exist",
        "blue/pipe": "is no regular file",
        "blue/\ufffd.png": "has a name that is not valid UTF-8; rename it to have it counted",
    }


def test_a_folder_beside_the_splits_is_left_out(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3, "test/cat": 3, "test/dog": 3, "notes/x": 1})
    assert [item.path for item in open_source(str(root)).skipped] == ["notes/"]


def test_the_path_may_be_relative_or_of_the_users_home(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image_folder.parent)
    monkeypatch.setenv("HOME", str(image_folder.parent))
    for text in ("images", "./images/", "~/images", " images "):
        assert open_source(text).root == image_folder


def test_the_demo_is_1797_digits_that_are_written_once(freezeline_home: Path) -> None:
    source = open_source("demo")
    assert (source.name, len(source.images), len(source.classes)) == ("digits", 1797, 10)
    assert source.root == freezeline_home / "demo" / "digits"
    times = {picture.path: (source.root / picture.path).stat().st_mtime_ns for picture in source.images}
    assert all((source.root / path).stat().st_mtime_ns == time for path, time in times.items())
    assert open_source("demo") == source


@pytest.mark.parametrize(
    ("text", "name"),
    [("cats & dogs", "cats-dogs"), ("Größe", "Groe"), ("v1.2_a-b", "v1.2_a-b"), ("///", "data"), ("写真", "data")],
)
def test_a_name_is_made_valid(text: str, name: str) -> None:
    assert valid_name(text) == name


def test_a_path_that_does_not_exist_gets_the_nearest_name(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"exists, got .*imges.*did you mean images\?"):
        open_source(str(image_folder.parent / "imges"))


@pytest.mark.parametrize("text", ["", "  "])
def test_no_data_at_all_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="got an empty text; pass data=PATH or data=demo"):
        open_source(text)


@pytest.mark.parametrize("text", ["a\0b", "~nobody-of-this-name/x", "x" * 5000])
def test_a_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"data must be a (path|folder)"):
        open_source(text)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got an empty folder"):
        open_source(str(tmp_path))


def test_loose_pictures_without_class_folders_are_refused(image_folder: Path) -> None:
    with pytest.raises(DataError, match="got 8 loose files and no folder"):
        open_source(str(image_folder / "blue"))


def test_one_class_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 3})
    with pytest.raises(DataError, match=r"at least 2 classes, got 1 \(cat\)"):
        open_source(str(root))


def test_a_folder_around_the_right_one_is_refused_with_a_hint(image_folder: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean .*images\?"):
        open_source(str(image_folder.parent))


def test_splits_without_class_folders_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3, "test": 3})
    with pytest.raises(DataError, match="test/ must hold one folder for each class"):
        open_source(str(root))


def test_two_folders_for_one_split_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder({f"{split}/{label}": 3 for split in ("train", "val", "valid") for label in ("cat", "dog")})
    with pytest.raises(DataError, match="one folder for the val pictures, got val/ and valid/"):
        open_source(str(root))


def test_a_folder_or_file_that_may_not_be_looked_at_is_left_out(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image_folder / "blue" / "shut").mkdir()
    real_scan, real_stat = os.scandir, Path.stat

    def scan(path: Path) -> Any:
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_scan(path)

    def stat(self: Path, **options: Any) -> Any:
        if self.parts[-2:] == ("red", "000.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_stat(self, **options)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(Path, "stat", stat)
    assert [(item.path, item.reason) for item in open_source(str(image_folder)).skipped] == [
        ("blue/shut", "is a folder that can't be opened"),
        ("red/000.png", "can't be looked at: Permission denied"),
    ]
