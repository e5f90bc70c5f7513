"""Queue of promotions: candidates are decided one after another, in the order of their version numbers.

MLflow's registry has no lock and no compare-and-swap, but it numbers versions itself and creates a version together
with its tags in one transaction. A new version is therefore created with a *ticket*: a tag saying that its owner has
not decided yet. An owner waits until its ticket is the first, and only then writes, on one machine or many.

An existing version (a challenger promoted again, a champion rolled back to) takes a ticket behind all current ones, as
in Lamport's bakery algorithm: until its number is known its ticket says *choosing*, and all others wait for it.

An owner increments a counter on its ticket every ``BEAT_S``. A ticket that was not incremented for ``DEAD_S``, by the
clock of the waiting owner, is passed over: its version gets ``gate = abandoned`` and keeps its number. An owner that
was only suspended notices this before it moves an alias. Not prevented: an owner suspended for longer than ``DEAD_S``
between that check and moving the alias, and people who move an alias manually.
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
TICKET, ABANDONED = "turn.", "abandoned."  # prefixes of a version's tags; the owner follows
CHOOSING = -1.0  # ahead of every number


class Ticket(NamedTuple):
    """A place in the queue; the smallest ticket is the first."""

    number: float
    version: int
    owner: str


class Turn:
    """Context manager: a version's place in the queue. ``wait`` returns when it is the first."""

    def __init__(self, registry: ModelRegistry, version: int, owner: str, number: float) -> None:
        self.version = version
        self._registry = registry
        self._owner = owner
        self._number = number
        self._beat = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    @classmethod
    def of_new(cls, registry: ModelRegistry, source: str, run_id: str, model_id: str) -> Turn:
        """Register a package as a version with its ticket, behind all lower versions."""
        owner = uuid.uuid4().hex
        ticket_tag = TICKET + owner
        version = registry.create_version(source, run_id, model_id, {ticket_tag: _text(None, 0)}, ticket_tag)
        return cls(registry, version, owner, float(version))

    @classmethod
    def of_known(cls, registry: ModelRegistry, version: int) -> Turn:
        """Take a ticket for an existing version, behind all current tickets."""
        owner = uuid.uuid4().hex
        registry.set_tags(version, {TICKET + owner: _text(CHOOSING, 0)})
        number = max(other.number for other in registry.versions()) + 0.5
        registry.set_tags(version, {TICKET + owner: _text(number, 1)})
        return cls(registry, version, owner, number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._registry.delete_tag(self.version, TICKET + self._owner)

    def wait(self) -> None:
        """Wait until this ticket is the first; pass over tickets whose counter has not changed for ``DEAD_S``."""
        seen: dict[Ticket, tuple[str, float]] = {}
        while ahead := self._ahead():
            for ticket, beat in ahead.items():
                last, since_s = seen.get(ticket, ("", 0.0))
                if beat != last:
                    seen[ticket] = (beat, time.monotonic())
                elif time.monotonic() - since_s > DEAD_S:
                    self._pass_over(ticket)
            # Tickets farther behind poll less often: twenty waiting owners send seven requests per second.
            time.sleep(POLL_S * len(ahead) * random.uniform(0.5, 1.5))  # noqa: S311  # not security

    def check(self) -> None:
        """Check that this ticket was not passed over.

        Raises:
            TrackingError: it was.
        """
        if ABANDONED + self._owner in self._registry.tags(self.version):
            raise TrackingError(
                f"the promotion of version {self.version} of {self._registry.name} must give a sign of life every "
                f"{DEAD_S:g} s, but it did not and was passed over; run promote again"
            )

    def _ahead(self) -> dict[Ticket, str]:
        """Return the tickets ahead of this one, each with its counter."""
        own = Ticket(self._number, self.version, self._owner)
        ahead = {}
        for version in self._registry.versions():
            for name, text in version.tags.items():
                owner = name.removeprefix(TICKET)
                if name.startswith(TICKET) and ABANDONED + owner not in version.tags:
                    number, _, beat = text.partition("/")
                    ticket = Ticket(float(number) if number else float(version.number), version.number, owner)
                    if ticket < own:
                        ahead[ticket] = beat
        return ahead

    def _pass_over(self, ticket: Ticket) -> None:
        tags = {ABANDONED + ticket.owner: f"by version {self.version}"}
        if GATE_TAG not in self._registry.tags(ticket.version):
            tags |= {
                GATE_TAG: "abandoned",
                REASON_TAG: f"its promotion gave no sign of life for {DEAD_S:g} s; run promote again",
            }
        self._registry.set_tags(ticket.version, tags)

    def _keep_beating(self) -> None:
        from mlflow.exceptions import MlflowException

        while not self._ended.wait(BEAT_S):
            self._beat += 1
            with contextlib.suppress(MlflowException):  # an unavailable server is retried at the next beat
                self._registry.set_tags(self.version, {TICKET + self._owner: _text(self._number, self._beat + 1)})


def _text(number: float | None, beat: int) -> str:
    """Return the text of a ticket's tag; without a number, the version's number applies."""
    return f"{'' if number is None else number}/{beat}"
