"""What is shown at the end of a search: the best trials, the test result, and what to type next."""

from __future__ import annotations

import json
import shlex
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tuning.promote import METRIC, Candidate, Promotion
from tuning.search.ledger import TrialResult
from tuning.views.lines import score_text

ROWS = 5
LOCAL_UI = "http://127.0.0.1:5000"


def best_trials(results: Sequence[TrialResult], most: int = ROWS) -> list[TrialResult]:
    """Return the trials with the highest scores, best first."""
    scored = [result for result in results if result.score is not None]
    return sorted(scored, key=lambda result: (-(result.score or 0.0), result.number))[:most]


def leaderboard(results: Sequence[TrialResult]) -> Table:
    """Return the table of the best trials."""
    table = Table(title="Best trials", title_justify="left", title_style="bold")
    for name, justify in (
        ("trial", "right"), ("val balanced acc.", "right"), ("epochs", "right"), ("ended", "left"),
        ("frozen", "left"), ("optimizer", "left"), ("lr", "right"), ("schedule", "left"), ("augment", "left"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left")
    for result in best_trials(results):
        fit = result.config.fit
        frozen = f"{result.facts.get('freeze_depth', '?')} ({result.facts.get('freeze_block') or 'none'})"
        table.add_row(
            str(result.number), score_text(result), f"{result.best_epoch}/{result.epochs}", result.status,
            frozen, fit.optimizer, f"{fit.lr:.2g}", fit.lr_scheduler, result.config.batches.augmentation,
        )  # fmt: skip
    return table


def result_lines(candidate: Candidate, baseline: float | None) -> list[str]:
    """Return the test result with its interval, and what raw pixels alone reach."""
    shown = {"test_accuracy": "accuracy", METRIC: "balanced accuracy", "test_macro_f1": "macro-F1"}
    parts = []
    for name, label in shown.items():
        interval = candidate.intervals.get(name)
        span = f" (95 %: {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        parts.append(f"{label} {candidate.metrics[name]:.4f}{span}")
    look = "for the first time" if candidate.test_looks == 1 else f"for the {candidate.test_looks}th time"
    lines = [f"Test, {candidate.test_pictures} pictures that this data set's searches look at {look}:"]
    lines += [f"  {part}" for part in parts]
    if baseline is not None:
        lines.append(f"For comparison, logistic regression on the raw pixels: accuracy {baseline:.4f}")
    return lines


def decision_line(candidate: Candidate, version: int, promotion: Promotion) -> str:
    """Return what became of the candidate."""
    return f"models:/{candidate.name}@{promotion.alias} is now version {version}: {promotion.reason}."


def comparison_link(tracking_uri: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """Return the address of MLflow's page that compares the runs."""
    server = tracking_uri.rstrip("/") if tracking_uri.startswith("http") else LOCAL_UI
    runs = urllib.parse.quote(json.dumps(list(run_ids), separators=(",", ":")))
    experiments = urllib.parse.quote(json.dumps([experiment_id]))
    return f"{server}/?workflowType=machine_learning#/compare-runs?runs={runs}&experiments={experiments}"


def next_commands(tracking_uri: str, link: str, model: str, picture: Path) -> list[str]:
    """Return the three commands that a person types next, each with what it does."""
    predict = f"python -m tuning predict --model {model} --files {shlex.quote(str(picture))}"
    look = f"open {link}" if tracking_uri.startswith("http") else f"mlflow ui   # then open {link}"
    return [
        f"compare the trials:   {look}",
        f"classify a picture:   {predict}",
        "search on your own:   mlflow run . -e tune --env-manager local -P data=FOLDER",
    ]


def show(*parts: object) -> None:
    """Print tables and lines; a line is never wrapped, so that it can be copied."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for part in parts:
        console.print(part)
