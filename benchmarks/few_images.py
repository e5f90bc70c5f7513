"""Searches with few images: this version against an earlier one, its best single probe, and its default configuration.

Run ``python -m benchmarks.few_images FOLDER [FOLDER ...] --rows FILE --before CHECKOUT`` on an otherwise idle machine;
a search takes about three minutes. Stratified subsets of each folder are the training images, from which the search
cuts its validation split; up to ``MAX_TEST_IMAGES`` others are the test split. A row of ``FILE`` is one search; rows
that exist are not measured again. Both versions run in turn, with the same images, seed and budget.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.searches import ROOT, Search, search
from benchmarks.selection import subset
from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.pixel_cache import pixel_cache
from models.evaluation.inference import predict
from models.evaluation.metrics import compute_metrics
from models.training.trial_io import load_classifier, split_batches
from tuning.common.names import ORIGIN_TAG, SEARCH_FOLDER_TAG
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord
from tuning.search.evidence import Evidence, Member
from tuning.search.study import load_study, trials_of

MAX_TEST_IMAGES = 800


def copy_subset(dataset: Dataset, count: int, seed: int, folder: Path) -> None:
    """Copy a subset of a data set into ``folder``, with splits ``train`` and ``test``."""
    labels = np.array([sample.label for sample in dataset.samples])
    train, others = subset(labels, count, seed)
    test = others if len(others) <= MAX_TEST_IMAGES else others[subset(labels[others], MAX_TEST_IMAGES, seed)[0]]
    for split, rows in (("train", train), ("test", test)):
        for row in rows:
            sample = dataset.samples[row]
            target = folder / split / dataset.classes[sample.label] / f"{row}{Path(sample.path).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(dataset.root / sample.path, target)


def result_of(found: Search) -> dict[str, Any]:
    """Return the metrics of a search of either version."""
    metrics = found.parent.data.metrics
    names = ("test_accuracy", "test_balanced_accuracy", "test_loss", "best_val_balanced_accuracy")
    names += ("selection_score", "selection_se", "selection_loss")
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


def measure(folder: str, count: int, seed: int, minutes: float, checkouts: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield a row for each version."""
    dataset = load_dataset(folder)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        copy_subset(dataset, count, seed, root / "images")
        for version, checkout in checkouts.items():
            options = ("--minutes", str(minutes))
            found = search(str(root / "images"), seed, root / version, *options, checkout=checkout)
            row = {"data": dataset.name, "images": count, "seed": seed, "version": version, **result_of(found)}
            yield {**row, "alternatives": alternatives(found)} if version == "now" else row


def _print_tables(rows: Sequence[dict[str, Any]]) -> None:
    cells = sorted({(row["data"], row["images"], row["seed"]) for row in rows})
    print(f"{'data':24} {'images':>6} {'seed':>4} {'before':>7} {'now':>7} {'probe':>7} {'default':>7} {'expected':>8}")
    differences: dict[str, list[float]] = {"before": [], "probe": [], "default": []}
    optimism: list[float] = []
    for cell in cells:
        of_cell = {row["version"]: row for row in rows if (row["data"], row["images"], row["seed"]) == cell}
        if "now" not in of_cell:
            continue
        now = of_cell["now"]
        accuracies = {**now["alternatives"]}
        if "before" in of_cell:
            accuracies["before"] = of_cell["before"]["test_accuracy"]
        for name, values in differences.items():
            if name in accuracies:
                values.append(now["test_accuracy"] - accuracies[name])
        expected = now.get("selection_score", float("nan"))
        optimism.append(expected - now["test_balanced_accuracy"])
        shown = [accuracies.get("before"), now["test_accuracy"], accuracies.get("probe"), accuracies.get("default")]
        texts = " ".join("      -" if value is None else f"{value:7.4f}" for value in shown)
        print(f"{cell[0]:24} {cell[1]:6} {cell[2]:4} {texts} {expected:8.4f}")
    for name, values in differences.items():
        if values:
            error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            print(f"now - {name}: {np.mean(values):+.4f} (standard error {error:.4f}, n={len(values)})")
    print(f"expected - test balanced accuracy: {np.mean(optimism):+.4f} (n={len(optimism)})")


def main() -> None:
    """Measure the missing cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="data sets")
    parser.add_argument("--rows", type=Path, required=True, help="JSON Lines file of the results; it is continued")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--images", type=int, nargs="+", default=[100], help="training and validation images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=2)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.rows.read_text().splitlines()] if arguments.rows.exists() else []
    done = {(row["data"], row["images"], row["seed"]) for row in rows}
    checkouts = {"now": ROOT} | ({"before": arguments.before.resolve()} if arguments.before else {})
    for seed, count, folder in itertools.product(range(arguments.seeds), arguments.images, arguments.folders):
        if (Path(folder).name, count, seed) in done:
            continue
        new = list(measure(folder, count, seed, arguments.minutes, checkouts))
        rows += new
        with arguments.rows.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        print(folder, count, seed, {row["version"]: round(row["test_accuracy"], 4) for row in new}, flush=True)
    _print_tables(rows)


if __name__ == "__main__":
    main()
