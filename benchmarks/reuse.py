"""What keeping features is worth: ``python -m benchmarks.reuse FOLDER [--size 128] [--epochs 8] [--repeats 3]``.

Seconds of a whole trial in a warm process (network, batches, training, validation after each epoch, weights on disk)
with reuse off and on, by how much of the network is frozen. With reuse on, the first trial on an empty store makes the
features; what it takes longer than those after it is the making. ``faster`` is off / on once they are made,
``of 10`` the same for ten trials with the making in it. Nothing is made from another row's features.
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

    def trial_s(self, fraction: float, reuse: str) -> tuple[float, float]:
        """Return the seconds of one trial, and its last validation loss."""
        options, network = self.options, {"backbone": self.options.backbone, "weights": self.options.weights}
        config = TrialConfig(
            seed=0,
            preprocessing=preprocessing_for(options.backbone, options.size),
            batches=BatchConfig(augmentation=options.augmentation),
            network=NetworkConfig.model_validate({**network, "freeze_fraction": fraction}),
            fit=FitConfig(max_epochs=options.epochs),
            features=FeaturesConfig.model_validate({"feature_cache": reuse, "cached_augmentations": options.views}),
        )
        told: list[TrialReport] = []
        began = time.perf_counter()
        train(TrialTask(trial_uid="trial", config=config, search_root=self.root, threads=1), told.append)
        return time.perf_counter() - began, told[-1].metrics["val_loss"]

    def row(self, fraction: float) -> str:
        """Return one line: a trial without, the making, a trial with, and what that gives in an hour."""
        off_s, off_loss = self.trial_s(fraction, "off")
        ContentCache().clear("features")
        first_s, loss = self.trial_s(fraction, "on")
        on_s = statistics.median(self.trial_s(fraction, "on")[0] for _ in range(self.options.repeats))
        size = sum(entry.size_bytes for entry in ContentCache().entries() if entry.key.startswith("features/"))
        making_s = max(0.0, first_s - on_s)
        ten = 10 * off_s / (10 * on_s + making_s)
        times = f"{off_s:8.2f} {making_s:8.2f} {on_s:8.2f} {3600 / off_s:8.0f} {3600 / on_s:8.0f}"
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
        counts = f"{len(dataset.split('train'))} + {len(dataset.split('val'))} pictures of {dataset.name}"
        print(f"{counts}, {options.size} px, {options.backbone}, {options.epochs} epochs, {options.augmentation}")
        print(f"{options.views} views, 1 thread of {os.cpu_count()} cores; {versions}")
        print(f"{'frozen':>8} {'off s':>8} {'making s':>8} {'on s':>8} {'off /h':>8} {'on /h':>8} "
              f"{'faster':>8} {'of 10':>8} {'MB':>8} {'loss off':>9}")  # fmt: skip
        torch.set_num_threads(1)
        bench.trial_s(1.0, "fp32")  # the first trial of a process imports
        for fraction in options.fractions:
            print(bench.row(fraction), flush=True)


if __name__ == "__main__":
    main()
