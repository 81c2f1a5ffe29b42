"""A worker in this process, over a store in memory and a clock that stands still: what it takes, leaves alone, gives back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from datetime import timedelta
from typing import Annotated, Any

import pytest
import pytest_asyncio

from checkpoint_stores.errors import ArgumentError, IllegalTransitionError, RunEndedError, StoreUnavailableError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.records import RunRecord
from engine.decisions import Decision
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.operations import steps
from engine.plan import END, Retry
from engine.recovery import RECOVERIES, recoveries, release_run
from reducers.builtin import append
from trailmark.testing import VirtualClock
from trailmark.testing.clock import settled
from trailmark.worker import Report, StoreDispatcher, Worker
from trailmark.worker.worker import graphs_of

STATE = {"n": int, "log": Annotated[list[str], append]}
START = {"n": 0, "log": []}


class Shop:
    """A flow with a body that the test holds up, a barrier and a body behind it; and a database for several processes."""

    def __init__(self, *, version: str = "1") -> None:
        self.clock = VirtualClock()
        self.database = MemoryDatabase()
        self.reports: list[Report] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.entered: list[int] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.graph = self.flow(version).compile()

    def flow(self, version: str = "1") -> Flow:
        flow = Flow("shop", STATE, version=version)
        flow.add_node("work", self.work)
        flow.add_barrier("sign", timeout=timedelta(days=2), on_timeout="approve")
        flow.add_node("pay", self.pay)
        flow.set_entry("work").add_edge("work", "sign").add_edge("sign", "pay").add_edge("pay", END)
        return flow

    async def work(self, state: Any) -> dict[str, Any]:
        self.entered.append(state["n"])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.is_open.wait()
        finally:
            self.in_flight -= 1
        return {"log": ["work"]}

    async def pay(self, state: Any) -> dict[str, Any]:
        return {"log": ["pay"]}

    def store(self) -> MemoryCheckpointStore:
        return MemoryCheckpointStore(database=self.database, now=self.clock.now)

    def worker(self, store: MemoryCheckpointStore | None = None, **options: Any) -> Worker:
        graph = options.pop("graph", self.graph)
        return Worker(graph, store=store or self.store(), clock=self.clock, report=self.reports.append, **options)

    async def submit(self, number: int = 1, graph: FlowGraph | None = None) -> list[str]:
        executor = GraphExecutor(graph or self.graph, store=self.store(), clock=self.clock)
        return [await executor.submit({"n": n, "log": []}) for n in range(number)]

    async def status(self, run_id: str) -> str:
        return (await self.store().run(run_id)).status

    def said(self, what: str) -> list[Report]:
        return [report for report in self.reports if report.what == what]


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest_asyncio.fixture
async def begin() -> AsyncIterator[Callable[..., asyncio.Task[None]]]:
    """Let a worker work beside the test; drained at its end."""
    begun: list[tuple[Worker, asyncio.Task[None]]] = []

    def start(worker: Worker, **options: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(worker.run(**options))
        begun.append((worker, task))
        return task

    yield start
    for worker, task in begun:
        worker.drain(timedelta(0))
        await task


# --- what it takes --------------------------------------------------------------------------------------------------
async def test_it_drives_what_is_new_and_ends_when_nothing_is_due(shop: Shop) -> None:
    run_ids = await shop.submit(3)
    await shop.worker().run(until_idle=True)
    assert [await shop.status(run_id) for run_id in run_ids] == ["waiting"] * 3
    assert sorted(shop.entered) == [0, 1, 2]
    assert [report.what for report in shop.reports] == ["began", *["taken"] * 3, *["let_go"] * 3, "ended"]
    assert {report.text for report in shop.said("taken")} == {"new"}


async def test_a_run_submitted_while_it_waits_is_taken_at_once(shop: Shop, begin: Any) -> None:
    begin(shop.worker())
    await settled()
    (run_id,) = await shop.submit()
    await settled()
    assert await shop.status(run_id) == "waiting"


async def test_a_deadline_wakes_it_when_its_time_has_come(shop: Shop, begin: Any) -> None:
    (run_id,) = await shop.submit()
    begin(shop.worker())
    await shop.clock.advance(timedelta(days=1, hours=23))
    assert await shop.status(run_id) == "waiting"
    await shop.clock.advance(timedelta(hours=1, seconds=1))
    assert await shop.status(run_id) == "completed"


async def test_a_late_retry_wakes_it_when_its_time_has_come(begin: Any) -> None:
    shop = Shop()
    tried: list[int] = []
    flow = Flow("shaky", STATE)

    @flow.node(retry=Retry(attempts=2, first=timedelta(minutes=10), longest=timedelta(hours=1)))
    async def call(state: Any) -> dict[str, Any]:
        tried.append(1)
        if len(tried) == 1:
            raise OSError("not yet")
        return {"log": ["called"]}

    graph = flow.set_entry("call").add_edge("call", END).compile()
    (run_id,) = await shop.submit(graph=graph)
    begin(shop.worker(graph=graph))
    await settled()
    assert (await shop.status(run_id), len(tried)) == ("waiting", 1)
    await shop.clock.advance(timedelta(hours=1))
    assert (await shop.status(run_id), len(tried)) == ("completed", 2)


async def test_the_runs_of_a_process_that_is_gone_are_taken_when_its_lease_is_over(shop: Shop, begin: Any) -> None:
    gone = shop.store()
    elsewhere = Shop()
    elsewhere.is_open.clear()
    handle = await GraphExecutor(elsewhere.graph, store=gone, clock=shop.clock).start(START)
    await settled()
    if gone._timer is not None:
        gone._timer.cancel()  # its heart beats no more
    begin(shop.worker())
    await shop.clock.advance(timedelta(seconds=29))
    assert not shop.said("taken")
    await shop.clock.advance(timedelta(seconds=2))
    assert await shop.status(handle.run_id) == "waiting"
    assert [report.text for report in shop.said("taken")] == ["orphaned, recovery 1"]


async def test_what_a_person_has_to_move_is_not_taken(shop: Shop) -> None:
    executor = GraphExecutor(shop.graph, store=shop.store(), clock=shop.clock, max_steps=1)
    limited = await executor.execute(START)
    forked = await executor.fork(limited.run_id)
    await shop.worker().run(until_idle=True)
    assert (await shop.status(limited.run_id), await shop.status(forked)) == ("limit_reached", "suspended")
    assert not shop.said("taken")


# --- how many, and whose --------------------------------------------------------------------------------------------
async def test_no_more_runs_than_asked_for_are_driven_at_once(shop: Shop, begin: Any) -> None:
    shop.is_open.clear()
    await shop.submit(20)
    working = begin(shop.worker(concurrency=3), until_idle=True)
    await settled()
    assert (shop.in_flight, shop.entered) == (3, [0, 1, 2]), "those that wait longest go first"
    shop.is_open.set()
    await working
    assert (shop.most_in_flight, len(shop.entered)) == (3, 20)


async def test_two_workers_share_the_runs_and_no_body_runs_twice(shop: Shop) -> None:
    run_ids = await shop.submit(50)
    await asyncio.gather(*(shop.worker(concurrency=4).run(until_idle=True) for _ in range(2)))
    assert sorted(shop.entered) == list(range(50))
    assert {await shop.status(run_id) for run_id in run_ids} == {"waiting"}
    assert {(await shop.store().run(run_id)).attempt for run_id in run_ids} == {1}


async def test_a_run_the_flow_cannot_go_on_with_is_left_alone_and_keeps_no_other_waiting(shop: Shop) -> None:
    old = Flow("shop", STATE).add_node("begin", shop.pay).set_entry("begin").add_edge("begin", END)
    foreign = await shop.submit(5, graph=old.compile())
    run_ids = await shop.submit(2)
    await shop.worker(concurrency=1).run(until_idle=True)
    assert {await shop.status(run_id) for run_id in foreign} == {"created"}
    assert {await shop.status(run_id) for run_id in run_ids} == {"waiting"}
    assert sorted(report.run_id for report in shop.said("left_alone")) == sorted(foreign), "each is reported once"
    assert all("GraphChangedError" in report.text for report in shop.said("left_alone"))


async def test_a_damaged_run_is_left_alone_and_keeps_no_other_waiting(shop: Shop) -> None:
    broken, sound = await shop.submit(2)
    held = shop.database.runs[broken]
    held.rows[0] = held.rows[0]._replace(payload=b"[]")
    await shop.worker(concurrency=1).run(until_idle=True)
    assert (await shop.status(broken), await shop.status(sound)) == ("created", "waiting")
    assert [report.run_id for report in shop.said("left_alone")] == [broken]


async def test_a_run_that_fails_is_no_trouble_of_the_worker(shop: Shop) -> None:
    flow = Flow("doomed", STATE)

    @flow.node
    async def fall(state: Any) -> dict[str, Any]:
        raise ValueError("no")

    graph = flow.set_entry("fall").add_edge("fall", END).compile()
    (run_id,) = await shop.submit(graph=graph)
    await shop.worker(graph={"doomed": flow, "shop": shop.graph}).run(until_idle=True)
    assert await shop.status(run_id) == "failed"
    assert [(report.status, report.flow) for report in shop.said("let_go")] == [("failed", "doomed")]


class Told:
    """A dispatcher that is told of runs by the test, and asks no store."""

    def __init__(self, *runs: RunRecord) -> None:
        self.runs = list(runs)
        self.over: list[str] = []
        self.is_closed = False

    async def look(self, room: int, aside: Collection[str]) -> list[RunRecord]:
        found = [run for run in self.runs if run.run_id not in aside][:room]
        self.runs = [run for run in self.runs if run not in found]
        return found

    async def changed(self) -> None:
        await asyncio.Event().wait()

    def let_go(self, run_id: str) -> None:
        self.over.append(run_id)

    def close(self) -> None:
        self.is_closed = True


async def test_it_drives_what_its_dispatcher_tells_of_and_nothing_else(shop: Shop) -> None:
    told, untold = await shop.submit(2)
    dispatcher = Told(await shop.store().run(told))
    await Worker(shop.graph, store=shop.store(), clock=shop.clock, dispatcher=dispatcher).run(until_idle=True)
    assert [await shop.status(run_id) for run_id in (told, untold)] == ["waiting", "created"]
    assert (dispatcher.over, dispatcher.is_closed) == ([told], True)


class Asked(MemoryCheckpointStore):
    """A store that remembers what it was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[str] = []

    async def due(self, **options: Any) -> list[RunRecord]:
        self.asked.append("due")
        return await super().due(**options)

    async def next_due(self) -> int:
        self.asked.append("next_due")
        return await super().next_due()


async def test_when_to_look_again_is_asked_only_where_nothing_is_found(shop: Shop) -> None:
    run_ids = await shop.submit(3)
    store = Asked(database=shop.database, now=shop.clock.now)
    dispatcher = StoreDispatcher(store, ["shop"], shop.clock)
    assert await dispatcher.look(5, run_ids) == []
    assert store.asked == ["due", "next_due", "due"]
    changed = asyncio.ensure_future(dispatcher.changed())
    await settled()
    assert not changed.done()
    changed.cancel()
    store.asked.clear()
    assert len(await dispatcher.look(2, ())) == 2
    assert store.asked == ["due"]
    # Behind a look that found something another one may find more; who has no use for what it found does not look all the time.
    changed = asyncio.ensure_future(dispatcher.changed())
    await settled()
    assert not changed.done()
    await shop.clock.advance(timedelta(seconds=1))
    assert changed.done()
    dispatcher.close()


async def test_a_run_that_becomes_due_while_it_is_asked_when_to_look_again_is_found(shop: Shop) -> None:
    class Late(Asked):
        async def next_due(self) -> int:
            await shop.submit()
            return await super().next_due()

    dispatcher = StoreDispatcher(Late(database=shop.database, now=shop.clock.now), ["shop"], shop.clock)
    assert len(await dispatcher.look(5, ())) == 1
    dispatcher.close()


async def test_its_observers_see_every_checkpoint_of_the_runs_it_drives(shop: Shop) -> None:
    seen: list[tuple[str, str]] = []
    run_ids = await shop.submit(2)
    worker = Worker(
        shop.graph, store=shop.store(), clock=shop.clock, observers=[lambda done: seen.append((done.row.run_id, done.row.kind))]
    )
    await worker.run(until_idle=True)
    assert sorted(seen) == sorted((run_id, kind) for run_id in run_ids for kind in ("step", "barrier"))


# --- draining -------------------------------------------------------------------------------------------------------
async def test_a_drained_worker_lets_bodies_finish_takes_nothing_new_and_gives_back(shop: Shop, begin: Any) -> None:
    shop.is_open.clear()
    first = await shop.submit(2)
    worker = shop.worker(concurrency=2)
    working = begin(worker)
    await settled()
    worker.drain()
    (late,) = await shop.submit()
    await settled()
    assert [await shop.status(run_id) for run_id in first] == ["draining"] * 2
    assert not working.done()
    shop.is_open.set()
    await working
    assert [await shop.status(run_id) for run_id in [*first, late]] == ["waiting", "waiting", "created"]
    assert shop.entered == [0, 1]
    assert [report.text for report in shop.said("draining")] == ["2 in flight"]


async def test_what_does_not_finish_in_time_is_given_back_and_run_again_elsewhere(shop: Shop, begin: Any) -> None:
    shop.is_open.clear()
    (run_id,) = await shop.submit()
    worker = shop.worker(drain=timedelta(seconds=5))
    working = begin(worker)
    await settled()
    worker.drain()
    await shop.clock.advance(timedelta(seconds=6))
    await working
    assert await shop.status(run_id) == "ready"
    assert (await shop.store().run(run_id)).owner is None
    shop.is_open.set()
    await shop.worker().run(until_idle=True)
    assert (await shop.status(run_id), shop.entered) == ("waiting", [0, 0])


async def test_said_twice_it_leaves_at_once(shop: Shop, begin: Any) -> None:
    shop.is_open.clear()
    (run_id,) = await shop.submit()
    worker = shop.worker(drain=timedelta(hours=1))
    working = begin(worker)
    await settled()
    worker.drain()
    await settled()
    assert not working.done()
    worker.drain(timedelta(0))
    await settled()
    await working
    assert await shop.status(run_id) == "ready"


async def test_a_cancelled_worker_gives_its_runs_back(shop: Shop) -> None:
    shop.is_open.clear()
    (run_id,) = await shop.submit()
    working = asyncio.create_task(shop.worker().run())
    await settled()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await shop.status(run_id) == "ready"


async def test_a_store_that_fails_over_one_run_while_it_drains_stops_no_other(shop: Shop, begin: Any) -> None:
    class Blinking(MemoryCheckpointStore):
        fails_over = ""

        async def load(self, run_id: str, upto: int | None = None) -> Any:
            if run_id == self.fails_over:
                raise StoreUnavailableError(self.url, "it is away")
            return await super().load(run_id, upto)

    doors = [asyncio.Event(), asyncio.Event()]

    async def work(state: Any) -> None:
        await doors[state["n"]].wait()

    graph = Flow("doors", STATE).add_node("work", work).set_entry("work").add_edge("work", END).compile()
    quick, slow = await shop.submit(2, graph)
    store = Blinking(database=shop.database, now=shop.clock.now)
    worker = shop.worker(store, graph=graph, drain=timedelta(seconds=5))
    working = begin(worker)
    await settled()
    worker.drain()
    store.fails_over = quick
    doors[0].set()
    await settled()
    assert [await shop.status(run_id) for run_id in (quick, slow)] == ["completed", "draining"]
    await shop.clock.advance(timedelta(seconds=6))
    await working
    assert await shop.status(slow) == "ready"


async def test_what_it_gave_back_and_another_took_at_once_keeps_it_no_longer(shop: Shop, begin: Any) -> None:
    class Slow(MemoryCheckpointStore):
        is_slow = False

        async def inbox(self, run_id: str) -> Any:
            await taking.wait()
            return await super().inbox(run_id)

        async def run(self, run_id: str) -> RunRecord:
            if self.is_slow:
                await settled()
            return await super().run(run_id)

    taking = asyncio.Event()
    shop.is_open.clear()
    (run_id,) = await shop.submit()
    store = Slow(database=shop.database, now=shop.clock.now)
    worker = shop.worker(store)
    working = begin(worker)
    await settled()
    begin(shop.worker())
    worker.drain()
    store.is_slow = True
    taking.set()
    for _ in range(10):
        await settled()
    assert (await shop.status(run_id), shop.in_flight) == ("running", 1)
    assert working.done()
    await working


async def test_a_drive_that_somebody_cancelled_keeps_no_place(shop: Shop, begin: Any) -> None:
    shop.is_open.clear()
    run_ids = await shop.submit(2)
    begin(shop.worker(concurrency=1))
    await settled()
    (driving,) = (task for task in asyncio.all_tasks() if task.get_name().startswith("trailmark run "))
    driving.cancel()
    shop.is_open.set()
    await settled()
    assert [await shop.status(run_id) for run_id in run_ids] == ["waiting"] * 2


# --- quarantine -----------------------------------------------------------------------------------------------------
async def crash(shop: Shop, run_id: str) -> None:
    """A process takes the run up as a worker does, and dies in the middle of its first body."""
    shop.is_open.clear()
    store = shop.store()
    worker = shop.worker(store)
    working = asyncio.create_task(worker.run())
    await settled()
    while (await store.run(run_id)).owner != store.worker_id:
        await shop.clock.advance(timedelta(seconds=1))
    held = shop.database.runs[run_id]
    worker.drain(timedelta(0))
    record, rows, times, epoch = held.record, list(held.rows), list(held.times), held.epoch
    await working
    # As if the process had died instead: nothing it did at the end was ever done.
    held.record, held.rows, held.times, held.epoch = record, rows, times, epoch
    shop.database.workers.pop(store.worker_id, None)
    shop.is_open.set()


async def test_a_run_that_is_taken_up_in_vain_again_and_again_is_quarantined(shop: Shop) -> None:
    (run_id,) = await shop.submit()
    for taken in range(1, 5):
        await crash(shop, run_id)
        assert await recoveries(shop.store(), await shop.store().run(run_id)) == taken
    (other,) = await shop.submit()
    await shop.worker(max_recoveries=3).run(until_idle=True)
    assert (await shop.status(run_id), await shop.status(other)) == ("quarantined", "waiting")
    assert [report.run_id for report in shop.said("quarantined")] == [run_id]
    lines = [line async for line in steps(shop.store(), run_id)]
    assert lines[-1].row.kind == "quarantined"
    assert "3 recoveries in a row got nowhere" in lines[-1].detail
    await shop.worker().run(until_idle=True)
    assert await shop.status(run_id) == "quarantined", "nobody takes it by itself"
    assert await shop.store().verify(run_id) == []


async def test_progress_wipes_out_what_was_counted(shop: Shop) -> None:
    (run_id,) = await shop.submit()
    for _ in range(3):
        await crash(shop, run_id)
    await shop.worker(max_recoveries=3).run(until_idle=True)
    assert await shop.status(run_id) == "waiting"
    assert await recoveries(shop.store(), await shop.store().run(run_id)) == 0


async def test_a_quarantined_run_goes_on_when_somebody_releases_it(shop: Shop) -> None:
    (run_id,) = await shop.submit()
    for _ in range(3):
        await crash(shop, run_id)
    await shop.worker(max_recoveries=2).run(until_idle=True)
    assert await shop.status(run_id) == "quarantined"
    record = await release_run(shop.store(), run_id, actor="ana", reason="memory doubled", clock=shop.clock)
    assert (record.status, record.owner) == ("ready", None)
    assert [line.detail async for line in steps(shop.store(), run_id)][-1] == "released by ana: memory doubled"
    await shop.worker().run(until_idle=True)
    assert await shop.status(run_id) == "waiting"
    assert await shop.store().verify(run_id) == []


async def test_only_what_stands_still_can_be_released(shop: Shop) -> None:
    (run_id,) = await shop.submit()
    with pytest.raises(IllegalTransitionError, match=run_id):
        await release_run(shop.store(), run_id, actor="ana", reason="", clock=shop.clock)
    assert await shop.status(run_id) == "created"
    await GraphExecutor(shop.graph, store=shop.store(), clock=shop.clock).cancel(run_id, by="ana")
    with pytest.raises(IllegalTransitionError):
        await release_run(shop.store(), run_id, actor="ana", reason="", clock=shop.clock)


# --- a store that is away, words that are wrong ---------------------------------------------------------------------
class Moody(MemoryCheckpointStore):
    is_away = False
    asked = 0

    async def due(self, **options: Any) -> list[RunRecord]:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailableError(self.url, "it is away")
        return await super().due(**options)


async def test_while_the_store_is_away_it_asks_less_and_less_and_goes_on_after(shop: Shop, begin: Any) -> None:
    store = Moody(database=shop.database, now=shop.clock.now)
    store.is_away = True
    begin(shop.worker(store))
    await shop.clock.advance(timedelta(minutes=1))
    assert store.asked <= 8, "1, 2, 4, 8, 16, 30 seconds between"
    (run_id,) = await shop.submit()
    store.is_away = False
    await shop.clock.advance(timedelta(minutes=2))
    assert await shop.status(run_id) == "waiting"
    assert (len(shop.said("store_away")), len(shop.said("store_back"))) == (1, 1)


class Stuck(MemoryCheckpointStore):
    """Its commits and releases fail while it is away; it stays alive for the others."""

    is_away = False

    async def commit(self, commit: Any) -> Any:
        if self.is_away:
            raise StoreUnavailableError(self.url, "it is away")
        return await super().commit(commit)

    async def release(self, run_id: str, epoch: int) -> None:
        if self.is_away:
            raise StoreUnavailableError(self.url, "it is away")
        await super().release(run_id, epoch)


async def test_a_run_that_could_not_be_given_back_is_taken_up_by_the_same_worker(shop: Shop, begin: Any) -> None:
    shop.is_open.clear()
    store = Stuck(database=shop.database, now=shop.clock.now)
    (run_id,) = await shop.submit()
    begin(shop.worker(store))
    await settled()
    store.is_away = True
    shop.is_open.set()
    await settled()
    assert (await shop.store().run(run_id)).owner == store.worker_id
    assert [report.run_id for report in shop.said("left_alone")] == [run_id]
    store.is_away = False
    await shop.clock.advance(timedelta(seconds=2))
    assert await shop.status(run_id) == "waiting"


class Forgetful(Stuck):
    """Tells of single runs, and for a while not of what is due."""

    is_half_away = False

    async def due(self, **options: Any) -> list[RunRecord]:
        if self.is_half_away:
            raise StoreUnavailableError(self.url, "it is half away")
        return await super().due(**options)


@pytest.mark.parametrize("comes_back", ["bit by bit", "with a suspect"])
async def test_a_run_that_could_not_be_given_back_is_not_forgotten_when_the_store_comes_back(
    shop: Shop, begin: Any, comes_back: str
) -> None:
    shop.is_open.clear()
    store = Forgetful(database=shop.database, now=shop.clock.now)
    run_ids = await shop.submit()
    begin(shop.worker(store))
    await settled()
    store.is_away = store.is_half_away = True
    shop.is_open.set()
    await settled()
    assert (await shop.store().run(run_ids[0])).owner == store.worker_id
    store.is_away = False
    if comes_back == "bit by bit":
        await shop.clock.advance(timedelta(seconds=2))
    else:
        run_ids += await shop.submit()
        await shop.store().acquire(run_ids[1], details={RECOVERIES: 1})  # and dies: it takes its lease with it
        shop.database.workers.pop((await shop.store().run(run_ids[1])).owner)
    store.is_half_away = False
    await shop.clock.advance(timedelta(minutes=2))
    assert [await shop.status(run_id) for run_id in run_ids] == ["waiting"] * len(run_ids)


async def test_who_listens_and_raises_is_told_nothing_more_and_stops_nothing(shop: Shop) -> None:
    def listen(report: Report) -> None:
        raise RuntimeError("deaf")

    (run_id,) = await shop.submit()
    with pytest.warns(UserWarning, match="deaf"):
        await Worker(shop.graph, store=shop.store(), clock=shop.clock, report=listen).run(until_idle=True)
    assert await shop.status(run_id) == "waiting"


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"max_recoveries": 1}, {"drain": timedelta(-1)}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Worker(Shop().graph, store=MemoryCheckpointStore(), **wrong)


def test_the_flows_may_come_one_by_one_several_at_once_or_with_names(shop: Shop) -> None:
    flow = shop.flow()
    assert graphs_of(flow) == graphs_of([flow]) == graphs_of({"any": flow}) or set(graphs_of(flow)) == {"shop"}
    for wrong in ([], ["shop"], 3):
        with pytest.raises((ArgumentError, TypeError)):
            graphs_of(wrong)  # type: ignore[arg-type]


async def test_a_decision_lets_a_worker_go_on(shop: Shop, begin: Any) -> None:
    (run_id,) = await shop.submit()
    begin(shop.worker())
    await settled()
    await shop.store().decide(run_id, "sign", Decision.approve(by="ana"))
    await settled()
    assert await shop.status(run_id) == "completed"
    with pytest.raises(RunEndedError):
        await shop.store().request_cancel(run_id, actor="ana")


async def test_what_a_quarantined_run_tells_says_why_it_stopped(shop: Shop) -> None:
    (run_id,) = await shop.submit()
    for _ in range(3):
        await crash(shop, run_id)
    await shop.worker(max_recoveries=2).run(until_idle=True)
    executor = GraphExecutor(shop.graph, store=shop.store(), clock=shop.clock)
    told = [envelope.event async for envelope in executor.events(run_id, follow=False)]
    assert (told[-1].kind, "2 recoveries in a row" in getattr(told[-1], "detail", "")) == ("suspended", True)
