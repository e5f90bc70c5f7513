"""Serving costs: measured once per spec and machine, on a graph equivalent to that of the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import models.profiling.hardware
import models.profiling.serving_cost
from data.cache.content_cache import ContentCache
from data.errors import BackboneError
from models.packaging.export import PackageFacts, PackageMember, export_package
from models.profiling.flops import model_cost
from models.profiling.hardware import hardware
from models.profiling.serving_cost import ServingSpec, randomly_initialized, serving_cost
from models.trial_config import NetworkConfig, TrialConfig

SPEC = ServingSpec("test_efficientnet", 32, 0, "last", "linear", 3)


def test_a_spec_is_measured_once_and_then_read_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = serving_cost(SPEC)
    assert measured.latency_ms > 0

    def fail(*_: object) -> float:
        raise AssertionError("measured a second time")

    monkeypatch.setattr("models.profiling.serving_cost.latency_ms", fail)
    assert serving_cost(SPEC) == measured


@pytest.mark.parametrize(
    "other", [SPEC._replace(truncate=1), SPEC._replace(head="8:relu"), SPEC._replace(num_classes=9)]
)
def test_another_spec_is_measured_separately(other: ServingSpec) -> None:
    assert serving_cost(other).mb != serving_cost(SPEC).mb
    assert len(ContentCache().entries()) == 2


def test_a_head_on_the_features_of_all_levels_is_measured() -> None:
    assert serving_cost(SPEC._replace(head_features="all")).latency_ms > 0


@pytest.mark.parametrize("changed", ["hardware", "LIBRARIES", "VERSION"])
def test_another_machine_or_version_is_measured_separately(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    serving_cost(SPEC)
    values = {"hardware": lambda: "another processor", "LIBRARIES": ("numpy",), "VERSION": 0}
    module = models.profiling.serving_cost if changed == "VERSION" else models.profiling.hardware
    monkeypatch.setattr(module, changed, values[changed])
    serving_cost(SPEC)
    assert len(ContentCache().entries()) == 2


def test_the_measured_graph_has_the_size_of_the_packaged_graph(trial_config: TrialConfig, tmp_path: Path) -> None:
    classifier = randomly_initialized(SPEC)
    facts = PackageFacts(labels=("a", "b", "c"), data_fingerprint="data")
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    result = export_package([PackageMember(classifier, trial_config)], facts, [pixels], tmp_path)
    packaged_mb = (tmp_path / result.graph).stat().st_size / 1e6
    assert serving_cost(SPEC).mb == pytest.approx(packaged_mb, rel=0.01)


def test_zeros_in_initial_weights_do_not_make_the_graph_smaller() -> None:
    spec = SPEC._replace(backbone="resnet18")
    weights = model_cost(NetworkConfig(backbone="resnet18", weights="none"), spec.num_classes, spec.image_size).bytes
    assert serving_cost(spec).mb == pytest.approx(weights / 1e6, rel=0.02)


def test_a_larger_image_takes_longer() -> None:
    small, large = (serving_cost(SPEC._replace(image_size=size)).latency_ms for size in (32, 160))
    assert large > 2 * small


def test_an_unknown_network_leaves_no_cache_entry() -> None:
    with pytest.raises(BackboneError, match="no_such_network"):
        serving_cost(SPEC._replace(backbone="no_such_network"))
    assert ContentCache().entries() == []


def test_measuring_keeps_the_random_state_and_the_hardware_has_a_name() -> None:
    before = torch.random.get_rng_state()
    serving_cost(SPEC)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hardware()
