"""The trial store: Optuna's persistent study, through which all trials are created and finished.

It is written before a trial starts and after every epoch, so the complete state of a search can be read from it after a
crash. Ray Tune's own snapshots are written too late to be relied on and are not used.
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
MAX_INITIAL_FAILURES = 6  # failed trials, without any other, after which the search stops

# Attributes of the study and of its trials in the journal.
ENQUEUED, PROBES_ENDED, FINE_TUNES_ENQUEUED = "enqueued_trials", "probes_ended", "fine_tunes_enqueued"
RECORD, EPOCH = "trial_record", "epoch:"


class EnqueuedTrial(NamedTuple):
    """Parameters, under their names in the study, that are tried before the sampler proposes any."""

    origin: TrialOrigin
    params: Mapping[str, ParamValue]


class TrialStore:
    """The trials of one search.

    ``ask`` creates a trial and saves it before a worker starts it; ``report`` adds an epoch; ``finish`` passes the
    result to the sampler: complete with the score of the best epoch, pruned with its learning curve, or failed.
    A store that is opened on an existing study continues it.

    Args:
        study: Optuna's study.
        space: the search space.
        make_config: builds a trial's configuration from its settings.
        num_val_images: number of validation images; determines the standard error of a score.
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
        # Maintained incrementally, because Ray asks for the next trial between any two epochs.
        self._num_trials = 0
        self._probe_uids: list[str] = []
        self._num_ended: Counter[TrialStatus] = Counter()
        attrs = study.user_attrs
        self._enqueued = [EnqueuedTrial(*fields) for fields in attrs.get(ENQUEUED, ())]
        self._fine_tunes_enqueued = bool(attrs.get(FINE_TUNES_ENQUEUED))
        self._load()
        self._queue = self._remaining(include_probes=not attrs.get(PROBES_ENDED))
        if not self._enqueued:
            warmup = [EnqueuedTrial("probe", params) for params in space.warmup_probes()]
            defaults = [EnqueuedTrial("default", params) for params in space.default_trials()]
            probes = [EnqueuedTrial("probe", params) for params in space.linear_probes()]
            self._enqueue([*warmup, *defaults, *(probe for probe in probes if probe not in warmup)])

    # --- state ---

    @property
    def num_probes_left(self) -> int:
        """The number of linear probes that have not started."""
        return sum(self._enqueued[index].origin == "probe" for index in self._queue)

    @property
    def num_trials(self) -> int:
        """The number of created trials without linear probes and re-runs."""
        return self._num_trials

    @property
    def all_trials_failed(self) -> bool:
        """Whether all trials have failed so far, and at least ``MAX_INITIAL_FAILURES``."""
        return self._num_ended["failed"] == self._num_ended.total() >= MAX_INITIAL_FAILURES

    def get(self, trial_uid: str) -> TrialRecord:
        """Return the current record of a trial."""
        return self._records[trial_uid]

    def running(self) -> tuple[TrialRecord, ...]:
        """Return the trials that have not ended, including requeued ones."""
        return tuple(self._records[trial_uid] for trial_uid in self._open_trials)

    @property
    def num_running(self) -> int:
        """The number of trials that have not ended, without requeued ones."""
        return len(self._open_trials) - len(self._requeued)

    @property
    def num_requeued(self) -> int:
        """The number of requeued trials that have not restarted."""
        return len(self._requeued)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return all trials by number."""
        return tuple(self._records.values())

    # --- the next trial ---

    def _enqueue(self, trials: Iterable[EnqueuedTrial]) -> None:
        """Enqueue trials in this order."""
        first_new = len(self._enqueued)
        self._enqueued += trials
        self._queue.extend(range(first_new, len(self._enqueued)))
        self._study.set_user_attr(ENQUEUED, [[enqueued.origin, dict(enqueued.params)] for enqueued in self._enqueued])

    def _remaining(self, include_probes: bool) -> deque[int]:
        """Return the indices of the enqueued trials that have not started, in order."""
        started = {record.queue_index for record in self._records.values()}
        return deque(
            index
            for index, enqueued in enumerate(self._enqueued)
            if index not in started and (include_probes or enqueued.origin != "probe")
        )

    def end_probes(self) -> None:
        """Skip the linear probes that have not started."""
        if self.num_probes_left:
            self._queue = deque(index for index in self._queue if self._enqueued[index].origin != "probe")
            self._study.set_user_attr(PROBES_ENDED, True)

    def requeue_running(self) -> None:
        """Requeue all running trials after their workers were lost."""
        self._requeued = deque(self._open_trials)

    def ask(self) -> TrialRecord:
        """Return the next trial, already saved.

        Requeued trials come first, then warm-up probes, defaults, the other probes, fine-tunes of the best probe, and
        finally the sampler's proposals.
        """
        if self._requeued:
            return self._records[self._requeued.popleft()]
        self._enqueue_fine_tunes()
        index = self._queue.popleft() if self._queue else None
        enqueued = EnqueuedTrial("sampler", {}) if index is None else self._enqueued[index]
        trial = self._ask_study(enqueued.params)
        settings = self._space.suggest(trial, is_probe=enqueued.origin == "probe")
        return self._create(trial, enqueued.origin, settings, self._make_config(settings), queue_index=index)

    def ask_rerun(self, record: TrialRecord, seed: int) -> TrialRecord:
        """Return a new trial that re-runs an ended trial with another seed."""
        trial = self._ask_study(self._study.get_trials(deepcopy=False)[record.number].params)
        self._space.suggest(trial, is_probe=record.origin == "probe")
        config = record.config.model_copy(update={"seed": seed})
        return self._create(trial, "rerun", record.settings, config, rerun_of=record.trial_uid)

    def _ask_study(self, params: Mapping[str, ParamValue]) -> optuna.Trial:
        if params:
            self._study.enqueue_trial(dict(params))
        return self._study.ask()

    def _create(
        self,
        trial: optuna.Trial,
        origin: TrialOrigin,
        settings: dict[str, ParamValue],
        config: TrialConfig,
        queue_index: int | None = None,
        rerun_of: str = "",
    ) -> TrialRecord:
        record = TrialRecord(
            trial_uid=uuid.uuid4().hex,
            number=trial.number,
            origin=origin,
            queue_index=queue_index,
            rerun_of=rerun_of,
            status="running",
            reason="",
            config=config,
            settings=settings,
            runtime_info={},
        )
        self._register(record, trial)
        self._save(record)
        return record

    def _register(self, record: TrialRecord, trial: optuna.Trial | None) -> None:
        self._records[record.trial_uid] = record
        self._num_trials += record.counts_as_trial
        if record.origin == "probe":
            self._probe_uids.append(record.trial_uid)
        if trial is not None:
            self._open_trials[record.trial_uid] = trial
        if record.status != "running":
            self._num_ended[record.status] += 1

    def _enqueue_fine_tunes(self) -> None:
        """Enqueue fine-tunes of the best probe once all other enqueued trials have started."""
        best = None if self._queue or self._fine_tunes_enqueued else self._best_probe()
        if best is not None:
            self._fine_tunes_enqueued = True
            fine_tunes = self._space.fine_tunes(best.settings, self.leading_phase() == "fine-tuning")
            self._enqueue(EnqueuedTrial("fine-tune", params) for params in fine_tunes)
            self._study.set_user_attr(FINE_TUNES_ENQUEUED, True)

    def leading_phase(self) -> LeadingPhase:
        """Return the phase of the best score: fine-tuning only if significantly better, probes by any margin."""
        fine_tune_scores, probe_scores = list[float](), list[float]()
        for record in self._records.values():
            if record.is_eligible and record.score is not None:
                (probe_scores if record.origin == "probe" else fine_tune_scores).append(record.score)
        if not probe_scores:
            return "neither"
        if not fine_tune_scores or max(probe_scores) >= max(fine_tune_scores):
            return "probes"
        is_better = is_significantly_better(max(fine_tune_scores), max(probe_scores), self.num_val_images)
        return "fine-tuning" if is_better else "neither"

    def _best_probe(self) -> TrialRecord | None:
        """Return the best probe at the smallest image size among those within one standard error of the best.

        The one-standard-error rule of Breiman et al., "Classification and Regression Trees" (1984): a difference that
        the validation images cannot resolve does not justify a higher cost.
        """
        probes = [record for record in map(self.get, self._probe_uids) if record.is_eligible]
        if not probes:
            return None
        best_score = max(record.score or 0.0 for record in probes)
        min_score = best_score - math.sqrt(best_score * (1 - best_score) / self.num_val_images)
        candidates = [record for record in probes if (record.score or 0.0) >= min_score]
        smallest = min(record.config.preprocessing.image_size for record in candidates)
        return max(
            (record for record in candidates if record.config.preprocessing.image_size == smallest),
            key=lambda record: record.sort_key,
        )

    # --- results ---

    def report(self, trial_uid: str, report: TrialReport) -> TrialRecord:
        """Add an epoch to a running trial; an epoch that was already added is ignored."""
        record = self._records[trial_uid]
        if report.epoch <= record.epochs:
            return record
        trial = self._open_trials[trial_uid]
        epoch = {"metrics": report.metrics, "runtime_info": report.runtime_info}
        trial.set_user_attr(f"{EPOCH}{report.epoch}", epoch)
        trial.report(report.metrics[OBJECTIVE_METRIC], step=report.epoch)
        changes = {"history": (*record.history, report.metrics), "runtime_info": report.runtime_info}
        self._records[trial_uid] = record.model_copy(update=changes)
        return self._records[trial_uid]

    def finish(
        self, trial_uid: str, status: TrialStatus, reason: str, is_infrastructure_failure: bool = False
    ) -> TrialRecord:
        """End a running trial, pass the result to the sampler, and return the record.

        The sampler avoids the settings of a failed trial unless ``is_infrastructure_failure``.
        """
        from tuning.search.samplers import INFRASTRUCTURE_FAILURE

        record = self._records[trial_uid].model_copy(update={"status": status, "reason": reason})
        if is_infrastructure_failure:
            self._open_trials[trial_uid].set_user_attr(INFRASTRUCTURE_FAILURE, True)
        self._save(record)
        self._num_ended[status] += 1
        self._tell(record, self._open_trials.pop(trial_uid))
        return record

    def _tell(self, record: TrialRecord, trial: optuna.Trial) -> None:
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[record.status]
        self._study.tell(trial, record.score if record.status == "complete" else None, state)

    def _save(self, record: TrialRecord) -> None:
        """Write the record to the study, without its epochs, which are separate attributes."""
        self._records[record.trial_uid] = record
        fields = json.loads(record.model_dump_json(exclude={"history"}))
        self._open_trials[record.trial_uid].set_user_attr(RECORD, fields)

    # --- loading ---

    def _load(self) -> None:
        """Load the trials of the study and requeue those that have not ended."""
        import optuna
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.WAITING:  # killed before it was created; it is still in the queue
                self._study.tell(self._study.ask(), state=TrialState.FAIL)
            elif RECORD in trial.user_attrs:
                is_open = trial.state is TrialState.RUNNING
                record = trial_from_attrs(trial.user_attrs)
                self._register(record, optuna.Trial(self._study, trial._trial_id) if is_open else None)
                if is_open and record.status != "running":  # killed between the two writes that end a trial
                    self._tell(record, self._open_trials.pop(record.trial_uid))
            elif trial.state is TrialState.RUNNING:  # killed before its record was saved
                self._study.tell(trial.number, state=TrialState.FAIL)
        self.requeue_running()


def trial_from_attrs(attrs: Mapping[str, Any]) -> TrialRecord:
    """Return the trial that is stored in the user attributes of an Optuna trial."""
    history: list[dict[str, float]] = []
    runtime_info: dict[str, ParamValue] = {}
    while (epoch := attrs.get(f"{EPOCH}{len(history) + 1}")) is not None:
        history.append(epoch["metrics"])
        runtime_info = epoch["runtime_info"]
    record = TrialRecord.from_json(json.dumps(attrs[RECORD]))
    return record.model_copy(update={"history": tuple(history), "runtime_info": runtime_info})


def open_trial_store(
    paths: SearchPaths,
    space: SearchSpace,
    make_config: Callable[[Mapping[str, ParamValue]], TrialConfig],
    seed: int,
    num_val_images: int,
    sampler: SamplerName,
) -> TrialStore:
    """Open the trial store in ``paths.journal``, or create it.

    Args:
        paths: of the search.
        space: the search space.
        make_config: builds a trial's configuration from its settings.
        seed: of the sampler.
        num_val_images: number of validation images.
        sampler: proposes settings once the enqueued trials have started.
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
