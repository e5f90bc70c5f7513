"""A search's trials as an Optuna study in memory, for Optuna's own charts.

The study that the search was made with has one name for a setting that depends on another (SGD's rate, a variant's
size); here each has the name that the user knows, so that all trials can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.common.trial_record import ParamValue
from tuning.reporting.content import ReportTrial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

LOGARITHMIC = ("lr", "weight_decay")


def to_study(trials: Sequence[ReportTrial], with_pruned: bool = False) -> optuna.Study:
    """Return a study of the trials that have a score; those that were pruned count as ended where they were, or not.

    Settings that were the same in all trials are left out: nothing can be said about them.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scored = [trial.trial for trial in trials if trial.trial.is_eligible]
    asked = _distributions([result.settings for result in scored])
    study = optuna.create_study(direction="maximize")
    for result in scored:
        is_whole = result.status == "complete" or with_pruned
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_whole else TrialState.PRUNED,
                value=result.score,
                params={name: result.settings[name] for name in asked},
                distributions=asked,
            )
        )
    return study


def _distributions(settings: Sequence[dict[str, ParamValue]]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, BaseDistribution] = {}
    common = [name for name in (settings[0] if settings else ()) if all(name in each for each in settings)]
    for name in common:
        values = list(dict.fromkeys(each[name] for each in settings))
        numbers = [float(value) for value in values if not isinstance(value, str)]
        if len(values) < 2:
            continue
        if len(numbers) < len(values):
            found[name] = CategoricalDistribution(values)
        else:
            low, high = min(numbers), max(numbers)
            found[name] = FloatDistribution(low, high, log=name in LOGARITHMIC and low > 0)
    return found
