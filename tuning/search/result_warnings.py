"""Reasons to distrust the result of a search, as sentences for the terminal, the report and the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from data.dataset.dataset import Dataset
from data.dataset.folds import never_held_out
from data.sources.base import SplitName
from data.text import pluralize
from tuning.common.names import TEST_METRIC
from tuning.common.promotion_types import Candidate
from tuning.search.search_result import SearchResult

SMALL_SPLIT = 100  # images; below, one image is worth more than one point of accuracy
MAX_CALIBRATION_LOSS = 0.01  # increase of the expected calibration error on the test split


def result_warnings(dataset: Dataset, result: SearchResult, candidate: Candidate) -> list[str]:
    """Return a sentence for each reason, most important first."""
    return [
        *split_warnings(dataset),
        *_optimistic_validation(dataset, result, candidate),
        *_default_out_of_time(result),
        *_kept_leaks(candidate),
        *_calibration(candidate),
    ]


def split_warnings(dataset: Dataset) -> list[str]:
    """Return the warnings about splits that are known before a search: small ones, and classes in no fold."""
    consequences: dict[SplitName, tuple[str, str]] = {
        "val": ("validation image", "small differences between trials are noise"),
        "test": ("test image", "the confidence intervals are wide"),
    }
    texts = []
    for split, (name, consequence) in consequences.items():
        count = len(dataset.split(split))
        if count < SMALL_SPLIT:
            points = f"one image is {100 / count:.1f} points of accuracy"
            texts.append(f"only {pluralize(count, name)}: {points}, so {consequence}")
    if "val" not in dataset.provided_splits and (classes := never_held_out(dataset)):
        texts.append(
            f"{', '.join(classes)}: all training and validation images of a class are linked (near-duplicates or one "
            "group), so they are in the training part of every fold, and cross-validation says nothing about them"
        )
    return texts


def _optimistic_validation(dataset: Dataset, result: SearchResult, candidate: Candidate) -> Iterator[str]:
    """Yield a warning if the winner's expected score exceeds its test score by more than two standard errors."""
    if result.choice is None:
        return
    expected, test = result.choice.estimate.score, candidate.metrics[TEST_METRIC]
    variance = expected.standard_error**2 + test * (1 - test) / len(dataset.split("test"))
    if expected.mean - test > 2 * math.sqrt(variance):
        yield (
            f"the winner's balanced accuracy is {test:.4f} on test, but {expected.mean:.4f} was expected from the "
            "images that its training left out: expect the test score"
        )


def _default_out_of_time(result: SearchResult) -> Iterator[str]:
    default = result.default
    if default is None or (default.status == "out of time" and default.score is None):
        yield "the default configuration was not tried: the time was over before its first epoch; give it more minutes"
    elif default.status == "out of time":
        epochs = pluralize(default.config.fit.max_epochs, "epoch")
        yield (
            f"the default configuration (trial {default.number}) ran out of time after {default.epochs} of {epochs}"
            "; with more minutes it may be better than it looks"
        )


def _kept_leaks(candidate: Candidate) -> Iterator[str]:
    if candidate.leaks:
        groups = pluralize(candidate.leaks, "group")
        yield f"{groups} of related images are in the test and another split (on_leak=keep): the test score is too high"


def _calibration(candidate: Candidate) -> Iterator[str]:
    before, after = candidate.metrics.get("test_ece"), candidate.metrics.get("test_ece_calibrated")
    if before is not None and after is not None and after > before + MAX_CALIBRATION_LOSS:
        yield (
            f"calibration raised the expected calibration error on test from {before:.3f} to {after:.3f}: do not read "
            "the probabilities as certainties"
        )
