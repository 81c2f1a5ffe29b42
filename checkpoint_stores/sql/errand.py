"""A coroutine that is carried out in callbacks of the loop, and in no task.

A task begins in the loop's next turn, and goes on in another one behind whatever it waited for; what it tells others reaches them in a
third.  Each turn asks the operating system about every socket: beside a round trip of a few tenths of a millisecond that is felt.
Knows no database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class Errand:
    """Carries ``coroutine`` out: as far as it comes at once, and on from there in the very callback that brings what it waits for.

    In no task there is nothing to cancel, and what asks for the current task (`asyncio.timeout`) belongs into one that the coroutine
    waits for.  Since no task is being carried out, it may have others go on (`settling.answer`), but for what it does before it first
    waits: there whoever begins it may be one.
    """

    __slots__ = ("_context", "_coroutine", "_loop", "ended")

    def __init__(self, coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._context = Context()  # that of whoever begins it would be kept for as long as it goes on
        self.ended: asyncio.Future[None] = loop.create_future()
        """How it ended."""
        self._go_on()

    def _go_on(self, _brought: asyncio.Future[Any] | None = None) -> None:
        try:
            awaited = self._context.run(self._coroutine.send, None)
        except StopIteration:
            self.ended.set_result(None)
        except BaseException as error:
            self.ended.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            if awaited is None:  # asyncio.sleep(0)
                self._loop.call_soon(self._go_on)
            else:
                # A future tells by this that somebody awaits it, and whoever carries the awaiting out says that it has understood.
                awaited._asyncio_future_blocking = False  # noqa: SLF001
                awaited.add_done_callback(self._go_on)
