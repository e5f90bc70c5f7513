"""Time short commands: ``python -m benchmarks.startup_time FOLDER [--times 3] [--commands help audit first_trial]``.

help         ``freezeline --help``; limit 0.5 s
audit        ``freezeline audit`` of FOLDER in an empty home, so every image is decoded; limit 10 s for 1,500
             images
first_trial  from ``freezeline tune`` on the demo digits until its first trial trains, in a home that an earlier
             search has filled with decoded images, features and step times; limit 25 s

The output is the wall time and the CPU time of the fastest run, including all processes of the command: on a shared
machine only the CPU time shows what the command costs. A trial's start is the time of its first epoch event minus the
seconds of that epoch.
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
BUDGET = ("--minutes", "60")  # the search is stopped after its first epoch event


class Duration(NamedTuple):
    """Wall time and CPU time."""

    wall_s: float
    cpu_s: float


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a command whose state is in ``home``."""
    variables = {"FREEZELINE_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    return {**os.environ, **variables, "MLFLOW_DISABLE_TELEMETRY": "true"}


def run(home: Path, *arguments: str) -> Duration:
    """Run a command and return its duration."""
    start_s = time.perf_counter()
    before = os.times()
    command = [sys.executable, "-m", "tuning", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment(home), check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Duration(time.perf_counter() - start_s, cpu_s)


def first_trial(home: Path) -> Duration:
    """Search until the first epoch event, then stop the search; return the duration until that epoch started."""
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "tuning", "tune", *BUDGET, "--events", "json", "--quiet", "on"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "epoch":
                epoch_s = event["metrics"]["epoch_s"]
                return Duration(time.perf_counter() - start_s - epoch_s, total_cpu_s(process.pid) - epoch_s)
        raise RuntimeError(f"the search must train an epoch, but exited with {process.wait()}")
    finally:
        process.terminate()
        process.communicate()


def total_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants so far, including those that have exited."""
    parent = psutil.Process(pid)
    cpu_times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return float(sum(used.user + used.system + used.children_user + used.children_system for used in cpu_times))


def main() -> None:
    """Print a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the images to audit")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--commands", nargs="+", choices=LIMITS_S, default=list(LIMITS_S))
    arguments = parser.parse_args()
    folder = Path(arguments.folder).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        homes = iter(Path(temporary) / str(number) for number in range(1000))
        warm = next(homes)
        commands: dict[str, Callable[[], Duration]] = {
            "help": lambda: run(warm, "--help"),
            "audit": lambda: run(next(homes), "audit", "--data", str(folder)),
            "first_trial": lambda: first_trial(warm),
        }
        if "first_trial" in arguments.commands:
            first_trial(warm)
        print("command wall_s cpu_s limit_s", flush=True)
        for name in arguments.commands:
            durations = [commands[name]() for _ in range(arguments.times)]
            wall_s, cpu_s = (min(values) for values in zip(*durations, strict=True))
            print(f"{name} {wall_s:.2f} {cpu_s:.2f} {LIMITS_S[name]:g}", flush=True)


if __name__ == "__main__":
    main()
