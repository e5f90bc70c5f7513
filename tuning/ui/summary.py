"""What is shown at the end of a search: the best trials, the test result, and what to type next."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from tuning.common.formatting import format_score, network_name
from tuning.common.names import TEST_METRIC
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.reevaluation import Improvement, RerunTrial
from tuning.search.selection import ranked
from tuning.tracking.ui_links import MlflowLinks

if TYPE_CHECKING:
    from tuning.search.budget_estimate import BudgetEstimate
    from tuning.search.study import TrialStore

ROWS = 5
NETWORK = "network"
COLUMNS = ("trial", "bal. acc.", "epoch", NETWORK, "px", "frozen", "lr", "augment")
NUMBERS = ("trial", "bal. acc.", "epoch", "px", "frozen", "lr")
MLFLOW_DEFAULT = "sqlite:///mlflow.db"  # in the working directory: what mlflow ui looks at by itself


def plan_line(recipe: Recipe, ledger: TrialStore, at_once: int) -> str:
    """Return what a search is about to do."""
    before = f"{len(ledger.trials())} trials so far, {ledger.num_requeued} of them go on; " if ledger.trials() else ""
    sweep = f"{ledger.num_probes_left} linear probes, then " if ledger.num_probes_left else ""
    most = recipe.max_trials
    trials = f"{max(0, most - ledger.num_trials)} trials" if most is not None else "trials"
    minutes = f", {recipe.budget_s / 60:g} minutes in all" if recipe.budget_s else ""
    return f"{before}{sweep}{trials} of up to {recipe.max_epochs} epochs, {at_once} at once{minutes}"


def budget_line(recipe: Recipe, expected: BudgetEstimate, network: str, image_size: int, at_once: int) -> str:
    """Return what the budget will buy."""
    half, none = (expected.trial_s[fraction] for fraction in (0.5, 0.0))
    trial = (
        f"a trial of {recipe.max_epochs} epochs of {network} at {image_size} px takes about {half:.0f} s with half of "
        f"it frozen, {none:.0f} s with nothing frozen"
    )
    if recipe.budget_s is not None:
        return f"{trial}: {recipe.budget_s / 60:g} minutes buy about {expected.trials} such trials, {at_once} at once"
    return f"{trial}: {recipe.max_trials} such trials, {at_once} at once, take about {expected.minutes:.0f} minutes"


def leaderboard(results: Sequence[TrialRecord]) -> Table:
    """Return the table of the best trials; it fits into 80 columns."""
    table = Table(title="Best trials by validation", title_justify="left", title_style="bold", box=None)
    for name in COLUMNS:
        is_name = name == NETWORK
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=not is_name, overflow="fold")
    for result in ranked(results)[:ROWS]:
        table.add_row(*_cells(result))
    return table


def leaderboard_csv(results: Sequence[TrialRecord]) -> str:
    """Return all trials as CSV, by number: how each ended, its best epoch's metrics, and its settings."""
    rows: list[dict[str, object]] = [
        {
            "trial": result.number,
            "origin": result.origin,
            "status": result.status,
            "reason": result.reason,
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            **result.metrics,
            **result.settings,
            **result.runtime_info,
            "seed": result.config.seed,
            "trial_uid": result.trial_uid,
        }
        for result in results
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cells(result: TrialRecord) -> list[str]:
    """Return what stands in a trial's row, by ``COLUMNS``."""
    config, facts = result.config, result.runtime_info
    return [
        str(result.number),
        format_score(result),
        f"{result.best_epoch}/{result.epochs}",
        network_name(result),
        str(config.preprocessing.image_size),
        f"{facts.get('freeze_depth', '?')}/{facts.get('blocks', '?')}",
        f"{config.fit.lr:.1e}",
        config.batches.augmentation,
    ]


def rerun_lines(best: TrialRecord, finals: Sequence[RerunTrial], gain: Improvement | None) -> list[str]:
    """Return how the finals ended, and whether the search gained more than noise over the default."""
    lines = []
    trained = [one for one in finals if len(one.scores) > 1]
    if trained:
        lines.append("Finals, the best trained again with other seeds:")
        lines += [
            f"  trial {one.trial.number}: mean {one.mean:.4f}, spread {one.std:.4f} over {len(one.scores)} seeds"
            + (" (wins)" if one.trial.trial_uid == best.trial_uid else "")
            for one in trained
        ]
    if gain is not None:
        verdict = "more than" if gain.is_significant else "not more than"
        lines.append(
            f"Against the default: {gain.difference:+.4f} on validation, {verdict} twice the noise ({gain.standard_error:.4f})"
        )
    return lines


def rerun_metrics(best: TrialRecord, finals: Sequence[RerunTrial], gain: Improvement | None) -> dict[str, float]:
    """Return the finals' numbers by their names in MLflow."""
    metrics: dict[str, float] = {}
    for one in finals:
        if one.trial.trial_uid == best.trial_uid and len(one.scores) > 1:
            metrics |= {"best_mean": one.mean, "best_spread": one.std, "best_seeds": len(one.scores)}
    if gain is not None:
        metrics |= {"gain_over_default": gain.difference, "gain_noise": gain.standard_error}
    return metrics


def result_lines(candidate: Candidate, baseline: float | None) -> list[str]:
    """Return the test result with its interval, and what raw pixels alone reach."""
    shown = {"test_accuracy": "accuracy", TEST_METRIC: "balanced accuracy", "test_macro_f1": "macro-F1"}
    parts = []
    for name, label in shown.items():
        interval = candidate.intervals.get(name)
        span = f" (95 %: {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        parts.append(f"{label} {candidate.metrics[name]:.4f}{span}")
    look = f"look number {candidate.test_evaluations} at this data set's"
    lines = [f"On the {candidate.num_test_images} test pictures ({look}):"]
    lines += [f"  {part}" for part in parts]
    if baseline is not None:
        lines.append(f"  logistic regression on the raw pixels, for comparison: accuracy {baseline:.4f}")
    return lines


def run_note(
    results: Sequence[TrialRecord],
    best: TrialRecord,
    candidate: Candidate,
    decision: str,
    pages: MlflowLinks | None = None,
) -> str:
    """Return the parent run's description in Markdown: what came of the search, and where to look next."""
    head = "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS)
    rows = "\n".join("| " + " | ".join(_linked(result, pages)) + " |" for result in ranked(results)[:ROWS])
    tests = "\n".join(f"- {line.strip()}" for line in result_lines(candidate, None)[1:])
    return (
        f"{decision}\n\n{pages.markdown(results, best) if pages else ''}"
        f"**Test** ({candidate.num_test_images} pictures)\n\n{tests}\n\n**Best trials**\n\n{head}\n{rows}\n"
    )


def _linked(result: TrialRecord, pages: MlflowLinks | None) -> list[str]:
    """Return a trial's cells, its number a link to its run where that is known."""
    number, *cells = _cells(result)
    if pages and (run_id := pages.trial_run_id(result)):
        number = f"[{number}]({pages.run_url(run_id)})"
    return [number, *cells]


def next_commands(tracking_uri: str, link: str, model: str, picture: Path) -> list[str]:
    """Return the three commands that a person types next, each with what it does."""
    predict = f"python -m tuning predict --model {model} --files {shlex.quote(str(picture))}"
    store = "" if tracking_uri == MLFLOW_DEFAULT else f" --backend-store-uri {shlex.quote(tracking_uri)}"
    look = f"open '{link}'" if tracking_uri.startswith("http") else f"mlflow ui{store}   # then open {link}"
    return [
        f"compare the trials:   {look}",
        f"classify a picture:   {predict}",
        "search on your own:   mlflow run . -e tune --env-manager local -P data=FOLDER",
    ]
