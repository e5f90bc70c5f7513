"""The end of a search: from its trials to the winner, measured, packaged, decided about and reported."""

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
from tuning.search.reevaluation import Improvement, RerunTrial, improvement_over_default, select_winner, top_trials
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

COST_MEASUREMENT_BUDGET_S = (
    8.0  # for measuring what networks cost to serve, where there is no limit that has to be kept
)
DECISION_DEFERRED = "Not decided yet: the server was away."


class SearchFinalizer:
    """What comes after the trials of one search; at least one of them has a score."""

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
        """Take the search and its trials; ``name`` is the registered model's, ``run_ids`` are the trials' in MLflow."""
        self._recipe = recipe
        self._dataset = context.dataset
        self._context = context
        self._parent = parent
        self._paths = paths
        self._name = name
        self._trials = trials
        self._num_val_images = len(context.dataset.split("val"))
        self._run_ids = run_ids
        self._links = MlflowLinks(parent.experiment_id, parent.run_id, run_ids)
        self._limits = Limits(latency_ms=recipe.max_latency_ms, mb=recipe.max_mb)

    def run(self, interrupts: SignalHandler) -> int:
        """Choose the winner, package, measure, decide and report; return the exit status.

        Raises:
            SearchError: no trial's network keeps the limits.
        """
        start_stage("measuring what networks cost to serve")
        costs = measure_serving_costs(self._trials, len(self._dataset.classes), self._limits, COST_MEASUREMENT_BUDGET_S)
        best = self._winner(costs)
        self._report_best(best)
        candidate = self._candidate(best)
        baseline = self._baseline()
        print_table(summary.leaderboard(self._trials))
        emit(CandidateEvaluated(candidate, baseline))
        tables = self._compare(costs)
        if interrupts.stop_requested:
            return self._finish_interrupted(candidate)
        start_stage("registering it and deciding whether it is the champion")
        self._parent.writer.flush()  # whoever decides about another candidate must find this one whole
        outcome = promote_or_defer(self._parent.client, self._paths, candidate, self._dataset)
        decision, model = DECISION_DEFERRED, ""
        if outcome is not None:
            version, promotion = outcome
            self._parent.tag(
                {PROMOTION_TAG: promotion.alias, PROMOTION_REASON_TAG: promotion.reason, VERSION_TAG: str(version)}
            )
            decision = format_decision(candidate, version, promotion)
            emit(PromotionDecided(candidate, version, promotion))
            model = f"models:/{self._name}@{promotion.alias}"
        pages = self._links if self._parent.experiment_id else None  # without a server there are no runs yet
        self._parent.set_note(summary.run_note(self._trials, best, candidate, decision, pages) + tables)
        self._report(best, candidate, decision, model, costs, baseline)
        if model:
            print_table(*self._next_commands(model))
        return FINISHED

    def _winner(self, costs: Costs) -> TrialRecord:
        allowed = within_limits(self._trials, costs, self._limits, len(self._dataset.classes))
        best = select_winner(allowed, self._trials, self._recipe.rerun_top_k, self._num_val_images)
        if best is None:
            raise ValueError("a search ends with a winner only where a trial has a score")
        return best

    def _report_best(self, best: TrialRecord) -> None:
        metrics = {f"best_{name}": value for name, value in best.metrics.items() if name.startswith("val_")}
        counts = {"best_trial": best.number, "best_epoch": best.best_epoch, "trials": len(self._trials)}
        finals, gain = self._reruns(), self._improvement(best)
        self._parent.log_metrics({**metrics, **counts, **summary.rerun_metrics(best, finals, gain)})
        print_table(*summary.rerun_lines(best, finals, gain))

    def _reruns(self) -> list[RerunTrial]:
        return top_trials(self._trials, self._recipe.rerun_top_k, self._num_val_images)

    def _improvement(self, best: TrialRecord) -> Improvement | None:
        return improvement_over_default(best, self._trials, self._recipe.rerun_top_k, self._num_val_images)

    def _candidate(self, best: TrialRecord) -> Candidate:
        """Return the winner, measured and packaged, once: the test pictures are not looked at again for it."""
        known = self._paths.packaged_winner
        if known.exists():
            before = PackagedWinner.from_json(known.read_text())
            if before.trial_uid == best.trial_uid:
                return before.candidate
        start_stage(f"packaging trial {best.number}, the best, and measuring it on the test pictures")
        candidate = build_candidate(
            name=self._name,
            parent=self._parent,
            dataset=self._dataset,
            data=self._recipe.data,
            config=best.config,
            weights=self._paths.weights(best.trial_uid, best.best_epoch),
            folder=self._paths.package,
            gate=self._recipe.gate,
        )
        write_atomically(known, PackagedWinner(trial_uid=best.trial_uid, candidate=candidate).to_json().encode())
        return candidate

    def _finish_interrupted(self, candidate: Candidate) -> int:
        if not candidate.model_uri:
            defer(self._paths, candidate, needs_decision=False)
        run_id = self._parent.run_id
        warning(
            f"stopped: the best so far is packaged; python -m tuning resume --run {run_id} goes on, and "
            f"python -m tuning promote --run {run_id} registers it as it is"
        )
        return INTERRUPTED

    def _compare(self, costs: Costs) -> str:
        """Show and keep what the networks reached and cost; return it in Markdown."""
        classes = len(self._dataset.classes)
        compared = networks.compare_networks(self._trials, classes)
        if compared:
            print_table(networks.table(compared))
            self._parent.log_text(networks.as_json(compared), "networks.json")
        every = best_per_serving_spec(self._trials, costs, classes)
        if every:
            print_table(pareto.table(every))
            self._parent.log_text(pareto.as_json(every), "costs.json")
        return networks.markdown(compared) + pareto.markdown(every)

    def _baseline(self) -> float:
        """Return what raw pixels alone reach on the test pictures."""
        cache = pixel_cache(self._dataset, next(iter(self._context.preprocessings.values())))
        accuracy = pixel_baseline_accuracy(cache.split("train"), cache.split("test"))
        self._parent.log_metrics({PIXEL_BASELINE_METRIC: accuracy})
        return accuracy

    def _report(
        self, best: TrialRecord, candidate: Candidate, decision: str, model: str, costs: Costs, baseline: float
    ) -> None:
        """Keep the report in the search's folder and, with its pictures, on the parent run."""
        from tuning.reporting.builder import build_report_content
        from tuning.reporting.content import ReportTrial
        from tuning.reporting.page import build_chart_images, build_report

        start_stage("writing the report")
        content: ReportContent = build_report_content(
            self._dataset,
            audit(self._dataset),
            [ReportTrial(one, one.scores) for one in self._trials],
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
        write_atomically(self._paths.report, build_report(content).encode())
        self._parent.log_file(self._paths.report)
        emit(ReportWritten(self._paths.report))
        self._parent.log_text(summary.leaderboard_csv(self._trials), "leaderboard.csv")
        for name, picture in build_chart_images(content).items():
            file = self._paths.artifacts / "charts" / name
            write_atomically(file, picture)
            self._parent.log_file(file, "charts")

    def _next_commands(self, model: str) -> list[str]:
        uri = tracking_uri()
        link = absolute_url(uri, self._links.comparison(self._trials))
        self._parent.tag({COMPARISON_TAG: link})
        picture = self._dataset.root / self._dataset.split("test")[0].path
        return summary.next_commands(uri, link, model, picture)
