"""Time and memory of the search for near-duplicates: ``python -m benchmarks.near_duplicates [--counts 1000 ...]``.

Three kinds of generated photos: ``alike`` is one photo, compressed again and again; ``different`` are unrelated ones;
``equal_hashes`` are unrelated ones with one perceptual hash, the most comparisons that there can be. Each row is a new
process; its peak memory is what the search adds to that of the process.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from data.dataset.near_duplicates import find_near_duplicates
from models.training.peak_memory import PeakMemory

SIDE = 64  # px
KINDS = ("alike", "different", "equal_hashes")


def photo(seed: int) -> Image.Image:
    """Return noise at several scales, which has low and high frequencies as a photo has."""
    rng, total = np.random.default_rng(seed), np.zeros((SIDE, SIDE, 3))
    for cells in (4, 8, 16, 32, 64):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    return Image.fromarray((total / 5).astype(np.uint8))


def write(kind: str, count: int, folder: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """Write the photos; return their perceptual hashes and paths by an id."""
    phashes, paths = {}, {}
    for number in range(count):
        path = folder / f"{number}.jpg"
        photo(0 if kind == "alike" else number).save(path, quality=50 + number % 50)
        phashes[path.stem] = "0" * 16 if kind == "equal_hashes" else str(imagehash.phash(Image.open(path)))
        paths[path.stem] = path
    return phashes, paths


def measure(kind: str, count: int) -> tuple[float, float, int]:
    """Return the seconds and the MB that a search takes, and the size of its largest group."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["FREEZELINE_HOME"] = str(Path(name) / "home")
        (Path(name) / "images").mkdir()
        images = write(kind, count, Path(name) / "images")
        before = PeakMemory().metrics()["peak_memory_mb"]
        peak, started = PeakMemory(), time.perf_counter()
        groups = find_near_duplicates(*images)
        seconds = time.perf_counter() - started
        return seconds, peak.metrics()["peak_memory_mb"] - before, max(map(len, groups), default=0)


def main() -> None:
    """Print a row for each kind and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    print("kind images seconds ms_per_image MB largest_group", flush=True)
    for count, kind in itertools.product(parser.parse_args().counts, KINDS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            seconds, megabytes, largest = pool.submit(measure, kind, count).result()
        print(kind, count, f"{seconds:.1f} {1000 * seconds / count:.2f} {megabytes:.0f} {largest}", flush=True)


if __name__ == "__main__":
    main()
