"""The decision who is champion: pure, always with a reason in words and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tuning.common.promotion_types import Candidate, Champion, Promotion
from tuning.registry.paired_test import PairedComparison, class_weights, compare_paired

MIN_BASELINE_MARGIN = 0.05  # a first version must be better than always answering the largest class by this much
EPSILON = 1e-9
MAX_LISTED_CLASSES = 8  # classes that a sentence lists
DIGEST_PREFIX_LENGTH = 16  # letters of a picture's digest: 64 bits, so that two of a million pictures don't share one


def decide(candidate: Candidate, champion: Champion | None, force: str = "") -> Promotion:
    """Return the candidate's alias: champion if it keeps to its gate, against ``champion`` if there is one.

    ``force`` is a person's reason to make it champion whatever the gate says; both are kept in the promotion's reason.
    """
    verdict = _GateEvaluation(candidate, champion)
    if verdict.reject_reasons and force:
        reason = f"forced ({force}), where the gate said: {'; '.join(verdict.reject_reasons)}"
        return Promotion(alias="champion", reason=reason, evidence=verdict.evidence, forced=True)
    if verdict.reject_reasons:
        return Promotion(alias="challenger", reason="; ".join(verdict.reject_reasons), evidence=verdict.evidence)
    return Promotion(alias="champion", reason=verdict.accept_reason, evidence=verdict.evidence)


class _GateEvaluation:
    """All that the gate finds: what speaks against the candidate, or what speaks for it, and the numbers."""

    def __init__(self, candidate: Candidate, champion: Champion | None) -> None:
        self._candidate = candidate
        self._gate = candidate.gate
        self._metric = candidate.gate.metric.replace("_", " ")
        self._truth = np.array(candidate.y_true)
        self._predicted = np.array(candidate.y_pred)
        self.accept_reason = ""
        self.evidence: dict[str, float] = {}
        alone = list(self._absolute_checks())
        against = list(self._baseline_check() if champion is None else self._compare_with_champion(champion))
        self.reject_reasons = [*against, *alone]

    def _absolute_checks(self) -> Iterator[str]:
        """Yield what speaks against the candidate whoever is champion."""
        candidate, gate = self._candidate, self._gate
        leaks = max(candidate.leaks, len(set(candidate.seen_hashes) & set(candidate.test_hashes)))
        if leaks:
            yield f"{_count(leaks, 'test picture')} leaked into training, so the test proves nothing"
        if gate.max_latency_ms is not None and candidate.latency_ms is None:
            yield f"its latency was not measured, and the limit is {gate.max_latency_ms:g} ms"
        elif gate.max_latency_ms is not None and (candidate.latency_ms or 0.0) > gate.max_latency_ms:
            yield f"too slow: {candidate.latency_ms:.1f} ms for one picture, the limit is {gate.max_latency_ms:g} ms"
        if gate.max_mb is not None and candidate.size_mb > gate.max_mb:
            yield f"too large: {candidate.size_mb:.1f} MB, the limit is {gate.max_mb:g} MB"

    def _baseline_check(self) -> Iterator[str]:
        """Yield why the candidate is no first champion."""
        support = np.bincount(self._truth)
        weights = class_weights(self._gate.metric, support)
        score = float(weights[self._truth[self._predicted == self._truth]].sum())
        largest = float((weights * support)[support.argmax()])
        self.evidence = {"candidate": score, "floor": largest}
        numbers = (
            f"test {self._metric} {score:.4f} against {largest:.4f} of always answering the largest class, "
            f"on {_count(len(self._truth), 'picture')}"
        )
        self.accept_reason = f"there was no champion before, and it is better than the floor: {numbers}"
        if score < largest + MIN_BASELINE_MARGIN:
            rule = f"a first one must be better than the floor by {MIN_BASELINE_MARGIN:g}"
            yield f"there is no champion yet, but {rule}: {numbers}"

    def _compare_with_champion(self, champion: Champion) -> Iterator[str]:
        """Yield why the candidate does not take the champion's place."""
        name = f"champion version {champion.version}"
        if set(champion.classes) != set(self._candidate.classes):
            yield (
                f"{name} knows other classes ({_listed(champion.classes)}), so the two can't be compared; "
                "promote with --force and a reason if it shall be replaced"
            )
            return
        spoiled = len(set(self._candidate.seen_hashes) & champion.test_hashes)
        if spoiled:
            yield f"{_count(spoiled, 'test picture')} of {name} lay in its training data, which a content split forbids"
        if champion.y_pred is None:
            yield f"{name} could not be measured on these test pictures"
            return
        fair = np.array([digest not in champion.seen_hashes for digest in self._candidate.test_hashes])
        if not fair.any():
            yield f"{name} has seen all of these test pictures in training, so the two can't be compared"
            return
        rival = np.array(champion.y_pred)[fair]
        yield from self._compared(name, self._truth[fair], self._predicted[fair], rival)

    def _compared(self, name: str, truth: np.ndarray, predicted: np.ndarray, rival: np.ndarray) -> Iterator[str]:
        gate, found = self._gate, compare_paired(self._gate.metric, truth, predicted, rival)
        self.evidence = _evidence(found)
        numbers = (
            f"test {self._metric} {found.candidate:.4f} against {found.champion:.4f} of {name} "
            f"on the same {_count(found.num_images, 'picture')} that neither has seen "
            f"({found.wins} won, {found.losses} lost, p = {_p(found.p_value)})"
        )
        self.accept_reason = f"better: {numbers}"
        if found.gain <= EPSILON:
            yield f"not better: {numbers}"
        elif found.gain < gate.min_gain - EPSILON:
            yield f"better by less than the minimum gain of {gate.min_gain:g}: {numbers}"
        elif found.p_value > gate.significance:
            yield f"better, but that may be luck, for p is above {gate.significance:g}: {numbers}"
        losses = self._class_losses(truth, predicted, rival)
        if losses:
            self.evidence["worst_class_loss"] = max(losses.values())
            said = ", ".join(f"{label} by {loss:.2f}" for label, loss in losses.items())
            yield f"worse by more than {gate.max_class_loss:g} of recall in {said}"

    def _class_losses(self, truth: np.ndarray, predicted: np.ndarray, rival: np.ndarray) -> Mapping[str, float]:
        """Return how much recall is lost, by class, where that is more than the gate allows and than one picture."""
        support, classes = np.bincount(truth), self._candidate.classes
        right = np.bincount(truth[predicted == truth], minlength=len(support))
        lost = np.bincount(truth[rival == truth], minlength=len(support)) - right
        allowed = np.maximum(self._gate.max_class_loss * support, 1)
        return {
            classes[index]: float(lost[index] / support[index]) for index in np.flatnonzero(lost > allowed + EPSILON)
        }


def _evidence(found: PairedComparison) -> dict[str, float]:
    return {**found.model_dump(), "gain": found.gain}


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED_CLASSES:,} more" if len(names) > MAX_LISTED_CLASSES else ""
    return ", ".join(names[:MAX_LISTED_CLASSES]) + more


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"
