"""Measure the image pipeline: ``python -m benchmarks.images [FOLDER] [--size 128] [--epochs 3]``.

Images per second from the second epoch on, Freezeline against torchvision's ImageFolder with a DataLoader at its best
number of worker processes, in one run: with resize and flip, and with ``medium`` augmentation on both sides. Without a
folder it uses cats-vs-dogs of FREEZELINE_DATASETS (or ../shared/datasets), or else generates photos of 400 x 300.
Nothing is trained: each batch is created and dropped.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from data.load_dataset import load_dataset
from data.loading.augmentation import Augmentation, build_augmentation
from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.pixel_cache import pixel_cache
from data.loading.views import OnTheFlyImages
from data.preprocessing import Preprocessing
from tuning.common.environment import configure_environment

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32
WORKERS = sorted({0, 1, 2, os.cpu_count() or 1})
Epoch = Callable[[int], Iterable[tuple[torch.Tensor, torch.Tensor]]]


class MediumFolder(Dataset[tuple[torch.Tensor, int]]):
    """An ImageFolder with Freezeline's ``medium`` augmentation after the resize."""

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        size = preprocessing.image_size
        self.images = datasets.ImageFolder(str(folder), transforms.Compose(_resized(size)))
        self.finish = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
        )
        self.size = size
        self.augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        self.augmentation = self.augmentation or build_augmentation("medium", self.size)
        image, label = self.images[row]
        augmented = self.augmentation(np.array(image), seed=int(torch.randint(2**31, ())))  # type: ignore[misc]
        return self.finish(augmented), label


def _resized(size: int) -> list[Any]:
    return [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]


def flipped_folder(folder: Path, preprocessing: Preprocessing) -> Dataset[Any]:
    """Return the usual tutorial's data set: resize, crop, flip, tensor, normalize."""
    steps = [
        *_resized(preprocessing.image_size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(preprocessing.mean, preprocessing.std),
    ]
    return datasets.ImageFolder(str(folder), transforms.Compose(steps))


def rates(epoch: Epoch, epochs: int) -> list[float]:
    """Return the images per second of each epoch."""
    per_epoch = []
    for number in range(epochs):
        start = time.perf_counter()
        count = sum(len(y) for _, y in epoch(number))
        per_epoch.append(count / (time.perf_counter() - start))
    return per_epoch


def freezeline_rates(folder: Path, preprocessing: Preprocessing, augmentation: str, epochs: int) -> list[float]:
    """Return Freezeline's rates; the first epoch includes indexing, the audit and decoding."""
    loaders: list[BatchLoader] = []

    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if not loaders:
            pixels, labels = pixel_cache(load_dataset(str(folder)), preprocessing).split("train")
            config = BatchConfig(batch_size=BATCH, augmentation=augmentation)
            source = OnTheFlyImages(pixels, preprocessing, 0, augmentation)
            loaders.append(BatchLoader(source, labels, config, 0, training=True, num_classes=int(labels.max()) + 1))
        return loaders[0].epoch(number)

    return rates(epoch, epochs)


def torchvision_rates(dataset: Dataset[Any], epochs: int) -> tuple[int, list[float]]:
    """Return torchvision's best number of workers, and its rates with that number."""
    by_workers = {}
    for workers in WORKERS:
        loader = DataLoader(
            dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=False
        )
        by_workers[workers] = rates(lambda number, loader=loader: loader, epochs)  # type: ignore[misc]
    return max(by_workers.items(), key=lambda item: statistics.median(item[1][1:]))


def photos(folder: Path, count: int = 600) -> Path:
    """Generate a folder of two classes of JPEG photos of 400 x 300."""
    random = np.random.default_rng(0)
    for number in range(count):
        target = folder / ("cat", "dog")[number % 2] / f"{number}.jpg"
        target.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
        coarse.resize((400, 300), Image.Resampling.BICUBIC).save(target, quality=90)
    return folder


def benchmark_folder(requested: str | None, fallback: Path) -> Path:
    """Return the folder of class folders to measure on."""
    shared = Path(os.environ.get("FREEZELINE_DATASETS", ROOT.parent / "shared" / "datasets"))
    if requested:
        return Path(requested)
    cats = shared / "cats-vs-dogs" / "train"
    return cats if cats.is_dir() else photos(fallback)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    configure_environment()
    preprocessing = Preprocessing(options.size)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["FREEZELINE_HOME"] = str(Path(temporary) / "home")
        (Path(temporary) / "photos").mkdir()
        folder = benchmark_folder(options.folder, Path(temporary) / "photos")
        print(f"{folder.name}, {options.size} px, batches of {BATCH}, {os.cpu_count()} cores; images per second")
        print(f"{'':16} {'freezeline':>10} {'torchvision':>12} {'workers':>8} {'ratio':>6}   first epoch of each")
        pipelines = {"flip": flipped_folder(folder, preprocessing), "medium": MediumFolder(folder, preprocessing)}
        for augmentation, dataset in pipelines.items():
            first = freezeline_rates(folder, preprocessing, augmentation, options.epochs)
            workers, torchvision = torchvision_rates(dataset, options.epochs)
            second = freezeline_rates(
                folder, preprocessing, augmentation, options.epochs
            )  # the load of the machine may have changed
            fast, slow = statistics.median(first[1:] + second[1:]), statistics.median(torchvision[1:])
            row = f"resize + {augmentation:7} {fast:10.0f} {slow:12.0f} {workers:8} {fast / slow:6.1f}"
            print(f"{row}   {first[0]:.0f}, {torchvision[0]:.0f}")


if __name__ == "__main__":
    main()
