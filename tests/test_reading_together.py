"""How runs stand on PostgreSQL, read for many in one statement: each as if it had been read alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from checkpoint_stores.codec import encode
from checkpoint_stores.errors import CheckpointCorruptError, RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.records import NewRun, Snapshot
from checkpoint_stores.sql import postgres_database, postgres_statements
from checkpoint_stores.sql.lines import key_of
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.loading import load_state
from trailmark.testing.contract import OwnedRun, SetClock, Verdict, new_run


@pytest.fixture(autouse=True)
def at_the_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes the long way because it is among the first."""
    monkeypatch.setattr(postgres_database, "_BEFORE_THE_DESK", 0)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(postgres_url: str, clock: SetClock) -> AsyncIterator[SQLCheckpointStore]:
    async with SQLCheckpointStore(postgres_url, now=clock) as opened:
        yield opened


@pytest.fixture
async def alone(postgres_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SQLCheckpointStore]:
    """Another process's store, which reads each run alone."""
    async with SQLCheckpointStore(postgres_url, now=clock) as opened:
        monkeypatch.setattr(opened._database, "at_once", nothing_at_once)
        yield opened


async def nothing_at_once(_matter: object) -> None: ...


async def steps(store: SQLCheckpointStore, number: int = 3, payload: bytes | None = None) -> OwnedRun:
    run = await new_run(store)
    for _ in range(number):
        await run.step(payload)
    return run


def row_of(size: int) -> bytes:
    """A payload of so many bytes."""
    bare = len(encode([["set", "n", ""]]))
    return encode([["set", "n", "x" * (size - bare)]])


async def snapshot_of(run: OwnedRun, size: int = 10) -> Snapshot:
    """A snapshot of the run as it stands that holds so many bytes more."""
    state = await load_state(run.store, run.run_id)
    state.root.values["much"] = "x" * size
    return Snapshot(run.run_id, run.seq, encode(state.dump()), run.digest)


async def snapped(store: SQLCheckpointStore, size: int = 10, behind: int = 2) -> OwnedRun:
    run = await steps(store)
    await store.put_snapshot(await snapshot_of(run, size), run.epoch)
    for _ in range(behind):
        await run.step()
    return run


async def pruned(store: SQLCheckpointStore) -> OwnedRun:
    run = await steps(store)
    snapshot = await snapshot_of(run)
    await run.step()
    assert await store.drop_before(snapshot) > 0
    return run


async def waiting(store: SQLCheckpointStore) -> OwnedRun:
    run = await steps(store)
    await run.open_barrier()
    await store.decide(run.run_id, "review", Verdict(reason="seen"))
    await store.request_cancel(run.run_id, actor="ben")
    return run


async def asked_much(store: SQLCheckpointStore, tickets: int = 1, size: int = 10) -> OwnedRun:
    run = await steps(store)
    for number in range(tickets):
        await run.open_barrier(f"review#{number + 1}", park=False, payload={"text": "x" * size})
    return run


async def answered_at_length(store: SQLCheckpointStore) -> OwnedRun:
    run = await asked_much(store)
    await store.decide(run.run_id, "review", Verdict(reason="x" * 50_000))
    return run


async def ended(store: SQLCheckpointStore) -> OwnedRun:
    run = await steps(store)
    await run.end()
    return run


async def forked(store: SQLCheckpointStore) -> OwnedRun:
    parent = await steps(store)
    fork = new_id(await store.now())
    first = store.chain.seal(store.chain.genesis(fork, parent.digest), fork, 0, 0, 1, "fork", "", "", "work", b"1[]", 0)
    new = NewRun(fork, "invoice", "1", "g" * 64, 50, status="ready", hold=False, parent_run_id=parent.run_id, forked_at_seq=parent.seq)
    return OwnedRun(store, await store.create(new, first))


FEW = postgres_statements.FEW
SHAPES: dict[str, Callable[[SQLCheckpointStore], Awaitable[OwnedRun]]] = {
    "short": steps,
    "just few rows": lambda store: steps(store, FEW - 1),
    "one row more than few": lambda store: steps(store, FEW),
    "many rows": lambda store: steps(store, 3 * FEW),
    "large rows": lambda store: steps(store, 2, row_of(50_000)),
    "a row that is just small": lambda store: steps(store, 1, row_of(4_096)),
    "with a snapshot": snapped,
    "with a snapshot at its head": lambda store: snapped(store, behind=0),
    "with a large snapshot": lambda store: snapped(store, 50_000),
    "with a snapshot and many rows": lambda store: snapped(store, behind=2 * FEW),
    "pruned": pruned,
    "waiting and decided": waiting,
    "with a large ticket": lambda store: asked_much(store, size=50_000),
    "with just few tickets": lambda store: asked_much(store, FEW),
    "with many tickets": lambda store: asked_much(store, FEW + 1),
    "answered at length": answered_at_length,
    "ended": ended,
    "forked": forked,
}


async def told(store: SQLCheckpointStore, run_id: str) -> tuple[Any, ...]:
    standing = await store.standing(run_id)
    stands = standing._replace(state=(standing.state.digest, standing.state.weight, standing.state.dump()))
    return stands, await store.run(run_id), await store.load(run_id)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_run_stands_as_it_does_alone(shape: str, store: SQLCheckpointStore, alone: SQLCheckpointStore) -> None:
    run = await SHAPES[shape](store)
    assert await told(store, run.run_id) == await told(alone, run.run_id)


async def test_of_many_that_are_read_at_once_each_stands_as_it_does_alone(store: SQLCheckpointStore, alone: SQLCheckpointStore) -> None:
    runs = [await make(store) for make in SHAPES.values() for _ in range(5)]
    together = await asyncio.gather(*(told(store, run.run_id) for run in runs))
    assert together == [await told(alone, run.run_id) for run in runs]


async def test_the_runs_of_a_process_that_is_gone_stand_without_an_owner_who_lives(
    postgres_url: str, store: SQLCheckpointStore, alone: SQLCheckpointStore, clock: SetClock
) -> None:
    run = await steps(store)
    async with SQLCheckpointStore(postgres_url, now=clock) as reader:
        assert not (await reader.run(run.run_id)).orphaned
        clock.advance(timedelta(hours=1))
        assert (await reader.run(run.run_id)).orphaned
        assert await told(reader, run.run_id) == await told(alone, run.run_id)


async def test_among_many_one_that_is_unknown_or_was_edited_fails_alone(store: SQLCheckpointStore) -> None:
    runs = [await steps(store) for _ in range(4)]
    await store._database.transact(
        lambda wire, _scribe: wire.fetch("UPDATE checkpoints SET node = 'else' WHERE run_id = %1 AND seq = 3", key_of(runs[1].run_id))
    )
    ids = [*(run.run_id for run in runs), new_id(1)]
    for ask in (store.standing, store.load):
        answers = await asyncio.gather(*map(ask, ids), return_exceptions=True)  # type: ignore[arg-type]
        assert [type(answer) for answer in (answers[1], answers[4])] == [CheckpointCorruptError, RunNotFoundError]
        assert not [answer for place, answer in enumerate(answers) if place in {0, 2, 3} and isinstance(answer, Exception)]
    records = await asyncio.gather(*map(store.run, ids), return_exceptions=True)
    assert [type(record).__name__ for record in records] == [*4 * ["RunRecord"], "RunNotFoundError"]


async def test_a_run_that_was_cut_at_its_end_stands_nowhere(store: SQLCheckpointStore, alone: SQLCheckpointStore) -> None:
    run = await steps(store)
    await run.open_barrier()
    await store._database.transact(
        lambda wire, _scribe: wire.fetch("DELETE FROM checkpoints WHERE run_id = %1 AND seq = %2", key_of(run.run_id), run.seq)
    )
    for each in (store, alone):
        for read in (each.standing, each.folded, each.load):
            with pytest.raises(CheckpointCorruptError, match="missing") as caught:
                await read(run.run_id)  # type: ignore[operator]
            assert caught.value.seq == run.seq


async def test_a_snapshot_that_was_edited_is_passed_over(store: SQLCheckpointStore, alone: SQLCheckpointStore) -> None:
    run = await snapped(store)
    await store._database.transact(
        lambda wire, _scribe: wire.fetch("UPDATE snapshots SET payload = %2 WHERE run_id = %1", key_of(run.run_id), b"1[1]")
    )
    standing = await store.standing(run.run_id)
    assert (standing.state.seq, standing.state.root.values) == (6, {"n": 6})
    assert await told(store, run.run_id) == await told(alone, run.run_id)


async def test_runs_are_read_over_a_connection_that_broke_while_it_rested(postgres_url: str, store: SQLCheckpointStore) -> None:
    runs = [await steps(store) for _ in range(3)]
    await store.run(runs[0].run_id)
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    found = await asyncio.gather(*(told(store, run.run_id) for run in runs))
    assert [record.run_id for _, record, _ in found] == [run.run_id for run in runs]


async def test_a_connection_that_died_without_a_word_keeps_no_reader_and_no_end_waiting(
    store: SQLCheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_stores.sql.postgres_desk._READING_SECONDS", 0.2)
    runs = [await steps(store) for _ in range(3)]
    await store.run(runs[0].run_id)
    store._database.desk._connection._transport.pause_reading()
    async with asyncio.timeout(20):
        found = await asyncio.gather(*(told(store, run.run_id) for run in runs))
        assert [record.run_id for _, record, _ in found] == [run.run_id for run in runs]
        await store.inbox(runs[0].run_id)
        store._database.desk._connection._transport.pause_reading()
        waiting = asyncio.ensure_future(store.run(runs[0].run_id))
        await asyncio.sleep(0)
        await store.close()
        await asyncio.wait([waiting])


@pytest.mark.parametrize("table", ["decisions", "barriers"])
async def test_checkpoints_are_read_though_a_letter_is_damaged(store: SQLCheckpointStore, table: str) -> None:
    run = await waiting(store)
    await store._database.transact(
        lambda wire, _scribe: wire.fetch(f"UPDATE {table} SET details = %2 WHERE run_id = %1", key_of(run.run_id), b"\0\xff")
    )
    assert [row.seq for row in (await store.load(run.run_id))[1]] == [1, 2, 3, 4, 5]


async def test_where_no_connection_can_be_made_in_time_runs_are_read_over_another(store: SQLCheckpointStore) -> None:
    async def in_vain() -> None:
        raise TimeoutError

    run = await steps(store)
    store._database.desk._connect = in_vain
    assert store._database.desk._connection is None
    assert (await store.run(run.run_id)).run_id == run.run_id


async def test_a_program_that_asks_for_little_connects_no_desk(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with SQLCheckpointStore(postgres_url) as store:
        run = await new_run(store)  # asks for the time
        desk = store._database.desk
        found = [await store.run(run.run_id), (await store.standing(run.run_id)).run]
        assert desk._connection is None
        found += await asyncio.gather(*(store.run(run.run_id) for _ in range(10)))
        assert desk._connection is not None
    assert {(each.run_id, each.status) for each in found} == {(run.run_id, "running")}


async def test_many_may_be_the_first_to_ask_of_a_store_that_nobody_has_opened(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLCheckpointStore(postgres_url) as made:
        run = await new_run(made)
    monkeypatch.undo()
    store = SQLCheckpointStore(postgres_url)
    found = await asyncio.gather(*(store.run(run.run_id) for _ in range(12)))
    assert {each.run_id for each in found} == {run.run_id}
    await store.close()


@pytest.mark.parametrize("asked", ["run", "runs", "standing"])
async def test_a_store_that_is_closed_while_it_is_read_leaves_no_connection(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.undo()
    async with SQLCheckpointStore(postgres_url) as made:
        run = await new_run(made)
    watching = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    closed = []
    for turns in range(12):
        store = SQLCheckpointStore(postgres_url)
        await store.heartbeat()
        reads = [asyncio.ensure_future(getattr(store, asked)(*([] if asked == "runs" else [run.run_id]))) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*reads, return_exceptions=True)
        closed.append(store)
    still = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    async with asyncio.timeout(30):
        while await watching.fetchval(still):
            """The server takes a moment to see that they are gone."""
    await watching.close()
    assert len(closed) == 12  # kept until now: no garbage collection has closed anything
