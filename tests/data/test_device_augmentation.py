"""Augmentation of batches with torch: the same distributions as Albumentations, each image by its own seed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from albumentations.augmentations.pixel import functional as albumentations_colors

import data.loading.views
from data.loading.augmentation import STRENGTHS, TRANSFORMS, build_augmentation
from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.device_augmentation import DeviceAugmentation, apply_pixel_transform, augments_on
from data.loading.transforms import ColorJitter
from data.loading.views import CPU, OnTheFlyImages
from data.preprocessing import Pixels, Preprocessing, normalize

SIZE = 32
GRAY_LEVELS = Preprocessing(SIZE, mean=(0, 0, 0), std=(1 / 255,) * 3)  # normalizes to the values of the pixels
COUNT = 300
NOISE = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
Floats = npt.NDArray[np.float64]


def augmented(name: str, pixels: Pixels, first_seed: int = 0) -> npt.NDArray[np.float32]:
    """Return images [b, s, s, 3] of values 0 to 255, augmented with consecutive seeds."""
    seeds = np.arange(first_seed, first_seed + len(pixels), dtype=np.uint32)
    images = DeviceAugmentation(name, GRAY_LEVELS, CPU)(pixels, seeds, np.ones(len(pixels), bool))
    return images.permute(0, 2, 3, 1).numpy()


def augmented_by_albumentations(name: str, pixels: Pixels) -> Pixels:
    augmentation = build_augmentation(name, SIZE)
    assert augmentation is not None
    return np.stack([augmentation(image, seed) for seed, image in enumerate(pixels)])


def test_without_augmentation_images_are_only_normalized() -> None:
    preprocessing = Preprocessing(SIZE, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    for name in ("none", "strong"):
        augmentation = DeviceAugmentation(name, preprocessing, CPU)
        images = augmentation(NOISE[:4], np.arange(4, dtype=np.uint32), np.zeros(4, bool))
        np.testing.assert_allclose(images, normalize(NOISE[:4], preprocessing), atol=1e-6)  # rounding of float32
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["light", "medium", "strong", "cutout+color+rotate"])
def test_an_image_depends_on_its_seed_and_not_on_its_batch(name: str) -> None:
    batch = augmented(name, NOISE[:16])
    for row in (0, 7, 15):
        np.testing.assert_array_equal(augmented(name, NOISE[row : row + 1], first_seed=row)[0], batch[row])
    assert (augmented(name, NOISE[:16], first_seed=99) != batch).any()


def test_only_the_selected_images_are_augmented() -> None:
    selected = np.arange(16) % 2 == 0
    augmentation = DeviceAugmentation("crop+color", GRAY_LEVELS, CPU)
    images = augmentation(NOISE[:16], np.arange(16, dtype=np.uint32), selected).permute(0, 2, 3, 1).numpy()
    is_changed = np.abs(images - NOISE[:16]).max(axis=(1, 2, 3)) > 1
    np.testing.assert_array_equal(is_changed, selected)


def test_a_flip_mirrors_the_image() -> None:
    images = augmented("flip", NOISE)
    # Positions are float32, whose rounding moves a pixel by less than 1e-5 of the distance to the next one.
    is_original, is_mirrored = (
        np.isclose(images, expected, atol=0.01).all(axis=(1, 2, 3)) for expected in (NOISE, NOISE[:, :, ::-1])
    )
    assert (is_original ^ is_mirrored).all()
    assert 120 < is_mirrored.sum() < 180  # 3.5 standard deviations around 150


def test_the_border_is_filled_by_reflection() -> None:
    images, limit = augmented("shift", NOISE), int(0.1 * SIZE)
    shifts = set()
    for image, original in zip(images, NOISE, strict=True):
        padded = np.pad(original, ((limit, limit), (limit, limit), (0, 0)), mode="symmetric").astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (SIZE, SIZE), axis=(0, 1))  # [y, x, 3, s, s]
        matches = np.argwhere(np.isclose(windows, image.transpose(2, 0, 1), atol=0.05).all(axis=(2, 3, 4)))
        assert len(matches) == 1
        shifts.add(tuple(matches[0] - limit))
    assert {y for y, _ in shifts} == {x for _, x in shifts} == set(range(-limit, limit + 1))


def moments(images: npt.NDArray[np.generic]) -> Floats:
    """Return properties that show the parameters of transforms, [b, any].

    They are the mean and the standard deviation of each channel, and the first and second moments of the positions,
    weighted with the brightness above the smallest.
    """
    values = images.astype(np.float64)
    weights = values.sum(axis=3)
    weights -= weights.min(axis=(1, 2), keepdims=True)
    weights /= weights.sum(axis=(1, 2), keepdims=True) + 1e-9
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    positions = [(weights * position).sum(axis=(1, 2)) for position in (x, y, x * x, y * y, x * y)]
    return np.column_stack([values.mean(axis=(1, 2)), values.std(axis=(1, 2)), *positions])


def assert_same_distribution(ours: Floats, theirs: Floats) -> None:
    """Compare the mean and the standard deviation of each column.

    The mean of n values has a standard error of std / sqrt(n), so the difference of two means is below 4 of its own
    standard errors but once in 16,000 times. Albumentations rounds down after two of its changes of color: half a gray
    level each, which also makes the spot a little narrower. The standard deviation of n = 300 values has an error of
    4 to 8 % (by the tails of the distribution).
    """
    rounding = np.where(np.arange(ours.shape[1]) < 6, 1.0, 0.4)  # gray levels; pixels, or their squares
    std, expected = ours.std(axis=0), theirs.std(axis=0)
    error = np.sqrt((std**2 + expected**2) / len(ours))
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error + rounding).all()
    np.testing.assert_allclose(std, expected, rtol=0.25, atol=0.15)


def blobs() -> Pixels:
    """Return equal images of an elongated, colored spot beside the center of a dark background."""
    y, x = np.mgrid[:SIZE, :SIZE]
    spot = np.exp(-((x - 18) ** 2 / 18 + (y - 14) ** 2 / 60))
    image = (40 + spot[:, :, None] * [150, 110, 70]).astype(np.uint8)
    return np.tile(image, (COUNT, 1, 1, 1))


@pytest.mark.parametrize("name", [*sorted(TRANSFORMS), "light", "medium", "strong", "crop+rotate+cutout"])
def test_the_effects_have_the_same_means_and_standard_deviations_as_albumentations(name: str) -> None:
    ours, theirs = moments(augmented(name, blobs())), moments(augmented_by_albumentations(name, blobs()))
    # Colors leave the positions as they are, except that Albumentations' rounding moves them a little.
    columns = slice(6) if name in ("color", "brightness_contrast") else slice(None)
    assert_same_distribution(ours[:, columns], theirs[:, columns])


def test_a_distribution_of_other_parameters_is_noticed() -> None:
    for name, other in (("rotate", "shift"), ("light", "medium"), ("color", "brightness_contrast")):
        with pytest.raises(AssertionError):
            assert_same_distribution(moments(augmented(name, blobs())), moments(augmented(other, blobs())))


def test_holes_have_the_same_number_and_sizes_as_those_of_albumentations() -> None:
    black = np.zeros_like(NOISE)
    features = []
    for images in (augmented("cutout", black), augmented_by_albumentations("cutout", black)):
        assert set(np.unique(images)) == {0, 128}
        is_hole = images[:, :, :, 0] > 0
        counts = [cv2.connectedComponents(hole.astype(np.uint8))[0] - 1 for hole in is_hole]
        extent = [is_hole.any(axis=axis).sum(axis=1) for axis in (1, 2)]
        features.append(np.column_stack([counts, is_hole.sum(axis=(1, 2)), *extent]).astype(np.float64))
    assert_same_distribution(*features)


@pytest.mark.parametrize(
    ("position", "values", "adjust", "tolerance"),
    [
        (0, (0.7, 1.3), albumentations_colors.adjust_brightness_torchvision, 1.01),  # rounds down
        (1, (0.7, 1.3), albumentations_colors.adjust_contrast_torchvision, 1.5),
        (2, (0.7, 1.3), albumentations_colors.adjust_saturation_torchvision, 1.5),
        # OpenCV's hues are multiples of 2 degrees, rounded down after the shift: 3 degrees of 60 on a range of 255.
        (3, (-0.05, 0.2), albumentations_colors.adjust_hue_torchvision, 13),
    ],
)
def test_colors_change_as_with_albumentations(
    position: int, values: tuple[float, ...], adjust: Callable[[Pixels, float], Pixels], tolerance: float
) -> None:
    images = torch.from_numpy(NOISE[:1]).permute(0, 3, 1, 2).float()
    for value in values:
        parameters = [torch.full((1, 1, 1, 1), each) for each in (1.0, 1.0, 1.0, 0.0)]
        parameters[position] = torch.full((1, 1, 1, 1), value)
        ours = apply_pixel_transform(ColorJitter(1, 1, 1, 0.5, 1), images, parameters)
        assert np.abs(ours[0].permute(1, 2, 0).numpy() - adjust(NOISE[0], value)).max() <= tolerance


def test_a_gpu_augments_if_albumentations_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSFORMS, "blur", lambda _: [])
    gpu = torch.device("cuda")
    assert all(augments_on(gpu, name) for name in [*STRENGTHS, "flip", "crop+ color", "light+cutout"])
    assert not augments_on(gpu, "blur")
    assert not augments_on(gpu, "flip+blur")
    assert not augments_on(gpu, "flip+of_another_package")
    assert not augments_on(CPU, "light")


@pytest.fixture
def augmenting_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU augment as a GPU does."""
    monkeypatch.setattr(data.loading.views, "augments_on", lambda device, name: augments_on(torch.device("cuda"), name))


def batches(labels: list[int], number: int = 0, **fields: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
    config = BatchConfig.model_validate({"batch_size": 8, "augmentation": "none"} | fields)
    source = OnTheFlyImages(NOISE[: len(labels)], GRAY_LEVELS, 3, config.augmentation, config.balance)
    loader = BatchLoader(source, np.array(labels), config, 3, training=True, num_classes=max(labels) + 1)
    return list(loader.epoch(number))


@pytest.mark.usefixtures("augmenting_device")
@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_batches_are_deterministic_and_differ_between_epochs(mix: str) -> None:
    fields = {"augmentation": "medium", "mix": mix}
    first, again, other = (batches(list(range(16)), number, **fields) for number in (1, 1, 2))
    for (x, y), (same_x, same_y), (other_x, _) in zip(first, again, other, strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(y, same_y)
        assert not torch.equal(x, other_x)
        assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("augmenting_device")
def test_repeats_of_oversampled_images_are_augmented() -> None:
    labels = [0] * 20 + [1] * 5
    images = torch.cat([x for x, _ in batches(labels, balance="oversample")]).permute(0, 2, 3, 1).numpy()
    is_original = [
        bool(np.isclose(NOISE[: len(labels)], image, atol=0.01).all(axis=(1, 2, 3)).any()) for image in images
    ]
    assert len(images) == 40
    assert 25 <= sum(is_original) < 32  # light leaves one in ten unchanged
    assert len({image.tobytes() for image in images}) > 35
