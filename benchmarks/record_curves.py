"""Record learning curves of real trials once, so that searches can be replayed in seconds.

``python -m benchmarks.record_curves FOLDER [--configurations 100]`` trains every configuration that a search may start
with (the default, the linear probes, the fine-tunes of each probe's network) and random configurations of a search
space, each as a trial would, on one thread, and appends a row per configuration to ``benchmarks/curves/NAME.jsonl``.
Run again, it records only the missing rows. Times are CPU seconds, which other programs on the machine hardly change.
The time to compute a cache entry is recorded separately from the trial's own time, with the entry's key: in a search
the first trial that needs the entry pays for it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna

from data.cache.content_cache import ContentCache
from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from models.backbones.factory import preprocessing_for
from models.training.train_step import Divergence
from models.trial_config import FeaturesConfig, TrialConfig
from tuning.common.environment import configure_environment
from tuning.common.option_types import ParamValue
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.recipe.schema import Recipe
from tuning.search.space import Preprocessings, SearchSpace
from tuning.search.trial_worker import TrialTask, train

FOLDER = Path(__file__).parent / "curves"
# Smaller than the defaults, so that hundreds of trials take an hour and not days.
SPACE = {
    "backbone": "tf_efficientnet_lite0,tf_efficientnet_lite1",
    "image_size": "32,48,64",
    "truncate": "0,3",
    "max_epochs": "6",
    "lr_scheduler": "cosine,constant,step,plateau",  # the domain at the time of the first rows
}
SEED = 0


class MeasuredCache(ContentCache):
    """A cache that records the CPU seconds of each entry that it creates."""

    created_s: dict[str, float] = {}  # noqa: RUF012  # shared by all caches of this process: they have one root

    def get_or_create(
        self, key: str, create: Callable[[Path], None], on_wait: Callable[[], None] = lambda: None
    ) -> Path:
        """Return the entry's folder; create it if it is missing."""

        def measured(folder: Path) -> None:
            start = time.process_time()
            create(folder)
            self.created_s[key] = time.process_time() - start

        return super().get_or_create(key, measured, on_wait)


def configurations(space: SearchSpace, count: int) -> Iterator[dict[str, ParamValue]]:
    """Yield the default, the linear probes, the fine-tunes of each probe, and ``count`` random ones; deterministic."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))

    def suggest(params: dict[str, ParamValue], *, probe: bool = False) -> dict[str, ParamValue]:
        study.enqueue_trial(params)
        return space.suggest(study.ask(), is_probe=probe)

    probes = [suggest(probe, probe=True) for probe in space.linear_probes()]
    yield from map(suggest, space.default_trials())
    yield from probes
    for probe, unfrozen in itertools.product(probes, (False, True)):
        yield from map(suggest, space.fine_tunes(probe, unfrozen))
    for _ in range(count):
        yield space.suggest(study.ask())


def record(task: TrialTask, settings: dict[str, ParamValue]) -> dict[str, Any]:
    """Train one configuration; return its curve, its times, and the reason if training diverged."""
    MeasuredCache.created_s.clear()
    reports: list[TrialReport] = []
    start, reason = time.process_time(), ""
    try:
        train(task, reports.append)
    except Divergence as error:
        reason = str(error)
    seconds = time.process_time() - start
    return {
        "settings": settings,
        "val_balanced_accuracy": [round(report.metrics["val_balanced_accuracy"], 6) for report in reports],
        "val_loss": [round(report.metrics["val_loss"], 6) for report in reports],
        "own_s": round(seconds - sum(MeasuredCache.created_s.values()), 3),
        "made_s": {key: round(value, 3) for key, value in MeasuredCache.created_s.items()},
        "runtime_info": reports[-1].runtime_info if reports else {},
        "reason": reason,
    }


def warm_up(config: TrialConfig, root: Path) -> None:
    """Train an epoch without the feature cache: the first trial of a process imports torch, timm and Albumentations."""
    fit, features = config.fit.model_copy(update={"max_epochs": 1}), FeaturesConfig(feature_cache="off")
    short = config.model_copy(update={"fit": fit, "features": features})
    train(TrialTask(trial_uid="warm", config=short, search_root=root, threads=1), lambda report: None)


def preprocessings(recipe: Recipe) -> Preprocessings:
    """Return the preprocessing of each of the recipe's networks at each image size."""
    domains = (recipe.backbone, recipe.image_size)
    names, sizes = (domain.options if domain else () for domain in domains)
    return {(str(name), int(size)): preprocessing_for(str(name), int(size)) for name in names for size in sizes}


def run(dataset: Dataset, count: int, file: Path, root: Path) -> None:
    """Append the missing rows to the table ``file``; trials write into ``root``."""
    recipe = Recipe.model_validate(SPACE)
    space, known = SearchSpace(recipe, dataset.imbalance), preprocessings(recipe)
    paths = SearchPaths(root)
    paths.write(recipe, dataset)
    done = [json.loads(line)["settings"] for line in file.read_text().splitlines()] if file.exists() else []
    rows = list(configurations(space, count))
    warm_up(space.trial_config(rows[0], known), root)
    for number, settings in enumerate(rows):
        if settings in done:
            continue
        done.append(settings)  # two probes may have the same fine-tune
        config = space.trial_config(settings, known)
        row = record(TrialTask(trial_uid=f"curve-{number}", config=config, search_root=root, threads=1), settings)
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        best = max(row["val_balanced_accuracy"], default=0.0)
        times = f"{row['own_s']:.1f} s + {sum(row['made_s'].values()):.1f} s"
        print(f"{number}: {best:.4f} {times} {row['reason']}", flush=True)


def main() -> None:
    """Record the table of one data folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--configurations", type=int, default=100)
    arguments = parser.parse_args()
    configure_environment()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FREEZELINE_HOME"] = folder
        import models.features.trial_features

        models.features.trial_features.ContentCache = MeasuredCache  # type: ignore[attr-defined]
        dataset = load_dataset(arguments.data)
        run(dataset, arguments.configurations, FOLDER / f"{dataset.name}.jsonl", Path(folder) / "trial")


if __name__ == "__main__":
    main()
