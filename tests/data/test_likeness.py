"""What data sets are compared by."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from data.dataset import load_dataset
from data.likeness import LOOKED_AT, Likeness, likeness
from tests.conftest import MakeFolder

PETS = Likeness(classes=2, pictures=1000, imbalance=1.0, median_side=200, mean=0.5, deviation=0.25)


def test_a_data_sets_statistics_are_those_of_its_training_pictures(make_folder: MakeFolder) -> None:
    dataset = load_dataset(str(make_folder({"cat": 16, "dog": 8})))
    found = likeness(dataset)
    assert (found.classes, found.pictures, found.median_side) == (2, len(dataset.split("train")), 16)
    assert found.imbalance == dataset.imbalance > 1.5
    assert Likeness.from_json(found.to_json()) == found


def test_the_pixels_mean_and_deviation_are_of_the_whole_grey_scale(tmp_path: Path) -> None:
    for label, name in enumerate(("dark", "light")):
        (tmp_path / name).mkdir()
        for number in range(8):
            Image.new("RGB", (16, 16), (250 * label, 250 * label, number)).save(tmp_path / name / f"{number}.png")
    found = likeness(load_dataset(str(tmp_path)))
    assert found.mean == pytest.approx(0.33, abs=0.02)
    assert found.deviation == pytest.approx(0.46, abs=0.02)


def test_only_some_pictures_are_looked_at(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(str(make_folder({"cat": 100, "dog": 100})))
    opened: list[object] = []
    monkeypatch.setattr("data.likeness.read_image", lambda path: opened.append(path) or Image.open(path).convert("RGB"))
    likeness(dataset)
    assert LOOKED_AT / 2 < len(opened) <= LOOKED_AT


@pytest.mark.parametrize(
    ("changes", "distance"),
    [
        ({}, 0.0),
        ({"pictures": 4000}, 2.0),
        ({"classes": 4, "median_side": 100}, 2.0),
        ({"mean": 0.25}, 1.0),
        ({"imbalance": 2.0, "deviation": 0.5}, 2.0),
    ],
)
def test_a_factor_of_two_and_a_quarter_of_the_grey_scale_are_as_far(changes: dict[str, float], distance: float) -> None:
    other = PETS.model_copy(update=changes)
    assert PETS.distance(other) == other.distance(PETS) == pytest.approx(distance)
