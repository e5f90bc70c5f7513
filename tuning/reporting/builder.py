"""Building the content of a search's report from the results of the search."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from data.audit.report import audit
from data.dataset.dataset import Dataset
from data.loading.pixel_cache import pixel_cache
from models.profiling.hardware import hardware
from tuning.common.promotion_types import Candidate
from tuning.reporting.content import Decision, ReportContent
from tuning.reporting.thumbnails import audit_pairs, top_losses, train_examples, val_examples
from tuning.search.search_result import SearchResult

if TYPE_CHECKING:
    from models.evaluation.metrics import Labels, Probabilities


def build_report_content(
    dataset: Dataset,
    result: SearchResult,
    candidate: Candidate,
    test_predictions: tuple[Probabilities, Labels],
    baseline: float | None,
    decision: Decision,
) -> ReportContent:
    """Return the content of a search's report.

    Args:
        dataset: the search's data set; its pixels are read from the cache, or decoded again.
        result: the trials and the winner.
        candidate: the packaged winner with its test metrics.
        test_predictions: its probabilities [n, k] and the labels [n] of ``dataset.split("test")``.
        baseline: test accuracy of logistic regression on the raw pixels, if known.
        decision: the registry's decision about the candidate.
    """
    from models.evaluation.metrics import compute_metrics

    cache = pixel_cache(dataset, result.winner.config.preprocessing)
    data_audit = audit(dataset)
    return ReportContent(
        search=candidate.run_id,
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        candidate=candidate,
        scores=compute_metrics(*test_predictions, dataset.classes),
        decision=decision,
        result=result,
        machine=hardware(),
        baseline=baseline,
        mistakes=top_losses(dataset, dataset.split("test"), *test_predictions),
        train_examples=train_examples(dataset, cache.split("train")[0], result.winner),
        val_examples=val_examples(dataset, cache.split("val")[0]),
        audit=data_audit,
        pairs=audit_pairs(data_audit),
    )
