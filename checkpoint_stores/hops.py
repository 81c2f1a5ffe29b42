"""How a thread calls a function in a loop: as `loop.call_soon_threadsafe` does, but for the way in which the loop is woken.

That one writes into a socket, and the loop reads it until nothing more comes;
here it is a byte in a pipe that the loop listens to.  Of a durable step on
SQLite the difference was a sixteenth to a twelfth.  A byte only wakes: what is to be called
stands where the loop keeps what is ready, so one too many, or one that somebody
else has written (the child of a fork), or that was lost, harms nothing.
Knows neither threads nor what is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import weakref
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, Protocol

_KNOCK: Final = b"1"
_KNOCKS: Final = 4_096


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
        # Others keep elsewhere what is ready, or cannot wait for a pipe.
        if not isinstance(loop, BaseSelectorEventLoop) or sys.platform == "win32":
            return partial(_call_its_own_way, loop)
        try:
            ear = _EARS[loop] = _Ear(loop)
        except (OSError, NotImplementedError):  # the process may open no more files
            return partial(_call_its_own_way, loop)
    return ear.call


def _call_its_own_way(loop: asyncio.AbstractEventLoop, function: Callable[..., object], /, *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, *arguments)


class _Pipe:
    """Never closed while somebody may still knock: its number is another file's then."""

    def __init__(self) -> None:
        self.bed, self.door = os.pipe()
        weakref.finalize(self, _close, self.bed, self.door).atexit = False
        for end in (self.bed, self.door):
            os.set_blocking(end, False)


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


class _Ear:
    """What a loop listens to, for as long as it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # it keeps its ear
        # A loop that is closed may be there for long before Python collects it, and its pipe is as good as new.
        left = next((other for other in list(_EARS) if other.is_closed()), None)
        ear = None if left is None else _EARS.pop(left, None)
        self.pipe: _Pipe = _Pipe() if ear is None else ear.pipe
        # In no context: the loop keeps it.
        Context().run(loop.add_reader, self.pipe.bed, self._hear)

    def call(self, function: Callable[..., object], /, *arguments: Any) -> None:
        loop = self._loop()
        if loop is None:
            return
        try:
            if loop.get_debug():  # then it refuses what comes from other threads in any other way
                loop.call_soon_threadsafe(function, *arguments)
            else:
                loop.call_soon(function, *arguments)
                os.write(self.pipe.door, _KNOCK)
        except RuntimeError:
            pass  # the loop is closed
        except BlockingIOError:
            pass  # so much stands there already that it will wake

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a loop that was stopped halfway through a turn comes twice
            os.read(self.pipe.bed, _KNOCKS)


_EARS: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Ear]] = weakref.WeakKeyDictionary()
