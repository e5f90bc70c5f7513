"""From one picture, however it comes, to the numbers that a network sees.

The packaged model ships this file verbatim, so that training, validation, test and serving go through the same
code: it imports numpy and PIL only.

Shapes: b pictures, s = ``image_size`` pixels, 3 channels in the order red, green, blue.
"""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
PIXEL_LIMIT = 89_000_000  # pixels; a picture above it is refused before it is decoded (Pillow itself warns from there)
ORIENTATION_TAG = 0x0112
UPRIGHT = {
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
# EPS and WMF start another program or library to be drawn, the others are stubs that can't be decoded.
REFUSED_FORMATS = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}


class ImageError(ValueError):
    """One picture that can't be read; ``str()`` is the reason, to be put after the picture's name."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture; it belongs to the backbone and travels with the model.

    Attributes:
        image_size: side of the square that the network sees, in pixels.
        crop_fraction: part of the short side that the centred square keeps, above 0 and up to 1.
        interpolation: nearest, bilinear, bicubic or lanczos.
        mean: of red, green and blue, where 1.0 is full light.
        std: likewise; each above 0.
    """

    image_size: int
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))

    def _problems(self) -> list[str]:
        rules = {
            f"image_size must be 8..2048 pixels, got {self.image_size}": 8 <= self.image_size <= 2048,
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
        }
        return [rule for rule, kept in rules.items() if not kept]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types that ``from_dict`` reads back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """Return what ``to_dict`` wrote; raise TypeError for an unknown field, ValueError for a bad value."""
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**plain)


def read_image(source: bytes | Path | Image.Image | Pixels) -> Image.Image:
    """Return the picture upright and in RGB, whatever it is kept as.

    ``source`` is a file's bytes or path (the content decides, not the extension), an open picture, or an array
    [height, width] or [height, width, 1, 3 or 4]. EXIF orientation is applied, transparency is laid over
    white, 16 bits are scaled to 8, an animation gives its first frame.

    Raises:
        ImageError: it is empty, no picture, truncated, broken, above ``PIXEL_LIMIT``, or can't be opened.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        if isinstance(source, bytes):
            return _read_stream(io.BytesIO(source), size=len(source))
        with source.open("rb") as stream:
            return _read_stream(stream, size=source.stat().st_size)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"has more than {PIXEL_LIMIT:,} pixels") from error
    except Exception as error:  # Pillow's readers raise nearly everything for a broken file
        raise ImageError(_reason(error)) from error


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Return the centred square of an RGB picture at the network's size: uint8 [s, s, 3].

    The same as resizing the short side to ``s / crop_fraction`` and cropping the centre, in one step that never
    makes a picture larger than s by s, however long and thin the original is.
    """
    side = min(image.size) * preprocessing.crop_fraction
    left, top = (image.width - side) / 2, (image.height - side) / 2
    size = (preprocessing.image_size, preprocessing.image_size)
    resample = INTERPOLATIONS[preprocessing.interpolation]
    square = image.convert("RGB").resize(size, resample, box=(left, top, left + side, top + side))
    return np.asarray(square, dtype=np.uint8)


def normalize(pixels: Pixels, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return float32 [b, 3, s, s] of uint8 [b, s, s, 3]: (pixels / 255 - mean) / std.

    The result is a view with the channels last in memory: ``torch.from_numpy`` of it is in channels_last format.
    """
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    rows = pixels.reshape(*pixels.shape[:2], -1)  # [b, s, s * 3]: one long row is several times faster than many threes
    values = np.multiply(rows, np.tile(1 / (255 * std), pixels.shape[2]).astype(np.float32), dtype=np.float32)
    values += np.tile(-mean / std, pixels.shape[2]).astype(np.float32)
    return values.reshape(pixels.shape).transpose(0, 3, 1, 2)


def _read_stream(stream: BinaryIO, size: int) -> Image.Image:
    if size == 0:
        raise ImageError("is empty (0 bytes)")
    Image.init()
    with Image.open(stream, formats=[name for name in Image.OPEN if name not in REFUSED_FORMATS]) as image:
        try:
            return _upright_rgb(image)
        except OSError:
            if image.format not in ("JPEG", "MPO"):
                raise
            stream.seek(0)
            whole = _read_unended_jpeg(stream.read())
            if whole is None:
                raise
            return whole


def _read_unended_jpeg(content: bytes) -> Image.Image | None:
    """Return the picture of a JPEG that lacks only its end marker, None for one that lacks pixels.

    Two different endings are put to it: only if pixels are missing does it matter which.
    """
    images = []
    for ending in (b"", b"\x5a\xc3" * 64):
        with Image.open(io.BytesIO(content + ending + b"\xff\xd9"), formats=["JPEG"]) as image:
            images.append(_upright_rgb(image))
    return images[0] if images[0].tobytes() == images[1].tobytes() else None


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.width * image.height > PIXEL_LIMIT:
        raise ImageError(f"has {image.width * image.height:,} pixels, more than {PIXEL_LIMIT:,}")
    image.load()
    turn = UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block says nothing about how the picture stands
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
        image = Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64), ranges))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(values: npt.NDArray[np.float64], ranges: tuple[float, ...]) -> Pixels:
    """Scale by the first of ``ranges`` (the number that stands for full light) that holds the brightest value."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(values.max())
    full = next((full for full in ranges if brightest <= full), brightest)
    return np.round(np.clip(values / full, 0, 1) * 255).astype(np.uint8)


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
        return "is no picture that Pillow can read"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, PermissionError):
        return "can't be opened: permission denied"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if "truncated" in str(error) or isinstance(error, EOFError):
        return "is truncated: the file ends before the picture does"
    words = " ".join(str(error).split())  # on one line
    return f"is broken ({words or type(error).__name__})"
