"""How a step hears that it is to stop: a token that is set once and says why.

Async bodies are cancelled anyway; a plain function in a thread cannot be, and
what a body has handed its work to (another thread, a library) wants to be told.
Knows no run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any


class CancelToken:
    """Set once, never cleared.  May be asked, waited for and awaited, from every thread and loop.

    >>> token = CancelToken()
    >>> child = token.child()
    >>> token.set("enough")
    >>> child.is_set(), child.reason, child.wait(timedelta(0))
    (True, 'enough', True)
    """

    __slots__ = ("_is_set", "_listeners", "_lock", "_reason")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = threading.Event()
        self._listeners: list[Callable[[str], None]] = []
        self._reason = ""

    def is_set(self) -> bool:
        """Whether whoever holds this should stop."""
        return self._is_set.is_set()

    @property
    def reason(self) -> str | None:
        """Why; None while it is not set."""
        return self._reason if self._is_set.is_set() else None

    def set(self, reason: str) -> None:
        """Tell everybody who listens, and all children.  Idempotent: the first reason stays."""
        with self._lock:
            if self._is_set.is_set():
                return
            self._reason = reason
            self._is_set.set()
            listeners, self._listeners = self._listeners, []
        for tell in listeners:
            tell(reason)

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block this thread until it is set; False where ``timeout`` is over first.  Never in the event loop: await it there."""
        return self._is_set.wait(None if timeout is None else timeout.total_seconds())

    def child(self) -> CancelToken:
        """A token that is set with this one, and may be set alone."""
        child = CancelToken()
        self._listen(child.set)
        return child

    def __await__(self) -> Generator[Any, None, str]:
        """Wait in an event loop until it is set; the reason."""
        return self._awaited().__await__()

    async def _awaited(self) -> str:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[str] = loop.create_future()

        def settle(reason: str) -> None:
            if not told.done():
                told.set_result(reason)

        def tell(reason: str) -> None:
            try:
                loop.call_soon_threadsafe(settle, reason)
            except RuntimeError:
                return  # that loop is closed: nobody waits there any more

        self._listen(tell)
        try:
            return await told
        finally:
            with self._lock:
                if tell in self._listeners:
                    self._listeners.remove(tell)

    def _listen(self, tell: Callable[[str], None]) -> None:
        with self._lock:
            if not self._is_set.is_set():
                self._listeners.append(tell)
                return
        tell(self._reason)

    def __repr__(self) -> str:
        return f"<CancelToken: {self._reason}>" if self.is_set() else "<CancelToken>"
