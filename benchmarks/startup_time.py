"""How long small things take: ``python -m benchmarks.startup_time FOLDER [--times 3] [--things help audit first_trial]``.

help         ``python -m tuning --help``; at most 0.5 s
audit        ``python -m tuning audit`` of FOLDER's pictures, in an empty home: each is read; at most 10 s of 1,500
first_trial  from ``python -m tuning tune`` on the demo digits until its first trial runs, in a home that an earlier
             search has filled: pictures, features and step times are there; at most 25 s

Printed are, of the fastest of so many times, the seconds by the clock and those of the processors, all processes of the
command together: on a machine that others use only the latter say what the command costs. A trial runs once its first
epoch has begun: when that was told, less the seconds that it took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[1]
LIMITS_S = {"help": 0.5, "audit": 10.0, "first_trial": 25.0}
ENOUGH = ("--minutes", "60")  # the search is ended as soon as its first epoch is told


class Taken(NamedTuple):
    """Seconds by the clock, and those that all processors worked."""

    wall_s: float
    processor_s: float


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a command that keeps everything in ``state_dir``."""
    own = {"FREEZELINE_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    return {**os.environ, **own, "MLFLOW_DISABLE_TELEMETRY": "true"}


def run(home: Path, *words: str) -> Taken:
    """Run a command to its end."""
    began_s = time.perf_counter()
    before = os.times()
    command = [sys.executable, "-m", "tuning", *words]
    subprocess.run(command, cwd=ROOT, env=environment(home), check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    spent_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(time.perf_counter() - began_s, spent_s)


def first_trial(home: Path) -> Taken:
    """Search until the first epoch was told, then end the search; return what it took until that epoch began."""
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "tuning", "tune", *ENOUGH, "--events", "json", "--quiet", "on"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        for line in process.stdout or ():
            told = json.loads(line)
            if told["event"] == "epoch":
                epoch_s = told["metrics"]["epoch_s"]
                return Taken(time.perf_counter() - began_s - epoch_s, processor_s(process.pid) - epoch_s)
        raise RuntimeError(f"the search must train an epoch, but ended with {process.wait()}")
    finally:
        process.terminate()
        process.communicate()


def processor_s(pid: int) -> float:
    """Return what a process and those that it started have worked so far, those that ended among them."""
    parent = psutil.Process(pid)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def main() -> None:
    """Print a row for each thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of the pictures that are audited")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--things", nargs="+", choices=LIMITS_S, default=list(LIMITS_S))
    arguments = parser.parse_args()
    folder = Path(arguments.folder).resolve()
    with tempfile.TemporaryDirectory() as passing:
        homes = iter(Path(passing) / str(number) for number in range(1000))
        warm = next(homes)
        things: dict[str, Callable[[], Taken]] = {
            "help": lambda: run(warm, "--help"),
            "audit": lambda: run(next(homes), "audit", "--data", str(folder)),
            "first_trial": lambda: first_trial(warm),
        }
        if "first_trial" in arguments.things:
            first_trial(warm)
        print("thing wall_s processor_s limit_s", flush=True)
        for name in arguments.things:
            taken = [things[name]() for _ in range(arguments.times)]
            wall_s, spent_s = (min(values) for values in zip(*taken, strict=True))
            print(f"{name} {wall_s:.2f} {spent_s:.2f} {LIMITS_S[name]:g}", flush=True)


if __name__ == "__main__":
    main()
