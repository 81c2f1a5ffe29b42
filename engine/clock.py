"""Time, as the driver sees it: the store's clock, and timers on it.

Durable times (deadlines, retries) are the store's.  The driver never asks the
database for the time of every step: it measures once how far the store's clock
is from this process's monotonic clock.  Tests hand in a virtual clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

MICROSECONDS = 1_000_000


class Timer(Protocol):
    """A promise to call back; can be taken back."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the driver needs of time."""

    def now(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def call_at(self, due: int, call: Callable[[], None]) -> Timer:
        """Call ``call`` in this event loop once `now` has reached ``due``."""
        ...


class StoreClock:
    """The store's time, told by this process's monotonic clock."""

    __slots__ = ("_offset",)

    def __init__(self, store_now: int | None = None) -> None:
        self._offset = (time.time_ns() // 1000 if store_now is None else store_now) - time.monotonic_ns() // 1000

    def now(self) -> int:
        return time.monotonic_ns() // 1000 + self._offset

    def call_at(self, due: int, call: Callable[[], None]) -> Timer:
        # A hair late rather than early: a timer that fires before its time would find nothing due.
        wait = max(0, due - self.now()) + 1000
        return asyncio.get_running_loop().call_later(wait / MICROSECONDS, call)
