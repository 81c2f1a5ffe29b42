"""What only a real database can show: tampering, full and missing disks, lost connections, dead processes, small rows."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import asyncpg
import pytest

from checkpoint_stores.codec import encode
from checkpoint_stores.errors import (
    ArgumentError,
    BarrierClosedError,
    CheckpointCorruptError,
    CodecError,
    DecisionConflictError,
    InvalidDecisionError,
    LeaseHeldError,
    LeaseLostError,
    RunExistsError,
    RunMovedError,
    RunNotFoundError,
    StoreUnavailableError,
    UnserialisableError,
)
from checkpoint_stores.records import Commit, DecisionRecord, Lease, Receipt, RunChange, Snapshot
from checkpoint_stores.sql import listings, postgres_statements, statements
from checkpoint_stores.sql.places import for_postgres, for_sqlite
from checkpoint_stores.sql.postgres_writer import PostgresWriter
from checkpoint_stores.sql.sqlite_database import SQLiteDatabase
from checkpoint_stores.sql.sqlite_writer import SQLiteWriter
from checkpoint_stores.sql.store import SQLCheckpointStore
from checkpoint_stores.sql.watches import SQLitePoller
from checkpoint_stores.sql.wires import Wire
from checkpoint_stores.watching import EVERY_RUN
from trailmark.testing.contract import DEFINITION, OwnedRun, SetClock, Verdict, new_run
from trailmark.testing.resumption_contract import resumption, waiting_run

T = TypeVar("T")


def file_of(url: str) -> str:
    return url.removeprefix("sqlite+aiosqlite:///")


def tamper(url: str, *statements: str) -> None:
    with closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement


async def walked(store: SQLCheckpointStore, steps: int = 5) -> OwnedRun:
    run = await new_run(store)
    for _ in range(steps):
        await run.step()
    return run


# --- tampering ------------------------------------------------------------------------------------------------------
EDITS = {
    "payload": "x'315b5d'",
    "node": "'other'",
    "kind": "'join'",
    "path": "'checks[1]'",
    "next": "'pay'",
    "step": "step + 1",
    "epoch": "epoch + 1",
    "started_at": "started_at + 1",
    "digest": "zeroblob(32)",
}


@pytest.mark.parametrize("column", EDITS)
async def test_an_edit_of_any_column_is_found(sqlite_url: str, column: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        tamper(sqlite_url, f"UPDATE checkpoints SET {column} = {EDITS[column]} WHERE seq = 4")
        with pytest.raises(CheckpointCorruptError) as caught:
            await store.load(run.run_id)
        assert (caught.value.run_id, caught.value.seq) == (run.run_id, 4)
        assert len((await store.load(run.run_id, upto=3))[1]) == 3
        assert (await store.verify(run.run_id))[0].seq == 4


async def test_a_reorder_is_found(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        tamper(
            sqlite_url,
            "UPDATE checkpoints SET seq = 99 WHERE seq = 3",
            "UPDATE checkpoints SET seq = 3 WHERE seq = 4",
            "UPDATE checkpoints SET seq = 4 WHERE seq = 99",
        )
        for read in (store.load, store.folded, store.standing):
            with pytest.raises(CheckpointCorruptError) as caught:
                await read(run.run_id)
            assert caught.value.seq == 3
        assert [problem.seq for problem in await store.verify(run.run_id)] == [3, 4, 5]


@pytest.mark.parametrize("seq", [1, 3])
async def test_a_missing_row_is_found(sqlite_url: str, seq: int) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        tamper(sqlite_url, f"DELETE FROM checkpoints WHERE seq = {seq}")
        for read in (store.load, store.folded, store.standing):
            with pytest.raises(CheckpointCorruptError, match="missing") as caught:
                await read(run.run_id)
            assert caught.value.seq == seq
        assert seq in [problem.seq for problem in await store.verify(run.run_id)]


async def test_a_cut_at_the_end_is_found_against_the_anchor(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        await run.end()
        tamper(sqlite_url, "DELETE FROM checkpoints WHERE seq >= 6")
        for read in (store.load, store.folded, store.standing):
            with pytest.raises(CheckpointCorruptError, match="missing") as caught:
                await read(run.run_id)
            assert caught.value.seq == 6
        assert [problem.seq for problem in await store.verify(run.run_id)] == [6]
        assert len((await store.load(run.run_id, upto=5))[1]) == 5


async def test_a_run_without_any_row_is_corrupt_not_empty(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        tamper(sqlite_url, "DELETE FROM checkpoints")
        for ask in (
            store.load(run.run_id),
            store.load(run.run_id, upto=1),
            store.folded(run.run_id),
            store.standing(run.run_id),
            store.acquire(run.run_id, takeover=True),
        ):
            with pytest.raises(CheckpointCorruptError):
                await ask
        assert await store.verify(run.run_id) != []


async def test_a_reading_that_failed_half_way_does_not_hold_on_to_what_it_saw(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store, 50)
        key = run.run_id.replace("-", "")
        tamper(sqlite_url, "UPDATE runs SET run_id = zeroblob(16)")
        with pytest.raises(RunNotFoundError) as caught:
            await store.load(run.run_id)
        tamper(sqlite_url, f"UPDATE runs SET run_id = x'{key}'")
        assert len((await store.load(run.run_id))[1]) == 51, caught.value


async def test_what_was_read_from_a_file_is_kept_by_nobody_but_who_asked(sqlite_url: str) -> None:
    gone = threading.Event()

    def read(_raw: sqlite3.Connection) -> set[int]:
        found = set(range(3))
        weakref.finalize(found, gone.set)
        return found

    async with SQLCheckpointStore(sqlite_url) as store:
        assert await store._database.reader.submit(read) == {0, 1, 2}
        assert await asyncio.to_thread(gone.wait, 5)


async def test_a_row_moved_from_another_run_is_found(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run, donor = await walked(store, 3), await walked(store, 3)
        columns = "kind, payload, digest, node"
        tamper(
            sqlite_url,
            f"UPDATE checkpoints SET ({columns}) = (SELECT {columns} FROM checkpoints o WHERE o.seq = 3 AND hex(o.run_id) = "
            f"'{donor.run_id.replace('-', '').upper()}') WHERE seq = 3 AND hex(run_id) = '{run.run_id.replace('-', '').upper()}'",
        )
        with pytest.raises(CheckpointCorruptError):
            await store.load(run.run_id)


async def test_an_edited_snapshot_is_not_used_and_is_reported(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await new_run(store)
        await store.put_snapshot(Snapshot(run.run_id, 1, b"old", run.digest), 1)
        await run.step()
        await store.put_snapshot(Snapshot(run.run_id, 2, b"state", run.digest), 1)
        await run.step()
        tamper(sqlite_url, "UPDATE snapshots SET payload = x'00' WHERE seq = 2")
        snapshot, rows = await store.load(run.run_id)
        assert snapshot is not None
        assert (snapshot.seq, [row.seq for row in rows]) == (1, [2, 3])
        assert [problem.seq for problem in await store.verify(run.run_id)] == [2]


async def test_a_pruned_run_is_loaded_from_its_snapshot_and_goes_on(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        await store.put_snapshot(Snapshot(run.run_id, 6, b"state", run.digest), 1)
        tamper(sqlite_url, "DELETE FROM checkpoints WHERE seq <= 6")
        await run.step()
        snapshot, rows = await store.load(run.run_id)
        assert (snapshot and snapshot.payload, [row.seq for row in rows]) == (b"state", [7])
        assert await store.verify(run.run_id) == []


async def test_with_a_key_only_its_holder_can_write_a_sound_row(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url, chain_key=b"secret") as store, SQLCheckpointStore(sqlite_url) as forger:
        run = await walked(store, 2)
        forged = OwnedRun(forger, await forger.acquire(run.run_id, takeover=True))
        await forged.step()
        assert [problem.seq for problem in await store.verify(run.run_id)] == [4, 5]


# --- a database that cannot be used ---------------------------------------------------------------------------------
@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_sqlite_in_memory_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="MemoryCheckpointStore"):
        SQLCheckpointStore(url)


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/d", "nonsense", "postgresql+psycopg://u:hidden@h/d", ""])
def test_another_kind_of_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        SQLCheckpointStore(url)
    assert "hidden" not in str(caught.value)


async def test_an_unreachable_server_is_told_without_the_password() -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        async with SQLCheckpointStore("postgresql+asyncpg://ana:hidden@127.0.0.1:1/runs"):
            pass
    assert "hidden" not in str(caught.value)
    assert "hidden" not in SQLCheckpointStore("postgresql+asyncpg://ana:hidden@127.0.0.1:1/runs").url


async def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="unable to open"):
        async with SQLCheckpointStore(f"sqlite+aiosqlite:///{tmp_path}/nowhere/runs.db"):
            pass


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        async with SQLCheckpointStore(f"sqlite+aiosqlite:///{tmp_path}/runs.db"):
            pass


async def test_a_read_only_database_is_told(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
    read_only = f"sqlite+aiosqlite:///file:{file_of(sqlite_url)}?mode=ro&uri=true"
    with pytest.raises(StoreUnavailableError, match="readonly"):
        async with SQLCheckpointStore(read_only) as store:
            await new_run(store)


@asynccontextmanager
async def busy(store: SQLCheckpointStore) -> AsyncIterator[SQLiteWriter]:
    """While this is open the store's writing thread is busy: what is asked of it meanwhile waits, and goes together at the end."""
    free, held = threading.Event(), threading.Event()

    def holds(_wire: Wire) -> None:
        held.set()
        free.wait()

    await store.now()
    writer = store._database.writer
    assert isinstance(writer, SQLiteWriter)
    first = writer.submit(holds)
    await asyncio.to_thread(held.wait)
    try:
        yield writer
    finally:
        free.set()
        await first


async def at_once(store: SQLCheckpointStore, asked: Iterable[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
    """What each of those gets that share the writer's next turn."""
    async with busy(store):
        tasks = [asyncio.create_task(each) for each in asked]
        for _ in range(5):  # until each has come to where it waits for the thread
            await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_fails_behind_something_it_wrote_is_undone_and_what_was_written_beside_it_stays(sqlite_url: str) -> None:
    def writes(name: str, fails: str = "") -> Callable[[Wire], str]:
        def work(wire: Wire) -> str:
            if fails == "before":
                raise ValueError(name)
            wire.fetch("INSERT INTO graphs (graph_hash, definition) VALUES (%1, '')", name)
            if fails:
                raise ValueError(name)
            return name

        return work

    async with SQLCheckpointStore(sqlite_url) as store:
        # What is asked for while the thread is busy shares one transaction.
        works = [writes("one"), writes("half", "behind"), writes("two"), writes("nothing", "before"), writes("three")]
        async with busy(store) as writer:
            told = asyncio.gather(*map(writer.submit, works), return_exceptions=True)
        outcomes = await told
    assert [str(outcome) for outcome in outcomes] == ["one", "half", "two", "nothing", "three"]
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [False, True, False, True, False]
    with closing(sqlite3.connect(file_of(sqlite_url))) as raw:
        assert {name for (name,) in raw.execute("SELECT graph_hash FROM graphs")} == {"one", "two", "three"}


async def pragma(store: SQLCheckpointStore, text: str) -> Any:
    """Ask or set a PRAGMA on the writer's own connection."""
    writer = store._database.writer
    assert isinstance(writer, SQLiteWriter)
    return await writer.submit(lambda wire: wire.fetch(f"PRAGMA {text}")[0][0])


async def test_a_full_disk_refuses_the_commit_and_keeps_the_run(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run, others = await walked(store), [await new_run(store) for _ in range(3)]
        seq, digest = run.seq, run.digest
        await pragma(store, "max_page_count = 1")
        with pytest.raises(StoreUnavailableError, match="full"):
            await run.step(b"x" * 1_000_000)
        answers = await asyncio.gather(*(other.step(b"x" * 1_000_000) for other in others), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
        await pragma(store, "max_page_count = 100000")
        run.seq, run.digest = seq, digest
        await run.step(b"x" * 1_000_000)
        assert await store.verify(run.run_id) == []
        assert [len((await store.load(other.run_id))[1]) for other in others] == [1, 1, 1]


async def test_of_steps_that_the_disk_had_no_room_for_none_is_in_though_one_beside_them_was_refused(sqlite_url: str) -> None:
    """Where a row is refused the others are asked for one by one: the first of them would still find room."""
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(6)]
        await runs[0].step()
        runs[0].seq -= 1  # what it appends now is there already
        pages = await pragma(store, "page_count")
        await pragma(store, f"max_page_count = {pages + 12}")
        answers = await at_once(store, (run.step(b"x" * 20_000) for run in runs))
        assert [type(answer) for answer in answers] == [StoreUnavailableError] * 6
        assert [len((await store.load(run.run_id))[1]) for run in runs] == [2, 1, 1, 1, 1, 1]


async def test_a_file_that_stays_locked_is_told(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_stores.sql.sqlite_database.BUSY_SECONDS", 0.05)
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store)
        with closing(sqlite3.connect(file_of(sqlite_url), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for ask in (lambda: store.commit(run.next_commit()), lambda: store.decide(run.run_id, "review", Verdict())):
                with pytest.raises(
                    StoreUnavailableError, match="database is locked; another process keeps it locked: wait for it or end it"
                ):
                    await ask()
                run.seq = 6
            other.execute("ROLLBACK")
        run.digest = (await store.load(run.run_id))[1][-1].digest
        await run.step()


async def test_where_a_file_cannot_be_read_nothing_that_writes_to_it_stays(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_database: SQLiteDatabase) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(SQLiteDatabase, "connect_reader", cannot)
    before = set(threading.enumerate())
    with pytest.raises(StoreUnavailableError):
        await SQLCheckpointStore(sqlite_url).runs()
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name == "trailmark-sqlite-writer"] == []


async def test_whoever_is_cancelled_while_a_file_is_opened_leaves_no_thread_behind(sqlite_url: str) -> None:
    with closing(sqlite3.connect(file_of(sqlite_url), isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (n)")
        other.execute("BEGIN EXCLUSIVE")
        store = SQLCheckpointStore(sqlite_url)
        before = set(threading.enumerate())
        opening = asyncio.create_task(store.runs())
        while not (opened := set(threading.enumerate()) - before):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        other.execute("ROLLBACK")
    for thread in opened:
        await asyncio.to_thread(thread.join, 20)
    assert [thread.name for thread in opened if thread.is_alive()] == []
    async with store:
        assert await store.runs() == []


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_text_the_database_cannot_hold_fails_its_own_commit_alone(request: pytest.FixtureRequest, kind: str) -> None:
    async with SQLCheckpointStore(request.getfixturevalue(f"{kind}_url")) as store:
        runs = [await new_run(store) for _ in range(6)]
        unholdable = {"sqlite": "lone \ud800", "postgres": "nul \0"}[kind]
        bad = Commit(runs[2].run_id, 1, (runs[2].row(node="fine"),))
        bad = bad._replace(rows=(bad.rows[0]._replace(node=unholdable),))
        commits = [bad if run is runs[2] else run.next_commit() for run in runs]
        answers = await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)
        assert [isinstance(answer, Receipt) for answer in answers] == [True, True, False, True, True, True]
        assert isinstance(answers[2], CodecError)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_of_many_created_at_once_one_that_cannot_be_kept_harms_nobody(request: pytest.FixtureRequest, kind: str) -> None:
    async with SQLCheckpointStore(request.getfixturevalue(f"{kind}_url")) as store:
        asked: list[dict[str, Any]] = [{} for _ in range(12)]
        asked[3] = {"labels": {"l": object()}}
        asked[6] = {"run_id": "no-run-id"}
        asked[9] = {"tenant": {"sqlite": "lone \ud800", "postgres": "nul \0"}[kind]}
        answers = await asyncio.gather(*(new_run(store, **parts) for parts in asked), return_exceptions=True)
        refused = {position: type(answer) for position, answer in enumerate(answers) if not isinstance(answer, OwnedRun)}
        assert refused == {3: UnserialisableError, 6: ArgumentError, 9: CodecError}
        assert len(await store.runs()) == 9


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_decision_the_database_cannot_hold_harms_no_other(request: pytest.FixtureRequest, kind: str) -> None:
    async with SQLCheckpointStore(request.getfixturevalue(f"{kind}_url")) as store:
        runs = [await new_run(store) for _ in range(6)]
        unholdable = {"sqlite": "lone \ud800", "postgres": "nul \0"}[kind]
        names = ["ana", "ben", unholdable, "eve", "kim", "lee"]
        asked = (store.decide(run.run_id, "review", Verdict(by=by)) for run, by in zip(runs, names, strict=True))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(answer, DecisionRecord) for answer in answers] == [True, True, False, True, True, True]
        assert isinstance(answers[2], CodecError | InvalidDecisionError)


# --- a connection that breaks ---------------------------------------------------------------------------------------
async def killed(url: str) -> None:
    """Break every connection to the database but one's own."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def test_a_commit_survives_a_connection_that_broke_before_it(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        run = await walked(store, 2)
        await killed(postgres_url)
        assert isinstance(await run.step(), Receipt)
        await killed(postgres_url)
        await store.commit(run.next_commit(change=RunChange(status="waiting", release=True)))
        assert (await store.run(run.run_id)).status == "waiting"
        assert await store.verify(run.run_id) == []


async def test_connections_that_broke_while_they_rested_are_replaced(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        run = await new_run(store)
        for ask in (
            lambda: store.run(run.run_id),
            lambda: store.load(run.run_id),
            lambda: store.inbox(run.run_id),
            lambda: store.decide(run.run_id, "review", Verdict()),
            lambda: store.acquire(run.run_id, takeover=True),
            store.heartbeat,
        ):
            await asyncio.gather(*(store.run(run.run_id) for _ in range(4)))
            await killed(postgres_url)
            await ask()


class Cut:
    """A prepared statement behind which the connection breaks: the database has done it, nobody is told."""

    def __init__(self, statement: Any, connection: Any) -> None:
        self._statement = statement
        self._connection = connection

    async def fetchrow(self, *values: Any) -> Any:
        await self._statement.fetchrow(*values)
        self._connection.terminate()
        raise ConnectionResetError("the wire was cut")

    async def fetch(self, *values: Any) -> Any:
        await self._statement.fetch(*values)
        self._connection.terminate()
        raise ConnectionResetError("the wire was cut")


@contextmanager
def cut_after_sending(store: SQLCheckpointStore) -> Iterator[None]:
    writer = store._database.writer
    assert isinstance(writer, PostgresWriter)
    for name in ("_append_one", "_append_many", "_transition", "_resumption"):
        setattr(writer, name, Cut(getattr(writer, name), writer._connection))
    yield


async def test_a_commit_whose_answer_was_lost_is_found_to_be_in(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(4)]
        for number in (1, 4):
            with cut_after_sending(store):
                receipts = await asyncio.gather(*(run.step() for run in runs[:number]))
            assert all(isinstance(receipt, Receipt) for receipt in receipts)
        with cut_after_sending(store):
            await runs[0].open_barrier()
        assert [found.run_id for found in await store.barriers()] == [runs[0].run_id]
        for run in runs:
            assert await store.verify(run.run_id) == []


async def test_a_commit_whose_answer_was_lost_to_another_owner_is_refused(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        run = await new_run(store)
        await other.acquire(run.run_id, takeover=True)
        with cut_after_sending(store), pytest.raises(LeaseLostError):
            await run.step()
        assert await other.verify(run.run_id) == []


@contextmanager
def desk_cut_after_sending(store: SQLCheckpointStore, *names: str) -> Iterator[None]:
    desk = store._database.desk
    assert desk is not None
    for name in names:
        setattr(desk, name, Cut(getattr(desk, name), desk._connection))
    yield


async def test_a_run_whose_creation_was_not_answered_is_found_to_be_its_creators(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        taken = await new_run(store, run_key="taken")
        for number in (1, 3):
            writer = store._database.writer
            assert isinstance(writer, PostgresWriter)
            writer._create = Cut(writer._create, writer._connection)
            asked = [new_run(store, run_key=f"{number} of {one}") for one in range(number)]
            *made, refused = await asyncio.gather(*asked, new_run(store, run_key="taken"), return_exceptions=True)
            assert isinstance(refused, RunExistsError)
            assert refused.run_id == taken.run_id
            for run in made:
                assert isinstance(run, OwnedRun)
                await run.step()
                assert await store.verify(run.run_id) == []


async def test_a_decision_that_was_not_answered_is_kept_once(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(3)]
        await asyncio.gather(*(run.open_barrier() for run in runs))
        await store.inbox(runs[0].run_id)
        with desk_cut_after_sending(store, "_decide"):
            answers = await asyncio.gather(*(store.decide(run.run_id, "review", Verdict()) for run in runs))
        for run, answer in zip(runs, answers, strict=True):
            assert await store.decisions(run.run_id) == [answer]
            assert (await store.run(run.run_id)).inbox_rev == 1


async def test_a_taking_that_was_not_answered_is_found_to_be_done(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store, hold=False, status="ready") for _ in range(3)]
        await store.inbox(runs[0].run_id)
        with desk_cut_after_sending(store, "_take"):
            leases = await asyncio.gather(*(store.acquire(run.run_id) for run in runs))
        for lease in leases:
            assert (lease.epoch, lease.head_seq, lease.run.owner) == (1, 2, store.worker_id)
            await OwnedRun(store, lease).step()
            assert await store.verify(lease.run.run_id) == []


async def test_a_run_taken_up_whose_answer_was_lost_is_found_to_be_taken_once(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        runs = [await new_run(store, hold=False, status="ready") for _ in range(4)]
        standings = [await store.standing(run.run_id) for run in runs]
        await other.acquire(runs[-1].run_id)
        with cut_after_sending(store):
            asked = [store.take_up(resumption(store, standing, "step")) for standing in standings]
            *receipts, refused = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(receipt, Receipt) for receipt in receipts] == [True] * 3
        assert isinstance(refused, RunMovedError)
        for run in runs[:-1]:
            record = await store.run(run.run_id)
            assert (record.epoch, record.attempt, record.owner, store.holds(run.run_id)) == (1, 1, store.worker_id, True)
            assert [row.kind async for row in store.history(run.run_id)] == ["start", "attempt", "step"]
            assert await store.verify(run.run_id) == []
        assert not store.holds(runs[-1].run_id)


async def test_a_server_that_is_gone_is_told(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        run = await walked(store, 1)
        writer = store._database.writer
        assert isinstance(writer, PostgresWriter)

        async def refused() -> Any:
            raise ConnectionRefusedError("nobody listens")

        monkeypatch.setattr(writer, "_connect", refused)
        monkeypatch.setattr(writer, "_patience", 0.1)
        await killed(postgres_url)
        with pytest.raises(StoreUnavailableError, match="nobody listens"):
            await run.step()
        monkeypatch.undo()
        run.seq, run.digest = 2, (await store.load(run.run_id))[1][-1].digest
        await run.step()


async def test_a_watch_outlives_a_file_that_cannot_be_read_for_a_while(sqlite_url: str) -> None:
    loop, failed = asyncio.get_running_loop(), asyncio.Event()
    path = file_of(sqlite_url)

    def connect() -> sqlite3.Connection:
        try:
            return sqlite3.connect(f"file:{path}?mode=rw", uri=True)
        except sqlite3.OperationalError:
            loop.call_soon_threadsafe(failed.set)
            raise

    poller = SQLitePoller(connect, SetClock(), SimpleNamespace(foreign=lambda *, patience: None))
    watch = poller.watches.watch(EVERY_RUN)
    try:
        waiting = asyncio.create_task(watch.changed())
        async with asyncio.timeout(10):
            await failed.wait()
            async with SQLCheckpointStore(sqlite_url) as store:
                await new_run(store, hold=False, status="created")
                await waiting
    finally:
        await poller.close()


@pytest.fixture
def asked_about(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many runs each question of a watcher is."""
    numbers: list[int] = []
    text_of = statements.inbox_states_text
    monkeypatch.setattr(statements, "inbox_states_text", lambda number: numbers.append(number) or text_of(number))
    return numbers


async def test_a_watcher_of_a_file_asks_about_those_runs_alone_that_are_still_watched(sqlite_url: str, asked_about: list[int]) -> None:
    async with SQLCheckpointStore(sqlite_url) as store, SQLCheckpointStore(sqlite_url) as other:
        kept = await new_run(store)
        lasting = store.watch(kept.run_id)
        await lasting.changed()  # who begins to watch is told to look once
        for _ in range(20):
            run = await new_run(store)
            watch = store.watch(run.run_id)
            await watch.changed()
            watch.close()
        asked_about.clear()
        waiting = asyncio.create_task(lasting.changed())
        await other.request_cancel(kept.run_id, actor="ana")
        await waiting
        lasting.close()
    assert set(asked_about) == {1}


async def test_what_a_process_writes_itself_its_watcher_of_the_file_does_not_read_again(
    sqlite_url: str, asked_about: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look_at = SQLiteWriter.foreign

    def counted(self: SQLiteWriter, *, patience: float) -> int | None:
        nonlocal looks
        seen = look_at(self, patience=30)  # however long it takes on a busy machine
        looks += 1
        return seen

    monkeypatch.setattr(SQLiteWriter, "foreign", counted)
    async with SQLCheckpointStore(sqlite_url) as store, SQLCheckpointStore(sqlite_url) as other, asyncio.timeout(60):
        run = await new_run(store)
        watch = store.watch(run.run_id)
        await watch.changed()  # who begins to watch is told to look once
        asked_about.clear()
        seen = looks
        while looks < seen + 5:
            await run.step()
        assert not asked_about
        # What others write meanwhile is seen all the same.
        waiting = asyncio.create_task(watch.changed())
        await other.request_cancel(run.run_id, actor="ana")
        while not waiting.done():
            await run.step()
        assert asked_about
        watch.close()


@pytest.mark.parametrize("what", ["a decision", "a cancel", "a run"])
async def test_what_is_written_though_its_asker_went_away_wakes_who_watches_in_the_same_process(sqlite_url: str, what: str) -> None:
    """A person's connection breaks while their decision is being written: it counts, so the run hears of it."""
    async with SQLCheckpointStore(sqlite_url) as store, asyncio.timeout(20):
        run = await new_run(store)
        await run.open_barrier()
        watch = store.watch_due() if what == "a run" else store.watch(run.run_id)
        await watch.changed()  # who begins to watch is told to look once
        heard = asyncio.create_task(watch.changed())
        if what == "a decision":
            asks = asyncio.ensure_future(store.decide(run.run_id, "review", Verdict()))
        elif what == "a cancel":
            asks = asyncio.ensure_future(store.request_cancel(run.run_id, actor="ana"))
        else:
            asks = asyncio.ensure_future(new_run(store, hold=False, status="created"))
        await asyncio.sleep(0)  # it is on its way
        asks.cancel()
        await heard
        assert asks.cancelled()
        watch.close()


async def test_what_nobody_can_tell_whose_it_is_is_read_again(
    sqlite_url: str, asked_about: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteWriter, "foreign", lambda self, *, patience: None)
    async with SQLCheckpointStore(sqlite_url) as store, asyncio.timeout(60):
        run = await new_run(store)
        watch = store.watch(run.run_id)
        await watch.changed()
        asked_about.clear()
        while not asked_about:
            await run.step()
        watch.close()


async def test_on_postgresql_many_who_write_at_once_open_no_connection_that_was_open_before(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0
    connect = asyncpg.connect

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        return await connect(*args, **options)

    monkeypatch.setattr(asyncpg, "connect", counted)
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(30)]

        async def all_at_once(reason: str) -> None:
            await asyncio.gather(*(store.request_cancel(run.run_id, actor="ana", reason=reason) for run in runs))

        await all_at_once("to open what is needed")
        before = opened
        await all_at_once("again")
        assert opened == before


async def test_a_reading_that_is_cancelled_leaves_no_connection_at_an_old_moment(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        run = await new_run(other)
        await store.load(run.run_id)
        for turns in range(40):
            reading = asyncio.create_task(store.load(run.run_id))
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await run.step()
            assert await store.head(run.run_id) == run.seq
            assert (await store.load(run.run_id))[1][-1].seq == run.seq


async def test_a_run_that_is_being_taken_counts_as_held_before_the_answer_is_heard(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await new_run(store, hold=False, status="created")
        held: list[bool] = []
        transact = store._database.transact

        async def heard_late(*args: Any, **options: Any) -> Any:
            answer = await transact(*args, **options)
            held.append(store.holds(run.run_id))
            return answer

        monkeypatch.setattr(store._database, "transact", heard_late)
        lease = await store.acquire(run.run_id)
        assert held[-1], "the database has given it to us: who looks now must not take it for lost"
        await store.release(run.run_id, lease.epoch)
        assert not store.holds(run.run_id)
        await store.acquire(run.run_id)
        with pytest.raises(LeaseHeldError):
            await store.acquire(run.run_id)
        assert store.holds(run.run_id)


async def test_a_watch_outlives_its_connection(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        run = await new_run(store)
        watch = store.watch(run.run_id)
        async with asyncio.timeout(20):
            await watch.changed()  # the listener is up
            await killed(postgres_url)
            await other.decide(run.run_id, "review", Verdict())
            while (await store.inbox(run.run_id)).rev < 1:
                await watch.changed()
        watch.close()


async def test_who_follows_steps_is_told_of_them_again_when_every_connection_was_lost(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as driver:
        run = await new_run(driver)
        driving, watch = driver.watch(run.run_id), store.watch(run.run_id, steps=True)
        listening = asyncio.ensure_future(driving.changed())  # as whoever drives a run does
        async with asyncio.timeout(30):
            await watch.changed()
            await killed(postgres_url)
            for _ in range(10):  # more than a watch may be woken for nothing
                waiting = asyncio.ensure_future(watch.changed())
                await asyncio.sleep(0)
                await run.step()
                await waiting
        watch.close()
        driving.close()
        await asyncio.gather(listening, return_exceptions=True)


async def test_what_strangers_write_into_the_channels_harms_nobody(postgres_url: str) -> None:
    broken: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    async with SQLCheckpointStore(postgres_url) as store:
        run = await new_run(store)
        watch = store.watch(run.run_id, steps=True)
        async with asyncio.timeout(20):
            await watch.changed()  # the listener is up
            connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
            for channel in (statements.CHANNEL, statements.STEPS_CHANNEL):
                for word in ("", "?", "!", "?zz", "!zz", "!00", "x" + "00" * 16):
                    await connection.execute("SELECT pg_notify($1, $2)", channel, word)
            await connection.close()
            await store.decide(run.run_id, "review", Verdict())
            while (await store.inbox(run.run_id)).rev < 1:
                await watch.changed()
        watch.close()
    assert broken == []


# --- listings beside runs in a SQLite file --------------------------------------------------------------------------
async def test_a_listing_that_takes_long_keeps_nobody_from_reading_and_writing_rows(sqlite_url: str) -> None:
    entered, may_end = threading.Event(), threading.Event()

    def long() -> int:
        entered.set()
        return may_end.wait(30)

    async with SQLCheckpointStore(sqlite_url) as store:
        run = await walked(store, 1)
        assert len(await store.runs()) == 1
        database = store._database
        assert isinstance(database, SQLiteDatabase)
        assert database._lister is not None
        database._lister._raw.create_function("long", 0, long)
        listing = asyncio.create_task(database.listed([("SELECT long()", ())]))
        await asyncio.to_thread(entered.wait, 30)

        await run.step()
        _, rows = await store.load(run.run_id)
        assert len(rows) == 3
        assert not listing.done()
        may_end.set()
        assert await listing == [[(1,)]]


async def test_the_first_listing_of_a_store_that_is_closing_is_answered_or_refused_and_leaves_no_thread(sqlite_url: str) -> None:
    store = SQLCheckpointStore(sqlite_url)
    await store.upgrade()
    listings = [asyncio.create_task(store.runs()) for _ in range(3)]
    for _ in range(2):
        await asyncio.sleep(0)
    await store.close()
    for answer in await asyncio.gather(*listings, return_exceptions=True):
        assert answer == [] or isinstance(answer, StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        await store.runs()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trailmark-sqlite")]


async def test_a_store_that_is_closed_keeps_no_file_open(sqlite_url: str) -> None:
    async def once(url: str) -> None:
        async with SQLCheckpointStore(url) as store:
            run = await walked(store)
            assert len(await store.runs()) > 0
            await store.load(run.run_id)
            watch = store.watch(run.run_id)
            waiting = asyncio.create_task(watch.changed())
            await asyncio.sleep(0)
            watch.close()
            await waiting

    async def never(url: str) -> None:
        with pytest.raises(StoreUnavailableError):
            async with SQLCheckpointStore(url):
                pass

    await once(sqlite_url)
    await asyncio.sleep(0)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        await once(sqlite_url)
        await never(f"{sqlite_url}.d/no/such/folder")
        await asyncio.sleep(0)
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_a_listing_that_fails_is_told_and_the_next_one_is_answered(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        with pytest.raises(StoreUnavailableError, match="no such table"):
            await store._database.listed([("SELECT * FROM nowhere", ())])
        assert await store.runs() == []


# --- fencing by the database's own rules ----------------------------------------------------------------------------
async def test_a_stale_insert_that_lands_after_the_takeover_began_becomes_part_of_the_run(postgres_url: str) -> None:
    """The old owner's statement is in flight, uncommitted, while the new owner acquires: one of the two must give way."""
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as heir:
        run = await new_run(store)
        row = run.row()
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO checkpoints SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1 FROM runs WHERE run_id = $1 AND epoch = $3",
            bytes.fromhex(run.run_id.replace("-", "")), *row[1:11],
        )  # fmt: skip
        taking = asyncio.ensure_future(heir.acquire(run.run_id, takeover=True))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while await connection.fetchval(waiting) == 0:
                await asyncio.sleep(0)
        await transaction.commit()
        lease = await taking
        await connection.close()
        assert lease.head_seq == 3
        assert [found.kind for found in (await heir.load(run.run_id))[1]] == ["start", "step", "attempt"]


async def test_a_decision_that_gets_in_before_the_parking_commit_is_never_missed(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        for _ in range(10):
            run = await new_run(store)
            await run.open_barrier(park=False)
            parking = RunChange(status="waiting", release=True, release_at_rev=0)
            receipt, _ = await asyncio.gather(store.commit(run.next_commit(change=parking)), other.decide(run.run_id, "review", Verdict()))
            record = await store.run(run.run_id)
            assert record.inbox_rev == 1
            assert (record.status == "waiting") == (receipt.inbox_rev == 0)


async def nothing() -> None:
    """What happens from then on."""


class Meanwhile:
    """A prepared statement before whose first use something else happens."""

    def __init__(self, statement: Any, happens: Callable[[], Awaitable[Any]]) -> None:
        self._statement = statement
        self._happens = happens

    async def fetch(self, *values: Any) -> Any:
        happens, self._happens = self._happens, nothing
        await happens()
        return await self._statement.fetch(*values)


async def test_what_was_judged_over_a_run_that_changed_meanwhile_is_judged_again(postgres_url: str) -> None:
    """Between reading and writing another process decides, and the run withdraws a ticket."""
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        first, second, third = [await new_run(store) for _ in range(3)]
        await asyncio.gather(*(run.open_barrier(park=False) for run in (first, second, third)))
        await store.inbox(first.run_id)
        desk = store._database.desk
        assert desk is not None

        async def changes() -> None:
            await other.decide(first.run_id, "review", Verdict(by="ben"))
            await other.commit(second.next_commit(closed=(("review#1", "withdrawn"),)))

        desk._decide = Meanwhile(desk._decide, changes)
        asked = [store.decide(run.run_id, "review", Verdict(by="ana")) for run in (first, second, third, first)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [
            DecisionConflictError, BarrierClosedError, DecisionRecord, DecisionConflictError,
        ]  # fmt: skip
        assert [vote.actor for vote in await store.decisions(first.run_id)] == ["ben"]
        assert await store.decisions(second.run_id) == []
        assert [(await store.run(run.run_id)).inbox_rev for run in (first, second, third)] == [1, 0, 1]


async def test_a_run_that_was_taken_meanwhile_is_not_taken_again(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store, SQLCheckpointStore(postgres_url) as other:
        runs = [await new_run(store, hold=False, status="ready") for _ in range(3)]
        await store.inbox(runs[0].run_id)
        desk = store._database.desk
        assert desk is not None
        desk._take = Meanwhile(desk._take, lambda: other.acquire(runs[1].run_id))
        answers = await asyncio.gather(*(store.acquire(run.run_id) for run in runs), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Lease, LeaseHeldError, Lease]
        for run in runs:
            assert [row.kind for row in (await store.load(run.run_id))[1]] == ["start", "attempt"]
            assert await store.verify(run.run_id) == []


async def test_a_run_somebody_else_has_locked_holds_up_only_its_own_decision(postgres_url: str) -> None:
    async with SQLCheckpointStore(postgres_url) as store:
        runs = [await new_run(store) for _ in range(5)]
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT 1 FROM runs WHERE run_id = $1 FOR UPDATE", bytes.fromhex(runs[2].run_id.replace("-", "")))
        asked = [asyncio.ensure_future(store.decide(run.run_id, "review", Verdict())) for run in runs]
        try:
            async with asyncio.timeout(10):
                await asyncio.gather(*(one for position, one in enumerate(asked) if position != 2))
                await store.decide(runs[0].run_id, "board", Verdict(by="ana"))
            assert not asked[2].done()
        finally:
            await transaction.rollback()
            await connection.close()
        assert isinstance(await asked[2], DecisionRecord)


async def test_on_a_held_connection_every_statement_goes_by_keys_even_in_empty_tables(postgres_url: str) -> None:
    """Plans are made once, perhaps while the tables are empty, and must be right when they are full."""
    async with SQLCheckpointStore(postgres_url):
        pass
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute(postgres_statements.PLANNING)
    appended = "APPEND_ONE APPEND_MANY TRANSITION RESUMPTION CREATE"
    judged = "READ_CASES DECIDE READ_FREE TAKE READ_INBOXES READ_RUNS READ_STANDINGS START_EFFECTS END_EFFECTS"
    for name in f"{appended} {judged}".split():
        text = getattr(postgres_statements, name)
        await connection.execute(f"PREPARE its_{name} AS {text}")
        places = max(int(place) for place in re.findall(r"\$(\d+)", text))
        lines = await connection.fetch(f"EXPLAIN EXECUTE its_{name}({', '.join(['NULL'] * places)})")
        plan = "\n".join(line[0] for line in lines)
        assert "Seq Scan" not in plan, plan
        assert "Hash Join" not in plan, plan
        assert "Merge Join" not in plan, plan
    await connection.close()


# --- processes that died --------------------------------------------------------------------------------------------
HOLDER = """
import asyncio, sys
from checkpoint_stores.sql.store import SQLCheckpointStore
from trailmark.testing.contract import new_run
async def main():
    store = SQLCheckpointStore(sys.argv[1])
    run = await new_run(store)
    print(run.run_id, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_the_lease_of_a_killed_process_of_this_machine_may_be_taken_at_once(request: pytest.FixtureRequest, kind: str) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        run_id = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with SQLCheckpointStore(url) as store:
            with pytest.raises(LeaseHeldError):
                await store.acquire(run_id)
            assert not (await store.run(run_id)).orphaned
            os.kill(process.pid, signal.SIGKILL)
            async with asyncio.timeout(10):
                while not (await store.run(run_id)).orphaned:
                    await asyncio.sleep(0)
            async with asyncio.timeout(10):
                while True:
                    try:
                        lease = await store.acquire(run_id)  # it may be a zombie still: nobody has waited for it
                        break
                    except LeaseHeldError:
                        await asyncio.sleep(0)
            assert lease.epoch == 2
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_the_lease_of_a_process_of_another_machine_is_waited_for(sqlite_url: str) -> None:
    clock = SetClock()
    async with SQLCheckpointStore(sqlite_url, now=clock) as silent, SQLCheckpointStore(sqlite_url, now=clock) as heir:
        run = await new_run(silent)
        for host in ("elsewhere/boot/pid:[1]", "elsewhere"):
            tamper(sqlite_url, f"UPDATE workers SET host = '{host}', pid = 999999999 WHERE worker_id = '{silent.worker_id}'")
            with pytest.raises(LeaseHeldError):
                await heir.acquire(run.run_id)
        clock.advance(timedelta(seconds=30))
        assert (await heir.acquire(run.run_id)).epoch == 2


async def test_a_commit_is_durable_when_it_is_acknowledged(sqlite_url: str) -> None:
    program = HOLDER.replace("print(run.run_id, flush=True)", "[await run.step() for _ in range(20)]; print(run.run_id, flush=True)")
    process = subprocess.Popen([sys.executable, "-c", program, sqlite_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = (await asyncio.to_thread(process.stdout.readline)).strip()
    process.kill()
    process.wait()
    process.stdout.close()
    async with SQLCheckpointStore(sqlite_url) as store:
        assert len((await store.load(run_id))[1]) == 21


@pytest.mark.parametrize("table", ["snapshots", "barriers", "decisions", "effects"])
async def test_no_connection_of_ours_writes_a_line_of_a_run_there_is_not(sqlite_url: str, table: str) -> None:
    """SQLite holds references to be true only where a connection asks for it: each that writes does.  A checkpoint is
    inserted out of its run's own line, and needs no reference for that."""
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
        ((*columns,),) = await store._database.fetch([(f"SELECT name, type FROM pragma_table_info('{table}')", ())])
        values = ", ".join("x'00'" if kind.startswith("B") and kind != "BIGINT" else "1" for _, kind in columns)
        orphan = f"INSERT INTO {table} ({', '.join(name for name, _ in columns)}) VALUES ({values})"

        def write(wire: Wire, _scribe: Any) -> None:
            wire.fetch(orphan)

        with pytest.raises(StoreUnavailableError) as refused:
            await store._database.transact(write)
        assert "FOREIGN KEY" in str(refused.value.__cause__)


@pytest.mark.parametrize("number", [2, 15, 16, 17, 64, 100, 300])
async def test_of_commits_that_share_a_statement_each_gets_its_own_answer(sqlite_url: str, number: int) -> None:
    """Every third has lost its lease, every fifth leaves a hole, every seventh is there already, one cannot be kept at all."""
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(number)]
        commits, expected = [], []
        for index, run in enumerate(runs):
            row, wrong = run.row(), True
            if index % 3 == 2:
                row = row._replace(epoch=9)
            elif index % 5 == 4:
                row = row._replace(seq=row.seq + 1)
            elif index % 7 == 6:
                row = row._replace(seq=1)
            elif index == number // 2 and index % 2 == 0:
                row = row._replace(node="\ud800")
            else:
                wrong = False
            commits.append(Commit(run.run_id, row.epoch, (row,)))
            expected.append(wrong)
        answers = await at_once(store, map(store.commit, commits))
        assert [not isinstance(answer, Receipt) for answer in answers] == expected
        for run, wrong in zip(runs, expected, strict=True):
            assert len((await store.load(run.run_id))[1]) == (1 if wrong else 2)
            assert await store.verify(run.run_id) == []


async def test_who_repeats_a_step_of_a_run_he_has_lost_is_told_so_in_a_crowd_too(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store, SQLCheckpointStore(sqlite_url) as other:
        run, beside = await new_run(store), await new_run(store)
        step = run.next_commit()
        await store.commit(step)
        await other.acquire(run.run_id, takeover=True)
        answers = await at_once(store, map(store.commit, [step, beside.next_commit()]))
        assert [type(answer) for answer in answers] == [LeaseLostError, Receipt]


@pytest.mark.parametrize("number", [2, 33, 300])
async def test_each_of_many_receipts_tells_of_its_own_inbox(sqlite_url: str, number: int) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(number)]
        for index, run in enumerate(runs):
            for call in range(index % 4):
                await store.signal(run.run_id, "ping", signal_id=f"{index}-{call}")
        random.Random(number).shuffle(runs)
        revs = [(await store.inbox(run.run_id)).rev for run in runs]
        steps = [run.next_commit() for run in runs]
        assert [answer.inbox_rev for answer in await at_once(store, map(store.commit, steps))] == revs  # type: ignore[union-attr]
    assert len(set(revs)) == min(number, 4)


async def test_of_runs_that_end_together_one_that_may_not_keeps_no_other_from_it(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(9)]
        lost, moved = runs[3], runs[6]
        lost.epoch = 9
        await store.signal(moved.run_id, "ping")
        ends = [run.next_commit(change=RunChange(status="completed", release=True)) for run in runs]
        parks = RunChange(status="waiting", release=True, release_at_rev=0)
        ends[6] = Commit(moved.run_id, 1, ends[6].rows, parks)
        answers = await at_once(store, map(store.commit, ends))
        assert [type(answer) for answer in answers] == [LeaseLostError if run is lost else Receipt for run in runs]
        records = [await store.run(run.run_id) for run in runs]
        # Of the one whose inbox has moved the row is in, and whoever drives it looks again.
        assert [record.status for record in records] == ["running" if run in (lost, moved) else "completed" for run in runs]
        assert [record.owner is None for record in records] == [run not in (lost, moved) for run in runs]
        assert [len((await store.load(run.run_id))[1]) for run in runs] == [1 if run is lost else 2 for run in runs]
        assert [record.head_seq for record in records] == [1 if run is lost else 2 for run in runs]
        assert [await store.verify(run.run_id) for run in runs] == [[]] * 9


@pytest.mark.parametrize("is_overtaken", [False, True])
async def test_runs_that_are_taken_together_are_taken_as_each_alone(tmp_path: Path, is_overtaken: bool) -> None:
    """Some were decided before, some are by who takes them; some park again and some end with it; and of one somebody else has thought better."""

    async def taken(*, together: bool) -> tuple[list[str], dict[str, list[list[Any]]]]:
        url = f"sqlite+aiosqlite:///{tmp_path}/{together}.db"
        names: dict[Any, str] = {}
        async with SQLCheckpointStore(url, now=SetClock()) as store:
            names[store.worker_id] = "owner"
            takings = []
            for number in range(30):
                run = await new_run(store, run_id=f"018f0000-0000-7000-8000-{number:012x}")
                await run.open_barrier()
                parts: dict[str, Any] = {}
                if number % 3:
                    made = await store.decide(run.run_id, "review", Verdict(by=f"p{number}"))
                    names[made.id] = f"decision {number}"
                    parts = {"closed": (("review#1", "resolved"),), "consumed": ((made.id, 4),)}
                    if number % 3 == 2:
                        # As if who takes it had just decided.
                        made = replace(made, id=f"said {number}", actor="ana")
                        parts |= {"voted": (made,), "consumed": (*parts["consumed"], (made.id, 4)), "said": 1}
                if number % 4 == 1:
                    parts["change"] = RunChange(status="completed", clear_wake_at=True, release=True)
                elif number % 4 == 2:
                    parts["change"] = RunChange(status="waiting", release=True, release_at_rev=number % 5)
                kinds = ("decision", "step", "step")[: number % 4]
                takings.append(resumption(store, await store.standing(run.run_id), *kinds, max_steps=60 if number % 7 else None, **parts))
            if is_overtaken:
                await store.signal(takings[16].commit.run_id, "ping", signal_id="s")
            if together:
                answers = await at_once(store, map(store.take_up, takings))
            else:
                answers = [(await at_once(store, [store.take_up(taking)]))[0] for taking in takings]
            for taking in takings:
                assert await store.verify(taking.commit.run_id) == []
            with closing(sqlite3.connect(file_of(url))) as raw:
                shown = {
                    "runs": "*",
                    "checkpoints": "run_id, seq, epoch, step, kind, next, committed_at",
                    "barriers": "*",
                    "decisions": "*",
                }
                asked = {table: raw.execute(f"SELECT {columns} FROM {table}") for table, columns in shown.items()}
                hidden = {place for place, column in enumerate(asked["runs"].description) if column[0] == "head_digest"}
                tables = {
                    table: sorted(
                        [
                            [names.get(value, value) for place, value in enumerate(line) if table != "runs" or place not in hidden]
                            for line in lines
                        ],
                        key=repr,
                    )
                    for table, lines in asked.items()
                }
        return [f"{answer.inbox_rev}" if isinstance(answer, Receipt) else type(answer).__name__ for answer in answers], tables

    alone, together = await taken(together=False), await taken(together=True)
    assert alone[0].count("RunMovedError") == is_overtaken
    assert together == alone


async def test_of_runs_that_are_created_together_one_whose_name_is_taken_keeps_no_other_from_it(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        there = await new_run(store, run_key="a")
        parts: list[dict[str, Any]] = [{}, {"run_key": "a"}, {"run_key": "b"}, {"run_key": "b"}, {"run_id": there.run_id}, {}]
        answers = await at_once(store, (new_run(store, **each) for each in parts))
        assert [type(answer) for answer in answers] == [OwnedRun, RunExistsError, OwnedRun, RunExistsError, RunExistsError, OwnedRun]
        made = [answer for answer in answers if isinstance(answer, OwnedRun)]
        assert {run.run_id for run in await store.runs()} == {there.run_id, *(run.run_id for run in made)}
        for run in (there, *made):
            await run.step()
            assert await store.verify(run.run_id) == []
            assert (await store.run(run.run_id)).created_at > 0
        assert await store.graph("g" * 64) == DEFINITION


@pytest.mark.parametrize("number", [1, 3])
async def test_a_run_that_cannot_be_written_whole_is_not_begun(sqlite_url: str, number: int) -> None:
    """A checkpoint is in its way that no run is left of."""
    async with SQLCheckpointStore(sqlite_url) as store:
        gone = await new_run(store)
        tamper(sqlite_url, "DELETE FROM runs")
        answers = await at_once(store, (new_run(store, run_id=run_id) for run_id in [gone.run_id, None, None][:number]))
        assert [type(answer) for answer in answers] == [StoreUnavailableError, OwnedRun, OwnedRun][:number]
        assert len(await store.runs()) == number - 1


@pytest.mark.parametrize("what", ["steps", "ends", "new runs"])
async def test_a_value_that_is_too_large_for_sqlite_is_told_to_its_own_run_alone(sqlite_url: str, what: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(5)]
        writer = store._database.writer
        assert isinstance(writer, SQLiteWriter)
        # SQLite's own limit is a thousand million bytes.
        await writer.submit(lambda _wire: writer._raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000))
        much, change = b"x" * 2_000_000, RunChange(status="completed", release=True) if what == "ends" else None
        if what == "new runs":
            answers: list[Any] = await at_once(store, (new_run(store, labels={"a": much.decode()} if n == 2 else {}) for n in range(5)))
        else:
            rows = [run.row(payload=much if n == 2 else None) for n, run in enumerate(runs)]
            commits = [Commit(run.run_id, run.epoch, (row,), change) for run, row in zip(runs, rows, strict=True)]
            answers = await at_once(store, map(store.commit, commits))
            assert [len((await store.load(run.run_id))[1]) for run in runs] == [2, 2, 1, 2, 2]
        assert [isinstance(answer, CodecError) for answer in answers] == [False, False, True, False, False]
        assert sum(isinstance(answer, Receipt | OwnedRun) for answer in answers) == 4


async def test_what_many_runs_want_at_once_takes_the_statements_of_one(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    """Python's lock is given up at each statement, and at each line that comes back, and the loop that is busy with these very runs has it."""

    def said() -> list[str]:
        found = [re.search(r"^(?:WITH given .*?(?=UPDATE))?(INSERT INTO \w+|UPDATE \w+|\w+)", text, re.DOTALL) for text in told_to_sqlite]
        return [match[1].replace("WITH", "SELECT") for match in found if match is not None and match[1] != "PRAGMA"]

    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
        told_to_sqlite.clear()
        runs: Any = await at_once(store, (new_run(store) for _ in range(200)))
        assert said() == ["BEGIN", "COMMIT", "BEGIN", "INSERT INTO runs", "INSERT INTO checkpoints", "SELECT", "COMMIT"]
        steps = [run.next_commit() for run in runs]
        told_to_sqlite.clear()
        assert all(isinstance(answer, Receipt) for answer in await at_once(store, map(store.commit, steps)))
        assert said() == ["BEGIN", "COMMIT", "INSERT INTO checkpoints", "SELECT"]
        ends = [run.next_commit(change=RunChange(status="completed", release=True)) for run in runs]
        told_to_sqlite.clear()
        assert all(isinstance(answer, Receipt) for answer in await at_once(store, map(store.commit, ends)))
        assert said() == ["BEGIN", "COMMIT", "BEGIN", "UPDATE runs", "INSERT INTO checkpoints", "SELECT", "COMMIT"]
        waiting = [await waiting_run(store) for _ in range(200)]
        decided = {"closed": (("review#1", "resolved"),)}
        takings = [resumption(store, await store.standing(run.run_id), "decision", **decided) for run in waiting]
        told_to_sqlite.clear()
        assert all(isinstance(answer, Receipt) for answer in await at_once(store, map(store.take_up, takings)))
        assert said() == [
            *("BEGIN", "COMMIT", "BEGIN", "UPDATE runs", "INSERT INTO checkpoints", "SELECT"),
            *("INSERT INTO checkpoints", "UPDATE barriers", "COMMIT"),
        ]


async def test_commits_of_one_run_that_wait_together_follow_each_other(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(20)]
        commits = [Commit(run.run_id, 1, (run.row(),)) for _ in range(3) for run in runs]
        assert all(isinstance(each, Receipt) for each in await asyncio.gather(*map(store.commit, commits)))
        assert {len((await store.load(run.run_id))[1]) for run in runs} == {4}


async def test_damaged_labels_say_so_and_keep_nobody_from_the_run_nor_from_others(sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        damaged, sound = [await new_run(store, hold=False, status="created", labels={"team": "a"}) for _ in range(2)]
    with closing(sqlite3.connect(sqlite_url.partition(":///")[2])) as raw, raw:
        raw.execute("UPDATE runs SET labels = x'31ff', error = x'ff' WHERE run_id = ?", (uuid.UUID(damaged.run_id).bytes,))
    async with SQLCheckpointStore(sqlite_url) as store:
        found = {run.run_id: run for run in await store.runs()}
        assert (set(found), found[sound.run_id].labels) == ({damaged.run_id, sound.run_id}, {"team": "a"})
        assert list(found[damaged.run_id].labels) == list(found[damaged.run_id].error or {}) == ["unreadable"]
        assert {run.run_id for run in await store.due()} == {damaged.run_id, sound.run_id}
        assert (await store.acquire(damaged.run_id)).epoch == 1


# --- how it is stored -----------------------------------------------------------------------------------------------
async def test_the_bytes_beside_a_payload_stay_below_200_a_row(sqlite_url: str) -> None:
    """Measured in pages of the file, so that the index and the pages' own needs count."""
    number = 2_000

    def size() -> int:
        with closing(sqlite3.connect(file_of(sqlite_url))) as connection:
            pages, free, each = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * each)

    async with SQLCheckpointStore(sqlite_url) as store:
        run = await new_run(store)
        empty = size()
        for _ in range(number // 100):
            await store.commit(Commit(run.run_id, 1, tuple(run.row(payload=b"") for _ in range(100))))
        assert (size() - empty) / number <= 200


async def test_no_readable_byte_of_a_user_stands_outside_the_codecs_columns(sqlite_url: str) -> None:
    """Every column that holds what a user wrote is one the codec made: it begins with the codec's mark of form."""
    async with SQLCheckpointStore(sqlite_url) as store:
        run = await new_run(store, labels={"l": "secret"})
        await run.step(encode([["set", "key", "secret"]]))
        await run.open_barrier(prompt="secret", payload={"s": "secret"}, form={"title": "secret"}, park=False)
        await store.decide(run.run_id, "review", Verdict("modify", edits={"s": "secret"}, reason="secret"))
        await store.request_cancel(run.run_id, actor="ana", reason="secret")
        await store.commit(run.next_commit(change=RunChange(status="failed", error={"message": "secret"})))
        with closing(sqlite3.connect(file_of(sqlite_url))) as connection:
            found = []
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                lines = connection.execute(f"SELECT * FROM {table}")
                names = [column[0] for column in lines.description]
                for line in lines:
                    for name, value in zip(names, line, strict=True):
                        raw = value.encode() if isinstance(value, str) else value
                        if isinstance(raw, bytes) and b"secret" in raw:
                            found.append((table, name, raw[:1] in (b"1", b"2")))
    assert set(found) == {
        ("runs", "labels", True), ("runs", "cancel", True), ("runs", "error", True), ("checkpoints", "payload", True),
        ("barriers", "details", True), ("decisions", "details", True),
    }  # fmt: skip


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM barriers WHERE tenant = '' AND status = 'open' ORDER BY opened_at, run_id, ticket LIMIT 100",
        "SELECT * FROM runs WHERE tenant = '' ORDER BY created_at DESC, run_id DESC LIMIT 50",
        "SELECT * FROM runs WHERE tenant = '' AND status = 'waiting' ORDER BY created_at DESC, run_id DESC LIMIT 50",
        "SELECT * FROM runs WHERE tenant = '' AND flow = 'f' ORDER BY created_at DESC, run_id DESC LIMIT 50",
        "SELECT * FROM runs WHERE wake_at <= 5",
        "SELECT * FROM runs WHERE owner = 'w'",
        "SELECT * FROM decisions WHERE run_id = x'00' ORDER BY decided_at, id",
        "SELECT * FROM checkpoints WHERE run_id = x'00' AND seq >= 5 ORDER BY seq",
    ],
)
async def test_what_people_ask_often_is_one_index_range(sqlite_url: str, question: str) -> None:
    async with SQLCheckpointStore(sqlite_url):
        pass
    with closing(sqlite3.connect(file_of(sqlite_url))) as connection:
        plan = " / ".join(line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {question}"))
    assert "USING INDEX" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("chosen", [{}, {"status": "running"}, {"flow": "f"}, {"before": (5, b"r" * 16)}])
async def test_a_listing_with_the_owners_lease_is_one_index_range_too(sqlite_url: str, chosen: dict[str, Any]) -> None:
    async with SQLCheckpointStore(sqlite_url):
        pass
    given: dict[str, Any] = {"flow": None, "status": None, "before": None, "tenant": "", "limit": 50, "now": 1, **chosen}
    text, values = for_sqlite(*listings.runs_newest_first(**given))
    with closing(sqlite3.connect(file_of(sqlite_url))) as connection:
        plan = " / ".join(line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {text}", values))
    assert "SEARCH r USING INDEX" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("level", ["OFF", "NORMAL", "FULL", "EXTRA"])
async def test_synchronous_is_what_was_asked_for(sqlite_url: str, level: str) -> None:
    async with SQLCheckpointStore(sqlite_url, synchronous=level) as store:  # type: ignore[arg-type]
        assert await pragma(store, "synchronous") == ["OFF", "NORMAL", "FULL", "EXTRA"].index(level)
        assert await pragma(store, "journal_mode") == "wal"


def test_an_unknown_synchronous_is_refused(sqlite_url: str) -> None:
    with pytest.raises(ValueError, match="synchronous"):
        SQLCheckpointStore(sqlite_url, synchronous="SOMETIMES")  # type: ignore[arg-type]


MANY_RUNS = (
    "INSERT INTO runs (run_id, tenant, flow, flow_version, graph_hash, status, head_seq, head_digest, genesis, max_steps, attempt, inbox_rev,"
    " epoch, owner, wake_at, created_at, updated_at)"
    " SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), '', CASE n % 3 WHEN 0 THEN 'f' WHEN 1 THEN 'g' ELSE 'h' END, '1', 'x',"
    " CASE WHEN n % 50 = 0 THEN 'running' WHEN n % 20 = 0 THEN 'waiting' ELSE 'completed' END, 1, '', '', 9, 1, 0, 1,"
    " CASE WHEN n % 50 = 0 THEN 'owner' || n % 7 END, CASE WHEN n % 50 != 0 AND n % 20 = 0 THEN n END, n, n FROM generate_series(1, 20000) n"
)
"""Most have ended, some run, some wait for a time."""

WHAT_A_WORKER_ASKS = {
    "due": (statements.runs_due(2, 1), (50, 5, "f", "g", b"r" * 16), "ix_runs_due"),
    "of dead owners": (statements.runs_of_owners(2, 1, 0), (50, 5, "w", "v", "f"), "ix_runs_owned"),
    "when next": (statements.NEXT_DUE, ("w", 30, 5), "ix_runs_due"),
}


@pytest.mark.parametrize("question", WHAT_A_WORKER_ASKS)
async def test_what_a_worker_asks_is_one_index_range_of_sqlite(sqlite_url: str, question: str) -> None:
    text, values, index = WHAT_A_WORKER_ASKS[question]
    asked, laid_out = for_sqlite(text, values)
    async with SQLCheckpointStore(sqlite_url):
        pass
    with closing(sqlite3.connect(file_of(sqlite_url))) as connection:
        plan = " / ".join(line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {asked}", laid_out))
        mark = " / ".join(
            line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {for_sqlite(statements.DUE_MARK, (5, 9))[0]}", (5, 9, 5, 5))
        )
    assert re.search(rf"SEARCH (r|runs) USING (COVERING )?INDEX {index} ", plan), plan
    assert not re.search(r"SCAN (r|runs)\b", plan)
    assert "TEMP B-TREE" not in plan
    assert mark.count("COVERING INDEX ix_runs_due") == 3


@pytest.mark.parametrize("question", WHAT_A_WORKER_ASKS)
async def test_what_a_worker_asks_is_one_index_range_of_postgresql(postgres_url: str, question: str) -> None:
    text, values, index = WHAT_A_WORKER_ASKS[question]
    async with SQLCheckpointStore(postgres_url) as store:
        connection = await store._database.connect()
        await connection.execute(MANY_RUNS)
        await connection.execute("ANALYZE runs")
        plan = "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN {for_postgres(text)}", *values))
        await connection.close()
    assert re.search(rf"(using|on) {index}\b", plan), plan
    assert "Index Cond" in plan
    assert "Seq Scan on runs" not in plan


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_processes_that_died_long_ago_and_own_nothing_are_forgotten(kind: str, request: pytest.FixtureRequest) -> None:
    clock, store_url = SetClock(), str(request.getfixturevalue(f"{kind}_url"))
    async with SQLCheckpointStore(store_url, now=clock) as store, SQLCheckpointStore(store_url, now=clock) as gone:
        run = await new_run(gone)
        await store.heartbeat()

        def die(wire: Wire, _scribe: Any) -> None:
            for number in range(150):
                wire.fetch("INSERT INTO workers VALUES (%1, 'elsewhere', 1, 1, 1, %2)", f"dead{number}", clock.now - 1)

        await store._database.transact(die)
        clock.advance(timedelta(hours=1))
        assert [record.run_id for record in await store.due()] == [run.run_id]
        (left,) = await store._database.fetch([("SELECT worker_id FROM workers", ())])
        assert {line[0] for line in left} == {store.worker_id, gone.worker_id}
        assert [record.run_id for record in await store.due()] == [run.run_id]


@pytest.mark.parametrize("statement", [
    statements.sqlite_append_many, statements.sqlite_first_rows, statements.sqlite_change_many, statements.sqlite_told,
    statements.sqlite_take_many, statements.sqlite_close_many, statements.sqlite_consume_many,
    statements.sqlite_start_effects, statements.sqlite_end_effects,
])  # fmt: skip
async def test_what_many_runs_want_at_once_goes_by_their_ids(sqlite_url: str, statement: Callable[[int], str]) -> None:
    async with SQLCheckpointStore(sqlite_url):
        pass
    with closing(sqlite3.connect(file_of(sqlite_url))) as connection:
        text = statement(100)
        plan = [line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))]
    assert [line for line in plan if re.match("SEARCH (r|runs|barriers|decisions) USING (COVERING )?INDEX", line)], plan
    assert [line for line in plan if line.startswith("SCAN")] == ["SCAN 100 CONSTANT ROWS", "SCAN given"]
