"""A SQLite file: one thread that writes, one that reads rows and inboxes, one for listings; SQLAlchemy's own for steps' transactions.

Knows how a file is opened, made current and closed; no statement of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import sqlalchemy as sa

from checkpoint_stores.errors import ArgumentError, StoreUnavailableError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults, migrate, statements
from checkpoint_stores.sql.database import Database, Found, Wanted
from checkpoint_stores.sql.places import for_sqlite
from checkpoint_stores.sql.sqlite_reader import SQLiteLister, SQLiteReader
from checkpoint_stores.sql.sqlite_step import SQLiteStep
from checkpoint_stores.sql.sqlite_writer import SQLiteWriter, core_over
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.transitions import Transition
from checkpoint_stores.sql.watches import SQLitePoller

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

BUSY_SECONDS: Final = 5.0
"""How long SQLite waits for another process that holds the file's write lock."""

READER_CACHE: Final = -256
"""Kilobytes, as SQLite wants them.  Rows are read once, and what is kept is void as soon as anybody writes: more than the way
down the trees is never found again, and only fills memory while a long run is read."""

Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]


def checked_synchronous(synchronous: str) -> str:
    """Raises ArgumentError."""
    if synchronous not in get_args(Synchronous):
        raise ArgumentError("synchronous", synchronous, f"one of {', '.join(get_args(Synchronous))}")
    return synchronous


class SQLiteDatabase(Database):
    """A file; ``synchronous`` is its PRAGMA."""

    size = statements.SQLITE_SIZE
    answers_together = False

    def __init__(self, address: sa.URL, scribe: Scribe, *, synchronous: str) -> None:
        super().__init__(address, scribe)
        self._synchronous = synchronous
        self._steps_in_line = asyncio.Lock()
        self.writer: SQLiteWriter
        self.reader: SQLiteReader
        self._lister: SQLiteLister | None = None
        self._finding_lister = asyncio.Lock()

    async def _open(self, *, may_upgrade: bool) -> None:
        # A file belongs to who opens it: it is always upgraded.
        assert self.scribe.now is not None  # noqa: S101 - SQLite runs in this process: the clock is this machine's, or virtual
        writer = SQLiteWriter(self.url, self.connect_writer, self.scribe.now)
        await writer.open()
        self.writer = writer
        self.reader = SQLiteReader(self.url, self.connect_reader)
        await self.reader.open()
        self.outside = SQLitePoller(self._connect, self.scribe.now, writer)
        writer.unheard = self.outside.watches.wake_all

    async def _close(self, last: Callable[[sa.Connection], object]) -> None:
        await self.outside.close()
        # What cannot be given back now is free when the lease expires.
        with contextlib.suppress(StoreUnavailableError), faults.typed_errors(self.url):
            await self._write(last)
        await self.writer.close()
        if "_engine" in vars(self):
            await self._engine.dispose()
        async with self._finding_lister:
            if self._lister is not None:
                await self._lister.close()
        await self.reader.close()

    @cached_property
    def _engine(self) -> AsyncEngine:
        # Imported for the first step that wants a transaction of its own: with it comes SQLAlchemy's whole ORM.
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(
            self.address, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, connect_args={"timeout": BUSY_SECONDS}
        )

    def _step(self, **options: Any) -> SQLiteStep:
        assert self.scribe.now is not None  # noqa: S101 - as above
        return SQLiteStep(self.url, self._engine, self._steps_in_line, self.scribe.now, **options)

    def commit(self, work: Transition) -> Awaitable[Receipt]:
        return self.writer.submit(work)

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        result: T = await self.writer.submit(work)
        return result

    async def _read(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        with faults.typed_errors(self.url):
            if self._lister is None:
                await self._open_lister()
            assert self._lister is not None  # noqa: S101 - it was just opened
            found: Sequence[sa.Row[Any]] = await self._lister.submit(statement)
            return found

    async def _open_lister(self) -> None:
        # Whoever only drives runs never lists any.
        async with self._finding_lister:
            if self._is_closed:
                raise StoreUnavailableError(self.url, "this store is closed")
            if self._lister is None:
                lister = SQLiteLister(self.url, self._connect)
                await lister.open()
                self._lister = lister

    async def _fetch(self, wanted: Wanted) -> list[list[Any]]:
        with faults.typed_errors(self.url):
            found: list[list[Any]] = await self.reader.submit(lambda raw: [raw.execute(*for_sqlite(*asked)).fetchall() for asked in wanted])
            return found

    async def fetch_through(self, wanted: Wanted, sift: Callable[[Found], T]) -> T:
        if not self.is_open:
            await self.open()
        with faults.typed_errors(self.url):
            # In the thread that reads anyway, line by line as they come: not one hop more, and no list of bare tuples.
            sifted: T = await self.reader.submit(partial(_sifted, wanted, sift))
            return sifted

    async def _vacuum(self) -> None:
        await asyncio.to_thread(self._pack)

    def _pack(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- connections ------------------------------------------------------------------------------------------------
    def _connect(self) -> sqlite3.Connection:
        args, options = self.address.get_dialect()().create_connect_args(self.address)
        given: dict[str, Any] = {**options, "timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
        connection: sqlite3.Connection = sqlite3.connect(args[0], **given)
        return connection

    def connect_reader(self) -> sqlite3.Connection:
        """The connection that reads rows and inboxes; called in the reader's thread."""
        connection = self._connect()
        try:
            connection.execute(f"PRAGMA cache_size = {READER_CACHE}")
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_writer(self) -> sqlite3.Connection:
        """The connection that writes, over a file whose schema is current; called in the writer's thread."""
        connection = self._connect()
        try:
            _use_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            self._make_current(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_current(self, raw: sqlite3.Connection) -> None:
        if migrate.is_stamped(raw):
            return
        connection = core_over(raw)
        if migrate.is_current(migrate.revision_of(connection, self.url), self.url):
            return
        raw.execute("BEGIN EXCLUSIVE")
        try:
            migrate.prepare(connection, self.url, may_upgrade=True)
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise


def _sifted(wanted: Wanted, sift: Callable[[Found], T], raw: sqlite3.Connection) -> T:
    with contextlib.ExitStack() as cursors:  # one left open would hold on to this moment of the file
        return sift([cursors.enter_context(contextlib.closing(raw.execute(*for_sqlite(*asked)))) for asked in wanted])


def _use_wal(connection: sqlite3.Connection) -> None:
    # Changing the journal's mode does not wait for the lock by itself; a fresh file may be opened by two processes at once.
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.005)
        else:
            return
