"""What a system must be able to do to stand in the table, and how it says that it cannot.

One class per system, in a file of its own; it is imported in that system's process only.  A round is: `set_up` over an empty place,
a short loop to warm up, one of the workloads, `tear_down`.  A workload measures itself, from the call that starts the work to the
result in hand; what comes before (graphs, connections) is not its time.  Whether the result is right and the rows are there is asked
by others (`child`, `witness`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar


class CannotError(Exception):
    """The system has no way to do this; the message is the reason that stands beside the "-" in the table."""


@dataclass(frozen=True)
class Place:
    """Where state is kept: nowhere (``bare``), in ``memory``, in a ``sqlite`` file (url: its path), in ``postgres`` (url: libpq's)."""

    kind: str
    url: str = ""

    @property
    def is_durable(self) -> bool:
        return self.kind in {"sqlite", "postgres"}


@dataclass(frozen=True)
class Done:
    """How long it took, and what came out: the counter at its end, the sum of the branches, the number of runs that ended."""

    seconds: float
    result: int


class Peer:
    """Base class: a system that can do nothing.  ``entered`` is called by the body of every step of a loop, as its first line."""

    settings: ClassVar[dict[str, str]] = {}
    """What was chosen for the system, in words: what makes it durable, what makes it fast, where it is weaker."""

    tables: ClassVar[dict[str, str]] = {}
    """The table that gets at least one row per durable step, by kind of place."""

    branches: ClassVar[str] = ""
    """The table that gets a row per branch of a fan-out, where it is another."""

    def __init__(self, place: Place, act: str, entered: Callable[[], object]) -> None:
        self.place = place
        self.act = act  # the workload, where a documented option suits one and not another
        self.entered = entered

    async def set_up(self) -> None:
        """Open what the place needs."""

    async def tear_down(self) -> None:
        """Close it again; nothing of it lives on."""

    async def asked(self) -> dict[str, str]:
        """What the system's own database connection says of itself."""
        return {}

    async def loop(self, steps: int) -> Done:
        """One run; one trivial async step, entered ``steps`` times, a condition each time.  Result: the counter."""
        raise CannotError("no loop")

    async def crowd(self, runs: int, steps: int) -> Done:
        """``runs`` such runs at once.  Result: the sum of their counters."""
        raise CannotError("no concurrent runs")

    async def store_log(self, steps: int, size: int, constant: int) -> Done:
        """One run whose steps each append ``size`` characters to a list, beside a key of ``constant`` ones.  Result: the length of the list."""
        raise CannotError("no store")

    async def store_plain(self, steps: int, size: int, constant: int) -> Done:
        """The same, where the system has a plainer way that stores more."""
        raise CannotError("it has one way only: see the row above")

    async def fan(self, branches: int) -> Done:
        """One run that starts ``branches`` trivial async branches and joins them.  Result: the sum of what they gave."""
        raise CannotError("no parallel branches")

    async def approve(self, runs: int) -> Done:
        """``runs`` runs wait for a person.  Timed: all are approved and go on to their end, all at once.  Result: how many ended."""
        raise CannotError("nothing waits for people")

    async def go_on(self, times: int) -> Done:
        """From the decision to the first line of the next node; the median of ``times`` runs, one after another.  Result: ``times``."""
        raise CannotError("nothing waits for people")
