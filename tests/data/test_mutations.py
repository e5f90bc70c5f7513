"""Random mutations of valid inputs: each is loaded, or refused with a sentence; none is a traceback or a hang.

``make faults`` runs thousands of them (Hypothesis' profile ``faults``).
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.errors import DataError
from data.load_dataset import load_dataset
from tests.conftest import tiny_image

more_examples = settings(max_examples=max(250, settings().max_examples))
CLASSES = ("cat", "dog")
IMAGES = {f"{name}/{number}.png": (label, number) for label, name in enumerate(CLASSES) for number in range(5)}
NAMES = (
    *("train", "val", "test", "seg_train", "Test ", "valid", "eval", "cat", "dog", "Cat", "images", "labels", "0", "1"),
    *(
        ".hidden",
        "__MACOSX",
        "@eaDir",
        "a b",
        "ä",
        "🐱",
        "-x",
        "..x",
        "con",
        "x" * 200,
        "labels.csv",
        "README.md",
        "a.zip",
    ),
)

Changes = list[tuple[str, float, int, bytes]]
changes = st.lists(
    st.tuples(
        st.sampled_from(("replace", "delete", "insert", "repeat")),
        st.floats(0, 1),
        st.integers(1, 64),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def mutated(content: bytes, each_change: Changes) -> bytes:
    """Return ``content`` with bytes replaced, deleted, inserted or repeated."""
    for kind, position, length, new in each_change:
        start = int(position * len(content))
        old = content[start : start + length]
        middle = {"replace": new, "delete": b"", "insert": new + old, "repeat": old * 3}[kind]
        content = content[:start] + middle + content[start + length :]
    return content


def encoded(kind: str) -> bytes:
    """Return a small image in a format."""
    image, stream, gray = tiny_image(0, 99), io.BytesIO(), np.arange(320).reshape(16, 20)
    if kind == "16 bit":
        Image.fromarray((gray * 12).astype(np.uint16)).save(stream, "PNG")
    elif kind == "float":
        Image.fromarray((gray / 100 - 1).astype(np.float32)).save(stream, "TIFF")
    elif kind == "pages":
        image.save(stream, "TIFF", save_all=True, append_images=[tiny_image(1, 99)])
    elif kind == "palette":
        image.convert("P").save(stream, "PNG", transparency=0)
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(stream, "JPEG", exif=exif)
    else:
        image.save(stream, kind)
    return stream.getvalue()


FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "TGA")
CONTENTS = {kind: encoded(kind) for kind in (*FORMATS, "16 bit", "float", "pages", "palette", "exif")}


def write_images(folder: Path) -> None:
    """Write the images of two classes."""
    for path, key in IMAGES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        tiny_image(*key).save(folder / path)


def check(path: Path) -> None:
    """Load a data set; it has images of several classes, or one sentence for each problem says why not."""
    try:
        dataset = load_dataset(str(path))
    except DataError as error:
        problems = error.problems
    else:
        problems = ()
        assert len({sample.label for sample in dataset.samples}) > 1
        assert {sample.split for sample in dataset.samples} == {"train", "val", "test"}
    assert all(text.strip() and "\n" not in text for text in problems)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder with the images of two classes."""
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name))
        yield Path(name)


@more_examples
@given(st.lists(st.tuples(st.sampled_from(tuple(CONTENTS)), changes), min_size=1, max_size=4))
def test_mutated_images(images: list[tuple[str, Changes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name))
        for number, (kind, each_change) in enumerate(images):
            (Path(name) / CLASSES[number % 2] / f"x{number}.jpg").write_bytes(mutated(CONTENTS[kind], each_change))
        check(Path(name))


def tables() -> dict[str, bytes]:
    """Return tables of labels by the name of their file."""
    rows = [{"path": path, "label": Path(path).parent.name, "split": ""} for path in IMAGES]
    frame = pd.DataFrame(rows)
    one_hot = frame[["path"]].assign(**{label: (frame["label"] == label).astype(int) for label in CLASSES})
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    return {
        "a.csv": frame.to_csv(index=False).encode(),
        "a.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "b.csv": frame.to_csv(index=False, sep=";", lineterminator="\r\n").encode("utf-8-sig"),
        "c.csv": one_hot.to_csv(index=False).encode(),
        "a.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "a.parquet": parquet.getvalue(),
    }


TABLES = tables()


@more_examples
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.sampled_from(("image", "text", "folder"))
        ),
        max_size=24,
    )
)
def test_random_trees(entries: list[tuple[list[str], str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for number, (parts, kind) in enumerate(entries):
            path = Path(name, *parts)
            if any(parent.is_file() for parent in (path, *path.parents)):
                continue
            path.mkdir(parents=True, exist_ok=True)
            if kind == "image":
                tiny_image(number, number).save(path / f"{number}.png")
            elif kind == "text" and not any(path.iterdir()):
                path.rmdir()
                path.write_text("path,label\n0.png,cat\n")
        check(Path(name))


def archives() -> dict[str, bytes]:
    """Return archives of the images by the name of their file."""
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name))
        zipped, tarred = io.BytesIO(), {"a.tar": io.BytesIO(), "a.tar.gz": io.BytesIO()}
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in IMAGES:
                archive.write(Path(name) / path, path)
        for (file, stream), mode in zip(tarred.items(), ("w", "w:gz"), strict=True):
            with tarfile.open(name=file, fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
                for path in IMAGES:
                    archive.add(Path(name) / path, path)
    return {"a.zip": zipped.getvalue()} | {file: stream.getvalue() for file, stream in tarred.items()}


ARCHIVES = archives()


@pytest.mark.parametrize("contents", [TABLES, ARCHIVES], ids=["tables", "archives"])
@more_examples
@given(st.data(), changes)
def test_mutated_files(folder: Path, contents: dict[str, bytes], data: st.DataObject, each_change: Changes) -> None:
    name = data.draw(st.sampled_from(tuple(contents)))
    (folder / name).write_bytes(mutated(contents[name], each_change))
    check(folder / name)


@pytest.mark.parametrize("name", [*TABLES, *ARCHIVES])
def test_what_is_mutated_is_valid(folder: Path, name: str) -> None:
    (folder / name).write_bytes((TABLES | ARCHIVES)[name])
    assert len(load_dataset(str(folder / name)).samples) == len(IMAGES)


def test_every_kind_of_change_changes_the_content() -> None:
    for kind, position in itertools.product(("replace", "delete", "insert", "repeat"), (0.0, 0.5)):
        assert mutated(bytes(range(100)), [(kind, position, 3, b"xyz")]) != bytes(range(100))
