"""What reuse and the sweep do for a search: ``python -m benchmarks.reuse_searches FOLDER ... [--seeds 0 1 2 3 4]``.

The same search at the same budget with reuse on (and so with the sweep) and off, each in an empty home. Compared is the
time from the search's start to the same validation score: the highest that both have reached. Test accuracy is that of
the two winners.
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
KINDS = ("off", "on")


def curve(done: Search) -> Curve:
    """Return (seconds since the search began, score) of every epoch of every trial, by time."""
    began_ms = done.parent.info.start_time
    points = [point for trial in done.trials for point in done.client.get_metric_history(trial.info.run_id, SCORE)]
    return sorted(((point.timestamp - began_ms) / 1000, point.value) for point in points)


def best(points: Curve) -> float:
    """Return the highest score."""
    return max(score for _, score in points)


def seconds_to(points: Curve, wanted: float) -> float:
    """Return when a score was reached."""
    return next(at_s for at_s, score in points if score >= wanted)


class Pair(NamedTuple):
    """The same search with reuse off and on: the curve and the winner's test accuracy of each, and the ratio."""

    curves: dict[str, Curve]
    tests: dict[str, float]

    @classmethod
    def of(cls, data: str, seed: int, minutes: str) -> Pair:
        """Run both searches."""
        curves, tests = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for kind in KINDS:
                done = search(data, seed, Path(folder) / kind, "--feature_cache", kind, "--minutes", minutes)
                curves[kind], tests[kind] = curve(done), done.parent.data.metrics["test_accuracy"]
        return cls(curves, tests)

    @property
    def same(self) -> float:
        """The highest score that both reached."""
        return min(best(points) for points in self.curves.values())

    @property
    def times_s(self) -> list[float]:
        """When each reached it."""
        return [seconds_to(self.curves[kind], self.same) for kind in KINDS]

    @property
    def ratio(self) -> float:
        """How many times longer it took without reuse."""
        off_s, on_s = self.times_s
        return off_s / on_s

    def row(self) -> str:
        """Return what is printed of it."""
        scores = [best(self.curves[kind]) for kind in KINDS]
        values = [*scores, self.same, *(self.tests[kind] for kind in KINDS)]
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
