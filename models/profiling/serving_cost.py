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

from data.cache.content_cache import Store
from data.frozen_model import Value
from models.classifier import Classifier, build_classifier
from models.heads.spec import Levels
from models.profiling.hardware import measurement_key
from models.trial_config import NetworkConfig

VERSION = 1  # of how it is measured
OPSET = 18  # of ONNX: the newest that torch's older exporter writes
WARM_UP = 3  # passes that aren't counted
LEAST_RUNS, MOST_RUNS = 10, 500
ENOUGH_S = 0.5  # of processor time, once a network has run ``LEAST_RUNS`` times
FILE = "cost.json"


class ServedForm(NamedTuple):
    """All that the cost of a packaged classifier depends on; how it is trained and what its weights are is not."""

    backbone: str
    image_size: int
    truncate: int
    levels: Levels
    head: str
    classes: int

    @classmethod
    def of(cls, network: NetworkConfig, image_size: int, classes: int) -> ServedForm:
        """Return the form in which a trained network of this configuration is served."""
        return cls(network.backbone, image_size, network.truncate, network.levels, network.head, classes)


class ServingCost(Value):
    """What serving costs.

    Attributes:
        latency_ms: for one normalised picture, on one core of this machine that nobody else uses.
        mb: the graph's size in millions of bytes.
    """

    latency_ms: NonNegativeFloat
    mb: NonNegativeFloat


def serving_cost(form: ServedForm, store: Store | None = None) -> ServingCost:
    """Return what a form costs on this machine, measured where the store doesn't hold it yet: a few seconds.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
        Exception: whatever torch's exporter or ONNX Runtime raise for a network that they can't express.
    """
    key = measurement_key("serving", VERSION, *form)
    entry = (store or Store()).get_or_make(key, lambda folder: _measure(form, folder))
    return ServingCost.from_json((entry / FILE).read_bytes())


def _measure(form: ServedForm, folder: Path) -> None:
    graph = folder / "model.onnx"
    export_quickly(untrained(form), form.image_size, graph)
    cost = ServingCost(latency_ms=latency_ms(graph, form.image_size), mb=graph.stat().st_size / 1e6)
    graph.unlink()
    (folder / FILE).write_text(cost.to_json())


def untrained(form: ServedForm) -> Classifier:
    """Return the classifier of a form, with weights of no meaning.

    Libraries begin some weights with zeros; an exporter would fold what they multiply and keep equal tensors once, so
    that the graph were smaller than a trained one's.
    """
    config = NetworkConfig(
        backbone=form.backbone,
        weights="none",
        truncate=form.truncate,
        freeze_fraction=1,
        levels=form.levels,
        head=form.head,
    )
    classifier = build_classifier(config, form.classes, form.image_size, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.02, generator=generator)
    return classifier


def export_quickly(classifier: Classifier, image_size: int, file: Path) -> None:
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
    for _ in range(WARM_UP):
        run(picture)
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and sum(times) < ENOUGH_S):
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
