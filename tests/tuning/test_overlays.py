"""Overlays of a report: drawn beside mistakes and correct images, and left out if something fails or takes long."""

from __future__ import annotations

import dataclasses
import io
import logging

import numpy as np
import pytest
from PIL import Image

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from models.packaging.explanation import Explainer
from tests.conftest import MakeFolder
from tests.models.test_explanation import WHOLE, member
from tests.tuning.report_factory import THUMBNAIL, Page, report_content
from tuning.reporting import overlays as overlays_module
from tuning.reporting.classified_images import MAX_CORRECT, MAX_MISTAKES, ClassifiedImage, ClassifiedSamples
from tuning.reporting.overlays import Overlays
from tuning.reporting.page import build_report


@pytest.fixture
def photos(make_folder: MakeFolder) -> Dataset:
    return load_dataset(str(make_folder({"blue": 24, "green": 24, "red": 24}, size=(60, 40))))


@pytest.fixture(autouse=True)
def no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let overlays take any time: on a busy machine, the first import of torch may take longer than the limit."""
    monkeypatch.setattr(overlays_module, "TIME_LIMIT_S", 600.0)


def classified(dataset: Dataset, overlays: Overlays) -> ClassifiedSamples:
    """Return the images of which every second one is misclassified."""
    labels = np.array([sample.label for sample in dataset.samples])
    predicted = (labels + np.arange(len(labels)) % 2) % 3
    return ClassifiedSamples(dataset, dataset.samples, np.eye(3)[predicted] * 0.7 + 0.1, labels, overlays)


def explainer() -> Explainer:
    return Explainer([member(WHOLE, 1.0)])


def test_mistakes_and_correct_images_have_overlays_of_their_size(photos: Dataset) -> None:
    samples = classified(photos, Overlays(explainer))
    images = (*samples.mistakes(), *samples.correct())
    assert len(images) == MAX_MISTAKES + MAX_CORRECT == 18
    for image in images:
        assert image.overlay
        assert Image.open(io.BytesIO(image.overlay)).size == Image.open(io.BytesIO(image.thumbnail)).size == (60, 40)
    assert len({image.overlay for image in images}) == 18


def test_an_overlay_is_that_of_the_predicted_class(photos: Dataset) -> None:
    (first, *_) = classified(photos, Overlays(explainer)).mistakes()
    with Image.open(photos.root / first.path) as image:
        drawn = explainer()
        expected = drawn.overlays([drawn.prepare(image, 160)], [photos.classes.index(first.predicted_label)])[0]
    assert first.overlay
    difference = np.asarray(Image.open(io.BytesIO(first.overlay)), dtype=float) - np.asarray(expected, dtype=float)
    assert np.abs(difference).max() <= 2


def test_the_images_of_other_sections_have_none(photos: Dataset) -> None:
    samples = classified(photos, Overlays(lambda: pytest.fail("loaded")))
    assert [image.overlay for image in samples.most_confident((0, 1), 2)] == [None, None]


@pytest.mark.parametrize("fails", ["load", "prepare", "overlays"])
def test_an_error_costs_the_report_only_its_overlays(
    fails: str, photos: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Explainer:
        raise RuntimeError("an operation is missing")

    if fails != "load":
        monkeypatch.setattr(Explainer, fails, fail)
    caplog.set_level(logging.INFO)
    samples = classified(photos, Overlays(fail if fails == "load" else explainer))
    images = (*samples.mistakes(), *samples.correct())
    assert len(images) == 18
    assert not any(image.overlay for image in images)
    assert caplog.text.count("the report has no class activation maps: an operation is missing") == 1


def test_after_the_time_limit_images_have_no_overlay(photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays_module, "TIME_LIMIT_S", -1.0)
    samples = classified(photos, Overlays(lambda: pytest.fail("loaded")))
    assert not any(image.overlay for image in samples.mistakes())


# --- in the page ---


def with_overlay(path: str, predicted: str = "b") -> ClassifiedImage:
    return ClassifiedImage(THUMBNAIL, path, "a", predicted, 0.9, 0.05, overlay=THUMBNAIL)


def test_each_overlay_is_beside_its_image_and_described() -> None:
    content = report_content(mistakes=(with_overlay("x.png"),), correct=(with_overlay("y.png", "a"),))
    page = Page(build_report(content, ()))
    assert page.open == []
    descriptions = page.values("alt")
    position = descriptions.index("evidence for b in this image of a")
    assert descriptions[position - 1] == "a, predicted b"
    assert "evidence for a in this image of a" in descriptions
    assert page.text.count("class activation map") == 1
    assert page.text.index("class activation map") < page.text.index("x.png")


def test_without_mistakes_the_overlays_of_correct_images_are_explained() -> None:
    page = Page(build_report(report_content(mistakes=(), correct=(with_overlay("y.png", "a"),)), ()))
    assert page.text.count("class activation map") == 1


def test_without_overlays_nothing_is_explained() -> None:
    content = report_content()
    mistakes = tuple(dataclasses.replace(image, overlay=None) for image in content.mistakes)
    page = Page(build_report(dataclasses.replace(content, mistakes=mistakes), ()))
    assert "class activation map" not in page.text
    assert not any(text.startswith("evidence") for text in page.values("alt"))


def test_the_overlays_of_a_report_are_small() -> None:
    drawn = explainer()
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (600, 600, 3)).astype(np.uint8)).resize((2000, 1500))
    overlays = Overlays(lambda: drawn)
    (overlay,) = overlays.draw([overlays.prepare(photo, 160)], [0])
    assert overlay
    assert len(overlay) < 20_000
