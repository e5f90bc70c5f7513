"""Continue an interrupted search, or extend a finished one."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.cli.parser import parse
from tuning.recipe.resume import ResumeRequest

EXAMPLE = "python -m tuning resume --run PARENT_RUN_ID --trials 20"

OPTIONS = ResumeRequest


def run(arguments: Sequence[str]) -> int:
    """Run the remaining trials of the search in the same parent run, and finish it."""
    options = parse(ResumeRequest, arguments)
    from tuning.ui.session import run_with_ui

    def work() -> int:
        from tuning.workflows.resume import resume

        return resume(options)

    return run_with_ui("resume", options.quiet, options.events, work)
