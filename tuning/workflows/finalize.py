"""Finalize a search: select the winner, package, evaluate and promote it, and write the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from data.atomic_write import write_atomically
from data.errors import SearchError
from data.text import pluralize
from tuning.common.events import CandidateEvaluated, PromotionDecided, ReportWritten
from tuning.common.exit_codes import FINISHED, INTERRUPTED
from tuning.common.formatting import format_decision, network_name
from tuning.common.names import NOTE_TAG, PIXEL_BASELINE_METRIC, SEARCH_MINUTES_METRIC, TEST_METRIC, WINNER_TAG
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.registry.build_candidate import (
    PackagedWinner,
    build_candidate,
    count_test_evaluations,
    load_test_predictions,
)
from tuning.registry.client import ModelRegistry
from tuning.registry.deferred import defer, promote_or_defer, promotion_tags
from tuning.registry.member_predictions import HeldOutPredictions, load_members
from tuning.registry.smoke_test import CleanProcess
from tuning.reporting.content import (
    Decision,
    EvaluatedWinner,
    ReportContent,
    build_report_content,
    with_decision,
)
from tuning.reporting.overlays import Overlays
from tuning.reporting.provenance import Provenance
from tuning.search.evidence import best_out_of_fold_logits
from tuning.search.result_warnings import result_warnings, split_warnings
from tuning.search.search_result import SearchResult
from tuning.tracking.connection import absolute_uri, tracking_uri
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.ui_links import MlflowLinks, absolute_url
from tuning.ui import result_text, summary
from tuning.ui.tables import networks, pareto
from tuning.ui.tables.text_table import TextTable
from tuning.workflows.search import Search
from tuning.workflows.search_session import SessionResult
from tuning.workflows.winner import pixel_baseline, select_winner, trained_members

if TYPE_CHECKING:
    from models.packaging.explanation import Explainer
    from tuning.reporting.page import RenderedChart

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
    bus.emit(session.final_phase)
    bus.stage("measuring serving costs")
    result = select_winner(search, trials, session.ahead.measured_s)
    parent.log_metrics(summary.winner_metrics(result))
    parent.set_tags({WINNER_TAG: summary.winner_text(result)})
    with ThreadPoolExecutor(max_workers=1) as background, _clean_process(parent) as clean_process:
        candidate = _package_winner(search, result)
        # Overlaps with the smoke test, not with the export: both trace networks, and torch.fx is not thread-safe.
        network_rows = background.submit(networks.compare_networks, result.trials, result.num_classes)
        baseline = session.ahead.pixel_baseline
        if baseline is None:
            baseline = pixel_baseline(search)
        parent.log_metrics({PIXEL_BASELINE_METRIC: baseline})
        bus.emit(CandidateEvaluated(candidate, baseline))
        warnings = result_warnings(search.dataset, result, candidate)
        shown_at_start = split_warnings(search.dataset)
        for warning in warnings:
            if warning not in shown_at_start:
                bus.warning(warning)
        links = MlflowLinks(parent.experiment_id, parent.run_id, session.run_ids)
        is_interrupted = search.signals.stop_requested
        shown = _Result(result, candidate, baseline, warnings)
        prepared = None if is_interrupted else background.submit(_prepare_report, search, session, shown, links)
        decision = NOT_DECIDED if is_interrupted else _promote(search, candidate, clean_process)
        costs_table, note_tables = _log_networks(search, result, network_rows.result())
    if prepared is None:
        _show_result(search, shown, costs_table, decision, None)
        return _end_interrupted(search, candidate)
    _save_outcome(search, decision, warnings)
    is_online = bool(parent.experiment_id)  # offline there are no runs to link to yet
    note = summary.run_note(result, candidate, decision.text, warnings, links if is_online else None)
    parent.set_tags({NOTE_TAG: note + note_tables})
    parent.rename(f"{search.run_name} -> {candidate.metrics[TEST_METRIC]:.3f} test")
    _write_report(search, session, prepared.result(), decision, links)
    _show_result(search, shown, costs_table, decision, links)
    session.time_budget.save()
    bus.show(*result_text.time_lines(session.time_budget.elapsed, session.time_budget.budget_s))
    return FINISHED


class _Result(NamedTuple):
    """What the terminal and the report show of a result."""

    result: SearchResult
    candidate: Candidate
    baseline: float
    warnings: list[str]


def _show_result(
    search: Search, shown: _Result, costs_table: TextTable | None, decision: Decision, links: MlflowLinks | None
) -> None:
    """Show the result, the decision, the best trials and, unless the search was interrupted, the next commands.

    ``costs_table`` is None for a single network.
    """
    result, candidate = shown.result, shown.candidate
    decision_lines = result_text.decision_lines(decision.text, decision.model) if links else []
    search.bus.show("")
    search.bus.show_result(
        *result_text.metrics_lines(candidate, shown.baseline),
        *result_text.model_lines(result, candidate),
        *decision_lines,
    )
    reruns, winners = summary.rerun_lines(result), [member.trial for member in result.members]
    tables = [summary.leaderboard(result.trials, winners), *([costs_table] if costs_table else [])]
    for table in tables:
        search.bus.show("", table)
    search.bus.show(*(["", *reruns] if reruns else []), "")
    if links:
        _show_next_commands(search, decision, links)


def _end_without_model(search: Search, trials: Sequence[TrialRecord]) -> int:
    if search.signals.stop_requested:
        search.bus.warning("stopped before a trial finished an epoch, so there is no model")
        return INTERRUPTED
    reasons = Counter(trial.reason for trial in trials if trial.status == "failed")
    listed = "; ".join(f"{pluralize(count, 'trial')}: {reason}" for reason, count in reasons.most_common(3))
    raise SearchError(f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow")


def _package_winner(search: Search, result: SearchResult) -> Candidate:
    """Return the winner as a candidate; a resumed search reuses it, with the present number of test evaluations."""
    file, trial_uids = search.paths.packaged_winner, tuple(member.trial.trial_uid for member in result.members)
    if file.exists():
        packaged = PackagedWinner.from_json(file.read_text())
        if packaged.trial_uids == trial_uids:
            return packaged.candidate.model_copy(update={"test_evaluations": count_test_evaluations(search.dataset)})
    search.bus.stage(f"packaging {summary.describe_winner(result)}, the best")
    members = trained_members(search, result)
    held_out = HeldOutPredictions(*result.held_out) if result.held_out else None
    candidate = build_candidate(search.parent, search.dataset, search.recipe, members, search.paths.package, held_out)
    choice = result.choice.text if result.choice else ""
    packaged = PackagedWinner(trial_uids=trial_uids, choice=choice, candidate=candidate)
    write_atomically(file, packaged.to_json().encode())
    return candidate


def _save_outcome(search: Search, decision: Decision, warnings: Sequence[str]) -> None:
    """Save the decision and the warnings beside the candidate, from which Python loads the result."""
    file = search.paths.packaged_winner
    outcome = {"version": decision.version, "promotion": decision.promotion, "warnings": tuple(warnings)}
    write_atomically(file, PackagedWinner.from_json(file.read_text()).model_copy(update=outcome).to_json().encode())


def _log_networks(
    search: Search, result: SearchResult, rows: Sequence[networks.NetworkSummary]
) -> tuple[TextTable | None, str]:
    """Log the scores and serving costs of the networks; return a table for the terminal and all tables in Markdown."""
    shown, note = None, ""
    if rows:
        search.parent.log_text(networks.as_json(rows), "networks.json")
        shown = networks.table(rows)
        note = shown.to_markdown()
    if result.costed_trials:
        search.parent.log_text(pareto.as_json(result.costed_trials), "costs.json")
    if result.has_pareto_front:
        costs = result.costed_trials, result.num_networks
        shown, note = pareto.table(*costs), note + pareto.table(*costs, network_name).to_markdown()
    return shown, note


def _end_interrupted(search: Search, candidate: Candidate) -> int:
    if not candidate.model_uri:
        defer(search.paths, candidate, needs_decision=False)
    run_id = search.parent.run_id
    version = _registered_version(search, candidate)
    model = f"registered as version {version} of {candidate.name}" if version else "packaged"
    search.bus.warning(f"stopped: the best model so far is {model}")
    commands = result_text.continue_lines(run_id)
    if not version:
        commands += result_text.command_lines("Register", f"freezeline promote {run_id}")
    search.bus.show_result(*commands)
    return INTERRUPTED


def _registered_version(search: Search, candidate: Candidate) -> int | None:
    """Return the version that an earlier session of the search registered for the same model."""
    if search.parent.client is None or not candidate.model_uri:
        return None
    return ModelRegistry(search.parent.client, candidate.name).version_of_model(candidate.model_id)


def _clean_process(parent: ParentRun) -> AbstractContextManager[CleanProcess | None]:
    """Return the process of the smoke test, which imports MLflow while the model is packaged; None without a server."""
    return nullcontext() if parent.client is None else CleanProcess(absolute_uri(tracking_uri()))


def _promote(search: Search, candidate: Candidate, clean_process: CleanProcess | None) -> Decision:
    """Register the candidate and run the promotion gate; without a server both are deferred."""
    search.bus.stage("registering the model")
    parent = search.parent
    parent.writer.flush()  # other promotions read this run: it must be complete first
    outcome = promote_or_defer(parent.client, search.paths, candidate, search.dataset, clean_process)
    if outcome is None:
        return NOT_DECIDED
    version, promotion = outcome
    parent.set_tags(promotion_tags(version, promotion))
    search.bus.emit(PromotionDecided(candidate, version, promotion))
    model = f"models:/{candidate.name}@{promotion.alias}"
    return Decision(format_decision(candidate, version, promotion), model, version, promotion)


class _PreparedReport(NamedTuple):
    """The content of the report before the registry's decision, and its charts."""

    content: ReportContent
    charts: list[RenderedChart]


def _prepare_report(search: Search, session: SessionResult, shown: _Result, links: MlflowLinks) -> _PreparedReport:
    """Draw the charts, while the registered model is checked."""
    from tuning.reporting.charts import build_charts
    from tuning.reporting.page import render_charts

    winner = EvaluatedWinner(shown.candidate, shown.baseline, *load_test_predictions(search.paths.package))
    provenance = _provenance(search, session, shown.result, NOT_DECIDED, links)
    out_of_fold = best_out_of_fold_logits(search.paths, shown.result.trials)
    overlays = Overlays(lambda: _explainer(search, shown.result))
    content = build_report_content(
        search.dataset, shown.result, winner, NOT_DECIDED, shown.warnings, provenance, out_of_fold, overlays
    )
    return _PreparedReport(content, render_charts(build_charts(content)))


def _explainer(search: Search, result: SearchResult) -> Explainer:
    """Return the winner's networks as an explainer of their predictions."""
    from models.packaging.explanation import Explainer

    return Explainer(load_members(trained_members(search, result), result.num_classes))


def _write_report(
    search: Search, session: SessionResult, prepared: _PreparedReport, decision: Decision, links: MlflowLinks
) -> None:
    """Write the report into the search's folder; log it, its charts and the leaderboard on the parent run."""
    from tuning.reporting.page import build_report

    search.bus.stage("writing the report")
    parent, paths = search.parent, search.paths
    parent.log_metrics({SEARCH_MINUTES_METRIC: session.time_budget.elapsed.total_s / 60})
    provenance = _provenance(search, session, prepared.content.result, decision, links)
    content = with_decision(prepared.content, search.dataset, decision, provenance)
    write_atomically(paths.report, build_report(content, prepared.charts).encode())
    parent.log_file(paths.report)
    search.bus.emit(ReportWritten(paths.report))
    for table in (content.trials_table, content.predictions_table):
        parent.log_text(table.csv, table.name)
    for chart in prepared.charts:
        file = paths.artifacts / "charts" / f"{chart.name}.png"
        write_atomically(file, chart.png)
        parent.log_file(file, "charts")


def _provenance(
    search: Search, session: SessionResult, result: SearchResult, decision: Decision, links: MlflowLinks
) -> Provenance:
    """Return where the result comes from, with the run of the search and the command that trains the winner again."""
    uri, run_id = tracking_uri(), links.trial_run_id(result.winner)
    version = f"models:/{search.recipe.name or search.dataset.name}/{decision.version}"
    source = f"--run {run_id}" if run_id else f"--model {version}" if decision.version else ""
    return Provenance.collect(
        session.recipe,
        result.trials,
        session.time_budget.elapsed,
        run_url=absolute_url(uri, links.run_url(search.parent.run_id)) if uri.startswith("http") else "",
        train_command=f"freezeline train {source}" if source else "",
    )


def _show_next_commands(search: Search, decision: Decision, links: MlflowLinks) -> None:
    registered = None
    if decision.version is not None and decision.promotion is not None:
        name = search.recipe.name or search.dataset.name
        registered = result_text.RegisteredVersion(name, decision.version, decision.promotion)
    run_url = absolute_url(tracking_uri(), links.run_url(links.run_id)) if links.experiment_id else ""
    image = search.dataset.root / search.dataset.split("test")[0].path
    search.bus.show_result(*result_text.command_lines("Report", str(search.paths.report)))
    search.bus.show(
        *result_text.next_commands(tracking_uri(), run_url, registered, image),
        *result_text.continue_lines(search.parent.run_id),
    )
