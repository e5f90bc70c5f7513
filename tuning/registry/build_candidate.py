"""The candidate: the best epoch's weights, measured on the test pictures once and packaged."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from data.atomic_write import write_atomically
from data.dataset.dataset import Dataset
from data.frozen_model import Value
from data.home import home
from models.training.trial_io import load_classifier, split_batches
from models.trial_config import TrialConfig
from tuning.common.event_bus import say
from tuning.common.promotion_types import Candidate, Gate
from tuning.registry.candidate_store import candidate_files, hand_over, proof_of
from tuning.registry.gate import KEPT_DIGEST
from tuning.registry.smoke_test import PICTURES, Proof, as_png, make_proof
from tuning.tracking.environment import code_version
from tuning.tracking.mlflow_sink import is_away
from tuning.tracking.parent_run import ParentRun

if TYPE_CHECKING:
    from data.preprocessing import Pixels
    from data.sources.base import SplitName
    from models.classifier import Classifier
    from models.evaluation.metrics import Labels, Metric, Probabilities, Scores

NOT_IN_A_NAME = re.compile(r"[^\w\-. /:]")  # what MLflow refuses in a metric's name
LEAKS = ("leak", "group_leak")
CALIBRATED: tuple[SplitName, ...] = ("val", "test")
INTERVALS: tuple[Metric, ...] = ("accuracy", "balanced_accuracy", "macro_f1")


class Winner(Value):
    """The trial that was packaged and measured, and the candidate that came of it."""

    trial_uid: str
    candidate: Candidate


def make_candidate(
    name: str,
    parent: ParentRun,
    dataset: Dataset,
    data: str,
    config: TrialConfig,
    weights: Path,
    folder: Path,
    gate: Gate,
) -> Candidate:
    """Measure the weights on the test pictures, package them in ``folder``, log both on the parent run."""
    from models.packaging.export import export

    classifier = load_classifier(config, len(dataset.classes), weights)
    measured = _measure(classifier, dataset, config)
    test = split_batches(dataset, config, "test")
    exported = export(
        classifier, config, dataset.classes, dataset.fingerprint, test.pixels, folder, measured.temperature
    )
    for sentence in exported.notes:
        say(sentence)
    proof = _proof(classifier, config, test.pixels, measured.temperature)
    write_atomically(proof_of(folder), proof.to_json().encode())
    _keep_answers(folder, measured)
    seen, tested = seen_and_test(dataset)
    candidate = Candidate(
        name=name,
        run_id=parent.run_id,
        model_uri=_logged(parent, folder),
        commit=code_version().get("git_commit", ""),
        data=data,
        data_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        test_looks=count_look(dataset),
        metrics={name: value for name, value in measured.metrics.items() if name.startswith("test_")},
        intervals=measured.intervals,
        truth=measured.truth,
        predicted=measured.predicted,
        test_digests=tested,
        seen_digests=seen,
        leaks=count_leaks(dataset),
        gate=gate,
        temperature=measured.temperature,
        max_difference=exported.max_difference,
        checked_pictures=exported.checked_pictures,
        size_mb=(folder / exported.graph).stat().st_size / 1e6,
        latency_ms=_latency_ms(folder / exported.graph, config.preprocessing.image_size),
    )
    parent.log_metrics({**measured.metrics, "temperature": measured.temperature, **_by_class(measured.scores)})
    parent.log_text(measured.scores.to_json(indent=2), "test_scores.json")
    if candidate.model_uri:
        for file in candidate_files(candidate):
            parent.log_text(candidate.to_json(), file)
    return candidate


@dataclass(frozen=True)
class _Measured:
    """What the test pictures say, calibrated on the validation pictures."""

    temperature: float
    scores: Scores
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    truth: tuple[int, ...]
    predicted: tuple[int, ...]
    probabilities: Probabilities


def _keep_answers(folder: Path, measured: _Measured) -> None:
    """Keep, beside the package, what the winner says of each test picture: the report shows it."""
    buffer = io.BytesIO()
    np.savez(buffer, probabilities=measured.probabilities, labels=np.array(measured.truth, dtype=np.int64))
    write_atomically(_answers(folder), buffer.getvalue())


def kept_answers(folder: Path) -> tuple[Probabilities, Labels]:
    """Return the probabilities [n, k] and labels [n] of the test pictures for the package in ``folder``."""
    with np.load(_answers(folder), allow_pickle=False) as kept:
        return kept["probabilities"], kept["labels"]


def _answers(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.answers.npz")


def _measure(classifier: Classifier, dataset: Dataset, config: TrialConfig) -> _Measured:
    """Fit the temperature on validation, then look at the test pictures."""
    from models.evaluation.calibration import calibration_error, fit_temperature, softmax
    from models.evaluation.inference import run_pass
    from models.evaluation.intervals import interval
    from models.evaluation.metrics import score

    found = {
        split: tuple(tensor.numpy() for tensor in run_pass(classifier, split_batches(dataset, config, split).epoch(0)))
        for split in CALIBRATED
    }
    temperature = fit_temperature(*found["val"])
    metrics: dict[str, float] = {}
    for split, (logits, labels) in found.items():
        metrics[f"{split}_ece_uncalibrated"] = calibration_error(softmax(logits), labels)
        metrics[f"{split}_ece"] = calibration_error(softmax(logits, temperature), labels)
    logits, labels = found["test"]
    probabilities = softmax(logits, temperature)
    scores = score(probabilities, labels, dataset.classes)
    return _Measured(
        temperature=temperature,
        scores=scores,
        metrics={**scores.metrics("test"), **metrics},
        intervals={f"test_{metric}": interval(metric, probabilities, labels) for metric in INTERVALS},
        truth=tuple(labels.tolist()),
        predicted=tuple(probabilities.argmax(axis=1).tolist()),
        probabilities=probabilities,
    )


def _proof(classifier: Classifier, config: TrialConfig, pixels: Pixels, temperature: float) -> Proof:
    """Return what training's code says of a few test pictures as files, for whoever loads the package back."""
    import torch

    from data.preprocessing import normalize, read_image, to_pixels
    from models.evaluation.calibration import softmax

    files = [as_png(picture) for picture in pixels[:PICTURES]]
    seen = np.stack([to_pixels(read_image(file), config.preprocessing) for file in files])
    with torch.inference_mode():
        logits = classifier.eval()(torch.from_numpy(normalize(seen, config.preprocessing)).to(classifier.device))
    return make_proof(files, softmax(logits.double().cpu().numpy(), temperature))


def _latency_ms(graph: Path, image_size: int) -> float | None:
    """Return what a picture costs in the package, on one core; None where it is no ONNX graph."""
    from models.profiling.serving_cost import latency_ms

    return latency_ms(graph, image_size) if graph.suffix == ".onnx" else None


def seen_and_test(dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the short digests of the pictures that are trained and validated on, and of the test pictures."""
    seen = {sample.digest[:KEPT_DIGEST] for sample in dataset.samples if sample.split != "test"}
    return tuple(sorted(seen)), tuple(sample.digest[:KEPT_DIGEST] for sample in dataset.split("test"))


def count_leaks(dataset: Dataset) -> int:
    """Return how many groups of pictures that belong together lie on both sides of the test split.

    There are none unless the user asked to keep them (``leaks=keep``).
    """
    split_of = {sample.path: sample.split for sample in dataset.samples}
    groups = [group for finding in dataset.findings if finding.kind in LEAKS for group in finding.files]
    sides = [{split_of[path] for path in group if path in split_of} for group in groups]
    return sum("test" in splits and len(splits) > 1 for splits in sides)


def _logged(parent: ParentRun, folder: Path) -> str:
    """Log the package on the parent run and return its address; empty where the server is away: sync logs it."""
    if parent.client is None:
        return ""
    try:
        return hand_over(parent.client, folder, parent.run_id)
    except Exception as error:
        if not is_away(error):
            raise
        return ""


def absolute(data: str) -> str:
    """Return what was given as data so that another working directory finds it too."""
    path = Path(data).expanduser()
    return str(path.resolve()) if "://" not in data and path.exists() else data


def count_look(dataset: Dataset) -> int:
    """Count one more look at this data set's test pictures; return how often they were looked at so far."""
    path = home() / "looks" / f"{dataset.fingerprint}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        looks = 1 + (json.loads(path.read_text()) if path.exists() else 0)
        write_atomically(path, json.dumps(looks).encode())
    return looks


def _by_class(scores: Scores) -> dict[str, float]:
    """Return recall, precision and F1 of each class under names that MLflow takes."""
    numbers: dict[str, float] = {}
    for number, row in enumerate(scores.per_class):
        name = NOT_IN_A_NAME.sub("_", row.name)
        name = f"{name}_{number}" if f"test_recall/{name}" in numbers else name
        numbers |= {
            f"test_recall/{name}": row.recall,
            f"test_precision/{name}": row.precision,
            f"test_f1/{name}": row.f1,
        }
    return numbers
