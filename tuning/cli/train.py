"""Train one configuration, or again that of a finished trial or a registered version."""

from __future__ import annotations

from pydantic import Field

from data.errors import SettingError
from tuning.common.environment import process_started_s
from tuning.common.signals import handle_signals
from tuning.recipe.schema import TrainingSettings

EXAMPLE = "freezeline train photos/ --freeze-fraction 0.5 --lr 1e-3"
POSITIONALS = ("data",)


class Options(TrainingSettings):
    """The options of ``train``: a setting that is not given takes the value of a search's default trial."""

    run: str = Field("", description="ID of a trial's run: train its configuration again on its data")
    model: str = Field(
        "", description="registered version to train again on its data: models:/NAME/3 or models:/NAME@champion"
    )


OUTPUT_OPTIONS = {"quiet", "events"}  # the only ones that are accepted together with run or model


def run(options: Options, mlflow_run_id: str | None) -> int:
    """Train, evaluate on the test images and package, without registering."""
    check_options(options)
    from tuning.ui.session import open_event_bus

    with open_event_bus("train", options.quiet, options.events) as bus, handle_signals(bus.warning) as signals:
        from tuning.workflows.context import Context
        from tuning.workflows.train import train

        context = Context(bus, signals, process_started_s(), mlflow_run_id)
        return bus.end(train(options, options.run, options.model, context))


def check_options(options: Options) -> None:
    """Check that a trial or version to train again is given without other settings.

    Raises:
        SettingError: there are other settings.
    """
    for source in ("run", "model"):
        if getattr(options, source):
            _check_only_source(options, source)


def _check_only_source(options: Options, source: str) -> None:
    """Refuse settings in addition to ``source``; default values are accepted, because ``mlflow run`` passes them."""
    fields = Options.model_fields
    given = options.model_fields_set - OUTPUT_OPTIONS - {source}
    extra = [name for name in given if getattr(options, name) != fields[name].default]
    if extra:
        options_text = ", ".join(f"--{name}" for name in sorted(extra))
        raise SettingError(
            f"{source} trains a configuration again with its own settings, got other settings too; "
            f"remove {options_text}"
        )
