"""The kit that flows are tested with: a clock that stands still, processes that die, runs that forget."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

import trailmark.testing
from checkpoint_stores.errors import LeaseHeldError
from checkpoint_stores.memory import MemoryCheckpointStore
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.plan import END, Retry
from reducers.builtin import append
from trailmark.testing import Death, Process, SimulatedCrash, VirtualClock, always_reload, crash_at_every_checkpoint

STATE = {"n": int, "log": Annotated[list[str], append]}
START: dict[str, Any] = {"n": 0, "log": []}


def flow(body: Any, name: str = "flow") -> Flow:
    made = Flow(name, STATE).add_node("first", body).add_node("second", body)
    return made.set_entry("first").add_edge("first", "second").add_edge("second", END)


async def steady(state: Any, ctx: Any) -> dict[str, Any]:
    return {"n": state["n"] + 1, "log": [ctx.node]}


def test_every_name_of_the_kit_is_there() -> None:
    for name in trailmark.testing.__all__:
        assert getattr(trailmark.testing, name).__doc__


# --- time -------------------------------------------------------------------------------------------------------------
async def test_timers_ring_in_order_and_at_their_own_time() -> None:
    clock = VirtualClock(datetime(2030, 1, 1, tzinfo=UTC))
    rung: list[tuple[str, int]] = []
    begin = clock.now()
    for name, seconds in (("late", 9), ("early", 1), ("also early", 1)):
        clock.call_at(begin + seconds * 1_000_000, lambda name=name: rung.append((name, clock.now() - begin)))  # type: ignore[misc]
    clock.call_at(begin + 2_000_000, lambda: rung.append(("taken back", 0))).cancel()
    await clock.advance(timedelta(seconds=5))
    assert rung == [("early", 1_000_000), ("also early", 1_000_000)]
    assert (clock.until_next(), clock.time) == (timedelta(seconds=4), datetime(2030, 1, 1, 0, 0, 5, tzinfo=UTC))
    await clock.advance(timedelta(seconds=4))
    assert (rung[-1], clock.until_next()) == (("late", 9_000_000), None)


async def test_a_timer_set_by_a_timer_rings_within_the_same_advance() -> None:
    clock = VirtualClock()
    rung: list[int] = []

    def again() -> None:
        rung.append(clock.now())
        clock.call_at(clock.now() + 60_000_000, again)

    clock.call_at(clock.now() + 60_000_000, again)
    await clock.advance(timedelta(hours=1))
    assert len(rung) == 60


async def test_what_is_due_already_rings_without_any_time_passing() -> None:
    clock = VirtualClock()
    rung = asyncio.Event()
    clock.call_at(clock.now(), rung.set)
    await rung.wait()


async def test_waiting_for_a_timer_tells_how_long_it_will_take() -> None:
    clock = VirtualClock()
    waiting = asyncio.create_task(clock.wait_for_timer())
    await clock.advance(timedelta(seconds=1))
    assert not waiting.done()
    clock.call_at(clock.now() + 5_000_000, lambda: None)
    assert await waiting == timedelta(seconds=5)


async def test_time_never_goes_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        await VirtualClock().advance(timedelta(seconds=-1))


# --- processes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("moment", "committed"), [("before", 1), ("after", 2)])
async def test_a_process_dies_at_its_commit_and_its_lease_outlives_it(moment: Any, committed: int) -> None:
    store = MemoryCheckpointStore()
    process = Process(store, Death(2, moment))
    handle = await GraphExecutor(flow(steady).compile(), store=process.store).start(START)
    with pytest.raises(SimulatedCrash, match=f"{moment} commit 2"):
        await handle.result()
    assert len([row async for row in store.history(handle.run_id)]) == len(process.commits) == committed
    assert (await store.run(handle.run_id)).owner == store.worker_id
    other = MemoryCheckpointStore(database=store.database)
    with pytest.raises(LeaseHeldError):
        await GraphExecutor(flow(steady).compile(), store=other).resume(handle.run_id)


# --- crashing everywhere ----------------------------------------------------------------------------------------------
async def test_a_flow_that_keeps_everything_in_its_state_survives_every_crash() -> None:
    inner = Flow("inner").add_node("deep", steady).add_barrier("review", timeout=timedelta(days=1), on_timeout="skip").set_entry("deep")
    inner.add_edge("deep", "review").add_edge("review", END)

    async def other(state: Any) -> dict[str, Any]:
        return {"log": ["other"]}

    async def flaky(state: Any, ctx: Any) -> dict[str, Any]:
        if ctx.attempt < 3:
            raise ConnectionError("no")
        return {"log": [f"attempt {ctx.attempt}"]}

    made = Flow("everything", STATE).add_node("flaky", flaky, retry=Retry(attempts=3, first=timedelta(minutes=3)))
    made.add_parallel("fan", [inner, other]).add_barrier("last").set_entry("fan")
    made.add_edge("fan", "flaky").add_edge("flaky", "last").add_edge("last", END)
    report = await crash_at_every_checkpoint(made, START, decisions={"last": [Decision.approve(by="ana")]})
    assert (report.result.status, report.result.values["log"]) == ("completed", ["deep", "other", "attempt 3"])
    assert report.crashes == 2 * report.commits > 12
    result = await always_reload(made, START, decisions={"last#1": Decision.approve(by="ana")})
    assert (result.values, result.steps) == (report.result.values, report.result.steps)


async def test_a_flow_that_keeps_something_in_memory_is_found_out_with_a_story() -> None:
    calls: list[str] = []

    async def forgetful(state: Any, ctx: Any) -> dict[str, Any]:
        calls.append(ctx.run_id)
        return {"n": calls.count(ctx.run_id), "log": [ctx.node]}

    with pytest.raises(AssertionError) as found:
        await crash_at_every_checkpoint(flow(forgetful), START)
    story = str(found.value)
    assert story.splitlines()[0] == "a crash before commit 2 of 3 made a difference:"
    assert "  values['n']: 2 without the crash, 3 with it" in story
    assert "the crashed run committed:" in story
    assert "step       first -> second  (epoch 2)" in story


async def test_a_flow_whose_way_depends_on_memory_is_found_out_by_its_checkpoints() -> None:
    calls: list[str] = []

    async def moody(state: Any, ctx: Any) -> None:
        calls.append(ctx.run_id)
        if calls.count(ctx.run_id) == 2 and ctx.node == "second":
            raise ValueError("bad mood")

    with pytest.raises(AssertionError, match=r"status: 'failed' without the crash, 'completed' with it") as found:
        await crash_at_every_checkpoint(flow(moody), START)
    assert "committed 0 time(s) without the crash, 1 time(s) with it: step of second -> the end" in str(found.value)


async def test_a_run_that_waits_for_somebody_the_test_does_not_play_ends_there() -> None:
    made = Flow("asks", STATE).add_barrier("review").set_entry("review").add_edge("review", END)
    report = await crash_at_every_checkpoint(made, START)
    assert (report.result.status, report.result.waiting_for) == ("waiting", ("review#1",))
    assert (await always_reload(made, START)).waiting_for == ("review#1",)


async def test_a_run_that_fails_or_reaches_its_limit_does_so_after_every_crash_too() -> None:
    async def fail(state: Any) -> None:
        raise ValueError("always")

    report = await crash_at_every_checkpoint(flow(fail), START)
    assert (report.result.status, report.result.error and report.result.error["message"]) == ("failed", "always")
    with pytest.raises(RunFailedError, match="always"):
        await always_reload(flow(fail), START)
    assert (await crash_at_every_checkpoint(flow(steady), START, max_steps=1)).result.status == "limit_reached"
    assert (await always_reload(flow(steady), START, max_steps=1)).status == "limit_reached"


async def test_reloading_starts_every_node_in_a_process_of_its_own() -> None:
    seen: list[int] = []

    async def note(state: Any, ctx: Any) -> None:
        seen.append(ctx.run_attempt)

    result = await always_reload(flow(note), START)
    assert (seen, result.attempt) == ([2, 3], 3)
