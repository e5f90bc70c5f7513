"""Manifests as data sources: formats, skipped rows, groups and errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from data.audit.report import audit
from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.base import DataSource
from data.sources.resolve import open_source

HEADER = "path,label,split,group\n"


@pytest.fixture
def manifest(image_folder: Path) -> Path:
    """Return the path of a manifest that is not written yet, next to images in blue/, green/ and red/."""
    return image_folder / "my labels.csv"


def write_and_open(manifest: Path, text: str | bytes) -> DataSource:
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(str(manifest))


def table(*rows: str) -> str:
    return HEADER + "".join(f"{row}\n" for row in rows)


ROWS = ("red/000.png,warm,train,ann", "blue/000.png,cold,val,bob", "blue/001.png,cold,,")


def test_a_manifest_gives_paths_labels_splits_and_groups(manifest: Path) -> None:
    source = write_and_open(manifest, table(*ROWS))
    assert (source.name, source.root, source.uri) == ("my-labels", manifest.parent, str(manifest))
    assert source.classes == ("cold", "warm")
    assert [(image.path, image.label, image.split, image.group) for image in source.images] == [
        ("blue/000.png", "cold", "val", "bob"),
        ("blue/001.png", "cold", None, None),
        ("red/000.png", "warm", "train", "ann"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + table(*ROWS).encode(),
        table(*ROWS).replace("\n", "\r\n"),
        table(*ROWS).replace(",", ";"),
        table(*ROWS).replace(",", "\t"),
        table(*ROWS).replace("path,label", " Path ,LABEL"),
        table(*(row.replace("/", "\\") for row in ROWS)),
        table(*(row.replace(",", '","').join('""') for row in ROWS)),
        table(*ROWS, "", ",,,"),
        table(*("./" + row for row in ROWS)),
        table(*ROWS).rstrip("\n"),
        table(*ROWS).replace("train", "Training").replace("val", "valid"),
    ],
    ids=[
        "bom",
        "crlf",
        "semicolons",
        "tabs",
        "header",
        "backslashes",
        "quotes",
        "empty rows",
        "dots",
        "end",
        "split aliases",
    ],
)
def test_all_text_formats_give_the_same_source(manifest: Path, text: str | bytes) -> None:
    expected = write_and_open(manifest, table(*ROWS))
    assert write_and_open(manifest, text) == expected


def test_parquet_gives_the_same_source_as_csv(manifest: Path) -> None:
    expected = write_and_open(manifest, table(*ROWS))
    frame = pd.DataFrame([row.split(",") for row in ROWS], columns=HEADER.strip().split(",")).replace("", None)
    frame.to_parquet(manifest.with_suffix(".parquet"))
    source = open_source(str(manifest.with_suffix(".parquet")))
    assert source.images == expected.images


def test_quoted_names_may_contain_commas_quotes_and_line_breaks(manifest: Path) -> None:
    name = 'red/a, "b"\nc.png'
    shutil.copy(manifest.parent / "red" / "000.png", manifest.parent / name)
    source = write_and_open(manifest, table(f'"{name.replace(chr(34), chr(34) * 2)}",warm,,', *ROWS))
    assert name in {image.path for image in source.images}


def test_unusable_rows_are_skipped_with_a_reason(manifest: Path) -> None:
    source = write_and_open(
        manifest,
        table(
            *ROWS,
            "red/gone.png,warm,,",
            "red/001.png,,,",
            ",warm,,",
            "red/002.png,warm,,",
            "red/002.png,cold,,",
            "red/003.png,warm,train,",
            "red/003.png,warm,test,",
            "red/004.png,warm,,",
            "red/004.png,warm,,",
            "x" * 500 + ",warm,,",
        ),
    )
    assert {file.path[:20]: (file.reason, file.kind) for file in source.skipped} == {
        "red/gone.png": ("does not exist (row 5)", "missing"),
        "red/001.png": ("has no label in row 6", "unlabeled"),
        "row 7": ("has no path in row 7", "unlabeled"),
        "red/002.png": ("has the labels cold and warm in rows 8 and 9", "conflict"),
        "red/003.png": ("has different splits or groups in rows 10 and 11", "unlabeled"),
        "x" * 20: ("does not exist (row 14)", "missing"),
    }
    assert [image.path for image in source.images].count("red/004.png") == 1


def test_a_file_with_two_labels_is_in_the_audit(manifest: Path) -> None:
    paths = [path.relative_to(manifest.parent).as_posix() for path in sorted(manifest.parent.rglob("*.png"))]
    manifest.write_text(table(*(f"{path},{path.split('/')[0]},," for path in paths), "red/000.png,blue,,"))
    dataset = load_dataset(str(manifest))
    (conflict,) = [finding for finding in dataset.findings if finding.kind == "conflict"]
    assert (conflict.count, conflict.files) == (1, (("red/000.png",),))
    assert (
        f"    red/000.png has the labels blue and red in rows {len(paths) - 6} and {len(paths) + 2}"
        in audit(dataset).lines()
    )
    listed = {path for finding in dataset.findings for group in finding.files for path in group}
    assert {file.path for file in dataset.skipped} <= listed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must have the columns path and label .*got none"),
        ("shape,color\nred,warm\n", "got shape, color .* rename the column of image files to path"),
        ("shape,color\nred/000.png,warm\n", "got shape, color .*; pass label_column=color"),
        ("path,label,path\na,b,c\n", "column names of a manifest must be unique, got path twice"),
        (
            table("red/000.png,warm,trian,"),
            "split must be train, val, test or empty, got 'trian' in row 2.*did you mean",
        ),
        (table("red/a,b.png,warm,train,"), "got 5 in row 2.*put quotes"),
        (table('red/"000.png,warm,,', '"half,,,'), "a manifest must be a readable table"),
        (table("red/000.png,warm,,"), "at least 2 classes, got 1"),
        (HEADER, "at least 2 classes, got 0"),
        (b"path,label\nred/\xe4.png,warm\n", "must be UTF-8 text"),
        (table("a\0b.png,warm,,", *ROWS[:1]), "at least 2 classes, got 1"),
    ],
)
def test_an_unusable_manifest_is_refused_with_the_reason(manifest: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        write_and_open(manifest, text)


def test_a_corrupt_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="a manifest must be a readable table"):
        open_source(str(tmp_path / "a.parquet"))


def test_images_may_be_outside_the_folder_of_the_manifest(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other_manifest = tmp_path / "elsewhere" / "labels.csv"
    text = table(*(f"../images/{row}" for row in ROWS[:2]), f"{manifest.parent}/red/001.png,warm,,")
    assert len(write_and_open(other_manifest, text).images) == 3
    assert write_and_open(other_manifest, text).skipped == ()


def test_a_group_is_in_one_split(manifest: Path) -> None:
    rows = [f"{color}/{i:03}.png,{color},,person {i % 4}" for color in ("red", "blue", "green") for i in range(8)]
    manifest.write_text(table(*rows))
    dataset = load_dataset(str(manifest))
    groups = {row.split(",")[0]: row.split(",")[3] for row in rows}
    group_splits = {(groups[sample.path], sample.split) for sample in dataset.samples}
    assert len(group_splits) == 4
    assert len(dataset.samples) == 24


def test_a_group_in_two_provided_splits_is_excluded_from_training(manifest: Path) -> None:
    rows = [f"red/{i:03}.png,red,{'test' if i > 4 else 'train'},{'ann' if i in (4, 5) else ''}" for i in range(8)]
    rows += [f"blue/{i:03}.png,blue,{'test' if i > 4 else 'train'}," for i in range(8)]
    manifest.write_text(table(*rows))
    dataset = load_dataset(str(manifest))
    files = {finding.kind: finding.files for finding in dataset.findings}
    assert files["group_leak"] == (("red/004.png", "red/005.png"),)
    assert [(file.path, file.reason) for file in dataset.skipped] == [
        ("red/004.png", "matches red/005.png in the test split (duplicate, near-duplicate or same group)")
    ]


def test_a_manifest_without_training_images_is_refused(manifest: Path) -> None:
    manifest.write_text(table(*(f"{color}/{i:03}.png,{color},test," for color in ("red", "blue") for i in range(4))))
    with pytest.raises(DataError, match="must each have at least one image, got none for train and val"):
        load_dataset(str(manifest))


def test_a_manifest_of_missing_files_is_refused(manifest: Path) -> None:
    manifest.write_text(table("a.png,cat,,", "b.png,dog,,"))
    with pytest.raises(DataError, match=r"none of 2 paths exists below .*; blue/000.png does: write paths like that"):
        load_dataset(str(manifest))
