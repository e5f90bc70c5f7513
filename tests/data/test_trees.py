"""Data sets inside folders and archives: found by one rule, or a question names the path to pass."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from data.errors import DataError
from data.sources.resolve import open_source
from tests.conftest import MakeFolder, tiny_image


def wrapped(image_folder: Path, depth: int) -> Path:
    """Move the data set into folders, and return the outermost."""
    inner = image_folder.parent.joinpath("outer", *(f"level {number}" for number in range(depth)))
    inner.parent.mkdir(parents=True)
    shutil.move(image_folder, inner)
    return image_folder.parent / "outer"


def zipped(folder: Path) -> Path:
    file = folder.parent / "data.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return file


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_data_set_below_sole_folders_is_found(image_folder: Path, depth: int) -> None:
    folder = wrapped(image_folder, depth)
    source = open_source(str(folder))
    inside = Path(*(f"level {number}" for number in range(depth)))
    assert source.classes == ("blue", "green", "red")
    assert source.layout[0] == f"found in {inside}/"
    assert source.uri == str(folder / inside)  # the same splits as if this folder was passed
    assert open_source(str(zipped(folder))).classes == source.classes


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "notes.txt", "labels.json"])
def test_documents_beside_a_sole_folder_are_no_doubt(image_folder: Path, name: str) -> None:
    folder = wrapped(image_folder, 2)
    (folder / name).write_text("text")
    assert len(open_source(str(folder)).images) == 24
    assert len(open_source(str(zipped(folder))).images) == 24


def test_an_image_beside_a_sole_folder_is_a_question_with_the_path(image_folder: Path) -> None:
    folder = wrapped(image_folder, 2)
    tiny_image(0, 0).save(folder / "plot.png")
    inner = folder / "level 0" / "level 1"
    with pytest.raises(DataError, match=rf"did you mean {re.escape(str(inner))}\?"):
        open_source(str(folder))
    assert len(open_source(str(inner)).images) == 24
    assert len(open_source(str(zipped(folder))).images) == 24  # a path inside an archive could not be passed


def test_split_folders_and_a_single_train_folder_are_found(make_folder: MakeFolder) -> None:
    root = make_folder({"d/train/cat": 3, "d/train/dog": 3})
    assert open_source(str(root)).classes == ("cat", "dog")
    root = make_folder({"d/test/cat": 3, "d/test/dog": 3})
    assert {image.split for image in open_source(str(root)).images} == {"train", "test"}


def test_a_table_beside_a_folder_is_found_in_folders_and_archives(image_folder: Path) -> None:
    rows = [f"{color}/{number:03}.png,{color}" for color in ("blue", "red") for number in range(4)]
    images = image_folder.parent / "outer" / "images"
    images.mkdir(parents=True)
    for row in rows:
        path = row.split(",")[0]
        shutil.copy(image_folder / path, images / path.replace("/", "-"))
    table = "\n".join(["file_name,class", *(f"images/{row.replace('/', '-')}" for row in rows)])
    (images.parent / "labels.csv").write_text(table)
    for data in (images.parent, zipped(images.parent)):
        assert len(open_source(str(data)).images) == 8


def test_a_table_beside_class_folders_is_used_only_in_archives_and_with_the_columns_of_docs(image_folder: Path) -> None:
    (image_folder / "table.csv").write_text("file,class\nred/000.png,warm\nblue/000.png,cold\n")
    for data in (image_folder, zipped(image_folder)):
        assert open_source(str(data)).classes == ("blue", "green", "red")
