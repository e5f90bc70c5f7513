"""The predicted cost of training: what is counted, and that it orders configurations like the measured CPU time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from data.loading.batch_loader import BatchLoader
from data.loading.views import OnTheFlyImages
from data.preprocessing import Preprocessing
from models.classifier import build_classifier
from models.profiling.flops import model_cost
from models.profiling.training_cost import GFLOPS_PER_IMAGE, GFLOPS_PER_TRIAL, Images, TrainingCosts, network_flops
from models.training.loop import fit
from models.trial_config import FitConfig, NetworkConfig, TrialConfig

BACKBONE = "tf_efficientnet_lite0"
IMAGES = Images(train=100, val=20)


def configuration(size: int = 64, *, augmentation: str = "none", cache: str = "fp16", **network: Any) -> TrialConfig:
    fields = {
        "seed": 0,
        "preprocessing": Preprocessing(size),
        "batches": {"batch_size": 16, "augmentation": augmentation},
        "network": {"backbone": BACKBONE, "weights": "none", **network},
        "features": {"feature_cache": cache, "cached_augmentations": 4},
        "fit": {"max_epochs": 8},
    }
    return TrialConfig.model_validate(fields)


def gflops(config: TrialConfig, epochs: int = 8, *earlier: TrialConfig) -> float:
    costs = TrainingCosts(IMAGES)
    for other in earlier:
        costs.add(other, epochs)
    return costs.gflops(config, epochs)


def head_only(epochs: int = 8) -> float:
    """Return the cost of epochs in which nothing of the network is computed."""
    return GFLOPS_PER_TRIAL + epochs * sum(IMAGES) * GFLOPS_PER_IMAGE


def test_the_blocks_together_cost_as_much_as_the_network() -> None:
    blocks, whole = network_flops(BACKBONE, 64).gflops, model_cost(NetworkConfig(backbone=BACKBONE), 2, 64)
    assert len(blocks) == 18
    assert sum(blocks) == pytest.approx(whole.flops / 1e9, rel=0.01)  # without the head


def test_trained_blocks_count_three_forward_passes_in_training_and_one_in_validation() -> None:
    forward = sum(network_flops(BACKBONE, 64).gflops)
    expected = head_only() + 8 * (3 * IMAGES.train + IMAGES.val) * forward
    assert gflops(configuration(freeze_fraction=0.0)) == pytest.approx(expected)


@pytest.mark.parametrize(("augmentation", "views"), [("none", 1), ("light", 4)])
def test_frozen_blocks_count_once_for_each_cached_view(augmentation: str, views: int) -> None:
    forward = sum(network_flops(BACKBONE, 64).gflops)
    expected = head_only() + (views * IMAGES.train + IMAGES.val) * forward
    assert gflops(configuration(augmentation=augmentation, freeze_fraction=1.0)) == pytest.approx(expected)


def test_frozen_blocks_count_in_every_epoch_without_a_cache() -> None:
    forward = sum(network_flops(BACKBONE, 64).gflops)
    expected = head_only() + 8 * sum(IMAGES) * forward
    assert gflops(configuration(cache="off", freeze_fraction=1.0)) == pytest.approx(expected)


def test_the_first_epoch_needs_one_view() -> None:
    config = configuration(augmentation="light", freeze_fraction=1.0)
    forward = sum(network_flops(BACKBONE, 64).gflops)
    assert gflops(config, 1) == pytest.approx(head_only(1) + sum(IMAGES) * forward)


def test_features_of_an_earlier_trial_cost_nothing() -> None:
    config = configuration(freeze_fraction=1.0)
    assert gflops(config, 8, config) == pytest.approx(head_only())
    assert gflops(config, 8, configuration(freeze_fraction=1.0, head_features="all")) == pytest.approx(head_only())
    for other in (configuration(96, freeze_fraction=1.0), configuration(augmentation="light", freeze_fraction=1.0)):
        assert gflops(config, 8, other) > head_only() + 0.5


def test_a_trial_on_a_fold_costs_the_views_that_the_splits_lack() -> None:
    config, fold = (configuration(augmentation="light", freeze_fraction=1.0) for _ in range(2))
    fold = fold.model_copy(update={"fold": 0})
    forward = sum(network_flops(BACKBONE, 64).gflops)
    missing = IMAGES.train + 4 * IMAGES.val  # the training images unchanged, the validation images in four views
    assert gflops(fold, 8, config) == pytest.approx(head_only() + missing * forward)
    assert gflops(fold.model_copy(update={"fold": 1}), 8, config, fold) == pytest.approx(head_only())


def test_features_are_computed_from_those_of_an_earlier_block() -> None:
    deep, half = configuration(freeze_fraction=1.0), configuration(freeze_fraction=0.5)
    second_half = sum(network_flops(BACKBONE, 64).gflops[9:])
    assert gflops(deep, 8, half) == pytest.approx(head_only() + sum(IMAGES) * second_half)
    assert gflops(half, 8, deep) == pytest.approx(gflops(half))  # its features are pooled


def test_a_network_that_cannot_be_split_computes_its_frozen_part_in_every_epoch() -> None:
    config = configuration(32, backbone="timm/test_byobnet", freeze_fraction=0.5)
    flops = network_flops("timm/test_byobnet", 32)
    assert len(flops.elements) in (0, len(flops.gflops))
    assert gflops(config, 2) > gflops(config, 1) > GFLOPS_PER_TRIAL


def cpu_seconds(config: TrialConfig) -> float:
    """Train one epoch on random images without a cache; return its CPU time."""
    size, rng = config.preprocessing.image_size, np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, size, size, 3), dtype=np.uint8)
    labels = np.arange(24, dtype=np.int64) % 2

    def batches(training: bool) -> BatchLoader:
        images = OnTheFlyImages(pixels, config.preprocessing, 0)
        return BatchLoader(images, labels, config.batches, 0, training, 2)

    classifier = build_classifier(config.network, 2, size, seed=0)
    started = time.process_time()
    fit(classifier, batches(True), batches(False), FitConfig(max_epochs=1))
    return time.process_time() - started


def test_the_cost_orders_configurations_like_the_measured_cpu_time() -> None:
    configs = [
        configuration(size, cache="off", freeze_fraction=fraction) for size, fraction in ((64, 1), (64, 0), (96, 0))
    ]
    costs = TrainingCosts(Images(24, 24))
    cpu_seconds(configs[0])  # the first pass of a process is slow
    predicted = [costs.gflops(config, 1) - GFLOPS_PER_TRIAL for config in configs]
    measured = [min(cpu_seconds(config) for _ in range(2)) for config in configs]
    assert predicted == sorted(predicted)
    assert measured == sorted(measured)
    for first, second in ((0, 1), (1, 2)):
        ratio, measured_ratio = predicted[second] / predicted[first], measured[second] / measured[first]
        assert 0.4 < ratio / measured_ratio < 2.5


def test_several_threads_may_count_flops() -> None:
    networks = [(name, size) for size in (32, 40, 48, 56) for name in ("test_resnet", "test_efficientnet")]
    network_flops.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda network: network_flops(*network), networks))
    assert all(flops.gflops for flops in found)


def test_an_epoch_of_a_part_costs_its_images_and_each_part_is_cached_once() -> None:
    config = configuration(augmentation="light", freeze_fraction=0.5).model_copy(update={"images_per_epoch": 40})
    costs = TrainingCosts(Images(100, 0))
    of_epochs = [costs.gflops(config, epochs) - GFLOPS_PER_TRIAL for epochs in (1, 2, 4)]
    np.testing.assert_allclose(np.divide(of_epochs, of_epochs[0]), [1, 2, 4])  # each has another part, or another view
    whole = configuration(augmentation="light", freeze_fraction=0.5)
    assert of_epochs[0] / (costs.gflops(whole, 1) - GFLOPS_PER_TRIAL) == pytest.approx(0.4)
    costs.add(config, 4)
    assert costs.gflops(config, 4) - GFLOPS_PER_TRIAL < of_epochs[-1]


def test_a_probe_on_more_images_computes_the_features_of_the_others_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.dataset.stratified_parts.FIRST_SEGMENT", 20)
    fit, network = FitConfig(optimizer="lbfgs", max_epochs=1), {"freeze_fraction": 1.0, "head": "linear"}
    few, more = (
        configuration(**network).model_copy(update={"fit": fit, "images_per_epoch": count}) for count in (20, 80)
    )
    costs = TrainingCosts(Images(100, 0))
    forward = sum(network_flops(BACKBONE, 64).gflops)
    overhead = GFLOPS_PER_TRIAL + 80 * GFLOPS_PER_IMAGE
    assert costs.gflops(more, 1) == pytest.approx(80 * forward + overhead)
    costs.add(few, 1)
    assert costs.gflops(more, 1) == pytest.approx(60 * forward + overhead)
