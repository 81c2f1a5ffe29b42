"""What a person means by a ticket: an open one, one that is over, or a barrier that the run has not reached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from checkpoint_stores.deciding import EarlyTicket, find_ticket, name_of, node_of, tickets_counting_for, waiting_early
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, BarrierRecord, DecisionRecord, RunRecord

_DIGEST_PREFIX: Final = 8
"""How much of a digest must be given at least."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket of a run, found by what a person typed."""

    run: RunRecord
    asked: BarrierRecord | EarlyTicket

    @property
    def name(self) -> str:
        """How the store names it."""
        return self.asked.ticket if isinstance(self.asked, BarrierRecord) else self.asked.name

    @property
    def digest(self) -> str | None:
        """Digest of what it shows; None where nothing is shown yet."""
        return self.asked.digest if isinstance(self.asked, BarrierRecord) else None

    @property
    def takes_decisions(self) -> bool:
        return isinstance(self.asked, EarlyTicket) or self.asked.status == "open"

    def votes(self, decisions: list[DecisionRecord]) -> list[DecisionRecord]:
        """Of a run's decisions, those on this ticket."""
        return [decision for decision in decisions if decision.ticket in tickets_counting_for(self.name)]

    def of_later_visits(self, early: list[DecisionRecord]) -> list[DecisionRecord]:
        """Of decisions made early, those on the same barrier that do not count for this ticket."""
        return [each for each in early if node_of(each.ticket) == node_of(self.name) and each.ticket not in tickets_counting_for(self.name)]

    def whole_digest(self, seen: str | None) -> str | None:
        """The digest that ``seen`` is, or is the beginning of."""
        if seen and self.digest and len(seen) >= _DIGEST_PREFIX and self.digest.startswith(seen.lower()):
            return self.digest
        return seen


async def decided_early(store: CheckpointStore, run_ids: Iterable[str]) -> list[DecisionRecord]:
    """Decisions on tickets of these runs that have not opened yet, run by run."""
    found = []
    for run_id in dict.fromkeys(run_ids):
        known = await store.barriers(run_id=run_id, status=None, limit=10_000)
        found += waiting_early(await store.decisions(run_id), known)
    return found


async def find(store: CheckpointStore, run: str, name: str) -> Ticket:
    """The ticket ``name`` (or the only one of the barrier ``name``) of a run; tickets that are over are found, too.

    Raises RunNotFoundError, UnknownBarrierError, AmbiguousTicketError, RunEndedError, BarrierClosedError.
    """
    record = await store.run(run)
    known = await store.barriers(run_id=record.run_id, status=None, limit=10_000)
    exact = next((barrier for barrier in known if barrier.ticket == name), None)
    if exact is not None:
        return Ticket(record, exact)
    named = [barrier for barrier in known if name in (barrier.node, name_of(barrier.ticket))]
    if record.status in ENDED and named:
        return Ticket(record, named[-1])
    return Ticket(record, find_ticket(record, name, named, await store.graph(record.graph_hash)))
