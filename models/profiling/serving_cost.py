"""What the packaged form of a classifier costs its user: milliseconds for one picture, megabytes on disk.

The package is an ONNX graph that ONNX Runtime runs (``models.packaging.export``). Its exporter takes ten seconds and more for a
network, too long for each network of a search, so the graph that is measured here comes from torch's older exporter, in
about one: ONNX Runtime makes the same of both. ``python -m benchmarks.latency`` holds the two against each other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeFloat
from torch import nn

from data.cache.content_cache import ContentCache
from data.frozen_model import FrozenModel
from models.classifier import Classifier, build_classifier
from models.heads.spec import HeadFeatures
from models.profiling.hardware import measurement_key
from models.trial_config import NetworkConfig

VERSION = 1  # of how it is measured
OPSET = 18  # of ONNX: the newest that torch's older exporter writes
WARMUP_RUNS = 3  # passes that aren't counted
MIN_RUNS, MAX_RUNS = 10, 500
MIN_TIME_S = 0.5  # of processor time, once a network has run ``MIN_RUNS`` times
FILE = "cost.json"


class ServingSpec(NamedTuple):
    """All that the cost of a packaged classifier depends on; how it is trained and what its weights are is not."""

    backbone: str
    image_size: int
    truncate: int
    head_features: HeadFeatures
    head: str
    num_classes: int

    @classmethod
    def of(cls, network: NetworkConfig, image_size: int, classes: int) -> ServingSpec:
        """Return the form in which a trained network of this configuration is served."""
        return cls(network.backbone, image_size, network.truncate, network.head_features, network.head, classes)


class ServingCost(FrozenModel):
    """What serving costs.

    Attributes:
        latency_ms: for one normalized picture, on one core of this machine that nobody else uses.
        mb: the graph's size in millions of bytes.
    """

    latency_ms: NonNegativeFloat
    mb: NonNegativeFloat


def serving_cost(form: ServingSpec, store: ContentCache | None = None) -> ServingCost:
    """Return what a form costs on this machine, measured where the store doesn't hold it yet: a few seconds.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
        Exception: whatever torch's exporter or ONNX Runtime raise for a network that they can't express.
    """
    key = measurement_key("serving", VERSION, *form)
    entry = (store or ContentCache()).get_or_create(key, lambda folder: _measure(form, folder))
    return ServingCost.from_json((entry / FILE).read_bytes())


def _measure(form: ServingSpec, folder: Path) -> None:
    graph = folder / "model.onnx"
    export_torchscript_onnx(randomly_initialized(form), form.image_size, graph)
    cost = ServingCost(latency_ms=latency_ms(graph, form.image_size), mb=graph.stat().st_size / 1e6)
    graph.unlink()
    (folder / FILE).write_text(cost.to_json())


def randomly_initialized(form: ServingSpec) -> Classifier:
    """Return the classifier of a form, with weights of no meaning.

    Libraries begin some weights with zeros; an exporter would fold what they multiply and keep equal tensors once, so
    that the graph were smaller than a trained one's.
    """
    config = NetworkConfig(
        backbone=form.backbone,
        weights="none",
        truncate=form.truncate,
        freeze_fraction=1,
        head_features=form.head_features,
        head=form.head,
    )
    classifier = build_classifier(config, form.num_classes, form.image_size, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.02, generator=generator)
    return classifier


def export_torchscript_onnx(classifier: Classifier, image_size: int, file: Path) -> None:
    """Write a classifier as an ONNX graph for one picture, by torch's older exporter; it is in eval mode then."""
    network = nn.Sequential(classifier.network, classifier.head).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older one, and that what was traced holds for this size only
        torch.onnx.export(
            network, (torch.zeros(1, 3, image_size, image_size),), str(file), dynamo=False, opset_version=OPSET
        )


def latency_ms(graph: Path, image_size: int) -> float:
    """Return the processor time of the fastest of some passes with one picture, on one thread.

    It is what a pass takes on a core of its own. Time by the clock would grow where trials or other programs want the
    same cores, and so do the slower passes' times, as the documentation of Python's ``timeit`` says.
    """
    run = _opened(graph)
    picture = np.random.default_rng(0).normal(size=(1, 3, image_size, image_size)).astype(np.float32)
    times: list[float] = []
    for _ in range(WARMUP_RUNS):
        run(picture)
    while len(times) < MIN_RUNS or (len(times) < MAX_RUNS and sum(times) < MIN_TIME_S):
        began = time.thread_time()
        run(picture)
        times.append(time.thread_time() - began)
    return 1000 * min(times)


def _opened(graph: Path) -> Callable[[np.ndarray], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda picture: session.run(None, {name: picture})
