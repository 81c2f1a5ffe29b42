"""A clock that stands still until a test moves it.

Two days of a barrier's deadline pass in no time, and always at the same point of the test.  Hand the same clock to the
store (``now=clock.now``) and to the executor (``clock=clock``).  Knows no run and no store.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TURNS: Final = 50
"""Turns of the loop in which what a timer set off can go as far as it can without time passing."""


class VirtualTimer:
    """A call that `VirtualClock` will make."""

    __slots__ = ("call", "due", "is_over")

    def __init__(self, due: int, call: Callable[[], None]) -> None:
        self.due = due
        self.call = call
        self.is_over = False
        """Whether it has been made or taken back."""

    def cancel(self) -> None:
        self.is_over = True


class VirtualClock:
    """Time that passes only in `advance`.

    >>> import asyncio
    >>> clock = VirtualClock()
    >>> async def main() -> list[str]:
    ...     rung: list[str] = []
    ...     clock.call_at(clock.now() + 60_000_000, lambda: rung.append("a minute"))
    ...     clock.call_at(clock.now() + 1_000_000, lambda: rung.append("a second"))
    ...     await clock.advance(timedelta(minutes=2))
    ...     return rung
    >>> asyncio.run(main())
    ['a second', 'a minute']
    >>> clock.time.isoformat()
    '2026-01-01T12:02:00+00:00'
    """

    def __init__(self, start: datetime = NOON) -> None:
        self._now = (start - _EPOCH) // _MICROSECOND
        self._timers: list[tuple[int, int, VirtualTimer]] = []
        self._made = 0
        self._armed = asyncio.Event()

    def now(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        return self._now

    @property
    def time(self) -> datetime:
        """The same as an aware datetime."""
        return _EPOCH + self._now * _MICROSECOND

    def call_at(self, due: int, call: Callable[[], None]) -> VirtualTimer:
        """Call ``call`` once the time has come; in the next turn of the loop where it has come already."""
        timer = VirtualTimer(due, call)
        if due <= self._now:
            asyncio.get_running_loop().call_soon(_ring, timer)
        else:
            self._made += 1
            heapq.heappush(self._timers, (due, self._made, timer))
            self._armed.set()
        return timer

    def until_next(self) -> timedelta | None:
        """How long until the next timer rings; None where none is set."""
        while self._timers and self._timers[0][2].is_over:
            heapq.heappop(self._timers)
        return (self._timers[0][0] - self._now) * _MICROSECOND if self._timers else None

    async def wait_for_timer(self) -> timedelta:
        """Wait until somebody waits for time, and return how long that one waits: ``await clock.advance(await clock.wait_for_timer())``."""
        while (left := self.until_next()) is None:
            self._armed.clear()
            await self._armed.wait()
        return left

    async def advance(self, by: timedelta) -> None:
        """Let time pass: ring what is due, in order, and after each timer let the loop do what follows from it.

        Work in threads and real I/O take real time; what waits for them may go on only after this has returned.

        Raises ValueError where ``by`` is negative.
        """
        if by < timedelta(0):
            raise ValueError(f"time cannot go back by {-by}")
        end = self._now + by // _MICROSECOND
        await settled()
        while (left := self.until_next()) is not None and self._now + left // _MICROSECOND <= end:
            due, _number, timer = heapq.heappop(self._timers)
            self._now = due
            _ring(timer)
            await settled()
        self._now = end
        await settled()


def _ring(timer: VirtualTimer) -> None:
    if not timer.is_over:
        timer.is_over = True
        timer.call()


async def settled() -> None:
    """Give every task of the loop that can run its turns."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
