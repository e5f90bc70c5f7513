"""The shares of the phases in a simulated search of 5 minutes: trials take their predicted cost, on two cores."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.preprocessing import Preprocessing
from models.profiling.training_cost import Images, TrainingCosts, trains_a_block
from models.trial_config import TrialConfig
from tests.tuning.factories import epoch_metrics, recipe
from tuning.common.option_types import ParamValue
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord, TrialReport
from tuning.search.cost_aware import CostAwareProposals
from tuning.search.schedulers import build_scheduler
from tuning.search.searcher import scheduler_flags
from tuning.search.space import SearchSpace
from tuning.search.strategy import SearchState, SearchStrategy
from tuning.search.study import open_trial_store

NETWORKS, SIZES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1"), (128, 160, 224)
GFLOPS_PER_S = 24  # of a core: measured in a search
TIME_S, CORES = 240.0, 2  # 5 minutes without startup and the work after the trials


def score(config: TrialConfig, epoch: int) -> float:
    """Return a made-up score that grows with the image size and the epochs; the best learning rate is 1e-3."""
    best = 0.8 + config.preprocessing.image_size / 2240 + 0.04 * (1 - config.network.freeze_fraction)
    if config.is_probe:
        return best
    return best - 0.05 * abs(math.log10(config.fit.lr / 1e-3)) - 0.25 * math.exp(-epoch / 2)


class Simulation:
    """A search whose trials take the seconds that their predicted costs need."""

    def __init__(self, root: Path, images: Images) -> None:
        options = {"backbone": ",".join(NETWORKS), "image_size": ",".join(map(str, SIZES)), "head_features": "last,all"}
        search_recipe = recipe(**options, trials=16, minutes=5)
        self.space = SearchSpace(search_recipe)
        self.store = open_trial_store(SearchPaths(root), self.space, self.make_config, 0, "tpe")
        proposals = CostAwareProposals(self.store, *images)
        self.strategy = SearchStrategy(search_recipe, self.space, images.val, proposals=proposals)
        self.scheduler: Any = build_scheduler("asha", search_recipe.max_epochs)
        self.costs = TrainingCosts(images)
        self.now = 0.0
        self.epochs: list[tuple[float, str, int, float]] = []  # running: end, uid of the trial, number, duration

    def make_config(self, settings: Mapping[str, ParamValue]) -> TrialConfig:
        preprocessings = {(network, size): Preprocessing(size) for network in NETWORKS for size in SIZES}
        return self.space.trial_config(settings, preprocessings)

    def run(self) -> list[TrialRecord]:
        """Return the trials; those that run at the end of the time are still running."""
        self.start_trials()
        while self.epochs and self.epochs[0][0] < TIME_S:
            self.now, uid, epoch, seconds = heapq.heappop(self.epochs)
            self.end_epoch(self.store.get(uid), epoch, seconds)
            self.start_trials()
        return list(self.store.trials())

    def start_trials(self) -> None:
        while self.store.num_running < CORES:
            state = SearchState(self.store.trials(), (), self.now / TIME_S, TIME_S - self.now)
            step = self.strategy.next(state)
            if isinstance(step, str):
                return
            trial = self.store.start(step)
            self.scheduler.on_trial_add(None, self.tune_trial(trial))
            self.start_epoch(trial, 1)

    def start_epoch(self, trial: TrialRecord, epoch: int) -> None:
        earlier = self.costs.gflops(trial.config, epoch - 1) if epoch > 1 else 0.0
        seconds = (self.costs.gflops(trial.config, epoch) - earlier) / GFLOPS_PER_S
        heapq.heappush(self.epochs, (self.now + seconds, trial.trial_uid, epoch, seconds))

    def end_epoch(self, trial: TrialRecord, epoch: int, seconds: float) -> None:
        metrics = epoch_metrics(score(trial.config, epoch)) | {"epoch_s": seconds}
        trial = self.store.report(trial.trial_uid, TrialReport(status="running", epoch=epoch, metrics=metrics))
        self.costs.add(trial.config, epoch)
        result = {"epoch": epoch, "objective": max(trial.scores)}
        decision = self.scheduler.on_trial_result(None, self.tune_trial(trial), result)
        if trial.has_all_epochs or decision == "STOP":
            self.store.finish(trial.trial_uid, "complete" if trial.has_all_epochs else "pruned", "simulated")
        else:
            self.start_epoch(trial, epoch + 1)

    def tune_trial(self, trial: TrialRecord) -> SimpleNamespace:
        return SimpleNamespace(trial_id=trial.trial_uid, config=scheduler_flags(trial))


@pytest.mark.parametrize(
    ("images", "min_sampled"), [(Images(140, 30), 12), (Images(881, 189), 10), (Images(1050, 225), 10)]
)
def test_a_search_of_5_minutes_ends_many_proposals_of_the_sampler_and_half_of_them_train_a_block(
    images: Images, min_sampled: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(tmp_path, images)
    monkeypatch.setattr("tuning.search.study.time", SimpleNamespace(time=lambda: simulation.now))
    trials = simulation.run()
    ended = [trial.config for trial in trials if trial.origin == "sampler" and trial.status in {"complete", "pruned"}]
    assert len(ended) >= min_sampled
    started = [trial.config for trial in trials if trial.origin == "sampler"]
    assert sum(map(trains_a_block, started)) >= len(started) / 2
    assert sum(trial.origin == "probe" for trial in trials) >= 3
    first_sampled = next(trial.number for trial in trials if trial.origin == "sampler")
    assert sum(trial.origin == "fine_tune" for trial in trials[:first_sampled]) <= 1
