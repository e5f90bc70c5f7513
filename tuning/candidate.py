"""The candidate: the best epoch's weights, measured on the test pictures once and packaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from data.dataset import Dataset
from data.store import home, write_atomically
from models.config import TrialConfig
from tuning.promote import Candidate
from tuning.registry import CANDIDATE_FILE
from tuning.tracking.delivery import is_away
from tuning.tracking.parent import ParentRun
from tuning.trial import load_classifier, split_batches
from tuning.views.lines import say

if TYPE_CHECKING:
    from models.evaluate import Metric, Scores

NOT_IN_A_NAME = re.compile(r"[^\w\-. /:]")  # what MLflow refuses in a metric's name
INTERVALS: tuple[Metric, ...] = ("accuracy", "balanced_accuracy", "macro_f1")


def make_candidate(
    name: str, parent: ParentRun, dataset: Dataset, data: str, config: TrialConfig, weights: Path, folder: Path
) -> Candidate:
    """Measure the weights on the test pictures, package them in ``folder``, log both on the parent run."""
    from models.evaluate import interval, predict, score
    from models.package import export

    classifier = load_classifier(config, len(dataset.classes), weights)
    batches = split_batches(dataset, config, "test")
    probabilities, labels = predict(classifier, batches.epoch(0))
    scores = score(probabilities, labels, dataset.classes)
    exported = export(classifier, config, dataset.classes, dataset.fingerprint, batches.pixels, folder)
    for sentence in exported.notes:
        say(sentence)
    candidate = Candidate(
        name=name,
        run_id=parent.run_id,
        model_uri=_logged(parent, folder),
        data=data,
        data_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        test_pictures=len(labels),
        test_looks=count_look(dataset),
        metrics=scores.metrics("test"),
        intervals={f"test_{metric}": interval(metric, probabilities, labels) for metric in INTERVALS},
    )
    parent.log_metrics({**candidate.metrics, **_by_class(scores)})
    parent.log_text(scores.to_json(indent=2), "test_scores.json")
    if candidate.model_uri:
        parent.log_text(candidate.to_json(indent=2), CANDIDATE_FILE)
    return candidate


def _logged(parent: ParentRun, folder: Path) -> str:
    """Log the package on the parent run and return its address; empty where the server is away: sync logs it."""
    from models.package import log_package

    if parent.client is None:
        return ""
    try:
        return log_package(folder, parent.run_id)
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
