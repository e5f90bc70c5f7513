"""Explanations of a package: the evidence of its networks in one image, and its overlay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing, normalize, to_pixels
from models.classifier import build_classifier
from models.evaluation.class_activation import ClassActivation
from models.evaluation.evidence_overlay import INFERNO, OUTSIDE_BRIGHTNESS, draw_overlay, inferno, resize_map
from models.packaging.explanation import SIDE, Explainer
from models.packaging.export import PackageMember
from models.trial_config import FitConfig, NetworkConfig, TrialConfig

WHOLE, CENTER = Preprocessing(64), Preprocessing(32, crop_fraction=0.5)


def member(preprocessing: Preprocessing, weight: float, seed: int = 0) -> PackageMember:
    network = NetworkConfig(backbone="small_cnn", weights="none")
    config = TrialConfig(
        seed=seed, preprocessing=preprocessing, batches=BatchConfig(), network=network, fit=FitConfig()
    )
    return PackageMember(build_classifier(network, 3, preprocessing.image_size, seed), config, weight)


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8))


# --- the evidence ---


def evidence(members: list[PackageMember], image: Image.Image, class_index: int = 1) -> np.ndarray:
    explainer = Explainer(members)
    (values,) = explainer.evidence([explainer.prepare(image, 100).pixels], [class_index])
    return values


def test_the_evidence_of_one_network_is_its_map_with_the_same_sum(image: Image.Image) -> None:
    one = member(WHOLE, 1.0)
    x = torch.from_numpy(normalize(to_pixels(image, WHOLE)[None], WHOLE))
    (expected,) = ClassActivation(one.classifier, 64).maps(x, torch.tensor([1]))
    values = evidence([one], image)
    assert values.shape == (SIDE, SIDE)
    assert values.sum() == pytest.approx(float(expected.sum()), rel=0.05, abs=1e-3)
    coarse = np.asarray(Image.fromarray(values).resize((4, 4), Image.Resampling.BOX)) * SIDE**2 / 16
    assert np.corrcoef(coarse.ravel(), expected.numpy().ravel())[0, 1] > 0.95


def test_the_evidence_of_an_ensemble_is_the_weighted_mean(image: Image.Image) -> None:
    whole, center = member(WHOLE, 0.75, seed=1), member(CENTER, 0.25, seed=2)
    separate = [evidence([each._replace(weight=1.0)], image) for each in (whole, center)]
    np.testing.assert_allclose(
        evidence([whole, center], image), 0.75 * separate[0] + 0.25 * separate[1], rtol=1e-4, atol=1e-8
    )


def test_there_is_no_evidence_outside_the_crop_of_a_network(image: Image.Image) -> None:
    values = evidence([member(CENTER, 1.0)], image)
    quarter = SIDE // 4
    assert (values[quarter:-quarter, quarter:-quarter] != 0).all()
    values[quarter:-quarter, quarter:-quarter] = 0
    assert not values.any()


def test_the_images_of_one_pass_have_the_evidence_that_they_have_alone(image: Image.Image) -> None:
    explainer = Explainer([member(WHOLE, 1.0)])
    pixels = [explainer.prepare(each, 100).pixels for each in (image, image.rotate(90))]
    together = explainer.evidence(pixels, [0, 2])
    for row, class_index in enumerate((0, 2)):
        alone = explainer.evidence(pixels[row : row + 1], [class_index])
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-3, atol=1e-7)


def test_an_overlay_has_the_shape_of_the_image_and_at_most_the_given_size(image: Image.Image) -> None:
    explainer = Explainer([member(WHOLE, 1.0)])
    (small,) = explainer.overlays([explainer.prepare(image, 60)], [0])
    assert small.size == (60, 40)
    (whole,) = explainer.overlays([explainer.prepare(image, 1000)], [0])
    assert whole.size == image.size


# --- the overlay ---


def test_the_strongest_evidence_has_the_brightest_color_and_other_parts_stay_gray() -> None:
    values = np.zeros((4, 4), dtype=np.float32)
    values[0, 3], values[3, 0] = 2.0, -5.0
    pixels = np.asarray(draw_overlay(Image.new("RGB", (80, 40), (90, 90, 90)), values), dtype=float)
    saturation = pixels.max(2) - pixels.min(2)
    row, column = np.unravel_index(saturation.argmax(), saturation.shape)
    assert row < 12
    assert 50 <= column < 60
    assert pixels[row, column].mean() > 110
    assert saturation[30:, 20:40].max() <= 1  # evidence against the class has no color


def test_margins_that_the_networks_do_not_see_are_dark() -> None:
    pixels = np.asarray(draw_overlay(Image.new("RGB", (80, 40), (100, 100, 100)), np.zeros((4, 4), dtype=np.float32)))
    assert (pixels[:, 20:60] == 100).all()
    assert (pixels[:, :20] == round(100 * OUTSIDE_BRIGHTNESS)).all()
    assert (pixels[:, 60:] == round(100 * OUTSIDE_BRIGHTNESS)).all()


def test_lightness_grows_with_the_evidence() -> None:
    colors = inferno(np.linspace(0, 1, 50, dtype=np.float32)[None])[0]
    luminance = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()
    assert tuple(colors[-1]) == INFERNO[-1]


def test_a_map_is_enlarged_smoothly() -> None:
    values = resize_map(np.array([[0, 1], [0, 1]], dtype=np.float32), 64)
    assert values.shape == (64, 64)
    assert np.abs(np.diff(values, axis=1)).max() < 0.05
