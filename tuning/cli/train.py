"""Train one configuration, or that of a finished trial again."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.errors import SettingError
from tuning.cli.parser import parse
from tuning.recipe.schema import TrainingSettings

EXAMPLE = "python -m tuning train --data photos/ --freeze_fraction 0.5 --lr 1e-3"


class TrainOptions(TrainingSettings):
    """The options of ``train``: a setting left open takes the value that a search tries first."""

    run: str = Field("", description="id of a trial's run: train its configuration again, on its data")


OPTIONS = TrainOptions
NO_SETTINGS = {"run", "quiet", "events"}  # options that are none of the training's settings


def run(arguments: Sequence[str]) -> int:
    """Train, measure on the test pictures and package, without registering."""
    options = parse(TrainOptions, arguments)
    if options.run:
        _check_alone(options)
    from tuning.ui.session import run_with_ui

    def work() -> int:
        from tuning.workflows.train import train

        return train(options, options.run)

    return run_with_ui("train", options.quiet, options.events, work)


def _check_alone(options: TrainOptions) -> None:
    """Refuse settings beside ``run``, which has them all; ``mlflow run`` hands on defaults, which are none."""
    fields = TrainOptions.model_fields
    given = [name for name in options.model_fields_set - NO_SETTINGS if getattr(options, name) != fields[name].default]
    if given:
        listed = ", ".join(f"--{name}" for name in sorted(given))
        raise SettingError(
            f"run trains a trial again with its own settings, so nothing else can be given; leave out {listed}"
        )
