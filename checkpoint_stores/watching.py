"""Waking whoever waits for a run, inside one process.

Counts nothing and remembers nothing but "something changed since you last
looked": many wakes before one look are one wake.  Knows no database; a store
that hears of changes from elsewhere calls `wake` or `wake_all` on its loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

EVERY_RUN: Final = ""
"""Instead of a run id: woken with each run."""


class LocalWatch:
    """A `Watch` that `LocalWatches` wakes."""

    __slots__ = ("_event", "_is_closed", "_watches", "run_id", "steps")

    def __init__(self, watches: LocalWatches, run_id: str, *, steps: bool = False) -> None:
        self._watches = watches
        self._event = asyncio.Event()
        self._is_closed = False
        self.run_id = run_id
        self.steps = steps
        """Whether each step of the run wakes it as well."""

    async def changed(self) -> None:
        """Return after the next change of the run since this watch was made or last returned."""
        if self._is_closed:
            raise RuntimeError(f"this watch of run {self.run_id} is closed")
        self._watches.waits(self)
        await self._event.wait()
        self._event.clear()

    def wake(self) -> None:
        self._event.set()

    def close(self) -> None:
        """Stop watching; whoever still waits is woken.  Idempotent."""
        self._is_closed = True
        self._event.set()
        self._watches.forget(self)


class LocalWatches:
    """All watches of one store, by run.

    Args:
        on_wait: called on the loop when somebody is about to wait who has not waited before.
        on_idle: called when the last watch is closed.
    """

    def __init__(self, on_wait: Callable[[LocalWatch], None] | None = None, on_idle: Callable[[], None] | None = None) -> None:
        self._by_run: dict[str, set[LocalWatch]] = {}
        self.followed: dict[str, int] = {}
        """The runs of which steps are watched, and by how many."""
        self.waiting: set[LocalWatch] = set()
        """The watches that somebody has begun to wait for, until they are closed.  Changed on the loop alone."""
        self.changes = 0
        """How often that set has changed."""
        self._on_wait = on_wait
        self._on_idle = on_idle

    def watch(self, run_id: str, *, steps: bool = False) -> LocalWatch:
        watch = LocalWatch(self, run_id, steps=steps)
        self._by_run.setdefault(run_id, set()).add(watch)
        if steps:
            self.followed[run_id] = self.followed.get(run_id, 0) + 1
        return watch

    def is_answered(self, run_id: str) -> bool:
        """Whether anybody watches a run who does not follow its steps: whoever drives it does."""
        return any(not watch.steps for watch in self._by_run.get(run_id, ()))

    def step(self, run_id: str) -> None:
        """Wake who follows the steps of a run."""
        if run_id in self.followed:
            for watch in self._by_run[run_id]:
                if watch.steps:
                    watch.wake()

    def watched(self) -> Iterable[str]:
        return tuple(self._by_run)

    def wake(self, run_id: str) -> None:
        for watch in self._by_run.get(run_id, ()):
            watch.wake()
        for watch in self._by_run.get(EVERY_RUN, ()):
            watch.wake()

    def wake_all(self) -> None:
        for watches in self._by_run.values():
            for watch in watches:
                watch.wake()

    def close(self) -> None:
        for watches in tuple(self._by_run.values()):
            for watch in tuple(watches):
                watch.close()

    def waits(self, watch: LocalWatch) -> None:
        if watch not in self.waiting:
            self.waiting.add(watch)
            self.changes += 1
            if self._on_wait is not None:
                self._on_wait(watch)

    def forget(self, watch: LocalWatch) -> None:
        watches = self._by_run.get(watch.run_id)
        if watches is None or watch not in watches:
            return
        watches.discard(watch)
        self.waiting.discard(watch)
        self.changes += 1
        if watch.steps:
            self.followed[watch.run_id] -= 1
            if not self.followed[watch.run_id]:
                del self.followed[watch.run_id]
        if not watches:
            del self._by_run[watch.run_id]
        if not self._by_run and self._on_idle is not None:
            self._on_idle()
