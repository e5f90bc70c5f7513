"""Image decoding and preprocessing, from a file, bytes or array to the input of a network.

The packaged model ships this file verbatim, so that training and serving use the same code. Therefore it imports
only numpy and PIL.

Shapes: b = batch size, s = ``image_size`` in pixels, 3 channels in RGB order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import math
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 89_000_000  # width x height; checked before decoding (Pillow warns from about this size)
WHITE_EXTREMA = ((255, 255),) * 4  # minimum and maximum by channel of a white image
ORIENTATION_TAG = 0x0112
EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Pillow renders EPS and WMF with external programs; the other formats are stubs without a decoder.
HEAD_BYTES = 512
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
FIRST_BYTES = {  # in lower case
    b"version https://git-lfs": "it is a Git LFS pointer; fetch the image with git lfs pull",
    b"<!doctype html": "it is a web page, perhaps an error message; download the image again",
    b"<html": "it is a web page, perhaps an error message; download the image again",
    b"<svg": "it is SVG; convert it to PNG",
    b"<?xml": "it is XML, perhaps SVG; convert it to PNG",
    b"%pdf": "it is PDF; convert its pages to PNG",
    b"%!ps": "it is PostScript; convert it to PNG",
    b"\x93numpy": "it is a NumPy array; save it as PNG",
    b"\xff\x0a": "it is JPEG XL; convert it to JPEG",
    b"pk\x03\x04": "it is a ZIP archive; extract it",
    b"\x1f\x8b": "it is compressed with gzip; decompress it",
    b"{": "it is JSON, perhaps an error message; download the image again",
}
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")  # tried first; Pillow would try slower ones before
DISABLED_FORMATS = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}


class ImageError(ValueError):
    """An image that cannot be read; ``str()`` is the reason, to be printed after the file name."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of every image; defined by the backbone and saved with the model.

    Attributes:
        image_size: side of the square network input, in pixels.
        crop_fraction: side of the center crop as a fraction of the short side, above 0 and at most 1.
        interpolation: nearest, bilinear, bicubic or lanczos.
        mean: channel means (red, green, blue) on the scale 0 to 1.
        std: channel standard deviations on the same scale, each above 0.
        value_range: values that become black and white in images of more than 8 bits; None: 0 and the highest value of
            the image's type.
    """

    image_size: int
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    value_range: tuple[float, float] | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        for name in ("mean", "std", "value_range"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))

    def _problems(self) -> list[str]:
        rules = {
            f"image_size must be 8 to 2048 pixels, got {self.image_size}": 8 <= self.image_size <= 2048,
            f"crop_fraction must be above 0 and at most 1, got {self.crop_fraction}": 0 < self.crop_fraction <= 1,
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}": (
                self.interpolation in INTERPOLATIONS
            ),
            f"mean must be three finite numbers, got {self.mean}": (
                len(self.mean) == 3 and all(math.isfinite(value) for value in self.mean)
            ),
            f"std must be three finite numbers above 0, got {self.std}": (
                len(self.std) == 3 and all(math.isfinite(value) and value > 0 for value in self.std)
            ),
            f"value_range must be two finite numbers in ascending order, got {self.value_range}": (
                self.value_range is None
                or (len(self.value_range) == 2 and -math.inf < self.value_range[0] < self.value_range[1] < math.inf)
            ),
        }
        return [rule for rule, is_met in rules.items() if not is_met]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of JSON types, the input of ``from_dict``."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """Restore an instance from the output of ``to_dict``.

        Raises:
            TypeError: a field is unknown.
            ValueError: a value is invalid.
        """
        kwargs: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**kwargs)


def read_image(
    source: bytes | Path | Image.Image | Pixels, value_range: tuple[float, float] | None = None
) -> Image.Image:
    """Decode the bytes or path of a file, a PIL image, or an array [height, width(, 1, 3 or 4)] to upright RGB.

    The content of a file determines its format, not its extension. EXIF orientation is applied, transparent pixels are
    composited over white (over black if nothing would be visible on white), more than 8 bits are scaled to 8 by
    ``value_range``, and an animation is reduced to its first frame.

    Raises:
        ImageError: the source is empty, not an image, truncated, corrupt, above ``MAX_PIXELS``, or cannot be opened.
    """
    return to_rgb(decode_image(source), value_range)


def decode_image(source: bytes | Path | Image.Image | Pixels) -> Image.Image:
    """Decode a source of ``read_image`` to an upright image with its original values.

    Its mode is RGB; RGBA if pixels are transparent; or, with more than 8 bits, I (whole numbers) or F (finite numbers).

    Raises:
        ImageError: as for ``read_image``.
    """
    if isinstance(source, np.ndarray):
        return _in_common_mode(_from_array(source))
    try:
        if isinstance(source, Image.Image):
            return _upright(source)
        if isinstance(source, bytes):
            return _read_stream(io.BytesIO(source), size=len(source))
        with source.open("rb") as stream:
            return _read_stream(stream, size=source.stat().st_size)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow raises many exception types for corrupt files
        raise ImageError(_reason(error)) from error


def to_rgb(image: Image.Image, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Return an image of ``decode_image`` as RGB; ``read_image`` describes the rules."""
    if image.mode in ("I", "F"):
        image = Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64), value_range or _type_range(image)))
    if image.mode == "RGBA":
        on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        is_invisible = on_white.getextrema() == WHITE_EXTREMA and image.getchannel("A").getextrema() != (0, 0)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image) if is_invisible else on_white
    return image.convert("RGB")


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Return the center crop of an image at the input size of the network: uint8 [s, s, 3].

    Equivalent to resizing the short side to ``s / crop_fraction`` and cropping the center, but done in one step:
    no intermediate image is larger than s by s, even if the original is very long and thin.
    """
    side = min(image.size) * preprocessing.crop_fraction
    left, top = (image.width - side) / 2, (image.height - side) / 2
    size = (preprocessing.image_size, preprocessing.image_size)
    resample = INTERPOLATIONS[preprocessing.interpolation]
    crop = image.convert("RGB").resize(size, resample, box=(left, top, left + side, top + side))
    return np.asarray(crop, dtype=np.uint8)


def normalize(pixels: Pixels, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return (pixels / 255 - mean) / std: uint8 [b, s, s, 3] to float32 [b, 3, s, s].

    The result is a transposed view, so that ``torch.from_numpy`` returns a tensor in channels_last format.
    """
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    rows = pixels.reshape(*pixels.shape[:2], -1)  # [b, s, s * 3]: several times faster than rows of 3
    values = np.multiply(rows, np.tile(1 / (255 * std), pixels.shape[2]).astype(np.float32), dtype=np.float32)
    values += np.tile(-mean / std, pixels.shape[2]).astype(np.float32)
    return values.reshape(pixels.shape).transpose(0, 3, 1, 2)


def _read_stream(stream: BinaryIO, size: int) -> Image.Image:
    if size == 0:
        raise ImageError("is empty (0 bytes)")
    with _open(stream) as image:
        try:
            return _upright(image)
        except OSError:
            if image.format not in ("JPEG", "MPO"):
                raise
            stream.seek(0)
            complete = _read_jpeg_without_end_marker(stream.read())
            if complete is None:
                raise
            return complete


def _open(stream: BinaryIO) -> Image.Image:
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    Image.init()
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        _register_heif()
    try:
        formats = dict.fromkeys([*(name for name in COMMON_FORMATS if name in Image.OPEN), *Image.OPEN])
        return Image.open(stream, formats=[name for name in formats if name not in DISABLED_FORMATS])
    except UnidentifiedImageError as error:
        kind = _kind(head)
        raise ImageError("is not an image that Pillow can read" + (f": {kind}" if kind else "")) from error


def _register_heif() -> None:
    """Let Pillow read HEIC and HEIF, if the optional package pi-heif is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pi_heif").register_heif_opener()


def _kind(head: bytes) -> str:
    """Return the kind of a file by its first bytes, with the next step; empty if it is unknown."""
    if head[4:8] == b"ftyp":
        is_heif = head[8:12] in HEIF_BRANDS
        return "it is HEIC; pip install pi-heif, or convert it to JPEG" if is_heif else "it is a video; extract images"
    if head[128:132] == b"DICM":
        return "it is DICOM; convert it to PNG, for example with pydicom"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for start, kind in FIRST_BYTES.items() if text.startswith(start)), "")


def _read_jpeg_without_end_marker(content: bytes) -> Image.Image | None:
    """Decode a JPEG in which only the end marker is missing; return None if pixel data is missing as well.

    The content is decoded with two different endings: the results differ only if pixel data is missing.
    """
    images = []
    for ending in (b"", b"\x5a\xc3" * 64):
        with Image.open(io.BytesIO(content + ending + b"\xff\xd9"), formats=["JPEG"]) as image:
            images.append(_upright(image))
    return images[0] if images[0].tobytes() == images[1].tobytes() else None


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"has {image.width * image.height:,} pixels, more than {MAX_PIXELS:,}")
    image.load()
    transpose = EXIF_TRANSPOSE.get(_orientation(image))
    decoded = _in_common_mode(image)
    return decoded if transpose is None else decoded.transpose(transpose)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # corrupt EXIF data: assume that the image is upright
        return 1


def _in_common_mode(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return Image.fromarray(np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0))
    if image.mode == "I" or image.mode.startswith("I;"):
        return Image.fromarray(np.asarray(image).astype(np.int32))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return image.convert("RGB") if image.getchannel("A").getextrema() == (255, 255) else image
    return image.convert("RGB")


def _type_range(image: Image.Image) -> tuple[float, float]:
    """Return 0 and 65535; for floating-point numbers 0 and the first of 1, 255 and 65535 not below the maximum."""
    maximum = float(image.getextrema()[1])  # type: ignore[arg-type]  # one channel
    white_levels = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    return 0.0, next((white for white in white_levels if maximum <= white), maximum)


def _to_8_bits(values: npt.NDArray[np.float64], value_range: tuple[float, float]) -> Pixels:
    black, white = value_range
    return np.round(np.clip((values - black) / (white - black), 0, 1) * 255).astype(np.uint8)


def _from_array(pixels: Pixels) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise ImageError(f"must be an array of uint8 (0 to 255), got {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ImageError(f"must be [height, width] or [height, width, 1, 3 or 4], got shape {list(pixels.shape)}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not an image that Pillow can read"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, PermissionError):
        return "cannot be opened: permission denied"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if "truncated" in str(error) or isinstance(error, EOFError):
        return "is truncated: the file ends before the image data does"
    message = " ".join(str(error).split())  # on one line
    return f"is corrupt ({message or type(error).__name__})"
