"""A SQLite file: one thread that writes, one that reads rows and inboxes, one for listings; SQLAlchemy's own for steps' transactions.

Knows how a file is opened, made current and closed; no statement of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from checkpoint_stores.errors import ArgumentError, StoreUnavailableError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults, sqlite_schema, stamp, statements
from checkpoint_stores.sql.addresses import Address
from checkpoint_stores.sql.database import Database, Found, Wanted
from checkpoint_stores.sql.matters import Ending, Matter, Starting
from checkpoint_stores.sql.places import for_sqlite
from checkpoint_stores.sql.sqlite_reader import SQLiteReader
from checkpoint_stores.sql.sqlite_writer import SQLiteWriter
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.transitions import Creation, Transition
from checkpoint_stores.sql.watches import SQLitePoller
from checkpoint_stores.sql.wires import Wire

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from checkpoint_stores.sql.step_transaction import StepTransaction

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
    """A file at an address; ``synchronous`` is its PRAGMA."""

    size = statements.SQLITE_SIZE

    def __init__(self, address: Address, scribe: Scribe, *, synchronous: str) -> None:
        super().__init__(address.url, scribe)
        self._address = address
        self._synchronous = synchronous
        self._steps_in_line = asyncio.Lock()
        self.writer: SQLiteWriter
        self.reader: SQLiteReader
        self._lister: SQLiteReader | None = None
        self._finding_lister = asyncio.Lock()
        self._engine: AsyncEngine | None = None

    async def _open(self, *, may_upgrade: bool) -> None:
        # A file belongs to who opens it: it is always upgraded.
        assert self.scribe.now is not None  # noqa: S101 - SQLite runs in this process: the clock is this machine's, or virtual
        writer = SQLiteWriter(self.url, self.connect_writer, self.scribe.now)
        await writer.open()
        reader = SQLiteReader(self.url, self.connect_reader, name="trailmark-sqlite-reader")
        try:
            await reader.open()
        except BaseException:
            await writer.close()
            raise
        self.writer, self.reader = writer, reader
        self.outside = SQLitePoller(self._connect, self.scribe.now, writer)
        writer.unheard = self.outside.watches.wake_all

    async def _close(self, last: Callable[[Wire], object]) -> None:
        await self.outside.close()
        # What cannot be given back now is free when the lease expires.
        with contextlib.suppress(StoreUnavailableError), faults.typed_errors(self.url):
            await self._write(last)
        await self.writer.close()
        if self._engine is not None:
            await self._engine.dispose()
        async with self._finding_lister:
            if self._lister is not None:
                await self._lister.close()
        await self.reader.close()

    def _step(self, **options: Any) -> StepTransaction:
        from checkpoint_stores.sql.sqlite_step import SQLiteStep

        assert self.scribe.now is not None  # noqa: S101 - as above
        return SQLiteStep(self.url, self._steps_engine, self._steps_in_line, self.scribe.now, **options)

    async def _steps_engine(self) -> AsyncEngine:
        if self._engine is None:
            # SQLAlchemy is imported for the first step that wants a transaction of its own, in a thread: the loop does not stand still.
            engine = await asyncio.to_thread(self._make_engine)
            if self._engine is None:  # of two at once the second one's is dropped; it has no connection yet
                self._engine = engine
        return self._engine

    def _make_engine(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(
            self._address.for_core(), isolation_level="AUTOCOMMIT", pool_reset_on_return=None, connect_args={"timeout": BUSY_SECONDS}
        )

    def commit(self, work: Transition) -> Awaitable[Receipt]:
        return self.writer.submit(work)

    async def at_once(self, matter: Matter) -> Any:
        if not isinstance(matter, Starting | Ending):
            return None
        if not self.is_open:
            await self.open()
        with faults.typed_errors(self.url):
            return await self.writer.submit(matter)

    async def create_at_once(self, new: Creation) -> int | None:
        with faults.typed_errors(self.url):
            created_at: int | None = await self.writer.submit(new)
            return created_at

    async def _write(self, work: Callable[[Wire], T]) -> T:
        result: T = await self.writer.submit(work)
        return result

    async def listed(self, wanted: Wanted) -> list[list[Any]]:
        if not self.is_open:
            await self.open()
        with faults.typed_errors(self.url):
            if self._lister is None:
                await self._open_lister()
            assert self._lister is not None  # noqa: S101 - it was just opened
            found: list[list[Any]] = await self._lister.submit(partial(_all, wanted))
            return found

    async def _open_lister(self) -> None:
        # Whoever only drives runs never lists any.
        async with self._finding_lister:
            if self._is_closed:
                raise StoreUnavailableError(self.url, "this store is closed")
            if self._lister is None:
                lister = SQLiteReader(self.url, self._connect, name="trailmark-sqlite-lister")
                await lister.open()
                self._lister = lister

    async def _fetch(self, wanted: Wanted) -> list[list[Any]]:
        with faults.typed_errors(self.url):
            found: list[list[Any]] = await self.reader.submit(partial(_all, wanted))
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
        path, options = self._address.arguments()
        given: dict[str, Any] = {**options, "timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
        connection: sqlite3.Connection = sqlite3.connect(path, **given)
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
        if stamp.is_stamped(raw):
            return
        if sqlite_schema.is_absent(raw):
            with _exclusively(raw):
                if sqlite_schema.is_absent(raw):  # still: another process may have been faster
                    sqlite_schema.make(raw)
        if not stamp.is_stamped(raw):
            self._migrate(raw)

    def _migrate(self, raw: sqlite3.Connection) -> None:
        # For this SQLAlchemy is imported: there are older tables, newer ones, or somebody else's.
        from checkpoint_stores.sql import migrate
        from checkpoint_stores.sql.sqlite_core import core_over

        connection = core_over(raw)
        if stamp.is_current(migrate.revision_of(connection, self.url), self.url):
            return
        with _exclusively(raw):
            migrate.prepare(connection, self.url, may_upgrade=True)


@contextlib.contextmanager
def _exclusively(raw: sqlite3.Connection) -> Iterator[None]:
    """A transaction beside which there is no other."""
    raw.execute("BEGIN EXCLUSIVE")
    try:
        yield
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def _all(wanted: Wanted, raw: sqlite3.Connection) -> list[list[Any]]:
    return [raw.execute(*for_sqlite(*asked)).fetchall() for asked in wanted]


def _sifted(wanted: Wanted, sift: Callable[[Found], T], raw: sqlite3.Connection) -> T:
    cursors: list[sqlite3.Cursor] = []
    try:
        for asked in wanted:
            cursors.append(raw.execute(*for_sqlite(*asked)))  # noqa: PERF401 - those that are open are closed where one cannot be opened
        return sift(cursors)
    finally:
        for cursor in cursors:
            cursor.close()  # one left open would hold on to this moment of the file


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
