"""Texts and tables of a search: its plan, the best trials, the test result, and the commands to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tuning.common.formatting import format_score, network_name, pluralize
from tuning.common.names import TEST_METRIC, WINNER_METRIC
from tuning.common.promotion_types import Candidate
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.search.search_result import SearchResult
from tuning.search.selection import ranked
from tuning.search.strategy import num_counted
from tuning.tracking.ui_links import MlflowLinks
from tuning.ui.tables.text_table import TextTable

MAX_ROWS = 5  # of the leaderboard
NETWORK = "network"
COLUMNS = ("trial", "bal. acc.", "best epoch", NETWORK, "px", "frozen", "lr", "augment")
MLFLOW_DEFAULT = "sqlite:///mlflow.db"  # in the working directory: the default of mlflow ui


def plan_line(recipe: Recipe, trials: Sequence[TrialRecord], num_probes: int, max_concurrent: int) -> str:
    """Return the plan of a search: its probes, trials, epochs and time budget; ``trials`` are those before a resume."""
    unfinished = sum(trial.status == "running" for trial in trials)
    resumed = f"resuming: {len(trials) - unfinished} trials finished, {unfinished} unfinished; " if trials else ""
    sweep = f"{pluralize(num_probes, 'linear probe')}, then " if num_probes else ""
    max_trials = recipe.max_trials
    planned = "trials" if max_trials is None else pluralize(max(0, max_trials - num_counted(trials)), "trial")
    epochs = f"up to {pluralize(recipe.max_epochs, 'epoch')}"
    budget = f", time budget {_minutes(recipe.budget_s / 60)}" if recipe.budget_s else ""
    return f"{resumed}{sweep}{planned} of {epochs}, {max_concurrent} in parallel{budget}"


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def leaderboard(trials: Sequence[TrialRecord], links: MlflowLinks | None = None) -> TextTable:
    """Return the table of the best trials, which fits into 80 columns; with ``links``, numbers link to their runs."""
    rows = [_cells(trial, links) for trial in ranked(trials)[:MAX_ROWS]]
    text_columns = {NETWORK, "augment"}
    return TextTable("Best trials by validation", COLUMNS, rows, text_columns=text_columns, wrapped={NETWORK})


def leaderboard_csv(trials: Sequence[TrialRecord]) -> str:
    """Return all trials by score, the best first, as CSV: score, status, metrics of the best epoch, and settings."""
    import pandas as pd

    scored = ranked(trials)
    uids = {trial.trial_uid for trial in scored}
    others = [trial for trial in trials if trial.trial_uid not in uids]

    rows = [
        {
            "score": trial.score,
            "trial": trial.number,
            "origin": trial.origin,
            "status": trial.status,
            "reason": trial.reason,
            "epochs": trial.epochs,
            "best_epoch": trial.best_epoch,
            **trial.metrics,
            **trial.settings,
            **trial.runtime_info,
            "seed": trial.config.seed,
            "trial_uid": trial.trial_uid,
        }
        for trial in (*scored, *others)
    ]
    return str(pd.DataFrame(rows, dtype=object).to_csv(index=False))


def _cells(trial: TrialRecord, links: MlflowLinks | None) -> list[str]:
    """Return the cells of a trial's row, in the order of ``COLUMNS``."""
    config, info = trial.config, trial.runtime_info
    run_id = links.trial_run_id(trial) if links else ""
    return [
        f"[{trial.number}]({links.run_url(run_id)})" if links and run_id else str(trial.number),
        format_score(trial),
        f"{trial.best_epoch}/{trial.epochs}",
        network_name(trial),
        str(config.preprocessing.image_size),
        f"{info.get('freeze_depth', '?')}/{info.get('blocks', '?')}",
        f"{config.fit.lr:.1e}",
        config.batches.augmentation,
    ]


def rerun_lines(result: SearchResult) -> list[str]:
    """Return the results of the re-runs, and the improvement over the default with its significance."""
    lines = ["Best trials re-run with other seeds:"] if result.reruns else []
    for rerun in result.reruns:
        is_winner = " (winner)" if rerun.trial.trial_uid == result.winner.trial_uid else ""
        scores = f"mean {rerun.mean:.4f}, std {rerun.std:.4f} over {len(rerun.scores)} seeds"
        if len(rerun.scores) == 1:
            scores = f"{rerun.mean:.4f}, not re-run: out of time"
        lines.append(f"  trial {rerun.trial.number}: {scores}{is_winner}")
    if (improvement := result.improvement) is not None:
        significance = "significant" if improvement.is_significant else "not significant"
        lines.append(
            f"Compared with the default: {improvement.difference:+.4f} on validation, {significance} "
            f"(standard error {improvement.standard_error:.4f})"
        )
    return lines


def winner_metrics(result: SearchResult) -> dict[str, float]:
    """Return the winner's validation metrics, its re-runs and the gain over the default, by metric name in MLflow."""
    best = result.winner
    metrics = {f"best_{name}": value for name, value in best.metrics.items() if name.startswith("val_")}
    metrics |= {WINNER_METRIC: best.number, "best_epoch": best.best_epoch, "trials": len(result.trials)}
    for rerun in result.reruns:
        if rerun.trial.trial_uid == best.trial_uid and len(rerun.scores) > 1:
            metrics |= {"best_mean": rerun.mean, "best_std": rerun.std, "best_seeds": len(rerun.scores)}
    if (improvement := result.improvement) is not None:
        metrics |= {
            "gain_over_default": improvement.difference,
            "gain_standard_error": improvement.standard_error,
        }
    return metrics


def result_lines(candidate: Candidate, baseline: float | None) -> list[str]:
    """Return the test metrics with their confidence intervals, and the accuracy of the pixel baseline."""
    labels = {"test_accuracy": "accuracy", TEST_METRIC: "balanced accuracy", "test_macro_f1": "macro-F1"}
    evaluations = pluralize(candidate.test_evaluations, "time")
    lines = [f"Test result on {pluralize(candidate.num_test_images, 'image')} (test set evaluated {evaluations}):"]
    for name, label in labels.items():
        interval = candidate.intervals.get(name)
        ci = f" (95% CI {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        lines.append(f"  {label} {candidate.metrics[name]:.4f}{ci}")
    if baseline is not None:
        lines.append(f"  baseline, logistic regression on raw pixels: accuracy {baseline:.4f}")
    return lines


def run_note(
    result: SearchResult,
    candidate: Candidate,
    decision: str,
    warnings: Sequence[str] = (),
    links: MlflowLinks | None = None,
) -> str:
    """Return the parent run's description in Markdown: decision, links, warnings, test metrics and best trials."""
    metrics = "\n".join(f"- {line.strip()}" for line in result_lines(candidate, None)[1:])
    images = pluralize(candidate.num_test_images, "image")
    cautions = "".join(f"- Warning: {text}\n" for text in warnings) + "\n" if warnings else ""
    return (
        f"{decision}\n\n{links.markdown(result.winner) if links else ''}"
        f"{cautions}**Test** ({images})\n\n{metrics}\n{leaderboard(result.trials, links).to_markdown()}"
    )


def next_commands(tracking_uri: str, link: str, model: str, image: Path) -> list[str]:
    """Return suggested next commands, each with its purpose."""
    predict = f"python -m tuning predict --model {model} --files {shlex.quote(str(image))}"
    backend = "" if tracking_uri == MLFLOW_DEFAULT else f" --backend-store-uri {shlex.quote(tracking_uri)}"
    compare = f"open '{link}'" if tracking_uri.startswith("http") else f"mlflow ui{backend}   # then open {link}"
    return [
        f"compare the trials:   {compare}",
        f"classify an image:    {predict}",
        "run on your own data: mlflow run . -e tune --env-manager local -P data=FOLDER",
    ]
