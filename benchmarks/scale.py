"""Time and memory by number of images: ``python -m benchmarks.scale [--counts 1000 ...] [--data FOLDER]``.

Generated photos of 64 px in ten classes, or a stratified part of the class folders of ``--data``. For each number of
images, one after another and each in a new process with an empty cache at first: the audit, the pixel cache, a probe on
at most 32,000 training images (its features, those of the validation images, and the fit, on one core), and with
``--minutes`` a whole search (``--stages search``: only that). Prints the seconds, the peak memory of the process and of
the largest process that it started, and the exponent of growth between the smallest and the largest number. With
``--rows FILE`` each stage is a row of a JSON Lines file, and rows that exist are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.jsonl import append_row, read_rows

NUM_CLASSES = 10
SIDE = 64  # px
POLL_S = 0.2
STAGES = ("audit", "pixels", "probe", "search")
Row = dict[str, Any]


def write_photos(count: int, folder: Path) -> None:
    """Write photos whose classes differ in their coarse colors, and whose fine structure is random."""
    rng = np.random.default_rng(0)
    colors = rng.uniform(60, 190, (NUM_CLASSES, 4, 4, 3))
    for label in range(NUM_CLASSES):
        (folder / f"class_{label}").mkdir(parents=True)
    for number in range(count):
        label = number % NUM_CLASSES
        coarse = np.clip(colors[label] + rng.normal(0, 60, (4, 4, 3)), 0, 255).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, dtype=np.int16) + rng.integers(-30, 30, (SIDE, SIDE, 3))
        path = folder / f"class_{label}" / f"{number:06}.jpg"
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=90)


def link_photos(data: Path, count: int, folder: Path) -> None:
    """Link a part of the files of class folders, which may be below split folders, by class."""
    by_class: dict[str, list[Path]] = {}
    for path in sorted(path for path in data.rglob("*") if path.is_file() and path.suffix):
        by_class.setdefault(path.parent.name, []).append(path)
    for name, paths in by_class.items():
        (folder / name).mkdir(parents=True)
        for number, path in enumerate(paths[: count // len(by_class)]):
            (folder / name / f"{number}{path.suffix}").symlink_to(path.resolve())


def audit(folder: Path) -> Callable[[], object]:
    """Return the reading, comparing and splitting of the images."""
    from data.load_dataset import load_dataset

    return lambda: load_dataset(str(folder))


def pixels(folder: Path) -> Callable[[], object]:
    """Return the creation of the pixel cache of the default network at 64 px."""
    from data.load_dataset import load_dataset
    from data.loading.pixel_cache import pixel_cache
    from models.backbones.factory import preprocessing_for
    from models.backbones.weight_packages import DEFAULT_BACKBONE

    dataset = load_dataset(str(folder))
    return lambda: pixel_cache(dataset, preprocessing_for(DEFAULT_BACKBONE, SIDE))


def probe(folder: Path) -> Callable[[], object]:
    """Return a linear probe of the default network at 64 px, as the worker of a search runs it."""
    import torch

    from data.load_dataset import load_dataset
    from tuning.common.search_paths import SearchPaths
    from tuning.recipe.schema import Recipe
    from tuning.search.defaults import MAX_VAL_IMAGES, PROBE_IMAGES
    from tuning.search.trial_worker import TrialTask, train
    from tuning.workflows.preflight import prepare_inputs

    recipe = Recipe.model_validate({"data": str(folder), "image_size": str(SIDE), "validation": "split"})
    dataset = load_dataset(str(folder)).with_limited("val", MAX_VAL_IMAGES)
    inputs = prepare_inputs(recipe, dataset, on_gpu=False)
    space = inputs.search_space(inputs.resolve_auto(recipe))
    settings = {**space.default_settings(), "optimizer": "lbfgs", "freeze_fraction": 1.0, "augmentation": "none"}
    config = space.trial_config({**settings, "probe_images": PROBE_IMAGES[-1]}, inputs.preprocessings)
    paths = SearchPaths.from_search_id("scale")
    paths.write(recipe, dataset)
    paths.trials.mkdir()
    task = TrialTask(trial_uid="probe", config=config, search_root=paths.root, threads=1)
    torch.set_num_threads(1)
    return lambda: train(task, lambda report: None)


@contextmanager
def sampled_own_mb() -> Iterator[list[float]]:
    """Context manager: sample the memory of this process without pages of files, which the system can take back."""
    samples, ended = [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(POLL_S):
            status = Path("/proc/self/status").read_text()
            samples.append(int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def run_stage(stage: str, folder: Path) -> None:
    """Run a stage in this process, and print its seconds and peak memory as JSON."""
    prepared = {"audit": audit, "pixels": pixels, "probe": probe}[stage](folder)
    with sampled_own_mb() as samples:
        started = time.perf_counter()
        prepared()
        seconds = time.perf_counter() - started
    usages = (
        resource.getrusage(which).ru_maxrss * 1024 / 1e6 for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    names = ("seconds", "own_mb", "mb", "child_mb")
    print(json.dumps(dict(zip(names, (seconds, max(samples), *usages), strict=True))))


def measure_stage(stage: str, folder: Path, home: Path) -> Row:
    """Return the result of a stage that runs in a new process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", stage, "--data", str(folder)]
    environment = {**os.environ, "FREEZELINE_HOME": str(home)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def measure_search(folder: Path, minutes: float, work: Path) -> Row:
    """Return the result of a search with an empty cache."""
    from benchmarks.searches import result_of, search

    result = result_of(search(str(folder), 0, work, "--minutes", str(minutes)))
    names = ("test_accuracy", "before_first_epoch_s", "after_last_trial_s", "proposals_ended", "trials")
    child_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return {"seconds": 60 * result["took_minutes"], "child_mb": child_mb, **{name: result[name] for name in names}}


def exponent(rows: list[Row], stage: str) -> float:
    """Return the exponent of growth of the seconds between the smallest and the largest number of images."""
    of_stage = sorted((row for row in rows if row["stage"] == stage), key=lambda row: row["images"])
    first, last = of_stage[0], of_stage[-1]
    return math.log(last["seconds"] / first["seconds"]) / math.log(last["images"] / first["images"])


def main() -> None:
    """Measure the missing stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 50_000, 100_000])
    parser.add_argument("--data", type=Path, help="class folders; without them, photos are generated")
    parser.add_argument("--minutes", type=float, default=0, help="budget of a whole search; 0: none")
    parser.add_argument("--stages", nargs="+", choices=STAGES, help="only these")
    parser.add_argument("--rows", type=Path, help="JSON Lines file of the results; it is continued")
    parser.add_argument("--stage", choices=STAGES[:-1], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.data)
        return
    cores = len(os.sched_getaffinity(0))
    rows, name = read_rows(arguments.rows), arguments.data.name if arguments.data else "generated"
    for count in arguments.counts:
        stages = arguments.stages or (STAGES if arguments.minutes else STAGES[:-1])
        done = {row["stage"] for row in rows if (row["data"], row["images"]) == (name, count)}
        if done.issuperset(stages):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            folder = work / "images"
            if arguments.data:
                link_photos(arguments.data, count, folder)
            else:
                write_photos(count, folder)
            for stage in stages:
                if stage == "search":
                    result = measure_search(folder, arguments.minutes, work / "search")
                else:
                    result = measure_stage(stage, folder, work / "home")
                if stage not in done:
                    rows.append({"data": name, "images": count, "cores": cores, "stage": stage, **result})
                    append_row(arguments.rows, rows[-1])
                    print(json.dumps(rows[-1]), flush=True)
    own = [row for row in rows if row["data"] == name]
    for stage in (stage for stage in STAGES[:-1] if len({row["images"] for row in own if row["stage"] == stage}) > 1):
        print(f"exponent of {stage}: {exponent(own, stage):.2f}")


if __name__ == "__main__":
    main()
