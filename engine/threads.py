"""Threads for synchronous node functions.

Daemon threads of our own, so that a node function that never returns cannot
keep the process from ending (the default executor's threads would be joined).
A thread whose attempt timed out is left alone; it is counted until it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

from checkpoint_stores.hops import CallsIn, into_loop
from engine.failures import beyond_exception
from engine.outcomes import BodyHeld


class NodeThreads:
    """Runs functions in daemon threads; a thread that is free is used again."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[ThreadCall | None]] = []
        self._lock = threading.Lock()
        self._closed = False
        self._way: tuple[asyncio.AbstractEventLoop, CallsIn] | None = None
        """The loop that functions were started from last, and the way back into it."""
        self.running = 0
        """Functions that have not returned yet, abandoned ones included."""

    def start(self, function: Callable[[], Any], context: contextvars.Context | None = None) -> ThreadCall:
        """Start ``function`` in a thread, in a context of its own (default: a copy of the caller's)."""
        loop = asyncio.get_running_loop()
        way = self._way
        if way is None or way[0] is not loop:
            way = self._way = loop, into_loop(loop)
        call = ThreadCall(*way, function, contextvars.copy_context() if context is None else context)
        with self._lock:
            self.running += 1
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = queue.SimpleQueue()
            try:
                threading.Thread(target=self._serve, args=(inbox,), name="trailmark-node", daemon=True).start()
            except RuntimeError:  # there may be no more threads
                with self._lock:
                    self.running -= 1
                raise
        inbox.put(call)
        return call

    def close(self) -> None:
        """Let idle threads end; those still in a function end with it."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _serve(self, inbox: queue.SimpleQueue[ThreadCall | None]) -> None:
        while (call := inbox.get()) is not None:
            # An exception knows the frames it came up in, and what they know: none of them is one that knows the exception.
            call.settle_soon(*_performed(call.context, call.function))
            del call  # keeps no result alive while idle
            with self._lock:
                self.running -= 1
                if self._closed:
                    return
                self._idle.append(inbox)


class ThreadCall:
    """One function running in a thread."""

    __slots__ = ("_call_in_loop", "answer", "context", "function", "over")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, call_in_loop: CallsIn, function: Callable[[], Any], context: contextvars.Context
    ) -> None:
        self._call_in_loop = call_in_loop
        self.function = function
        self.context = context
        self.answer: asyncio.Future[Any] = loop.create_future()
        """Gets the function's result or exception; may be cancelled by whoever no longer waits."""
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when the function has returned, whether or not somebody still waited for its answer."""

    def settle_soon(self, result: Any, error: BaseException | None) -> None:
        """Called in the thread: tell the loop what the function returned or raised."""
        self._call_in_loop(self._settle, result, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if not self.over.done():
            self.over.set_result(None)
        if self.answer.cancelled():
            return
        if error is None:
            self.answer.set_result(result)
        elif isinstance(error, Exception | BodyHeld):
            self.answer.set_exception(error)
        elif isinstance(error, asyncio.CancelledError):
            self.answer.cancel()  # whoever waits sees CancelledError, as of an async body, and has not been cancelled
        else:
            self.answer.set_exception(beyond_exception(error))


def _performed(context: contextvars.Context, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a function returned or raised."""
    try:
        return context.run(function), None
    except StopIteration as stop:
        # A future refuses StopIteration; say what happened instead.
        return None, RuntimeError(f"the node function raised StopIteration: {stop.value!r}")
    except BaseException as caught:  # noqa: BLE001 - carried over to the loop, whatever it is
        return None, caught
