"""Finalize a search: select the winner, package, evaluate and promote it, and write the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data.atomic_write import write_atomically
from data.errors import SearchError
from data.loading.pixel_cache import pixel_cache
from models.evaluation.pixel_baseline import pixel_baseline_accuracy
from tuning.common.events import CandidateEvaluated, PromotionDecided, ReportWritten
from tuning.common.exit_codes import FINISHED, INTERRUPTED
from tuning.common.formatting import format_decision
from tuning.common.names import NOTE_TAG, PIXEL_BASELINE_METRIC, SEARCH_MINUTES_METRIC, TEST_METRIC
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.registry.build_candidate import PackagedWinner, build_candidate, load_test_predictions
from tuning.registry.deferred import defer, promote_or_defer, promotion_tags
from tuning.reporting.content import Decision, build_report_content
from tuning.search.result_warnings import result_warnings
from tuning.search.search_result import SearchResult
from tuning.search.selection import CostMetric, measure_serving_costs
from tuning.tracking.connection import tracking_uri
from tuning.tracking.ui_links import MlflowLinks, absolute_url
from tuning.ui import summary
from tuning.ui.tables import networks, pareto
from tuning.workflows.search_session import Search, SessionResult

COST_MEASUREMENT_BUDGET_S = 8.0  # for measuring serving costs when the recipe has no serving limits
NOT_DECIDED = Decision("Not decided yet: the MLflow server was unavailable.", "")


def finalize(search: Search, session: SessionResult) -> int:
    """Select the winner, package, evaluate and promote it, write the report; return the exit status.

    Raises:
        SearchError: no trial has a score, or no trial's network keeps the limits.
    """
    trials = session.trials
    if not any(trial.is_eligible for trial in trials):
        return _end_without_model(search, trials)
    bus, parent = search.bus, search.parent
    result = _select_winner(search, trials)
    parent.log_metrics(summary.winner_metrics(result))
    bus.show(*summary.rerun_lines(result))
    candidate = _package_winner(search, result.winner)
    baseline = _pixel_baseline(search)
    bus.show(summary.leaderboard(trials))
    bus.emit(CandidateEvaluated(candidate, baseline))
    warnings = result_warnings(search.dataset, result, candidate)
    for warning in warnings:
        bus.warning(warning)
    tables = _compare_networks(search, result)
    if search.signals.stop_requested:
        return _end_interrupted(search, candidate)
    decision = _promote(search, candidate)
    links = MlflowLinks(parent.experiment_id, parent.run_id, session.run_ids)
    is_online = bool(parent.experiment_id)  # offline there are no runs to link to yet
    note = summary.run_note(result, candidate, decision.text, warnings, links if is_online else None)
    parent.set_tags({NOTE_TAG: note + tables})
    parent.rename(f"{search.run_name} -> {candidate.metrics[TEST_METRIC]:.3f} test")
    _write_report(search, result, candidate, baseline, decision)
    parent.log_metrics({SEARCH_MINUTES_METRIC: session.time_budget.elapsed_s / 60})
    if decision.model:
        _show_next_commands(search, decision.model, links.trials_url())
    return FINISHED


def _end_without_model(search: Search, trials: Sequence[TrialRecord]) -> int:
    if search.signals.stop_requested:
        search.bus.warning("stopped before a trial finished an epoch, so there is no model")
        return INTERRUPTED
    reasons = Counter(trial.reason for trial in trials if trial.status == "failed")
    listed = "; ".join(f"{count} trials: {reason}" for reason, count in reasons.most_common(3))
    raise SearchError(f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow")


def _select_winner(search: Search, trials: Sequence[TrialRecord]) -> SearchResult:
    """Measure the serving costs of the trials' networks, and select the winner within the limits."""
    search.bus.stage("measuring serving costs")
    recipe, dataset = search.recipe, search.dataset
    limits: dict[CostMetric, float] = {}
    if recipe.max_latency_ms is not None:
        limits["latency_ms"] = recipe.max_latency_ms
    if recipe.max_mb is not None:
        limits["mb"] = recipe.max_mb
    costs = measure_serving_costs(trials, len(dataset.classes), limits, COST_MEASUREMENT_BUDGET_S)
    return SearchResult.select(trials, costs, limits, recipe.rerun_top_k, dataset)


def _package_winner(search: Search, winner: TrialRecord) -> Candidate:
    """Return the winner as a candidate; a resumed search reuses it, so the test split is evaluated once."""
    file = search.paths.packaged_winner
    if file.exists():
        packaged = PackagedWinner.from_json(file.read_text())
        if packaged.trial_uid == winner.trial_uid:
            return packaged.candidate
    search.bus.stage(f"packaging trial {winner.number}, the best, and evaluating it on the test split")
    weights = search.paths.weights(winner.trial_uid, winner.best_epoch)
    candidate = build_candidate(
        search.parent, search.dataset, search.recipe, winner.config, weights, search.paths.package
    )
    write_atomically(file, PackagedWinner(trial_uid=winner.trial_uid, candidate=candidate).to_json().encode())
    return candidate


def _pixel_baseline(search: Search) -> float:
    """Log and return the test accuracy of logistic regression on raw pixels."""
    cache = pixel_cache(search.dataset, next(iter(search.inputs.preprocessings.values())))
    accuracy = pixel_baseline_accuracy(cache.split("train"), cache.split("test"))
    search.parent.log_metrics({PIXEL_BASELINE_METRIC: accuracy})
    return accuracy


def _compare_networks(search: Search, result: SearchResult) -> str:
    """Show and log the scores and serving costs of the networks; return both tables in Markdown."""
    note = ""
    if rows := networks.compare_networks(result.trials, result.num_classes):
        table = networks.table(rows)
        search.bus.show(table)
        search.parent.log_text(networks.as_json(rows), "networks.json")
        note += table.to_markdown()
    if result.costed_trials:
        search.parent.log_text(pareto.as_json(result.costed_trials), "costs.json")
    if result.has_pareto_front:
        table = pareto.table(result.costed_trials, result.num_networks)
        search.bus.show(table)
        note += table.to_markdown()
    return note


def _end_interrupted(search: Search, candidate: Candidate) -> int:
    if not candidate.model_uri:
        defer(search.paths, candidate, needs_decision=False)
    run_id = search.parent.run_id
    search.bus.warning(
        f"stopped: the best model so far is packaged; python -m tuning resume --run {run_id} continues the search, "
        f"python -m tuning promote --run {run_id} registers the model"
    )
    return INTERRUPTED


def _promote(search: Search, candidate: Candidate) -> Decision:
    """Register the candidate and run the promotion gate; without a server both are deferred."""
    search.bus.stage("registering the model and running the promotion gate")
    parent = search.parent
    parent.writer.flush()  # other promotions read this run: it must be complete first
    outcome = promote_or_defer(parent.client, search.paths, candidate, search.dataset)
    if outcome is None:
        return NOT_DECIDED
    version, promotion = outcome
    parent.set_tags(promotion_tags(version, promotion))
    search.bus.emit(PromotionDecided(candidate, version, promotion))
    return Decision(format_decision(candidate, version, promotion), f"models:/{candidate.name}@{promotion.alias}")


def _write_report(
    search: Search, result: SearchResult, candidate: Candidate, baseline: float, decision: Decision
) -> None:
    """Write the report into the search's folder; log it, its charts and the leaderboard on the parent run."""
    from tuning.reporting.charts import build_charts
    from tuning.reporting.page import build_chart_images, build_report

    search.bus.stage("writing the report")
    parent, paths = search.parent, search.paths
    test_predictions = load_test_predictions(paths.package)
    content = build_report_content(search.dataset, result, candidate, test_predictions, baseline, decision)
    charts = build_charts(content)
    write_atomically(paths.report, build_report(content, charts).encode())
    parent.log_file(paths.report)
    search.bus.emit(ReportWritten(paths.report))
    parent.log_text(summary.leaderboard_csv(result.trials), "leaderboard.csv")
    for name, image in build_chart_images(charts).items():
        file = paths.artifacts / "charts" / name
        write_atomically(file, image)
        parent.log_file(file, "charts")


def _show_next_commands(search: Search, model: str, trials_url: str) -> None:
    uri = tracking_uri()
    link = absolute_url(uri, trials_url)
    image = search.dataset.root / search.dataset.split("test")[0].path
    search.bus.show(*summary.next_commands(uri, link, model, image))
