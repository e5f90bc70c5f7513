"""The evidence for a choice: the losses of trials for the same images, on which none of them was trained.

Options are compared by log loss, image by image: with a few dozen images, accuracies are often equal, and a difference
of two losses on the same images varies far less than each loss. All classes have the same weight, as in the objective.

Shapes: n images, k classes, m options.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data.dataset.dataset import Dataset, Sample
from data.dataset.folds import Folds, development_folds
from models.evaluation.calibration import cross_fitted_loss
from models.evaluation.ensemble import combine_logits
from models.evaluation.estimate import (
    Estimate,
    balanced_accuracy_estimate,
    class_balanced_estimate,
    class_balanced_weights,
)
from models.evaluation.metrics import Floats, Labels
from models.training.predictions import HeldOutLogits, load_predictions
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord

NUM_RESAMPLES = 200  # of the bootstrap that corrects an estimate for selection
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Images:
    """The labels [n] of images and the ids [n] of their groups."""

    labels: Labels
    groups: npt.NDArray[np.int64]

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Images:
        """Return the labels and the groups of samples, in order."""
        _, groups = np.unique([sample.group or sample.content_hash for sample in samples], return_inverse=True)
        return cls(np.array([sample.label for sample in samples], dtype=np.int64), groups.astype(np.int64))

    def estimate(self, values: Floats) -> Estimate:
        """Return the class-balanced mean of values [n]; images with NaN are left out."""
        known = ~np.isnan(values)
        return class_balanced_estimate(values[known], self.labels[known], self.groups[known])


class Member(NamedTuple):
    """A trial as a member of an option, with its weight in the mean of the probabilities."""

    trial: TrialRecord
    weight: float = 1.0


@dataclass(frozen=True)
class Option:
    """What can be chosen: a trial, or an ensemble of probes; with its results on the compared images.

    Attributes:
        members: one trial, or several whose weights sum to 1.
        logits: [n, k]; NaN for images that were in the training part of every fold.
        losses: [n], after the temperature that cross-validation finds better; NaN as above.
        cost_ms: the serving latency of a trial's network; None if it is not known, and for an ensemble.
    """

    members: tuple[Member, ...]
    logits: Floats
    losses: Floats
    cost_ms: float | None

    @property
    def trial(self) -> TrialRecord:
        """The trial, or the first member."""
        return self.members[0].trial

    def is_correct(self, labels: Labels) -> Floats:
        """Return 1 for each correctly classified image, else 0 [n]; NaN as above."""
        return np.where(np.isnan(self.losses), np.nan, (self.logits.argmax(axis=1) == labels).astype(np.float64))


class Evidence:
    """The held-out logits of the trials of a search.

    Attributes:
        num_classes: number of classes.
        val: the validation images.
        development: the training images, followed by the validation images.
    """

    def __init__(self, dataset: Dataset, logits: Mapping[str, HeldOutLogits]) -> None:
        """Take the logits of the trials by uid."""
        self.num_classes = len(dataset.classes)
        self.val = Images.from_samples(dataset.split("val"))
        self.development = Images.from_samples(dataset.development)
        self._dataset = dataset
        self._logits = logits

    @cached_property
    def folds(self) -> Folds | None:
        """The folds of the development images."""
        return development_folds(self._dataset)

    @classmethod
    def load(cls, paths: SearchPaths, dataset: Dataset, trials: Sequence[TrialRecord]) -> Evidence:
        """Load what the trials have saved; a trial without a file, for example on a full disk, is left out."""
        loaded = {trial.trial_uid: load_predictions(paths.predictions(trial.trial_uid)) for trial in trials}
        return cls(dataset, {uid: logits for uid, logits in loaded.items() if logits is not None})

    def has(self, trial: TrialRecord) -> bool:
        """Return whether the logits of a trial are known."""
        return trial.trial_uid in self._logits

    def is_cross_validated(self, trial: TrialRecord) -> bool:
        """Return whether a trial has out-of-fold logits."""
        return self.has(trial) and self._logits[trial.trial_uid].oof is not None

    def on_development(self, members: Sequence[Member], cost_ms: float | None = None) -> Option:
        """Return cross-validated members as an option on the development images."""
        oof = [self._logits[member.trial.trial_uid].oof for member in members]
        logits = combine_logits([each for each in oof if each is not None], [member.weight for member in members])
        return _option(members, logits, self.development.labels, cost_ms)

    def covered_folds(self, reruns: Sequence[TrialRecord]) -> frozenset[int]:
        """Return the folds on which the re-runs of a trial were validated."""
        return frozenset(rerun.config.fold for rerun in reruns if rerun.config.fold is not None and self.has(rerun))

    def on_folds(self, trial: TrialRecord, reruns: Sequence[TrialRecord], cost_ms: float | None) -> Option:
        """Return a trained trial as an option on the development images, by the re-runs that were validated on them.

        Images in the folds of no re-run have NaN.
        """
        logits = self._logits_on_folds(reruns)
        return _option([Member(trial)], logits, self.development.labels, cost_ms)

    def with_reruns(self, reruns: Mapping[str, Sequence[TrialRecord]]) -> Evidence:
        """Return the evidence in which a trial whose re-runs cover all folds is cross-validated by them."""
        if self.folds is None:
            return self
        known, num_folds = dict(self._logits), int(self.folds.max()) + 1
        for uid, of_trial in reruns.items():
            if uid in known and known[uid].oof is None and len(self.covered_folds(of_trial)) == num_folds:
                known[uid] = HeldOutLogits(known[uid].val, self._logits_on_folds(of_trial))
        return Evidence(self._dataset, known)

    def _logits_on_folds(self, reruns: Sequence[TrialRecord]) -> Floats:
        """Return the logits [n, k] of the development images by the re-runs that were validated on them."""
        logits = np.full((len(self.development.labels), self.num_classes), np.nan)
        for rerun in reruns:
            if rerun.config.fold is not None and self.has(rerun):
                logits[self.folds == rerun.config.fold] = self._logits[rerun.trial_uid].val
        return logits

    def restrict(self, option: Option, folds: Collection[int]) -> Option:
        """Return an option on the development images with only the images in some folds; all others have NaN."""
        outside = ~np.isin(np.asarray(self.folds), list(folds))
        return replace(
            option,
            logits=np.where(outside[:, None], np.nan, option.logits),
            losses=np.where(outside, np.nan, option.losses),
        )

    def on_validation(
        self, members: Sequence[Member], reruns: Sequence[TrialRecord] = (), cost_ms: float | None = None
    ) -> Option:
        """Return members as an option on the validation images; the losses are means over the trial and its re-runs."""
        val = [self._logits[member.trial.trial_uid].val for member in members]
        logits = combine_logits(val, [member.weight for member in members])
        option = _option(members, logits, self.val.labels, cost_ms)
        others = [
            _option(members, self._logits[rerun.trial_uid].val, self.val.labels, cost_ms).losses
            for rerun in reruns
            if rerun.config.fold is None and self.has(rerun)
        ]
        return Option(option.members, logits, np.mean([option.losses, *others], axis=0), cost_ms)


def best_out_of_fold_logits(paths: SearchPaths, trials: Sequence[TrialRecord]) -> Floats | None:
    """Return the out-of-fold logits [n, k] of the best cross-validated probe; None without one.

    They are of the training images, followed by the validation images; NaN for images that are never held out.
    """
    probes = [trial for trial in trials if trial.is_eligible and "oof_loss" in trial.metrics]
    for trial in sorted(probes, key=lambda probe: probe.metrics["oof_loss"]):
        predictions = load_predictions(paths.predictions(trial.trial_uid))
        if predictions is not None and predictions.oof is not None:
            return predictions.oof
    return None


def out_of_fold_predictions(paths: SearchPaths, dataset: Dataset, trial_uid: str) -> tuple[Floats, Labels] | None:
    """Return a trial's out-of-fold logits [n, k] and the labels [n]; None if it was not cross-validated."""
    predictions = load_predictions(paths.predictions(trial_uid))
    if predictions is None or predictions.oof is None:
        return None
    known = ~np.isnan(predictions.oof[:, 0])
    return predictions.oof[known], Images.from_samples(dataset.development).labels[known]


def _option(members: Sequence[Member], logits: Floats, labels: Labels, cost_ms: float | None) -> Option:
    known = ~np.isnan(logits[:, 0])
    losses = np.full(len(labels), np.nan)
    losses[known] = cross_fitted_loss(logits[known], labels[known])
    return Option(tuple(members), logits, losses, cost_ms)


class SelectionEstimate(NamedTuple):
    """What to expect of a chosen option, corrected for the choice: balanced accuracy and log loss."""

    score: Estimate
    loss: Estimate


def corrected_estimate(options: Sequence[Option], chosen: Option, images: Images) -> SelectionEstimate:
    """Return the estimate of the chosen option, corrected for having been the best of several on the same images.

    In each bootstrap sample the option with the lowest loss is chosen, and scored on the images outside the sample
    (BBC-CV: Tsamardinos et al., "Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation", Machine Learning 107, 2018). The mean over the samples, minus the same for the chosen option
    alone, is the price of the choice. Groups are drawn as a whole.
    """
    known = ~np.isnan(chosen.losses)
    labels = images.labels[known]
    _, groups = np.unique(images.groups[known], return_inverse=True)
    losses = np.stack([option.losses[known] for option in options])
    correct = np.stack([option.is_correct(images.labels)[known] for option in options])
    chosen_losses, chosen_correct = chosen.losses[known], chosen.is_correct(images.labels)[known]
    weights = class_balanced_weights(labels)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    price: list[tuple[float, float]] = []
    for _ in range(NUM_RESAMPLES if len(options) > 1 else 0):
        drawn = np.bincount(rng.integers(groups.max() + 1, size=groups.max() + 1), minlength=groups.max() + 1)[groups]
        outside = weights * (drawn == 0)
        if outside.sum() == 0:
            continue
        best = int((losses @ (weights * drawn)).argmin())
        outside /= outside.sum()
        price.append(
            (
                float(outside @ (correct[best] - chosen_correct)),
                float(outside @ (losses[best] - chosen_losses)),
            )
        )
    score_price, loss_price = np.mean(price, axis=0) if price else (0.0, 0.0)
    score = balanced_accuracy_estimate(chosen_correct, labels, images.groups[known])
    loss = images.estimate(chosen.losses)
    return SelectionEstimate(
        Estimate(min(1.0, score.mean + min(0.0, score_price)), score.standard_error),
        Estimate(loss.mean + max(0.0, loss_price), loss.standard_error),
    )
