"""Unusual and corrupt files: each case adds one file to a valid folder and states the expected outcome."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from data.preprocessing import Preprocessing, read_image
from tests.conftest import MakeFolder, tiny_image

INCLUDED = "included"
IGNORED = "ignored"


class Case(NamedTuple):
    """A file name, its content (bytes, or a function that creates the file), and the outcome (or its first words)."""

    name: str
    content: bytes | Callable[[Path], None]
    outcome: str


def photo(size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    return tiny_image(0, 1234, size).convert(mode)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg_with_exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encode(photo(), "JPEG", exif=tags)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """Return a grayscale PNG with the given size in its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 3_000_000, zip=True)
    return encode(photo(), pnginfo=info)


def with_wrong_checksum() -> bytes:
    content = bytearray(encode(photo()))
    content[content.index(b"IDAT") + 8] ^= 0xFF
    return bytes(content)


def high_bit_depth(bits: int, kind: str) -> bytes:
    ramp = np.tile(np.linspace(0, 2**bits - 1, 48), (40, 1))
    return encode(Image.fromarray(ramp.astype({16: np.uint16, 32: np.int32}[bits])), kind)


def float_tiff() -> bytes:
    values = np.random.default_rng(0).random((40, 48), dtype=np.float32)
    values[3, 3] = np.nan
    return encode(Image.fromarray(values), "TIFF")


def transparent_palette() -> bytes:
    image = photo().convert("P", palette=Image.Palette.ADAPTIVE)
    return encode(image, transparency=0)


def frames(kind: str) -> bytes:
    return encode(photo(), kind, save_all=True, append_images=[tiny_image(1, 1, (48, 40))])


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def link_to_an_image(path: Path) -> None:
    target = path.parents[2] / "elsewhere.png"
    photo().save(target)
    path.symlink_to(target)


JPEG, PNG = encode(photo(), "JPEG"), encode(photo())
NO_IMAGE = "is not an image that Pillow can read"
TRUNCATED = "is truncated: the file ends before the image data does"
CASES = [
    Case("truncated.jpg", JPEG[:-200], TRUNCATED),
    Case("truncated progressive.jpg", encode(photo(), "JPEG", progressive=True)[:-200], TRUNCATED),
    Case("only a header.jpg", JPEG[:200], "is "),
    Case("truncated.png", PNG[:-300], "is "),
    Case("truncated.gif", encode(photo(), "GIF")[:-300], "is "),
    Case("truncated.webp", encode(photo(), "WEBP")[:-100], "is "),
    Case("truncated.tif", encode(photo(), "TIFF")[:-300], "is "),
    Case("truncated.bmp", encode(photo(), "BMP")[:-300], TRUNCATED),
    Case("no end marker.jpg", JPEG[:-2], INCLUDED),
    Case("junk at the end.jpg", JPEG + b"junk" * 100, INCLUDED),
    Case("junk at the end.png", PNG + b"junk" * 100, INCLUDED),
    Case("empty.jpg", b"", "is empty (0 bytes)"),
    Case("text.png", b"this is text", NO_IMAGE),
    Case("error page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", NO_IMAGE),
    Case("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', NO_IMAGE),
    Case("document.pdf", b"%PDF-1.7\n%%EOF", NO_IMAGE),
    Case("postscript.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", NO_IMAGE),
    Case("video.mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2mp41" + bytes(100), NO_IMAGE),
    Case("gzipped.jpg", gzip.compress(JPEG), NO_IMAGE),
    Case("archive.zip", b"PK\x05\x06" + bytes(18), NO_IMAGE),
    Case("zeros.jpg", bytes(5000), NO_IMAGE),
    Case("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), IGNORED),
    *[Case(f"exif {value}.jpg", jpeg_with_exif(value), INCLUDED) for value in range(1, 9)],
    Case("exif 99.jpg", jpeg_with_exif(99), INCLUDED),
    Case("broken exif.jpg", encode(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff junk"), INCLUDED),
    Case("cmyk.jpg", encode(photo(mode="CMYK"), "JPEG"), INCLUDED),
    Case("gray.jpg", encode(photo(mode="L"), "JPEG"), INCLUDED),
    Case("16 bit.png", high_bit_depth(16, "PNG"), INCLUDED),
    Case("16 bit.tif", high_bit_depth(16, "TIFF"), INCLUDED),
    Case("floating.tif", float_tiff(), INCLUDED),
    Case("lab.tif", encode(Image.new("LAB", (48, 40), (120, 200, 160)), "TIFF"), INCLUDED),
    Case("grayscale with alpha.png", encode(photo(mode="LA")), INCLUDED),
    Case("alpha.png", encode(photo(mode="RGBA")), INCLUDED),
    Case("one bit.png", encode(photo(mode="1")), INCLUDED),
    Case("palette.png", encode(photo(mode="P")), INCLUDED),
    Case("transparent palette.png", transparent_palette(), INCLUDED),
    Case("1 x 5000.png", encode(Image.effect_noise((1, 5000), 99)), INCLUDED),
    Case("5000 x 1.png", encode(Image.effect_noise((5000, 1), 99)), INCLUDED),
    Case("one pixel.png", encode(Image.new("RGB", (1, 1), (9, 8, 7))), INCLUDED),
    Case("no pixel.png", png(0, 0), "is "),
    Case("bomb.png", png(60_000, 60_000), "has more than 89,000,000 pixels"),
    Case("bomb that Pillow accepts.png", png(9_500, 9_500), "has 90,250,000 pixels, more than 89,000,000"),
    Case("less data than its header says.png", png(2_000, 2_000, bytes(9)), "is "),
    Case("text bomb.png", text_bomb(), "is corrupt"),
    Case("wrong checksum.png", with_wrong_checksum(), "is corrupt"),
    Case("animated.gif", frames("GIF"), INCLUDED),
    Case("animated.webp", frames("WEBP"), INCLUDED),
    Case("animated.png", frames("PNG"), INCLUDED),
    Case("pages.tif", frames("TIFF"), INCLUDED),
    Case("phone.jpg", frames("MPO"), INCLUDED),
    Case("a png.jpg", PNG, INCLUDED),
    Case("no extension", JPEG, INCLUDED),
    Case("UPPERCASE.JPG", JPEG, INCLUDED),
    Case("a.jfif", JPEG, INCLUDED),
    Case("a.txt", JPEG, INCLUDED),
    Case("a.avif", encode(photo(), "AVIF"), INCLUDED),
    Case("a.jp2", encode(photo(), "JPEG2000"), INCLUDED),
    Case("a.ico", encode(photo((32, 32)), "ICO"), INCLUDED),
    Case("a.ppm", encode(photo(), "PPM"), INCLUDED),
    Case("a.tga", encode(photo(), "TGA"), INCLUDED),
    Case("图片 🐱.png", PNG, INCLUDED),
    Case("two\nlines\t.png", PNG, INCLUDED),
    Case("-rf; $(x) 'q' \"d\" [1] %s {0}.png", PNG, INCLUDED),
    Case("l" * 251 + ".png", PNG, INCLUDED),
    Case("._000.png", b"\x00\x05\x16\x07", IGNORED),
    Case(".DS_Store", b"\x00\x00\x00\x01Bud1", IGNORED),
    Case(".hidden.png", PNG, IGNORED),
    Case("a link.png", link_to_an_image, INCLUDED),
    Case("a broken link.png", link_to("/no/such/file"), "is a link to a file that does not exist"),
    Case("a link to itself.png", link_to("a link to itself.png"), "is a link to a file that does not exist"),
    Case("a pipe.png", os.mkfifo, "is not a regular file"),
    Case("a folder.png", Path.mkdir, IGNORED),
]


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    return make_folder({"cat": 3, "dog": 3}, size=(48, 40))


def add_file(folder: Path, case: Case) -> None:
    path = folder / "cat" / case.name
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        case.content(path)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return one data set with the files of all cases, and with images that are valid."""
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "images"
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            tiny_image(label, number, (48, 40)).save(folder / name / f"{number:03}.png")
    for case in CASES:
        add_file(folder, case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREEZELINE_HOME", str(root / "home"))
        return load_dataset(str(folder))


def test_there_are_more_than_seventy_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 70


@pytest.mark.parametrize("case", CASES, ids=[repr(case.name) for case in CASES])
def test_each_file_has_the_expected_outcome(loaded: Dataset, case: Case) -> None:
    path = f"cat/{case.name}"
    outcomes = [INCLUDED for sample in loaded.samples if sample.path == path]
    outcomes += [file.reason for file in loaded.skipped if file.path == path]
    if case.outcome == IGNORED:
        assert outcomes == []
    else:
        (outcome,) = outcomes
        assert outcome.startswith(case.outcome)
        assert "\n" not in outcome


def test_all_files_together_do_not_affect_the_valid_images(loaded: Dataset) -> None:
    valid = {f"{name}/{number:03}.png" for name in ("cat", "dog") for number in range(3)}
    assert {sample.path for sample in loaded.samples} >= valid
    pixels, _ = pixel_cache(loaded, Preprocessing(16)).split("train")
    assert len(pixels) == len(loaded.split("train"))


def test_every_exif_orientation_gives_the_same_upright_image() -> None:
    upright = photo()
    stored_with = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = orientation
        stored = upright.transpose(stored_with[orientation]) if orientation in stored_with else upright
        assert read_image(encode(stored, "PNG", exif=tags)).tobytes() == upright.tobytes()


def test_a_file_without_read_permission_is_skipped_with_a_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def guarded(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.parts[-2:] == ("cat", "001.png"):
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    for number in (7, 8):
        tiny_image(0, number, (48, 40)).save(folder / "cat" / f"more {number}.png")
    monkeypatch.setattr(Path, "open", guarded)
    skipped = {file.path: file.reason for file in load_dataset(str(folder)).skipped if "cat" in file.path}
    assert skipped == {"cat/001.png": "cannot be opened: permission denied"}
