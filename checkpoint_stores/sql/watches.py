"""Hearing of changes that other processes made.

PostgreSQL tells by LISTEN/NOTIFY, over one connection of its own.  SQLite tells
nobody: one thread reads ``PRAGMA data_version`` every 10 ms.  Both exist only
while somebody watches; both wake rather once too often than never.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from checkpoint_stores.sql import statements
from checkpoint_stores.sql.lines import id_of, key_of
from checkpoint_stores.sql.places import for_sqlite
from checkpoint_stores.watching import EVERY_RUN, LocalWatch, LocalWatches

POLL_SECONDS: Final = 0.01
_AT_ONCE: Final = 500
_RETRY_SECONDS: Final = 0.5
_COUNTED: Final = 1000
_UNCOUNTED: Final = -1
_HANG_UP_SECONDS: Final = 2.0


class SQLitePoller:
    """One thread that compares (inbox_rev, status) of the watched runs whenever anybody wrote to the file, and what is due for who
    watches all of them."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], now: Callable[[], int]) -> None:
        self._connect = connect
        self._now = now
        self._loop = asyncio.get_running_loop()
        self.watches = LocalWatches(on_wait=self._on_wait, on_idle=self._on_idle)
        self._watched: frozenset[str] = frozenset()
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def _on_wait(self, watch: LocalWatch) -> None:
        if watch.run_id not in self._watched:
            self._watched |= {watch.run_id}
        if self._stop is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._poll, args=(self._stop,), name="trailmark-sqlite-watcher", daemon=True)
            self._thread.start()

    def _on_idle(self) -> None:
        self._watched = frozenset()
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    async def close(self) -> None:
        """Wake whoever waits and end the thread."""
        self.watches.close()
        self._on_idle()
        if self._thread is not None:
            self._thread.join()  # it is about to end; a pool may be gone already when a program closes its store at its very end

    def _poll(self, stop: threading.Event) -> None:
        known: dict[str, tuple[Any, ...]] = {}
        version: int | None = None
        seen: frozenset[str] = frozenset()
        with contextlib.suppress(sqlite3.Error, RuntimeError), contextlib.closing(self._connect()) as connection:
            while not stop.is_set():
                watched = self._watched
                current = connection.execute("PRAGMA data_version").fetchone()[0]
                if current != version or watched is not seen:
                    version, seen = current, watched
                    states = self._states(connection, watched - {EVERY_RUN})
                    if EVERY_RUN in watched:
                        states.append((EVERY_RUN, self._due(connection)))
                    changed = [run_id for run_id, state in states if known.get(run_id) != state or state[0] == _UNCOUNTED]
                    known.update(states)
                    if changed:
                        self._loop.call_soon_threadsafe(self._wake, changed)
                stop.wait(POLL_SECONDS)

    @staticmethod
    def _states(connection: sqlite3.Connection, run_ids: Iterable[str]) -> list[tuple[str, tuple[Any, ...]]]:
        keys = [key_of(run_id) for run_id in run_ids]
        states: list[tuple[str, tuple[Any, ...]]] = []
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            for run_id, inbox_rev, status in connection.execute(statements.inbox_states_text(len(part)), part):
                states.append((id_of(run_id), (inbox_rev, status)))
        return states

    def _due(self, connection: sqlite3.Connection) -> tuple[Any, ...]:
        number, *times = connection.execute(*for_sqlite(statements.DUE_MARK, (self._now(), _COUNTED))).fetchone()
        # Beyond so many nothing tells whether one more came: then every change wakes.
        return (_UNCOUNTED if number == _COUNTED else number, *times)

    def _wake(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            self.watches.wake(run_id)


class PostgresListener:
    """One connection that listens; lost, it is made again and everybody is woken, since something may have been missed."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self.watches = LocalWatches(on_wait=self._on_wait, on_idle=self._on_idle)
        self._task: asyncio.Task[None] | None = None
        self._given_up: set[asyncio.Future[Any]] = set()

    def _on_wait(self, _watch: LocalWatch) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._listen(), name="trailmark-postgres-listener")

    def _on_idle(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """Wake whoever waits and disconnect."""
        task = self._task
        self.watches.close()
        self._on_idle()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        if self._given_up:
            await asyncio.wait(self._given_up, timeout=_HANG_UP_SECONDS)

    async def _connected(self) -> Any:
        """Connect to the end, even where nobody wants to listen any more: a driver stopped halfway leaves loose ends."""
        connecting = asyncio.ensure_future(self._connect())
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._given_up.add(connecting)
            connecting.add_done_callback(self._hang_up)
            raise

    def _hang_up(self, connecting: asyncio.Future[Any]) -> None:
        self._given_up.discard(connecting)
        if not connecting.cancelled() and connecting.exception() is None:
            connecting.result().terminate()

    async def _listen(self) -> None:
        while True:
            connection = None
            try:
                connection = await self._connected()
                lost = self._loop.create_future()
                connection.add_termination_listener(lambda *_, lost=lost: lost.done() or lost.set_result(None))
                await connection.add_listener(statements.CHANNEL, self._hear)
                self.watches.wake_all()
                await lost
            except Exception:  # noqa: BLE001, S110 - whatever it is, the remedy is to connect again
                pass
            finally:
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.terminate()
            await asyncio.sleep(_RETRY_SECONDS)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        with contextlib.suppress(ValueError):
            self.watches.wake(id_of(bytes.fromhex(payload)))
