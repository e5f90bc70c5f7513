"""Index of image contents: files are decoded in parallel, and again only when they change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from data.atomic_write import write_atomically
from data.dataset.value_range import ValueRange, stretched, value_range_of
from data.frozen_model import FrozenModel
from data.home import state_dir
from data.parallel import ProgressCallback, process_map
from data.preprocessing import ImageError, Pixels, decode_image

MIN_HASH_SIDE = 32  # px; perceptual hashes of smaller images give hundreds of false matches
FORMATS_BY_FIRST_BYTES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II": "TIFF",
    b"MM": "TIFF",
}
VERSION = 5  # increment if the fields of ImageInfo or their computation change


class ImageInfo(FrozenModel):
    """Properties of the content of one file.

    Attributes:
        content_hash: hash of the upright pixels and their shape; None if the file is unreadable.
        width: width of the upright image, in pixels.
        height: height of the upright image, in pixels.
        problem: why the file is unreadable; empty if it is readable.
        phash: 64-bit perceptual hash, hexadecimal; empty if the short side is below ``MIN_HASH_SIDE``.
        is_uniform: whether all pixels have the same color.
        num_pages: pages of a TIFF file, of which the first is used.
        value_range: lowest and highest value of an image of more than 8 bits; None for others.
        is_gray_stored_as_color: whether all pixels are gray although the file has color channels.
        format: the format by its first bytes, such as JPEG; empty if it is none of the usual ones.
        is_gray: whether all pixels are gray.
        has_alpha: whether pixels are transparent.
        border: the color of the outermost pixels, if it is a single one; else empty.
        mean_color: the mean of all pixels, red, green and blue.
    """

    content_hash: str | None
    width: int = 0
    height: int = 0
    problem: str = ""
    phash: str = ""
    is_uniform: bool = False
    num_pages: int = 1
    value_range: ValueRange | None = None
    is_gray_stored_as_color: bool = False
    format: str = ""
    is_gray: bool = False
    has_alpha: bool = False
    border: str = ""
    mean_color: tuple[int, int, int] = (0, 0, 0)

    @property
    def short_side(self) -> int:
        """The shorter of width and height, in pixels."""
        return min(self.width, self.height)


def index_images(root: Path, paths: Sequence[str], progress: ProgressCallback | None = None) -> dict[str, ImageInfo]:
    """Return the properties of each file, in the order of ``paths`` (relative to ``root``).

    Files with the same size, modification time and inode as in an earlier call are not read again. An unreadable
    file is reported in ``ImageInfo.problem``; no exception is raised.
    """
    has_heif = find_spec("pi_heif") is not None  # its images are unreadable without it
    name = hashlib.blake2b(f"{VERSION} {PIL.__version__} {has_heif} {root}".encode(), digest_size=16).hexdigest()
    file = state_dir() / "image_index" / f"{name}.json"
    try:
        rows = json.loads(file.read_bytes())
    except (OSError, ValueError):  # missing or corrupt: read the images again
        rows = {}
    stat_keys = {path: _stat_key(root / path) for path in paths}
    known = {path for path in paths if stat_keys[path] and path in rows and rows[path][0] == stat_keys[path]}
    missing = [path for path in paths if path not in known]
    new = process_map(_read, [root / path for path in missing], "reading images", progress)
    infos = {path: ImageInfo(**rows[path][1]) for path in known} | dict(zip(missing, new, strict=True))
    if missing:
        new_rows = {path: (stat_keys[path], infos[path].model_dump()) for path in paths}
        write_atomically(file, json.dumps(new_rows).encode())
    return {path: infos[path] for path in paths}


def content_hash_of(image: Image.Image) -> str:
    """Return a hash of the pixels and the shape of an image of ``decode_image``, before any change of its values."""
    mode = "" if image.mode == "RGB" else f"{image.mode}:"
    shape = f"{mode}{image.width}x{image.height}:".encode()
    return hashlib.blake2b(shape + image.tobytes(), digest_size=16).hexdigest()


def _read(path: Path) -> ImageInfo:
    try:
        decoded = decode_image(path)
    except ImageError as error:
        return ImageInfo(content_hash=None, problem=str(error))
    image = stretched(decoded)
    pixels = np.asarray(image)
    file_format, is_gray = _format(path), _is_gray(pixels)
    return ImageInfo(
        content_hash=content_hash_of(decoded),
        width=image.width,
        height=image.height,
        phash=_phash(image),
        is_gray_stored_as_color=is_gray and _stored_mode(path) in ("RGB", "RGBA", "CMYK", "YCbCr"),
        is_uniform=image.width * image.height > 1 and image.getcolors(1) is not None,
        num_pages=_num_pages(path) if file_format == "TIFF" else 1,
        value_range=value_range_of(decoded),
        format=file_format,
        is_gray=is_gray,
        has_alpha=decoded.mode == "RGBA",
        border=_border(pixels),
        mean_color=_mean_color(image),
    )


def _phash(image: Image.Image) -> str:
    import imagehash

    if min(image.size) < MIN_HASH_SIDE:
        return ""
    return np.packbits(imagehash.phash(image).hash).tobytes().hex()  # what str() returns, ten times faster


def _is_gray(pixels: Pixels) -> bool:
    return np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 1], pixels[..., 2])


def _format(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    return next((name for start, name in FORMATS_BY_FIRST_BYTES.items() if head.startswith(start)), "")


def _border(pixels: Pixels) -> str:
    """Return the color of the frame of one pixel as ``#rrggbb``; empty if it has several."""
    color = pixels[0, 0]
    is_uniform = all((side == color).all() for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    return f"#{bytes(color).hex()}" if is_uniform else ""


def _mean_color(image: Image.Image) -> tuple[int, int, int]:
    red, green, blue = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[misc]  # RGB
    return int(red), int(green), int(blue)


def _stored_mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def _num_pages(path: Path) -> int:
    with Image.open(path) as image:
        try:
            return getattr(image, "n_frames", 1)
        except Exception:  # Pillow raises many exception types for corrupt pages; the first one is readable
            return 1


def _stat_key(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
