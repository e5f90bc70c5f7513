"""What people's folders hold: each case is one file put among good ones, with the outcome that a user would want."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from data.preprocessing import Preprocessing, read_image
from tests.conftest import MakeFolder, tiny_image

COUNTS = "counts"
PASSED_OVER = "passed over"


class Case(NamedTuple):
    """A file's name, what it holds (bytes, or a function that makes it), and what becomes of it."""

    name: str
    content: bytes | Callable[[Path], None]
    outcome: str


def photo(size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    return tiny_image(0, 1234, size).convert(mode)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encode(photo(), "JPEG", exif=tags)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """Return a gray PNG that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 3_000_000, zip=True)
    return encode(photo(), pnginfo=info)


def with_wrong_checksum() -> bytes:
    content = bytearray(encode(photo()))
    content[content.index(b"IDAT") + 8] ^= 0xFF
    return bytes(content)


def deep(bits: int, kind: str) -> bytes:
    ramp = np.tile(np.linspace(0, 2**bits - 1, 48), (40, 1))
    return encode(Image.fromarray(ramp.astype({16: np.uint16, 32: np.int32}[bits])), kind)


def floating() -> bytes:
    values = np.random.default_rng(0).random((40, 48), dtype=np.float32)
    values[3, 3] = np.nan
    return encode(Image.fromarray(values), "TIFF")


def clear_palette() -> bytes:
    image = photo().convert("P", palette=Image.Palette.ADAPTIVE)
    return encode(image, transparency=0)


def frames(kind: str) -> bytes:
    return encode(photo(), kind, save_all=True, append_images=[tiny_image(1, 1, (48, 40))])


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def linked_to_a_picture(path: Path) -> None:
    target = path.parents[2] / "elsewhere.png"
    photo().save(target)
    path.symlink_to(target)


JPEG, PNG = encode(photo(), "JPEG"), encode(photo())
NO_PICTURE = "is no picture that Pillow can read"
CUT = "is truncated: the file ends before the picture does"
CASES = [
    Case("truncated.jpg", JPEG[:-200], CUT),
    Case("truncated progressive.jpg", encode(photo(), "JPEG", progressive=True)[:-200], CUT),
    Case("only a header.jpg", JPEG[:200], "is "),
    Case("truncated.png", PNG[:-300], "is "),
    Case("truncated.gif", encode(photo(), "GIF")[:-300], "is "),
    Case("truncated.webp", encode(photo(), "WEBP")[:-100], "is "),
    Case("truncated.tif", encode(photo(), "TIFF")[:-300], "is "),
    Case("truncated.bmp", encode(photo(), "BMP")[:-300], CUT),
    Case("no end marker.jpg", JPEG[:-2], COUNTS),
    Case("junk at the end.jpg", JPEG + b"junk" * 100, COUNTS),
    Case("junk at the end.png", PNG + b"junk" * 100, COUNTS),
    Case("empty.jpg", b"", "is empty (0 bytes)"),
    Case("text.png", b"this is text", NO_PICTURE),
    Case("error page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", NO_PICTURE),
    Case("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', NO_PICTURE),
    Case("paper.pdf", b"%PDF-1.7\n%%EOF", NO_PICTURE),
    Case("postscript.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", NO_PICTURE),
    Case("film.mp4", b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2mp41" + bytes(100), NO_PICTURE),
    Case("packed.jpg", gzip.compress(JPEG), NO_PICTURE),
    Case("archive.zip", b"PK\x05\x06" + bytes(18), NO_PICTURE),
    Case("zeros.jpg", bytes(5000), NO_PICTURE),
    Case("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is "),
    *[Case(f"exif {turn}.jpg", exif(turn), COUNTS) for turn in range(1, 9)],
    Case("exif 99.jpg", exif(99), COUNTS),
    Case("broken exif.jpg", encode(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff junk"), COUNTS),
    Case("cmyk.jpg", encode(photo(mode="CMYK"), "JPEG"), COUNTS),
    Case("gray.jpg", encode(photo(mode="L"), "JPEG"), COUNTS),
    Case("16 bit.png", deep(16, "PNG"), COUNTS),
    Case("16 bit.tif", deep(16, "TIFF"), COUNTS),
    Case("floating.tif", floating(), COUNTS),
    Case("lab.tif", encode(Image.new("LAB", (48, 40), (120, 200, 160)), "TIFF"), COUNTS),
    Case("gray and alpha.png", encode(photo(mode="LA")), COUNTS),
    Case("alpha.png", encode(photo(mode="RGBA")), COUNTS),
    Case("one bit.png", encode(photo(mode="1")), COUNTS),
    Case("palette.png", encode(photo(mode="P")), COUNTS),
    Case("palette with a hole.png", clear_palette(), COUNTS),
    Case("1 x 5000.png", encode(Image.effect_noise((1, 5000), 99)), COUNTS),
    Case("5000 x 1.png", encode(Image.effect_noise((5000, 1), 99)), COUNTS),
    Case("one pixel.png", encode(Image.new("RGB", (1, 1), (9, 8, 7))), COUNTS),
    Case("no pixel.png", png(0, 0), "is "),
    Case("bomb.png", png(60_000, 60_000), "has more than 89,000,000 pixels"),
    Case("bomb that Pillow lets pass.png", png(9_500, 9_500), "has 90,250,000 pixels, more than 89,000,000"),
    Case("promises more than it has.png", png(2_000, 2_000, bytes(9)), "is "),
    Case("text bomb.png", text_bomb(), "is broken"),
    Case("wrong checksum.png", with_wrong_checksum(), "is broken"),
    Case("moving.gif", frames("GIF"), COUNTS),
    Case("moving.webp", frames("WEBP"), COUNTS),
    Case("moving.png", frames("PNG"), COUNTS),
    Case("pages.tif", frames("TIFF"), COUNTS),
    Case("phone.jpg", frames("MPO"), COUNTS),
    Case("a png.jpg", PNG, COUNTS),
    Case("no extension", JPEG, COUNTS),
    Case("LOUD.JPG", JPEG, COUNTS),
    Case("a.jfif", JPEG, COUNTS),
    Case("a.txt", JPEG, COUNTS),
    Case("a.avif", encode(photo(), "AVIF"), COUNTS),
    Case("a.jp2", encode(photo(), "JPEG2000"), COUNTS),
    Case("a.ico", encode(photo((32, 32)), "ICO"), COUNTS),
    Case("a.ppm", encode(photo(), "PPM"), COUNTS),
    Case("a.tga", encode(photo(), "TGA"), COUNTS),
    Case("图片 🐱.png", PNG, COUNTS),
    Case("two\nlines\t.png", PNG, COUNTS),
    Case("-rf; $(x) 'q' \"d\" [1] %s {0}.png", PNG, COUNTS),
    Case("l" * 251 + ".png", PNG, COUNTS),
    Case("._000.png", b"\x00\x05\x16\x07", PASSED_OVER),
    Case(".DS_Store", b"\x00\x00\x00\x01Bud1", PASSED_OVER),
    Case(".hidden.png", PNG, PASSED_OVER),
    Case("a link.png", linked_to_a_picture, COUNTS),
    Case("a broken link.png", linked("/no/such/file"), "is a link to a file that does not exist"),
    Case("a link to itself.png", linked("a link to itself.png"), "is a link to a file that does not exist"),
    Case("a pipe.png", os.mkfifo, "is no regular file"),
    Case("a folder.png", Path.mkdir, PASSED_OVER),
]


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    return make_folder({"cat": 3, "dog": 3}, size=(48, 40))


def put(folder: Path, case: Case) -> str:
    path = folder / "cat" / case.name
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        case.content(path)
    return f"cat/{case.name}"


def found_outcome(folder: Path, path: str) -> Iterator[str]:
    dataset = load_dataset(str(folder))
    yield from (COUNTS for sample in dataset.samples if sample.path == path)
    yield from (item.reason for item in dataset.skipped if item.path == path)


def test_there_are_at_least_forty_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 70


@pytest.mark.parametrize("case", CASES, ids=[repr(case.name) for case in CASES])
def test_a_file_that_people_have_ends_as_they_would_want(folder: Path, case: Case) -> None:
    outcomes = list(found_outcome(folder, put(folder, case)))
    if case.outcome == PASSED_OVER:
        assert outcomes == []
    else:
        (outcome,) = outcomes
        assert outcome.startswith(case.outcome)
        assert "\n" not in outcome


def test_all_of_them_at_once_cost_no_good_picture(folder: Path) -> None:
    paths = {put(folder, case): case.outcome for case in CASES}
    dataset = load_dataset(str(folder))
    counting = {path for path, outcome in paths.items() if outcome == COUNTS}
    assert {sample.path for sample in dataset.samples} >= counting
    pixels, _ = pixel_cache(dataset, Preprocessing(16)).split("train")
    assert len(pixels) == len(dataset.split("train"))


def test_every_orientation_shows_the_same_picture_upright() -> None:
    upright = photo()
    for turn, back in enumerate(
        (
            None,
            *[
                getattr(Image.Transpose, name)
                for name in (
                    "FLIP_LEFT_RIGHT",
                    "ROTATE_180",
                    "FLIP_TOP_BOTTOM",
                    "TRANSPOSE",
                    "ROTATE_90",
                    "TRANSVERSE",
                    "ROTATE_270",
                )
            ],
        ),
        start=1,
    ):
        tags = Image.Exif()
        tags[0x0112] = turn
        stored = upright if back is None else upright.transpose(back)
        assert read_image(encode(stored, "PNG", exif=tags)).tobytes() == upright.tobytes()


def test_a_file_without_permission_is_left_out_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def guarded(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.parts[-2:] == ("cat", "001.png"):
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    for number in (7, 8):
        tiny_image(0, number, (48, 40)).save(folder / "cat" / f"more {number}.png")
    monkeypatch.setattr(Path, "open", guarded)
    left_out = {item.path: item.reason for item in load_dataset(str(folder)).skipped if "cat" in item.path}
    assert left_out == {"cat/001.png": "can't be opened: permission denied"}
