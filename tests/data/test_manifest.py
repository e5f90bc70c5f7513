from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from data.errors import DataError
from data.load_dataset import load_dataset
from data.sources.base import DataSource
from data.sources.resolve import open_source

HEADER = "path,label,split,group\n"


@pytest.fixture
def manifest(image_folder: Path) -> Path:
    """Return the path of a manifest yet to be written, with pictures beside it in blue/ green/ red/."""
    return image_folder / "my labels.csv"


def opened(manifest: Path, text: str | bytes) -> DataSource:
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(str(manifest))


def rows(*columns: str) -> str:
    return HEADER + "".join(f"{row}\n" for row in columns)


GOOD = ("red/000.png,warm,train,ann", "blue/000.png,cold,val,bob", "blue/001.png,cold,,")


def test_a_manifest_names_paths_labels_splits_and_groups(manifest: Path) -> None:
    source = opened(manifest, rows(*GOOD))
    assert (source.name, source.root, source.uri) == ("my-labels", manifest.parent, str(manifest))
    assert source.classes == ("cold", "warm")
    assert [(one.path, one.label, one.split, one.group) for one in source.images] == [
        ("blue/000.png", "cold", "val", "bob"),
        ("blue/001.png", "cold", None, None),
        ("red/000.png", "warm", "train", "ann"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + rows(*GOOD).encode(),
        rows(*GOOD).replace("\n", "\r\n"),
        rows(*GOOD).replace(",", ";"),
        rows(*GOOD).replace(",", "\t"),
        rows(*GOOD).replace("path,label", " Path ,LABEL"),
        rows(*(row.replace("/", "\\") for row in GOOD)),
        rows(*(row.replace(",", '","').join('""') for row in GOOD)),
        rows(*GOOD, "", ",,,"),
        rows(*("./" + row for row in GOOD)),
        rows(*GOOD).rstrip("\n"),
        rows(*GOOD).replace("train", "Training").replace("val", "valid"),
    ],
    ids=["bom", "crlf", "semicolons", "tabs", "header", "backslashes", "quotes", "empty rows", "dots", "end", "words"],
)
def test_a_manifest_reads_the_same_however_it_was_saved(manifest: Path, text: str | bytes) -> None:
    expected = opened(manifest, rows(*GOOD))
    assert opened(manifest, text) == expected


def test_a_parquet_manifest_reads_as_a_csv_one(manifest: Path) -> None:
    expected = opened(manifest, rows(*GOOD))
    table = pd.DataFrame([row.split(",") for row in GOOD], columns=HEADER.strip().split(",")).replace("", None)
    table.to_parquet(manifest.with_suffix(".parquet"))
    source = open_source(str(manifest.with_suffix(".parquet")))
    assert source.images == expected.images


def test_names_with_commas_quotes_and_line_breaks_are_quoted(manifest: Path) -> None:
    odd = 'red/a, "b"\nc.png'
    shutil.copy(manifest.parent / "red" / "000.png", manifest.parent / odd)
    source = opened(manifest, rows(f'"{odd.replace(chr(34), chr(34) * 2)}",warm,,', *GOOD))
    assert odd in {picture.path for picture in source.images}


def test_a_row_that_can_not_be_used_is_left_out_by_name(manifest: Path) -> None:
    source = opened(
        manifest,
        rows(
            *GOOD,
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
    assert {item.path[:20]: (item.reason, item.kind) for item in source.skipped} == {
        "red/gone.png": ("does not exist (row 5)", "missing"),
        "red/001.png": ("has no label in row 6", "unlabeled"),
        "row 7": ("has no path in row 7", "unlabeled"),
        "red/002.png": ("is listed as cold and warm in rows 8 and 9", "conflict"),
        "red/003.png": ("is listed with different splits or groups in rows 10 and 11", "unlabeled"),
        "x" * 20: ("does not exist (row 14)", "missing"),
    }
    assert [one.path for one in source.images].count("red/004.png") == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must have the columns path and label .*got none"),
        ("file,class\nred/000.png,warm\n", "got file, class"),
        ("path,label,path\na,b,c\n", "columns must differ, got path twice"),
        (
            rows("red/000.png,warm,trian,"),
            "split must be train, val, test or empty, got 'trian' in row 2.*did you mean",
        ),
        (rows("red/a,b.png,warm,train,"), "got 5 in row 2.*put quotes"),
        (rows('red/"000.png,warm,,', '"half,,,'), "a table that can be read"),
        (rows("red/000.png,warm,,"), "at least 2 classes, got 1"),
        (HEADER, "at least 2 classes, got 0"),
        (b"path,label\nred/\xe4.png,warm\n", "must be text in UTF-8"),
        (rows("a\0b.png,warm,,", *GOOD[:1]), "at least 2 classes, got 1"),
    ],
)
def test_a_manifest_that_can_not_be_used_says_why(manifest: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        opened(manifest, text)


def test_what_only_claims_to_be_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="a table that can be read"):
        open_source(str(tmp_path / "a.parquet"))


def test_pictures_may_lie_outside_the_manifests_folder(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "labels.csv"
    text = rows(*(f"../pictures/{row}" for row in GOOD[:2]), f"{manifest.parent}/red/001.png,warm,,")
    assert len(opened(moved, text).images) == 3
    assert opened(moved, text).skipped == ()


def test_a_group_is_never_divided(manifest: Path) -> None:
    text = [f"{color}/{at:03}.png,{color},,person {at % 4}" for color in ("red", "blue", "green") for at in range(8)]
    manifest.write_text(rows(*text))
    dataset = load_dataset(str(manifest))
    groups = {row.split(",")[0]: row.split(",")[3] for row in text}
    sides = {(groups[sample.path], sample.split) for sample in dataset.samples}
    assert len(sides) == 4
    assert len(dataset.samples) == 24


def test_a_group_in_two_given_splits_is_reported_and_left_out_of_training(manifest: Path) -> None:
    text = [f"red/{at:03}.png,red,{'test' if at > 4 else 'train'},{'ann' if at in (4, 5) else ''}" for at in range(8)]
    text += [f"blue/{at:03}.png,blue,{'test' if at > 4 else 'train'}," for at in range(8)]
    manifest.write_text(rows(*text))
    dataset = load_dataset(str(manifest))
    found = {finding.kind: finding.files for finding in dataset.findings}
    assert found["group_leak"] == (("red/004.png", "red/005.png"),)
    assert [(item.path, item.reason) for item in dataset.skipped] == [
        ("red/004.png", "belongs together with red/005.png of the test split")
    ]


def test_nothing_left_to_train_on_is_refused(manifest: Path) -> None:
    manifest.write_text(rows(*(f"{c}/{at:03}.png,{c},test," for c in ("red", "blue") for at in range(4))))
    with pytest.raises(DataError, match="must each have a picture, got none for train and val"):
        load_dataset(str(manifest))


def test_a_manifest_of_files_that_all_lack_is_refused(manifest: Path) -> None:
    manifest.write_text(rows("a.png,cat,,", "b.png,dog,,"))
    with pytest.raises(DataError, match=r"got none among 0 files .* \(2 are left out, such as a.png, which does not"):
        load_dataset(str(manifest))
