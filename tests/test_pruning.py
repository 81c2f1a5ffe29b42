"""Keeping a store small: what goes, what stays, and that what stays can do everything it could."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
import pytest_asyncio

from checkpoint_stores.errors import ArgumentError, CheckpointNotFoundError, RunNotFoundError
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.loading import load_state
from engine.plan import END
from engine.pruning import Cut, Retention, prune
from reducers.builtin import append
from trailmark.events import last_events
from trailmark.testing import VirtualClock

DAY = timedelta(days=1)


def looping() -> FlowGraph:
    """Counts to ``n`` in a loop, then asks."""
    flow = Flow("pruned", {"n": int, "log": Annotated[list[int], append]})

    @flow.node
    async def count(state: Any) -> dict[str, Any]:
        if state["n"] < 0:
            raise ValueError("below zero")
        return {"n": state["n"] - 1, "log": [state["n"]]}

    flow.add_barrier("gate", show=["n"], on_reject="continue")
    flow.set_entry("count")
    flow.add_edge("count", "count", when=lambda state: state["n"] > 0)
    flow.add_edge("count", "gate", when=lambda state: len(state["log"]) > 2)
    flow.add_edge("count", END).add_edge("gate", END)
    return flow.compile()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, clock: VirtualClock) -> AsyncIterator[CheckpointStore]:
    lease = timedelta(days=1000)
    if request.param == "memory":
        opened: CheckpointStore = MemoryCheckpointStore(now=clock.now, lease=lease)
    else:
        opened = SQLCheckpointStore(request.getfixturevalue(f"{request.param}_url"), now=clock.now, lease=lease)
    async with opened as store:
        yield store


@pytest_asyncio.fixture
async def executor(store: CheckpointStore, clock: VirtualClock) -> AsyncIterator[GraphExecutor]:
    async with GraphExecutor(looping(), store=store, clock=clock) as executor:
        yield executor


async def rows_of_all(store: CheckpointStore) -> int:
    number = 0
    for run in await store.runs():
        number += len([row async for row in store.history(run.run_id)])
    return number


async def test_runs_that_ended_long_ago_go_with_everything_and_the_others_stay(
    store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock
) -> None:
    old = await executor.execute({"n": 1, "log": []}, run_key="k")
    kept = await executor.execute({"n": 1, "log": []}, labels={"team": "audit"})
    waiting = await executor.execute({"n": 3, "log": []})
    with pytest.raises(RunFailedError):
        await executor.execute({"n": -1, "log": []})
    await clock.advance(40 * DAY)
    young = await executor.execute({"n": 1, "log": []})
    retention = Retention(runs_for=30 * DAY, statuses=("completed",), keep_labels=("team=audit",))

    tried = await prune(store, retention, dry_run=True)
    assert [run.run_id for run in tried.runs] == [old.run_id]
    assert await store.verify(old.run_id) == []
    done = await prune(store, retention)

    assert [run.run_id for run in done.runs] == [old.run_id]
    assert done.cuts == ()
    with pytest.raises(RunNotFoundError):
        await store.run(old.run_id)
    assert await store.run_by_key("pruned", "k") is None
    assert {run.run_id for run in await store.runs()} >= {kept.run_id, waiting.run_id, young.run_id}
    assert len(await store.runs()) == 4
    assert (await store.stats())["checkpoints"] == await rows_of_all(store)
    assert await prune(store, retention) == type(done)()


async def test_the_newest_runs_of_each_flow_stay_whatever_their_age(
    store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock
) -> None:
    runs = []
    for _ in range(4):
        runs.append((await executor.execute({"n": 1, "log": []})).run_id)
        await clock.advance(DAY)
    done = await prune(store, Retention(runs_for=timedelta(0), newest_runs=2))
    assert {run.run_id for run in done.runs} == set(runs[:2])


async def test_only_runs_of_the_flow_and_of_the_tenant_that_are_named_go(
    store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock
) -> None:
    ended = Flow("ended", {"n": int}).add_node("only", lambda state: {"n": 1}).set_entry("only").add_edge("only", END)
    async with GraphExecutor(ended.compile(), store=store, clock=clock) as another:
        other = await another.execute({"n": 0})
    mine = await executor.execute({"n": 1, "log": []})
    theirs = await executor.execute({"n": 1, "log": []}, tenant="acme")
    await clock.advance(DAY)
    now = timedelta(0)
    for retention, goes in (
        (Retention(runs_for=now, tenant="acme"), theirs),
        (Retention(runs_for=now, flow="ended"), other),
        (Retention(runs_for=now, flow="pruned"), mine),
    ):
        assert [run.run_id for run in (await prune(store, retention)).runs] == [goes.run_id]


async def test_a_cut_run_verifies_resumes_and_forks_as_before(store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock) -> None:
    run = await executor.execute({"n": 30, "log": []})
    before = await load_state(store, run.run_id)
    done = await prune(store, Retention(checkpoints=5))

    assert done.cuts == (Cut(run.run_id, 1, run.seq - 5),)
    rows = [row async for row in store.history(run.run_id)]
    assert [row.seq for row in rows] == list(range(run.seq - 4, run.seq + 1))
    assert await store.verify(run.run_id) == []
    assert (await load_state(store, run.run_id)).dump() == before.dump()
    with pytest.raises(CheckpointNotFoundError):
        await load_state(store, run.run_id, 3)
    fork = await executor.fork(run.run_id, at=run.seq - 2)
    assert await store.verify(fork) == []
    await store.decide(run.run_id, "gate", Decision.approve(by="ana"))
    assert (await executor.resume(run.run_id)).status == "completed"
    assert await store.verify(run.run_id) == []
    assert (await prune(store, Retention(checkpoints=1))).cuts[0].run_id == run.run_id
    assert await store.verify(run.run_id) == []
    assert (await executor.resume(run.run_id)).values["log"] == list(range(30, 0, -1))


async def test_checkpoints_that_one_rule_keeps_stay(store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock) -> None:
    run = await executor.execute({"n": 10, "log": []})
    assert (await prune(store, Retention(checkpoints=2, checkpoints_for=DAY))).cuts == ()
    await clock.advance(2 * DAY)
    assert (await prune(store, Retention(checkpoints=2, checkpoints_for=DAY))).cuts == (Cut(run.run_id, 1, run.seq - 2),)
    assert (await prune(store, Retention(checkpoints_for=DAY))).cuts == (Cut(run.run_id, run.seq - 1, run.seq - 1),)
    assert await store.verify(run.run_id) == []


async def test_a_run_is_cut_while_it_goes_on(store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock) -> None:
    graph = looping()
    async with GraphExecutor(graph, store=store, clock=clock) as other:
        handle = await other.start({"n": 300, "log": []}, max_steps=5000)
        cuts = 0
        while not handle.done():
            await asyncio.sleep(0)
            record = await store.run(handle.run_id)
            state = await load_state(store, record.run_id)
            # The anchor of a run that goes on lies behind; ask for what is left of it here.
            if state.seq > 10:
                from checkpoint_stores.codec import encode
                from checkpoint_stores.records import Snapshot

                upto = await load_state(store, record.run_id, state.seq - 5)
                cuts += await store.drop_before(Snapshot(record.run_id, upto.seq, encode(upto.dump()), upto.digest))
        result = await handle.result()
    assert cuts > 0
    assert result.values["log"] == list(range(300, 0, -1))
    assert await store.verify(result.run_id) == []
    assert (await load_state(store, result.run_id)).root.values["log"] == list(range(300, 0, -1))


async def test_what_was_cut_off_by_an_edit_is_still_found(store: CheckpointStore, executor: GraphExecutor) -> None:
    run = await executor.execute({"n": 30, "log": []})
    await prune(store, Retention(checkpoints=5))
    last = [row async for row in store.history(run.run_id)]
    state = await load_state(store, run.run_id)
    forged = store.chain.seal(b"x" * 32, run.run_id, state.seq + 1, 1, 1, "step", "", "", "", b"1[]", 0)
    assert not store.chain.follows(last[-1].digest, forged)
    assert store.chain.follows(last[0].digest, last[1])


async def test_vacuum_gives_space_back_and_harms_nothing(store: CheckpointStore, executor: GraphExecutor) -> None:
    run = await executor.execute({"n": 200, "log": []})
    await prune(store, Retention(checkpoints=1))
    before, after = await store.vacuum()
    assert after > 0
    assert after < before or not store.url.startswith("sqlite")  # PostgreSQL keeps the space, for what comes
    assert await store.verify(run.run_id) == []
    await store.decide(run.run_id, "gate", Decision.approve(by="ana"))
    assert (await executor.resume(run.run_id)).status == "completed"


async def test_two_that_prune_at_once_do_each_thing_once(store: CheckpointStore, executor: GraphExecutor, clock: VirtualClock) -> None:
    runs = [(await executor.execute({"n": 1, "log": []})).run_id for _ in range(20)]
    await clock.advance(DAY)
    retention = Retention(runs_for=timedelta(hours=1))
    one, other = await asyncio.gather(prune(store, retention), prune(store, retention))
    deleted = [run.run_id for pruned in (one, other) for run in pruned.runs]
    assert sorted(deleted) == sorted(runs)
    assert await store.runs() == []


@pytest.mark.parametrize(
    "rules", [{"runs_for": -DAY}, {"checkpoints": 0}, {"newest_runs": -1}, {"statuses": ("waiting",)}, {"checkpoints_for": 3}]
)
def test_a_rule_that_makes_no_sense_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        Retention(**rules)


@pytest.mark.parametrize("kept", [1, 2, 5])
async def test_what_is_left_of_a_log_tells_what_it_told_before(store: CheckpointStore, executor: GraphExecutor, kept: int) -> None:
    run = await executor.execute({"n": 9, "log": []})
    before = [envelope async for envelope in executor.events(run.run_id, follow=False)]
    await prune(store, Retention(checkpoints=kept))
    rows = {row.seq async for row in store.history(run.run_id)}
    left = [envelope for envelope in before if envelope.seq in rows]

    assert len(left) < len(before)
    assert [envelope async for envelope in executor.events(run.run_id, follow=False)] == left
    for number in range(len(before)):
        assert await last_events(store, run.run_id, number) == (left[-number:] if number else [])


async def test_who_goes_on_from_an_event_that_was_pruned_hears_that_something_is_missing(
    store: CheckpointStore, executor: GraphExecutor
) -> None:
    run = await executor.execute({"n": 9, "log": []})
    told = [envelope async for envelope in executor.events(run.run_id, follow=False)]
    await prune(store, Retention(checkpoints=2))
    for seq in (1, 2, 5):
        last = next(envelope.id for envelope in told if envelope.seq == seq)
        with pytest.raises(CheckpointNotFoundError):
            await anext(executor.events(run.run_id, after=last, follow=False))


async def test_a_reader_that_is_interrupted_at_what_was_pruned_misses_nothing_that_is_left() -> None:
    asked, answers = asyncio.Event(), asyncio.Event()

    class Slow(MemoryCheckpointStore):
        async def load(self, run_id: str, upto: int | None = None) -> Any:
            asked.set()
            await answers.wait()
            return await super().load(run_id, upto)

    answers.set()
    async with Slow() as slow, GraphExecutor(looping(), store=slow) as executor:
        run = await executor.execute({"n": 9, "log": []})
        await prune(slow, Retention(checkpoints=3))
        left = [envelope async for envelope in executor.events(run.run_id, follow=False)]
        asked.clear()
        answers.clear()
        stream = executor.events(run.run_id, follow=False)
        interrupted = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asked.wait()
        interrupted.cancel()
        await asyncio.wait([interrupted])
        answers.set()
        assert [envelope async for envelope in stream] == left


async def test_runs_that_go_share_the_wait_for_the_disk(sqlite_url: str, told_to_sqlite: list[str]) -> None:
    clock = VirtualClock()
    async with SQLCheckpointStore(sqlite_url, now=clock.now) as store, GraphExecutor(looping(), store=store, clock=clock) as executor:
        for _ in range(40):
            await executor.execute({"n": 0, "log": []})
        await clock.advance(2 * DAY)
        told_to_sqlite.clear()
        pruned = await prune(store, Retention(runs_for=DAY))
        assert len(pruned.runs) == 40
        assert sum(text.startswith("COMMIT") for text in told_to_sqlite) < 20
