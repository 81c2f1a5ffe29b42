"""How a thread calls a function in a loop: by a byte in a pipe that the loop listens to.

`loop.call_soon_threadsafe` does the same by a socket, which costs the thread
more to write into and the loop more to read, until nothing more comes; and what
it calls waits for a further turn of the loop where other things are ready.  Of a
durable step on SQLite that was a twelfth.  Knows neither threads nor what is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, Protocol

_KNOCK: Final = b"1"
_KNOCKS: Final = 64
"""How many are heard at once at the most; the rest in the loop's next turn."""


class CallsIn(Protocol):
    """Calls a function in a loop, as soon as it can; from any thread, in order.  Once the loop is closed nobody does."""

    def __call__(self, function: Callable[..., object], /, *arguments: Any) -> None: ...


def into_loop(loop: asyncio.AbstractEventLoop) -> CallsIn:
    """The way into a loop; to be asked for in it.

    >>> async def main():
    ...     loop, heard = asyncio.get_running_loop(), asyncio.Event()
    ...     call = into_loop(loop)
    ...     await asyncio.to_thread(call, heard.set)
    ...     return await heard.wait()
    >>> asyncio.run(main())
    True
    """
    ear = _EARS.get(loop)
    if ear is None:
        try:
            ear = _EARS[loop] = _Ear(loop)
        except (NotImplementedError, OSError):
            # It waits for sockets and nothing else, as one on Windows does; or the process may open no more files.
            def call(function: Callable[..., object], /, *arguments: Any) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(function, *arguments)

            return call
    return ear.call


class _Ear:
    """What a loop listens to, for as long as there is the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # which keeps its ear
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._bed, self._door = os.pipe()
        os.set_blocking(self._bed, False)
        # Not when the loop is closed: whoever calls it still has the number, which soon is another file's.
        weakref.finalize(self, _close, self._bed, self._door).atexit = False
        # In no context: the loop keeps it.
        Context().run(loop.add_reader, self._bed, self._hear)

    def call(self, function: Callable[..., object], /, *arguments: Any) -> None:
        self._calls.append((function, arguments))
        os.write(self._door, _KNOCK)

    def _hear(self) -> None:
        try:
            knocks = len(os.read(self._bed, _KNOCKS))
        except BlockingIOError:
            return  # a loop that was stopped halfway through a turn comes twice
        function, arguments = self._calls.popleft()
        for _ in range(knocks - 1):
            later, given = self._calls.popleft()
            loop = self._loop()
            assert loop is not None  # noqa: S101 - it is running this
            loop.call_soon(later, *given)
        # Last, since it may raise; at once, since in the loop's next turn it would have asked for news of every file again.
        function(*arguments)


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


_EARS: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Ear]] = weakref.WeakKeyDictionary()
