"""A search's trials as an in-memory Optuna study, for Optuna's own charts.

In the study of the search, a conditional setting has a name of its own (SGD's learning rate, a variant's image size).
Here each setting has the option's name, so that all trials are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.common.trial_record import ParamValue, TrialRecord

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

LOG_SCALE_SETTINGS = ("lr", "weight_decay")


def to_study(trials: Sequence[TrialRecord], with_pruned: bool = False) -> optuna.Study:
    """Return a study of the trials with a score.

    Settings with the same value in all trials are left out.

    Args:
        trials: all trials.
        with_pruned: add pruned trials as complete ones, with the score of their best epoch.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    eligible = [trial for trial in trials if trial.is_eligible]
    distributions = _distributions([trial.settings for trial in eligible])
    study = optuna.create_study(direction="maximize")
    for trial in eligible:
        is_complete = trial.status == "complete" or with_pruned
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
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
