"""Continue an interrupted search, or extend a finished one."""

from __future__ import annotations

from tuning.common.environment import process_started_s
from tuning.common.signals import handle_signals
from tuning.recipe.schema import ResumeRequest

EXAMPLE = "freezeline resume PARENT_RUN_ID --minutes 10"
POSITIONALS = ("run",)

Options = ResumeRequest


def run(options: ResumeRequest, mlflow_run_id: str | None) -> int:
    """Run the remaining trials of the search in the same parent run, and finish it."""
    from tuning.ui.session import open_event_bus

    with open_event_bus("resume", options.quiet, options.events) as bus, handle_signals(bus.warning) as signals:
        from tuning.workflows.context import Context
        from tuning.workflows.resume import resume

        context = Context(bus, signals, process_started_s(), mlflow_run_id)
        return bus.end(resume(options, context))
