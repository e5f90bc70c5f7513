"""The ledger: Optuna's persistent study, and the one place where trials are asked for and told.

It is written before a trial starts and as it goes, so that it is what survives a crash. Ray Tune's own
snapshots come too late to be trusted and are not used.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from data.values import Value
from models.config import TrialConfig
from tuning.domains import Setting
from tuning.search.paths import SearchPaths
from tuning.space import VARIANT, SearchSpace
from tuning.trial import TrialReport

if TYPE_CHECKING:
    import optuna

    from tuning.search.samplers import SamplerName

Status = Literal["running", "complete", "pruned", "failed"]
Origin = Literal["default", "probe", "fine-tune", "sampler"]
STUDY_NAME = "search"
HOPELESS_TRIALS = 6  # that have failed, and none has not: a search stops, and says why


class TrialResult(Value):
    """What is known of one trial; ``metrics`` are those of its best epoch.

    ``origin`` says who chose its settings: trial 0 is the default, and so is that of each variant that the sweep leaves
    out; the sweep's are probes, the best of them is fine-tuned, all others are the sampler's.
    """

    trial_uid: str
    number: int
    origin: Origin
    status: Status
    reason: str
    config: TrialConfig
    settings: dict[str, Setting]
    facts: dict[str, Setting]
    metrics: dict[str, float]
    best_epoch: int
    epochs: int

    @property
    def score(self) -> float | None:
        """Validation balanced accuracy of the best epoch, or None before the first epoch ended."""
        return self.metrics.get("val_balanced_accuracy")

    @property
    def variant(self) -> str:
        """The name of the recipe's variant that it is of; empty without variants."""
        return str(self.settings.get(VARIANT, ""))

    @property
    def counts(self) -> bool:
        """Whether it may be the best: it has a score, and did not fail afterwards."""
        return self.score is not None and self.status != "failed"

    @property
    def rank(self) -> tuple[float, float]:
        """What the best is chosen by: the highest score; among equals the lowest loss of its epoch."""
        return self.score or 0.0, -self.metrics.get("val_loss", math.inf)


class Ledger:
    """The trials of one search.

    ``ask`` makes a trial and writes it down before anyone starts it; ``report`` adds an epoch; ``finish`` tells
    the sampler how it ended: complete with the best epoch's score, pruned with its curve, failed with its reason.
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
        self._val_pictures = val_pictures
        self._asked: dict[str, optuna.Trial] = {}
        self._results: dict[str, TrialResult] = {}
        self._starts: deque[tuple[Origin, Mapping[str, Setting]]] = deque()
        self._starts.extend(("default", settings) for settings in space.defaults())
        self._starts.extend(("probe", settings) for settings in space.sweep())
        self._fine_tuned = False

    @property
    def probes_left(self) -> int:
        """How many probes of the sweep have not been asked for."""
        return sum(origin == "probe" for origin, _ in self._starts)

    @property
    def trials(self) -> int:
        """How many trials have been asked for, the sweep's probes aside."""
        return sum(result.origin != "probe" for result in self._results.values())

    @property
    def is_hopeless(self) -> bool:
        """Whether all trials have failed so far, and they are enough to say that others will."""
        ended = [result for result in self._results.values() if result.status != "running"]
        return len(ended) >= HOPELESS_TRIALS and all(result.status == "failed" for result in ended)

    def end_sweep(self) -> None:
        """Leave out the probes that have not been asked for."""
        self._starts = deque(start for start in self._starts if start[0] != "probe")

    def ask(self) -> TrialResult:
        """Return a new trial, already written down: the default, the probes, the best fine-tuned, the sampler's."""
        origin, chosen = self._next_start()
        if chosen is not None:
            self._study.enqueue_trial(dict(chosen))
        asked = self._study.ask()
        settings = self._space.suggest(asked, probe=origin == "probe")
        result = TrialResult(
            trial_uid=uuid.uuid4().hex,
            number=asked.number,
            origin=origin,
            status="running",
            reason="",
            config=self._configure(settings),
            settings=settings,
            facts={},
            metrics={},
            best_epoch=0,
            epochs=0,
        )
        self._asked[result.trial_uid] = asked
        self._write(result)
        return result

    def _next_start(self) -> tuple[Origin, Mapping[str, Setting] | None]:
        """Return who chooses the next trial's settings, and the settings unless it is the sampler."""
        if self._starts:
            return self._starts.popleft()
        best = None if self._fine_tuned else self._probe_to_tune()
        if best is not None:
            self._fine_tuned = True
            self._starts.extend(("fine-tune", settings) for settings in self._space.fine_tunes(best.settings))
        return self._starts.popleft() if self._starts else ("sampler", None)

    def report(self, trial_uid: str, report: TrialReport) -> TrialResult:
        """Add an epoch of a running trial; the same epoch again changes nothing."""
        result = self._results[trial_uid]
        if report.epoch <= result.epochs:
            return result
        self._asked[trial_uid].report(report.metrics["val_balanced_accuracy"], step=report.epoch)
        changes: dict[str, Any] = {"epochs": report.epoch, "facts": report.facts}
        if report.is_best:
            changes |= {"metrics": report.metrics, "best_epoch": report.epoch}
        self._results[trial_uid] = result.model_copy(update=changes)
        return self._results[trial_uid]

    def finish(self, trial_uid: str, status: Status, reason: str) -> TrialResult:
        """End a running trial, tell the sampler, and return what is known of it."""
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[status]
        result = self._results[trial_uid].model_copy(update={"status": status, "reason": reason})
        self._write(result)
        asked = self._asked.pop(trial_uid)
        self._study.tell(asked, result.score if status == "complete" else None, state)
        return result

    def _write(self, result: TrialResult) -> None:
        self._results[result.trial_uid] = result
        self._asked[result.trial_uid].set_user_attr("result", json.loads(result.to_json()))

    def result(self, trial_uid: str) -> TrialResult:
        """Return what is known of one trial so far."""
        return self._results[trial_uid]

    def running(self) -> tuple[TrialResult, ...]:
        """Return the trials that were asked for and have not ended."""
        return tuple(self._results[trial_uid] for trial_uid in self._asked)

    def results(self) -> tuple[TrialResult, ...]:
        """Return all trials by their number."""
        return tuple(sorted(self._results.values(), key=lambda result: result.number))

    def best(self) -> TrialResult | None:
        """Return the trial with the highest score at its best epoch, or None; among equals the lowest loss decides."""
        return max(self._scored(), key=lambda result: result.rank, default=None)

    def _probe_to_tune(self) -> TrialResult | None:
        """Return, of the probes that are within one standard error of the best, the best at the smallest image size.

        Breiman et al., "Classification and Regression Trees" (1984), choose among trees by the same rule: scores that
        the validation pictures can't tell apart are no reason to pay for more.
        """
        probes = [result for result in self._scored() if result.origin == "probe"]
        if not probes:
            return None
        top = max(result.score or 0.0 for result in probes)
        least = top - math.sqrt(top * (1 - top) / self._val_pictures)
        good = [result for result in probes if (result.score or 0.0) >= least]
        smallest = min(result.config.preprocessing.image_size for result in good)
        sized = [result for result in good if result.config.preprocessing.image_size == smallest]
        return max(sized, key=lambda result: result.rank)

    def _scored(self) -> list[TrialResult]:
        return [result for result in self.results() if result.counts]


def open_ledger(
    paths: SearchPaths,
    space: SearchSpace,
    configure: Callable[[Mapping[str, Setting]], TrialConfig],
    seed: int,
    val_pictures: int,
    sampler: SamplerName,
) -> Ledger:
    """Return the ledger of a new search, kept in ``paths.journal``, without a trial yet.

    ``val_pictures`` is how many pictures the scores are of, ``sampler`` who proposes once the starts are tried.
    """
    import optuna
    from optuna.storages import JournalStorage

    from tuning.search.journal import Journal
    from tuning.search.samplers import build_sampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(Journal(paths.journal))
    study = optuna.create_study(
        study_name=STUDY_NAME, storage=storage, sampler=build_sampler(sampler, seed), direction="maximize"
    )
    return Ledger(study, space, configure, val_pictures)
