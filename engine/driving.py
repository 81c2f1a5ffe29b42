"""The task in which a run is driven, and what becomes of bodies that do not give up when they are told to.

A lone body runs in the driver's own task (a plain function in a thread that it waits for).  So the task knows who cancels
it: the body and whatever the body began, or somebody outside; and another task
can take the run over where a body keeps this one.  Knows no run and no store.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_WITHIN: Final[contextvars.ContextVar[object]] = contextvars.ContextVar("trailmark_within")
"""In the task that drives a run, and in all that its bodies begin: that task's mark."""


class HandedOverError(Exception):
    """The body that ran in this task was given up; another task drives the run now.  Never leaves the executor."""


class DriveTask(asyncio.Task[T], Generic[T]):
    """A task that tells a cancellation from within from one from outside."""

    def __init__(self, drive: Coroutine[Any, Any, T], *, name: str) -> None:
        self._mark = object()
        self.outside = 0
        """How often somebody outside has cancelled it: whoever ends the loop, for example."""
        context = contextvars.copy_context()
        context.run(_WITHIN.set, self._mark)
        super().__init__(drive, loop=asyncio.get_running_loop(), name=name, context=context)

    def cancel(self, msg: Any | None = None) -> bool:
        if _WITHIN.get(None) is not self._mark:
            self.outside += 1
        return super().cancel(msg)

    def interrupt(self) -> None:
        """Cancel it on behalf of the driver: neither from within nor from outside."""
        super().cancel()


def context_outside() -> contextvars.Context:
    """A copy of the context for what runs in a thread: whatever it begins there that cancels the task comes from outside."""
    context = contextvars.copy_context()
    context.run(_WITHIN.set, None)
    return context


def goes_up(error: BaseException) -> bool:
    """Whether it is no failure of the code it came up in: the process, the loop or a coroutine is to end, or this very task was cancelled."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


class Strays:
    """Bodies of one executor that were given up and have not come back yet: async ones, and threads of plain functions."""

    def __init__(self, grace: timedelta) -> None:
        self.grace = grace
        """How long an async body that was cancelled is waited for."""
        self._about: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        return len(self._about)

    def add(self, body: asyncio.Future[Any]) -> None:
        """Count ``body`` until it is done; whatever it brings then is nobody's any more."""
        if not body.done():
            self._about.add(body)
            body.add_done_callback(self._came_back)

    def _came_back(self, body: asyncio.Future[Any]) -> None:
        self._about.discard(body)
        if not body.cancelled():
            body.exception()  # asked for, so that nobody is warned that nobody asked
