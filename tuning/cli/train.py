"""Train one configuration, or retrain that of a finished trial."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.errors import SettingError
from tuning.cli.parser import parse
from tuning.recipe.schema import TrainingSettings

EXAMPLE = "python -m tuning train --data photos/ --freeze_fraction 0.5 --lr 1e-3"


class TrainOptions(TrainingSettings):
    """The options of ``train``: a setting that is not given takes the value of a search's default trial."""

    run: str = Field("", description="ID of a trial's run: retrain its configuration on its data")


OPTIONS = TrainOptions
NOT_SETTINGS = {"run", "quiet", "events"}  # options that are not training settings


def run(arguments: Sequence[str], mlflow_run_id: str | None) -> int:
    """Train, evaluate on the test images and package, without registering."""
    options = parse(TrainOptions, arguments)
    if options.run:
        _check_only_run(options)
    from tuning.ui.session import open_event_bus

    with open_event_bus("train", options.quiet, options.events) as bus:
        from tuning.workflows.train import train

        return bus.end(train(options, options.run, mlflow_run_id, bus))


def _check_only_run(options: TrainOptions) -> None:
    """Refuse settings in addition to ``run``; default values are accepted, because ``mlflow run`` passes them."""
    fields = TrainOptions.model_fields
    extra = [name for name in options.model_fields_set - NOT_SETTINGS if getattr(options, name) != fields[name].default]
    if extra:
        options_text = ", ".join(f"--{name}" for name in sorted(extra))
        raise SettingError(f"run retrains a trial with its own settings, got other settings too; remove {options_text}")
