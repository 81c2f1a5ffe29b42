"""What outsiders told a run and no checkpoint has used yet: decisions and signals, matched with what waits for them.

Knows how an inbox becomes events; reads no store and posts nothing by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from checkpoint_stores.deciding import name_of
from checkpoint_stores.records import DecisionRecord, Inbox, SignalRecord
from engine.barriers import verdict
from engine.events import Signalled, Voted
from engine.walk import Walk


class Letters:
    """The unread part of one run's inbox.  One per driver."""

    __slots__ = ("_signals", "_votes", "_walk", "are_there", "rev")

    def __init__(self, walk: Walk, inbox: Inbox | None) -> None:
        self._walk = walk
        self.rev = inbox.rev if inbox else 0
        """The revision of the inbox that was read last."""
        self._votes: tuple[DecisionRecord, ...] = inbox.decisions if inbox else ()
        self._signals: tuple[SignalRecord, ...] = inbox.signals if inbox else ()
        """Oldest first."""
        self.are_there = bool(self._votes or self._signals)
        """Whether there is anything that no checkpoint has used."""

    def take(self, inbox: Inbox) -> None:
        """Go on with a newer reading of the inbox."""
        self.rev = inbox.rev
        self._votes = inbox.decisions
        self._signals = inbox.signals
        self.are_there = bool(self._votes or self._signals)

    def forget(self, consumed: Collection[tuple[str, int]]) -> None:
        """Put away what checkpoints use: (id, seq) each."""
        used = {told for told, _seq in consumed}
        self._votes = tuple(vote for vote in self._votes if vote.id not in used)
        self._signals = tuple(signal for signal in self._signals if signal.id not in used)
        self.are_there = bool(self._votes or self._signals)

    def events(self, posted: Collection[object]) -> list[Voted | Signalled]:
        """What the letters make happen where the run stands now, beside the events that are ``posted`` already."""
        return [*self._voted(posted), *self._signalled(posted)]

    def _voted(self, posted: Collection[object]) -> Iterator[Voted]:
        """Decisions that are complete and whose ticket is open."""
        if not self._votes:
            return
        known = [event for event in posted if isinstance(event, Voted)]
        tickets = {event.ticket for event in known}
        spoken_for = {vote.id for event in known for vote in event.records}
        for scope in self._walk.parked():
            ticket, details = scope.detail
            if ticket in tickets:
                continue
            # Early decisions name the barrier; each counts for one ticket only.
            names = (ticket, name_of(ticket), scope.node) if details["early"] else (ticket,)
            votes = tuple(vote for vote in self._votes if vote.ticket in names and vote.id not in spoken_for)
            if votes and verdict(details["quorum"], votes) is not None:
                spoken_for.update(vote.id for vote in votes)
                yield Voted(scope.path, ticket, votes)

    def _signalled(self, posted: Collection[object]) -> Iterator[Signalled]:
        """Signals that a scope waits for: the oldest goes to the first scope in declared order."""
        known = [event for event in posted if isinstance(event, Signalled)]
        spoken_for = {event.record.id for event in known}
        served = {event.path for event in known}
        for scope in self._walk.listening() if self._signals else ():
            names = (scope.detail[1], f"{scope.path}.{scope.detail[1]}")
            found = next((signal for signal in self._signals if signal.name in names and signal.id not in spoken_for), None)
            if found is not None and scope.path not in served:
                spoken_for.add(found.id)
                yield Signalled(scope.path, found)
