"""The ledger: Optuna's persistent study, and the one place where trials are asked for and told.

It is written before a trial starts and with every epoch, so that it is what survives a crash: all that is known of a
search can be read from it again. Ray Tune's own snapshots come too late to be trusted and are not used.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from models.trial_config import TrialConfig
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import SELECTS, Origin, Setting, Status, TrialReport, TrialResult
from tuning.search.selection import Lead, leads
from tuning.search.space import SearchSpace

if TYPE_CHECKING:
    import optuna

    from tuning.recipe.schema import SamplerName

STUDY_NAME = "search"
HOPELESS_TRIALS = 6  # that have failed, and none has not: a search stops, and says why

# Attributes of the study and of its trials, as the journal has them.
STARTS, SWEEP_ENDED, FINE_TUNED = "starts", "sweep_ended", "fine_tuned"
RESULT, EPOCH = "result", "epoch:"

ORDER: tuple[Origin, ...] = ("default", "past", "probe", "fine-tune")  # in which starts are tried, after the opening


class Start(NamedTuple):
    """Settings to be tried before the sampler chooses, under the sampler's names, and who chose them."""

    origin: Origin
    settings: Mapping[str, Setting]


class Ledger:
    """The trials of one search; ``val_pictures`` is how many pictures their scores are of.

    ``ask`` makes a trial and writes it down before anyone starts it; ``report`` adds an epoch; ``finish`` tells
    the sampler how it ended: complete with the best epoch's score, pruned with its curve, failed with its reason.
    A ledger that is opened on a study that another process wrote goes on where that ended.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        configure: Callable[[Mapping[str, Setting]], TrialConfig],
        val_pictures: int,
    ) -> None:
        self._study = study
        self._space = space
        self._configure = configure
        self.val_pictures = val_pictures
        self._asked: dict[str, optuna.Trial] = {}
        self._results: dict[str, TrialResult] = {}
        self._put_back: deque[str] = deque()
        # Counted as they come: Ray asks between any two epochs what comes next.
        self._trials = 0
        self._probes: list[str] = []
        self._ended: Counter[Status] = Counter()
        attributes = study.user_attrs
        self._starts = [Start(*start) for start in attributes.get(STARTS, ())]
        self._fine_tuned = bool(attributes.get(FINE_TUNED))
        self._read()
        done = {result.start for result in self._results.values()}
        sweeps = not attributes.get(SWEEP_ENDED)
        left = (at for at, start in enumerate(self._starts) if at not in done and (sweeps or start.origin != "probe"))
        self._next = self._in_order(left)
        if not self._starts:
            opening = space.opening()
            self._add_starts("probe", opening)
            self._add_starts("default", space.defaults())
            self._add_starts("probe", (probe for probe in space.sweep() if probe not in opening))

    # --- what is known ---

    @property
    def probes_left(self) -> int:
        """How many probes of the sweep have not been asked for."""
        return sum(self._starts[at].origin == "probe" for at in self._next)

    @property
    def trials(self) -> int:
        """How many trials have been asked for, the sweep's probes and the finals aside."""
        return self._trials

    @property
    def is_hopeless(self) -> bool:
        """Whether all trials have failed so far, and they are enough to say that others will."""
        return self._ended["failed"] == self._ended.total() >= HOPELESS_TRIALS

    def result(self, trial_uid: str) -> TrialResult:
        """Return what is known of one trial so far."""
        return self._results[trial_uid]

    def running(self) -> tuple[TrialResult, ...]:
        """Return the trials that were asked for and have not ended, those that were put back among them."""
        return tuple(self._results[trial_uid] for trial_uid in self._asked)

    @property
    def at_work(self) -> int:
        """How many trials were asked for, have not ended and were not put back."""
        return len(self._asked) - len(self._put_back)

    @property
    def put_back_left(self) -> int:
        """How many trials that were put back wait to be asked for again."""
        return len(self._put_back)

    def results(self) -> tuple[TrialResult, ...]:
        """Return all trials by their number."""
        return tuple(self._results.values())

    # --- what comes next ---

    def start_with(self, starts: Iterable[Mapping[str, Setting]]) -> None:
        """Try these settings, in the sampler's own names, after the defaults and before the sweep.

        What is tried anyway is left out.
        """
        new: list[Mapping[str, Setting]] = []
        for settings in starts:
            if settings not in [*new, *(start.settings for start in self._starts)]:
                new.append(settings)
        self._add_starts("past", new)

    def _add_starts(self, origin: Origin, starts: Iterable[Mapping[str, Setting]]) -> None:
        before = len(self._starts)
        self._starts += [Start(origin, settings) for settings in starts]
        self._next = self._in_order([*self._next, *range(before, len(self._starts))])
        self._study.set_user_attr(STARTS, [[start.origin, dict(start.settings)] for start in self._starts])

    def _in_order(self, places: Iterable[int]) -> deque[int]:
        """Return places among the starts as they are tried: the opening, which stands before the defaults, first."""
        origins = [start.origin for start in self._starts]
        opening = origins.index("default") if "default" in origins else len(origins)
        return deque(sorted(places, key=lambda at: (at >= opening, ORDER.index(origins[at]))))

    def end_sweep(self) -> None:
        """Leave out the probes that have not been asked for."""
        if self.probes_left:
            self._next = deque(at for at in self._next if self._starts[at].origin != "probe")
            self._study.set_user_attr(SWEEP_ENDED, True)

    def put_back(self) -> None:
        """Let all trials that run be asked for again: whoever ran them is gone."""
        self._put_back = deque(self._asked)

    def ask(self) -> TrialResult:
        """Return the next trial, already written down.

        First those that were put back, then the opening probes, the default, the other probes, the best fine-tuned,
        then what the sampler says.
        """
        if self._put_back:
            return self._results[self._put_back.popleft()]
        self._decide_fine_tunes()
        at = self._next.popleft() if self._next else None
        start = Start("sampler", {}) if at is None else self._starts[at]
        asked = self._ask(start.settings)
        settings = self._space.suggest(asked, probe=start.origin == "probe")
        return self._begin(asked, start.origin, settings, self._configure(settings), start=at)

    def ask_final(self, result: TrialResult, seed: int) -> TrialResult:
        """Return a new trial that trains an ended one again with another seed."""
        asked = self._ask(self._study.get_trials(deepcopy=False)[result.number].params)
        was_probe = result.origin == "probe"
        self._space.suggest(asked, probe=was_probe)
        config = result.config.model_copy(update={"seed": seed})
        return self._begin(asked, "final", result.settings, config, of=result.trial_uid)

    def _ask(self, settings: Mapping[str, Setting]) -> optuna.Trial:
        if settings:
            self._study.enqueue_trial(dict(settings))
        return self._study.ask()

    def _begin(
        self,
        asked: optuna.Trial,
        origin: Origin,
        settings: dict[str, Setting],
        config: TrialConfig,
        start: int | None = None,
        of: str = "",
    ) -> TrialResult:
        result = TrialResult(
            trial_uid=uuid.uuid4().hex,
            number=asked.number,
            origin=origin,
            start=start,
            of=of,
            status="running",
            reason="",
            config=config,
            settings=settings,
            facts={},
        )
        self._take(result, asked)
        self._write(result)
        return result

    def _take(self, result: TrialResult, asked: optuna.Trial | None) -> None:
        self._results[result.trial_uid] = result
        self._trials += result.origin not in {"probe", "final"}
        if result.origin == "probe":
            self._probes.append(result.trial_uid)
        if asked is not None:
            self._asked[result.trial_uid] = asked
        if result.status != "running":
            self._ended[result.status] += 1

    def _decide_fine_tunes(self) -> None:
        """Once the starts are through, add those that fine-tune the best probe."""
        best = None if self._next or self._fine_tuned else self._probe_to_tune()
        if best is not None:
            self._fine_tuned = True
            self._add_starts("fine-tune", self._space.fine_tunes(best.settings, self.lead() == "fine-tuning"))
            self._study.set_user_attr(FINE_TUNED, True)

    def lead(self) -> Lead:
        """Return who is ahead of whom so far, the best fine-tune or the best probe."""
        tuned, probes = list[float](), list[float]()
        for result in self._results.values():
            if result.counts and result.score is not None:
                (probes if result.origin == "probe" else tuned).append(result.score)
        if not probes:
            return "neither"
        if not tuned or max(probes) >= max(tuned):
            return "probes"
        return "fine-tuning" if leads(max(tuned), max(probes), self.val_pictures) else "neither"

    def _probe_to_tune(self) -> TrialResult | None:
        """Return, of the probes that are within one standard error of the best, the best at the smallest image size.

        Breiman et al., "Classification and Regression Trees" (1984), choose among trees by the same rule: scores that
        the validation pictures can't tell apart are no reason to pay for more.
        """
        probes = [result for result in map(self.result, self._probes) if result.counts]
        if not probes:
            return None
        top = max(result.score or 0.0 for result in probes)
        least = top - math.sqrt(top * (1 - top) / self.val_pictures)
        good = [result for result in probes if (result.score or 0.0) >= least]
        smallest = min(result.config.preprocessing.image_size for result in good)
        sized = [result for result in good if result.config.preprocessing.image_size == smallest]
        return max(sized, key=lambda result: result.rank)

    # --- what is told ---

    def report(self, trial_uid: str, report: TrialReport) -> TrialResult:
        """Add an epoch of a running trial; the same epoch again changes nothing."""
        result = self._results[trial_uid]
        if report.epoch <= result.epochs:
            return result
        asked = self._asked[trial_uid]
        asked.set_user_attr(f"{EPOCH}{report.epoch}", {"metrics": report.metrics, "facts": report.facts})
        asked.report(report.metrics[SELECTS], step=report.epoch)
        changes = {"history": (*result.history, report.metrics), "facts": report.facts}
        self._results[trial_uid] = result.model_copy(update=changes)
        return self._results[trial_uid]

    def finish(self, trial_uid: str, status: Status, reason: str, blameless: bool = False) -> TrialResult:
        """End a running trial, tell the sampler, and return what is known of it.

        The sampler takes the settings of a failed trial for bad ones, unless it was ``blameless``.
        """
        from tuning.search.samplers import BLAMELESS

        result = self._results[trial_uid].model_copy(update={"status": status, "reason": reason})
        if blameless:
            self._asked[trial_uid].set_user_attr(BLAMELESS, True)
        self._write(result)
        self._ended[status] += 1
        self._tell(result, self._asked.pop(trial_uid))
        return result

    def _tell(self, result: TrialResult, asked: optuna.Trial) -> None:
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[result.status]
        self._study.tell(asked, result.score if result.status == "complete" else None, state)

    def _write(self, result: TrialResult) -> None:
        """Write a trial down; its epochs stand beside it, one by one."""
        self._results[result.trial_uid] = result
        fields = json.loads(result.model_dump_json(exclude={"history"}))
        self._asked[result.trial_uid].set_user_attr(RESULT, fields)

    # --- what another process wrote ---

    def _read(self) -> None:
        """Take in the trials of the study; those that had not ended are put back."""
        import optuna
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.WAITING:  # asked for by nobody; its settings are still among the starts
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
            elif RESULT in trial.user_attrs:
                open_ = trial.state is TrialState.RUNNING
                result = written(trial.user_attrs)
                self._take(result, optuna.Trial(self._study, trial._trial_id) if open_ else None)
                if open_ and result.status != "running":  # killed between the two lines that end a trial
                    self._tell(result, self._asked.pop(result.trial_uid))
            elif trial.state is TrialState.RUNNING:  # killed before anyone could start it
                self._study.tell(trial.number, state=TrialState.FAIL)
        self.put_back()


def written(attributes: Mapping[str, Any]) -> TrialResult:
    """Return the trial that the journal's attributes describe."""
    history: list[dict[str, float]] = []
    facts: dict[str, Setting] = {}
    while (epoch := attributes.get(f"{EPOCH}{len(history) + 1}")) is not None:
        history.append(epoch["metrics"])
        facts = epoch["facts"]
    result = TrialResult.from_json(json.dumps(attributes[RESULT]))
    return result.model_copy(update={"history": tuple(history), "facts": facts})


def open_ledger(
    paths: SearchPaths,
    space: SearchSpace,
    configure: Callable[[Mapping[str, Setting]], TrialConfig],
    seed: int,
    val_pictures: int,
    sampler: SamplerName,
) -> Ledger:
    """Return the ledger of a search, kept in ``paths.journal``: a new one, or the one that is there.

    ``val_pictures`` is how many pictures the scores are of, ``sampler`` who proposes once the starts are tried.
    """
    import optuna
    from optuna.storages import JournalStorage

    from tuning.search.journal_backend import Journal
    from tuning.search.samplers import build_sampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=JournalStorage(Journal(paths.journal)),
        sampler=build_sampler(sampler, seed),
        direction="maximize",
        load_if_exists=True,
    )
    return Ledger(study, space, configure, val_pictures)
