"""Factories of small values for the tests of tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.dataset.dataset import Dataset, Sample
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from models.trial_config import FitConfig, NetworkConfig, TrialConfig
from tuning.common.option_types import ParamValue
from tuning.common.promotion_types import Candidate, CandidateMember
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord, TrialReport, TrialStatus
from tuning.recipe.schema import Recipe
from tuning.search.evidence import Member
from tuning.search.search_result import SearchResult
from tuning.search.space import SearchSpace
from tuning.search.strategy import SearchState, SearchStrategy
from tuning.search.study import TrialStore, open_trial_store

BACKBONE = "tf_efficientnet_lite0"
PREPROCESSINGS = {(BACKBONE, size): Preprocessing(size) for size in (32, 64)}
CLASSES = ("cat", "dog")
NUM_VAL_IMAGES = 100


def recipe(**options: object) -> Recipe:
    """Return a recipe of options as typed by a user; by default one backbone, 32 px, two truncations, last features."""
    defaults = {"backbone": BACKBONE, "image_size": "32", "truncate": "0,3", "head_features": "last"}
    return Recipe.model_validate({**defaults, **options})


def trial_config(max_epochs: int = 4, lr: float = 1e-3) -> TrialConfig:
    return TrialConfig(
        seed=3,
        preprocessing=Preprocessing(32),
        batches=BatchConfig(),
        network=NetworkConfig(weights="none"),
        fit=FitConfig(max_epochs=max_epochs, lr=lr),
    )


def trial_record(
    number: int = 0, score: float | None = 0.5, status: TrialStatus = "complete", reason: str = ""
) -> TrialRecord:
    """Return a trial as the trial store returns it; without a score it ended during its first epoch."""
    settings = {
        "backbone": BACKBONE, "image_size": 32, "truncate": 0, "freeze_fraction": 0.5,
        "optimizer": "adamw", "weight_decay": 1e-2, "batch_size": 32,
        "lr_scheduler": "cosine", "dropout": 0.2, "augmentation": "light", "lr": 1e-3,
    }  # fmt: skip
    return TrialRecord(
        trial_uid=f"uid{number}",
        number=number,
        origin="default" if number == 0 else "sampler",
        status=status,
        reason=reason,
        config=trial_config(),
        settings=settings,
        runtime_info={"freeze_depth": 9, "freeze_block": "blocks.4", "blocks": 18},
        history=() if score is None else tuple(epoch_metrics(value) for value in (0.9 * score, score, 0.9 * score)),
    )


def search_result(trials: Sequence[TrialRecord], winner: TrialRecord, **changes: Any) -> SearchResult:
    """Return the result of a search with two classes, without re-runs, costs and limits."""
    result = SearchResult(
        trials=tuple(trials),
        winner=winner,
        members=(Member(winner),),
        choice=None,
        reruns=(),
        improvement=None,
        gains=(),
        costs={},
        limits={},
        num_classes=2,
    )
    return dataclasses.replace(result, **changes)


def epoch_metrics(score: float) -> dict[str, float]:
    """Return the metrics of an epoch."""
    return {"val_balanced_accuracy": score, "val_loss": 1 - score}


def trial_store(root: Path, search_recipe: Recipe | None = None) -> TrialStore:
    """Return the trial store of a new search in ``root``; the default recipe has no probes."""
    search_recipe = search_recipe or recipe(max_epochs=4, sweep="off")
    space = SearchSpace(search_recipe)

    def make_config(settings: Mapping[str, ParamValue]) -> TrialConfig:
        return space.trial_config(settings, PREPROCESSINGS)

    return open_trial_store(SearchPaths(root), space, make_config, search_recipe.seed, search_recipe.sampler)


def start_trial(store: TrialStore, search_recipe: Recipe | None = None) -> TrialRecord:
    """Start the next trial of a search without limits; the default recipe has no probes."""
    search_recipe = search_recipe or recipe(max_epochs=4, sweep="off")
    strategy = SearchStrategy(search_recipe, SearchSpace(search_recipe), NUM_VAL_IMAGES)
    step = strategy.next(SearchState(store.trials(), store.interrupted()))
    assert not isinstance(step, str)
    return store.start(step)


def epoch_report(number: int, score: float, is_best: bool = True) -> TrialReport:
    """Return the report of a worker after an epoch."""
    return TrialReport(
        status="running",
        epoch=number,
        metrics=epoch_metrics(score),
        is_best=is_best,
        runtime_info={"freeze_depth": 9, "blocks": 18},
    )


def dataset(root: Path, counts: Mapping[SplitName, int] | None = None) -> Dataset:
    """Return a data set with ``counts`` images per class in each split; the files do not exist."""
    samples = [
        Sample(path=f"{name}/{name}-{number}.png", label=label, split=split, content_hash=f"{name}{split}{number}")
        for split, count in (counts or {"train": 4, "val": 2, "test": 10}).items()
        for label, name in enumerate(CLASSES)
        for number in range(count)
    ]
    return Dataset(name="pets", root=root, classes=CLASSES, samples=tuple(samples), median_short_side=32)


GATE = Recipe().gate


def predictions(num_correct: Sequence[int], images_per_class: int) -> tuple[int, ...]:
    """Return predicted labels; the first ``num_correct[label]`` images of each class are correct."""
    classes = len(num_correct)
    return tuple(
        label if number < num_correct[label] else (label + 1) % classes
        for label in range(classes)
        for number in range(images_per_class)
    )


def ensemble(scored: Candidate | None = None) -> Candidate:
    """Return a candidate with two networks: one of 32 px, and one of 48 px with a lower weight."""
    config = trial_config()
    other = config.model_copy(update={"preprocessing": Preprocessing(48), "seed": 4})
    members = (CandidateMember(config=config, weight=0.75), CandidateMember(config=other, weight=0.25))
    return (scored or candidate()).model_copy(update={"members": members, "latency_ms": 12.5})


def candidate(
    score: float = 0.8,
    classes: Sequence[str] = CLASSES,
    run_id: str = "run",
    model_uri: str = "models:/m-1",
    test_evaluations: int = 1,
    num_correct: Sequence[int] | None = None,
    images_per_class: int = 10,
) -> Candidate:
    """Return a candidate with ``num_correct`` correct predictions in each class, by default ``score`` of the images."""
    names = ("test_accuracy", "test_balanced_accuracy", "test_macro_f1")
    num_correct = num_correct or [round(score * images_per_class)] * len(classes)
    y_true = tuple(label for label in range(len(classes)) for _ in range(images_per_class))
    return Candidate(
        name="pets",
        members=(CandidateMember(config=trial_config()),),
        run_id=run_id,
        model_uri=model_uri,
        commit="c0ffee",
        data="photos",
        data_fingerprint="f" * 32,
        classes=tuple(classes),
        evaluated_ms=1_000,
        test_evaluations=test_evaluations,
        metrics={**dict.fromkeys(names, score), "test_ece": 0.08, "test_ece_calibrated": 0.03},
        intervals=dict.fromkeys(names, (score - 0.05, score + 0.05)),
        y_true=y_true,
        y_pred=predictions(num_correct, images_per_class),
        test_hashes=tuple(f"test{number}" for number in range(len(y_true))),
        seen_hashes=("seen0", "seen1"),
        leaks=0,
        gate=GATE,
        temperature=1.0,
        max_difference=1e-5,
        num_checked_images=20,
        size_mb=10.0,
    )
