"""The end of a search: from its trials to the winner, measured, packaged, decided about and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data.atomic_write import write_atomically
from data.audit.report import audit
from data.loading.pixel_cache import pixel_cache
from models.evaluation.pixel_baseline import raw_pixel_accuracy
from tuning.common.event_bus import enter, show, tell, warn
from tuning.common.events import Decided, Measured, Reported
from tuning.common.exit_codes import FINISHED, INTERRUPTED
from tuning.common.formatting import decision_line
from tuning.common.promotion_types import Candidate
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import Interrupts
from tuning.common.trial_record import TrialResult
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import Winner, kept_answers, make_candidate
from tuning.registry.deferred import decided, leave
from tuning.search.reevaluation import Finalist, Gain, finalists, gain_over_default, winner
from tuning.search.selection import Costs, Limits, fitting, priced
from tuning.search.serving_costs import price
from tuning.tracking.connection import tracking_uri
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.ui_links import Pages, on_server
from tuning.ui import summary
from tuning.ui.tables import networks, pareto
from tuning.workflows.preflight import Ground

if TYPE_CHECKING:
    from tuning.reporting.content import ReportContent

PRICING_S = 8.0  # for measuring what networks cost to serve, where there is no limit that has to be kept
UNDECIDED = "Not decided yet: the server was away."


class Ending:
    """What comes after the trials of one search; at least one of them has a score."""

    def __init__(
        self,
        recipe: Recipe,
        ground: Ground,
        parent: ParentRun,
        paths: SearchPaths,
        name: str,
        results: Sequence[TrialResult],
        run_ids: Mapping[str, str],
    ) -> None:
        """Take the search and its trials; ``name`` is the registered model's, ``run_ids`` are the trials' in MLflow."""
        self._recipe = recipe
        self._dataset = ground.dataset
        self._ground = ground
        self._parent = parent
        self._paths = paths
        self._name = name
        self._results = results
        self._val_pictures = len(ground.dataset.split("val"))
        self._run_ids = run_ids
        self._pages = Pages(parent.experiment_id, parent.run_id, run_ids)
        self._limits = Limits(latency_ms=recipe.max_latency_ms, mb=recipe.max_mb)

    def run(self, interrupts: Interrupts) -> int:
        """Choose the winner, package, measure, decide and report; return the exit status.

        Raises:
            SearchError: no trial's network keeps the limits.
        """
        enter("measuring what networks cost to serve")
        costs = price(self._results, len(self._dataset.classes), self._limits, PRICING_S)
        best = self._winner(costs)
        self._tell_best(best)
        candidate = self._candidate(best)
        baseline = self._baseline()
        show(summary.leaderboard(self._results))
        tell(Measured(candidate, baseline))
        tables = self._compare(costs)
        if interrupts.requested:
            return self._stop(candidate)
        enter("registering it and deciding whether it is the champion")
        self._parent.writer.flush()  # whoever decides about another candidate must find this one whole
        outcome = decided(self._parent.client, self._paths, candidate, self._dataset)
        decision, model = UNDECIDED, ""
        if outcome is not None:
            version, promotion = outcome
            self._parent.tag(promotion=promotion.alias, promotion_reason=promotion.reason, version=str(version))
            decision = decision_line(candidate, version, promotion)
            tell(Decided(candidate, version, promotion))
            model = f"models:/{self._name}@{promotion.alias}"
        pages = self._pages if self._parent.experiment_id else None  # without a server there are no runs yet
        self._parent.describe_result(summary.note(self._results, best, candidate, decision, pages) + tables)
        self._report(best, candidate, decision, model, costs, baseline)
        if model:
            show(*self._next(model))
        return FINISHED

    def _winner(self, costs: Costs) -> TrialResult:
        allowed = fitting(self._results, costs, self._limits, len(self._dataset.classes))
        best = winner(allowed, self._results, self._recipe.finalists, self._val_pictures)
        if best is None:
            raise ValueError("a search ends with a winner only where a trial has a score")
        return best

    def _tell_best(self, best: TrialResult) -> None:
        metrics = {f"best_{name}": value for name, value in best.metrics.items() if name.startswith("val_")}
        counts = {"best_trial": best.number, "best_epoch": best.best_epoch, "trials": len(self._results)}
        finals, gain = self._finals(), self._gain(best)
        self._parent.log_metrics({**metrics, **counts, **summary.finals_metrics(best, finals, gain)})
        show(*summary.finals_lines(best, finals, gain))

    def _finals(self) -> list[Finalist]:
        return finalists(self._results, self._recipe.finalists, self._val_pictures)

    def _gain(self, best: TrialResult) -> Gain | None:
        return gain_over_default(best, self._results, self._recipe.finalists, self._val_pictures)

    def _candidate(self, best: TrialResult) -> Candidate:
        """Return the winner, measured and packaged, once: the test pictures are not looked at again for it."""
        known = self._paths.winner
        if known.exists():
            before = Winner.from_json(known.read_text())
            if before.trial_uid == best.trial_uid:
                return before.candidate
        enter(f"packaging trial {best.number}, the best, and measuring it on the test pictures")
        candidate = make_candidate(
            name=self._name,
            parent=self._parent,
            dataset=self._dataset,
            data=self._recipe.data,
            config=best.config,
            weights=self._paths.weights(best.trial_uid, best.best_epoch),
            folder=self._paths.package,
            gate=self._recipe.gate,
        )
        write_atomically(known, Winner(trial_uid=best.trial_uid, candidate=candidate).to_json().encode())
        return candidate

    def _stop(self, candidate: Candidate) -> int:
        if not candidate.model_uri:
            leave(self._paths, candidate, decides=False)
        run_id = self._parent.run_id
        warn(
            f"stopped: the best so far is packaged; python -m tuning resume --run {run_id} goes on, and "
            f"python -m tuning promote --run {run_id} registers it as it is"
        )
        return INTERRUPTED

    def _compare(self, costs: Costs) -> str:
        """Show and keep what the networks reached and cost; return it in Markdown."""
        classes = len(self._dataset.classes)
        compared = networks.compare(self._results, classes)
        if compared:
            show(networks.table(compared))
            self._parent.log_text(networks.as_json(compared), "networks.json")
        every = priced(self._results, costs, classes)
        if every:
            show(pareto.table(every))
            self._parent.log_text(pareto.as_json(every), "costs.json")
        return networks.markdown(compared) + pareto.markdown(every)

    def _baseline(self) -> float:
        """Return what raw pixels alone reach on the test pictures."""
        cache = pixel_cache(self._dataset, next(iter(self._ground.preprocessings.values())))
        accuracy = raw_pixel_accuracy(cache.split("train"), cache.split("test"))
        self._parent.log_metrics({"test_raw_pixel_accuracy": accuracy})
        return accuracy

    def _report(
        self, best: TrialResult, candidate: Candidate, decision: str, model: str, costs: Costs, baseline: float
    ) -> None:
        """Keep the report in the search's folder and, with its pictures, on the parent run."""
        from tuning.reporting.builder import report_content
        from tuning.reporting.content import ReportTrial
        from tuning.reporting.page import build_pictures, build_report

        enter("writing the report")
        content: ReportContent = report_content(
            self._dataset,
            audit(self._dataset),
            [ReportTrial(one, one.scores) for one in self._results],
            best,
            self._finals(),
            self._gain(best),
            candidate,
            kept_answers(self._paths.package),
            decision,
            model,
            costs,
            self._limits,
            baseline,
        )
        write_atomically(self._paths.report, build_report(content).encode())
        self._parent.log_file(self._paths.report)
        tell(Reported(self._paths.report))
        self._parent.log_text(summary.leaderboard_csv(self._results), "leaderboard.csv")
        for name, picture in build_pictures(content).items():
            file = self._paths.kept / "charts" / name
            write_atomically(file, picture)
            self._parent.log_file(file, "charts")

    def _next(self, model: str) -> list[str]:
        uri = tracking_uri()
        link = on_server(uri, self._pages.comparison(self._results))
        self._parent.tag(comparison=link)
        picture = self._dataset.root / self._dataset.split("test")[0].path
        return summary.next_commands(uri, link, model, picture)
