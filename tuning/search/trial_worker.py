"""What one Ray worker runs: a trial, from its configuration to its last report.

The worker process is used for one trial after another; everything that a trial changes it makes itself, and the
random state is set anew by ``fit`` from the configuration, so that a result never depends on what ran before.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.atomic_write import DISK_FULL_ERRNOS
from data.dataset.dataset import Dataset
from data.frozen_model import FrozenModel
from models.training.trial_io import save_weights, split_batches
from models.trial_config import TrialConfig
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport

if TYPE_CHECKING:
    from models.classifier import Classifier
    from models.training.state import EpochResult, TrainingState

logger = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 3  # of a trial's worker, after which the trial has failed
CHECKPOINT_EVERY_S = 5.0  # of training, at least: what a killed worker loses at most, and an epoch
TRACEBACK_CHARACTERS = 4000  # of a failed trial's traceback; MLflow cuts a tag at 8000


class TrialTask(FrozenModel):
    """A trial as it is handed to a worker."""

    trial_uid: str
    config: TrialConfig
    search_root: Path
    threads: int


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
        _mark_started(task)
        train(task, tell)
    except Exception as error:  # whatever a trial raises is its own failure, not the search's
        tell(_failure(error, epoch))
    else:
        tell(TrialReport(status="complete", epoch=epoch))
    finally:
        release_memory()


def _mark_started(task: TrialTask) -> None:
    """Leave the sign that a worker has the trial: ``tuning.search.stall_watchdog`` looks for it."""
    sign = SearchPaths(task.search_root).started_marker(task.trial_uid)
    with contextlib.suppress(OSError):  # on a full disk too a trial is trained
        sign.parent.mkdir(parents=True, exist_ok=True)
        sign.touch()


def release_memory() -> None:
    """Return what a trial has freed to the system: the C library keeps it, and a worker would grow with each trial.

    Measured over five trials at 128 px: 1.4 to 1.9 GB without, 1.0 GB with. What outlives the trial, modules above
    all, is not looked at again: that took 0.25 s for each trial.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _failure(error: Exception, epoch: int) -> TrialReport:
    return TrialReport(
        status="failed",
        epoch=epoch,
        reason=f"{type(error).__name__}: {error}",
        traceback=traceback.format_exc()[-TRACEBACK_CHARACTERS:],
        is_infrastructure_failure=isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS,
    )


def train(task: TrialTask, report: Callable[[TrialReport], None]) -> int:
    """Train the task's configuration, keep the best epoch's weights on disk, and ``emit`` each epoch; return the best.

    A training that was stopped goes on from its checkpoint; the epochs before it are told again. Where an accelerator's
    memory does not suffice, each batch is computed in two parts from then on.

    Raises:
        whatever training raises; a weights file is there once an epoch was finished.
    """
    import torch

    try:
        return _train(task, report, accumulation_steps=1)
    except torch.OutOfMemoryError as error:
        logger.warning("memory did not suffice, so each batch is computed in two parts: %s", error)
    release_memory()  # out of the handler: its error holds what did not fit
    torch.cuda.empty_cache()
    return _train(task, report, accumulation_steps=2)


def _train(task: TrialTask, report: Callable[[TrialReport], None], accumulation_steps: int) -> int:
    import torch

    from data.loading.pixel_cache import pixel_cache
    from models.classifier import build_classifier
    from models.device import choose_device
    from models.features.feature_cache import TrialFeatures
    from models.training.checkpoint import load_checkpoint
    from models.training.loop import fit, is_better
    from models.training.peak_memory import PeakMemory

    memory = PeakMemory()
    torch.set_num_threads(task.threads)
    paths, config = SearchPaths(task.search_root), task.config
    dataset = Dataset.from_json(paths.dataset.read_text())
    classifier = build_classifier(config.network, len(dataset.classes), config.preprocessing.image_size, config.seed)
    classifier.to(choose_device())
    features = TrialFeatures(classifier, config, dataset, pixel_cache(dataset, config.preprocessing))
    facts = _runtime_info(classifier) | ({"batch_parts": accumulation_steps} if accumulation_steps > 1 else {})
    progress = load_checkpoint(paths.checkpoint(task.trial_uid))

    def told(result: EpochResult, is_best: bool) -> TrialReport:
        return TrialReport(
            status="running",
            epoch=result.epoch,
            metrics=result.metrics() | memory.metrics(),
            is_best=is_best,
            runtime_info=facts | features.runtime_info(),
        )

    def on_epoch(result: EpochResult, is_best: bool) -> None:
        if is_best:
            save_weights(classifier, paths.weights(task.trial_uid, result.epoch))
        report(told(result, is_best))
        if is_best:  # heard by now: the weights of the best epoch before are nobody's any more
            _delete_weights(paths, task.trial_uid, keep=result.epoch)

    with contextlib.closing(features):
        for at, result in enumerate(progress.history if progress else ()):
            report(told(result, is_better(result, progress.history[:at] if progress else ())))
        return fit(
            classifier,
            split_batches(dataset, config, "train", features.loader("train")),
            split_batches(dataset, config, "val", features.loader("val")),
            config.fit,
            on_epoch,
            seed=config.seed,
            accumulation_steps=accumulation_steps,
            state=progress,
            on_checkpoint=_CheckpointWriter(paths.checkpoint(task.trial_uid)),
        ).best_epoch


class _CheckpointWriter:
    """Writes checkpoints, but seldom: where an epoch takes no time, training it again costs less than a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_s = time.monotonic()

    def __call__(self, progress: Callable[[], TrainingState]) -> None:
        from models.training.checkpoint import save_checkpoint

        if time.monotonic() - self._last_s < CHECKPOINT_EVERY_S:
            return
        try:
            save_checkpoint(self._path, progress())
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            logger.warning("the disk is full: the trial goes on without a new checkpoint (%s)", error)
        self._last_s = time.monotonic()


def _delete_weights(paths: SearchPaths, trial_uid: str, keep: int) -> None:
    for file in paths.trials.glob(f"{trial_uid}.*.safetensors"):
        if file != paths.weights(trial_uid, keep):
            file.unlink(missing_ok=True)


def _runtime_info(classifier: Classifier) -> dict[str, str | int | float]:
    """Return what is known of a trial once its network is built."""
    return {
        "freeze_depth": classifier.freeze_depth,
        "freeze_block": classifier.freeze_block or "-",
        "blocks": len(classifier.blocks),
        "trainable_parameters": sum(parameter.numel() for _, parameter in classifier.trainable_parameters()),
    }
