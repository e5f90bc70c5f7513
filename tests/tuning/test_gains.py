"""What a search gained over its default configuration and its best probe, on the same held-out images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.dataset.dataset import Dataset
from tests.tuning.factories import dataset, trial_record
from tests.tuning.test_choice import NUM_VAL, evidence, labels_of, logits, probe
from tuning.search.evidence import Member
from tuning.search.gains import gains
from tuning.ui.result_text import _gains_text


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    return dataset(tmp_path, {"train": 40, "val": NUM_VAL, "test": 2})


def wrong(labels: np.ndarray, count: int) -> np.ndarray:
    """Return logits [n, 2] that are wrong for the first ``count`` images of each class."""
    margin = np.where(labels == 1, 2.0, -2.0)
    for label in (0, 1):
        margin[np.flatnonzero(labels == label)[:count]] *= -1
    return np.stack([-margin, margin], axis=1)


def test_a_probe_is_compared_with_probes_on_all_folds_and_with_the_default_on_the_validation_images(
    pets: Dataset,
) -> None:
    labels, num_train = labels_of(pets), len(pets.split("train"))
    default, worse, best = trial_record(0, 0.5), probe(1), probe(2)
    known = evidence(
        pets, [(worse, wrong(labels, 12)), (best, wrong(labels, 0))], [(default, wrong(labels[num_train:], 5))]
    )
    trials = [default, worse, best]
    (over_default,) = gains([Member(best)], trials, known)
    assert (over_default.baseline, over_default.num_images) == ("the default configuration", 2 * NUM_VAL)
    assert over_default.difference.mean == pytest.approx(5 / NUM_VAL)
    by_default = list(gains([Member(default)], trials, known))
    assert [gain.baseline for gain in by_default] == ["the best probe"]
    assert by_default[0].difference.mean == pytest.approx(-5 / NUM_VAL)
    _, over_probe = gains([Member(worse, 0.5), Member(best, 0.5)], trials, known)
    assert (over_probe.baseline, over_probe.num_images) == ("the best probe", len(labels))
    assert over_probe.difference.mean <= 0
    assert over_default.difference.standard_error > 0


def test_without_held_out_predictions_there_is_no_gain(pets: Dataset) -> None:
    labels = labels_of(pets)
    known = evidence(pets, [(probe(1), logits(labels, 1.0, 0))], [])
    assert list(gains([Member(trial_record(3, 0.9))], [trial_record(0, 0.5), probe(1)], known)) == []
    assert list(gains([Member(probe(1))], [trial_record(0, 0.5), probe(1)], known)) == []


def test_the_gain_is_in_points_with_its_standard_error(pets: Dataset) -> None:
    labels, num_train = labels_of(pets), len(pets.split("train"))
    default, best = trial_record(0, 0.5), probe(2)
    known = evidence(pets, [(best, wrong(labels, 0))], [(default, wrong(labels[num_train:], 5))])
    text = _gains_text(list(gains([Member(best)], [default, best], known)))
    assert text.startswith("held-out balanced accuracy +25.0 points (standard error ")
    assert text.endswith(" over the default configuration on 40 images")
