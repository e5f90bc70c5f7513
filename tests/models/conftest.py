"""Fixtures for the tests of models: images as arrays, and networks with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from data.loading.batch_config import BatchConfig
from data.loading.batch_loader import BatchLoader
from data.loading.views import OnTheFlyImages
from data.preprocessing import Pixels, Preprocessing, normalize, read_image, to_pixels
from models.classifier import Classifier, build_classifier
from models.trial_config import FitConfig, NetworkConfig, TrialConfig

if TYPE_CHECKING:
    from models.packaging.export import ExportResult, PackageMember

SIZE = 32  # px
CLASSES = ("blue", "green", "red")
NETWORK = "timm/test_efficientnet"  # timm's own test networks have a few hundred thousand parameters


def colored_pixels(count: int, seed: int = 0) -> tuple[Pixels, np.ndarray]:
    """Return noisy images [n, s, s, 3] that are brightest in the channel of their class, and labels [n]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    noise = rng.normal(100, 40, (count, SIZE, SIZE, 3))
    noise[np.arange(count), :, :, labels] += 60
    return np.clip(noise, 0, 255).astype(np.uint8), labels


MakeBatches = Callable[..., BatchLoader]


@pytest.fixture
def make_batches() -> MakeBatches:
    """Return a factory of batches: ``make_batches(24, training=True)``."""

    def make(count: int, training: bool = False, batch_size: int = 8, seed: int = 0) -> BatchLoader:
        pixels, labels = colored_pixels(count, seed)
        config = BatchConfig(batch_size=batch_size, augmentation="none")
        return BatchLoader(
            OnTheFlyImages(pixels, Preprocessing(SIZE), seed), labels, config, seed, training, len(CLASSES)
        )

    return make


MakeClassifier = Callable[..., Classifier]


@pytest.fixture
def make_classifier() -> MakeClassifier:
    """Return a factory of classifiers with random weights."""

    def make(freeze_fraction: float = 0.5, backbone: str = NETWORK, dropout: float = 0.0, seed: int = 0) -> Classifier:
        config = NetworkConfig(backbone=backbone, weights="none", freeze_fraction=freeze_fraction, dropout=dropout)
        return build_classifier(config, len(CLASSES), SIZE, seed)

    return make


@pytest.fixture
def trial_config() -> TrialConfig:
    """Return a trial configuration of the test network."""
    return TrialConfig(
        seed=3,
        preprocessing=Preprocessing(SIZE),
        batches=BatchConfig(batch_size=8, augmentation="none"),
        network=NetworkConfig(backbone=NETWORK, weights="none"),
        fit=FitConfig(max_epochs=2),
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Use one thread: with more, small networks wait for their threads when the machine is busy."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def torch_state() -> Iterator[None]:
    """Restore torch's random state after each test."""
    with torch.random.fork_rng(devices=[]):
        yield


@dataclass(frozen=True)
class Packaged:
    """A packaged classifier and an image file.

    Attributes:
        classifier: the classifier that was exported.
        config: its trial configuration.
        export_result: result of ``export_package``.
        folder: output of ``export_package``.
        model: the MLflow model saved from ``folder``.
        image_file: an image for predictions.
    """

    classifier: Classifier
    config: TrialConfig
    export_result: ExportResult
    folder: Path
    model: Path
    image_file: Path

    @property
    def member(self) -> PackageMember:
        """The exported network."""
        from models.packaging.export import PackageMember

        return PackageMember(self.classifier, self.config)

    def expected(self, count: int) -> np.ndarray:
        """Return the probabilities [n, k] of the training code for ``count`` copies of the image."""
        pixels = to_pixels(read_image(self.image_file), self.config.preprocessing)
        x = torch.from_numpy(normalize(np.stack([pixels] * count), self.config.preprocessing))
        with torch.inference_mode():
            probabilities: np.ndarray = self.classifier.eval()(x).double().softmax(dim=1).numpy()
        return probabilities


def make_package(tmp_path: Path, config: TrialConfig) -> Packaged:
    """Export a classifier with random weights, save it as an MLflow model, and write an image file."""
    from models.packaging.export import PackageFacts, PackageMember, export_package
    from models.packaging.mlflow_model import save_package  # imports MLflow, which takes seconds

    classifier = build_classifier(config.network, len(CLASSES), SIZE, seed=0)
    pixels, _ = colored_pixels(12)
    facts = PackageFacts(labels=CLASSES, data_fingerprint="fingerprint")
    export_result = export_package([PackageMember(classifier, config)], facts, [pixels], tmp_path / "package")
    save_package(tmp_path / "package", tmp_path / "model")
    image_file = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 40, 3)).astype(np.uint8)).save(image_file)
    return Packaged(classifier, config, export_result, tmp_path / "package", tmp_path / "model", image_file)


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    """Return one package shared by all tests, since exporting takes seconds."""
    config = TrialConfig(
        seed=0,
        preprocessing=Preprocessing(SIZE, crop_fraction=0.9, interpolation="bilinear"),
        batches=BatchConfig(),
        network=NetworkConfig(backbone=NETWORK, weights="none"),
        fit=FitConfig(),
    )
    return make_package(tmp_path_factory.mktemp("packaged"), config)
