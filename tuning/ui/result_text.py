"""The result of a search or a training as text, and the commands to run next; lines fit into 80 columns if they can."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data.text import pluralize
from tuning.common.formatting import (
    clock,
    cost_text,
    format_score,
    frozen_text,
    member_text,
    network_name,
)
from tuning.common.names import TEST_METRIC
from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.trial_record import TrialOrigin, TrialRecord
from tuning.search.gains import Gain
from tuning.search.search_result import SearchResult
from tuning.search.time_budget import Elapsed

LABEL_WIDTH = 10
MAX_WIDTH = 80
MLFLOW_DEFAULT = "sqlite:///mlflow.db"  # in the working directory: the default of mlflow ui
ORIGIN_NOUNS: Mapping[TrialOrigin, str] = {
    "champion": "champion configuration",
    "probe": "linear probe",
    "default": "default",
    "fine_tune": "fine-tune",
    "sampler": "sampler proposal",
    "rerun": "re-run",
}
SERVE_PORT = 5001  # mlflow ui uses 5000


def metrics_lines(candidate: Candidate, pixel_baseline: float | None) -> Iterator[str]:
    """Yield the test metrics with their confidence intervals, and the baselines."""
    images = pluralize(candidate.num_test_images, "image")
    evaluations = pluralize(candidate.test_evaluations, "time")
    yield from _wrapped("RESULT", f"test {_metric(candidate, TEST_METRIC, 'balanced accuracy', '95% CI ')}")
    others = _metric(candidate, "test_accuracy", "accuracy"), _metric(candidate, "test_macro_f1", "macro-F1")
    yield from _wrapped("", ", ".join(others))
    yield from _wrapped("", f"on {images}; test set evaluated {evaluations}")
    majority = max(Counter(candidate.y_true).values()) / candidate.num_test_images
    pixels = "" if pixel_baseline is None else f", raw pixels {pixel_baseline:.4f}"
    yield from _wrapped("", f"baselines (accuracy): majority class {majority:.4f}{pixels}")


def _metric(candidate: Candidate, name: str, label: str, ci: str = "") -> str:
    interval = candidate.intervals.get(name)
    suffix = f" [{ci}{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
    return f"{label} {candidate.metrics[name]:.4f}{suffix}"


def model_lines(result: SearchResult, candidate: Candidate) -> Iterator[str]:
    """Yield the networks of the model, its costs, its trial with the default configuration, and why it was chosen."""
    for number, network in enumerate(_networks(result.winner, candidate)):
        yield from _wrapped("" if number else "MODEL", network)
    yield from _wrapped("", cost_text(candidate, result.winner_cost))
    first = "first network: " if candidate.is_ensemble else ""
    yield from _wrapped("", f"{first}{_winner_text(result.winner, result.default)}")
    if result.choice:
        yield from _wrapped("CHOICE", result.choice.text)
    if result.gains:
        yield from _wrapped("GAIN", _gains_text(result.gains))
    yield from _wrapped("TRIALS", _origins_text(result.trials))


def _gains_text(gains: Sequence[Gain]) -> str:
    """Return the gains in points of balanced accuracy with their standard errors."""
    texts = [
        f"{100 * gain.difference.mean:+.1f} points (standard error {100 * gain.difference.standard_error:.1f}) over "
        f"{gain.baseline} on {pluralize(gain.num_images, 'image')}"
        for gain in gains
    ]
    return f"held-out balanced accuracy {', '.join(texts)}"


def _origins_text(trials: Sequence[TrialRecord]) -> str:
    """Return the number of trials of each origin, in the order in which they start."""
    counts = Counter(trial.origin for trial in trials)
    return ", ".join(pluralize(counts[origin], noun) for origin, noun in ORIGIN_NOUNS.items() if counts[origin])


def _winner_text(winner: TrialRecord, default: TrialRecord | None) -> str:
    score = f"trial {winner.number}, validation {format_score(winner)}"
    if default is None or default.score is None or default.trial_uid == winner.trial_uid:
        return f"{score}{' (the default configuration)' if default == winner else ''}"
    cut_off = " (out of time)" if default.status == "out of time" else ""
    return f"{score}; default configuration {format_score(default)}{cut_off}"


def _networks(winner: TrialRecord, candidate: Candidate) -> Iterator[str]:
    if candidate.is_ensemble:
        yield f"mean of {len(candidate.members)} networks"
        yield from map(member_text, candidate.members)
    else:
        yield f"{network_name(winner)}, {winner.config.preprocessing.image_size} px, {frozen_text(winner)} frozen"


def decision_lines(text: str, model: str) -> list[str]:
    """Return the promotion decision; ``model`` is the URI with its alias, empty if nothing was decided."""
    alias = model.rpartition("@")[2].upper()
    return _wrapped(alias or "REGISTRY", text)


def _wrapped(label: str, text: str) -> list[str]:
    """Return a text after its label, wrapped between words."""
    label = f"{label:{LABEL_WIDTH - 1}} "
    lines = textwrap.wrap(text, MAX_WIDTH - len(label), break_long_words=False, break_on_hyphens=False)
    return [f"{label if number == 0 else ' ' * len(label)}{line}" for number, line in enumerate(lines)]


class RegisteredVersion(NamedTuple):
    """The version that a search has registered under ``name``, and the decision about it."""

    name: str
    version: int
    promotion: Promotion

    @property
    def recommended_uri(self) -> str:
        """The model to use: the champion, or the challenger if there is no champion."""
        has_champion = self.promotion.alias == "champion" or self.promotion.champion is not None
        return f"models:/{self.name}@{'champion' if has_champion else 'challenger'}"

    @property
    def note(self) -> str:
        """Which version that is, and where the model of this search is."""
        own = f"the model of this search is version {self.version}, models:/{self.name}@challenger"
        if self.promotion.alias == "champion":
            return f"champion is version {self.version}, the model of this search"
        if self.promotion.champion is None:
            return f"there is no champion yet; {own}"
        return f"champion is still version {self.promotion.champion}; {own}"


def next_commands(tracking_uri: str, run_url: str, registered: RegisteredVersion | None, image: Path) -> list[str]:
    """Return the page to look at and the commands to run next, each on one line.

    ``run_url`` is empty for an offline search; ``registered`` is None if no version was registered.
    """
    lines = _ui_lines(tracking_uri, run_url) if run_url else []
    if registered:
        model = registered.recommended_uri
        lines += command_lines("Predict", f"freezeline predict {model} {shlex.quote(_short(image))}")
        lines += command_lines("Serve", f"mlflow models serve -m {model} --env-manager local -p {SERVE_PORT}")
        lines += _wrapped("", registered.note)
    return lines


def continue_lines(run_id: str) -> list[str]:
    """Return the command that continues a search."""
    return command_lines("Continue", f"freezeline resume {run_id} --minutes 10")


def time_lines(elapsed: Elapsed, budget_s: float | None) -> list[str]:
    """Return the time that counts against the budget, by how much it was exceeded, and the time of all sessions."""
    return command_lines("Time", time_text(elapsed, budget_s))


def time_text(elapsed: Elapsed, budget_s: float | None) -> str:
    """Return the text of ``time_lines``."""
    text, over_s = clock(elapsed.counted_s), elapsed.counted_s - (budget_s or 0.0)
    if budget_s is not None:
        text += f", {f'{clock(over_s)} over' if over_s >= 1 else 'within'} the budget of {clock(budget_s)}"
    return f"{text}; {clock(elapsed.total_s)} with earlier sessions" if elapsed.earlier_s else text


def _ui_lines(tracking_uri: str, run_url: str) -> list[str]:
    if tracking_uri.startswith("http"):
        return command_lines("MLflow", run_url)
    default_file = f"sqlite:///{Path('mlflow.db').absolute()}"
    is_default = tracking_uri in {MLFLOW_DEFAULT, default_file}
    backend = "" if is_default else f" --backend-store-uri {shlex.quote(tracking_uri)}"
    return [*command_lines("MLflow", f"mlflow ui{backend}"), f"  {run_url}"]


def command_lines(label: str, command: str) -> list[str]:
    """Return a command after its label, or below it if the line would be too long."""
    line = f"{label:{LABEL_WIDTH}}{command}"
    return [line] if len(line) <= MAX_WIDTH else [label, f"  {command}"]


def _short(file: Path) -> str:
    return min(str(file), os.path.relpath(file), key=len)
