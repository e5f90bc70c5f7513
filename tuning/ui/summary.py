"""Texts and tables of a search: its plan, the best trials, and the description of its run."""

from __future__ import annotations

from collections.abc import Sequence

from data.text import pluralize
from tuning.common.formatting import (
    NetworkText,
    format_lr,
    format_score,
    frozen_text,
    member_text,
    network_name,
    short_network_name,
    table_network,
)
from tuning.common.names import OOF_LOSS_METRIC, TEST_METRIC, WINNER_METRIC
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
COLUMNS = ("trial", "bal. acc.", "cv loss", "epochs", "s", NETWORK, "px", "frozen", "lr", "augment")


def plan_line(recipe: Recipe, trials: Sequence[TrialRecord], num_probes: int, num_dropped: int) -> str:
    """Return the plan of a search: its probes, trials and epochs.

    ``trials`` are those before a resume, which drops ``num_dropped`` probes.
    """
    unfinished = sum(trial.status == "running" for trial in trials)
    resumed = f"resuming: {pluralize(len(trials) - unfinished, 'trial')} done, {unfinished} unfinished; "
    dropped = f"{pluralize(num_dropped, 'probe')} dropped, because the sweep is over; " if num_dropped else ""
    sweep = f"{pluralize(num_probes, 'probe')}, then " if num_probes else ""
    max_trials = recipe.max_trials
    planned = "trials" if max_trials is None else pluralize(max(0, max_trials - num_counted(trials)), "trial")
    images = f" of about {recipe.images_per_epoch:,} images" if recipe.images_per_epoch else ""
    epochs = f"{pluralize(recipe.max_epochs, 'epoch')}{images}"
    start = f"{_starts_text(recipe)}; " if recipe.start_settings and not trials else ""
    return f"{resumed if trials else ''}{start}{dropped}{sweep}{planned} of up to {epochs}"


def _starts_text(recipe: Recipe) -> str:
    count = len(recipe.start_settings)
    configurations = "configuration" if count == 1 else f"{count} configurations"
    return f"first the {configurations} of {recipe.start_from}"


def leaderboard(
    trials: Sequence[TrialRecord],
    winners: Sequence[TrialRecord] = (),
    links: MlflowLinks | None = None,
    network: NetworkText = table_network,
) -> TextTable:
    """Return the table of the best trials, which fits into 80 columns; ``*`` marks the winners.

    There are several winners if they form an ensemble. ``cv loss`` is the log loss of a probe over the folds. With
    ``links``, the trials' numbers link to their runs.
    """
    best = ranked(trials)[:MAX_ROWS]
    uids = {trial.trial_uid for trial in best}
    rows = [*best, *(winner for winner in winners if winner.trial_uid not in uids)]
    winner_uids = {winner.trial_uid for winner in winners}
    cells = [_cells(trial, links, network(trial), is_winner=trial.trial_uid in winner_uids) for trial in rows]
    mark = "" if not winners else " (* winner)" if len(winners) == 1 else " (* members of the winner)"
    title = f"Best trials by validation: {_counts(rows, trials)}{mark}"
    return TextTable(title, COLUMNS, cells, text_columns={NETWORK, "augment"}, wrapped={NETWORK})


def _counts(rows: Sequence[TrialRecord], trials: Sequence[TrialRecord]) -> str:
    """Return how many of all trials are listed, and how many have no score and cannot be."""
    without_score = sum(trial.score is None for trial in trials)
    return f"{len(rows)} of {len(trials):,}" + (f", {without_score:,} without a score" if without_score else "")


def _cells(trial: TrialRecord, links: MlflowLinks | None, network: str, is_winner: bool) -> list[str]:
    """Return the cells of a trial's row, in the order of ``COLUMNS``."""
    config = trial.config
    run_id = links.trial_run_id(trial) if links else ""
    number = f"[{trial.number}]({links.run_url(run_id)})" if links and run_id else str(trial.number)
    return [
        f"* {number}" if is_winner else number,
        format_score(trial),
        f"{trial.metrics[OOF_LOSS_METRIC]:.3f}" if OOF_LOSS_METRIC in trial.metrics else "-",
        str(trial.epochs),
        f"{trial.wall_s:.0f}",
        network,
        str(config.preprocessing.image_size),
        frozen_text(trial),
        format_lr(config),
        config.batches.augmentation,
    ]


def rerun_lines(result: SearchResult) -> list[str]:
    """Return the results of the re-runs, and the improvement over the default with its significance."""
    lines = ["Best trials re-run with other seeds:"] if result.reruns else []
    for rerun in result.reruns:
        is_winner = " (winner)" if rerun.trial.trial_uid == result.winner.trial_uid else ""
        scores = f"mean {rerun.mean:.4f}, std {rerun.std:.4f} over {pluralize(len(rerun.scores), 'seed')}"
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
    if (choice := result.choice) is not None:
        score, loss = choice.estimate
        metrics |= {"selection_score": score.mean, "selection_se": score.standard_error, "selection_loss": loss.mean}
    return metrics


def winner_text(result: SearchResult) -> str:
    """Return the winner's networks in short: ``lite2@224``, or ``mean of lite0@160, lite1@224``."""
    configs = [member.trial.config for member in result.members]
    networks = [f"{short_network_name(each.network.backbone)}@{each.preprocessing.image_size}" for each in configs]
    return networks[0] if len(networks) == 1 else f"mean of {', '.join(networks)}"


def describe_winner(result: SearchResult) -> str:
    """Return the number of the winning trial, or the numbers of an ensemble's trials."""
    numbers = [str(member.trial.number) for member in result.members]
    return f"trial {numbers[0]}" if len(numbers) == 1 else f"the mean of trials {', '.join(numbers)}"


def metric_lines(candidate: Candidate) -> list[str]:
    """Return the test metrics with their confidence intervals, as a Markdown list."""
    labels = {"test_accuracy": "accuracy", TEST_METRIC: "balanced accuracy", "test_macro_f1": "macro-F1"}
    lines = []
    for name, label in labels.items():
        interval = candidate.intervals.get(name)
        ci = f" (95% CI {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        lines.append(f"- {label} {candidate.metrics[name]:.4f}{ci}")
    return lines


def run_note(
    result: SearchResult,
    candidate: Candidate,
    decision: str,
    warnings: Sequence[str] = (),
    links: MlflowLinks | None = None,
) -> str:
    """Return the parent run's description in Markdown: decision, links, warnings, test metrics and best trials."""
    metrics = "\n".join(metric_lines(candidate))
    members = "".join(f"- {member_text(member)}\n" for member in candidate.members)
    networks = f"**Networks** (weighted mean of their probabilities)\n\n{members}\n" if candidate.is_ensemble else ""
    images = pluralize(candidate.num_test_images, "image")
    cautions = "".join(f"- Warning: {text}\n" for text in warnings) + "\n" if warnings else ""
    table = leaderboard(result.trials, [member.trial for member in result.members], links, network_name)
    chosen = f"**Choice**: {result.choice.text}\n\n" if result.choice else ""
    return (
        f"{decision}\n\n{links.markdown(result.winner) if links else ''}"
        f"{cautions}{networks}{chosen}**Test** ({images})\n\n{metrics}\n{table.to_markdown()}"
    )
