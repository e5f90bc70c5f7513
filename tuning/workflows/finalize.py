"""Finalize a search: select the winner, package, evaluate and promote it, and write the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.audit.report import audit
from data.loading.pixel_cache import pixel_cache
from models.evaluation.pixel_baseline import pixel_baseline_accuracy
from tuning.common.event_bus import emit, print_table, start_stage, warning
from tuning.common.events import CandidateEvaluated, PromotionDecided, ReportWritten
from tuning.common.exit_codes import FINISHED, INTERRUPTED
from tuning.common.formatting import format_decision
from tuning.common.names import COMPARISON_TAG, PIXEL_BASELINE_METRIC, PROMOTION_REASON_TAG, PROMOTION_TAG, VERSION_TAG
from tuning.common.promotion_types import Candidate
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import PackagedWinner, build_candidate, load_test_predictions
from tuning.registry.deferred import defer, promote_or_defer
from tuning.search.reruns import Improvement, RerunTrial, improvement_over_default, select_winner, top_trials
from tuning.search.selection import Costs, Limits, best_per_serving_spec, within_limits
from tuning.search.serving_costs import measure_serving_costs
from tuning.tracking.connection import tracking_uri
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.ui_links import MlflowLinks, absolute_url
from tuning.ui import summary
from tuning.ui.tables import networks, pareto
from tuning.workflows.preflight import SearchContext

if TYPE_CHECKING:
    from tuning.reporting.content import ReportContent

COST_MEASUREMENT_BUDGET_S = 8.0  # for measuring serving costs when the recipe has no serving limits
DECISION_DEFERRED = "Not decided yet: the MLflow server was unavailable."


class SearchFinalizer:
    """The steps after the trials of a search; at least one trial has a score."""

    def __init__(
        self,
        recipe: Recipe,
        context: SearchContext,
        parent: ParentRun,
        paths: SearchPaths,
        name: str,
        trials: Sequence[TrialRecord],
        run_ids: Mapping[str, str],
    ) -> None:
        """Take the search and its trials; ``name`` is the registered model, ``run_ids`` the MLflow runs by trial."""
        self._recipe = recipe
        self._dataset = context.dataset
        self._context = context
        self._parent = parent
        self._paths = paths
        self._name = name
        self._trials = trials
        self._num_val_images = len(context.dataset.split("val"))
        self._links = MlflowLinks(parent.experiment_id, parent.run_id, run_ids)
        self._limits = Limits(latency_ms=recipe.max_latency_ms, mb=recipe.max_mb)

    def run(self, signals: SignalHandler) -> int:
        """Select the winner, package, evaluate and promote it, write the report; return the exit status.

        Raises:
            SearchError: no trial's network keeps the limits.
        """
        start_stage("measuring serving costs")
        costs = measure_serving_costs(self._trials, len(self._dataset.classes), self._limits, COST_MEASUREMENT_BUDGET_S)
        best = self._select_winner(costs)
        self._report_best(best)
        candidate = self._build_candidate(best)
        baseline = self._pixel_baseline()
        print_table(summary.leaderboard(self._trials))
        emit(CandidateEvaluated(candidate, baseline))
        tables = self._compare_networks(costs)
        if signals.stop_requested:
            return self._finish_interrupted(candidate)
        start_stage("registering the model and running the promotion gate")
        self._parent.writer.flush()  # other promotions read this run: it must be complete first
        outcome = promote_or_defer(self._parent.client, self._paths, candidate, self._dataset)
        decision, model = DECISION_DEFERRED, ""
        if outcome is not None:
            version, promotion = outcome
            self._parent.set_tags(
                {PROMOTION_TAG: promotion.alias, PROMOTION_REASON_TAG: promotion.reason, VERSION_TAG: str(version)}
            )
            decision = format_decision(candidate, version, promotion)
            emit(PromotionDecided(candidate, version, promotion))
            model = f"models:/{self._name}@{promotion.alias}"
        links = self._links if self._parent.experiment_id else None  # offline: there are no runs to link to yet
        self._parent.set_note(summary.run_note(self._trials, best, candidate, decision, links) + tables)
        self._write_report(best, candidate, decision, model, costs, baseline)
        if model:
            print_table(*self._next_commands(model))
        return FINISHED

    def _select_winner(self, costs: Costs) -> TrialRecord:
        allowed = within_limits(self._trials, costs, self._limits, len(self._dataset.classes))
        best = select_winner(allowed, self._trials, self._recipe.rerun_top_k, self._num_val_images)
        if best is None:
            raise ValueError("a search without a scored trial has no winner")
        return best

    def _report_best(self, best: TrialRecord) -> None:
        """Log the winner's validation metrics and print the re-runs and the improvement over the default."""
        metrics = {f"best_{name}": value for name, value in best.metrics.items() if name.startswith("val_")}
        counts = {"best_trial": best.number, "best_epoch": best.best_epoch, "trials": len(self._trials)}
        reruns, improvement = self._reruns(), self._improvement(best)
        self._parent.log_metrics({**metrics, **counts, **summary.rerun_metrics(best, reruns, improvement)})
        print_table(*summary.rerun_lines(best, reruns, improvement))

    def _reruns(self) -> list[RerunTrial]:
        return top_trials(self._trials, self._recipe.rerun_top_k, self._num_val_images)

    def _improvement(self, best: TrialRecord) -> Improvement | None:
        return improvement_over_default(best, self._trials, self._recipe.rerun_top_k, self._num_val_images)

    def _build_candidate(self, best: TrialRecord) -> Candidate:
        """Return the winner as a candidate; a resumed search reuses it, so the test split is evaluated once."""
        file = self._paths.packaged_winner
        if file.exists():
            winner = PackagedWinner.from_json(file.read_text())
            if winner.trial_uid == best.trial_uid:
                return winner.candidate
        start_stage(f"packaging trial {best.number}, the best, and evaluating it on the test split")
        weights = self._paths.weights(best.trial_uid, best.best_epoch)
        candidate = build_candidate(
            self._parent, self._dataset, self._recipe, best.config, weights, self._paths.package
        )
        write_atomically(file, PackagedWinner(trial_uid=best.trial_uid, candidate=candidate).to_json().encode())
        return candidate

    def _finish_interrupted(self, candidate: Candidate) -> int:
        if not candidate.model_uri:
            defer(self._paths, candidate, needs_decision=False)
        run_id = self._parent.run_id
        warning(
            f"stopped: the best model so far is packaged; python -m tuning resume --run {run_id} continues the search, "
            f"python -m tuning promote --run {run_id} registers the model"
        )
        return INTERRUPTED

    def _compare_networks(self, costs: Costs) -> str:
        """Print and log the scores and serving costs of the networks; return both tables in Markdown."""
        num_classes = len(self._dataset.classes)
        rows = networks.compare_networks(self._trials, num_classes)
        if rows:
            print_table(networks.table(rows))
            self._parent.log_text(networks.as_json(rows), "networks.json")
        serving_specs = best_per_serving_spec(self._trials, costs, num_classes)
        if serving_specs:
            print_table(pareto.table(serving_specs))
            self._parent.log_text(pareto.as_json(serving_specs), "costs.json")
        return networks.markdown(rows) + pareto.markdown(serving_specs)

    def _pixel_baseline(self) -> float:
        """Log and return the test accuracy of logistic regression on raw pixels."""
        cache = pixel_cache(self._dataset, next(iter(self._context.preprocessings.values())))
        accuracy = pixel_baseline_accuracy(cache.split("train"), cache.split("test"))
        self._parent.log_metrics({PIXEL_BASELINE_METRIC: accuracy})
        return accuracy

    def _write_report(
        self, best: TrialRecord, candidate: Candidate, decision: str, model: str, costs: Costs, baseline: float
    ) -> None:
        """Write the report into the search's folder; log it, its charts and the leaderboard on the parent run."""
        from tuning.reporting.builder import build_report_content
        from tuning.reporting.charts import build_charts
        from tuning.reporting.content import ReportTrial
        from tuning.reporting.page import build_chart_images, build_report

        start_stage("writing the report")
        content: ReportContent = build_report_content(
            self._dataset,
            audit(self._dataset),
            [ReportTrial(trial, trial.scores) for trial in self._trials],
            best,
            self._reruns(),
            self._improvement(best),
            candidate,
            load_test_predictions(self._paths.package),
            decision,
            model,
            costs,
            self._limits,
            baseline,
        )
        charts = build_charts(content)
        write_atomically(self._paths.report, build_report(content, charts).encode())
        self._parent.log_file(self._paths.report)
        emit(ReportWritten(self._paths.report))
        self._parent.log_text(summary.leaderboard_csv(self._trials), "leaderboard.csv")
        for name, image in build_chart_images(charts).items():
            file = self._paths.artifacts / "charts" / name
            write_atomically(file, image)
            self._parent.log_file(file, "charts")

    def _next_commands(self, model: str) -> list[str]:
        uri = tracking_uri()
        link = absolute_url(uri, self._links.comparison_url(self._trials))
        self._parent.set_tags({COMPARISON_TAG: link})
        image = self._dataset.root / self._dataset.split("test")[0].path
        return summary.next_commands(uri, link, model, image)
