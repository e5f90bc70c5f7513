"""Labels in file names, and Parquet files that hold the bytes of images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.options import DataOptions
from data.sources.resolve import open_source


@pytest.fixture
def loose(image_folder: Path, tmp_path: Path) -> Path:
    """Return a folder of loose images, such as blue_3.png."""
    (tmp_path / "loose").mkdir()
    for path in image_folder.rglob("*.png"):
        shutil.copy(path, tmp_path / "loose" / f"{path.parent.name}_{int(path.stem)}.png")
    return tmp_path / "loose"


def test_the_class_is_the_first_group_of_the_pattern(loose: Path, image_folder: Path) -> None:
    (loose / "plot.png").write_bytes(b"x")
    options = DataOptions(data=str(loose), label_from=r"([a-z]+)_\d+")
    source = open_source(options)
    assert source.classes == ("blue", "green", "red")
    assert [(file.path, file.reason) for file in source.skipped] == [("plot.png", r"does not match ([a-z]+)_\d+")]
    assert source.layout == (r"labels: from file names by ([a-z]+)_\d+",)
    assert load_dataset(options).fingerprint == load_dataset(str(image_folder)).fingerprint


def test_splits_are_kept_beside_labels_in_file_names(loose: Path) -> None:
    for split, number in (("train", 0), ("test", 7)):
        (loose / split).mkdir()
        for path in [path for path in loose.glob("*.png") if (path.stem.endswith("_7")) == (number == 7)]:
            path.rename(loose / split / path.name)
    (loose / "test" / "unknown.png").write_bytes(b"x")
    source = open_source(DataOptions(data=str(loose), label_from="([a-z]+)_[0-9]"))
    assert {image.split for image in source.images if image.path.startswith("train/")} == {"train"}
    assert [image.path for image in source.images if image.split == "test"] == [
        f"test/{color}_7.png" for color in ("blue", "green", "red")
    ]
    assert source.layout[1] == "splits: train from train/, test from test/; val taken from train"


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "dog.2.jpg"], "([A-Za-z]+)[-_. ][^/]*$"),
        (["subject01.sad", "subject01.happy", "subject02.sad", "subject02.happy"], "([A-Za-z]+[0-9]+)[-_. ][^/]*$"),
        (["img_1.png", "img_2.png", "img_3.png"], ""),
        (["a_1.png", "b_1.png", "c_1.png"], ""),
        (["1.png", "2.png"], ""),
    ],
)
def test_a_flat_folder_is_refused_with_a_pattern_that_fits_its_names(
    names: list[str], pattern: str, tmp_path: Path
) -> None:
    (tmp_path / "flat").mkdir()
    for name in names:
        (tmp_path / "flat" / name).write_bytes(b"x")
    for folder in (tmp_path / "flat", tmp_path):
        with pytest.raises(DataError) as caught:
            open_source(str(folder))
        (text,) = caught.value.problems
        assert ("label_from=" in text) == bool(pattern)
        assert pattern in text
        if pattern:
            assert len(open_source(DataOptions(data=str(folder), label_from=pattern)).images) == len(names)


def test_an_archive_can_have_labels_in_file_names(loose: Path) -> None:
    archive = shutil.make_archive(str(loose.parent / "loose"), "zip", loose)
    assert len(open_source(DataOptions(data=archive, label_from="([a-z]+)_")).images) == 24


def test_a_pattern_without_two_classes_is_refused(loose: Path) -> None:
    with pytest.raises(DataError, match=r"at least 2 classes, got none with \(x\)y in .*such as blue_0.png"):
        open_source(DataOptions(data=str(loose), label_from="(x)y"))


@pytest.mark.parametrize(("pattern", "problem"), [("(", "must be a regular expression"), ("a+", r"must have a group")])
def test_an_invalid_pattern_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        DataOptions(data="x", label_from=pattern)


def write_parquet(image_folder: Path, file: Path, as_struct: bool = True, with_names: bool = False) -> Path:
    paths = sorted(image_folder.rglob("*.png"))
    contents = [path.read_bytes() for path in paths]
    images = [{"bytes": content, "path": "a.png"} for content in contents] if as_struct else contents
    classes = sorted({path.parent.name for path in paths})
    table = pa.table({"image": images, "label": [classes.index(path.parent.name) for path in paths]})
    if with_names:
        label = {"names": classes, "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_with_image_bytes_is_read(image_folder: Path, tmp_path: Path, as_struct: bool) -> None:
    file = write_parquet(image_folder, tmp_path / "train-00000.parquet", as_struct)
    source = open_source(str(file))
    assert (source.name, source.uri, source.classes) == ("train-00000", str(file), ("0", "1", "2"))
    assert len(load_dataset(str(file)).samples) == 24


def test_the_names_of_classes_in_the_metadata_are_used(image_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(image_folder, tmp_path / "a.parquet", with_names=True)
    assert load_dataset(str(file)).fingerprint == load_dataset(str(image_folder)).fingerprint


def test_a_row_without_an_image_is_reported(image_folder: Path, tmp_path: Path) -> None:
    file = write_parquet(image_folder, tmp_path / "a.parquet")
    frame = pd.read_parquet(file)
    frame.at[3, "image"] = None
    frame.to_parquet(file)
    assert [file.reason for file in open_source(str(file)).skipped] == ["has no path in row 5"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_table_in_each_split_folder_is_read(loose: Path, form: str) -> None:
    root = loose.parent / "hub"
    for split, numbers in (("train", range(5)), ("test", range(5, 8))):
        rows = [
            {"file_name": f"{color}_{number}.png", "label": color} for color in ("blue", "red") for number in numbers
        ]
        (root / split).mkdir(parents=True)
        for row in rows:
            shutil.copy(loose / row["file_name"], root / split)
        frame = pd.DataFrame(rows)
        if form == "csv":
            frame.to_csv(root / split / "metadata.csv", index=False)
        else:
            frame.to_json(root / split / "metadata.jsonl", orient="records", lines=True)
    archive = shutil.make_archive(str(root), "zip", root)
    for data in (str(root), archive):
        source = open_source(data)
        assert source.classes == ("blue", "red")
        assert {image.path.split("/")[0]: image.split for image in source.images} == {"train": "train", "test": "test"}
        assert len(load_dataset(data).samples) == 16
