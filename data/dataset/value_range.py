"""The values that become black and white in images of more than 8 bits: the same for all images of a data set."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from data.preprocessing import to_rgb

ValueRange = tuple[float, float]
WHITE_LEVELS = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # floating point from 0 to 1; 8, 10, 12, 14 and 16 bits


def value_range_of(image: Image.Image) -> ValueRange | None:
    """Return the lowest and the highest value of an image of ``decode_image`` of more than 8 bits; None for others."""
    if image.mode not in ("I", "F"):
        return None
    low, high = image.getextrema()
    return float(low), float(high)  # type: ignore[arg-type]  # one channel


def stretched(image: Image.Image) -> Image.Image:
    """Return an image of ``decode_image`` as RGB; its own range of values becomes black to white."""
    own = value_range_of(image)
    return to_rgb(image, own if own and own[0] < own[1] else None)


def common_range(ranges: Iterable[ValueRange]) -> ValueRange | None:
    """Return the range of a data set, from those of its images; None without any.

    It is 0 to the lowest of ``WHITE_LEVELS`` that no value exceeds, so that another image of the same camera does not
    change it. If a value is negative (Hounsfield units, standardized values) or above 65535, it is the lowest to the
    highest value.
    """
    ranges = list(ranges)
    if not ranges:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    white = next((white for white in WHITE_LEVELS if high <= white), None)
    if low >= 0 and white is not None:
        return 0.0, white
    return (low, high) if low < high else None
