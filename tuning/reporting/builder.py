"""From what a search knows at its end to what its report shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from data.audit.report import Audit
from data.dataset.dataset import Dataset
from data.loading.pixel_cache import pixel_cache
from models.profiling.hardware import hardware
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.reporting.content import ReportContent, ReportTrial
from tuning.reporting.thumbnails import audit_pairs, top_losses, train_examples, val_examples
from tuning.search.reevaluation import Improvement, RerunTrial
from tuning.search.selection import Costs, Limits, best_per_serving_spec

if TYPE_CHECKING:
    from models.evaluation.metrics import Labels, Probabilities


def build_report_content(
    dataset: Dataset,
    found: Audit,
    trials: Sequence[ReportTrial],
    best: TrialRecord,
    finals: Sequence[RerunTrial],
    gain: Improvement | None,
    candidate: Candidate,
    answers: tuple[Probabilities, Labels],
    decision: str,
    model: str,
    costs: Costs,
    limits: Limits,
    baseline: float | None,
) -> ReportContent:
    """Return what the report of a search shows.

    Args:
        dataset: that was searched on; its pixels are in the store, or are decoded again.
        found: its audit.
        trials: all of them.
        best: the one that won.
        finals: the trials that were in the finals, best first.
        gain: of the winner over the default, if there is one.
        candidate: what it was measured to be on the test pictures.
        answers: its probabilities [n, k] and the labels [n] of ``dataset.split("test")``.
        decision: what became of it, a sentence.
        model: its address in the registry; empty if it was not registered.
        costs: of the networks that were measured.
        limits: that the winner had to keep.
        baseline: test accuracy of raw pixels alone, if it is known.
    """
    from models.evaluation.metrics import compute_metrics

    cache = pixel_cache(dataset, best.config.preprocessing)
    return ReportContent(
        search=candidate.run_id,
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        candidate=candidate,
        scores=compute_metrics(*answers, dataset.classes),
        decision=decision,
        model=model,
        trials=tuple(trials),
        best=best.number,
        reruns=tuple(one for one in finals if len(one.scores) > 1),
        improvement=gain,
        costed_trials=tuple(best_per_serving_spec([trial.trial for trial in trials], costs, len(dataset.classes))),
        limits=limits,
        machine=hardware(),
        baseline=baseline,
        mistakes=top_losses(dataset, dataset.split("test"), *answers),
        train_examples=train_examples(dataset, cache.split("train")[0], best),
        val_examples=val_examples(dataset, cache.split("val")[0]),
        audit=found,
        pairs=audit_pairs(found),
    )
