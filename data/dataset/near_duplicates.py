"""Near-duplicates: images of the same content that were resized, recompressed, brightened or slightly cropped.

Two images are candidates if their perceptual hashes (low frequencies) differ in a few bits, and near-duplicates if
their high frequencies, which the hash ignores, correlate as well. On four photo data sets the correlation was
0.58 (the same photo with two watermarks) to 1.0 for true pairs, and at most 0.22 for false candidates.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.cache.content_cache import ContentCache
from data.dataset.value_range import stretched
from data.parallel import ProgressCallback, process_map
from data.preprocessing import decode_image

MAX_HAMMING = 4  # bits in which the 64-bit hashes of candidates may differ
MIN_CORRELATION = 0.5  # of the high frequencies of near-duplicates
MIN_STD = 2.0  # on the scale 0 to 255; below it an image has no high frequencies to compare
SIDE = 32  # px; size at which high frequencies are compared
MAX_SHIFT = 2  # px at that size; compensates for different crops
PARTS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # first bit and number of bits; one more than MAX_HAMMING
MAX_NEIGHBORS = 1000  # hashes with the same part with which each is compared
MAX_COMPARISONS = 32  # of high frequencies per image
CHUNK_SIZE = 256  # pairs that are compared at once
VERSION = 2

HighPasses = npt.NDArray[np.float32]
IndexPairs = npt.NDArray[np.int64]


def find_near_duplicates(
    phashes: Mapping[str, str], paths: Mapping[str, Path], progress: ProgressCallback | None = None
) -> list[list[str]]:
    """Return groups of content hashes whose images are near-duplicates, directly or transitively. The result is cached.

    ``phashes`` and ``paths`` give a perceptual hash and one file by content hash; those with an empty hash are ignored.
    """
    hashes = sorted(content_hash for content_hash, phash in phashes.items() if phash)
    settings = json.dumps([VERSION, MAX_HAMMING, MIN_CORRELATION, [(each, phashes[each]) for each in hashes]])
    key = f"near_duplicates/{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}"

    def create(folder: Path) -> None:
        in_order = [phashes[content_hash] for content_hash in hashes]
        groups = _confirmed_groups(in_order, [paths[content_hash] for content_hash in hashes], progress)
        content_hashes = [[hashes[index] for index in sorted(group)] for group in groups]
        (folder / "groups.json").write_text(json.dumps(content_hashes))

    groups: list[list[str]] = json.loads((ContentCache().get_or_create(key, create) / "groups.json").read_bytes())
    return groups


def _candidates(phashes: Sequence[str]) -> Iterator[IndexPairs]:
    """Yield pairs of hashes that differ in at most ``MAX_HAMMING`` bits, as arrays [pairs, 2] of at most one per hash.

    Hashes that differ in at most 4 bits have at least one of 5 parts in common. Within a part, each hash is compared
    with the next ``MAX_NEIGHBORS`` of the same part, which are all of them in a data set of different images.
    """
    bits = np.array([int(phash, 16) for phash in phashes], dtype=np.uint64)
    parts = [(bits >> np.uint64(shift)) & np.uint64((1 << width) - 1) for shift, width in PARTS]
    for number, part in enumerate(parts):
        order = np.lexsort((bits, part))
        for distance in range(1, min(MAX_NEIGHBORS, len(order) - 1) + 1):
            first, second = order[:-distance], order[distance:]
            is_same_part = part[first] == part[second]
            if not is_same_part.any():
                break
            is_near = is_same_part & (np.bitwise_count(bits[first] ^ bits[second]) <= MAX_HAMMING)
            for earlier in parts[:number]:  # which have yielded the pair
                is_near &= earlier[first] != earlier[second]
            if is_near.any():
                yield np.sort(np.stack([first[is_near], second[is_near]], axis=1), axis=1)


def _confirmed_groups(
    phashes: Sequence[str], paths: Sequence[Path], progress: ProgressCallback | None
) -> list[list[int]]:
    """Return the groups of images that the candidates which are near-duplicates connect.

    Pairs that are already connected are not compared, and an image is compared at most ``MAX_COMPARISONS`` times, so
    that memory and time are proportional to the number of images, even if all are alike.
    """
    high_passes, rows = _high_passes(phashes, paths, progress)
    groups, num_compared = np.arange(len(paths)), np.zeros(len(paths), dtype=np.int64)
    for candidates in _candidates(phashes):
        is_connected = groups[candidates[:, 0]] == groups[candidates[:, 1]]
        pairs = candidates[~is_connected & (num_compared[candidates].min(axis=1) < MAX_COMPARISONS)]
        np.add.at(num_compared, pairs, 1)
        confirmed = [
            chunk[are_near_duplicates(high_passes[rows[chunk[:, 0]]], high_passes[rows[chunk[:, 1]]])]
            for chunk in (pairs[first : first + CHUNK_SIZE] for first in range(0, len(pairs), CHUNK_SIZE))
        ]
        if any(len(chunk) for chunk in confirmed):
            groups = _merged(groups, np.concatenate(confirmed))
    members = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[members])) + 1
    return [group.tolist() for group in np.split(members, starts) if len(group) > 1]


def _high_passes(
    phashes: Sequence[str], paths: Sequence[Path], progress: ProgressCallback | None
) -> tuple[HighPasses, IndexPairs]:
    """Return the high frequencies [m, 32, 32] of the m images that have a candidate, and the row of each image."""
    has_candidate = np.zeros(len(paths), dtype=bool)
    for pairs in _candidates(phashes):
        has_candidate[pairs] = True
    with_candidate = [paths[index] for index in np.flatnonzero(has_candidate).tolist()]
    results = process_map(_read_high_pass, with_candidate, "comparing images", progress)
    high_passes = np.empty((int(has_candidate.sum()), SIDE, SIDE), dtype=np.float32)
    for row, result in enumerate(results):
        high_passes[row] = result
    return high_passes, np.cumsum(has_candidate) - 1


def _read_high_pass(path: Path) -> HighPasses:
    return high_pass(stretched(decode_image(path)))


def _merged(groups: npt.NDArray[np.int64], pairs: IndexPairs) -> npt.NDArray[np.int64]:
    """Return the groups with those of each pair connected."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = len(groups)
    rows, columns = groups[pairs[:, 0]], groups[pairs[:, 1]]
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (rows, columns)), shape=(size, size))
    labels: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels[groups]


def high_pass(image: Image.Image) -> HighPasses:
    """Return the high frequencies of an image: grayscale [32, 32] minus a version smoothed at [8, 8]."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    coarse = small.resize((SIDE // 4, SIDE // 4), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.float32) - np.asarray(coarse, dtype=np.float32)


def are_near_duplicates(a: HighPasses, b: HighPasses) -> npt.NDArray[np.bool_]:
    """Return [n] whether the high frequencies [n, 32, 32] of two images correlate at a shift of up to ``MAX_SHIFT``."""
    found = np.zeros(len(a), dtype=bool)
    left = np.flatnonzero(np.minimum(a.std(axis=(1, 2)), b.std(axis=(1, 2))) >= MIN_STD)
    shifts = sorted(range(-MAX_SHIFT, MAX_SHIFT + 1), key=abs)
    for y, x in itertools.product(shifts, shifts):
        is_found = _correlations(_crop(a[left], y, x), _crop(b[left], -y, -x)) >= MIN_CORRELATION
        found[left[is_found]] = True
        left = left[~is_found]
    return found


def _crop(images: HighPasses, y: int, x: int) -> HighPasses:
    return images[:, max(0, y) : SIDE + min(0, y), max(0, x) : SIDE + min(0, x)]


def _correlations(a: HighPasses, b: HighPasses) -> npt.NDArray[np.float32]:
    """Return the correlation coefficients [n] of n pairs of images; 0 where one of them has a single value."""
    a, b = (each - each.mean(axis=(1, 2), keepdims=True) for each in (a, b))
    norms = np.sqrt(np.einsum("nyx,nyx->n", a, a) * np.einsum("nyx,nyx->n", b, b))
    coefficients: npt.NDArray[np.float32] = np.zeros_like(norms)
    np.divide(np.einsum("nyx,nyx->n", a, b), norms, out=coefficients, where=norms > 0)
    return coefficients
