"""Build a candidate: package trained networks, and evaluate the package on the test split once."""

from __future__ import annotations

import functools
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from data.atomic_write import write_atomically
from data.dataset.dataset import Dataset
from data.frozen_model import FrozenModel
from data.home import state_dir
from data.sources.options import DataOptions
from tuning.common.events import log_stage
from tuning.common.names import GIT_COMMIT_TAG
from tuning.common.promotion_types import Candidate, CandidateMember, Promotion
from tuning.recipe.auto import TrainingT
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.registry.candidate_store import (
    candidate_artifacts,
    link_metrics,
    log_candidate_package,
    reference_predictions_path,
)
from tuning.registry.exported_graph import ExportedGraph, limit_novelty, take_or_export
from tuning.registry.gate import DIGEST_PREFIX_LENGTH
from tuning.registry.member_predictions import (
    GraphPredictions,
    HeldOutPredictions,
    TrainedMember,
    load_members,
    pixel_caches,
    predict_split,
    predict_with_graph,
)
from tuning.registry.monitoring_reference import write_reference
from tuning.tracking.environment import code_version
from tuning.tracking.mlflow_sink import is_unavailable
from tuning.tracking.operations import PARENT_UID, LogEpoch, now_ms
from tuning.tracking.parent_run import ParentRun

if TYPE_CHECKING:
    from models.evaluation.metrics import ClassificationMetrics, Labels, MetricName, Probabilities

logger = logging.getLogger(__name__)

LEAK_KINDS = ("leak", "group_leak")
METRICS_WITH_CI: tuple[MetricName, ...] = ("accuracy", "balanced_accuracy", "macro_f1")


class PackagedWinner(FrozenModel):
    """The trials that were packaged, the candidate built from them, and what the search ended with.

    Attributes:
        trial_uids: the packaged trials.
        choice: how they were chosen.
        version: the registered version; None before the decision, and if the server was not available.
        promotion: the decision about it.
        warnings: reasons to distrust the result.
    """

    trial_uids: tuple[str, ...]
    choice: str = ""
    candidate: Candidate
    version: int | None = None
    promotion: Promotion | None = None
    warnings: tuple[str, ...] = ()


def build_candidate(
    parent: ParentRun,
    dataset: Dataset,
    settings: TrainingSettings,
    members: Sequence[TrainedMember],
    folder: Path,
    held_out: HeldOutPredictions | None = None,
) -> Candidate:
    """Package trained networks, evaluate them on the test split, which is counted, and log the package and the scores.

    ``settings`` has the absolute path or URI of the data set, from which ``promote`` loads it again. The reference and
    test predictions are saved beside ``folder``, that of the package. The temperature is chosen on ``held_out``,
    by default on the validation split: pass it if the networks were trained on the validation images too.
    """
    from models.device import choose_device
    from models.evaluation.calibration import choose_temperature

    num_classes = len(dataset.classes)
    networks = functools.cache(lambda: load_members(members, num_classes))  # not needed if they have been exported
    caches = pixel_caches(members, dataset)
    log_stage(logger, "exporting the model to ONNX, and comparing its outputs with torch's")
    exported = take_or_export(members, networks, caches, folder, has_novelty=settings.novelty == "on")
    held_out = held_out or predict_split(networks(), caches, "val", num_classes)
    temperature = choose_temperature(held_out.logits, held_out.labels)
    _complete_package(members, exported, dataset, temperature, folder)
    log_stage(logger, "evaluating the package on the test split")
    graph = folder / exported.graph
    limit_novelty(folder, graph, settings.max_mb if isinstance(settings, Recipe) else None)
    is_served_faster = graph.suffix == ".onnx" and choose_device().type == "cpu"
    if is_served_faster:
        test = predict_with_graph(graph, caches)
    else:
        test = GraphPredictions(predict_split(networks(), caches, "test", num_classes), None)
    evaluation = _evaluate(held_out, test.predictions, temperature, dataset.classes)
    evaluation.metrics.update(write_reference(folder, graph, caches, temperature, test))
    _save_test_predictions(folder, evaluation)
    split_hashes = [(sample.split, sample.content_hash[:DIGEST_PREFIX_LENGTH]) for sample in dataset.samples]
    evaluated_ms = now_ms()
    candidate = Candidate(
        name=settings.name or dataset.name,
        members=tuple(CandidateMember(config=member.config, weight=member.weight) for member in members),
        run_id=parent.run_id,
        model_uri=_log_package_or_defer(parent, folder),
        commit=code_version().get(GIT_COMMIT_TAG, ""),
        data=settings.data,
        data_options=DataOptions(**{name: getattr(settings, name) for name in DataOptions.model_fields}),
        data_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        evaluated_ms=evaluated_ms,
        test_evaluations=record_test_evaluation(dataset),
        metrics={name: value for name, value in evaluation.metrics.items() if name.startswith("test_")},
        intervals=evaluation.intervals,
        y_true=tuple(evaluation.labels.tolist()),
        y_pred=tuple(evaluation.probabilities.argmax(axis=1).tolist()),
        test_hashes=tuple(content_hash for split, content_hash in split_hashes if split == "test"),
        seen_hashes=tuple(sorted({content_hash for split, content_hash in split_hashes if split != "test"})),
        leaks=count_leaks(dataset),
        gate=settings.gate,
        temperature=evaluation.temperature,
        max_difference=exported.max_difference,
        num_checked_images=exported.num_checked_images,
        size_mb=graph.stat().st_size / 1e6,
        latency_ms=exported.latency_ms,
    )
    _log_evaluation(parent, candidate, evaluation, dataset)
    return candidate


def _complete_package(
    members: Sequence[TrainedMember], exported: ExportedGraph, dataset: Dataset, temperature: float, folder: Path
) -> None:
    """Write the facts of a graph into ``folder``, and its reference predictions beside it."""
    from models.packaging.export import PackageFacts, write_facts

    facts = PackageFacts(labels=dataset.classes, data_fingerprint=dataset.fingerprint, temperature=temperature)
    write_facts([member.config for member in members], facts, exported.export_result, folder)
    for note in exported.notes:
        logger.info(note)
    reference = exported.calibrated_reference(temperature)
    write_atomically(reference_predictions_path(folder), reference.to_json().encode())


def _log_evaluation(parent: ParentRun, candidate: Candidate, evaluation: _TestEvaluation, dataset: Dataset) -> None:
    """Log the scores and the candidate on the run."""
    metrics = {**evaluation.metrics, "temperature": evaluation.temperature}
    parent.writer.send(LogEpoch(PARENT_UID, 0, metrics, time_ms=candidate.evaluated_ms))
    parent.log_text(evaluation.scores.to_json(indent=2), "test_scores.json")
    columns, rows = _class_table(evaluation.scores)
    parent.log_table(columns, rows, "test_scores_by_class.json")
    if candidate.model_uri:
        for file in candidate_artifacts(candidate):
            parent.log_text(candidate.to_json(), file)
        _link_metrics(parent, candidate, dataset)


@dataclass(frozen=True)
class _TestEvaluation:
    """Scores and predictions on the test split, and the temperature, which is chosen on other images."""

    temperature: float
    scores: ClassificationMetrics
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    labels: Labels
    probabilities: Probabilities


def _save_test_predictions(folder: Path, evaluation: _TestEvaluation) -> None:
    """Save the probabilities and labels of the test images beside the package, for the report."""
    buffer = io.BytesIO()
    np.savez(buffer, probabilities=evaluation.probabilities, labels=evaluation.labels)
    write_atomically(_test_predictions_file(folder), buffer.getvalue())


def load_test_predictions(folder: Path) -> tuple[Probabilities, Labels]:
    """Return the probabilities [n, k] and labels [n] of the test images for the package in ``folder``."""
    with np.load(_test_predictions_file(folder), allow_pickle=False) as arrays:
        return arrays["probabilities"], arrays["labels"]


def _test_predictions_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.test_predictions.npz")


def _evaluate(
    held_out: HeldOutPredictions, test: HeldOutPredictions, temperature: float, classes: tuple[str, ...]
) -> _TestEvaluation:
    """Return the scores on the test split.

    The loss and the calibration error are those of the trained model; ``_calibrated`` are those of the package. The
    calibration errors named ``val_`` are those on ``held_out``.
    """
    from models.evaluation.calibration import cross_entropy, expected_calibration_error, softmax
    from models.evaluation.intervals import confidence_interval
    from models.evaluation.metrics import compute_metrics

    metrics: dict[str, float] = {}
    for prefix, outputs in (("val", held_out), ("test", test)):
        before, after = softmax(outputs.logits), softmax(outputs.logits, temperature)
        metrics[f"{prefix}_ece"] = expected_calibration_error(before, outputs.labels)
        metrics[f"{prefix}_ece_calibrated"] = expected_calibration_error(after, outputs.labels)
    metrics["test_loss_calibrated"] = float(cross_entropy(test.logits, test.labels, temperature).mean())
    probabilities, labels = softmax(test.logits, temperature), test.labels
    scores = compute_metrics(softmax(test.logits), labels, classes)
    return _TestEvaluation(
        temperature=temperature,
        scores=scores,
        metrics={**scores.to_dict("test_"), **metrics},
        intervals={f"test_{metric}": confidence_interval(metric, probabilities, labels) for metric in METRICS_WITH_CI},
        labels=labels,
        probabilities=probabilities,
    )


def count_leaks(dataset: Dataset) -> int:
    """Return the number of groups of related images that are in the test split and also in another split.

    It is 0 unless the user keeps leaks (``on_leak=keep``).
    """
    split_of = {sample.path: sample.split for sample in dataset.samples}
    groups = [group for finding in dataset.findings if finding.kind in LEAK_KINDS for group in finding.files]
    group_splits = [{split_of[path] for path in group if path in split_of} for group in groups]
    return sum("test" in splits and len(splits) > 1 for splits in group_splits)


def _log_package_or_defer(parent: ParentRun, folder: Path) -> str:
    """Log the package and return its model URI; empty if the server is unavailable and ``sync`` must log it."""
    if parent.client is None:
        return ""
    log_stage(logger, "logging the model in MLflow")
    try:
        return log_candidate_package(parent.client, folder, parent.run_id)
    except Exception as error:
        if not is_unavailable(error):
            raise
        return ""


def _link_metrics(parent: ParentRun, candidate: Candidate, dataset: Dataset) -> None:
    """Link the metrics to the package; if the server is unavailable by now, they stay without a link."""
    if parent.client is None:
        return
    parent.writer.flush()  # the two would write the same points
    try:
        link_metrics(parent.client, candidate, dataset)
    except Exception as error:
        if not is_unavailable(error):
            raise
        logger.warning("the metrics of model %s were not linked to it: the server is unavailable", candidate.model_id)


def with_absolute_paths(settings: TrainingT) -> TrainingT:
    """Return settings whose ``data`` and ``images`` are valid in any working directory.

    Data sources that are no paths are unchanged, and so are ``images`` relative to a manifest.
    """
    return settings.model_copy(update={name: _absolute(getattr(settings, name)) for name in ("data", "images")})


def _absolute(text: str) -> str:
    path = Path(text).expanduser()
    is_path = text not in ("", "demo") and "://" not in text
    return str(path.resolve()) if is_path and path.exists() else text


def record_test_evaluation(dataset: Dataset) -> int:
    """Count an evaluation on this data set's test split; return the number of evaluations so far."""
    path = _test_evaluations_file(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        evaluations = 1 + count_test_evaluations(dataset)
        write_atomically(path, json.dumps(evaluations).encode())
    return evaluations


def count_test_evaluations(dataset: Dataset) -> int:
    """Return the number of recorded evaluations on this data set's test split."""
    path = _test_evaluations_file(dataset)
    return int(json.loads(path.read_text())) if path.exists() else 0


def _test_evaluations_file(dataset: Dataset) -> Path:
    return state_dir() / "test_evaluations" / f"{dataset.fingerprint}.json"


def _class_table(scores: ClassificationMetrics) -> tuple[list[str], list[list[object]]]:
    """Return the columns and rows of the table with the scores of each class, the lowest recall first."""
    columns = ["class", "recall", "precision", "f1", "test images"]
    classes = sorted(scores.per_class, key=lambda row: row.recall)
    return columns, [[row.name, row.recall, row.precision, row.f1, row.support] for row in classes]
