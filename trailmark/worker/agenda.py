"""What a worker has in hand, and which run it takes next.

Pure: no await, no clock (time is an argument), no store.  Who looks for runs,
drives them and reports is `trailmark.worker.worker`.

A process that dies takes all its runs down with it, the guilty and the others,
and nobody knows which one it was.  So a run that was taken up in vain twice is
a *suspect*, and a suspect is driven alone: it begins when whatever else is in
hand has made a checkpoint since it was taken (its count then starts anew), and
until it has made one itself nothing else begins.  Whoever brings the process
down again and again is soon alone with it, and only its own count goes on.
All that waiting is over `ISOLATION` after a suspect was found, so that one with
a long body keeps nobody from being driven.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from checkpoint_stores.records import RunRecord

SECOND: Final = 1_000_000
FIRST_PAUSE: Final = 1 * SECOND
LONGEST_PAUSE: Final = 300 * SECOND
"""How long a run is left alone that could not be driven; doubled from the first to the longest."""

SUSPECT_FROM: Final = 2
"""From this many recoveries in a row without progress on, a run is a suspect."""


ISOLATION: Final = 60 * SECOND
"""For how long in all a suspect that was found waits for the others to make a checkpoint, and they for it."""


class Take(NamedTuple):
    """Drive this run."""

    run: RunRecord
    recoveries: int
    """How often in a row it was taken up in vain, this time included; 0 for a run that was not orphaned."""


class Quarantine(NamedTuple):
    """Put this run away: it was taken up in vain too often."""

    run: RunRecord
    recoveries: int


@dataclass(slots=True)
class _Hand:
    """A run that is driven."""

    is_suspect: bool = False
    is_proven: bool = False
    """Whether it has made a checkpoint since it was taken."""
    alone_until: int = 0
    """Of a suspect: until when nothing else begins beside it."""


@dataclass(slots=True)
class _Waiting:
    """A suspect whose turn has not come."""

    take: Take
    until: int
    """Then it begins whoever is beside it."""


@dataclass(slots=True)
class _Aside:
    until: int
    times: int


@dataclass(slots=True)
class Agenda:
    """The runs of one worker.

    Args:
        concurrency: how many runs it drives at once.
        max_recoveries: how many recoveries in a row without progress a run gets before it is quarantined.
    """

    concurrency: int
    max_recoveries: int
    _in_hand: dict[str, _Hand] = field(default_factory=dict)
    _waiting: dict[str, _Waiting] = field(default_factory=dict)
    _aside: dict[str, _Aside] = field(default_factory=dict)

    def room(self, now: int) -> int:
        """How many more runs could be driven now."""
        return 0 if self._is_isolated(now) else self.concurrency - len(self._in_hand)

    def _is_isolated(self, now: int) -> bool:
        """Whether a suspect is driven alone, or is about to be."""
        return any(waiting.until > now for waiting in self._waiting.values()) or self._has_suspect(now)

    def _has_suspect(self, now: int) -> bool:
        return any(hand.is_suspect and not hand.is_proven and hand.alone_until > now for hand in self._in_hand.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is driven or waits for its turn."""
        return not self._in_hand and not self._waiting

    @property
    def in_hand(self) -> int:
        """How many runs are driven."""
        return len(self._in_hand)

    def hidden(self, now: int) -> list[str]:
        """Runs that need not be offered at ``now``: known already, or left alone."""
        for run_id in [run_id for run_id, aside in self._aside.items() if aside.until + LONGEST_PAUSE < now]:
            del self._aside[run_id]  # nobody offered it since: somebody else drives it
        return [*self._in_hand, *self._waiting, *(run_id for run_id, aside in self._aside.items() if aside.until > now)]

    def chosen(self, offers: Iterable[Take], now: int) -> list[Take | Quarantine]:
        """What to do with what was found, and with suspects whose turn has come; what is to be driven is in hand from here on."""
        orders: list[Take | Quarantine] = []
        fresh: list[Take] = []
        for offer in offers:
            run_id = offer.run.run_id
            if run_id in self._in_hand or run_id in self._waiting:
                continue
            if offer.recoveries > self.max_recoveries:
                self._in_hand[run_id] = _Hand(is_proven=True)
                orders.append(Quarantine(offer.run, offer.recoveries - 1))
            elif offer.recoveries >= SUSPECT_FROM:
                self._waiting[run_id] = _Waiting(offer, now + ISOLATION)
            else:
                fresh.append(offer)
        orders += self._next_suspect(now)
        for offer in fresh[: max(self.room(now), 0)]:
            self._in_hand[offer.run.run_id] = _Hand()
            orders.append(offer)
        return orders

    def _next_suspect(self, now: int) -> list[Take | Quarantine]:
        if not self._waiting or len(self._in_hand) >= self.concurrency or self._has_suspect(now):
            return []
        # The least suspected first: it is the likeliest to be innocent, and then soon out of the way.
        run_id = min(self._waiting, key=lambda each: self._waiting[each].take.recoveries)
        if self._waiting[run_id].until > now and not all(hand.is_proven for hand in self._in_hand.values()):
            return []
        turn = self._waiting.pop(run_id)
        self._in_hand[run_id] = _Hand(is_suspect=True, alone_until=turn.until)
        return [turn.take]

    def progressed(self, run_id: str) -> bool:
        """A run in hand has made a checkpoint; returns whether others may be begun because of it."""
        hand = self._in_hand.get(run_id)
        if hand is None or hand.is_proven:
            return False
        hand.is_proven = True
        return hand.is_suspect or bool(self._waiting)

    def over(self, run_id: str) -> None:
        """A run is no longer in hand, and nothing was wrong with it."""
        self._in_hand.pop(run_id, None)
        self._aside.pop(run_id, None)

    def put_aside(self, run_id: str, now: int, *, long: bool = False) -> int:
        """Leave a run alone that could not be driven; returns until when.  ``long``: nothing will change soon."""
        self._in_hand.pop(run_id, None)
        aside = self._aside.setdefault(run_id, _Aside(now, 0))
        pause = LONGEST_PAUSE if long else pause_after(aside.times)
        aside.until, aside.times = now + pause, aside.times + 1
        return aside.until

    def next_return(self, now: int) -> int | None:
        """When time alone makes it worth another look: a run was left alone until then, or a suspect was driven alone for long enough."""
        asides = [aside.until for aside in self._aside.values()]
        turns = [waiting.until for waiting in self._waiting.values()]
        alone = [hand.alone_until for hand in self._in_hand.values() if hand.is_suspect and not hand.is_proven]
        return min((until for until in (*asides, *turns, *alone) if until > now), default=None)


def pause_after(times: int, longest: int = LONGEST_PAUSE) -> int:
    """Microseconds to wait after something went wrong ``times`` times before.

    >>> [pause_after(times) // SECOND for times in (0, 1, 2, 20)]
    [1, 2, 4, 300]
    """
    return min(FIRST_PAUSE << min(times, 30), longest)
