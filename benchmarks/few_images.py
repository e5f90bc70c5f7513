"""Searches with few images: this version against an earlier one, stock Ray Tune, its best probe, and its default trial.

Run ``python -m benchmarks.few_images FOLDER [FOLDER ...] --rows FILE --before CHECKOUT`` on an otherwise idle machine;
a search takes about three minutes. Stratified subsets of each folder are the training images, from which the search
cuts its validation split; up to ``MAX_TEST_IMAGES`` others are the test split. A row of ``FILE`` is one search; rows
that exist are not measured again. The searches run in turn, with the same images, seed and budget; the stock search is
``benchmarks.stock_search``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.jsonl import append_row, read_rows
from benchmarks.searches import ROOT, Search, search
from benchmarks.subsets import copy_subset
from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from models.evaluation.inference import predict
from models.evaluation.metrics import Floats, compute_metrics
from models.training.trial_io import load_classifier, split_batches
from tuning.common.names import ORIGIN_TAG, SEARCH_FOLDER_TAG
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord
from tuning.search.evidence import Evidence, Member
from tuning.search.study import load_study, trials_of

COMPARED = ("before", "stock", "probe", "default")


class Cell(NamedTuple):
    """A subset of a data set."""

    data: str
    images: int
    seed: int


def result_of(found: Search) -> dict[str, Any]:
    """Return the metrics of a search of either version."""
    metrics = found.parent.data.metrics
    scores = ("test_accuracy", "test_balanced_accuracy", "test_loss", "best_val_balanced_accuracy")
    names = (*scores, "selection_score", "selection_se", "selection_loss")
    origins = [run.data.tags.get(ORIGIN_TAG, "") for run in found.trials]
    row: dict[str, Any] = {name: metrics[name] for name in names if name in metrics}
    return {**row, "minutes": found.minutes, "trials": {origin: origins.count(origin) for origin in set(origins)}}


def alternatives(found: Search) -> dict[str, float]:
    """Return the test accuracies of a search's best single probe and of its default configuration, if they ended."""
    paths = SearchPaths(Path(found.parent.data.tags[SEARCH_FOLDER_TAG]))
    dataset = Dataset.from_json(paths.dataset.read_text())
    trials = [trial for trial in trials_of(load_study(paths)) if trial.is_eligible]
    evidence = Evidence.load(paths, dataset, trials)
    probes = [trial for trial in trials if evidence.is_cross_validated(trial)]
    chosen = {"default": next((trial for trial in trials if trial.origin == "default"), None)}
    if probes:
        losses = [evidence.on_development([Member(trial)], None).losses for trial in probes]
        means = [evidence.development.estimate(each).mean for each in losses]
        chosen["probe"] = probes[int(np.argmin(means))]
    return {name: _test_accuracy(paths, dataset, trial) for name, trial in chosen.items() if trial is not None}


def _test_accuracy(paths: SearchPaths, dataset: Dataset, trial: TrialRecord) -> float:
    weights, num_classes = paths.final_weights(trial.trial_uid, trial.best_epoch), len(dataset.classes)
    classifier = load_classifier(trial.config, num_classes, weights)
    batches = split_batches(pixel_cache(dataset, trial.config.preprocessing), trial.config, "test", num_classes)
    return compute_metrics(*predict(classifier, batches.epoch(0))).accuracy


def stock_search(images: Path, seed: int, minutes: float) -> dict[str, Any]:
    """Return the result of the stock search, run as a command."""
    options = ("--seed", str(seed), "--minutes", str(minutes))
    command = (sys.executable, "-m", "benchmarks.stock_search", str(images), *options)
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    (result,) = (line for line in printed.splitlines() if line.startswith(b"{"))
    return json.loads(result)


def measure(cell: Cell, folder: str, minutes: float, versions: Mapping[str, Path | None]) -> Iterator[dict[str, Any]]:
    """Yield a row for each version, given with its checkout; None: the stock search."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        copy_subset(load_dataset(folder), cell.images, cell.seed, root / "images")
        for version, checkout in versions.items():
            row = {**cell._asdict(), "version": version}
            if checkout is None:
                yield {**row, **stock_search(root / "images", cell.seed, minutes)}
                continue
            options = ("--minutes", str(minutes))
            found = search(str(root / "images"), cell.seed, root / version, *options, checkout=checkout)
            row |= result_of(found)
            yield {**row, "alternatives": alternatives(found)} if version == "now" else row


def _print_tables(rows: Sequence[dict[str, Any]]) -> None:
    cells: dict[Cell, dict[str, Any]] = {}
    for row in rows:
        cells.setdefault(Cell(row["data"], row["images"], row["seed"]), {})[row["version"]] = row
    columns = " ".join(f"{name:>7}" for name in ("now", *COMPARED))
    print(f"{'data':16} {'images':>6} {'seed':>4} {columns} {'expected':>8}")
    gaps: list[float] = []
    for cell, versions in sorted(cells.items()):
        if "now" not in versions:
            continue
        now = versions["now"]
        accuracies = {**now["alternatives"], **{name: row["test_accuracy"] for name, row in versions.items()}}
        texts = " ".join(f"{accuracies[name]:7.4f}" if name in accuracies else "      -" for name in ("now", *COMPARED))
        gaps.append((now["selection_score"] - now["test_balanced_accuracy"]) / now["selection_se"])
        print(f"{cell.data:16} {cell.images:6} {cell.seed:4} {texts} {now['selection_score']:8.4f}")
        versions["accuracies"] = accuracies
    for images, name in itertools.product(sorted({cell.images for cell in cells}), COMPARED):
        pairs = [
            (versions["accuracies"]["now"], versions["accuracies"][name])
            for cell, versions in cells.items()
            if cell.images == images and name in versions.get("accuracies", {})
        ]
        if pairs:
            _print_difference(images, name, np.array(pairs))
    optimism = [row["selection_score"] - row["test_balanced_accuracy"] for row in rows if row["version"] == "now"]
    print(f"expected - test balanced accuracy: {np.mean(optimism):+.4f} (n={len(optimism)})")
    print(f"test within 2 standard errors of the expected: {np.mean(np.abs(gaps) < 2):.2f} of {len(gaps)}")


def _print_difference(images: int, name: str, pairs: Floats) -> None:
    differences = pairs[:, 0] - pairs[:, 1]
    error = differences.std(ddof=1) / len(pairs) ** 0.5 if len(pairs) > 1 else float("nan")
    ratio = (1 - pairs[:, 0]).mean() / (1 - pairs[:, 1]).mean()
    print(
        f"{images} images, now - {name}: {differences.mean():+.4f} (standard error {error:.4f}, n={len(pairs)}), "
        f"error x {ratio:.2f}"
    )


def main() -> None:
    """Measure the missing cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="data sets")
    parser.add_argument("--rows", type=Path, required=True, help="JSON Lines file of the results; it is continued")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--versions", nargs="+", choices=("now", "stock", "before"), default=["now", "stock"])
    parser.add_argument("--images", type=int, nargs="+", default=[100], help="training and validation images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=2)
    arguments = parser.parse_args()
    if "before" in arguments.versions and arguments.before is None:
        parser.error("--versions before needs --before CHECKOUT")
    rows = read_rows(arguments.rows)
    done = {(row["data"], row["images"], row["seed"], row["version"]) for row in rows}
    checkouts = {"now": ROOT, "stock": None, "before": arguments.before and arguments.before.resolve()}
    versions: dict[str, Path | None] = {name: checkouts[name] for name in arguments.versions}
    for seed, count, folder in itertools.product(range(arguments.seeds), arguments.images, arguments.folders):
        cell = Cell(Path(folder).name, count, seed)
        missing = {name: checkout for name, checkout in versions.items() if (*cell, name) not in done}
        for row in measure(cell, folder, arguments.minutes, missing) if missing else ():
            rows.append(row)
            append_row(arguments.rows, row)
            print(*cell, row["version"], round(row["test_accuracy"], 4), flush=True)
    _print_tables(rows)


if __name__ == "__main__":
    main()
