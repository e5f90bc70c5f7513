"""Files that are no images are named by their first bytes; odd images are findings."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data.audit.report import audit
from data.dataset.image_index import content_hash_of
from data.errors import DataError
from data.load_dataset import load_dataset
from data.preprocessing import ImageError, read_image
from tests.conftest import MakeFolder, tiny_image

HAS_HEIF = importlib.util.find_spec("pi_heif") is not None
LARGE = (48, 40)


@pytest.mark.parametrize(
    ("content", "step"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", ".*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "a web page, .*download the image again"),
        (b"\xef\xbb\xbf\n <HTML>", "a web page"),
        (b'{"error": 404}', "JSON, .*download the image again"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "a video; extract images"),
        (bytes(128) + b"DICM" + bytes(300), "DICOM; convert it to PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG; convert it to PNG"),
        (b"%PDF-1.7", "PDF; convert its pages"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive; extract it"),
        (b"\xff\x0a" + bytes(100), "JPEG XL; convert it"),
    ],
)
def test_a_file_that_is_no_image_is_named_with_the_next_step(tmp_path: Path, content: bytes, step: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for source in (content, tmp_path / "a.jpg"):
        with pytest.raises(ImageError, match=rf"^is not an image that Pillow can read: it is {step}"):
            read_image(source)


@pytest.mark.skipif(HAS_HEIF, reason="pi-heif is installed")
def test_heic_names_the_package_that_reads_it() -> None:
    with pytest.raises(ImageError, match="it is HEIC; pip install pi-heif, or convert it to JPEG"):
        read_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))


@pytest.mark.skipif(not HAS_HEIF, reason="pi-heif is not installed")
def test_a_corrupt_heic_file_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^is "):
        read_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))


def white_drawing(seed: int) -> Image.Image:
    image = Image.new("RGBA", LARGE, (255, 255, 255, 0))
    draw = ImageDraw.Draw(image)
    for x, y in np.random.default_rng(seed).integers(0, 40, (12, 2)).tolist():
        draw.rectangle((x, y, x + 6, y + 3), fill=(255, 255, 255, 255))
    return image


def test_white_drawings_on_transparency_stay_visible(tmp_path: Path) -> None:
    assert len({content_hash_of(read_image(white_drawing(seed))) for seed in range(6)}) == 6
    for number in range(12):
        folder = tmp_path / "d" / ("circle" if number % 2 else "square")
        folder.mkdir(parents=True, exist_ok=True)
        white_drawing(number).save(folder / f"{number}.png")
    assert len(load_dataset(str(tmp_path / "d")).samples) == 12


def test_other_transparent_images_are_composited_over_white() -> None:
    hidden = tiny_image(0, 0, LARGE).convert("RGBA")
    hidden.putalpha(0)
    assert read_image(hidden).getextrema() == ((255, 255),) * 3
    half = tiny_image(0, 0, LARGE).convert("RGBA")
    half.putalpha(128)
    white = Image.alpha_composite(Image.new("RGBA", LARGE, "white"), half).convert("RGB")
    assert read_image(half).tobytes() == white.tobytes()


def test_odd_images_are_findings(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 8, "dog": 8}, size=LARGE)
    Image.new("RGB", LARGE, "navy").save(root / "cat" / "uniform.png")
    gray = np.asarray(tiny_image(0, 99, LARGE).convert("L")).astype(np.uint16)
    Image.fromarray(gray * 4).save(root / "cat" / "10 bits.png")
    Image.fromarray(np.asarray(tiny_image(0, 98, LARGE).convert("L")).astype(np.uint16) * 257).save(
        root / "cat" / "16 bits.png"
    )
    first, second = tiny_image(0, 97, LARGE), tiny_image(1, 97, LARGE)
    first.save(root / "cat" / "pages.tif", save_all=True, append_images=[second])
    files = {finding.kind: finding.files for finding in audit(load_dataset(str(root))).findings}
    assert files["uniform"] == (("cat/uniform.png",),)
    assert files["few_levels"] == (("cat/10 bits.png",),)
    assert files["pages"] == (("cat/pages.tif",),)


def test_identical_images_are_named_in_the_refusal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", LARGE, "white").save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match=r"distinct readable images .*such as a/0.png: is identical to b/0.png"):
        load_dataset(str(tmp_path))


def test_the_bytes_of_an_image_give_the_same_pixels_as_its_file(tmp_path: Path) -> None:
    white_drawing(1).save(tmp_path / "a.png")
    stream = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert read_image(stream.getvalue()).tobytes() == read_image(tmp_path / "a.png").tobytes()
