"""The main job: from a recipe to a promoted version, and what is shown on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from data.audit import audit
from data.errors import SearchError
from data.images import pixel_cache
from models.baseline import raw_pixel_accuracy
from models.config import TrialConfig
from tuning.candidate import absolute, make_candidate
from tuning.checks import Ground, check_ground
from tuning.domains import Setting
from tuning.interrupts import Interrupts, caught
from tuning.late import decided, leave
from tuning.promote import Candidate
from tuning.recipe import Recipe
from tuning.search.budget import Clock
from tuning.search.cluster import ray_started
from tuning.search.ledger import Ledger, TrialResult, open_ledger
from tuning.search.paths import SearchPaths
from tuning.search.runner import concurrency, run_trials
from tuning.space import SearchSpace
from tuning.tracking.parent import ParentRun, lifecycle, take_run_id, tracking_uri
from tuning.tracking.trials import TrialRuns
from tuning.views import networks, summary
from tuning.views.lines import Lines, say
from tuning.views.progress import ProgressView
from tuning.views.summary import show

FINISHED, INTERRUPTED = 0, 130  # exit statuses; 130 is 128 + SIGINT, as shells count


def search(recipe: Recipe) -> int:
    """Search, package the best trial's model, register it and decide about it; return the exit status.

    Raises:
        UserError: before any trial starts, with all that is wrong.
    """
    given_run = take_run_id()
    with caught() as interrupts:
        ground = check_ground(recipe, given_run)
        found = audit(ground.dataset)
        show(*found.lines())
        name = recipe.name or ground.dataset.name
        parent = ParentRun.open(ground.client, given_run, name)
        with lifecycle(parent, interrupts):
            parent.log_audit(found)
            return _Search(ground.settled(recipe), name, ground, parent, interrupts).run()


class _Search:
    """One search, from its parent run on."""

    def __init__(self, recipe: Recipe, name: str, ground: Ground, parent: ParentRun, interrupts: Interrupts) -> None:
        self._recipe = recipe
        self._name = name
        self._ground = ground
        self._parent = parent
        self._interrupts = interrupts
        self._paths = SearchPaths.of(parent.run_id)

    def run(self) -> int:
        """Run the trials, then package, measure and register the best; return the exit status."""
        ledger, run_ids = self._run_trials()
        best = ledger.best()
        if best is None:
            return self._nothing(ledger)
        self._report_best(best, len(ledger.results()))
        candidate = self._candidate(best)
        show(summary.leaderboard(ledger.results()), *summary.result_lines(candidate, self._baseline()))
        compared = self._compare(ledger)
        if self._interrupts.requested:
            if not candidate.model_uri:
                leave(self._paths, candidate, decides=False)
            say(f"stopped: the best so far is packaged; python -m tuning promote --run {self._parent.run_id} goes on")
            return INTERRUPTED
        outcome = decided(self._parent.client, self._paths, candidate, self._ground.dataset)
        if outcome is None:
            note = summary.note(ledger.results(), candidate, "Not decided yet: the server was away.")
            self._parent.describe_result(note + networks.markdown(compared))
            return FINISHED
        version, promotion = outcome
        self._parent.tag(promotion=promotion.alias, promotion_reason=promotion.reason, version=str(version))
        decision = summary.decision_line(candidate, version, promotion)
        note = summary.note(ledger.results(), candidate, decision)
        self._parent.describe_result(note + networks.markdown(compared))
        show(decision, *self._next(ledger, run_ids, promotion.alias))
        return FINISHED

    def _run_trials(self) -> tuple[Ledger, Mapping[str, str]]:
        """Run all trials; return the ledger, and each trial's MLflow run as far as it was made."""
        recipe, dataset = self._recipe, self._ground.dataset
        ledger = self._open()
        writer = self._parent.writer
        runs, clock = TrialRuns(writer), Clock(recipe.budget_s)
        try:
            with ProgressView() as progress:
                for preprocessing in dict.fromkeys(self._ground.preprocessings.values()):
                    pixel_cache(dataset, preprocessing, progress)
            say(summary.plan_line(recipe, ledger.probes_left, concurrency(recipe)))
            with ray_started():
                run_trials(recipe, self._paths, ledger, (runs, Lines()), self._interrupts, clock)
        finally:
            with self._interrupts.shielded():
                for result in ledger.running():
                    if clock.over and not self._interrupts.requested:
                        runs.trial_ended(ledger.finish(result.trial_uid, "pruned", "the minutes were spent"), None)
                    else:
                        runs.trial_ended(result.model_copy(update={"reason": "the search ended before it"}), None)
                writer.flush()
        return ledger, writer.run_ids()

    def _open(self) -> Ledger:
        """Write down what is searched, on disk and on the parent run, and return the new ledger."""
        recipe, dataset = self._recipe, self._ground.dataset
        space = SearchSpace(recipe, dataset.imbalance, self._ground.uncut)

        def configure(settings: Mapping[str, Setting]) -> TrialConfig:
            return space.trial_config(settings, self._ground.preprocessings)

        self._paths.write(recipe, dataset)
        tags = {
            "search_folder": str(self._paths.root),
            "data_fingerprint": dataset.fingerprint,
            "recipe": recipe.to_json(),
            "registered_model": self._name,
        }
        self._parent.describe(recipe.model_dump(mode="json"), tags, dataset)
        return open_ledger(self._paths, space, configure, recipe.seed, len(dataset.split("val")), recipe.sampler)

    def _nothing(self, ledger: Ledger) -> int:
        if self._interrupts.requested:
            say("stopped before a trial finished an epoch")
            return INTERRUPTED
        reasons = Counter(result.reason for result in ledger.results() if result.status == "failed")
        listed = "; ".join(f"{count} trials: {reason}" for reason, count in reasons.most_common(3))
        raise SearchError(
            f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow"
        )

    def _report_best(self, best: TrialResult, trials: int) -> None:
        metrics = {f"best_{name}": value for name, value in best.metrics.items() if name.startswith("val_")}
        self._parent.log_metrics(
            {**metrics, "best_trial": best.number, "best_epoch": best.best_epoch, "trials": trials}
        )

    def _candidate(self, best: TrialResult) -> Candidate:
        say(f"trial {best.number} is the best; it is packaged and measured on the test pictures")
        return make_candidate(
            name=self._name,
            parent=self._parent,
            dataset=self._ground.dataset,
            data=absolute(self._recipe.data),
            config=best.config,
            weights=self._paths.weights(best.trial_uid),
            folder=self._paths.package,
        )

    def _compare(self, ledger: Ledger) -> list[networks.Compared]:
        """Show and keep what each network reached and costs, if there is more than one."""
        compared = networks.compare(ledger.results(), len(self._ground.dataset.classes))
        if compared:
            show(networks.table(compared))
            self._parent.log_text(networks.as_json(compared), "networks.json")
        return compared

    def _baseline(self) -> float:
        """Return what raw pixels alone reach on the test pictures."""
        cache = pixel_cache(self._ground.dataset, next(iter(self._ground.preprocessings.values())))
        accuracy = raw_pixel_accuracy(cache.split("train"), cache.split("test"))
        self._parent.log_metrics({"test_raw_pixel_accuracy": accuracy})
        return accuracy

    def _next(self, ledger: Ledger, run_ids: Mapping[str, str], alias: str) -> list[str]:
        # MLflow offers to compare what all runs have: one that was stopped in its first epoch would leave no metric.
        scored = [result.trial_uid for result in ledger.results() if result.score is not None]
        compared = [run_ids[trial_uid] for trial_uid in scored if trial_uid in run_ids]
        uri = tracking_uri()
        link = summary.comparison_link(uri, self._parent.experiment_id, compared)
        self._parent.tag(comparison=link)
        dataset = self._ground.dataset
        picture = dataset.root / dataset.split("test")[0].path
        return summary.next_commands(uri, link, f"models:/{self._name}@{alias}", picture)
