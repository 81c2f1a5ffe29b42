"""Hearing of changes that other processes made.

PostgreSQL tells by LISTEN/NOTIFY, over one connection of its own.  SQLite tells
nobody: one thread reads ``PRAGMA data_version`` every 10 ms.  Both exist only
while somebody watches; both wake rather once too often than never.

Steps are told of only where somebody follows them, since on PostgreSQL a NOTIFY
in each commit would have all commits of the database wait for each other.  Who
follows a run rings for it, again and again; the process that drives it hears the
ring, answers the first one (a step may have come before it was heard) and tells
of each step from then on, behind its commit, many at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import Context
from typing import Any, Final, Protocol

from checkpoint_stores.sql import statements
from checkpoint_stores.sql.lines import id_of, key_of
from checkpoint_stores.sql.places import for_postgres, for_sqlite
from checkpoint_stores.watching import EVERY_RUN, LocalWatch, LocalWatches

POLL_SECONDS: Final = 0.01
_AT_ONCE: Final = 500
_RETRY_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 0.5
_COUNTED: Final = 1000
_UNCOUNTED: Final = -1
_HANG_UP_SECONDS: Final = 2.0
_RING_SECONDS: Final = 2.0
_RUNG_SECONDS: Final = 3 * _RING_SECONDS
_RING: Final = "?"
_STEP: Final = "!"


class Writes(Protocol):
    """The connection of this process that writes."""

    def foreign(self, *, patience: float) -> int | None:
        """A number that moves with what others have committed; None where that is not known within so many seconds."""
        ...


class SQLitePoller:
    """One thread that compares (inbox_rev, status) of the watched runs whenever somebody else wrote to the file, and what is due for
    who watches all of them.

    What this process writes by itself wakes its watches without it; it would be most of what there is to see.  Where whoever asked for it
    has gone away meanwhile, and can wake nobody, all are woken.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], now: Callable[[], int], writes: Writes) -> None:
        self._connect = connect
        self._now = now
        self._writes = writes
        self._loop = asyncio.get_running_loop()
        self.watches = LocalWatches(on_wait=self._on_wait, on_idle=self._on_idle)
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def _on_wait(self, watch: LocalWatch) -> None:
        if self._stop is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._poll, args=(self._stop,), name="trailmark-sqlite-watcher", daemon=True)
            self._thread.start()

    def _on_idle(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    @property
    def rung(self) -> Collection[str]:
        """The runs whose steps are followed here: other processes see the newest checkpoint in the file."""
        return self.watches.followed

    def tell(self, run_id: str) -> None:
        """Tell whoever follows a run of its step."""
        self.watches.step(run_id)

    async def close(self) -> None:
        """Wake whoever waits and end the thread."""
        self.watches.close()
        self._on_idle()
        if self._thread is not None:
            self._thread.join()  # it is about to end; a pool may be gone already when a program closes its store at its very end

    def _poll(self, stop: threading.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            while not stop.is_set():
                # A file that cannot be read for a while is opened again, and everybody woken: something may have been missed.
                with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as connection:
                    self._compare(connection, stop)
                stop.wait(_RETRY_SECONDS)

    def _compare(self, connection: sqlite3.Connection, stop: threading.Event) -> None:
        states: dict[str, tuple[Any, ...]] = {}
        heads: dict[str, tuple[Any, ...]] = {}
        version: int | None = None
        foreign: int | None = None
        watched: set[str] = set()
        followed: set[str] = set()
        changes = -1
        while not stop.is_set():
            look: Collection[str] = ()
            look_for_steps: Collection[str] = ()
            if changes != self.watches.changes:
                changes = self.watches.changes
                waiting = list(self.watches.waiting)
                watched, followed = {watch.run_id for watch in waiting}, {watch.run_id for watch in waiting if watch.steps}
                _forget(states, watched)
                _forget(heads, followed)
                look, look_for_steps = watched - states.keys(), followed - heads.keys()
            now = connection.execute("PRAGMA data_version").fetchone()[0]
            if now != version:
                version, before = now, foreign
                # Somebody committed.  What we did ourselves this connection sees as well; the one that writes does not.
                foreign = self._writes.foreign(patience=_PATIENCE_SECONDS)
                if foreign is None or foreign != before:
                    look, look_for_steps = watched, followed
            changed = _moved(states, self._states(connection, look)) if look else []
            stepped = _moved(heads, self._read(connection, statements.heads_text, look_for_steps)) if look_for_steps else []
            if changed or stepped:
                self._loop.call_soon_threadsafe(self._wake, changed, stepped)
            stop.wait(POLL_SECONDS)

    def _states(self, connection: sqlite3.Connection, run_ids: Collection[str]) -> list[tuple[str, tuple[Any, ...]]]:
        states = self._read(connection, statements.inbox_states_text, (run_id for run_id in run_ids if run_id != EVERY_RUN))
        if EVERY_RUN in run_ids:
            states.append((EVERY_RUN, self._due(connection)))
        return states

    @staticmethod
    def _read(connection: sqlite3.Connection, text: Callable[[int], str], run_ids: Iterable[str]) -> list[tuple[str, tuple[Any, ...]]]:
        """What a statement says of each of the runs."""
        keys = [key_of(run_id) for run_id in run_ids]
        found: list[tuple[str, tuple[Any, ...]]] = []
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            found.extend((id_of(line[0]), line[1:]) for line in connection.execute(text(len(part)), part))
        return found

    def _due(self, connection: sqlite3.Connection) -> tuple[Any, ...]:
        number, *times = connection.execute(*for_sqlite(statements.DUE_MARK, (self._now(), _COUNTED))).fetchone()
        # Beyond so many nothing tells whether one more came: then every change wakes.
        return (_UNCOUNTED if number == _COUNTED else number, *times)

    def _wake(self, changed: list[str], stepped: list[str]) -> None:
        for run_id in changed:
            self.watches.wake(run_id)
        for run_id in stepped:
            self.watches.step(run_id)


def _moved(known: dict[str, tuple[Any, ...]], found: Iterable[tuple[str, tuple[Any, ...]]]) -> list[str]:
    """The runs of which what is ``found`` is not what is ``known``; then it is."""
    moved = []
    for run_id, state in found:
        if known.get(run_id) != state or state[0] == _UNCOUNTED:
            moved.append(run_id)
        known[run_id] = state
    return moved


def _forget(known: dict[str, tuple[Any, ...]], watched: Collection[str]) -> None:
    """Drop what is known of runs that nobody watches any more."""
    for run_id in known.keys() - watched:
        del known[run_id]


class PostgresListener:
    """One connection that listens; lost, it is made again and everybody is woken, since something may have been missed."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self.watches = LocalWatches(on_wait=self._on_wait, on_idle=self._on_idle)
        self._task: asyncio.Task[None] | None = None
        self._given_up: set[asyncio.Future[Any]] = set()
        self._rung: dict[str, float] = {}
        """Whose steps are to be told of, and until when."""
        self._to_tell: set[str] = set()
        self._ringing: frozenset[str] = frozenset()
        """Rung for lately, by us."""
        self._news = asyncio.Event()

    @property
    def rung(self) -> Collection[str]:
        """The runs whose steps some process asked to be told of."""
        return self._rung

    def tell(self, run_id: str) -> None:
        """Tell whoever rang for a run of its step: with the next message."""
        if self._rung[run_id] < self._loop.time():
            del self._rung[run_id]
            return
        self._to_tell.add(run_id)
        self._news.set()

    def _on_wait(self, watch: LocalWatch) -> None:
        if watch.steps and watch.run_id not in self._ringing:
            self._news.set()
        if self._task is None:
            self._task = self._loop.create_task(self._listen(), name="trailmark-postgres-listener", context=Context())

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
                await connection.add_listener(statements.STEPS_CHANNEL, self._hear_of_steps)
                self._rung.clear()  # what was to be told meanwhile is lost: the next ring is a first one
                self.watches.wake_all()
                await self._talk(connection, lost)
            except Exception:  # noqa: BLE001, S110 - whatever it is, the remedy is to connect again
                pass
            finally:
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.terminate()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _talk(self, connection: Any, lost: asyncio.Future[None]) -> None:
        """Ring for the runs that are followed here, and tell of those that others ring for, until the connection is lost."""
        ring_at = self._loop.time()
        self._ringing = frozenset()
        while not lost.done():
            followed, now = frozenset(self.watches.followed), self._loop.time()
            if now >= ring_at:
                self._ringing, ring_at = frozenset(), now + _RING_SECONDS
            said = [_RING + key_of(run_id).hex() for run_id in followed - self._ringing]
            self._ringing = followed
            tell, self._to_tell = self._to_tell, set()
            said += [_STEP + key_of(run_id).hex() for run_id in tell]
            self._news.clear()
            if said:
                await connection.execute(for_postgres(statements.NOTIFY_OF_STEPS), said)
            news = self._loop.create_task(self._news.wait())
            try:
                await asyncio.wait((lost, news), timeout=ring_at - now if followed else None, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()

    def _hear_of_steps(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        said, key = payload[:1], payload[1:]
        try:
            run_id = id_of(bytes.fromhex(key))
        except ValueError:
            return  # anybody may write into a channel
        if said == _STEP:
            self.watches.step(run_id)
        elif said == _RING and self.watches.is_answered(run_id):
            now = self._loop.time()
            if self._rung.get(run_id, 0.0) < now:
                self._to_tell.add(run_id)
                self._news.set()
            self._rung = {rung: until for rung, until in self._rung.items() if until >= now} | {run_id: now + _RUNG_SECONDS}

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        with contextlib.suppress(ValueError):
            run_id = id_of(bytes.fromhex(payload))
            self.watches.wake(run_id)
            if run_id in self.watches.followed:
                # Another process may drive it from now on, and has not heard us ring.
                self._ringing -= {run_id}
                self._news.set()
