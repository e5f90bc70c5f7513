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
from tuning.common.names import OBJECTIVE_METRIC
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import ParamValue, TrialOrigin, TrialRecord, TrialReport, TrialStatus
from tuning.search.selection import LeadingPhase, is_significantly_better
from tuning.search.space import SearchSpace

if TYPE_CHECKING:
    import optuna

    from tuning.recipe.schema import SamplerName

STUDY_NAME = "search"
MAX_INITIAL_FAILURES = 6  # that have failed, and none has not: a search stops, and says why

# Attributes of the study and of its trials, as the journal has them.
ENQUEUED, PROBES_ENDED, FINE_TUNES_ENQUEUED = "starts", "sweep_ended", "fine_tuned"
RECORD, EPOCH = "result", "epoch:"

PHASE_ORDER: tuple[TrialOrigin, ...] = (
    "default",
    "warm_start",
    "probe",
    "fine-tune",
)  # in which starts are tried, after the opening


class EnqueuedTrial(NamedTuple):
    """Settings to be tried before the sampler chooses, under the sampler's names, and who chose them."""

    origin: TrialOrigin
    params: Mapping[str, ParamValue]


class TrialStore:
    """The trials of one search; ``val_pictures`` is how many pictures their scores are of.

    ``ask`` makes a trial and writes it down before anyone starts it; ``report`` adds an epoch; ``finish`` tells
    the sampler how it ended: complete with the best epoch's score, pruned with its curve, failed with its reason.
    A ledger that is opened on a study that another process wrote goes on where that ended.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        make_config: Callable[[Mapping[str, ParamValue]], TrialConfig],
        num_val_images: int,
    ) -> None:
        self._study = study
        self._space = space
        self._make_config = make_config
        self.num_val_images = num_val_images
        self._open_trials: dict[str, optuna.Trial] = {}
        self._records: dict[str, TrialRecord] = {}
        self._requeued: deque[str] = deque()
        # Counted as they come: Ray asks between any two epochs what comes next.
        self._num_trials = 0
        self._probe_uids: list[str] = []
        self._num_ended: Counter[TrialStatus] = Counter()
        attributes = study.user_attrs
        self._enqueued = [EnqueuedTrial(*start) for start in attributes.get(ENQUEUED, ())]
        self._fine_tunes_enqueued = bool(attributes.get(FINE_TUNES_ENQUEUED))
        self._load()
        done = {result.queue_index for result in self._records.values()}
        sweeps = not attributes.get(PROBES_ENDED)
        left = (at for at, start in enumerate(self._enqueued) if at not in done and (sweeps or start.origin != "probe"))
        self._queue = self._in_phase_order(left)
        if not self._enqueued:
            opening = space.warmup_probes()
            self._enqueue("probe", opening)
            self._enqueue("default", space.default_trials())
            self._enqueue("probe", (probe for probe in space.linear_probes() if probe not in opening))

    # --- what is known ---

    @property
    def num_probes_left(self) -> int:
        """How many probes of the sweep have not been asked for."""
        return sum(self._enqueued[at].origin == "probe" for at in self._queue)

    @property
    def num_trials(self) -> int:
        """How many trials have been asked for, the sweep's probes and the finals aside."""
        return self._num_trials

    @property
    def all_trials_failed(self) -> bool:
        """Whether all trials have failed so far, and they are enough to say that others will."""
        return self._num_ended["failed"] == self._num_ended.total() >= MAX_INITIAL_FAILURES

    def get(self, trial_uid: str) -> TrialRecord:
        """Return what is known of one trial so far."""
        return self._records[trial_uid]

    def running(self) -> tuple[TrialRecord, ...]:
        """Return the trials that were asked for and have not ended, those that were put back among them."""
        return tuple(self._records[trial_uid] for trial_uid in self._open_trials)

    @property
    def num_running(self) -> int:
        """How many trials were asked for, have not ended and were not put back."""
        return len(self._open_trials) - len(self._requeued)

    @property
    def num_requeued(self) -> int:
        """How many trials that were put back wait to be asked for again."""
        return len(self._requeued)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return all trials by their number."""
        return tuple(self._records.values())

    # --- what comes next ---

    def enqueue(self, starts: Iterable[Mapping[str, ParamValue]]) -> None:
        """Try these settings, in the sampler's own names, after the defaults and before the sweep.

        What is tried anyway is left out.
        """
        new: list[Mapping[str, ParamValue]] = []
        for settings in starts:
            if settings not in [*new, *(start.params for start in self._enqueued)]:
                new.append(settings)
        self._enqueue("warm_start", new)

    def _enqueue(self, origin: TrialOrigin, starts: Iterable[Mapping[str, ParamValue]]) -> None:
        before = len(self._enqueued)
        self._enqueued += [EnqueuedTrial(origin, settings) for settings in starts]
        self._queue = self._in_phase_order([*self._queue, *range(before, len(self._enqueued))])
        self._study.set_user_attr(ENQUEUED, [[start.origin, dict(start.params)] for start in self._enqueued])

    def _in_phase_order(self, places: Iterable[int]) -> deque[int]:
        """Return places among the starts as they are tried: the opening, which stands before the defaults, first."""
        origins = [start.origin for start in self._enqueued]
        opening = origins.index("default") if "default" in origins else len(origins)
        return deque(sorted(places, key=lambda at: (at >= opening, PHASE_ORDER.index(origins[at]))))

    def end_probes(self) -> None:
        """Leave out the probes that have not been asked for."""
        if self.num_probes_left:
            self._queue = deque(at for at in self._queue if self._enqueued[at].origin != "probe")
            self._study.set_user_attr(PROBES_ENDED, True)

    def requeue_running(self) -> None:
        """Let all trials that run be asked for again: whoever ran them is gone."""
        self._requeued = deque(self._open_trials)

    def ask(self) -> TrialRecord:
        """Return the next trial, already written down.

        First those that were put back, then the opening probes, the default, the other probes, the best fine-tuned,
        then what the sampler says.
        """
        if self._requeued:
            return self._records[self._requeued.popleft()]
        self._enqueue_fine_tunes()
        at = self._queue.popleft() if self._queue else None
        start = EnqueuedTrial("sampler", {}) if at is None else self._enqueued[at]
        asked = self._ask_study(start.params)
        settings = self._space.suggest(asked, is_probe=start.origin == "probe")
        return self._create(asked, start.origin, settings, self._make_config(settings), start=at)

    def ask_rerun(self, record: TrialRecord, seed: int) -> TrialRecord:
        """Return a new trial that trains an ended one again with another seed."""
        asked = self._ask_study(self._study.get_trials(deepcopy=False)[record.number].params)
        was_probe = record.origin == "probe"
        self._space.suggest(asked, is_probe=was_probe)
        config = record.config.model_copy(update={"seed": seed})
        return self._create(asked, "rerun", record.settings, config, of=record.trial_uid)

    def _ask_study(self, settings: Mapping[str, ParamValue]) -> optuna.Trial:
        if settings:
            self._study.enqueue_trial(dict(settings))
        return self._study.ask()

    def _create(
        self,
        asked: optuna.Trial,
        origin: TrialOrigin,
        settings: dict[str, ParamValue],
        config: TrialConfig,
        start: int | None = None,
        of: str = "",
    ) -> TrialRecord:
        result = TrialRecord(
            trial_uid=uuid.uuid4().hex,
            number=asked.number,
            origin=origin,
            queue_index=start,
            rerun_of=of,
            status="running",
            reason="",
            config=config,
            settings=settings,
            runtime_info={},
        )
        self._register(result, asked)
        self._write(result)
        return result

    def _register(self, result: TrialRecord, asked: optuna.Trial | None) -> None:
        self._records[result.trial_uid] = result
        self._num_trials += result.origin not in {"probe", "rerun"}
        if result.origin == "probe":
            self._probe_uids.append(result.trial_uid)
        if asked is not None:
            self._open_trials[result.trial_uid] = asked
        if result.status != "running":
            self._num_ended[result.status] += 1

    def _enqueue_fine_tunes(self) -> None:
        """Once the starts are through, add those that fine-tune the best probe."""
        best = None if self._queue or self._fine_tunes_enqueued else self._best_probe()
        if best is not None:
            self._fine_tunes_enqueued = True
            self._enqueue("fine-tune", self._space.fine_tunes(best.settings, self.leading_phase() == "fine-tuning"))
            self._study.set_user_attr(FINE_TUNES_ENQUEUED, True)

    def leading_phase(self) -> LeadingPhase:
        """Return who is ahead of whom so far, the best fine-tune or the best probe."""
        tuned, probes = list[float](), list[float]()
        for result in self._records.values():
            if result.is_eligible and result.score is not None:
                (probes if result.origin == "probe" else tuned).append(result.score)
        if not probes:
            return "neither"
        if not tuned or max(probes) >= max(tuned):
            return "probes"
        return "fine-tuning" if is_significantly_better(max(tuned), max(probes), self.num_val_images) else "neither"

    def _best_probe(self) -> TrialRecord | None:
        """Return, of the probes that are within one standard error of the best, the best at the smallest image size.

        Breiman et al., "Classification and Regression Trees" (1984), choose among trees by the same rule: scores that
        the validation pictures can't tell apart are no reason to pay for more.
        """
        probes = [result for result in map(self.get, self._probe_uids) if result.is_eligible]
        if not probes:
            return None
        top = max(result.score or 0.0 for result in probes)
        least = top - math.sqrt(top * (1 - top) / self.num_val_images)
        good = [result for result in probes if (result.score or 0.0) >= least]
        smallest = min(result.config.preprocessing.image_size for result in good)
        sized = [result for result in good if result.config.preprocessing.image_size == smallest]
        return max(sized, key=lambda result: result.sort_key)

    # --- what is told ---

    def report(self, trial_uid: str, report: TrialReport) -> TrialRecord:
        """Add an epoch of a running trial; the same epoch again changes nothing."""
        result = self._records[trial_uid]
        if report.epoch <= result.epochs:
            return result
        asked = self._open_trials[trial_uid]
        asked.set_user_attr(f"{EPOCH}{report.epoch}", {"metrics": report.metrics, "facts": report.runtime_info})
        asked.report(report.metrics[OBJECTIVE_METRIC], step=report.epoch)
        changes = {"history": (*result.history, report.metrics), "facts": report.runtime_info}
        self._records[trial_uid] = result.model_copy(update=changes)
        return self._records[trial_uid]

    def finish(
        self, trial_uid: str, status: TrialStatus, reason: str, is_infrastructure_failure: bool = False
    ) -> TrialRecord:
        """End a running trial, tell the sampler, and return what is known of it.

        The sampler takes the settings of a failed trial for bad ones, unless it was ``blameless``.
        """
        from tuning.search.samplers import INFRASTRUCTURE_FAILURE

        result = self._records[trial_uid].model_copy(update={"status": status, "reason": reason})
        if is_infrastructure_failure:
            self._open_trials[trial_uid].set_user_attr(INFRASTRUCTURE_FAILURE, True)
        self._write(result)
        self._num_ended[status] += 1
        self._tell(result, self._open_trials.pop(trial_uid))
        return result

    def _tell(self, result: TrialRecord, asked: optuna.Trial) -> None:
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[result.status]
        self._study.tell(asked, result.score if result.status == "complete" else None, state)

    def _write(self, result: TrialRecord) -> None:
        """Write a trial down; its epochs stand beside it, one by one."""
        self._records[result.trial_uid] = result
        fields = json.loads(result.model_dump_json(exclude={"history"}))
        self._open_trials[result.trial_uid].set_user_attr(RECORD, fields)

    # --- what another process wrote ---

    def _load(self) -> None:
        """Take in the trials of the study; those that had not ended are put back."""
        import optuna
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.WAITING:  # asked for by nobody; its settings are still among the starts
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
            elif RECORD in trial.user_attrs:
                open_ = trial.state is TrialState.RUNNING
                result = trial_from_attrs(trial.user_attrs)
                self._register(result, optuna.Trial(self._study, trial._trial_id) if open_ else None)
                if open_ and result.status != "running":  # killed between the two lines that end a trial
                    self._tell(result, self._open_trials.pop(result.trial_uid))
            elif trial.state is TrialState.RUNNING:  # killed before anyone could start it
                self._study.tell(trial.number, state=TrialState.FAIL)
        self.requeue_running()


def trial_from_attrs(attrs: Mapping[str, Any]) -> TrialRecord:
    """Return the trial that the journal's attributes describe."""
    history: list[dict[str, float]] = []
    facts: dict[str, ParamValue] = {}
    while (epoch := attrs.get(f"{EPOCH}{len(history) + 1}")) is not None:
        history.append(epoch["metrics"])
        facts = epoch["facts"]
    result = TrialRecord.from_json(json.dumps(attrs[RECORD]))
    return result.model_copy(update={"history": tuple(history), "facts": facts})


def open_trial_store(
    paths: SearchPaths,
    space: SearchSpace,
    make_config: Callable[[Mapping[str, ParamValue]], TrialConfig],
    seed: int,
    num_val_images: int,
    sampler: SamplerName,
) -> TrialStore:
    """Return the ledger of a search, kept in ``paths.journal``: a new one, or the one that is there.

    ``val_pictures`` is how many pictures the scores are of, ``sampler`` who proposes once the starts are tried.
    """
    import optuna
    from optuna.storages import JournalStorage

    from tuning.search.journal_backend import SingleWriterJournalBackend
    from tuning.search.samplers import build_sampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=JournalStorage(SingleWriterJournalBackend(paths.journal)),
        sampler=build_sampler(sampler, seed),
        direction="maximize",
        load_if_exists=True,
    )
    return TrialStore(study, space, make_config, num_val_images)
