"""Whose turn it is to decide: candidates are decided one after another, in the order of their version numbers.

MLflow's registry has no lock and no compare-and-swap, but two things that are enough: it numbers versions itself, and
makes a version together with its tags in one transaction. So a new version is made with a *ticket*, a tag that says
that its owner has not decided yet, and an owner waits until no ticket is ahead of its own. Whatever else an owner
writes, it writes while its ticket is the first: one after another, on one machine or many.

A version that exists already (a challenger that is promoted again, a champion that is rolled back to) takes a ticket
behind all that are there, as in Lamport's bakery: while it looks for its number its ticket says *choosing*, and all
wait for it.

An owner shows that it lives by counting on its ticket every ``BEAT_S``. One that has not counted for ``DEAD_S``, by the
clock of whoever waits for it, is passed over: its version gets ``gate = abandoned`` and keeps its number. If it was
only asleep, it finds that out before it moves an alias. What is left: an owner that sleeps for longer than ``DEAD_S``
between that look and its move of the alias, and people who move an alias by hand; neither can be prevented.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from types import TracebackType
from typing import NamedTuple, Self

from data.errors import TrackingError
from tuning.common.names import GATE_TAG, REASON_TAG
from tuning.registry.client import ModelRegistry

BEAT_S = 10.0
DEAD_S = 120.0
POLL_S = 0.5
TICKET, ABANDONED = "turn.", "abandoned."  # tags of a version, with the owner behind them
CHOOSING = -1.0  # ahead of every number


class Ticket(NamedTuple):
    """A place in the line; the smaller one comes first."""

    number: float
    version: int
    owner: str


class Turn:
    """A place in the line for one version; within ``with`` it is kept, ``wait`` returns when it is the first."""

    def __init__(self, versions: ModelRegistry, version: int, owner: str, number: float) -> None:
        self.version = version
        self._versions = versions
        self._owner = owner
        self._number = number
        self._beat = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    @classmethod
    def of_new(cls, versions: ModelRegistry, source: str, run_id: str, model_id: str) -> Turn:
        """Make a version for a package, with its ticket; its turn comes after all lower versions."""
        owner = uuid.uuid4().hex
        mark = TICKET + owner
        version = versions.create_version(source, run_id, model_id, {mark: _text(None, 0)}, mark)
        return cls(versions, version, owner, float(version))

    @classmethod
    def of_known(cls, versions: ModelRegistry, version: int) -> Turn:
        """Take a ticket for a version that exists already, behind all that are there."""
        owner = uuid.uuid4().hex
        versions.set_tags(version, {TICKET + owner: _text(CHOOSING, 0)})
        number = max(known.number for known in versions.versions()) + 0.5
        versions.set_tags(version, {TICKET + owner: _text(number, 1)})
        return cls(versions, version, owner, number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._versions.delete_tag(self.version, TICKET + self._owner)

    def wait(self) -> None:
        """Return when nobody is ahead any more; pass over whoever has shown no life for ``DEAD_S``."""
        seen: dict[Ticket, tuple[str, float]] = {}
        while ahead := self._ahead():
            for ticket, beat in ahead.items():
                last, since_s = seen.get(ticket, ("", 0.0))
                if beat != last:
                    seen[ticket] = (beat, time.monotonic())
                elif time.monotonic() - since_s > DEAD_S:
                    self._pass_over(ticket)
            # Whoever is far behind looks seldom: of twenty that wait, the store is asked seven times a second.
            time.sleep(POLL_S * len(ahead) * random.uniform(0.5, 1.5))  # noqa: S311  # no secret

    def check(self) -> None:
        """See that nobody has passed over this turn.

        Raises:
            TrackingError: someone has.
        """
        if ABANDONED + self._owner in self._versions.tags(self.version):
            raise TrackingError(
                f"version {self.version} of {self._versions.name} must be decided within {DEAD_S:g} s of a sign of "
                "life, but it was passed over; run promote again"
            )

    def _ahead(self) -> dict[Ticket, str]:
        """Return the tickets ahead of this one, each with its last sign of life."""
        mine = Ticket(self._number, self.version, self._owner)
        found = {}
        for version in self._versions.versions():
            for name, text in version.tags.items():
                owner = name.removeprefix(TICKET)
                if name.startswith(TICKET) and ABANDONED + owner not in version.tags:
                    number, _, beat = text.partition("/")
                    ticket = Ticket(float(number) if number else float(version.number), version.number, owner)
                    if ticket < mine:
                        found[ticket] = beat
        return found

    def _pass_over(self, ticket: Ticket) -> None:
        tags = {ABANDONED + ticket.owner: f"by version {self.version}"}
        if GATE_TAG not in self._versions.tags(ticket.version):
            tags |= {GATE_TAG: "abandoned", REASON_TAG: f"whoever decided about it showed no life for {DEAD_S:g} s"}
        self._versions.set_tags(ticket.version, tags)

    def _keep_beating(self) -> None:
        from mlflow.exceptions import MlflowException

        while not self._ended.wait(BEAT_S):
            self._beat += 1
            with contextlib.suppress(MlflowException):  # a server that is away is tried again at the next beat
                self._versions.set_tags(self.version, {TICKET + self._owner: _text(self._number, self._beat + 1)})


def _text(number: float | None, beat: int) -> str:
    """Return a ticket as its tag's text; without a number it has its version's."""
    return f"{'' if number is None else number}/{beat}"
