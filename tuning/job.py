"""The main job: from a recipe to a promoted version, and what is shown on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data.audit import audit
from data.errors import SearchError
from data.images import pixel_cache
from data.likeness import likeness
from data.store import write_atomically
from models.baseline import raw_pixel_accuracy
from models.config import TrialConfig
from tuning.candidate import Winner, absolute, make_candidate
from tuning.checks import Ground, check_ground
from tuning.domains import Setting
from tuning.interrupts import Interrupts, caught
from tuning.late import decided, leave
from tuning.promote import Candidate
from tuning.recipe import Recipe
from tuning.resuming import FOLDER, check_same_pictures, continued, kept_search
from tuning.search.budget import Clock, spent_s
from tuning.search.cluster import ray_started
from tuning.search.finals import finalists, gain_over_default, ranked, winner
from tuning.search.ledger import Ledger, open_ledger
from tuning.search.paths import SearchPaths
from tuning.search.results import TrialResult
from tuning.search.runner import Runner, concurrency
from tuning.search.tidying import Tidying
from tuning.space import SearchSpace
from tuning.tracking.parent import ParentRun, connect, lifecycle, take_run_id, tracking_uri
from tuning.tracking.past import LIKENESS, past_line, take_past
from tuning.tracking.trials import TrialRuns
from tuning.views import networks, summary
from tuning.views.lines import Lines, say
from tuning.views.progress import ProgressView
from tuning.views.summary import show

if TYPE_CHECKING:
    from tuning.commands.resume import ResumeOptions

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
        parent = ParentRun.open(ground.client, given_run, recipe.name or ground.dataset.name)
        with lifecycle(parent, interrupts):
            parent.log_audit(found)
            recipe = ground.settled(recipe).model_copy(update={"data": absolute(recipe.data)})
            return _Search(recipe, ground, parent, interrupts).run()


def resume(options: ResumeOptions) -> int:
    """Go on with a search in its own parent run, with what is left of its budget or a new one; as ``search``.

    Raises:
        UserError: its state or its pictures are not there, before any trial starts.
    """
    given_run = take_run_id()
    with caught() as interrupts:
        kept = kept_search(connect(), options.run)
        ground = check_ground(kept.recipe)
        check_same_pictures(kept.dataset, ground.dataset)
        if given_run and ground.client:  # mlflow run has opened a run for this command, which ends with it
            ground.client.set_tag(given_run, "resumes", kept.target.run_id)
        parent = ParentRun.of(kept.target, ground.client)
        parent.reopen()
        with lifecycle(parent, interrupts):
            return _Search(kept.recipe, ground, parent, interrupts, options).run()


class _Search:
    """One search, from its parent run on; with ``options``, one that goes on."""

    def __init__(
        self,
        recipe: Recipe,
        ground: Ground,
        parent: ParentRun,
        interrupts: Interrupts,
        options: ResumeOptions | None = None,
    ) -> None:
        self._recipe = recipe
        self._name = recipe.name or ground.dataset.name
        self._ground = ground
        self._parent = parent
        self._interrupts = interrupts
        self._options = options
        self._paths = SearchPaths.of(parent.run_id)

    def run(self) -> int:
        """Run the trials, then package, measure and register the best; return the exit status."""
        ledger, run_ids = self._run_trials()
        results = ledger.results()
        best = winner(ranked(results), results, self._recipe.finalists)
        if best is None:
            return self._nothing(ledger)
        self._report_best(best, results)
        candidate = self._candidate(best)
        show(summary.leaderboard(results), *summary.result_lines(candidate, self._baseline()))
        compared = self._compare(ledger)
        if self._interrupts.requested:
            if not candidate.model_uri:
                leave(self._paths, candidate, decides=False)
            say(
                f"stopped: the best so far is packaged; python -m tuning promote --run {self._parent.run_id} registers "
                f"it, and python -m tuning resume --run {self._parent.run_id} goes on"
            )
            return INTERRUPTED
        outcome = decided(self._parent.client, self._paths, candidate, self._ground.dataset)
        if outcome is None:
            note = summary.note(results, candidate, "Not decided yet: the server was away.")
            self._parent.describe_result(note + networks.markdown(compared))
            return FINISHED
        version, promotion = outcome
        self._parent.tag(promotion=promotion.alias, promotion_reason=promotion.reason, version=str(version))
        decision = summary.decision_line(candidate, version, promotion)
        note = summary.note(results, candidate, decision)
        self._parent.describe_result(note + networks.markdown(compared))
        show(decision, *self._next(ledger, run_ids, promotion.alias))
        return FINISHED

    def _run_trials(self) -> tuple[Ledger, Mapping[str, str]]:
        """Run all trials; return the ledger, and each trial's MLflow run as far as it was made."""
        ledger = self._open()
        recipe = self._budgeted(ledger)
        self._keep(recipe, is_new=not ledger.results())
        runs, clock = TrialRuns(self._parent.writer), self._clock(recipe, ledger)
        runs.catch_up(ledger.results())
        listeners = (runs, Tidying(self._paths, ledger), Lines())
        try:
            with ProgressView() as progress:
                for preprocessing in dict.fromkeys(self._ground.preprocessings.values()):
                    pixel_cache(self._ground.dataset, preprocessing, progress)
            say(summary.plan_line(recipe, ledger, concurrency(recipe)))
            with ray_started():
                Runner(recipe, self._paths, ledger, listeners, self._interrupts, clock, say).run()
        finally:
            with self._interrupts.shielded():
                for result in ledger.running():
                    if clock.over and not self._interrupts.requested:
                        runs.trial_ended(ledger.finish(result.trial_uid, "pruned", "the minutes were spent"), None)
                    else:
                        runs.trial_ended(result.model_copy(update={"reason": "the search ended before it"}), None)
                self._parent.writer.flush()
        return ledger, self._parent.writer.run_ids()

    def _open(self) -> Ledger:
        """Return the search's ledger."""
        recipe, dataset = self._recipe, self._ground.dataset
        space = SearchSpace(recipe, dataset.imbalance, self._ground.uncut)

        def configure(settings: Mapping[str, Setting]) -> TrialConfig:
            return space.trial_config(settings, self._ground.preprocessings)

        is_new = not self._paths.journal.exists()
        ledger = open_ledger(self._paths, space, configure, recipe.seed, len(dataset.split("val")), recipe.sampler)
        if is_new and recipe.warm_start:
            found = take_past(self._parent, likeness(dataset))
            ledger.start_with(space.near(past.config) for past in found)
            say(past_line(found))
        return ledger

    def _budgeted(self, ledger: Ledger) -> Recipe:
        """Return the recipe with the budget that is to come."""
        if self._options is None:
            return self._recipe
        if self._options.extends:
            self._paths.spent.unlink(missing_ok=True)  # a new budget has its own time
        return continued(self._recipe, self._options, ledger.trials)

    def _keep(self, recipe: Recipe, is_new: bool) -> None:
        """Write down what is searched, on disk and, the first time, on the parent run."""
        dataset = self._ground.dataset
        self._paths.write(recipe, dataset)
        if not is_new:
            return
        tags = {
            FOLDER: str(self._paths.root),
            "data_fingerprint": dataset.fingerprint,
            "recipe": recipe.to_json(),
            "registered_model": self._name,
            LIKENESS: likeness(dataset).to_json(),
        }
        self._parent.describe(recipe.model_dump(mode="json"), tags, dataset)

    def _clock(self, recipe: Recipe, ledger: Ledger) -> Clock:
        return Clock(
            recipe.budget_s,
            self._paths.spent,
            finals=bool(recipe.finalists and recipe.final_seeds),
            has_begun=any(result.score is not None for result in ledger.results()),
            before_s=spent_s(self._paths.spent),
        )

    def _nothing(self, ledger: Ledger) -> int:
        if self._interrupts.requested:
            say("stopped before a trial finished an epoch")
            return INTERRUPTED
        reasons = Counter(result.reason for result in ledger.results() if result.status == "failed")
        listed = "; ".join(f"{count} trials: {reason}" for reason, count in reasons.most_common(3))
        raise SearchError(
            f"no trial finished an epoch, so there is no model ({listed}); see the trials' runs in MLflow"
        )

    def _report_best(self, best: TrialResult, results: Sequence[TrialResult]) -> None:
        metrics = {f"best_{name}": value for name, value in best.metrics.items() if name.startswith("val_")}
        self._parent.log_metrics(
            {**metrics, "best_trial": best.number, "best_epoch": best.best_epoch, "trials": len(results)}
        )
        finals = finalists(results, self._recipe.finalists)
        gain = gain_over_default(best, results, self._recipe.finalists, len(self._ground.dataset.split("val")))
        self._parent.log_metrics(summary.finals_metrics(best, finals, gain))
        show(*summary.finals_lines(best, finals, gain))

    def _candidate(self, best: TrialResult) -> Candidate:
        """Return the winner, measured and packaged, once: the test pictures are not looked at again for it."""
        known = self._paths.winner
        if known.exists():
            before = Winner.from_json(known.read_text())
            if before.trial_uid == best.trial_uid:
                return before.candidate
        say(f"trial {best.number} is the best; it is packaged and measured on the test pictures")
        candidate = make_candidate(
            name=self._name,
            parent=self._parent,
            dataset=self._ground.dataset,
            data=self._recipe.data,
            config=best.config,
            weights=self._paths.weights(best.trial_uid, best.best_epoch),
            folder=self._paths.package,
            gate=self._recipe.gate,
        )
        winner_ = Winner(trial_uid=best.trial_uid, candidate=candidate)
        write_atomically(known, winner_.to_json().encode())
        return candidate

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
