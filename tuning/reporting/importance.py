"""Hyperparameter importance: the share of each setting in the variance of the scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuning.common.option_types import ParamValue
from tuning.common.trial_record import TrialRecord
from tuning.reporting.drawing import new_figure, percent_axis
from tuning.reporting.theme import BLUE, FIGURE_SIZE

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution

LOG_SCALE_SETTINGS = ("lr", "weight_decay")
MAX_IMPORTANCES = 10  # bars
BAR_INCHES = 0.32  # height of a bar with its margin
MIN_IMPORTANCE_TRIALS = 20  # fewer give shares that another seed of the estimator would turn upside down


def importances(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the importance of each setting as its share of the score's variance (fANOVA), largest first.

    Empty with fewer than ``MIN_IMPORTANCE_TRIALS``, or if they all have the same score.
    """
    from optuna.importance import get_param_importances

    counted = importance_trials(trials)
    if len(counted) < MIN_IMPORTANCE_TRIALS:
        return {}
    study = to_study(counted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importance_by_name = get_param_importances(study)
        except (ValueError, RuntimeError):  # all scores equal, or fewer than two trials
            return {}
    valid = {name: value for name, value in importance_by_name.items() if value > 0 and math.isfinite(value)}
    return dict(list(valid.items())[:MAX_IMPORTANCES])


def importance_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials without probes, which all share most settings, and without re-runs."""
    return [trial for trial in trials if trial.status == "complete" and trial.counts_as_trial and trial.is_eligible]


def to_study(trials: Sequence[TrialRecord]) -> optuna.Study:
    """Return the trials with a score as an in-memory study, without the settings that all trials share.

    In the study of the search, a conditional setting has a name of its own (SGD's learning rate, a variant's image
    size). Here each setting has the option's name, so that all trials are comparable.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    eligible = [trial for trial in trials if trial.is_eligible]
    distributions = _distributions([trial.settings for trial in eligible])
    study = optuna.create_study(direction="maximize")
    for trial in eligible:
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if trial.status == "complete" else TrialState.PRUNED,
                value=trial.score,
                params={name: trial.settings[name] for name in distributions},
                distributions=distributions,
            )
        )
    return study


def _distributions(settings: Sequence[dict[str, ParamValue]]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    distributions: dict[str, BaseDistribution] = {}
    common = [name for name in (settings[0] if settings else ()) if all(name in params for params in settings)]
    for name in common:
        values = list(dict.fromkeys(params[name] for params in settings))
        numbers = [float(value) for value in values if not isinstance(value, str)]
        if len(values) < 2:
            continue
        if len(numbers) < len(values):
            distributions[name] = CategoricalDistribution(values)
        else:
            low, high = min(numbers), max(numbers)
            distributions[name] = FloatDistribution(low, high, log=name in LOG_SCALE_SETTINGS and low > 0)
    return distributions


def draw_importance(importance_by_name: Mapping[str, float]) -> Figure:
    """Draw a bar for each setting, the most important at the top."""
    figure, axes = new_figure((FIGURE_SIZE[0], 1.0 + BAR_INCHES * len(importance_by_name)))
    names, shares = zip(*reversed(list(importance_by_name.items())), strict=True)
    bars = axes.barh(names, shares, color=BLUE)
    axes.bar_label(bars, [f"{share:.0%}" if share >= 0.01 else "<1%" for share in shares], padding=4)
    axes.set(xlabel="share of score variance (fANOVA)")
    percent_axis(axes.xaxis)
    axes.grid(visible=False)
    axes.margins(x=0.16)
    return figure
