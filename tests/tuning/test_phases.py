"""The phases of a search as they are shown, and the reason for a phase that is skipped."""

from __future__ import annotations

import math

from models.trial_config import FitConfig
from tests.tuning.factories import epoch_metrics, recipe, trial_record
from tuning.common.events import PhaseStarted
from tuning.common.trial_record import TrialOrigin, TrialRecord
from tuning.workflows.phases import PhaseTracker, skipped_reruns


def ended(origin: TrialOrigin) -> TrialRecord:
    return trial_record().model_copy(update={"origin": origin})


def test_phases_follow_the_origins_of_the_trials_and_never_return() -> None:
    phases = PhaseTracker(2, 5, has_reruns=True)
    origins: list[TrialOrigin] = ["probe", "default", "probe", "sampler", "probe", "rerun", "sampler"]
    started = [phases.on_trial_end(ended(origin)) for origin in origins]
    assert started == [
        PhaseStarted(1, 4, "probes", 2), None, None, PhaseStarted(2, 4, "trials", 5), None,
        PhaseStarted(3, 4, "re-runs"), None,
    ]  # fmt: skip
    assert phases.final() == PhaseStarted(4, 4, "test, package, register")


def test_a_probe_of_the_champion_is_a_probe_and_its_trained_network_starts_among_them() -> None:
    phases = PhaseTracker(2, 5, has_reruns=True)
    champion = ended("champion")
    network = champion.config.network.model_copy(update={"freeze_fraction": 1.0})
    config = champion.config.model_copy(update={"fit": FitConfig(optimizer="lbfgs"), "network": network})
    trials = [champion, champion.model_copy(update={"config": config}), ended("probe"), champion]
    assert [trial.is_probe for trial in trials] == [False, True, True, False]
    assert [phase and phase.name for phase in map(phases.on_trial_end, trials)] == ["probes", None, None, "trials"]


def seconds(trial: TrialRecord) -> float:
    return trial.seconds


def test_skipped_reruns_are_explained_by_the_time_that_is_left() -> None:
    epochs = tuple([epoch_metrics(0.5) | {"epoch_s": 10.0}] * 2)
    trials = [trial_record().model_copy(update={"history": epochs})]
    text = "re-runs skipped: 7 s left, the shortest needs about 25 s"
    assert skipped_reruns(recipe(), trials, 100, 7.4, seconds) == text
    assert skipped_reruns(recipe(), trials, 100, -3.0, seconds).startswith("re-runs skipped: 0 s left")
    assert skipped_reruns(recipe(), trials, 100, math.inf, seconds) == ""
    assert skipped_reruns(recipe(rerun_top_k="0"), trials, 100, 7.4, seconds) == ""
    assert skipped_reruns(recipe(), [*trials, ended("rerun")], 100, 7.4, seconds) == ""
    assert skipped_reruns(recipe(), [], 100, 7.4, seconds) == ""


def test_if_the_best_trials_are_probes_there_are_no_reruns() -> None:
    trial = trial_record(1, 0.9)
    network = trial.config.network.model_copy(update={"freeze_fraction": 1.0})
    changes = {"fit": FitConfig(optimizer="lbfgs"), "network": network}
    probe = trial.model_copy(update={"config": trial.config.model_copy(update=changes)})
    assert skipped_reruns(recipe(), [probe], 100, 7.4, seconds).startswith(
        "no re-runs: the best trials are linear probes"
    )


def test_without_probes_the_default_starts_the_trials() -> None:
    phases = PhaseTracker(0, None, has_reruns=False)
    assert phases.on_trial_end(ended("default")) == PhaseStarted(1, 2, "trials")
    assert phases.on_trial_end(ended("probe")) is None  # of a resumed search
