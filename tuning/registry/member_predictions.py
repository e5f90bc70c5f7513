"""Predictions of a candidate's networks, combined as in the graph of its package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from data.dataset.dataset import Dataset
from data.loading.pixel_cache import PixelCache, pixel_cache
from data.preprocessing import Pixels, Preprocessing, normalize, read_image, to_pixels
from data.sources.base import SplitName
from models.training.trial_io import load_classifier, split_batches
from models.trial_config import TrialConfig
from tuning.registry.smoke_test import NUM_IMAGES, ReferencePredictions, as_png, build_reference_predictions

BATCH_SIZE = 32  # of the package's graph

if TYPE_CHECKING:
    from models.evaluation.ensemble import Floats
    from models.evaluation.metrics import Labels
    from models.packaging.export import PackageMember


class TrainedMember(NamedTuple):
    """A trained network of a candidate: its configuration, the file of its weights, and its weight in the mean."""

    config: TrialConfig
    weights: Path
    weight: float = 1.0


class HeldOutPredictions(NamedTuple):
    """The logits [n, k] of a model, and the labels [n], for images on which it was not trained.

    For several networks, they are the logits of the combined probabilities (``models.evaluation.ensemble``).
    """

    logits: Floats
    labels: Labels


class GraphPredictions(NamedTuple):
    """Predictions of a graph, and the features [n, f] of its first network if it returns them."""

    predictions: HeldOutPredictions
    features: Floats | None

    def rows(self, rows: npt.NDArray[np.int64] | None) -> GraphPredictions:
        """Return some rows; all if ``rows`` is None."""
        if rows is None:
            return self
        (logits, labels), features = self
        chosen = HeldOutPredictions(logits[rows], labels[rows])
        return GraphPredictions(chosen, None if features is None else features[rows])


def load_members(members: Sequence[TrainedMember], num_classes: int) -> list[PackageMember]:
    """Return the networks with their trained weights."""
    from models.packaging.export import PackageMember

    return [
        PackageMember(load_classifier(member.config, num_classes, member.weights), member.config, member.weight)
        for member in members
    ]


def pixel_caches(members: Sequence[TrainedMember], dataset: Dataset) -> dict[Preprocessing, PixelCache]:
    """Return the pixels of the data set for each preprocessing of the networks, in the order of the graph's inputs."""
    from models.packaging.export import distinct_preprocessings

    return {each: pixel_cache(dataset, each) for each in distinct_preprocessings(member.config for member in members)}


def predict_split(
    members: Sequence[PackageMember], caches: Mapping[Preprocessing, PixelCache], split: SplitName, num_classes: int
) -> HeldOutPredictions:
    """Return the combined logits of one split, ``val`` or ``test``; each network reads its own pixels."""
    from models.evaluation.ensemble import combine_logits
    from models.evaluation.inference import run_epoch

    outputs = []
    for classifier, config, _ in members:
        batches = split_batches(caches[config.preprocessing], config, split, num_classes)
        outputs.append(run_epoch(classifier, batches.epoch(0)))
    logits = combine_logits([each.numpy() for each, _ in outputs], [member.weight for member in members])
    return HeldOutPredictions(logits, outputs[0][1].numpy())


def predict_with_graph(
    graph: Path,
    caches: Mapping[Preprocessing, PixelCache],
    split: SplitName = "test",
    rows: npt.NDArray[np.int64] | None = None,
) -> GraphPredictions:
    """Return the outputs of a package's graph for a split, or for some rows of it.

    ``caches`` are in the order of the graph's inputs.
    """
    from models.packaging.pyfunc_model import open_graph

    run = open_graph(graph)
    splits = {preprocessing: cache.split(split) for preprocessing, cache in caches.items()}
    labels = next(iter(splits.values()))[1]
    rows = np.arange(len(labels)) if rows is None else rows
    batches = [rows[first : first + BATCH_SIZE] for first in range(0, len(rows), BATCH_SIZE)]
    outputs = [run(*(normalize(pixels[batch], each) for each, (pixels, _) in splits.items())) for batch in batches]
    logits = np.concatenate([each.logits for each in outputs]).astype(np.float64)
    features = None
    if outputs and outputs[0].features is not None:
        features = np.concatenate([each.features for each in outputs]).astype(np.float64)
    return GraphPredictions(HeldOutPredictions(logits, labels[rows]), features)


def reference_predictions(members: Sequence[PackageMember], pixels: Pixels) -> ReferencePredictions:
    """Return the training code's probabilities, before calibration, for a few of the images.

    The loaded package must reproduce them with its temperature.
    """
    import torch

    from models.evaluation.calibration import softmax
    from models.evaluation.ensemble import combine_logits

    files = [as_png(image) for image in pixels[:NUM_IMAGES]]
    outputs = []
    with torch.inference_mode():
        for classifier, config, _ in members:
            inputs = np.stack([to_pixels(read_image(file), config.preprocessing) for file in files])
            images = torch.from_numpy(normalize(inputs, config.preprocessing))
            outputs.append(classifier.eval()(images.to(classifier.device)).double().cpu().numpy())
    logits = combine_logits(outputs, [member.weight for member in members])
    return build_reference_predictions(files, softmax(logits))
