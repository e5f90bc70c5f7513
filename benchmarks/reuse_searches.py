"""Measure the feature cache in whole searches: ``python -m benchmarks.reuse_searches FOLDER ... [--seeds 0 1 2 3 4]``.

Runs the same search with the same budget with the feature cache (and thus with the sweep) and without it, each in an
empty home, and compares the time from the search's start to the same validation score, the highest that both have
reached. Test accuracy is that of the two winners.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.searches import Search, search

SCORE = "val_balanced_accuracy"
Curve = list[tuple[float, float]]
KINDS = ("off", "fp16")


def curve(finished: Search) -> Curve:
    """Return (seconds since the search started, score) of every epoch of every trial, by time."""
    start_ms = finished.parent.info.start_time
    points = [
        point for trial in finished.trials for point in finished.client.get_metric_history(trial.info.run_id, SCORE)
    ]
    return sorted(((point.timestamp - start_ms) / 1000, point.value) for point in points)


def best(points: Curve) -> float:
    """Return the highest score."""
    return max(score for _, score in points)


def seconds_to(points: Curve, target: float) -> float:
    """Return the time at which a score was reached."""
    return next(at_s for at_s, score in points if score >= target)


class Pair(NamedTuple):
    """The same search without and with the cache: curves, test accuracies of the winners, and the ratio of times."""

    curves: dict[str, Curve]
    tests: dict[str, float]

    @classmethod
    def of(cls, data: str, seed: int, minutes: str) -> Pair:
        """Run both searches."""
        curves, tests = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for kind in KINDS:
                finished = search(data, seed, Path(folder) / kind, "--feature_cache", kind, "--minutes", minutes)
                curves[kind], tests[kind] = curve(finished), finished.parent.data.metrics["test_accuracy"]
        return cls(curves, tests)

    @property
    def common_score(self) -> float:
        """The highest score that both searches reached."""
        return min(best(points) for points in self.curves.values())

    @property
    def times_s(self) -> list[float]:
        """The time at which each search reached it."""
        return [seconds_to(self.curves[kind], self.common_score) for kind in KINDS]

    @property
    def ratio(self) -> float:
        """The time without the cache divided by the time with it."""
        off_s, on_s = self.times_s
        return off_s / on_s

    def row(self) -> str:
        """Return the row that is printed."""
        scores = [best(self.curves[kind]) for kind in KINDS]
        values = [*scores, self.common_score, *(self.tests[kind] for kind in KINDS)]
        times = " ".join(f"{time_s:.0f}" for time_s in self.times_s)
        return f"{' '.join(f'{value:.4f}' for value in values)} {times} {self.ratio:.2f}"


def main() -> None:
    """Print a row for each pair of searches, the means of the test accuracies and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", default="5")
    arguments = parser.parse_args()
    print("data seed score_off score_on same_score test_off test_on off_s on_s off/on", flush=True)
    for data in arguments.data:
        pairs = []
        for seed in arguments.seeds:
            pairs.append(Pair.of(data, seed, arguments.minutes))
            print(Path(data).name, seed, pairs[-1].row(), flush=True)
        tests = " ".join(f"{kind} {statistics.fmean(pair.tests[kind] for pair in pairs):.4f}" for kind in KINDS)
        ratio = statistics.geometric_mean(pair.ratio for pair in pairs)
        print(f"{Path(data).name}: mean test accuracy {tests}; geometric mean of off/on {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
