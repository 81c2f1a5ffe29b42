"""The life of a run: its table of statuses, how it is left for others, stopped, watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, TypeVar, get_args

import pytest
import sqlalchemy as sa

from checkpoint_stores import statuses
from checkpoint_stores.errors import IllegalTransitionError, LeaseHeldError, RunEndedError, RunMovedError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.records import DRIVEN, ENDED, STOPPED, UNDRIVEN, Lease, Receipt, Resumption, RunStatus
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.context import StepContext
from engine.decisions import Decision
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.handle import RunHandle
from engine.loading import load_state
from engine.plan import END, Retry
from reducers.builtin import append
from trailmark.testing import VirtualClock
from trailmark.testing.clock import settled

T = TypeVar("T")

STATE = {"log": Annotated[list[str], append]}


class Stage:
    """Two nodes, the first of which begins and ends when the test says so, and a barrier behind them."""

    def __init__(self, *, barrier: bool = False) -> None:
        self.entered = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ran: list[str] = []
        flow = Flow("stage", STATE)
        flow.add_node("first", self.first)
        flow.add_node("second", self.second)
        flow.set_entry("first")
        flow.add_edge("first", "second")
        if barrier:
            flow.add_barrier("sign")
            flow.add_edge("second", "sign").add_edge("sign", END)
        else:
            flow.add_edge("second", END)
        self.graph = flow.compile()
        self.database = MemoryDatabase()
        self.clock = VirtualClock()

    async def first(self, state: Any) -> dict[str, Any]:
        self.ran.append("first")
        self.entered.set()
        await self.may_end.wait()
        return {"log": ["first"]}

    async def second(self, state: Any) -> dict[str, Any]:
        self.ran.append("second")
        return {"log": ["second"]}

    def store(self) -> MemoryCheckpointStore:
        return MemoryCheckpointStore(database=self.database, now=self.clock.now)

    def executor(self, store: MemoryCheckpointStore | None = None) -> GraphExecutor:
        return GraphExecutor(self.graph, store=store or self.store(), clock=self.clock)

    async def under_way(self) -> tuple[GraphExecutor, RunHandle]:
        executor = self.executor()
        handle = await executor.start({"log": []})
        await self.entered.wait()
        return executor, handle


# --- the table ------------------------------------------------------------------------------------------------------
def test_every_status_and_every_event_stands_in_the_table() -> None:
    assert set(statuses.EVENTS_IN) == set(get_args(RunStatus))
    assert set(statuses.LEADS_TO) == set(get_args(statuses.RunEvent))
    assert {event for events in statuses.EVENTS_IN.values() for event in events} == set(get_args(statuses.RunEvent))


def test_what_has_ended_stays_so_and_all_else_can_be_taken() -> None:
    assert {status for status, events in statuses.EVENTS_IN.items() if not events} == ENDED
    assert all("take" in events for status, events in statuses.EVENTS_IN.items() if status not in ENDED)
    assert {*ENDED, *STOPPED, *DRIVEN, *UNDRIVEN} == set(get_args(RunStatus))


def test_every_status_but_created_can_be_reached_and_every_one_leads_to_an_end() -> None:
    reached = {statuses.LEADS_TO[event] for events in statuses.EVENTS_IN.values() for event in events}
    assert reached == set(get_args(RunStatus)) - {"created"}
    assert all(statuses.LEADS_TO[event] == status for status, event in statuses.EVENT_FOR.items())


@pytest.mark.parametrize("status", get_args(RunStatus))
def test_an_illegal_event_is_a_typed_error_that_says_what_is_possible(status: RunStatus) -> None:
    for event in get_args(statuses.RunEvent):
        if event in statuses.EVENTS_IN[status]:
            assert statuses.after(status, event) == statuses.LEADS_TO[event]
        else:
            with pytest.raises(IllegalTransitionError) as caught:
                statuses.after(status, event, "a-run")
            assert (caught.value.status, caught.value.event, caught.value.run_id) == (status, event, "a-run")


# --- submitting and starting ----------------------------------------------------------------------------------------
async def test_a_submitted_run_is_created_and_driven_by_whoever_takes_it() -> None:
    stage = Stage()
    stage.may_end.set()
    run_id = await stage.executor().submit({"log": []}, run_key="k", labels={"team": "a"})
    store = stage.store()
    record = await store.run(run_id)
    assert (record.status, record.owner, record.attempt, record.labels) == ("created", None, 0, {"team": "a"})
    assert [due.run_id for due in await store.due()] == [run_id]
    result = await stage.executor(store).resume(run_id)
    assert (result.status, result.attempt, result.values) == ("completed", 1, {"log": ["first", "second"]})
    assert await store.verify(run_id) == []


async def test_what_is_said_of_a_submitted_run_counts_when_somebody_takes_it() -> None:
    stage = Stage()
    stage.may_end.set()
    named = "01890000-0000-7000-8000-000000000001"
    run_id = await stage.executor().submit({"log": []}, run_id=named, tenant="acme", max_steps=1, capabilities={"pay"})
    assert run_id == named
    store = stage.store()
    assert ((await store.run(run_id)).tenant, await store.runs()) == ("acme", [])
    result = await stage.executor(store).resume(run_id)
    assert (result.status, result.steps) == ("limit_reached", 1)
    assert (await load_state(store, run_id)).details["capabilities"] == ["pay"]


async def test_a_run_nobody_has_taken_tells_its_status() -> None:
    stage = Stage()
    executor = stage.executor()
    handle = executor.open(await executor.submit({"log": []}))
    assert ((await handle.result()).status, handle.done()) == ("created", True)


async def test_starting_is_idempotent() -> None:
    stage = Stage()
    executor = stage.executor()
    handle = executor.open(await executor.submit({"log": []}))
    assert await handle.start() == "started"
    assert await handle.wait_ready() == "running"
    assert await handle.start() == "already_running"
    assert await stage.executor().open(handle.run_id).start() == "already_running", "elsewhere"
    stage.may_end.set()
    assert (await handle.result()).status == "completed"
    assert await handle.start() == "rejected"
    assert stage.ran == ["first", "second"]


async def test_a_run_taken_since_it_was_read_is_not_taken_again() -> None:
    stage = Stage(barrier=True)
    stage.may_end.set()
    executor = stage.executor()
    run_id = await executor.submit({"log": []})
    before = await stage.store().run(run_id)
    assert (await executor.resume(run_id)).status == "waiting"
    with pytest.raises(LeaseHeldError):
        await stage.executor().attach(run_id, as_of=before)
    assert (await stage.store().run(run_id)).attempt == 1


async def test_what_is_said_with_a_taking_is_recorded_with_it() -> None:
    stage = Stage()
    stage.may_end.set()
    executor = stage.executor()
    run_id = await executor.submit({"log": []})
    handle = await executor.attach(run_id, max_steps=1, capabilities={"pay"}, note={"shift": "night"})
    result = await handle.result()
    assert (result.status, result.steps) == ("limit_reached", 1)
    details = (await load_state(executor.store, run_id)).details
    assert (details["shift"], details["capabilities"], details["max_steps"]) == ("night", ["pay"], 1)


class Interrupted(MemoryCheckpointStore):
    """A store whose owner is held up for a moment between reading a run and taking it."""

    meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def acquire(self, run_id: str, **options: Any) -> Lease:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super().acquire(run_id, **options)

    async def take_up(self, resumption: Resumption) -> Receipt:
        raise RunMovedError(resumption.commit.run_id)  # it is always taken the long way


@pytest.mark.parametrize("how", ["create", "acquire", "take_up"])
async def test_a_run_whose_taker_is_cancelled_before_the_answer_is_left_to_others(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    stage = Stage()
    store, other = stage.store(), stage.store()
    answered, may_be_told = asyncio.Event(), asyncio.Event()
    real = getattr(store, how)

    async def slow(*args: Any, **options: Any) -> Any:
        lease = await real(*args, **options)
        answered.set()
        await may_be_told.wait()
        return lease

    monkeypatch.setattr(store, how, slow)
    executor = stage.executor(store)
    if how != "create":
        run_id = await executor.submit({"log": []})
        takes = asyncio.create_task(executor.resume(run_id, takeover=how == "acquire"))
    else:
        takes = asyncio.create_task(executor.execute({"log": []}))
    await answered.wait()
    takes.cancel()
    await settled()
    may_be_told.set()
    await asyncio.wait([takes])
    assert takes.cancelled()
    (run,) = await other.runs()
    assert (run.status, run.owner, store.holds(run.run_id), executor.is_driving(run.run_id)) == ("ready", None, False, False)
    stage.may_end.set()
    assert (await stage.executor(other).resume(run.run_id)).status == "completed"


async def test_who_suspends_a_run_between_its_being_read_and_taken_has_suspended_it() -> None:
    stage = Stage()
    person = stage.executor()
    run_id = await person.submit({"log": []})
    store = Interrupted(database=stage.database, now=stage.clock.now)

    async def meanwhile() -> None:
        await person.attach(run_id)
        await stage.entered.wait()
        await person.suspend(run_id, "not today")

    store.meanwhile = meanwhile
    with pytest.raises(LeaseHeldError, match="suspended meanwhile, and stays so"):
        await stage.executor(store).attach(run_id, as_of=await store.run(run_id))
    record = await store.run(run_id)
    assert (record.status, record.owner, record.wake_at) == ("suspended", None, None)
    assert await store.due() == []
    assert stage.ran == ["first"]
    stage.may_end.set()
    assert (await person.resume(run_id)).values == {"log": ["first", "second"]}
    assert await store.verify(run_id) == []


# --- stopping -------------------------------------------------------------------------------------------------------
async def test_a_stopped_run_finishes_what_is_in_flight_and_begins_nothing() -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    stopping = asyncio.create_task(handle.stop("lunch"))
    await settled()
    assert (await stage.store().run(handle.run_id)).status == "draining"
    stage.may_end.set()
    result = await stopping
    assert (result.status, result.values, stage.ran) == ("suspended", {"log": ["first"]}, ["first"])
    rows = [row async for row in stage.store().history(handle.run_id)]
    assert rows[-1].kind == "suspended"
    assert b"lunch" in rows[-1].payload
    assert (await executor.resume(handle.run_id)).values == {"log": ["first", "second"]}
    assert stage.ran == ["first", "second"]


async def test_a_stop_whose_grace_is_over_cancels_what_is_in_flight() -> None:
    stage = Stage()
    _, handle = await stage.under_way()
    stopping = asyncio.create_task(handle.stop("now", grace=timedelta(seconds=10)))
    await stage.clock.advance(timedelta(seconds=9))
    assert not stopping.done()
    await stage.clock.advance(timedelta(seconds=2))
    assert ((await stopping).status, stage.ran) == ("suspended", ["first"])


@pytest.mark.parametrize("word", ["stop", "give_back", "shutdown"])
async def test_one_run_of_many_is_left_within_the_grace_it_is_given(word: str) -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    other = await executor.start({"log": []})
    grace = timedelta(seconds=3)
    leaves = {
        "stop": lambda: executor.stop(handle.run_id, "moving house", grace=grace),
        "give_back": lambda: executor.give_back(handle.run_id, grace=grace),
        "shutdown": lambda: handle.shutdown(grace=grace),
    }
    leaving = asyncio.create_task(leaves[word]())
    await stage.clock.advance(timedelta(seconds=2))
    assert not leaving.done()
    await stage.clock.advance(timedelta(seconds=2))
    assert leaving.done()
    assert (await leaving).status == ("suspended" if word == "stop" else "ready")
    rows = [row async for row in stage.store().history(handle.run_id)]
    assert (b"moving house" in rows[-1].payload) is (word == "stop")
    assert executor.is_driving(other.run_id)
    stage.may_end.set()
    assert (await other.result()).status == "completed"


async def test_a_run_that_is_given_back_is_ready_for_the_next_one() -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    leaving = asyncio.create_task(executor.shutdown())
    await settled()
    assert not leaving.done()
    stage.may_end.set()
    await leaving
    store = stage.store()
    record = await store.run(handle.run_id)
    assert (record.status, record.owner) == ("ready", None)
    assert [due.run_id for due in await store.due()] == [handle.run_id]
    assert (await handle.result()).status == "ready"
    result = await stage.executor(store).resume(handle.run_id)
    assert (result.status, result.values, stage.ran) == ("completed", {"log": ["first", "second"]}, ["first", "second"])
    assert await store.verify(handle.run_id) == []


async def test_a_body_that_takes_too_long_is_run_again_by_the_next_one() -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    leaving = asyncio.create_task(executor.shutdown(timedelta(seconds=5)))
    await stage.clock.advance(timedelta(seconds=6))
    await leaving
    store = stage.store()
    assert (await store.run(handle.run_id)).status == "ready"
    stage.may_end.set()
    assert (await stage.executor(store).resume(handle.run_id)).values == {"log": ["first", "second"]}
    assert stage.ran == ["first", "first", "second"]


async def test_a_run_that_drains_in_another_process_is_waited_for() -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    leaving = asyncio.create_task(executor.shutdown())
    await settled()
    elsewhere = asyncio.create_task(stage.executor(stage.store()).open(handle.run_id).result())
    await settled()
    assert (await stage.store().run(handle.run_id)).status == "draining"
    assert not elsewhere.done()
    stage.may_end.set()
    await leaving
    assert (await elsewhere).status == "ready"


async def test_who_stays_with_a_parked_run_goes_on_where_the_process_dies_that_went_on() -> None:
    stage = Stage(barrier=True)
    stage.may_end.set()
    store = stage.store()
    handle = await stage.executor(store).start({"log": []})
    staying = asyncio.create_task(handle.result(through_barriers=True))
    await settled()
    other = stage.store()
    await other.acquire(handle.run_id)  # and is never heard of again
    await store.decide(handle.run_id, "sign", Decision.approve(by="ana"))
    await settled()
    assert not staying.done()
    await stage.clock.advance(timedelta(minutes=1))
    assert (await staying).status == "completed"


class OnItsWay:
    """A stage, and an executor whose store has given a lease, but not yet to whoever asked for it."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.stage.may_end.set()
        self.has_lease, self.may_come = asyncio.Event(), asyncio.Event()
        on_its_way = self

        class Slow(MemoryCheckpointStore):
            async def create(self, *asked: Any) -> Lease:
                return await on_its_way.slowly(super().create(*asked))

            async def acquire(self, *asked: Any, **options: Any) -> Lease:
                return await on_its_way.slowly(super().acquire(*asked, **options))

            async def take_up(self, resumption: Resumption) -> Receipt:
                return await on_its_way.slowly(super().take_up(resumption))

        self.store = Slow(database=self.stage.database, now=self.stage.clock.now)
        self.executor = self.stage.executor(self.store)

    async def slowly(self, taken: Awaitable[T]) -> T:
        lease = await taken
        self.has_lease.set()
        await self.may_come.wait()
        return lease

    async def coming(self, begins: str) -> asyncio.Task[RunHandle]:
        """A run that is just being taken, by ``start`` or ``attach``, or by a ``takeover``, which is never made with anything else."""
        run_id = await self.stage.executor().submit({"log": []}) if begins != "start" else ""
        attaching = partial(self.executor.attach, run_id, takeover=begins == "takeover")
        coming = asyncio.create_task(attaching() if run_id else self.executor.start({"log": []}))
        await self.has_lease.wait()
        return coming


@pytest.mark.parametrize("begins", ["start", "attach", "takeover"])
@pytest.mark.parametrize(("word", "status"), [("aclose", "suspended"), ("shutdown", "ready")])
async def test_a_run_on_its_way_to_an_executor_that_is_closed_is_not_driven(word: str, status: str, begins: str) -> None:
    on_its_way = OnItsWay()
    coming = await on_its_way.coming(begins)
    await getattr(on_its_way.executor, word)()
    on_its_way.may_come.set()
    handle = await coming
    assert (await handle.result()).status == status
    record = await on_its_way.store.run(handle.run_id)
    assert (record.status, record.owner, on_its_way.stage.ran) == (status, None, [])


@pytest.mark.parametrize("begins", ["start", "attach", "takeover"])
async def test_a_run_on_its_way_to_who_was_cancelled_is_given_back(begins: str) -> None:
    on_its_way = OnItsWay()
    coming = await on_its_way.coming(begins)
    coming.cancel()
    await settled()
    on_its_way.may_come.set()
    with pytest.raises(asyncio.CancelledError):
        await coming
    (record,) = await on_its_way.store.runs()
    assert (record.status, record.owner, on_its_way.store.holds(record.run_id)) == ("ready", None, False)
    assert (await on_its_way.stage.executor().resume(record.run_id)).status == "completed"


async def test_a_run_that_comes_to_its_end_while_it_drains_has_ended() -> None:
    flow = Flow("one", STATE)
    may_end, entered = asyncio.Event(), asyncio.Event()

    @flow.node
    async def only(state: Any) -> dict[str, Any]:
        entered.set()
        await may_end.wait()
        return {"log": ["only"]}

    flow.set_entry("only").add_edge("only", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        handle = await executor.start({"log": []})
        await entered.wait()
        stopping = asyncio.create_task(handle.stop("too late"))
        await settled()
        may_end.set()
        assert (await stopping).status == "completed"


async def test_a_parallel_node_drains_its_branches_and_begins_no_other() -> None:
    flow = Flow("wide", STATE)
    gates = {name: asyncio.Event() for name in ("a", "b", "c")}
    entered: list[str] = []

    def body(name: str) -> Any:
        async def run(state: Any) -> dict[str, Any]:
            entered.append(name)
            await gates[name].wait()
            return {"log": [name]}

        run.__name__ = name
        return run

    flow.add_parallel("all", [body(name) for name in gates], max_concurrency=2)
    flow.set_entry("all").add_edge("all", END)
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(flow.compile(), store=store)
        handle = await executor.start({"log": []})
        await settled()
        assert entered == ["a", "b"]
        leaving = asyncio.create_task(handle.shutdown())
        await settled()
        gates["a"].set()
        await settled()
        assert entered == ["a", "b"], "the place that came free is not taken any more"
        assert not leaving.done()
        gates["b"].set()
        assert (await leaving).status == "ready"
        gates["c"].set()
        result = await GraphExecutor(flow.compile(), store=store).resume(handle.run_id)
        assert (result.status, result.values, entered) == ("completed", {"log": ["a", "b", "c"]}, ["a", "b", "c"])
        assert await store.verify(handle.run_id) == []


async def test_a_run_that_waits_for_a_near_retry_is_parked_when_it_is_given_back() -> None:
    flow = Flow("again", STATE)

    @flow.node(retry=Retry(attempts=2, first=timedelta(seconds=2)))
    async def shaky(state: Any) -> dict[str, Any]:
        raise OSError("not yet")

    flow.set_entry("shaky").add_edge("shaky", END)
    clock = VirtualClock()
    store = MemoryCheckpointStore(now=clock.now)
    executor = GraphExecutor(flow.compile(), store=store, clock=clock)
    handle = await executor.start({"log": []})
    await settled()
    result = await handle.shutdown()
    record = await store.run(handle.run_id)
    assert (result.status, record.status, record.owner) == ("waiting", "waiting", None)
    assert record.wake_at is not None
    assert record.wake_at > clock.now()


@pytest.mark.parametrize("harder", ["suspend", "cancel", "abort"])
async def test_a_harder_word_overrides_a_softer_one(harder: str) -> None:
    stage = Stage()
    _, handle = await stage.under_way()
    stopping = asyncio.create_task(handle.stop("softly"))
    await settled()
    ask = {"suspend": lambda: handle.suspend("hard"), "cancel": lambda: handle.cancel(by="ana"), "abort": lambda: handle.abort("hard")}
    result = await ask[harder]()
    assert result.status == ("suspended" if harder == "suspend" else "cancelled")
    assert (await stopping).status == result.status
    assert stage.ran == ["first"]


async def test_a_softer_word_does_not_override_a_harder_one() -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    stopping = asyncio.create_task(handle.stop("for good"))
    await settled()
    leaving = asyncio.create_task(executor.shutdown(timedelta(seconds=1)))
    await stage.clock.advance(timedelta(seconds=2))
    await leaving
    assert (await stopping).status == "suspended", "it was to be suspended, and a worker must not go on with it"


@pytest.mark.parametrize("word", ["stop", "suspend", "shutdown", "cancel", "abort"])
@pytest.mark.parametrize("status", ["created", "waiting", "suspended", "completed", "cancelled"])
async def test_every_word_comes_back_in_every_status_and_may_be_said_twice(word: str, status: str) -> None:
    stage = Stage(barrier=True)
    stage.may_end.set()
    executor = stage.executor()
    handle = executor.open(await executor.submit({"log": []}))
    if status != "created":
        await executor.resume(handle.run_id)
    if status == "completed":
        await handle.decide("sign", Decision.approve(by="ana"))
        await handle.result()
    if status == "cancelled":
        await handle.cancel(by="ana")
    if status == "suspended":
        handle = executor.open(await executor.fork(handle.run_id))
    assert (await handle.result()).status == status
    said = {"cancel": {"by": "ana"}, "abort": {"reason": "why"}}.get(word, {})
    first = await asyncio.wait_for(getattr(handle, word)(**said), 10)
    assert (await asyncio.wait_for(getattr(handle, word)(**said), 10)).status == first.status
    ends = word in ("cancel", "abort") and status not in ENDED
    assert first.status == ("cancelled" if ends else status)


async def test_who_aborted_a_run_and_why_is_recorded() -> None:
    stage = Stage()
    executor, handle = await stage.under_way()
    assert (await handle.abort("no budget left")).status == "cancelled"
    rows = [row async for row in stage.store().history(handle.run_id)]
    assert b"no budget left" in rows[-1].payload
    assert executor.store.worker_id.encode() in rows[-1].payload


# --- watching -------------------------------------------------------------------------------------------------------
async def test_who_watches_sees_the_current_status_first_and_the_end_last() -> None:
    stage = Stage(barrier=True)
    executor = stage.executor()
    handle = executor.open(await executor.submit({"log": []}))
    seen: list[str] = []

    async def look() -> None:
        seen.extend([status async for status in stage.executor().open(handle.run_id).watch()])

    looking = asyncio.create_task(look())
    await settled()
    await handle.start()
    await settled()
    stage.may_end.set()
    assert await handle.wait_for("waiting") == "waiting"
    await settled()
    await handle.decide("sign", Decision.approve(by="ana"))
    await looking
    assert seen[:3] == ["created", "running", "waiting"]
    assert seen[-1] == "completed"
    assert [status async for status in handle.watch()] == ["completed"]


async def test_waiting_for_a_status_that_cannot_come_any_more_is_a_typed_error() -> None:
    stage = Stage()
    stage.may_end.set()
    executor = stage.executor()
    handle = await executor.start({"log": []})
    with pytest.raises(RunEndedError):
        await handle.wait_for("quarantined", "waiting")
    assert await handle.wait_for("completed") == "completed"


async def test_who_stops_watching_decides_nothing() -> None:
    stage = Stage()
    _, handle = await stage.under_way()
    async for status in handle.watch():
        assert status == "running"
        break
    stage.may_end.set()
    assert (await handle.result()).status == "completed"


async def test_a_run_told_to_leave_in_the_middle_of_its_last_transaction_ends_as_it_ended(sqlite_url: str) -> None:
    """What says that it drains waits behind the node's own transaction, and must not be the last word."""
    flow = Flow("ledger_to_leave", STATE)
    entered, may_end = asyncio.Event(), asyncio.Event()

    @flow.node
    async def book(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            await connection.execute(sa.text("CREATE TABLE booked (n INTEGER)"))
            entered.set()
            await may_end.wait()
        return {"log": ["booked"]}

    flow.set_entry("book").add_edge("book", END)
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(flow.compile(), store=store) as executor:
        handle = await executor.start({"log": []})
        await entered.wait()
        stopping = asyncio.create_task(handle.stop("leaving"))
        await settled()
        may_end.set()
        assert (await asyncio.wait_for(stopping, 20)).status == "completed"
        assert (await store.run(handle.run_id)).status == "completed"


async def test_a_run_told_to_leave_just_before_its_last_transaction_ends_as_it_ended(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction may be faster to the file's lock than what says that the run drains."""
    flow = Flow("ledger_to_leave", STATE)
    entered, telling, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    begun: list[bool] = []

    @flow.node
    async def book(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with ctx.transaction() as connection:
            entered.set()
            await telling.wait()
            await connection.execute(sa.text("CREATE TABLE booked (n INTEGER)"))
        return {"log": ["booked"]}

    def watched(**options: Any) -> Any:
        made: Any = transaction(**options)
        start = made._start

        def begin() -> Awaitable[None]:
            begun.append(True)
            return start()

        made._start = begin
        return made

    async def overtaken(work: Any, **within: Any) -> Any:
        if work.change is not None and work.change.status == "draining":
            telling.set()
            await settled()
            if begun:
                await ended.wait()
        receipt = await commit(work, **within)
        if within.get("within") is not None:
            ended.set()
        return receipt

    flow.set_entry("book").add_edge("book", END)
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(flow.compile(), store=store) as executor:
        await store.runs()
        transaction, commit = store.transaction, store.commit
        monkeypatch.setattr(store, "transaction", watched)
        monkeypatch.setattr(store, "commit", overtaken)
        handle = await executor.start({"log": []})
        await entered.wait()
        assert (await asyncio.wait_for(handle.stop("leaving"), 20)).status == "completed"
        assert (await store.run(handle.run_id)).status == "completed"
