"""Warnings about a result: each appears for its reason alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.evaluation.estimate import Estimate
from tests.tuning.factories import candidate, dataset, search_result, trial_record
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.search.choice import Choice
from tuning.search.evidence import Member, SelectionEstimate
from tuning.search.result_warnings import result_warnings, split_warnings


def warnings(root: Path, *, images: int = 100, default: TrialRecord | None = None, **changes: Any) -> list[str]:
    """Return the warnings of a search with ``images`` images per class in each split; a score of 0.8 is expected."""
    pets = dataset(root, dict.fromkeys(("train", "val", "test"), images))
    winner = trial_record(1, 0.8)
    metrics = {"test_balanced_accuracy": 0.8, **changes.pop("metrics", {})}
    changed: Candidate = candidate().model_copy(update={"metrics": metrics, **changes})
    labels = np.array([sample.label for sample in pets.split("val")])
    estimate = SelectionEstimate(Estimate(0.8, 0.03), Estimate(0.5, 0.1))
    choice = Choice((Member(winner),), estimate, False, np.zeros((len(labels), 2)), labels, ())
    result = search_result([default or trial_record(0, 0.7), winner], winner, choice=choice)
    return result_warnings(pets, result, changed)


def test_a_sound_result_has_no_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path) == []


def test_small_splits_are_named_with_what_one_image_is_worth(tmp_path: Path) -> None:
    val, test = warnings(tmp_path, images=20)
    assert val.startswith("only 40 validation images: one image is 2.5 points of accuracy")
    assert test.startswith("only 40 test images: one image is 2.5 points of accuracy")


@pytest.mark.parametrize(("test_score", "is_warned"), [(0.75, False), (0.65, True), (0.95, False)])
def test_a_validation_score_far_above_the_test_score_is_luck(
    tmp_path: Path, test_score: float, is_warned: bool
) -> None:
    found = warnings(tmp_path, metrics={"test_balanced_accuracy": test_score})
    assert bool(found) == is_warned
    assert not is_warned or "0.6500 on test, but 0.8000 was expected" in found[0]


def test_a_default_that_ran_out_of_time_is_named(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, default=trial_record(0, 0.7, "out of time"))
    assert warning.startswith("the default configuration (trial 0) ran out of time after 3 of 4 epochs")


def test_kept_leaks_and_worse_calibration_are_named(tmp_path: Path) -> None:
    (leaks,) = warnings(tmp_path, leaks=2)
    assert leaks.startswith("2 groups of related images are in the test and another split")
    (calibration,) = warnings(tmp_path, metrics={"test_ece": 0.02, "test_ece_calibrated": 0.05})
    assert "from 0.020 to 0.050" in calibration
    assert warnings(tmp_path, metrics={"test_ece": 0.05, "test_ece_calibrated": 0.02}) == []


def test_a_class_whose_images_are_all_linked_is_named(tmp_path: Path) -> None:
    pets = dataset(tmp_path, {"train": 110, "val": 100, "test": 100})
    linked = [
        sample.model_copy(update={"group": "one"}) if sample.label == 1 and sample.split != "test" else sample
        for sample in pets.samples
    ]
    (warning,) = split_warnings(pets.model_copy(update={"samples": tuple(linked)}))
    assert warning.startswith("dog: all training and validation images of a class are linked")
    provided = {"samples": tuple(linked), "provided_splits": ("train", "val")}
    assert split_warnings(pets.model_copy(update=provided)) == split_warnings(pets) == []
