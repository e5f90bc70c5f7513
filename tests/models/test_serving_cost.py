"""What serving costs: measured once for each form on a machine, with the graph that the package would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import models.profiling.hardware
import models.profiling.serving_cost
from data.cache.content_cache import ContentCache
from data.errors import BackboneError
from models.packaging.export import export_package
from models.packaging.pyfunc_model import open_graph
from models.profiling.flops import model_cost
from models.profiling.hardware import hardware
from models.profiling.serving_cost import (
    ServingSpec,
    export_torchscript_onnx,
    latency_ms,
    randomly_initialized,
    serving_cost,
)
from models.trial_config import NetworkConfig, TrialConfig

FORM = ServingSpec("test_efficientnet", 32, 0, "last", "linear", 3)


def test_a_form_is_measured_once_and_then_read_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = serving_cost(FORM)
    assert measured.latency_ms > 0

    def fail(*_: object) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr("models.profiling.serving_cost.latency_ms", fail)
    assert serving_cost(FORM) == measured


@pytest.mark.parametrize("other", [FORM._replace(truncate=1), FORM._replace(head="8:relu"), FORM._replace(classes=9)])
def test_another_form_is_measured_for_itself(other: ServingSpec) -> None:
    assert serving_cost(other).mb != serving_cost(FORM).mb
    assert len(ContentCache().entries()) == 2


def test_a_form_that_sees_all_levels_is_measured() -> None:
    assert serving_cost(FORM._replace(head_features="all")).latency_ms > 0


@pytest.mark.parametrize("changed", ["machine", "LIBRARIES", "VERSION"])
def test_another_machine_or_version_is_measured_for_itself(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    serving_cost(FORM)
    others = {"machine": lambda: "another processor", "LIBRARIES": ("numpy",), "VERSION": 0}
    monkeypatch.setattr(
        models.profiling.serving_cost if changed == "VERSION" else models.profiling.hardware, changed, others[changed]
    )
    serving_cost(FORM)
    assert len(ContentCache().entries()) == 2


def test_the_measured_graph_computes_what_the_package_computes_and_is_as_large(
    trial_config: TrialConfig, tmp_path: Path
) -> None:
    classifier = randomly_initialized(FORM._replace(backbone="test_resnet"))
    export_torchscript_onnx(classifier, 32, tmp_path / "quick.onnx")
    exported = export_package(classifier, trial_config, "abc", "data", np.zeros((2, 32, 32, 3), np.uint8), tmp_path)
    graphs = [tmp_path / "quick.onnx", tmp_path / exported.graph]
    picture = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    quick, package = (open_graph(graph)(picture) for graph in graphs)
    assert quick == pytest.approx(package, abs=1e-3)
    sizes = [graph.stat().st_size for graph in graphs]
    assert abs(sizes[0] - sizes[1]) < 150_000  # the operations around the weights, which the two write down differently


def test_zeros_in_fresh_weights_do_not_make_the_graph_smaller() -> None:
    form = FORM._replace(backbone="resnet18")
    weights = model_cost(NetworkConfig(backbone="resnet18", weights="none"), form.num_classes, form.image_size).bytes
    assert serving_cost(form).mb == pytest.approx(weights / 1e6, rel=0.02)


def test_a_larger_picture_takes_longer_and_the_graph_is_the_same(tmp_path: Path) -> None:
    times = []
    for size in (32, 160):
        export_torchscript_onnx(randomly_initialized(FORM._replace(image_size=size)), size, tmp_path / f"{size}.onnx")
        times.append(latency_ms(tmp_path / f"{size}.onnx", size))
    assert times[1] > 2 * times[0]


def test_a_network_that_is_unknown_leaves_no_entry() -> None:
    with pytest.raises(BackboneError, match="no_such_network"):
        serving_cost(FORM._replace(backbone="no_such_network"))
    assert ContentCache().entries() == []


def test_measuring_leaves_the_random_state_alone_and_the_machine_has_a_name() -> None:
    before = torch.random.get_rng_state()
    serving_cost(FORM)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hardware()
