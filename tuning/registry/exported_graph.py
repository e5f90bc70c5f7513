"""The graph of a candidate's networks: the part of a package that needs neither test images nor a final choice.

It takes most of the time of packaging, so a search exports the networks that will likely win while its last trials run
(``tuning.workflows.work_ahead``).
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from data.atomic_write import write_atomically
from data.dataset.dataset import Dataset
from data.dataset.stratified_parts import stratified_parts
from data.frozen_model import FrozenModel
from data.sources.base import SplitName
from tuning.registry.member_predictions import (
    TrainedMember,
    load_members,
    pixel_caches,
    predict_with_graph,
    reference_predictions,
)
from tuning.registry.smoke_test import ReferencePredictions

if TYPE_CHECKING:
    from data.loading.pixel_cache import PixelCache
    from data.preprocessing import Preprocessing
    from models.evaluation.metrics import Labels
    from models.packaging.export import ExportResult, PackageMember

logger = logging.getLogger(__name__)
NOVELTY_SPLITS: tuple[SplitName, SplitName] = ("train", "val")  # to fit the distances, and their levels
NOVELTY_IMAGES = 500  # of each split: with 1,000 no AUROC between four photo sets changed by more than 0.002
MIN_CLASS_IMAGES = 2


class ExportedGraph(FrozenModel):
    """A graph in a package's folder.

    Attributes:
        source: identifies the networks and their weights.
        graph: its file name.
        max_difference: the largest difference of a logit from torch's.
        num_checked_images: the number of images with which it was compared.
        notes: messages for the user.
        reference: what the graph must return before calibration.
        latency_ms: of one image on one core; None if it is not an ONNX graph.
    """

    source: str
    graph: str
    max_difference: float
    num_checked_images: int
    notes: tuple[str, ...]
    reference: ReferencePredictions
    latency_ms: float | None

    @property
    def export_result(self) -> ExportResult:
        """The facts of the export that a package holds."""
        from models.packaging.export import ExportResult

        return ExportResult.model_validate({name: getattr(self, name) for name in ExportResult.model_fields})

    def calibrated_reference(self, temperature: float) -> ReferencePredictions:
        """Return the predictions of the package, which has a temperature."""
        import numpy as np

        from models.evaluation.calibration import apply_temperature

        probabilities = apply_temperature(np.array(self.reference.probabilities), temperature)
        return self.reference.model_copy(update={"probabilities": tuple(map(tuple, probabilities.tolist()))})


def export_ahead(
    members: Sequence[TrainedMember], dataset: Dataset, folder: Path, *, has_novelty: bool
) -> ExportedGraph:
    """Export the members beside ``folder``, where ``take_or_export`` finds them; the package in it stays as it is."""
    ahead = _ahead(folder)
    if (exported := _load(ahead, members)) is not None:
        return exported
    networks = load_members(members, len(dataset.classes))
    return _export(members, networks, pixel_caches(members, dataset), ahead, has_novelty=has_novelty)


def take_or_export(
    members: Sequence[TrainedMember],
    networks: Callable[[], Sequence[PackageMember]],
    caches: Mapping[Preprocessing, PixelCache],
    folder: Path,
    *,
    has_novelty: bool,
) -> ExportedGraph:
    """Return the members' graph in ``folder``, whose former content is deleted.

    ``networks`` loads the members, if they have not been exported; ``caches`` are in the order of the graph's inputs.
    """
    ahead = _ahead(folder)
    exported = _load(ahead, members)
    if exported is None:
        return _export(members, networks(), caches, folder, has_novelty=has_novelty)
    shutil.rmtree(folder, ignore_errors=True)
    ahead.rename(folder)
    _description(ahead).unlink()
    return exported


def _ahead(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.ahead")


def _description(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.graph.json")


def _load(folder: Path, members: Sequence[TrainedMember]) -> ExportedGraph | None:
    """Return the graph in ``folder``; None if it was not made from the members, or not completely."""
    try:
        exported = ExportedGraph.from_json(_description(folder).read_text())
    except (FileNotFoundError, ValidationError):
        return None
    return exported if exported.source == _source(members) else None


def _export(
    members: Sequence[TrainedMember],
    networks: Sequence[PackageMember],
    caches: Mapping[Preprocessing, PixelCache],
    folder: Path,
    *,
    has_novelty: bool,
) -> ExportedGraph:
    from models.packaging.export import export_graph

    description = _description(folder)
    description.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    images = [cache.split("val")[0] for cache in caches.values()]
    result = export_graph(networks, images, folder, with_features=has_novelty)
    if has_novelty:
        _write_novelty(folder / result.graph, caches)
    exported = ExportedGraph(
        source=_source(members),
        **result.model_dump(),
        reference=reference_predictions(networks, images[0]),
        latency_ms=_latency_ms(folder / result.graph),
    )
    write_atomically(description, exported.to_json().encode())
    return exported


def limit_novelty(folder: Path, graph: Path, max_mb: float | None) -> None:
    """Remove the novelty of the package in ``folder`` if it exceeds ``max_mb`` together with the graph."""
    from models.packaging.export import OPTIONAL_ARTIFACTS

    novelty = folder / OPTIONAL_ARTIFACTS["novelty_levels"]
    if max_mb is None or not novelty.exists():
        return
    size_mb = (graph.stat().st_size + novelty.stat().st_size) / 1e6
    if size_mb > max_mb:
        novelty.unlink()
        logger.info("the package has no novelty: with it, it would have %.1f MB, and max_mb is %g", size_mb, max_mb)


def num_novelty_images(dataset: Dataset) -> int:
    """Return the number of images on which the novelty of a graph is fitted."""
    labels = [[sample.label for sample in dataset.split(split)] for split in NOVELTY_SPLITS]
    return sum(len(novelty_rows(np.array(each, dtype=np.int64))) for each in labels)


def novelty_rows(labels: Labels) -> Labels:
    """Return rows of about ``NOVELTY_IMAGES`` images with labels [n], in proportion to the classes, two of each."""
    parts = stratified_parts(labels, NOVELTY_IMAGES, MIN_CLASS_IMAGES)
    return np.arange(len(labels)) if parts is None else parts.rows(0)


def _write_novelty(graph: Path, caches: Mapping[Preprocessing, PixelCache]) -> None:
    """Fit the novelty on training images, and its levels on validation images; write nothing if there are too few."""
    from models.evaluation.novelty import fit_novelty, save_arrays
    from models.packaging.export import OPTIONAL_ARTIFACTS

    outputs = []
    for split in NOVELTY_SPLITS:
        labels = next(iter(caches.values())).split(split)[1]
        outputs.append(predict_with_graph(graph, caches, split, novelty_rows(labels)))
    (training, features), (_, held_out) = outputs
    if features is None or held_out is None:
        raise RuntimeError("the graph was exported without features")
    arrays = fit_novelty(features, training.labels, held_out)
    if arrays is not None:
        save_arrays(graph.with_name(OPTIONAL_ARTIFACTS["novelty_levels"]), arrays)


def _source(members: Sequence[TrainedMember]) -> str:
    """Return a digest of the members' configurations, the contents of their weights files, and their weights."""
    digest = hashlib.blake2b(digest_size=16)
    for config, file, weight in members:
        digest.update(f"{config.to_json()} {weight!r} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _latency_ms(graph: Path) -> float | None:
    """Return the latency of the packaged graph for one image on one core; None if it is not an ONNX graph."""
    from models.profiling.serving_cost import latency_ms

    return latency_ms(graph) if graph.suffix == ".onnx" else None
