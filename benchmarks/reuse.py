"""Measure what the feature cache gains: ``python -m benchmarks.reuse FOLDER [--size 128] [--epochs 8] [--repeats 3]``.

Seconds of a whole trial in a warm process (network, batches, training, validation after each epoch, weights on disk)
without and with the cache, by frozen share. With an empty cache the first trial computes the features; the time that it
takes longer than the next ones is the computing time. ``faster`` is uncached / cached, ``of 10`` the same for ten
trials including the computing time. No row uses the features of another row.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from data.cache.content_cache import ContentCache
from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.batch_config import BatchConfig
from data.loading.pixel_cache import pixel_cache
from models.backbones.factory import preprocessing_for
from models.trial_config import FeaturesConfig, FitConfig, NetworkConfig, TrialConfig
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.search.trial_worker import TrialTask, train

FRACTIONS = (1.0, 0.9, 0.75, 0.5, 0.25, 0.0)
LIBRARIES = ("torch", "timm", "albumentations")


@dataclass(frozen=True)
class Bench:
    """Trials on one data set, in one folder."""

    dataset: Dataset
    root: Path
    options: argparse.Namespace

    def trial_s(self, fraction: float, feature_cache: str) -> tuple[float, float]:
        """Return the seconds of one trial, and its last validation loss."""
        options, network = self.options, {"backbone": self.options.backbone, "weights": self.options.weights}
        config = TrialConfig(
            seed=0,
            preprocessing=preprocessing_for(options.backbone, options.size),
            batches=BatchConfig(augmentation=options.augmentation),
            network=NetworkConfig.model_validate({**network, "freeze_fraction": fraction}),
            fit=FitConfig(max_epochs=options.epochs),
            features=FeaturesConfig.model_validate(
                {"feature_cache": feature_cache, "cached_augmentations": options.cached_augmentations}
            ),
        )
        reports: list[TrialReport] = []
        start = time.perf_counter()
        train(TrialTask(trial_uid="trial", config=config, search_root=self.root, threads=1), reports.append)
        return time.perf_counter() - start, reports[-1].metrics["val_loss"]

    def row(self, fraction: float) -> str:
        """Return a row: an uncached trial, the computing time, a cached trial, and the trials per hour."""
        off_s, off_loss = self.trial_s(fraction, "off")
        ContentCache().clear("features")
        first_s, loss = self.trial_s(fraction, "fp16")
        on_s = statistics.median(self.trial_s(fraction, "fp16")[0] for _ in range(self.options.repeats))
        size = sum(entry.size_bytes for entry in ContentCache().entries() if entry.key.startswith("features/"))
        computing_s = max(0.0, first_s - on_s)
        ten = 10 * off_s / (10 * on_s + computing_s)
        times = f"{off_s:8.2f} {computing_s:8.2f} {on_s:8.2f} {3600 / off_s:8.0f} {3600 / on_s:8.0f}"
        return f"{fraction:8} {times} {off_s / on_s:7.1f}x {ten:7.1f}x {size / 1e6:8.1f} {abs(loss - off_loss):9.1e}"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cached_augmentations", type=int, default=4)
    parser.add_argument("--augmentation", default="light")
    parser.add_argument("--fractions", type=float, nargs="*", default=FRACTIONS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FREEZELINE_HOME"] = folder
        dataset = load_dataset(options.folder)
        paths = SearchPaths(Path(folder) / "search")
        paths.root.mkdir()
        paths.dataset.write_text(dataset.to_json())
        pixel_cache(dataset, preprocessing_for(options.backbone, options.size))
        bench = Bench(dataset, paths.root, options)
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
        counts = f"{len(dataset.split('train'))} + {len(dataset.split('val'))} images of {dataset.name}"
        print(f"{counts}, {options.size} px, {options.backbone}, {options.epochs} epochs, {options.augmentation}")
        print(f"{options.cached_augmentations} views, 1 thread of {os.cpu_count()} cores; {versions}")
        print(f"{'frozen':>8} {'off s':>8} {'comp. s':>8} {'on s':>8} {'off /h':>8} {'on /h':>8} "
              f"{'faster':>8} {'of 10':>8} {'MB':>8} {'loss off':>9}")  # fmt: skip
        torch.set_num_threads(1)
        bench.trial_s(1.0, "fp32")  # the first trial of a process includes the imports
        for fraction in options.fractions:
            print(bench.row(fraction), flush=True)


if __name__ == "__main__":
    main()
