"""Makers of small values for the tests of tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data.dataset.dataset import Dataset, Sample
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from data.sources.base import SplitName
from models.trial_config import FitConfig, NetworkConfig, TrialConfig
from tuning.common.promotion_types import Candidate
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import ParamValue, TrialRecord, TrialReport, TrialStatus
from tuning.recipe.schema import Recipe
from tuning.search.space import SearchSpace
from tuning.search.study import TrialStore, open_trial_store

BACKBONE = "tf_efficientnet_lite0"
PREPROCESSINGS = {(BACKBONE, size): Preprocessing(size) for size in (32, 64)}
CLASSES = ("cat", "dog")


def recipe(**texts: object) -> Recipe:
    """Return a recipe of options as a user types them, of one network at 32 px, two cuts and the last level."""
    one = {"backbone": BACKBONE, "image_size": "32", "truncate": "0,3", "head_features": "last"}
    return Recipe.model_validate({**one, **texts})


def trial_config(max_epochs: int = 4, lr: float = 1e-3) -> TrialConfig:
    return TrialConfig(
        seed=3,
        preprocessing=Preprocessing(32),
        batches=BatchConfig(),
        network=NetworkConfig(weights="none"),
        fit=FitConfig(max_epochs=max_epochs, lr=lr),
    )


def trial_result(
    number: int = 0, score: float | None = 0.5, status: TrialStatus = "complete", reason: str = ""
) -> TrialRecord:
    """Return a trial as the ledger knows it; without a score it ended before its first epoch did."""
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
        history=() if score is None else tuple(metrics(one) for one in (0.9 * score, score, 0.9 * score)),
    )


def metrics(score: float) -> dict[str, float]:
    """Return what an epoch measured."""
    return {"val_balanced_accuracy": score, "val_loss": 1 - score}


def ledger_at(root: Path, given: Recipe | None = None) -> TrialStore:
    """Return the ledger of a new search in ``root``, by default without a sweep."""
    asked = given or recipe(max_epochs=4, sweep="off")
    space = SearchSpace(asked)

    def configure(settings: Mapping[str, ParamValue]) -> TrialConfig:
        return space.trial_config(settings, PREPROCESSINGS)

    return open_trial_store(SearchPaths(root), space, configure, asked.seed, 100, asked.sampler)


def epoch(number: int, score: float, is_best: bool = True) -> TrialReport:
    """Return what a worker says after an epoch."""
    return TrialReport(
        status="running",
        epoch=number,
        metrics=metrics(score),
        is_best=is_best,
        runtime_info={"freeze_depth": 9, "blocks": 18},
    )


def dataset(root: Path, counts: Mapping[SplitName, int] | None = None) -> Dataset:
    """Return a data set of that many pictures a class in each split; the files need not exist."""
    samples = [
        Sample(path=f"{name}/{name}-{number}.png", label=label, split=split, content_hash=f"{name}{split}{number}")
        for split, count in (counts or {"train": 4, "val": 2, "test": 10}).items()
        for label, name in enumerate(CLASSES)
        for number in range(count)
    ]
    return Dataset(name="pets", root=root, classes=CLASSES, samples=tuple(samples), median_short_side=32)


GATE = Recipe().gate


def predictions(right: Sequence[int], of: int) -> tuple[int, ...]:
    """Return predictions for ``of`` pictures of each class, of which the first ``right`` of the class are right."""
    classes = len(right)
    return tuple(
        label if number < right[label] else (label + 1) % classes for label in range(classes) for number in range(of)
    )


def candidate(
    score: float = 0.8,
    classes: Sequence[str] = CLASSES,
    run_id: str = "run",
    model_uri: str = "models:/m-1",
    test_looks: int = 1,
    right: Sequence[int] | None = None,
    of: int = 10,
) -> Candidate:
    """Return a candidate that is right for ``right`` of ``of`` pictures of each class, by default ``compute_metrics`` of them."""
    names = ("test_accuracy", "test_balanced_accuracy", "test_macro_f1")
    right = right or [round(score * of)] * len(classes)
    truth = tuple(label for label in range(len(classes)) for _ in range(of))
    return Candidate(
        name="pets",
        run_id=run_id,
        model_uri=model_uri,
        commit="c0ffee",
        data="photos",
        data_fingerprint="f" * 32,
        classes=tuple(classes),
        test_evaluations=test_looks,
        metrics=dict.fromkeys(names, score),
        intervals=dict.fromkeys(names, (score - 0.05, score + 0.05)),
        y_true=truth,
        y_pred=predictions(right, of),
        test_hashes=tuple(f"test{number}" for number in range(len(truth))),
        seen_hashes=("seen0", "seen1"),
        leaks=0,
        gate=GATE,
        temperature=1.0,
        max_difference=1e-5,
        num_checked_images=20,
        size_mb=10.0,
    )
