"""Measure training on a GPU: ``python -m benchmarks.gpu [--images 2000] [--size 224]``.

Needs the packages of requirements.txt (the CUDA build of torch) and, for the utilization, nvidia-ml-py. It generates
its images and uses random weights, so nothing is downloaded. Prints

- images/s of a bare training loop on one batch in the memory of the GPU;
- with augmentation and without: images/s of the pipeline, which is the batches on the GPU without a network, and of a
  trial on the same network, and the utilization of the GPU meanwhile. A pipeline slower than the bare loop starves it;
- trials/hour of a search with one, two and four trials on the GPU;
- what a trial does whose batch does not fit into the memory.

Without a GPU it runs on the CPU, with one search, which shows only that it works.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from benchmarks.scale import write_photos
from benchmarks.searches import search
from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from models.backbones.factory import preprocessing_for
from models.backbones.weight_packages import DEFAULT_BACKBONE
from models.classifier import build_classifier
from models.device import autocast, choose_device
from models.training.trial_io import split_batches
from models.trial_config import TrialConfig
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.trial_worker import TrialTask, train

BARE_LOOP_S = 10.0
PIPELINE_S = 5.0
SHARES = (1.0, 0.5, 0.25)
POLL_S = 0.2


class Utilization:
    """The percentages of the time in which the GPU was busy, sampled in a thread."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Context manager that samples the utilization; without a GPU or nvidia-ml-py there are no samples."""
        ended = threading.Event()

        def sample() -> None:
            while torch.cuda.is_available() and not ended.wait(POLL_S):
                try:
                    self.samples.append(torch.cuda.utilization())
                except (ModuleNotFoundError, RuntimeError):
                    return

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def __str__(self) -> str:
        return f"{statistics.fmean(self.samples):.0f} %" if self.samples else "unknown"


class Workload(NamedTuple):
    """A data folder with a search of the images, and the configuration of its trials."""

    paths: SearchPaths
    config: TrialConfig
    num_classes: int

    def with_changes(self, augmentation: str, batch_size: int) -> TrialConfig:
        """Return the configuration with another augmentation and batch size."""
        batches = self.config.batches.model_copy(update={"augmentation": augmentation, "batch_size": batch_size})
        return self.config.model_copy(update={"batches": batches})


def prepare(images: Path, home: Path, size: int) -> Workload:
    """Return the workload of full fine-tuning: no block is frozen, and each epoch augments differently."""
    dataset = load_dataset(str(images))
    paths = SearchPaths(home)
    paths.trials.mkdir(parents=True)
    paths.write(Recipe(data=str(images)), dataset)
    precision = "bf16" if torch.cuda.is_available() else "fp32"
    fields = {
        "seed": 0,
        "preprocessing": preprocessing_for(DEFAULT_BACKBONE, size),
        "batches": {"batch_size": 64},
        "network": {"backbone": DEFAULT_BACKBONE, "weights": "none", "freeze_fraction": 0.0},
        "fit": {"max_epochs": 3, "trained_precision": precision},
    }
    return Workload(paths, TrialConfig.model_validate(fields), len(dataset.classes))


def bare_loop(workload: Workload) -> float:
    """Return the images/s of a training loop on one batch that is on the device already."""
    config, device = workload.config, choose_device()
    size, batch_size = config.preprocessing.image_size, config.batches.batch_size
    classifier = build_classifier(config.network, workload.num_classes, size, config.seed).to(device).train()
    images = torch.randn(batch_size, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(workload.num_classes, (batch_size,), device=device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, fused=True)
    count, started = 0, 0.0
    while not started or time.perf_counter() - started < BARE_LOOP_S:
        with autocast(device, config.fit.trained_precision):
            loss = functional.cross_entropy(classifier(images).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        count += 1
        if not started and count == 5:  # the first steps choose algorithms
            _synchronize()
            count, started = 0, time.perf_counter()
    _synchronize()
    return count * batch_size / (time.perf_counter() - started)


def pipeline_rate(workload: Workload, config: TrialConfig) -> float:
    """Return the images/s of the training batches, copied to the device and used for nothing."""
    dataset, device = Dataset.from_json(workload.paths.dataset.read_text()), choose_device()
    pixels = pixel_cache(dataset, config.preprocessing)
    batches = split_batches(pixels, config, "train", workload.num_classes, device=device)
    count, epoch, started = 0, 0, 0.0
    while not started or time.perf_counter() - started < PIPELINE_S:
        for images, labels in batches.epoch(epoch):
            images.to(device, non_blocking=True)
            count += len(labels)
        _synchronize()
        if epoch == 0:  # it reads the pixels from the disk
            count, started = 0, time.perf_counter()
        epoch += 1
    return count / (time.perf_counter() - started)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run_trial(workload: Workload, config: TrialConfig, uid: str) -> list[TrialReport]:
    """Run a trial in this process, as a worker does, and return its reports."""
    reports: list[TrialReport] = []
    train(TrialTask(trial_uid=uid, config=config, search_root=workload.paths.root, threads=1), reports.append)
    return reports


def print_augmentation(workload: Workload, augmentation: str, bare: float) -> None:
    """Print the rates with an augmentation, also as multiples of the bare loop's."""
    config, utilization = workload.with_changes(augmentation, 64), Utilization()
    rate = pipeline_rate(workload, config)
    print(
        f"pipeline, augmentation={augmentation}: {rate:.0f} images/s ({rate / bare:.2f} of the bare loop)", flush=True
    )
    with utilization.sampled():
        rate = run_trial(workload, config, augmentation)[-1].metrics["images_per_s"]
    print(
        f"trial, augmentation={augmentation}: {rate:.0f} images/s ({rate / bare:.2f} of the bare loop), "
        f"utilization {utilization}",
        flush=True,
    )


def trials_per_hour(images: Path, share: float, work: Path, size: int) -> float:
    """Return the trials/hour of a search whose trials get a share of the GPU."""
    gpus = ("--gpus-per-trial", str(share)) if torch.cuda.is_available() else ()
    plain = ("--sweep", "off", "--rerun-top-k", "0", "--freeze-fraction", "0", "--image-size", str(size))
    found = search(str(images), 0, work, "--trials", "8", "--max-epochs", "2", "--weights", "none", *plain, *gpus)
    started_s = min(trial.info.start_time for trial in found.trials) / 1000
    return 3600 * len(found.trials) / (max(trial.info.end_time for trial in found.trials) / 1000 - started_s)


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="number of generated images")
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--large-batch", type=int, default=8192, help="a batch that does not fit into the memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["FREEZELINE_HOME"] = str(folder / "home")
        write_photos(arguments.images, folder / "images")
        workload = prepare(folder / "images", folder / "state", arguments.size)
        print("device", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU", flush=True)
        bare = bare_loop(workload)
        print(f"bare loop: {bare:.0f} images/s", flush=True)
        for augmentation in ("none", "light", "medium"):
            print_augmentation(workload, augmentation, bare)
        large = run_trial(workload, workload.with_changes("none", arguments.large_batch), "large")
        steps = large[-1].runtime_info.get("accumulation_steps", 1)
        print(f"batch of {arguments.large_batch}: {len(large)} epochs, micro-batches: {steps}", flush=True)
        for share in SHARES if torch.cuda.is_available() else SHARES[:1]:
            rate = trials_per_hour(folder / "images", share, folder / f"search_{share}", arguments.size)
            print(f"trials at once on the GPU: {1 / share:.0f}, {rate:.0f} trials/hour", flush=True)


if __name__ == "__main__":
    main()
