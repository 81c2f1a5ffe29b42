"""When a call may begin: the rules of breakers and rate limits as small machines.

Pure: time comes in as microseconds, nothing waits, nothing calls.  `engine.around` asks them and does the waiting.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, TypeAlias

BreakerState: TypeAlias = Literal["closed", "open", "trying"]


class Window:
    """At most ``calls`` starts in any stretch of ``per`` microseconds.

    >>> window = Window(2, 100)
    >>> [window.start(now) for now in (0, 10)], window.free_at(20), window.free_at(100)
    ([None, None], 100, 100)
    """

    __slots__ = ("_calls", "_per", "_starts")

    def __init__(self, calls: int, per: int) -> None:
        self._calls = calls
        self._per = per
        self._starts: deque[int] = deque(maxlen=calls)

    def free_at(self, now: int) -> int:
        """The earliest time, from ``now`` on, at which one more may start."""
        return now if len(self._starts) < self._calls else max(now, self._starts[0] + self._per)

    def start(self, now: int) -> None:
        """One starts now."""
        self._starts.append(now)


class Breaker:
    """Closed, open, trying.  Each call it admits gets the number of the state it began in; an answer from an earlier state is too late to count.

    >>> breaker = Breaker(failures=1, open_for=100, trials=1)
    >>> turn = breaker.admit(0)
    >>> breaker.failed(turn, 5)
    >>> breaker.state, breaker.admit(104), breaker.opens_at
    ('open', None, 105)
    >>> breaker.succeeded(breaker.admit(105))
    >>> breaker.state
    'closed'
    """

    __slots__ = ("_failures", "_open_for", "_row", "_trials", "_turn", "_under_way", "opens_at", "state")

    def __init__(self, failures: int, open_for: int, trials: int) -> None:
        self._failures = failures
        self._open_for = open_for
        self._trials = trials
        self._turn = 0
        self._row = 0
        """Closed: failures in a row.  Trying: successes so far."""
        self._under_way = 0
        """Trying: trials that have not come back."""
        self.state: BreakerState = "closed"
        self.opens_at = 0
        """Open: when the first trial may begin.  Trying: when others may, though those that began have not come back."""

    def admit(self, now: int) -> int | None:
        """The turn of a call that may begin now; None where it may not."""
        if self.state == "open" and now >= self.opens_at:
            self._try(now)
        if self.state == "open":
            return None
        if self.state == "trying":
            if self._under_way + self._row >= self._trials:
                if now < self.opens_at:
                    return None
                # Who was given up may never come back, and nobody is refused for ever because of it.
                self._try(now)
            self._under_way += 1
        return self._turn

    def succeeded(self, turn: int | None) -> None:
        """A call that was admitted came back well."""
        if turn != self._turn:
            return
        if self.state == "closed":
            self._row = 0
            return
        self._under_way -= 1
        self._row += 1
        if self._row >= self._trials:
            self._become("closed")

    def failed(self, turn: int | None, now: int) -> None:
        """A call that was admitted failed."""
        if turn != self._turn:
            return
        self._row += 1
        if self.state == "trying" or self._row >= self._failures:
            self._become("open")
            self.opens_at = now + self._open_for

    def dropped(self, turn: int | None) -> None:
        """A call that was admitted was cancelled: nothing was learned."""
        if turn == self._turn and self.state == "trying":
            self._under_way -= 1

    def _try(self, now: int) -> None:
        self._become("trying")
        self.opens_at = now + self._open_for

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._turn += 1
        self._row = self._under_way = 0
