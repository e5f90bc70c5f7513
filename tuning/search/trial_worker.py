"""The function that a Ray worker runs: one trial, from its configuration to its final report.

A worker process runs several trials, one after another. A trial creates everything that it changes, and ``fit`` seeds
the random state from the configuration, so a result never depends on earlier trials.
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
from models.training.predictions import HeldOutLogits, save_predictions
from models.training.trial_io import save_weights, split_batches
from models.trial_config import TrialConfig
from tuning.common.names import OBJECTIVE_METRIC
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialReport
from tuning.search.stall_watchdog import HeartbeatSender

if TYPE_CHECKING:
    from data.loading.batch_loader import BatchLoader
    from models.classifier import Classifier
    from models.evaluation.metrics import Probabilities
    from models.features.trial_features import TrialFeatures
    from models.training.checkpoint import EpochResult, TrainingState

logger = logging.getLogger(__name__)

MAX_WORKER_FAILURES = 3  # a trial fails once it has lost this many workers
CHECKPOINT_EVERY_S = 5.0  # minimum time between checkpoints; a killed worker loses at most this time and one epoch
MAX_TRACEBACK_LENGTH = 4000  # last characters of a traceback; MLflow truncates a tag at 8000


class TrialTask(FrozenModel):
    """The input of a worker."""

    trial_uid: str
    config: TrialConfig
    search_root: Path
    threads: int


def run_trial(config: dict[str, Any]) -> None:
    """Run the trial in ``config["task"]`` as a Ray Tune function; report each epoch and the end.

    An exception is reported as a failed trial and not raised, so that the actor can run the next trial and Ray's
    retries are used for lost workers only.
    """
    from ray import tune

    task = TrialTask.from_json(config["task"])
    heartbeat = HeartbeatSender(SearchPaths(task.search_root).heartbeat)
    best = -math.inf
    epoch = 0

    def send_report(report: TrialReport) -> None:
        nonlocal best, epoch
        epoch = report.epoch
        if report.is_best:
            best = report.metrics[OBJECTIVE_METRIC]
        tune.report({"epoch": epoch, "objective": best, "report": report.to_json()})

    try:
        heartbeat()
        train(task, send_report, heartbeat)
    except Exception as error:  # an exception fails the trial, not the search
        send_report(_failure_report(error, epoch))
    else:
        send_report(TrialReport(status="complete", epoch=epoch))
    finally:
        release_memory()


def release_memory() -> None:
    """Return freed memory to the operating system; otherwise the C library keeps it and the worker grows.

    Measured over five trials at 128 px: 1.4 to 1.9 GB without, 1.0 GB with this function. Remaining objects, mostly
    modules, are excluded from later garbage collection, which would take 0.25 s per trial.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # malloc_trim exists in glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _failure_report(error: Exception, epoch: int) -> TrialReport:
    return TrialReport(
        status="failed",
        epoch=epoch,
        reason=f"{type(error).__name__}: {error}",
        traceback=traceback.format_exc()[-MAX_TRACEBACK_LENGTH:],
        is_infrastructure_failure=isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS,
    )


def train(task: TrialTask, report: Callable[[TrialReport], None], on_batch: Callable[[], None] = lambda: None) -> int:
    """Train the task's configuration, save the weights of the best epoch, report each epoch; return the best epoch.

    Interrupted training resumes from its checkpoint, and the epochs before it are reported again. If the GPU runs out
    of memory, training restarts with gradient accumulation over two parts of each batch. ``on_batch`` is called for
    every batch of images: for cached features, training and validation.

    Raises:
        Exception: any error of training; the weights file exists if an epoch was completed.
    """
    import torch

    try:
        return _train(task, report, on_batch, accumulation_steps=1)
    except torch.OutOfMemoryError as error:
        logger.warning("out of memory: each batch is computed in two parts from now on (%s)", error)
    release_memory()  # outside the handler, because its error references the tensors
    torch.cuda.empty_cache()
    return _train(task, report, on_batch, accumulation_steps=2)


def _train(
    task: TrialTask, report: Callable[[TrialReport], None], on_batch: Callable[[], None], accumulation_steps: int
) -> int:
    import torch

    from data.dataset.folds import development_folds
    from data.loading.pixel_cache import FoldPixels, PixelCache, pixel_cache
    from models.classifier import build_classifier
    from models.device import choose_device
    from models.features.trial_features import TrialFeatures

    torch.set_num_threads(task.threads)
    config = task.config
    dataset = Dataset.from_json(SearchPaths(task.search_root).dataset.read_text())
    num_classes = len(dataset.classes)
    classifier = build_classifier(config.network, num_classes, config.preprocessing.image_size, config.seed)
    classifier.to(choose_device())
    classifier.frozen_precision = config.features.frozen_precision
    classifier.trained_precision = config.fit.trained_precision
    cache = pixel_cache(dataset, config.preprocessing)
    pixels: PixelCache | FoldPixels = cache
    if config.fold is not None:
        folds = development_folds(dataset)
        assert folds is not None, config.fold  # noqa: S101  (the search has folds if a trial has one)
        pixels = FoldPixels(cache, folds == config.fold)
    features = TrialFeatures(classifier, config, dataset, pixels, on_batch)
    with contextlib.closing(features):
        trial = _Trial(task, classifier, features, report)
        train_batches, val_batches = (
            split_batches(pixels, config, split, num_classes, features.loader(split), classifier.device)
            for split in ("train", "val")
        )
        if config.is_probe:
            return trial.fit_probe(train_batches, val_batches, dataset)
        return trial.fit(train_batches, val_batches, on_batch, accumulation_steps)


class _Trial:
    """A trial in its worker: trains the classifier, saves its best weights and predictions, and reports its epochs."""

    def __init__(
        self,
        task: TrialTask,
        classifier: Classifier,
        features: TrialFeatures,
        report: Callable[[TrialReport], None],
    ) -> None:
        from models.training.peak_memory import PeakMemory

        self._uid, self._paths, self._config = task.trial_uid, SearchPaths(task.search_root), task.config
        self._classifier = classifier
        self._features = features
        self._report = report
        self._memory = PeakMemory()
        self._runtime_info = _runtime_info(classifier)

    def fit(self, train: BatchLoader, val: BatchLoader, on_batch: Callable[[], None], accumulation_steps: int) -> int:
        """Train by gradient steps, from the checkpoint if there is one; return the best epoch."""
        from models.training.best_epoch import best_epoch
        from models.training.checkpoint import load_checkpoint
        from models.training.loop import FitHooks, fit

        if accumulation_steps > 1:
            self._runtime_info["accumulation_steps"] = accumulation_steps
        checkpoint = self._paths.checkpoint(self._uid)
        state = load_checkpoint(checkpoint)
        history = state.history if state else ()
        scores = [result.score for result in history]
        for result in history:
            self._report_epoch(result, best_epoch(scores[: result.epoch]) == result.epoch)
        history = fit(
            self._classifier,
            train,
            val,
            self._config.fit,
            FitHooks(on_batch, self._save_val_predictions, self._on_epoch, _CheckpointWriter(checkpoint)),
            accumulation_steps=accumulation_steps,
            state=state,
        )
        return best_epoch([result.score for result in history])

    def fit_probe(self, train: BatchLoader, val: BatchLoader, dataset: Dataset) -> int:
        """Fit a linear probe, save it also refitted on the training and validation images; return its only epoch."""
        from data.dataset.folds import development_folds
        from models.training.probe import fit_probe, oof_metrics, set_head

        fit = self._config.fit
        folds = development_folds(dataset) if fit.validation == "folds" else None
        probe = fit_probe(self._classifier, train, val, folds)
        save_predictions(self._paths.predictions(self._uid), HeldOutLogits(probe.val_logits, probe.oof_logits))
        save_weights(self._classifier, self._paths.weights(self._uid, epoch=1))
        metrics = {} if probe.oof_logits is None else oof_metrics(probe.oof_logits, train.labels, val.labels)
        if probe.refitted and fit.refit:
            set_head(self._classifier, probe.refitted)
            save_weights(self._classifier, self._paths.refitted_weights(self._uid))
        self._runtime_info["C"] = probe.c
        self._report_epoch(probe.result, is_best=True, extra_metrics=metrics)
        return 1

    def _save_val_predictions(self, probabilities: Probabilities) -> None:
        import numpy as np

        logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        save_predictions(self._paths.predictions(self._uid), HeldOutLogits(logits))

    def _on_epoch(self, result: EpochResult, is_best: bool) -> None:
        if is_best:
            save_weights(self._classifier, self._paths.weights(self._uid, result.epoch))
        self._report_epoch(result, is_best)
        if is_best:  # the driver has received the report, so the previous best weights can be deleted
            _delete_weights(self._paths, self._uid, keep=result.epoch)

    def _report_epoch(self, result: EpochResult, is_best: bool, extra_metrics: dict[str, float] | None = None) -> None:
        report = TrialReport(
            status="running",
            epoch=result.epoch,
            metrics=result.metrics() | self._memory.metrics() | (extra_metrics or {}),
            is_best=is_best,
            runtime_info=self._runtime_info | self._features.runtime_info(),
        )
        self._report(report)


class _CheckpointWriter:
    """Writes checkpoints at a minimum interval: repeating short epochs is cheaper than writing many files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_s = time.monotonic()

    def __call__(self, make_state: Callable[[], TrainingState]) -> None:
        from models.training.checkpoint import save_checkpoint

        if time.monotonic() - self._last_s < CHECKPOINT_EVERY_S:
            return
        try:
            save_checkpoint(self._path, make_state())
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            logger.warning("disk full: the trial continues without a new checkpoint (%s)", error)
        self._last_s = time.monotonic()


def _delete_weights(paths: SearchPaths, trial_uid: str, keep: int) -> None:
    for file in paths.all_weights(trial_uid):
        if file != paths.weights(trial_uid, keep):
            file.unlink(missing_ok=True)


def _runtime_info(classifier: Classifier) -> dict[str, str | int | float]:
    """Return the values of a trial that are known once its network is built."""
    return {
        "freeze_depth": classifier.freeze_depth,
        "freeze_block": classifier.freeze_block or "-",
        "blocks": len(classifier.blocks),
        "trainable_parameters": sum(parameter.numel() for _, parameter in classifier.trainable_parameters()),
    }
