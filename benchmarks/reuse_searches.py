"""What reuse and the sweep do for a search: ``python -m benchmarks.reuse_searches FOLDER ... [--seeds 0 1 2 3 4]``.

The same search at the same budget with reuse on (and so with the sweep) and off, each in an empty home. Compared is the
time from the search's start to the same validation score: the highest that both have reached.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from benchmarks.searches import Search, search

SCORE = "val_balanced_accuracy"
Curve = list[tuple[float, float]]


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


def main() -> None:
    """Print a row for each pair of searches, and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", default="3")
    arguments = parser.parse_args()
    print("data seed score_off score_on same_score off_s on_s off/on", flush=True)
    for data in arguments.data:
        ratios = []
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                kinds = ("off", "on")
                curves = {
                    kind: curve(
                        search(data, seed, Path(folder) / kind, "--reuse", kind, "--minutes", arguments.minutes)
                    )
                    for kind in kinds
                }
            same = min(best(points) for points in curves.values())
            off_s, on_s = (seconds_to(curves[kind], same) for kind in kinds)
            ratios.append(off_s / on_s)
            scores = " ".join(f"{best(curves[kind]):.4f}" for kind in kinds)
            print(f"{Path(data).name} {seed} {scores} {same:.4f} {off_s:.0f} {on_s:.0f} {ratios[-1]:.2f}", flush=True)
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"{Path(data).name} geometric mean of off/on {mean:.2f}", flush=True)


if __name__ == "__main__":
    main()
