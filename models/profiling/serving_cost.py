"""The serving cost of a packaged classifier: latency in milliseconds per image, and size in megabytes.

The measured graph is written by the exporter that packages use first (``models.packaging.exporters``), with random
weights. ``python -m benchmarks.latency`` compares it with the newer exporter.
"""

from __future__ import annotations

import time
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
from models.packaging.exporters import write_traced_onnx
from models.profiling.hardware import measurement_key
from models.trial_config import NetworkConfig

VERSION = 2  # of the measurement method
MIN_RUNS, MAX_RUNS = 10, 500
MIN_TIME_S = 0.5  # CPU time of all runs; more than ``MIN_RUNS`` runs if they are faster
FILE = "cost.json"


class ServingSpec(NamedTuple):
    """All settings that affect the cost of a packaged classifier; its weights and training do not."""

    backbone: str
    image_size: int
    truncate: int
    head_features: HeadFeatures
    head: str
    num_classes: int

    @classmethod
    def from_network(cls, network: NetworkConfig, image_size: int, num_classes: int) -> ServingSpec:
        """Return the spec of a network configuration."""
        return cls(network.backbone, image_size, network.truncate, network.head_features, network.head, num_classes)


class ServingCost(FrozenModel):
    """The serving cost of a classifier.

    Attributes:
        latency_ms: per normalized image, on one otherwise idle core of this machine.
        mb: size of the graph in MB (10^6 bytes).
    """

    latency_ms: NonNegativeFloat
    mb: NonNegativeFloat


def serving_cost(spec: ServingSpec) -> ServingCost:
    """Return the serving cost on this machine, from the cache or measured within a few seconds.

    Raises:
        BackboneError: see ``models.classifier.build_classifier``.
        Exception: any error of torch's exporter or ONNX Runtime for a network that they do not support.
    """
    entry = ContentCache().get_or_create(_key(spec), lambda folder: _measure(spec, folder))
    return ServingCost.from_json((entry / FILE).read_bytes())


def is_measured(spec: ServingSpec) -> bool:
    """Return whether the serving cost on this machine is in the cache."""
    return ContentCache().get(_key(spec)) is not None


def _key(spec: ServingSpec) -> str:
    return measurement_key("serving", VERSION, *spec)


def _measure(spec: ServingSpec, folder: Path) -> None:
    graph = folder / "model.onnx"
    classifier = randomly_initialized(spec)
    network = nn.Sequential(classifier.network, classifier.head).eval()
    write_traced_onnx(network, [torch.zeros(2, 3, spec.image_size, spec.image_size)], graph)
    cost = ServingCost(latency_ms=latency_ms(graph), mb=graph.stat().st_size / 1e6)
    graph.unlink()
    (folder / FILE).write_text(cost.to_json())


def randomly_initialized(spec: ServingSpec) -> Classifier:
    """Return the classifier of a spec with random weights.

    Some layers initialize weights with zeros. The exporter would fold operations on them and store equal tensors only
    once, which makes the graph smaller than that of a trained classifier. Therefore these weights are randomized.
    """
    config = NetworkConfig(
        backbone=spec.backbone,
        weights="none",
        truncate=spec.truncate,
        freeze_fraction=1,
        head_features=spec.head_features,
        head=spec.head,
    )
    classifier = build_classifier(config, spec.num_classes, spec.image_size, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.02, generator=generator)
    return classifier


def latency_ms(graph: Path) -> float:
    """Return the minimum CPU time in milliseconds of an inference with one image, for all inputs, on one thread.

    The minimum CPU time is used, because wall time and slower runs include the load of other processes
    on the same cores; see the documentation of Python's ``timeit``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    inputs = {
        each.name: rng.normal(size=(1, *each.shape[1:])).astype(np.float32)  # the first is the batch size
        for each in session.get_inputs()
    }
    times: list[float] = []
    while len(times) < MIN_RUNS or (len(times) < MAX_RUNS and sum(times) < MIN_TIME_S):
        started = time.thread_time()
        session.run(None, inputs)
        times.append(time.thread_time() - started)
    return 1000 * min(times)
