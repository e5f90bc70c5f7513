"""Building the content of a search's report from the results of the search."""

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
from tuning.search.reruns import Improvement, RerunTrial
from tuning.search.selection import Costs, Limits, best_per_serving_spec

if TYPE_CHECKING:
    from models.evaluation.metrics import Labels, Probabilities


def build_report_content(
    dataset: Dataset,
    audit: Audit,
    trials: Sequence[ReportTrial],
    best: TrialRecord,
    reruns: Sequence[RerunTrial],
    improvement: Improvement | None,
    candidate: Candidate,
    test_predictions: tuple[Probabilities, Labels],
    decision: str,
    model: str,
    costs: Costs,
    limits: Limits,
    baseline: float | None,
) -> ReportContent:
    """Return the content of a search's report.

    Args:
        dataset: the search's data set; its pixels are read from the cache, or decoded again.
        audit: the data set's audit.
        trials: all trials of the search.
        best: the winner.
        reruns: the best trials with the scores of their re-runs, best first.
        improvement: the winner's improvement over the default, if there is one.
        candidate: the packaged winner with its test metrics.
        test_predictions: its probabilities [n, k] and the labels [n] of ``dataset.split("test")``.
        decision: the registry's decision about the candidate, as a sentence.
        model: the candidate's address in the registry; empty if it was not registered.
        costs: serving costs of the measured networks.
        limits: upper limits on the winner's serving cost.
        baseline: test accuracy of logistic regression on the raw pixels, if known.
    """
    from models.evaluation.metrics import compute_metrics

    cache = pixel_cache(dataset, best.config.preprocessing)
    return ReportContent(
        search=candidate.run_id,
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        candidate=candidate,
        scores=compute_metrics(*test_predictions, dataset.classes),
        decision=decision,
        model=model,
        trials=tuple(trials),
        best=best.number,
        reruns=tuple(rerun for rerun in reruns if len(rerun.scores) > 1),
        improvement=improvement,
        costed_trials=tuple(best_per_serving_spec([trial.trial for trial in trials], costs, len(dataset.classes))),
        limits=limits,
        machine=hardware(),
        baseline=baseline,
        mistakes=top_losses(dataset, dataset.split("test"), *test_predictions),
        train_examples=train_examples(dataset, cache.split("train")[0], best),
        val_examples=val_examples(dataset, cache.split("val")[0]),
        audit=audit,
        pairs=audit_pairs(audit),
    )
