"""The event bus of a command, with renderers chosen by its options ``quiet`` and ``events`` and by the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import IO, TYPE_CHECKING

from data.errors import FreezelineError, UserError
from tuning.common.events import (
    STAGE_ATTRIBUTE,
    CandidateEvaluated,
    Event,
    EventBus,
    Message,
    Renderer,
    SearchPlanned,
    StageStarted,
)
from tuning.common.exit_codes import exit_code_of
from tuning.recipe.schema import EventsForm
from tuning.ui.jsonl_renderer import JsonLinesRenderer
from tuning.ui.live.renderer import LiveRenderer
from tuning.ui.log_renderer import LogRenderer, QuietRenderer

if TYPE_CHECKING:
    from tuning.common.promotion_types import Candidate

PACKAGES = ("data", "models", "tuning")  # the names of their loggers
DUMB_TERMINALS = {"dumb", "unknown"}  # values of TERM for terminals that cannot move the cursor


@contextmanager
def open_event_bus(command: str, quiet: bool, events: EventsForm) -> Iterator[EventBus]:
    """Context manager: yield the event bus of a command, which also gets the log records of this project's packages.

    An exception ends the stream of events; otherwise the command itself calls ``EventBus.end``.
    """
    with _renderers(command, quiet, events) as renderers, closing(EventBus(*renderers)) as bus, log_records_to(bus):
        try:
            yield bus
        except BaseException as error:
            bus.end(exit_code_of(error), _problems(error))
            raise


class Recorder:
    """Keeps what the Python interface returns: the run and the candidate."""

    run_id = ""
    candidate: Candidate | None = None

    def handle(self, event: Event) -> None:
        """Keep an event's values."""
        match event:
            case SearchPlanned():
                self.run_id = event.run_id
            case CandidateEvaluated():
                self.candidate = event.candidate

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def open_recorded_bus(verbose: bool) -> Iterator[tuple[EventBus, Recorder]]:
    """Context manager: yield an event bus that prints nothing, or lines if ``verbose``, and what it has recorded."""
    recorder = Recorder()
    with ExitStack() as stack:
        bus = stack.enter_context(closing(EventBus(recorder, *([LogRenderer()] if verbose else []))))
        if verbose:
            stack.enter_context(log_records_to(bus))
        yield bus, recorder


def _problems(error: BaseException) -> tuple[str, ...]:
    if isinstance(error, UserError):
        return error.problems
    if isinstance(error, FreezelineError):
        return (str(error),)
    return () if isinstance(error, KeyboardInterrupt) else (f"{type(error).__name__}: {error}",)


@contextmanager
def _renderers(command: str, quiet: bool, events: EventsForm) -> Iterator[tuple[Renderer, ...]]:
    """Yield the renderers; with JSON Lines on standard output, all other output goes to standard error."""
    if events == "text":
        yield (make_renderer(quiet, sys.stdout),)
        return
    json_lines = JsonLinesRenderer(sys.stdout, command)
    with contextlib.redirect_stdout(sys.stderr):
        yield json_lines, make_renderer(quiet, sys.stderr, use_stderr=True)


class BusHandler(logging.Handler):
    """Shows log records as messages, those of level WARNING and above as warnings, and those of stages as stages."""

    def __init__(self, bus: EventBus) -> None:
        super().__init__()
        self._bus = bus

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record's message to the event bus."""
        try:
            text, is_stage = record.getMessage(), getattr(record, STAGE_ATTRIBUTE, False)
            is_warning = record.levelno >= logging.WARNING
            self._bus.emit(StageStarted(text) if is_stage else Message(text, is_warning))
        except Exception:  # a closed pipe must not fail the code that logs
            self.handleError(record)


@contextmanager
def log_records_to(bus: EventBus) -> Iterator[None]:
    """Context manager: show the log records of ``PACKAGES`` from level INFO on, and only here."""
    handler = BusHandler(bus)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # a library may have installed a handler that prints every record
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def make_renderer(quiet: bool, file: IO[str], use_stderr: bool = False) -> Renderer:
    """Return the text renderer for output to ``file``: the live view for a UTF-8 terminal that can move its cursor."""
    if quiet:
        return QuietRenderer(use_stderr)
    is_utf8 = (getattr(file, "encoding", None) or "").lower().replace("-", "") == "utf8"
    can_render_live = file.isatty() and os.environ.get("TERM", "") not in DUMB_TERMINALS and is_utf8
    return LiveRenderer(use_stderr) if can_render_live else LogRenderer(use_stderr)
