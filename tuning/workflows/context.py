"""What a workflow gets from the command or the Python function that runs it."""

from __future__ import annotations

from dataclasses import dataclass

from tuning.common.events import EventBus
from tuning.common.signals import SignalHandler


@dataclass(frozen=True)
class Context:
    """The surroundings of a workflow.

    Attributes:
        bus: receives the events.
        signals: stop requests of the user.
        started_s: start of the command as Unix time in seconds, from which the time budget counts.
        mlflow_run_id: the run that ``mlflow run`` created for the command; None for others.
    """

    bus: EventBus
    signals: SignalHandler
    started_s: float
    mlflow_run_id: str | None = None
