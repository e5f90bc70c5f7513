"""Manifests as people have them: names of columns, one-hot columns, paths of other machines, typed values."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.base import DataSource
from data.sources.options import DataOptions
from data.sources.resolve import open_source
from tests.conftest import tiny_image

NUMBERS = range(6)
PATHS = [f"images/id{number:03}.png" for number in NUMBERS]
LABELS = ["cat", "dog"] * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with images/id000.png to id005.png."""
    (tmp_path / "images").mkdir()
    for number, path in enumerate(PATHS):
        tiny_image(number % 2, number).save(tmp_path / path)
    return tmp_path


def write(folder: Path, header: str, rows: list[str], newline: str = "\n") -> Path:
    file = folder / "table.csv"
    file.write_bytes(newline.join([*([header] if header else []), *rows, ""]).encode())
    return file


def labels_of(source: DataSource) -> dict[str, str]:
    return {image.path: image.label for image in source.images}


EXPECTED = dict(zip(PATHS, LABELS, strict=True))


@pytest.mark.parametrize("path", ["path", "image", "file", "filename", "file_name", "id", "image_id", "Image_ID"])
@pytest.mark.parametrize("label", ["label", "class", "target", "category", "Label"])
def test_usual_names_of_columns_are_accepted(folder: Path, path: str, label: str) -> None:
    rows = [f"{number},{text},{name}" for number, (text, name) in enumerate(EXPECTED.items())]
    assert labels_of(open_source(str(write(folder, f",{path},{label}", rows)))) == EXPECTED


@pytest.mark.parametrize(
    "form",
    [
        "id{number:03}",
        "images/id{number:03}",
        "id{number:03}.png",
        "Images/ID{number:03}.PNG",
        r"C:\Users\ann\data\images\id{number:03}.png",
        r"images\id{number:03}.png",
        "/home/ann/images/id{number:03}.jpg/../id{number:03}.png",
        "./images//id{number:03}.png",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_paths_of_other_forms_are_found(folder: Path, form: str, newline: str) -> None:
    rows = [f"{form.format(number=number)},{LABELS[number]}" for number in NUMBERS]
    assert labels_of(open_source(str(write(folder, "path,label", rows, newline)))) == EXPECTED


def test_names_below_another_folder_are_found_with_the_option_images(folder: Path, tmp_path: Path) -> None:
    (folder / "tables").mkdir()
    file = write(folder / "tables", "id,label", [f"id{number:03},{LABELS[number]}" for number in NUMBERS])
    with pytest.raises(DataError, match=r"none of 6 paths exists below .*tables, such as id000; .*images=FOLDER"):
        open_source(str(file))
    source = open_source(DataOptions(data=str(file), images=str(folder / "images")))
    assert labels_of(source) == {f"../{path}": label for path, label in EXPECTED.items()}
    assert source.layout[1].startswith("images: 6 of 6 paths found by name below ")
    with pytest.raises(DataError, match="images must be an existing folder, got nowhere"):
        open_source(DataOptions(data=str(file), images="nowhere"))


def test_names_of_two_files_are_those_of_the_one_folder_with_all_names(folder: Path) -> None:
    (folder / "more").mkdir()
    file = write(folder, "id,label", [f"id{number:03},{LABELS[number]}" for number in NUMBERS])
    for number in NUMBERS:
        tiny_image(1, 100 + number).save(folder / "more" / f"id{number:03}.png")
        if number < 5:
            assert labels_of(open_source(str(file))) == EXPECTED
    message = r"id000 may be images/id000.png or more/id000.png in .*; pass the folder of its images: images=FOLDER"
    with pytest.raises(DataError, match=message):
        open_source(str(file))
    assert labels_of(open_source(DataOptions(data=str(file), images="images"))) == EXPECTED


def test_the_table_of_a_split_uses_no_folder_of_another_split(folder: Path) -> None:
    (folder / "images").rename(folder / "train")
    (folder / "test").mkdir()
    for number in (5, 6):
        tiny_image(0, 100 + number).save(folder / "test" / f"id{number:03}.png")
    rows = [f"id{number:03},{['cat', 'dog'][number % 2]}" for number in range(7)]
    file = write(folder, "id,label", rows).rename(folder / "Training_set.csv")
    source = open_source(str(file))
    assert [image.path for image in source.images] == [f"train/id{number:03}.png" for number in NUMBERS]
    assert [(file.path, file.kind) for file in source.skipped] == [("id006", "missing")]


def test_a_number_is_the_name_of_a_file_with_leading_zeros(folder: Path) -> None:
    for number in NUMBERS:
        (folder / PATHS[number]).rename(folder / "images" / f"{number:03}.png")
    source = open_source(str(write(folder, "id,label", [f"{number},{LABELS[number]}" for number in NUMBERS])))
    assert [image.path for image in source.images] == [f"images/{number:03}.png" for number in NUMBERS]


def test_the_column_of_paths_is_found_by_its_values(folder: Path) -> None:
    rows = [f"{number},{PATHS[number]},{LABELS[number]}" for number in NUMBERS]
    assert labels_of(open_source(str(write(folder, "number,scan,label", rows)))) == EXPECTED


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_columns_may_be_separated_by_spaces(folder: Path, newline: str) -> None:
    file = write(folder, "", [f"{PATHS[number]}  {LABELS[number]}   mono" for number in NUMBERS], newline)
    assert labels_of(open_source(str(file))) == EXPECTED
    assert labels_of(open_source(str(file.rename(folder / "labels.txt")))) == EXPECTED


def test_a_table_without_a_header_may_be_beside_another_folder(folder: Path) -> None:
    file = write(folder, "", [f"id{number:03}.png, {LABELS[number]}" for number in NUMBERS])
    assert labels_of(open_source(str(file))) == EXPECTED


def test_groups_of_patients_are_kept_and_said(folder: Path) -> None:
    file = write(
        folder, "path,label,PatientID", [f"{PATHS[number]},{LABELS[number]},p{number // 2}" for number in NUMBERS]
    )
    source = open_source(str(file))
    assert [image.group for image in source.images] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert source.layout == ("table: table.csv", "groups: 3 groups of column PatientID, each kept in one split")


def test_the_option_label_column_also_finds_the_table_in_a_folder(folder: Path) -> None:
    write(folder, "filename,kind", [f"{PATHS[number]},{LABELS[number]}" for number in NUMBERS])
    with pytest.raises(DataError) as caught:
        open_source(str(folder))
    assert "got filename, kind in" in caught.value.problems[1]
    assert caught.value.problems[1].endswith("pass label_column=kind")
    assert labels_of(open_source(DataOptions(data=str(folder), label_column="kind"))) == EXPECTED


def by_split(source: DataSource) -> dict[str, str | None]:
    return {image.path: image.split for image in source.images}


def test_the_only_table_of_each_split_folder_is_read(folder: Path) -> None:
    for name, numbers in (("train", NUMBERS[:4]), ("valid", NUMBERS[4:])):
        (folder / name).mkdir()
        for number in numbers:
            (folder / PATHS[number]).rename(folder / name / f"{number}.png")
        rows = [f"{number}.png,{int(LABELS[number] == 'cat')}, {int(LABELS[number] == 'dog')}" for number in numbers]
        write(folder / name, "filename,cat, dog", rows).rename(folder / name / "_classes.csv")
    (folder / "images").rmdir()
    source = open_source(str(folder))
    assert source.classes == ("cat", "dog")
    assert by_split(source) == {
        **{f"train/{number}.png": "train" for number in range(4)},
        **{f"valid/{number}.png": "val" for number in (4, 5)},
    }


def test_tables_named_after_splits_are_read_together(folder: Path) -> None:
    (folder / "images").rename(folder / "train")
    (folder / "test").mkdir()
    (folder / "train" / "id005.png").rename(folder / "test" / "id005.png")
    for name, numbers in (("train_label", NUMBERS[:5]), ("test_label", NUMBERS[5:])):
        rows = [f"id{number:03},{LABELS[number]}" for number in numbers]
        write(folder, "id,class", [*rows, *(["id004,cat"] if "test" in name else [])]).rename(folder / f"{name}.csv")
    source = open_source(str(folder))
    assert by_split(source)["test/id005.png"] == "test"
    assert len(source.images) == 6


def test_names_are_not_guessed_if_a_path_exists_as_written(folder: Path) -> None:
    source = open_source(str(write(folder, "path,label", [f"{PATHS[0]},cat", "elsewhere/id001.png,dog"])))
    assert list(labels_of(source)) == PATHS[:1]


def test_a_path_that_exists_is_shown_if_none_does(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of 2 paths exists below .*, such as a.png; images/id000.png does: write paths like that"
    ):
        open_source(str(write(folder, "path,label", ["a.png,cat", "b.png,dog"])))


def test_one_hot_columns_are_classes(folder: Path) -> None:
    rows = [f"{path},{number % 2},{(number + 1) % 2}.0" for number, path in enumerate(PATHS)]
    source = open_source(str(write(folder, "path,Blue jay,red kite", rows)))
    assert source.classes == ("Blue jay", "red kite")
    assert labels_of(source)[PATHS[1]] == "Blue jay"


def test_a_row_without_a_mark_has_no_label(folder: Path) -> None:
    rows = [f"{path},{number % 2},{(number + 1) % 2}" for number, path in enumerate(PATHS)]
    source = open_source(str(write(folder, "path,a,b", [*rows[:-1], f"{PATHS[-1]},0,0"])))
    assert [file.reason for file in source.skipped] == ["has no label in row 7"]


def test_columns_that_mark_several_classes_are_refused(folder: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"must have one label, got several in .*, such as in row 2; several labels .* not supported",
    ):
        open_source(str(write(folder, "path,a,b", [f"{path},1,1" for path in PATHS])))


def test_the_column_of_labels_can_be_named(folder: Path) -> None:
    file = write(folder, "id,Breed", [f"id{number:03},{LABELS[number]}" for number in NUMBERS])
    with pytest.raises(DataError, match=r"got id, Breed in .*; pass label_column=Breed"):
        open_source(str(file))
    assert labels_of(open_source(DataOptions(data=str(file), label_column="breed"))) == EXPECTED
    with pytest.raises(DataError, match=r"label_column must be a column .*, got bred .* did you mean breed\?"):
        open_source(DataOptions(data=str(file), label_column="bred"))


def test_a_table_without_a_header_is_read(folder: Path) -> None:
    file = write(folder, "", [f"{path},{label}" for path, label in EXPECTED.items()])
    assert labels_of(open_source(str(file))) == EXPECTED


def test_json_lines_are_read(folder: Path) -> None:
    file = folder / "metadata.jsonl"
    file.write_text("\n".join(json.dumps({"file_name": path, "label": label}) for path, label in EXPECTED.items()))
    assert labels_of(open_source(str(file))) == EXPECTED


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100_000])
def test_other_json_is_refused(folder: Path, text: str) -> None:
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"each line of a .jsonl manifest must be .* line 1 of"):
        open_source(str(folder / "metadata.jsonl"))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0.0, 1.0, 0.0, 1.0, 0.0, None], ("0", "1")),
        ([0, 1] * 3, ("0", "1")),
        ([0.5, 1.0] * 3, ("0.5", "1.0")),
        ([True, False] * 3, ("False", "True")),
        (["nan", "None"] * 3, ("None", "nan")),
        (["007", "7"] * 3, ("007", "7")),
    ],
)
def test_labels_of_typed_tables_are_text_and_whole_numbers(
    folder: Path, labels: list[object], classes: tuple[str, ...]
) -> None:
    file = folder / "table.parquet"
    pd.DataFrame({"path": PATHS, "label": labels, "group": [float(n) for n in NUMBERS]}).to_parquet(file)
    source = open_source(str(file))
    assert source.classes == classes
    assert source.images[1].group == "1"
    assert len(source.skipped) == labels.count(None)


def test_a_split_column_may_have_the_usual_names(folder: Path) -> None:
    splits = ["train", "dev", "test"] * 2
    rows = [f"{path},{label},{split}" for (path, label), split in zip(EXPECTED.items(), splits, strict=True)]
    source = open_source(str(write(folder, "path,label,split", rows)))
    assert [image.split for image in source.images] == ["train", "val", "test"] * 2


def test_a_table_beside_its_folder_is_used(folder: Path) -> None:
    write(folder, "path,label", [f"{path},{label}" for path, label in EXPECTED.items()])
    assert open_source(str(folder)).layout == ("table: table.csv",)
    assert len(load_dataset(str(folder)).samples) == 6
    (folder / "other.csv").write_bytes((folder / "table.csv").read_bytes())
    with pytest.raises(DataError, match=r"got other.csv and table.csv in .*; pass one: data=.*other.csv"):
        open_source(str(folder))
