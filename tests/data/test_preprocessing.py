"""Decoding and preprocessing: formats, color modes, orientation, corrupt content and numbers."""

from __future__ import annotations

import ast
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import data.preprocessing
from data.frozen_model import FrozenModel
from data.preprocessing import ImageError, Preprocessing, normalize, read_image, to_pixels


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def corners(image: Image.Image) -> list[str]:
    """Return the color names of the four corners, clockwise from the top left."""
    positions = [(0, 0), (image.width - 1, 0), (image.width - 1, image.height - 1), (0, image.height - 1)]
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white", (0, 0, 0): "black"}
    return [names[tuple(int(value > 127) for value in image.getpixel(position))] for position in positions]  # type: ignore[union-attr]


def quarters() -> Image.Image:
    """Return an image of 32 x 16 pixels with red, green, blue and white quarters, clockwise."""
    image = Image.new("RGB", (32, 16), "red")
    image.paste((0, 255, 0), (16, 0, 32, 8))
    image.paste("blue", (16, 8, 32, 16))
    image.paste("white", (0, 8, 16, 16))
    return image


def test_the_shipped_module_imports_only_numpy_and_pillow() -> None:
    tree = ast.parse(Path(str(data.preprocessing.__file__)).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    standard_library = {"__future__", "contextlib", "dataclasses", "importlib", "io", "math", "pathlib", "typing"}
    assert {str(module).split(".")[0] for module in modules} - standard_library == {"numpy", "PIL"}


def test_preprocessing_has_a_json_round_trip() -> None:
    preprocessing = Preprocessing(64, 0.875, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


def test_preprocessing_can_be_a_field_of_a_model() -> None:
    class Model(FrozenModel):
        preprocessing: Preprocessing

    model = Model(preprocessing=Preprocessing(64))
    assert Model.from_json(model.to_json()) == model
    with pytest.raises(ValueError, match="color"):
        Model.from_json('{"preprocessing": {"image_size": 64, "color": 1}}')


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"image_size": 0}, "image_size must be 8 to 2048 pixels, got 0"),
        ({"image_size": 64, "crop_fraction": 0}, "crop_fraction must be above 0"),
        ({"image_size": 64, "interpolation": "cubic"}, "interpolation must be one of"),
        ({"image_size": 64, "mean": (0.5, 0.5)}, "mean must be three"),
        ({"image_size": 64, "std": (0.5, 0.5, 0.0)}, "std must be three"),
    ],
)
def test_preprocessing_is_validated_on_construction(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Preprocessing(**fields)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, "red green blue white"),
        (2, "green red white blue"),
        (3, "blue white red green"),
        (4, "white blue green red"),
        (5, "red white blue green"),
        (6, "white red green blue"),
        (7, "blue green red white"),
        (8, "green blue white red"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, expected: str, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    assert corners(read_image(encode(quarters(), kind, exif=exif, **options))) == expected.split()


def test_transparent_pixels_become_white() -> None:
    transparent = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert corners(read_image(encode(transparent))) == ["white"] * 4
    assert corners(read_image(encode(transparent.convert("LA")))) == ["white"] * 4
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert corners(read_image(encode(palette, transparency=0))) == ["white"] * 4
    assert corners(read_image(encode(Image.new("RGB", (8, 8)), transparency=(0, 0, 0)))) == ["white"] * 4


def test_semitransparent_pixels_are_blended_with_white() -> None:
    image = read_image(encode(Image.new("RGBA", (8, 8), (255, 0, 0, 128))))
    assert image.getpixel((4, 4)) == pytest.approx((255, 127, 127), abs=1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_every_color_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (8, 8), "white").convert(mode)
    assert read_image(image).mode == "RGB"
    assert corners(read_image(image)) == ["white"] * 4


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)])
def test_16_bits_are_scaled_to_8_bits(kind: str, dtype: type) -> None:
    ramp = np.tile(np.linspace(0, 65535, 32), (8, 1)).astype(dtype)
    pixels = np.asarray(read_image(encode(Image.fromarray(ramp), kind)))
    np.testing.assert_allclose(pixels[0, :, 0], np.linspace(0, 255, 32), atol=1)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floating_point_images_are_scaled_by_their_range(white: float) -> None:
    ramp = np.tile(np.linspace(0, white, 32), (8, 1)).astype(np.float32)
    pixels = np.asarray(read_image(encode(Image.fromarray(ramp), "TIFF")))
    np.testing.assert_allclose(pixels[0, :, 0], np.linspace(0, 255, 32), atol=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_reduced_to_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    animation = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert corners(read_image(animation)) == ["red"] * 4


def test_an_array_and_its_file_give_the_same_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image", "PNG")
    for source in (pixels, Image.fromarray(pixels), tmp_path / "image", (tmp_path / "image").read_bytes()):
        np.testing.assert_array_equal(np.asarray(read_image(source)), pixels)
    assert read_image(pixels[:, :, :1]).mode == "RGB"


def test_a_decompression_bomb_is_refused_before_decoding() -> None:
    content = encode(Image.new("1", (8, 8)))
    offset = content.index(b"IHDR") + 4
    fields = (30_000).to_bytes(4, "big") * 2 + content[offset + 8 : offset + 13]
    bomb = content[:offset] + fields + zlib.crc32(b"IHDR" + fields).to_bytes(4, "big") + content[offset + 17 :]
    with pytest.raises(ImageError, match="more than 89,000,000"):
        read_image(bomb)
    fields = (9_500).to_bytes(4, "big") * 2 + content[offset + 8 : offset + 13]  # Pillow only warns at this size
    bomb = content[:offset] + fields + zlib.crc32(b"IHDR" + fields).to_bytes(4, "big") + content[offset + 17 :]
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ImageError, match="has 90,250,000 pixels"):
        read_image(bomb)


def noise(kind: str, **options: Any) -> bytes:
    return encode(Image.effect_noise((64, 64), 90).convert("RGB"), kind, **options)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"not an image at all", "is not an image"),
        (noise("JPEG")[:-500], "is truncated"),
        (noise("JPEG", progressive=True)[:-500], "is truncated"),
        (noise("PNG")[:-500], "is truncated|is corrupt"),
        (noise("WEBP")[:-500], "is corrupt|is truncated|is not an image"),
        (noise("GIF")[:-500], "is truncated|is corrupt"),
        (noise("JPEG")[:30], "is not an image|is truncated|is corrupt"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "is not an image"),
    ],
)
def test_corrupt_content_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(content)


FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "MPO", "PCX", "SGI")
INTACT = {kind: encode(Image.effect_noise((24, 24), 90).convert("RGB"), kind) for kind in FORMATS}


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(FORMATS), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8), st.data())
def test_corrupt_files_of_any_format_are_decoded_or_raise_an_image_error(
    kind: str, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    content = bytearray(INTACT[kind][: data.draw(st.integers(1, len(INTACT[kind])))])
    for offset, value in changes:
        content[offset % len(content)] = value
    reason = ""
    try:
        assert read_image(bytes(content)).mode == "RGB"
    except ImageError as error:
        reason = str(error)
    assert reason == "" or reason.startswith(("is ", "has "))


def test_a_jpeg_without_an_end_marker_is_decoded() -> None:
    complete = noise("JPEG")
    np.testing.assert_array_equal(np.asarray(read_image(complete[:-2])), np.asarray(read_image(complete)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_with_corrupt_exif_data_is_decoded() -> None:
    content = encode(quarters(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert corners(read_image(content))[0] == "red"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (Path("/no/such/image"), "does not exist"),
        (Path("/"), "is a folder"),
    ],
)
def test_an_unusable_source_is_refused_with_the_reason(source: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(source)


def test_pixels_are_the_center_crop_at_the_input_size() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 0, 255), (10, 0, 20, 10))
    pixels = to_pixels(image, Preprocessing(16, interpolation="nearest"))
    assert pixels.shape == (16, 16, 3)
    assert (pixels == (0, 0, 255)).all()


def test_the_crop_is_a_fraction_of_the_short_side() -> None:
    image = Image.new("RGB", (100, 100), "red")
    image.paste((0, 0, 255), (20, 20, 80, 80))
    assert (to_pixels(image, Preprocessing(16, crop_fraction=0.6, interpolation="nearest")) == (0, 0, 255)).all()


def test_one_step_cropping_equals_resizing_and_cropping() -> None:
    noisy = Image.effect_noise((288, 192), 60).convert("RGB")
    resized = noisy.resize((96, 64), Image.Resampling.BICUBIC)
    expected = np.asarray(resized.crop((20, 4, 76, 60)), dtype=float)
    difference = np.abs(to_pixels(noisy, Preprocessing(56, crop_fraction=56 / 64)) - expected)
    assert difference.max() <= 1


def test_a_very_long_image_can_be_resized() -> None:
    assert to_pixels(Image.new("RGB", (1, 50_000)), Preprocessing(64)).shape == (64, 64, 3)


def test_normalize_standardizes_the_channels_and_returns_channels_last_memory() -> None:
    preprocessing = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    values = normalize(pixels, preprocessing)
    expected = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert values.transpose(0, 2, 3, 1).flags.c_contiguous
