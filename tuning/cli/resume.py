"""Continue an interrupted search, or extend a finished one."""

from __future__ import annotations

from tuning.recipe.schema import ResumeRequest

EXAMPLE = "python -m tuning resume --run PARENT_RUN_ID --trials 20"

Options = ResumeRequest


def run(options: ResumeRequest, mlflow_run_id: str | None) -> int:
    """Run the remaining trials of the search in the same parent run, and finish it."""
    from tuning.ui.session import open_event_bus

    with open_event_bus("resume", options.quiet, options.events) as bus:
        from tuning.workflows.resume import resume

        return bus.end(resume(options, mlflow_run_id, bus))
