"""Writing what a package predicts for at most 5,000 test images: the reference that ``monitor`` compares with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuning.monitoring.reference import REJECTED, MonitoringReference
from tuning.registry.member_predictions import GraphPredictions, predict_with_graph

if TYPE_CHECKING:
    from data.loading.pixel_cache import PixelCache
    from data.preprocessing import Preprocessing

MAX_IMAGES = 5_000


def write_reference(
    folder: Path,
    graph: Path,
    caches: Mapping[Preprocessing, PixelCache],
    temperature: float,
    test: GraphPredictions,
) -> dict[str, float]:
    """Write the reference of a package into ``folder``; return metrics of its novelty on the test images.

    ``test`` are the predictions for the test images. If they lack the features that novelty needs, the graph computes
    them for some of the images.
    """
    from data.dataset.stratified_parts import stratified_parts
    from models.evaluation.calibration import softmax
    from models.evaluation.novelty import save_arrays, unseen_class_auroc
    from models.evaluation.novelty_score import NoveltyScorer
    from models.packaging.export import OPTIONAL_ARTIFACTS

    parts = stratified_parts(next(iter(caches.values())).split("test")[1], MAX_IMAGES)
    rows = None if parts is None else parts.rows(0)
    novelty_file = folder / OPTIONAL_ARTIFACTS["novelty_levels"]
    is_computed = test.features is not None or not novelty_file.exists()
    (logits, labels), features = test.rows(rows) if is_computed else predict_with_graph(graph, caches, "test", rows)
    probabilities = softmax(logits, temperature)
    reference = MonitoringReference(probabilities.argmax(axis=1), probabilities.max(axis=1))
    metrics = {}
    if features is not None and novelty_file.exists():
        with np.load(novelty_file, allow_pickle=False) as levels:
            scorer = NoveltyScorer(levels)
        novelty, summaries = scorer.novelty(features), scorer.summaries(features)
        reference = reference._replace(novelty=novelty, summaries=summaries)
        metrics["test_rejected"] = float((novelty > REJECTED).mean())
        auroc = unseen_class_auroc(scorer.distances(features), labels)
        metrics |= {} if auroc is None else {"test_unseen_class_auroc": auroc}
    arrays = {name: array for name, array in reference._asdict().items() if array is not None}
    save_arrays(folder / OPTIONAL_ARTIFACTS["reference"], arrays)
    return metrics
