"""The trial store: Optuna's persistent study, through which all trials are created and finished.

It is written before a trial starts and after every epoch, so the complete state of a search can be read from it after a
crash. Ray Tune's own snapshots are written too late to be relied on and are not used.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from models.trial_config import TrialConfig
from tuning.common.names import OBJECTIVE_METRIC
from tuning.common.option_types import ParamValue
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialOrigin, TrialRecord, TrialReport, TrialStatus
from tuning.search.reruns import NextRerun
from tuning.search.space import SearchSpace
from tuning.search.strategy import Proposal

if TYPE_CHECKING:
    import optuna

    from tuning.recipe.schema import SamplerName
    from tuning.search.cost_aware import CandidateTrial

STUDY_NAME = "search"

# Attributes of a trial in the journal.
RECORD, EPOCH = "trial_record", "epoch:"


class TrialStore:
    """The trials of one search.

    ``start`` creates a trial and saves it before a worker starts it; ``report`` adds an epoch; ``finish`` passes the
    result to the sampler: complete with the score of the best epoch, pruned or out of time with its learning curve,
    or failed. A store that is opened on an existing study continues it. ``make_config`` builds a trial's configuration
    from its settings.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        make_config: Callable[[Mapping[str, ParamValue]], TrialConfig],
    ) -> None:
        self._study = study
        self._space = space
        self._make_config = make_config
        self._open_trials: dict[str, optuna.Trial] = {}
        self._records: dict[str, TrialRecord] = {}
        self._interrupted: list[str] = []
        self._load()

    def get(self, trial_uid: str) -> TrialRecord:
        """Return the current record of a trial."""
        return self._records[trial_uid]

    def running(self) -> tuple[TrialRecord, ...]:
        """Return the trials that have not ended, including interrupted ones."""
        return tuple(self._records[trial_uid] for trial_uid in self._open_trials)

    @property
    def num_running(self) -> int:
        """The number of trials that have not ended, without interrupted ones."""
        return len(self._open_trials) - len(self._interrupted)

    def interrupted(self) -> tuple[TrialRecord, ...]:
        """Return the running trials that have lost their workers and have not restarted."""
        return tuple(self._records[trial_uid] for trial_uid in self._interrupted)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return all trials by number."""
        return tuple(self._records.values())

    def interrupt_running(self) -> None:
        """Mark all running trials as interrupted, after their workers were lost."""
        self._interrupted = list(self._open_trials)

    def start(self, step: Proposal | NextRerun | TrialRecord) -> TrialRecord:
        """Return the trial of a step, already saved; a record is an interrupted trial, which restarts."""
        if isinstance(step, TrialRecord):
            self._interrupted.remove(step.trial_uid)
            self._save(self._records[step.trial_uid].model_copy(update={"started_s": time.time()}))
            return self._records[step.trial_uid]
        if isinstance(step, NextRerun):
            return self._start_rerun(step)
        trial = self._ask(step.params)
        settings = self._space.suggest(trial, is_probe=step.is_probe)
        if step.start:
            settings = dict(step.start.settings)
        return self._create(trial, step.origin, settings, self._make_config(settings), step.fixed_params)

    def candidates(self, count: int) -> list[CandidateTrial]:
        """Return ``count`` proposals of the sampler for the next trial, the first being its own; none is started."""
        from tuning.search.cost_aware import CandidateTrial
        from tuning.search.samplers import PerTrialSampler

        sampler = self._study.sampler
        assert isinstance(sampler, PerTrialSampler)  # noqa: S101  (open_trial_store built it)
        candidates = sampler.candidates(self._study, count)
        configs = [self._make_config(self._space.suggest(candidate)) for candidate in candidates]
        return [
            CandidateTrial(candidate.params, config, candidate.log_improvement)
            for candidate, config in zip(candidates, configs, strict=True)
        ]

    def config_of(self, proposal: Proposal) -> TrialConfig:
        """Return the configuration of a proposal, whose parameters must be complete."""
        from optuna.trial import FixedTrial

        if proposal.start:
            return self._make_config(proposal.start.settings)
        trial = FixedTrial(dict(proposal.params))
        return self._make_config(self._space.suggest(trial, is_probe=proposal.is_probe))

    def _start_rerun(self, rerun: NextRerun) -> TrialRecord:
        original = rerun.trial
        trial = self._ask(self._study.get_trials(deepcopy=False)[original.number].params)
        self._space.suggest(trial, is_probe=original.is_probe)
        config = original.config.model_copy(update={"seed": rerun.seed, "fold": rerun.fold})
        return self._create(trial, "rerun", original.settings, config, rerun_of=original.trial_uid)

    def _ask(self, params: Mapping[str, ParamValue]) -> optuna.Trial:
        if params:
            self._study.enqueue_trial(dict(params))
        return self._study.ask()

    def _create(
        self,
        trial: optuna.Trial,
        origin: TrialOrigin,
        settings: dict[str, ParamValue],
        config: TrialConfig,
        fixed_params: dict[str, ParamValue] | None = None,
        rerun_of: str = "",
    ) -> TrialRecord:
        record = TrialRecord(
            trial_uid=uuid.uuid4().hex,
            number=trial.number,
            origin=origin,
            fixed_params=fixed_params or {},
            rerun_of=rerun_of,
            status="running",
            reason="",
            config=config,
            settings=settings,
            runtime_info={},
            started_s=time.time(),
        )
        self._open_trials[record.trial_uid] = trial
        self._save(record)
        return record

    def report(self, trial_uid: str, report: TrialReport) -> TrialRecord:
        """Add the next epoch to a running trial."""
        record = self._records[trial_uid]
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

        changes = {"status": status, "reason": reason, "ended_s": time.time()}
        record = self._records[trial_uid].model_copy(update=changes)
        if is_infrastructure_failure:
            self._open_trials[trial_uid].set_user_attr(INFRASTRUCTURE_FAILURE, True)
        self._save(record)
        self._tell(record, self._open_trials.pop(trial_uid))
        return record

    def _tell(self, record: TrialRecord, trial: optuna.Trial) -> None:
        from optuna.trial import TrialState

        # For the sampler, a trial that ran out of time is a learning curve like that of a pruned trial.
        state = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(record.status, TrialState.PRUNED)
        self._study.tell(trial, record.score if record.status == "complete" else None, state)

    def _save(self, record: TrialRecord) -> None:
        """Write the record to the study, without its epochs, which are separate attributes."""
        self._records[record.trial_uid] = record
        fields = json.loads(record.model_dump_json(exclude={"history"}))
        self._open_trials[record.trial_uid].set_user_attr(RECORD, fields)

    def _load(self) -> None:
        """Load the trials of the study; those that have not ended are interrupted."""
        import optuna
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False):
            if RECORD in trial.user_attrs:
                self._load_trial(trial)
            elif trial.state is TrialState.WAITING:  # killed before it was created; its phase proposes it again
                self._discard(self._study.ask())
            elif trial.state is TrialState.RUNNING:  # killed before its record was saved
                self._discard(optuna.Trial(self._study, trial._trial_id))
        self.interrupt_running()

    def _discard(self, trial: optuna.Trial) -> None:
        """End a trial that never started, without telling the sampler anything about its settings."""
        from optuna.trial import TrialState

        from tuning.search.samplers import INFRASTRUCTURE_FAILURE

        trial.set_user_attr(INFRASTRUCTURE_FAILURE, True)
        self._study.tell(trial, state=TrialState.FAIL)

    def _load_trial(self, trial: optuna.trial.FrozenTrial) -> None:
        import optuna
        from optuna.trial import TrialState

        record = trial_from_attrs(trial.user_attrs)
        self._records[record.trial_uid] = record
        if trial.state is not TrialState.RUNNING:
            return
        open_trial = optuna.Trial(self._study, trial._trial_id)
        if record.status == "running":
            self._open_trials[record.trial_uid] = open_trial
        else:  # killed between the two writes that end a trial
            self._tell(record, open_trial)


def load_study(paths: SearchPaths) -> optuna.Study:
    """Return the study of a search for reading."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name=STUDY_NAME, storage=JournalStorage(JournalFileBackend(str(paths.journal))))


def trials_of(study: optuna.Study) -> tuple[TrialRecord, ...]:
    """Return the trials that a study holds, by number."""
    return tuple(trial_from_attrs(trial.user_attrs) for trial in study.trials if RECORD in trial.user_attrs)


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
    sampler: SamplerName,
) -> TrialStore:
    """Open the trial store in ``paths.journal``, or create it."""
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
    return TrialStore(study, space, make_config)
