"""What a step costs, counted instead of timed: statements, transactions, hops between threads, bytes, bytecodes.

Each is held in two ways: below a number, and flat, so that late steps of a long run cost what early ones cost.  A count does not
depend on what else the machine does: each of these fails for one reason only, that a step does more.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sqlite3
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from types import FrameType
from typing import Annotated, Any

import asyncpg
import pytest
from pydantic import BaseModel

from checkpoint_stores.codec import decode, encode
from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import apply_row
from checkpoint_stores.hops import _Ear
from checkpoint_stores.sql.lines import key_of
from engine.loading import load_state
from trailmark import END, Decision, Flow, FlowGraph, GraphExecutor, Retry, RunFailedError, StepContext
from trailmark.checkpoint_stores import CheckpointStore, EffectRecord, MemoryCheckpointStore, SQLCheckpointStore, TakesUp
from trailmark.reducers import append, sum_
from trailmark.testing.contract import new_run

LINE = "x" * 100
STEPS = 300
SETTLED = 50
"""From this step on, what is paid once has been paid: connections, prepared statements, caches."""


class Journal(BaseModel):
    """A list that grows by one line a step, beside what never changes."""

    constant: str = ""
    n: int = 0
    log: Annotated[list[str], append] = []


class Total(BaseModel):
    """A number that branches add to."""

    total: Annotated[int, sum_] = 0


def writing(steps: int, at: dict[int, int] | None = None, count: Callable[[], int] = int) -> FlowGraph:
    """Each step appends a line; ``at`` is told what ``count`` says as each begins."""
    flow = Flow("writing", Journal)

    @flow.node
    async def write(state: Journal) -> dict[str, Any]:
        if at is not None:
            at[state.n] = count()
        return {"log": [LINE], "n": state.n + 1}

    def more(state: Journal) -> bool:
        return state.n < steps

    return flow.set_entry("write").add_edge("write", "write", when=more).add_edge("write", END).compile()


def adding(branches: int) -> FlowGraph:
    flow = Flow("adding", Total)

    async def one(state: Total) -> dict[str, Any]:
        return {"total": 1}

    flow.add_parallel("all", {f"b{index}": one for index in range(branches)})
    return flow.set_entry("all").add_edge("all", END).compile()


async def walked(store: CheckpointStore, graph: FlowGraph, **values: Any) -> str:
    async with GraphExecutor(graph, store=store, max_steps=10_000) as executor:
        result = await executor.execute(values)
    assert result.status == "completed"
    return result.run_id


# --- the database ---------------------------------------------------------------------------------------------------
async def test_on_sqlite_a_step_is_one_statement(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    told = told_to_sqlite
    at: dict[int, int] = {}
    async with SQLCheckpointStore(sqlite_url) as store:
        await walked(store, writing(STEPS, at, lambda: len(told)))
    kinds = Counter(" ".join(text.split()[:3]) for text in told[at[SETTLED] : at[STEPS - 1]])
    assert kinds.pop("INSERT INTO checkpoints") == STEPS - 1 - SETTLED
    # Looking after other processes goes by time, not by steps.
    for text in ("PRAGMA data_version", "SELECT run_id, inbox_rev,"):
        kinds.pop(text, None)
    # A snapshot at times, and once what somebody may have said to the run.
    assert kinds["INSERT INTO snapshots"] <= 3
    assert kinds.total() <= 20, kinds


async def test_on_sqlite_branches_that_end_together_share_statements(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    graph = adding(100)
    async with SQLCheckpointStore(sqlite_url) as store:
        await walked(store, graph)
        told_to_sqlite.clear()
        run_id = await walked(store, graph)
        assert await store.verify(run_id) == []
        assert len([row async for row in store.history(run_id)]) == 103
    assert len([text for text in told_to_sqlite if "INSERT INTO checkpoints" in text]) <= 12


async def test_on_sqlite_a_decision_asks_for_what_it_needs_and_no_more(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    flow = Flow("asking", Journal).add_barrier("only", prompt="Go on?", approvers={"ana"}).add_node("write", well)
    graph = flow.set_entry("only").add_edge("only", "write").add_edge("write", END).compile()
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(graph, store=store) as executor:
        for _ in range(2):
            run_id = (await executor.execute({})).run_id
            told_to_sqlite.clear()
            await store.decide(run_id, "only", Decision.approve(by="ana"))
            decided = _begun(told_to_sqlite)
            run_id = (await executor.execute({})).run_id
            told_to_sqlite.clear()
            handle = executor.open(run_id)
            await handle.decide("only", Decision.approve(by="ana"))
            await handle.result()
            gone_on = _begun(told_to_sqlite)
            kept = await executor.start({})
            await kept.result()
            told_to_sqlite.clear()
            await kept.decide("only", Decision.approve(by="ana"))
            await kept.result()
            parked_here = _begun(told_to_sqlite)
    assert decided == ["BEGIN IMMEDIATE", *3 * ["SELECT"], "INSERT INTO decisions", "UPDATE barriers", "UPDATE runs", "COMMIT"]
    assert gone_on == [
        *("BEGIN", *5 * ["SELECT"], "COMMIT"),
        *("BEGIN IMMEDIATE", "UPDATE runs", *2 * ["INSERT INTO checkpoints"], "UPDATE barriers", "INSERT INTO decisions", "COMMIT"),
        *("BEGIN IMMEDIATE", "UPDATE runs", "INSERT INTO checkpoints", "COMMIT"),
    ]
    assert parked_here == gone_on[7:]


async def test_on_sqlite_side_effects_are_a_statement_to_begin_and_one_to_end_however_many_at_once(
    sqlite_url: str, told_to_sqlite: list[str]
) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        runs = [await new_run(store) for _ in range(100)]
        for some in (runs[:1], runs[1:]):
            told_to_sqlite.clear()
            started = await asyncio.gather(*(store.begin_effect(effect_of(run.run_id), run.epoch) for run in some))
            ended = [store.end_effect(replace(record, status="done"), run.epoch) for run, (record, _) in zip(some, started, strict=True)]
            await asyncio.gather(*ended)
            transactions = _begun(told_to_sqlite)
            # Of many the first may find the thread idle, and goes alone.
            assert 2 <= transactions.count("COMMIT") <= (2 if len(some) == 1 else 4)
            assert [each for each in transactions if each not in ("BEGIN IMMEDIATE", "COMMIT")] == [
                *(transactions.count("INSERT INTO effects") * ["INSERT INTO effects"]),
                *(transactions.count("UPDATE effects") * ["UPDATE effects"]),
            ]
            assert len(transactions) == 3 * transactions.count("COMMIT")


async def test_on_postgresql_side_effects_that_are_begun_or_ended_at_once_share_transactions(postgres_url: str) -> None:
    async def taken(*, with_effects: bool) -> int:
        before = await transactions(asyncpg.connect, postgres_url)
        async with SQLCheckpointStore(postgres_url) as store:
            runs = [await new_run(store) for _ in range(100)]
            if with_effects:
                started = await asyncio.gather(*(store.begin_effect(effect_of(run.run_id), run.epoch) for run in runs))
                done = [replace(record, status="done") for record, _ in started]
                await asyncio.gather(*(store.end_effect(record, run.epoch) for run, record in zip(runs, done, strict=True)))
        return await transactions(asyncpg.connect, postgres_url) - before

    await taken(with_effects=False)  # its tables are made
    assert await taken(with_effects=True) - await taken(with_effects=False) <= 40


def effect_of(run_id: str) -> EffectRecord:
    return EffectRecord(run_id, 64 * "e", "debit", "pay", "", 1)


def _begun(told: list[str]) -> list[str]:
    """How statements begin: what they do to which table."""
    found = [
        re.search(
            r"^(?:WITH given .*?(?=INSERT|UPDATE))?(INSERT INTO \w+|UPDATE \w+|SELECT|BEGIN IMMEDIATE|BEGIN|COMMIT|\w+)", text, re.DOTALL
        )
        for text in told
    ]
    return [match[1] for match in found if match is not None and match[1] != "PRAGMA"]


async def test_while_commits_follow_each_other_nobody_asks_what_outsiders_wrote(
    sqlite_url: str, told_to_sqlite: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.driver.WATCH_AFTER", timedelta(0))
    begun, may_end = asyncio.Event(), asyncio.Event()
    flow = Flow("writing", Journal)

    @flow.node
    async def write(state: Journal) -> dict[str, Any]:
        if state.n == STEPS:
            begun.set()
            await may_end.wait()
        return {"n": state.n + 1}

    def more(state: Journal) -> bool:
        return state.n <= STEPS

    graph = flow.set_entry("write").add_edge("write", "write", when=more).add_edge("write", END).compile()
    async with (
        SQLCheckpointStore(sqlite_url) as store,
        SQLCheckpointStore(sqlite_url) as another,
        GraphExecutor(graph, store=store, max_steps=2 * STEPS) as executor,
    ):
        handle = await executor.start({})
        await begun.wait()
        assert not [text for text in told_to_sqlite if text.startswith("SELECT inbox_rev")]
        # Only a body that takes its time has it listened to: each commit tells whether anybody wrote.
        await another.request_cancel(handle.run_id, actor="ana")
        assert (await handle.result()).status == "cancelled"


async def test_on_postgresql_a_step_is_one_statement_which_is_a_transaction(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    connect = asyncpg.connect

    async def listened(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        # It tells what goes by the simple protocol, and so every BEGIN; a prepared statement it does not.
        connection.add_query_logger(lambda record: told.append(record.query))
        return connection

    monkeypatch.setattr(asyncpg, "connect", listened)
    at: dict[int, int] = {}
    loop = asyncio.get_running_loop()
    async with SQLCheckpointStore(postgres_url):
        """Its tables are made."""
    before = await transactions(connect, postgres_url)
    async with SQLCheckpointStore(postgres_url) as store:
        began = loop.time()
        await walked(store, writing(STEPS, at, lambda: len(told)))
        took = loop.time() - began
    assert told[at[SETTLED] : at[STEPS - 1]].count("BEGIN;") <= 3, "snapshots have a block of their own, steps none"
    polls = 2 * took / 0.010  # looking after other processes: no oftener than every 10 ms
    assert STEPS <= await transactions(connect, postgres_url) - before <= STEPS + 60 + polls


async def transactions(connect: Any, url: str) -> int:
    """How many the server has counted in this database, once nobody else is connected: a session adds its own as it ends."""
    connection = await connect(url.replace("+asyncpg", ""))
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    try:
        async with asyncio.timeout(10):
            while await connection.fetchval(others):
                pass
        return int(await connection.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))
    finally:
        await connection.close()


async def test_what_a_run_keeps_is_what_its_steps_made(sqlite_url: str) -> None:
    steps, constant = 3_000, 200_000
    async with SQLCheckpointStore(sqlite_url) as store:
        run_id = await walked(store, writing(steps), constant="c" * constant)
        first, *sizes = [len(row.payload) async for row in store.history(run_id)]
    assert first <= constant + 200
    assert max(sizes) <= len(LINE) + 80
    with sqlite3.connect(sqlite_url.removeprefix("sqlite+aiosqlite:///")) as database:
        ((pages, size),) = database.execute("SELECT * FROM pragma_page_count, pragma_page_size")
    database.close()
    assert pages * size <= constant + 100_000 + steps * (len(LINE) + 250)


# --- the process ----------------------------------------------------------------------------------------------------
@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a thread has called something in a loop by now."""
    number = 0

    def counted(way: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal number
            number += 1
            return way(*args, **options)

        return call

    for kind, way in ((asyncio.BaseEventLoop, "call_soon_threadsafe"), (_Ear, "call")):
        monkeypatch.setattr(kind, way, counted(getattr(kind, way)))
    return lambda: number


@pytest.mark.parametrize(("kind", "hops_per_step"), [("memory", 0), ("sqlite", 1), ("postgres", 0)])
async def test_a_step_hops_between_threads_once_at_most(
    kind: str, hops_per_step: int, request: pytest.FixtureRequest, hops: Callable[[], int]
) -> None:
    store: CheckpointStore = MemoryCheckpointStore() if kind == "memory" else SQLCheckpointStore(request.getfixturevalue(f"{kind}_url"))
    at: dict[int, int] = {}
    async with store:
        await walked(store, writing(STEPS, at, hops))
    steps = STEPS - 1 - SETTLED
    # A snapshot is written beside the steps, and comes back into the loop as well.
    assert hops_per_step * steps <= at[STEPS - 1] - at[SETTLED] <= hops_per_step * steps + 10


async def test_a_step_in_memory_takes_as_few_bytecodes_late_as_early() -> None:
    at: dict[int, int] = {}
    async with MemoryCheckpointStore() as store:
        with bytecodes() as count:
            await walked(store, writing(1_000, at, count))
    early, late = (at[200] - at[100]) / 100, (at[999] - at[899]) / 100
    assert late <= 1.02 * early
    assert late <= 2_350  # 2,238 on Python 3.11


@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_lone_step_needs_no_task_of_its_own(*, is_plain: bool) -> None:
    def write(state: Journal) -> dict[str, Any]:
        return {"n": state.n + 1}

    async def write_async(state: Journal) -> dict[str, Any]:
        return write(state)

    flow = Flow("writing", Journal).add_node("write", write if is_plain else write_async)
    graph = flow.set_entry("write").add_edge("write", "write", when=lambda state: state.n < STEPS).add_edge("write", END).compile()
    tasks = 0

    def counted(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal tasks
        tasks += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(counted)  # type: ignore[arg-type]
    async with MemoryCheckpointStore() as store:
        await walked(store, graph)
    assert tasks <= 10


async def test_a_branch_takes_as_few_bytecodes_among_many_as_among_few() -> None:
    taken = {}
    for branches in (2, 20, 200):  # some Pythons count a function only from its second call on
        graph = adding(branches)
        async with MemoryCheckpointStore() as store:
            with bytecodes() as count:
                await walked(store, graph)
            taken[branches] = count() / branches
    assert taken[200] <= taken[20], taken
    assert taken[200] <= 3_250  # 3,094 on Python 3.11, the run around them included


# --- opening a run again --------------------------------------------------------------------------------------------
async def test_a_file_that_is_current_is_opened_by_five_statements(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    async with SQLCheckpointStore(sqlite_url):
        """Its tables are made."""
    told_to_sqlite.clear()
    async with SQLCheckpointStore(sqlite_url):
        opened = sorted(" ".join(text.split()[:2]) for text in told_to_sqlite)
    pragmas = ("cache_size", "foreign_keys", "journal_mode", "synchronous")
    assert opened == sorted(["SELECT version_num", *(f"PRAGMA {name}" for name in pragmas)])


@pytest.mark.parametrize(("kind", "expected"), [("memory", 0), ("sqlite", 1), ("postgres", 1)])
async def test_a_run_is_read_and_checked_in_one_hop_however_long_it_is(
    kind: str, expected: int, request: pytest.FixtureRequest, hops: Callable[[], int]
) -> None:
    store: TakesUp = MemoryCheckpointStore() if kind == "memory" else SQLCheckpointStore(request.getfixturevalue(f"{kind}_url"))
    async with store:
        run_id = await walked(store, writing(2 * STEPS))
        for ask in (store.load, store.folded, store.standing):
            before = hops()
            await ask(run_id)
            assert hops() - before == expected, ask
        assert len((await store.load(run_id))[1]) > STEPS


async def test_a_row_takes_as_few_bytecodes_to_check_and_fold_late_as_early() -> None:
    async with MemoryCheckpointStore() as store:
        run_id = await walked(store, writing(1_000))
        rows = [row async for row in store.history(run_id)]
    state, at = RunState(run_id), [0]
    previous = store.chain.genesis(run_id)
    with bytecodes() as count:
        for first in range(0, 1_000, 100):
            part = rows[first : first + 100]
            assert store.chain.unbroken(previous, run_id, first + 1, part) == 100
            for row in part:
                apply_row(state, row)
            previous = state.digest
            at.append(count())
    parts = [after - before for before, after in pairwise(at)]
    early, late = parts[1] / 100, parts[9] / 100
    assert late <= 1.02 * early
    assert late <= 570  # 542 on Python 3.11


def asking_after(steps: int) -> FlowGraph:
    """Each step appends so much that no snapshot pays; then people are asked."""
    flow = Flow("asking_after", Journal)

    @flow.node
    async def write(state: Journal) -> dict[str, Any]:
        return {"log": ["x" * 1_000], "n": state.n + 1}

    flow.add_barrier("asked", prompt="Go on?", approvers={"ana"}).set_entry("write").add_edge("asked", END)
    return flow.add_edge("write", "write", when=lambda state: state.n < steps).add_edge("write", "asked").compile()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_long_run_costs_the_loop_as_little_to_open_as_a_shorter_one(kind: str, request: pytest.FixtureRequest) -> None:
    """It is folded where it is read, in a thread: nobody else's run stands still meanwhile.  (To fold a row takes some 540 bytecodes.)"""
    taken: dict[str, list[int]] = {"resumed": [], "read": [], "read the long way": []}
    url = request.getfixturevalue(f"{kind}_url")
    sizes = (200, 200, 1_000)  # some Pythons count a function only from its second call on
    for steps in sizes:
        async with SQLCheckpointStore(url) as store, GraphExecutor(asking_after(steps), store=store, max_steps=10_000) as executor:
            run_id = (await executor.execute({})).run_id
            with bytecodes() as count:
                assert (await executor.resume(run_id)).status == "waiting"
            taken["resumed"].append(count())
            with bytecodes() as count:
                assert (await load_state(store, run_id)).seq > steps
            taken["read"].append(count())
            head = (await store.run(run_id)).head_digest
            # A snapshot that does not stand on its row is out of the ordinary.
            await store._database.transact(
                lambda wire, _scribe, *values: wire.fetch("INSERT INTO snapshots (run_id, seq, digest, seal, payload) VALUES (%1, %2, %3, %3, %4)", *values),
                key_of(run_id), steps, head, b"1[]",
            )  # fmt: skip
            with bytecodes() as count:
                assert (await load_state(store, run_id)).seq > steps
            taken["read the long way"].append(count())
    for counted in taken.values():
        assert (counted[2] - counted[1]) / (sizes[2] - sizes[1]) <= 20, taken


async def test_of_a_long_run_no_more_is_ever_held_than_its_state_and_a_few_rows(sqlite_url: str) -> None:
    steps = 1_000
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(asking_after(steps), store=store, max_steps=steps + 1) as executor:
        run_id = (await executor.execute({})).run_id
        assert len((await store.load(run_id))[1]) > steps
        gc.collect()
        tracemalloc.start()
        try:
            state = await store.folded(run_id)
            most = tracemalloc.get_traced_memory()[1]
            kept = state.dump()
        finally:
            tracemalloc.stop()
        tracemalloc.start()
        try:
            copied = decode(encode(kept))
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert copied == kept
    assert len(state.root.values["log"]) == steps
    assert held > steps * 1_000
    assert most - held < 200_000  # 64 rows of 1.1 KB; all of them are 1.5 MB


# --- memory ---------------------------------------------------------------------------------------------------------
async def well(state: Journal) -> dict[str, Any]:
    return {"n": 1}


async def badly(state: Journal) -> None:
    raise ValueError("it does not work")


def badly_in_a_thread(state: Journal, ctx: StepContext) -> None:
    raise ValueError("it does not work")


async def at_last(state: Journal, ctx: StepContext) -> dict[str, Any]:
    if ctx.attempt == 1:
        raise ValueError("it does not work yet")
    return {"log": [LINE]}


def trying_twice() -> Flow:
    flow = Flow("trying", Journal).add_node("try", at_last, timeout=timedelta(minutes=1), retry=Retry(2, first=timedelta(0)))
    return flow.set_entry("try").add_edge("try", END)


ENDS: dict[str, Callable[[Flow], object]] = {
    "well": lambda flow: flow.add_node("only", well),
    "badly": lambda flow: flow.add_node("only", badly),
    "badly in a thread": lambda flow: flow.add_node("only", badly_in_a_thread),
    "at last": lambda flow: flow.add_subflow("only", trying_twice()),
    "in branches": lambda flow: flow.add_parallel("only", {"one": well, "other": trying_twice()}),
    "in a bad branch": lambda flow: flow.add_parallel("only", {"one": well, "other": badly}),
    "decided": lambda flow: flow.add_barrier("only", prompt="Go on?", approvers={"ana"}),
}


RAISES = ("badly", "at last", "in branches", "in a bad branch")
"""Python 3.12 keeps, with an exception, the frames of all who called what raised it, and has no safe way of emptying them."""


@pytest.mark.parametrize("how", [how for how in ENDS if how not in RAISES or sys.version_info[:2] != (3, 12)])
@pytest.mark.parametrize("listens_after", [timedelta(0), timedelta(hours=1)], ids=["listened", "unheard"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_run_that_is_over_leaves_nothing_to_the_garbage_collector(
    kind: str, listens_after: timedelta, how: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.driver.WATCH_AFTER", listens_after)

    async def run() -> None:
        handle = await executor.start({})
        with suppress(RunFailedError):
            if (await handle.result()).status == "waiting":
                await store.decide(handle.run_id, "only", Decision.approve(by="ana"))
                await executor.resume(handle.run_id)

    flow = Flow("ends", Journal)
    ENDS[how](flow)
    graph = flow.set_entry("only").add_edge("only", END).compile()
    store: CheckpointStore = MemoryCheckpointStore() if kind == "memory" else SQLCheckpointStore(sqlite_url)
    async with store, GraphExecutor(graph, store=store, max_steps=100) as executor:
        await run()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await run()
            gc.collect()
            left = Counter(type(each).__name__ for each in gc.garbage if type(each).__module__.startswith(("engine", "checkpoint_stores")))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_a_store_serves_others_behind_a_run_that_failed(kind: str, request: pytest.FixtureRequest) -> None:
    """What a failed run leaves behind is emptied; what wrote for it, and only waits, is not."""
    flow = Flow("fails", Journal).add_node("only", badly)
    graph = flow.set_entry("only").add_edge("only", END).compile()
    store: CheckpointStore = MemoryCheckpointStore() if kind == "memory" else SQLCheckpointStore(request.getfixturevalue(f"{kind}_url"))
    async with store, GraphExecutor(graph, store=store) as executor:
        for _ in range(3):
            with pytest.raises(RunFailedError):
                await asyncio.wait_for(executor.execute({}), 30)
            await asyncio.sleep(0)
        assert [run.status for run in await store.runs()] == ["failed"] * 3


class Request:
    """Something that belongs to one of many who ask."""


ASKED_FOR: ContextVar[Request] = ContextVar("asked_for")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_store_keeps_nothing_of_whoever_used_it_first(kind: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store begins for one and goes on with for others begins in a context of its own.  (A socket that asyncio opens keeps the
    context of whoever it was opened for: those of PostgreSQL's pool do.)"""
    monkeypatch.setattr("engine.driver.WATCH_AFTER", timedelta(0))
    store: CheckpointStore = MemoryCheckpointStore() if kind == "memory" else SQLCheckpointStore(sqlite_url)
    listened = asyncio.Event()
    flow = Flow("listened", Journal)

    @flow.node
    async def wait(state: Journal) -> dict[str, Any]:
        await listened.wait()
        return {"n": 1}

    async def asks() -> None:
        ASKED_FOR.set(Request())
        handle = await executor.start({})
        watch = store.watch(handle.run_id)
        changed = asyncio.create_task(watch.changed())
        await store.signal(handle.run_id, "news", None)
        await changed
        watch.close()
        listened.set()
        await handle.result()

    graph = flow.set_entry("wait").add_edge("wait", END).add_signal("news").compile()
    async with store, GraphExecutor(graph, store=store) as executor:
        await asyncio.create_task(asks())
        for _ in range(3):
            await asyncio.sleep(0)  # what was cancelled is over
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is Request]


@contextmanager
def bytecodes() -> Iterator[Callable[[], int]]:
    """How many bytecodes this thread has gone through since."""
    taken = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal taken
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        taken += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: taken
    finally:
        sys.settrace(before)
