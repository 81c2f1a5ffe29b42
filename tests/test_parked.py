"""A run that its own process has parked and decides itself: it is not read again, and it is as if it had been."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from checkpoint_stores.errors import BarrierClosedError, NotAnApproverError, StoreUnavailableError, TrailmarkError
from checkpoint_stores.fold import RunState
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, RunChange
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine import parked
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.plan import END
from reducers.builtin import append
from trailmark.testing.clock import VirtualClock
from trailmark.testing.contract import SetClock

APPROVE = Decision.approve(by="ana", reason="seen")


class Noted(BaseModel):
    """A number, and what was noted of it."""

    n: int = 0
    notes: Annotated[list[str], append] = []
    much: str = ""


def asking(**barrier: Any) -> FlowGraph:
    """A node, a barrier, and a node behind it that adds to what the first one has written."""
    flow = Flow("asking", Noted).add_signal("news")

    @flow.node
    async def before(state: Noted) -> dict[str, Any]:
        return {"notes": ["before"]}

    @flow.node
    async def behind(state: Noted) -> dict[str, Any]:
        return {"n": state.n + 1, "notes": ["behind"]}

    flow.add_barrier("ask", show=["n"], **barrier).set_entry("before").add_edge("before", "ask")
    return flow.add_edge("ask", "behind").add_edge("behind", END).compile()


class Read(MemoryCheckpointStore):
    """A store that counts how often it is asked how a run stands."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked = 0

    async def standing(self, run_id: str, **options: Any) -> Any:
        self.asked += 1
        return await super().standing(run_id, **options)


# --- where nobody has been there since ------------------------------------------------------------------------------
async def test_a_run_that_parked_here_is_decided_without_being_read() -> None:
    store = Read()
    async with GraphExecutor(asking(), store=store) as executor:
        run = await executor.start({"n": 1})
        await run.result()
        record = await run.decide("ask", APPROVE)
        result = await run.result()
        assert (result.status, result.values, result.attempt) == ("completed", {"n": 2, "notes": ["before", "behind"], "much": ""}, 2)
        assert [each.id for each in await store.decisions(run.run_id)] == [record.id]
        assert await store.verify(run.run_id) == []
        assert store.asked == 0


async def test_a_run_that_parks_again_is_not_read_either() -> None:
    flow = Flow("twice", Noted)

    @flow.node
    async def between(state: Noted) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"notes": ["between"]}

    flow.add_barrier("first").add_barrier("second").set_entry("first").add_edge("first", "between").add_edge("between", "second")
    store = Read()
    async with GraphExecutor(flow.add_edge("second", END).compile(), store=store) as executor:
        run = await executor.start({})
        for barrier in ("first", "second"):
            assert (await run.result()).waiting_for == (f"{barrier}#1",)
            await run.decide(barrier, APPROVE)
        assert ((await run.result()).status, store.asked) == ("completed", 0)


async def test_what_a_drive_that_a_decision_began_has_seen_is_told_once_it_is_over() -> None:
    flow = Flow("failing", Noted)

    @flow.node
    async def fails(state: Noted) -> dict[str, Any]:
        raise ZeroDivisionError

    graph = flow.add_barrier("ask").set_entry("ask").add_edge("ask", "fails").add_edge("fails", END).compile()
    async with GraphExecutor(graph, store=MemoryCheckpointStore()) as executor:
        run = await executor.start({})
        await run.result()
        await run.decide("ask", APPROVE)
        while not run.done():
            await asyncio.sleep(0)
        with pytest.raises(RunFailedError) as failed:
            await run.result()
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


async def test_whoever_has_the_result_of_a_run_that_parked_keeps_what_he_has_seen() -> None:
    async with GraphExecutor(asking(), store=MemoryCheckpointStore()) as executor:
        run = await executor.start({"n": 1})
        waits = await run.result()
        await run.decide("ask", APPROVE)
        ended = await run.result()
    assert (waits.state.n, waits.state.notes, waits.status, waits.waiting_for) == (1, ["before"], "waiting", ("ask#1",))
    assert (ended.state.n, ended.state.notes, ended.status, ended.waiting_for) == (2, ["before", "behind"], "completed", ())


async def test_nothing_is_kept_of_a_run_whose_handle_nobody_keeps() -> None:
    async with GraphExecutor(asking(), store=MemoryCheckpointStore()) as executor:
        run = await executor.start({"n": 1})
        await run.result()
        run_id = run.run_id

        def kept() -> list[RunState]:
            return [each for each in gc.get_objects() if type(each) is RunState and each.run_id == run_id]

        assert len(kept()) == 1
        del run
        assert kept() == []
        assert not executor._drives._parked


@pytest.mark.parametrize("by", ["decide", "attach"])
async def test_nothing_is_kept_of_how_a_run_stood_that_has_gone_on(by: str) -> None:
    async with GraphExecutor(asking(), store=MemoryCheckpointStore()) as executor:
        run = await executor.start({"n": 1})
        await run.result()
        if by == "decide":
            await run.decide("ask", APPROVE)
        else:
            await executor.store.decide(run.run_id, "ask", APPROVE)
            await executor.resume(run.run_id)
        assert (await run.result()).status == "completed"
        gc.collect()
        assert [each for each in gc.get_objects() if type(each) is parked.Parked and each.run.run_id == run.run_id] == []


async def test_a_large_state_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Read()
    async with GraphExecutor(asking(), store=store) as executor:
        run = await executor.start({"much": "x" * 2 * parked.MOST_BYTES})
        await run.result()
        await run.decide("ask", APPROVE)
        assert (await run.result()).status == "completed"
    assert store.asked == 1


@pytest.mark.parametrize("remembers", [False, True])
async def test_what_was_stored_before_it_parked_counts_towards_the_next_snapshot(remembers: bool) -> None:
    flow = Flow("rounds", Noted)

    @flow.node
    async def work(state: Noted) -> dict[str, Any]:
        return {"n": state.n + 1, "much": "x" * 4_000}

    flow.add_barrier("ask").set_entry("work").add_edge("work", "ask", when=lambda state: state.n == 14).add_edge("work", "work")
    flow.add_edge("work", END, when=lambda state: state.n == 28).add_edge("ask", "work")
    store = MemoryCheckpointStore()
    async with GraphExecutor(flow.compile(), store=store, max_steps=100) as executor:
        run = await executor.start({})
        await run.result()
        if not remembers:
            executor._drives._parked.clear()
        await run.decide("ask", APPROVE)
        await run.result()
        snapshot, _ = await store.load(run.run_id)
        assert snapshot is not None


async def test_where_the_store_cannot_be_reached_whoever_decides_waits_for_it_no_longer_than_if_the_run_were_read() -> None:
    """Each try waits for a file that is locked."""

    tried = []

    class Locked(Read):
        async def take_up(self, resumption: Any) -> Any:
            tried.append("take up")
            raise StoreUnavailableError(self.url, "locked")

        async def decide(self, run_id: str, barrier: str, decision: Any) -> Any:
            tried.append("decide")
            raise StoreUnavailableError(self.url, "locked")

    async with GraphExecutor(asking(), store=Locked()) as executor:
        run = await executor.start({"n": 1})
        await run.result()
        with pytest.raises(StoreUnavailableError):
            await run.decide("ask", APPROVE)
    assert tried == ["take up", "decide"]


async def test_what_is_asked_in_one_drive_and_still_open_behind_the_next_is_read_again() -> None:
    """Of two questions one is answered: what parks the run again has asked nothing, and what it knows of the other may be old."""
    flow = Flow("two", Noted)
    branches = {name: Flow(name, Noted).add_barrier(f"ask_{name}").set_entry(f"ask_{name}").add_edge(f"ask_{name}", END) for name in "ab"}
    graph = flow.add_parallel("both", branches).set_entry("both").add_edge("both", END).compile()
    store = Read()
    async with GraphExecutor(graph, store=store) as executor:
        run = await executor.start({})
        first, second = (await run.result()).waiting_for
        await run.decide(first, APPROVE)
        assert ((await run.result()).waiting_for, store.asked) == ((second,), 0)
        await run.decide(second, APPROVE)
        assert ((await run.result()).status, store.asked) == ("completed", 1)


# --- where somebody has ---------------------------------------------------------------------------------------------
class Scene:
    """A run that waits, over a store that others use, too."""

    def __init__(self, stores: list[CheckpointStore], graph: FlowGraph, clock: VirtualClock | None = None) -> None:
        self.here, self.elsewhere = [GraphExecutor(graph, store=store, clock=clock) for store in stores]
        self.store = stores[1]
        self.run_id = ""


async def _nothing(_scene: Scene) -> None: ...


async def _approved(scene: Scene) -> None:
    await scene.store.decide(scene.run_id, "ask", Decision.approve(by="bo"))


async def _rejected(scene: Scene) -> None:
    await scene.store.decide(scene.run_id, "ask", Decision.reject(by="bo", reason="no"))


async def _approved_by_the_same(scene: Scene) -> None:
    with suppress(NotAnApproverError):
        await scene.store.decide(scene.run_id, "ask", APPROVE)


async def _gone_on_with(scene: Scene) -> None:
    await _approved(scene)
    await scene.elsewhere.resume(scene.run_id)


async def _signalled(scene: Scene) -> None:
    await scene.store.signal(scene.run_id, "news")


async def _asked_to_cancel(scene: Scene) -> None:
    await scene.store.request_cancel(scene.run_id, actor="bo")


async def _cancelled(scene: Scene) -> None:
    await scene.elsewhere.cancel(scene.run_id, by="bo")


async def _edited(scene: Scene) -> None:
    await scene.elsewhere.edit(scene.run_id, {"n": 40}, by="bo")


async def _driven(scene: Scene) -> None:
    assert (await scene.elsewhere.resume(scene.run_id)).status == "waiting"


async def _driven_twice(scene: Scene) -> None:
    await _driven(scene)
    await _driven(scene)


async def _held(scene: Scene) -> None:
    await scene.store.acquire(scene.run_id)


async def _forked(scene: Scene) -> None:
    await scene.elsewhere.fork(scene.run_id)


async def _quarantined(scene: Scene) -> None:
    lease = await scene.store.acquire(scene.run_id)
    await scene.store.commit(Commit(scene.run_id, lease.epoch, (), RunChange(status="quarantined", release=True)))


async def _made_anew(scene: Scene) -> None:
    await _cancelled(scene)
    await scene.store.delete(scene.run_id)
    run = await scene.elsewhere.start({"n": 7}, run_id=scene.run_id)
    assert (await run.result()).status == "waiting"


MEANWHILE: list[Callable[[Scene], Awaitable[None]]] = [
    _nothing, _approved, _rejected, _approved_by_the_same, _gone_on_with, _signalled, _asked_to_cancel, _cancelled, _edited, _driven,
    _driven_twice, _held, _forked, _quarantined, _made_anew,
]  # fmt: skip

BARRIERS: list[dict[str, Any]] = [{}, {"quorum": 2}, {"approvers": {"bo"}}]


@asynccontextmanager
async def scene_over(kind: str, request: pytest.FixtureRequest, graph: FlowGraph) -> AsyncIterator[Scene]:
    if kind == "memory":
        database = MemoryDatabase()
        stores: list[Any] = [MemoryCheckpointStore(database=database), MemoryCheckpointStore(database=database)]
    else:
        url = request.getfixturevalue(kind)
        stores = [SQLCheckpointStore(url), SQLCheckpointStore(url)]
    async with stores[0], stores[1]:
        scene = Scene(stores, graph)
        async with scene.here, scene.elsewhere:
            yield scene


async def decided(scene: Scene, meanwhile: Callable[[Scene], Awaitable[None]], *, remembers: bool) -> list[Any]:
    """All that comes of a decision in the process that parked the run, behind what others did meanwhile."""
    run = await scene.here.start({"n": 1})
    scene.run_id = run.run_id
    await run.result()
    if not remembers:
        scene.here._drives._parked.clear()
    await meanwhile(scene)
    told: list[Any] = []
    try:
        record = await run.decide("ask", APPROVE)
        told += [record.action, record.actor, record.ticket]
    except TrailmarkError as refused:
        told.append(type(refused))
    if (await scene.store.run(scene.run_id)).owner == scene.here.store.worker_id:
        await asyncio.wait([asyncio.ensure_future(run.result())])
    record = await scene.store.run(scene.run_id)
    told += [record.status, record.attempt, record.epoch, record.inbox_rev]
    told += [(row.kind, row.node, row.epoch, row.step) async for row in scene.store.history(scene.run_id)]
    told += [(each.actor, each.action, each.ticket, each.consumed_seq) for each in await scene.store.decisions(scene.run_id)]
    told += [(each.ticket, each.status, each.opened_seq) for each in await scene.store.barriers(run_id=scene.run_id, status=None)]
    assert await scene.store.verify(scene.run_id) == []
    return told


@pytest.mark.parametrize("kind", ["memory", "sqlite_url", "postgres_url"])
@pytest.mark.parametrize("barrier", BARRIERS, ids=str)
@pytest.mark.parametrize("meanwhile", MEANWHILE, ids=lambda each: each.__name__)
async def test_whatever_others_did_meanwhile_it_is_as_if_the_run_had_been_read(
    kind: str, barrier: dict[str, Any], meanwhile: Callable[[Scene], Awaitable[None]], request: pytest.FixtureRequest
) -> None:
    async with scene_over(kind, request, asking(**barrier)) as scene:
        outcomes = [await decided(scene, meanwhile, remembers=remembers) for remembers in (False, True)]
    assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize("barrier", [{"timeout": timedelta(hours=1)}, {"timeout": timedelta(hours=1), "on_timeout": "reject"}], ids=str)
async def test_a_decision_behind_the_deadline_is_judged_by_the_time_it_is_made(barrier: dict[str, Any]) -> None:
    outcomes = []
    for remembers in (False, True):
        clock = VirtualClock()
        database = MemoryDatabase()
        stores: list[CheckpointStore] = [MemoryCheckpointStore(database=database, now=clock.now) for _ in range(2)]
        scene = Scene(stores, asking(**barrier), clock)

        async def a_day_later(_scene: Scene, clock: VirtualClock = clock) -> None:
            await clock.advance(timedelta(days=1))

        async with scene.here, scene.elsewhere:
            outcomes.append(await decided(scene, a_day_later, remembers=remembers))
    assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize("remembers", [False, True])
async def test_a_deadline_is_the_stores_though_this_process_slept_over_it(remembers: bool) -> None:
    """A machine that was asleep, or a virtual one that stood still: its monotonic clock has not gone on."""
    clock = SetClock()
    async with GraphExecutor(asking(timeout=timedelta(hours=1)), store=MemoryCheckpointStore(now=clock)) as executor:
        run = await executor.start({"n": 1})
        await run.result()
        if not remembers:
            executor._drives._parked.clear()
        clock.advance(timedelta(hours=2))
        with pytest.raises(BarrierClosedError, match="expired"):
            await run.decide("ask", APPROVE)
        assert await executor.store.decisions(run.run_id) == []
