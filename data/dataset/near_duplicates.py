"""Pictures that show the same thing though their pixels differ: resized, compressed again, brightened, cut a little.

Two are candidates when their perceptual hashes (the coarse look) are within a few bits, and twins when their fine
detail, which the hash has not seen, agrees as well. On four real photo sets the detail of true pairs
correlated at 0.58 (the same photo under two watermarks) to 1.0, that of false candidates at 0.22 at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.cache.content_cache import ContentCache
from data.parallel import Progress, parallel_map
from data.preprocessing import read_image

MAX_HAMMING = 4  # that the 64-bit hashes of candidates may differ in
MIN_CORRELATION = 0.5  # least correlation of the fine detail of twins
MIN_STD = 2.0  # standard deviation, of 255, below which a picture has no detail to compare
SIDE = 32  # px at which detail is compared
MAX_SHIFT = 2  # px that one may be cut differently from the other, at that size
BLOCK_ROWS = 256  # hashes compared with all others at a time
VERSION = 1

HighPass = npt.NDArray[np.float32]


def find_near_duplicates(
    phashes: Mapping[str, str], paths: Mapping[str, Path], progress: Progress | None = None
) -> list[list[str]]:
    """Return groups of digests that are twins, directly or through others; remembered in the store.

    Args:
        looks: perceptual hash by digest.
        paths: a file of each digest.
        progress: told how many candidates have been looked at.
    """
    from scipy.cluster.hierarchy import DisjointSet

    digests = sorted(digest for digest, look in phashes.items() if look)
    settings = json.dumps([VERSION, MAX_HAMMING, MIN_CORRELATION, [(digest, phashes[digest]) for digest in digests]])
    key = f"near_duplicates/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}"

    def make(folder: Path) -> None:
        pairs = list(_confirmed(list(_candidates([phashes[digest] for digest in digests])), digests, paths, progress))
        tied = DisjointSet(digest for pair in pairs for digest in pair)
        for pair in pairs:
            tied.merge(*pair)
        (folder / "groups.json").write_text(json.dumps([sorted(group) for group in tied.subsets()]))

    groups: list[list[str]] = json.loads((ContentCache().get_or_create(key, make) / "groups.json").read_bytes())
    return groups


def _candidates(looks: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the places of hashes that are within ``MAX_HAMMING`` of each other."""
    hashes = np.array([int(look, 16) for look in looks], dtype=np.uint64)
    for first in range(0, len(hashes), BLOCK_ROWS):
        rest = hashes[first:]
        near = np.bitwise_count(rest[:BLOCK_ROWS, None] ^ rest[None, :]) <= MAX_HAMMING
        for one, other in np.argwhere(np.triu(near, 1)).tolist():
            yield first + one, first + other


def _confirmed(
    candidates: Sequence[tuple[int, int]],
    digests: Sequence[str],
    paths: Mapping[str, Path],
    progress: Progress | None,
) -> Iterator[tuple[str, str]]:
    from scipy.cluster.hierarchy import DisjointSet

    needed = sorted({place for pair in candidates for place in pair})
    found = parallel_map(lambda place: _read_high_pass(paths[digests[place]]), needed, "comparing pictures", progress)
    details = dict(zip(needed, found, strict=True))
    tied = DisjointSet(needed)
    for one, other in candidates:
        if not tied.connected(one, other) and is_near_duplicate(details[one], details[other]):
            tied.merge(one, other)
            yield digests[one], digests[other]


def _read_high_pass(path: Path) -> HighPass:
    return high_pass(read_image(path))


def high_pass(image: Image.Image) -> HighPass:
    """Return what is left of a picture, gray [32, 32], without its coarse look."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    coarse = small.resize((SIDE // 4, SIDE // 4), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.float32) - np.asarray(coarse, dtype=np.float32)


def is_near_duplicate(one: HighPass, other: HighPass) -> bool:
    """Return whether two pictures' details agree, if need be after a small shift."""
    if min(one.std(), other.std()) < MIN_STD:
        return False
    shifts = sorted(range(-MAX_SHIFT, MAX_SHIFT + 1), key=abs)
    return any(_correlation(_crop(one, y, x), _crop(other, -y, -x)) >= MIN_CORRELATION for y in shifts for x in shifts)


def _crop(detail: HighPass, y: int, x: int) -> HighPass:
    return detail[max(0, y) : SIDE + min(0, y), max(0, x) : SIDE + min(0, x)]


def _correlation(one: HighPass, other: HighPass) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / spread if spread else 0.0
