"""The promotion gate: a pure function that decides between champion and challenger, with a reason and evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from data.text import pluralize
from tuning.common.promotion_types import Candidate, Champion, Promotion
from tuning.registry.paired_test import Labels, class_weights, compare_paired

MIN_BASELINE_MARGIN = 0.05  # by which a first champion must exceed a model that always predicts the largest class
EPSILON = 1e-9
MAX_LISTED_CLASSES = 8  # in a reason
DIGEST_PREFIX_LENGTH = 16  # hex digits of a content hash: 64 bits, no collision expected among a million images


def decide(candidate: Candidate, champion: Champion | None, force: str = "") -> Promotion:
    """Decide whether a candidate becomes champion or challenger; without a current champion it is the first version.

    ``force`` is a person's reason to make it champion even if the gate rejects it; the promotion's reason has both.
    """
    evaluation = _GateEvaluation(candidate, champion)
    rejection = "; ".join(evaluation.reject_reasons)
    is_forced = bool(rejection and force)
    reason = f"forced ({force}) although the gate rejected it: {rejection}" if is_forced else rejection
    alias: Literal["champion", "challenger"] = "challenger" if rejection and not is_forced else "champion"
    return evaluation.promotion(alias, reason or evaluation.accept_reason, forced=is_forced)


class _GateEvaluation:
    """The result of all checks: the reasons to reject the candidate, the reason to accept it, and the evidence."""

    def __init__(self, candidate: Candidate, champion: Champion | None) -> None:
        self._candidate = candidate
        self._gate = candidate.gate
        self._metric = candidate.gate.metric.replace("_", " ")
        self._y_true = np.array(candidate.y_true)
        self._y_pred = np.array(candidate.y_pred)
        self.accept_reason = ""
        self.evidence: dict[str, float] = {}
        self._champion_version = None if champion is None else champion.version
        self._won_images: tuple[int, ...] = ()
        self._lost_images: tuple[int, ...] = ()
        absolute = list(self._absolute_checks())
        relative = list(self._baseline_check() if champion is None else self._compare_with_champion(champion))
        self.reject_reasons = [*relative, *absolute]

    def promotion(self, alias: Literal["champion", "challenger"], reason: str, *, forced: bool = False) -> Promotion:
        """Return a decision with the evidence and the images of the comparison."""
        images = {"won_images": self._won_images, "lost_images": self._lost_images}
        return Promotion(
            alias=alias,
            reason=reason,
            evidence=self.evidence,
            forced=forced,
            champion=self._champion_version,
            **images,
        )

    def _absolute_checks(self) -> Iterator[str]:
        """Yield the reasons to reject the candidate that do not depend on the champion."""
        candidate, gate = self._candidate, self._gate
        leaks = max(candidate.leaks, len(set(candidate.seen_hashes) & set(candidate.test_hashes)))
        if leaks:
            yield (
                f"no test image may be in the training or validation data, but {pluralize(leaks, 'test image')} leaked "
                "(train again with on_leak=drop)"
            )
        if gate.max_latency_ms is not None and candidate.latency_ms is None:
            yield f"latency must be at most {gate.max_latency_ms:g} ms per image (max_latency_ms), but was not measured"
        elif gate.max_latency_ms is not None and (candidate.latency_ms or 0.0) > gate.max_latency_ms:
            yield (
                f"latency must be at most {gate.max_latency_ms:g} ms per image (max_latency_ms), "
                f"got {candidate.latency_ms:.1f} ms"
            )
        if gate.max_mb is not None and candidate.size_mb > gate.max_mb:
            yield f"package size must be at most {gate.max_mb:g} MB (max_mb), got {candidate.size_mb:.1f} MB"

    def _baseline_check(self) -> Iterator[str]:
        """Yield the reason to reject a first version that is hardly better than always predicting one class."""
        support = np.bincount(self._y_true)
        weights = class_weights(self._gate.metric, support)
        score = float(weights[self._y_true[self._y_pred == self._y_true]].sum())
        baseline = float((weights * support)[support.argmax()])
        self.evidence = {"candidate": score, "baseline": baseline}
        numbers = (
            f"test {self._metric} {score:.4f} vs. {baseline:.4f} for always predicting the largest class, "
            f"on {pluralize(len(self._y_true), 'test image')}"
        )
        self.accept_reason = f"first champion, better than the baseline: {numbers}"
        if score < baseline + MIN_BASELINE_MARGIN:
            yield (
                f"a first champion must exceed the baseline by {MIN_BASELINE_MARGIN:g}: {numbers} "
                "(search longer or add training images)"
            )

    def _compare_with_champion(self, champion: Champion) -> Iterator[str]:
        """Yield the reasons not to replace the champion."""
        name = f"champion version {champion.version}"
        if set(champion.classes) != set(self._candidate.classes):
            changes = class_changes(champion.classes, self._candidate.classes)
            yield (
                f"the classes must be those of {name} for a comparison, but {changes} "
                "(promote with --force REASON to replace it)"
            )
            return
        leaked = len(set(self._candidate.seen_hashes) & champion.test_hashes)
        if leaked:
            yield (
                f"the training and validation data must not overlap with the test split of {name}, but "
                f"{pluralize(leaked, 'image')} do (train again on the champion's splits)"
            )
        if champion.y_pred is None:
            yield (
                f"{name} could not be evaluated on these test images{_because(champion.problem)}, so the models cannot "
                "be compared (restore its files, set an earlier version with rollback, or promote with --force REASON)"
            )
            return
        unseen_mask = np.array(
            [content_hash not in champion.seen_hashes for content_hash in self._candidate.test_hashes]
        )
        if not unseen_mask.any():
            yield (
                f"{name} was trained on all of these test images, so the models cannot be compared "
                "(search again with new test images, or promote with --force REASON)"
            )
            return
        correct, champion_correct = self._y_pred == self._y_true, np.array(champion.y_pred) == self._y_true
        self._won_images = tuple(np.flatnonzero(unseen_mask & correct & ~champion_correct).tolist())
        self._lost_images = tuple(np.flatnonzero(unseen_mask & ~correct & champion_correct).tolist())
        champion_pred = np.array(champion.y_pred)[unseen_mask]
        yield from self._compare_predictions(name, self._y_true[unseen_mask], self._y_pred[unseen_mask], champion_pred)

    def _compare_predictions(
        self, name: str, y_true: Labels, candidate_pred: Labels, champion_pred: Labels
    ) -> Iterator[str]:
        """Yield the reasons not to replace the champion, from the predictions [n] of both for the same images."""
        gate, comparison = self._gate, compare_paired(self._gate.metric, y_true, candidate_pred, champion_pred)
        self.evidence = {**comparison.model_dump(), "gain": comparison.gain}
        numbers = (
            f"test {self._metric} {comparison.candidate:.4f} vs. {comparison.champion:.4f} for {name} "
            f"on the same {pluralize(comparison.num_images, 'unseen image')} "
            f"({comparison.wins} won, {comparison.losses} lost, {_p_value(comparison.p_value)})"
        )
        self.accept_reason = f"better: {numbers}"
        if comparison.gain <= EPSILON:
            yield f"not better: {numbers}"
        elif comparison.gain < gate.min_gain - EPSILON:
            yield f"better, but by less than min_gain={gate.min_gain:g}: {numbers}"
        elif comparison.p_value > gate.significance:
            yield (
                f"better, but not statistically significant (p > {gate.significance:g}): {numbers} "
                "(confirming a gain of this size takes more test images)"
            )
        losses = self._class_losses(y_true, candidate_pred, champion_pred)
        if losses:
            self.evidence["worst_class_loss"] = max(losses.values())
            listed = ", ".join(f"{loss:.2f} for {label}" for label, loss in losses.items())
            yield f"recall must not drop by more than {gate.max_class_loss:g} per class (max_class_loss), got {listed}"

    def _class_losses(self, y_true: Labels, candidate_pred: Labels, champion_pred: Labels) -> Mapping[str, float]:
        """Return the drop in recall by class, where it exceeds both ``max_class_loss`` and a single image."""
        support, classes = np.bincount(y_true), self._candidate.classes
        candidate_correct = np.bincount(y_true[candidate_pred == y_true], minlength=len(support))
        champion_correct = np.bincount(y_true[champion_pred == y_true], minlength=len(support))
        lost = champion_correct - candidate_correct
        allowed = np.maximum(self._gate.max_class_loss * support, 1)
        return {
            classes[index]: float(lost[index] / support[index]) for index in np.flatnonzero(lost > allowed + EPSILON)
        }


def class_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """Return which classes are new and which are missing, as a clause; empty if there are none."""
    new, missing = ([name for name in of if name not in other] for of, other in ((now, before), (before, now)))
    changes = [(new, "new"), (missing, "missing")]
    return " and ".join(
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {word}" for names, word in changes if names
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED_CLASSES:,} more" if len(names) > MAX_LISTED_CLASSES else ""
    return ", ".join(names[:MAX_LISTED_CLASSES]) + more


def _p_value(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def _because(problem: str) -> str:
    return f", because {problem.rstrip('.')}" if problem else ""
