"""What one Ray worker runs: a trial, from its configuration to its last report.

The worker process is used for one trial after another; everything that a trial changes it makes itself, and the
random state is set anew by ``fit`` from the configuration, so that a result never depends on what ran before.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data.dataset import Dataset
from data.values import Value
from models.config import TrialConfig
from tuning.search.paths import SearchPaths

if TYPE_CHECKING:
    from models.classifier import Classifier
    from models.fit import EpochResult

TRACEBACK_CHARACTERS = 4000  # of a failed trial's traceback; MLflow cuts a tag at 8000


class TrialTask(Value):
    """A trial as it is handed to a worker."""

    trial_uid: str
    config: TrialConfig
    search_root: Path
    threads: int


class TrialReport(Value):
    """What a worker says: after each epoch, and once when the trial is over."""

    status: Literal["running", "complete", "failed"]
    epoch: int
    metrics: dict[str, float] = {}
    is_best: bool = False
    facts: dict[str, str | int | float] = {}
    reason: str = ""
    traceback: str = ""


def run_trial(config: dict[str, Any]) -> None:
    """Run the trial in ``config["task"]`` as a Ray Tune function: report each epoch and how it ended.

    A trial that raises is reported as failed, not raised: its actor stays good for the next trial, and Ray's
    retries are left for lost workers.
    """
    from ray import tune

    task = TrialTask.from_json(config["task"])
    best = -math.inf
    epoch = 0

    def tell(report: TrialReport) -> None:
        nonlocal best, epoch
        epoch = report.epoch
        if report.is_best:
            best = report.metrics["val_balanced_accuracy"]
        tune.report({"epoch": epoch, "objective": best, "report": report.to_json()})

    try:
        train(task, tell)
    except Exception as error:  # whatever a trial raises is its own failure, not the search's
        tell(_failure(error, epoch))
    else:
        tell(TrialReport(status="complete", epoch=epoch))


def _failure(error: Exception, epoch: int) -> TrialReport:
    return TrialReport(
        status="failed",
        epoch=epoch,
        reason=f"{type(error).__name__}: {error}",
        traceback=traceback.format_exc()[-TRACEBACK_CHARACTERS:],
    )


def train(task: TrialTask, tell: Callable[[TrialReport], None]) -> None:
    """Train the task's configuration, keep the best epoch's weights, and ``tell`` each epoch.

    Raises:
        whatever training raises; a weights file is there only if an epoch was finished.
    """
    import torch

    from models.classifier import build_classifier
    from models.fit import fit

    torch.set_num_threads(task.threads)
    paths = SearchPaths(task.search_root)
    config = task.config
    dataset = Dataset.from_json(paths.dataset.read_text())
    torch.manual_seed(config.seed)
    classifier = build_classifier(config.network, len(dataset.classes), config.preprocessing.image_size)
    facts = _facts(classifier)

    def on_epoch(result: EpochResult, is_best: bool) -> None:
        if is_best:
            save_weights(classifier, paths.weights(task.trial_uid))
        tell(
            TrialReport(
                status="running", epoch=result.epoch, metrics=result.metrics(), is_best=is_best, facts=facts
            )
        )

    fit(classifier, *split_batches(dataset, config, "train", "val"), config.fit, on_epoch)
