"""What a run tells whoever watches it: live, from the log, slowly, late, or not to the end."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkpoint_stores.codec import unpack
from checkpoint_stores.errors import ArgumentError, CheckpointNotFoundError, RunNotFoundError, StoreUnavailableError, UnserialisableError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from engine.decisions import Decision
from engine.errors import FlowValidationError, InputError, RunFailedError, SlowConsumerError, StaleContextError, WrongFlowError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.handle import RunHandle
from engine.outcomes import Goto
from engine.plan import END, Retry
from reducers.builtin import append
from trailmark.events import BadEventIdError, Delivery, Dropped, Envelope, EventId, EventStream, block, follow, last_events, parse
from trailmark.testing import StreamChecker, VirtualClock

STATE = {"n": int, "log": Annotated[list[str], append]}
START = {"n": 0, "log": []}


def line(*nodes: Callable[..., Any], **options: Any) -> Flow:
    flow = Flow("line", STATE)
    for node in nodes:
        flow.add_node(None, node, **options)
    flow.set_entry(nodes[0])
    for node, following in zip(nodes, [*nodes[1:], END], strict=True):
        flow.add_edge(node, following)
    return flow


def fan(*branches: Any, **options: Any) -> Flow:
    flow = Flow("fanning", STATE)
    flow.add_parallel("fan", branches, **options)
    return flow.set_entry("fan").add_edge("fan", END)


def review() -> Flow:
    flow = Flow("reviewing", STATE)
    flow.add_node("before", speaks).add_node("after", silent)
    flow.add_barrier("review", prompt="{n}", show=["n"])
    return flow.set_entry("before").add_edge("before", "review").add_edge("review", "after").add_edge("after", END)


async def silent(state: Any) -> dict[str, Any]:
    return {"log": ["silent"]}


async def speaks(state: Any, ctx: Any) -> dict[str, Any]:
    ctx.emit_token("Once ")
    ctx.emit_tool_call("search", "upon")
    ctx.emit("progress", {"done": 0.5})
    ctx.emit_token("more")
    ctx.count_tokens(input=10, output=20)
    return {"log": ["spoke"]}


async def yields(state: Any) -> AsyncIterator[Any]:
    yield "a "
    yield "story"
    yield {"log": ["yielded"]}


def executor(flow: Flow, **options: Any) -> GraphExecutor:
    return GraphExecutor(flow.compile(), **{"store": MemoryCheckpointStore(), **options})


async def live(run: RunHandle, **options: Any) -> list[Envelope]:
    async with asyncio.timeout(20):
        return StreamChecker.check([envelope async for envelope in run.events(**options)], "segment")


async def log(driven: GraphExecutor, run_id: str, mode: Any = "run") -> list[Envelope]:
    return StreamChecker.check([envelope async for envelope in driven.events(run_id, follow=False)], mode)


def kinds(envelopes: list[Envelope], *, without: tuple[str, ...] = ("checkpoint_saved", "state_changed")) -> list[str]:
    return [envelope.event.kind for envelope in envelopes if envelope.event.kind not in without]


def of_kind(envelopes: list[Envelope], kind: str) -> list[Any]:
    return [envelope.event for envelope in envelopes if envelope.event.kind == kind]


def texts(envelopes: list[Envelope]) -> list[tuple[int, str]]:
    return [(token.token_index, token.content) for token in of_kind(envelopes, "step_token")]


def bare(envelopes: list[Envelope]) -> Counter[tuple[str, str]]:
    """The events without their ids, in any order."""
    return Counter((envelope.path, envelope.event.model_dump_json()) for envelope in envelopes)


class Gate:
    """Holds nodes where a test wants them."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


# --- what is told -----------------------------------------------------------------------------------------------------
async def test_a_run_tells_its_steps_in_order_and_ends_with_one_terminator() -> None:
    run = await executor(line(speaks, yields)).start(START)
    told = await live(run)
    assert kinds(told) == [
        "flow_start", "step_start", "step_token", "tool_call", "custom", "step_token", "step_complete",
        "step_start", "step_token", "step_token", "step_complete", "flow_complete",
    ]  # fmt: skip
    assert texts(told) == [(1, "Once "), (2, "more"), (3, "a "), (4, "story")]
    first, second = of_kind(told, "step_complete")
    assert (first.full_output, first.tokens_input, first.tokens_output) == ("Once more", 10, 20)
    assert (second.full_output, second.tokens_input, second.tokens_output) == ("a story", 0, 2)
    end = told[-1].event
    assert (end.success, end.steps_executed, end.tokens_input, end.tokens_output) == (True, 2, 10, 22)
    assert (await run.result()).values["log"] == ["spoke", "yielded"]


async def test_what_was_told_live_is_what_the_log_tells_for_ever() -> None:
    driven = executor(fan(speaks, yields, silent))
    run = await driven.start(START)
    told = await live(run)
    assert bare(told) == bare(await log(driven, run.run_id))


async def test_a_node_that_says_nothing_stores_nothing_of_it() -> None:
    driven = executor(line(silent))
    run = await driven.start(START)
    await live(run)
    rows = [row async for row in driven.store.history(run.run_id)]
    assert rows[1].payload == b'1[["append","log",["silent"]],["done"],["status","completed"]]'


async def test_a_failed_run_closes_its_step_and_masks_secrets() -> None:
    async def pay(state: Any) -> None:
        raise ConnectionError("no route to https://ana:hunter2@bank/?token=abc")

    driven = executor(line(pay))
    run = await driven.start(START)
    told = await live(run)
    assert kinds(told) == ["flow_start", "step_start", "step_complete", "flow_error"]
    assert not of_kind(told, "step_complete")[0].success
    assert told[-1].event.error == "node 'pay': ConnectionError: no route to https://ana:***@bank/?token=***"
    assert bare(told) == bare(await log(driven, run.run_id))


async def test_a_fallback_is_told_as_degraded_and_the_step_as_failed() -> None:
    async def pay(state: Any) -> None:
        raise ConnectionError("bank down")

    flow = line(pay)
    flow.add_node("later", silent).add_fallback("pay", "later").add_edge("later", END)
    run = await executor(flow).start(START)
    told = await live(run)
    assert kinds(told) == ["flow_start", "step_start", "degraded", "step_complete", "step_start", "step_complete", "flow_complete"]
    assert of_kind(told, "degraded")[0].fallback == "later"
    assert [complete.success for complete in of_kind(told, "step_complete")] == [False, True]


async def test_every_attempt_is_heard_and_the_token_index_goes_on() -> None:
    async def flaky(state: Any, ctx: Any) -> None:
        ctx.emit_token(f"attempt {ctx.attempt}")
        if ctx.attempt < 3:
            raise TimeoutError("slow")

    driven = executor(line(flaky, retry=Retry(attempts=3, first=timedelta(0))))
    run = await driven.start(START)
    told = await live(run)
    assert kinds(told) == [
        "flow_start", "step_start", "step_token", "retrying", "step_token", "retrying", "step_token", "step_complete", "flow_complete",
    ]  # fmt: skip
    assert texts(told) == [(1, "attempt 1"), (2, "attempt 2"), (3, "attempt 3")]
    assert [retrying.attempt for retrying in of_kind(told, "retrying")] == [2, 3]
    assert of_kind(told, "step_complete")[0].full_output == "attempt 3"
    assert told[-1].event.tokens_output == 3
    assert bare(told) == bare(await log(driven, run.run_id))


async def test_branches_are_told_with_their_path_and_their_own_step_index() -> None:
    driven = executor(fan(speaks, yields))
    run = await driven.start(START)
    told = await live(run)
    starts = {(envelope.path, envelope.event.step_index) for envelope in told if envelope.event.kind == "step_start"}
    assert starts == {("", 0), ("fan[0]", 1), ("fan[1]", 2)}
    assert of_kind(told, "merged")[0].branches == ["fan[0]", "fan[1]"]
    assert kinds(told)[-3:] == ["merged", "step_complete", "flow_complete"]


async def test_the_end_counts_what_branches_did_as_well() -> None:
    run = await executor(fan(speaks, yields, line(silent, speaks))).start(START)
    end = (await live(run))[-1].event
    assert (end.kind, end.steps_executed, end.tokens_input, end.tokens_output) == ("flow_complete", 5, 20, 42)


async def test_the_branch_that_begins_first_and_ends_last_keeps_its_index() -> None:
    gate = Gate()

    async def slow(state: Any) -> None:
        await gate()

    async def quick(state: Any) -> None:
        await gate.reached.wait()

    async def opens(state: Any) -> None:
        gate.open.set()

    flow = fan(slow, line(quick, opens))
    driven = executor(flow)
    run = await driven.start(START)
    told = await live(run)
    indices = {start.step_name: start.step_index for start in of_kind(told, "step_start")}
    assert indices == {"fan": 0, "slow": 1, "quick": 2, "opens": 3}
    stored = {start.step_name: start.step_index for start in of_kind(await log(driven, run.run_id), "step_start")}
    assert stored == indices


async def test_a_sibling_that_is_cancelled_closes_its_step_too() -> None:
    gate = Gate()

    async def waits(state: Any, ctx: Any) -> None:
        ctx.emit_token("I am")
        await gate()

    async def fails(state: Any) -> None:
        await gate.reached.wait()
        raise ValueError("no")

    run = await executor(fan(waits, fails)).start(START)
    told = await live(run)
    completes = {complete.step_name: (complete.success, complete.full_output) for complete in of_kind(told, "step_complete")}
    assert completes == {"waits": (False, "I am"), "fails": (False, ""), "fan": (False, "")}
    assert told[-1].event.kind == "flow_error"


async def test_items_of_a_map_and_a_flow_in_a_flow_are_told_like_branches() -> None:
    async def spell(item: str) -> AsyncIterator[Any]:
        yield item
        yield item.upper()
        yield len(item)

    inner = Flow("inner", STATE).add_node("speaks", speaks).set_entry("speaks").add_edge("speaks", END)
    flow = Flow("outer", {**STATE, "words": list[str], "sizes": list[int]})
    flow.add_map("spell", "words", spell, to="sizes").add_subflow("tell", inner)
    flow.set_entry("spell").add_edge("spell", "tell").add_edge("tell", END)
    driven = executor(flow)
    run = await driven.start({**START, "words": ["a", "bc"]})
    told = await live(run)
    starts = {(envelope.path, envelope.event.step_type) for envelope in told if envelope.event.kind == "step_start"}
    assert starts == {("", "map"), ("spell[0]", "task"), ("spell[1]", "task"), ("", "subflow"), ("tell[0]", "task")}
    assert [started.branches for started in of_kind(told, "parallel_started")] == [["spell[0]", "spell[1]"], ["tell[0]"]]
    assert sorted(complete.full_output for complete in of_kind(told, "step_complete")) == ["", "", "Once more", "aA", "bcBC"]
    assert (await run.result()).values["sizes"] == [1, 2]
    assert bare(told) == bare(await log(driven, run.run_id))


# --- endings ----------------------------------------------------------------------------------------------------------
async def test_a_run_cancelled_before_it_begins_tells_nothing() -> None:
    driven = executor(line(silent))
    run = await driven.start(START)
    stream = asyncio.create_task(live(run))
    result = await run.cancel(by="ana")
    assert result.status == "cancelled"
    assert await stream == []
    assert await log(driven, run.run_id) == []
    assert await last_events(driven.store, run.run_id, 1) == []


async def test_a_run_cancelled_in_the_middle_says_so_and_ends_without_success() -> None:
    gate = Gate()

    async def waits(state: Any) -> None:
        await gate()

    driven = executor(line(silent, waits))
    run = await driven.start(START)
    stream = asyncio.create_task(live(run))
    await gate.reached.wait()
    await run.cancel(by="ana", reason="enough")
    told = await stream
    assert kinds(told)[-4:] == ["step_start", "step_complete", "cancelled", "flow_complete"]
    assert (told[-2].event.by, told[-2].event.reason) == ("ana", "enough")
    assert not told[-1].event.success
    assert kinds(await log(driven, run.run_id))[-3:] == ["step_complete", "cancelled", "flow_complete"]


async def test_a_run_cancelled_in_its_first_body_has_begun() -> None:
    gate = Gate()

    async def waits(state: Any) -> None:
        await gate()

    driven = executor(line(waits))
    run = await driven.start(START)
    await gate.reached.wait()
    await run.cancel(by="ana")
    assert kinds(await log(driven, run.run_id)) == ["flow_start", "cancelled", "flow_complete"]


async def test_cancelling_at_a_barrier_withdraws_the_ticket_and_closes_the_step() -> None:
    driven = executor(review())
    run = await driven.start(START)
    await run.result()
    await run.cancel(by="ana")
    assert kinds(await log(driven, run.run_id))[-4:] == ["barrier_resolved", "step_complete", "cancelled", "flow_complete"]
    assert of_kind(await log(driven, run.run_id), "barrier_resolved")[0].action == "withdrawn"


async def test_a_segment_ends_where_the_run_waits_and_the_next_one_begins_with_the_resume() -> None:
    driven = executor(review())
    run = await driven.start(START)
    first = await live(run)
    assert kinds(first)[-2:] == ["barrier_waiting", "suspended"]
    assert first[-1].event.waiting_for == ["review#1"]
    await driven.store.decide(run.run_id, "review", Decision.approve(by="ben", reason="fine"))
    second = await live(await driven.attach(run.run_id))
    assert kinds(second) == ["retrying", "barrier_resolved", "step_complete", "step_start", "step_complete", "flow_complete"]
    assert of_kind(second, "barrier_resolved")[0].by == "ben"
    assert kinds([*first[:-1], *second]) == kinds(await log(driven, run.run_id))


async def test_a_stream_through_barriers_stays_until_the_end() -> None:
    driven = executor(review())
    run = await driven.start(START)
    stream = asyncio.create_task(live(run, through_barriers=True))
    await run.result()
    await run.decide("review", Decision.approve(by="ben"))
    told = await stream
    assert Counter(kinds(told))["suspended"] == 1
    assert told[-1].event.kind == "flow_complete"


@pytest.mark.parametrize("whose", ["executor", "store"])
async def test_who_follows_a_run_through_its_barriers_hears_of_its_end(whose: str) -> None:
    driven = executor(review())
    run = await driven.start(START)
    await run.result()

    def events(*, through: bool) -> EventStream:
        if whose == "executor":
            return driven.events(run.run_id, through_barriers=through)
        return follow(driven.store, run.run_id, through_barriers=through)

    async with asyncio.timeout(20):
        assert [envelope.event.kind async for envelope in events(through=False)][-1] == "suspended"
        stream = events(through=True)
        while (await anext(stream)).event.kind != "suspended":
            pass
        await run.decide("review", Decision.approve(by="ben"))
        assert [envelope.event.kind async for envelope in stream][-1] == "flow_complete"


@pytest.mark.parametrize("where", ["driven here", "in the log"])
async def test_who_gives_up_waiting_for_an_event_and_asks_again_has_missed_nothing(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    gate, reads, never = Gate(), asyncio.Event(), asyncio.Event()

    async def hold(state: Any) -> dict[str, Any]:
        await gate()
        return {"log": ["held"]}

    async def interrupted(run_id: str, *, after: int = -1) -> AsyncIterator[Any]:
        async for row in history(run_id, after=after):
            if not reads.is_set():
                reads.set()
                await never.wait()
            yield row

    driven = executor(line(silent, hold))
    history = driven.store.history
    run = await driven.start(START)
    await gate.reached.wait()
    if where == "in the log":
        gate.open.set()
        await run.result()
    monkeypatch.setattr(driven.store, "history", interrupted)
    stream = driven.events(run.run_id)
    waits = asyncio.create_task(anext(stream))
    await reads.wait()
    waits.cancel()
    await asyncio.wait([waits])
    gate.open.set()
    async with asyncio.timeout(5):
        told = [envelope async for envelope in stream]
    assert kinds(told) == kinds(await log(driven, run.run_id))


@pytest.mark.parametrize("reason", ["limit", "suspend"])
async def test_a_run_that_stops_ends_the_segment_and_says_why(reason: str) -> None:
    gate = Gate()

    async def waits(state: Any) -> None:
        if reason == "suspend":
            await gate()

    driven = executor(line(waits, silent), max_steps=1)
    run = await driven.start(START)
    stream = asyncio.create_task(live(run))
    if reason == "suspend":
        await gate.reached.wait()
        await run.suspend("lunch")
    told = await stream
    assert (told[-1].event.kind, told[-1].event.reason) == ("suspended", reason)
    assert told[-1].event.detail == ("lunch" if reason == "suspend" else "")


async def test_events_of_a_run_that_has_ended_come_from_the_log() -> None:
    run = await executor(line(speaks)).start(START)
    await run.result()
    assert kinds(await live(run))[-1] == "flow_complete"


async def test_a_fork_has_a_log_of_its_own_that_begins_with_its_open_steps() -> None:
    driven = executor(review())
    run = await driven.start(START)
    await run.result()
    fork = await driven.fork(run.run_id)
    await driven.store.decide(fork, "review", Decision.approve(by="ana"))
    await driven.resume(fork)
    told = await log(driven, fork)
    assert kinds(told) == [
        "flow_start", "step_start", "barrier_waiting", "barrier_resolved", "step_complete",
        "step_start", "step_complete", "flow_complete",
    ]  # fmt: skip


async def test_whatever_stops_the_drive_is_raised_to_those_who_listen() -> None:
    class Broken(MemoryCheckpointStore):
        async def commit(self, commit: Any) -> Any:
            raise StoreUnavailableError("memory://", "full")

    run = await executor(line(silent), store=Broken()).start(START)
    with pytest.raises(StoreUnavailableError, match="full"):
        await live(run)


# --- saying something -------------------------------------------------------------------------------------------------
async def test_a_node_in_a_thread_speaks_like_any_other() -> None:
    def counts(state: Any, ctx: Any) -> dict[str, Any]:
        for number in range(3):
            ctx.emit_token(str(number))
        ctx.count_tokens(input=1)
        return {"n": 3}

    run = await executor(line(counts)).start(START)
    told = await live(run)
    assert texts(told) == [(1, "0"), (2, "1"), (3, "2")]
    assert (told[-1].event.tokens_input, told[-1].event.tokens_output) == (1, 0)


async def test_whoever_comes_in_the_middle_of_a_step_hears_what_it_said_so_far() -> None:
    gate = Gate()

    async def talks(state: Any, ctx: Any) -> None:
        ctx.emit_token("before ")
        await gate()
        ctx.emit_token("after")

    run = await executor(line(talks)).start(START)
    await gate.reached.wait()
    async with run.events() as events:
        told = [await anext(events) for _ in range(4)]
        gate.open.set()
        told += [envelope async for envelope in events]
    StreamChecker.check(told, "segment")
    assert texts(told) == [(1, "before "), (2, "after")]


async def test_what_a_node_says_must_be_data() -> None:
    async def emits(state: Any, ctx: Any) -> None:
        with pytest.raises(UnserialisableError, match="handle"):
            ctx.emit("handle", {"fh": object()})

    run = await executor(line(emits)).start(START)
    assert of_kind(await live(run), "custom") == []


@pytest.mark.parametrize("counted", [{"input": 1.5}, {"output": "7"}, {"output": -1}, {"input": True}])
async def test_what_is_no_number_of_tokens_is_refused_before_the_log_could_not_be_read(counted: dict[str, Any]) -> None:
    async def counts(state: Any, ctx: Any) -> None:
        with pytest.raises(ArgumentError, match="must be a whole number from 0"):
            ctx.count_tokens(**counted)

    driven = executor(line(counts))
    run = await driven.start(START)
    assert (await run.result()).status == "completed"
    assert (await log(driven, run.run_id))[-1].event.kind == "flow_complete"


async def test_half_a_character_that_a_node_says_reaches_a_browser_too() -> None:
    async def halves(state: Any, ctx: Any) -> dict[str, Any]:
        ctx.emit_token("a smile: \ud83d")
        ctx.emit_tool_call("open", "caf\udce9")
        ctx.emit("pro\udce9gress")
        return {"log": ["\ud83d"]}

    flow = line(halves)
    flow.add_barrier("ask", prompt="Print {log}?", show=["log"])
    flow.add_edge("halves", "ask", when=lambda state: True, name="asks").add_edge("ask", END)
    driven = executor(flow)
    run = await driven.start(START)
    told = [*await live(run), *await log(driven, run.run_id, "segment")]
    assert of_kind(told, "barrier_waiting")
    assert {token.content for token in of_kind(told, "step_token")} == {r"a smile: \ud83d"}
    assert all(parse(block(envelope).splitlines()[2].removeprefix("data: ")) == envelope for envelope in told)


async def test_an_attempt_that_is_over_says_nothing_more() -> None:
    kept = []

    async def keeps(state: Any, ctx: Any) -> None:
        kept.append(ctx)

    await executor(line(keeps)).execute(START)
    with pytest.raises(StaleContextError):
        kept[0].emit_token("late")


# --- generators -------------------------------------------------------------------------------------------------------
async def test_what_a_generator_yields_last_decides_where_the_run_goes() -> None:
    async def guides(state: Any, ctx: Any) -> AsyncIterator[Any]:
        yield f"visit {ctx.visit}"
        yield Goto("silent", {"n": 7})

    flow = line(guides, silent)
    result = await executor(flow).execute(START)
    assert (result.values["n"], result.values["log"]) == (7, ["silent"])


async def test_a_generator_without_a_result_changes_nothing() -> None:
    async def talks() -> AsyncIterator[str]:
        yield "words"

    run = await executor(line(talks)).start(START)
    assert texts(await live(run)) == [(1, "words")]
    assert (await run.result()).values == START


@pytest.mark.parametrize(
    ("yielded", "error"), [([{"n": 1}, "more"], "YieldedAfterResultError"), ([3], "ReturnTypeError"), ([None], "ReturnTypeError")]
)
async def test_a_generator_that_yields_what_it_must_not_fails_and_is_closed(yielded: list[Any], error: str) -> None:
    closed = []

    async def wrong(state: Any) -> AsyncIterator[Any]:
        try:
            for item in yielded:
                yield item
        finally:
            closed.append(True)

    with pytest.raises(RunFailedError) as failed:
        await executor(line(wrong)).execute(START)
    assert failed.value.result.error["type"] == error
    assert closed == [True]


async def test_a_generator_that_is_too_slow_times_out_and_keeps_what_it_said() -> None:
    clock = VirtualClock()
    closed = []
    gate = Gate()

    async def drags(state: Any) -> AsyncIterator[Any]:
        try:
            yield "I"
            await gate()
        finally:
            closed.append(True)

    store = MemoryCheckpointStore(now=clock.now)
    run = await executor(line(drags, timeout=timedelta(seconds=1)), store=store, clock=clock).start(START)
    stream = asyncio.create_task(live(run))
    await gate.reached.wait()
    await clock.advance(timedelta(seconds=2))
    told = await stream
    assert of_kind(told, "step_complete")[0].full_output == "I"
    assert closed == [True]


async def test_the_end_of_a_run_tells_how_long_it_took_by_the_stores_clock_its_breaks_included() -> None:
    clock = VirtualClock()
    flow = Flow("timed", {"n": int})

    @flow.node
    async def slow(state: Any) -> dict[str, Any]:
        await clock.advance(timedelta(seconds=2))
        return {"n": 1}

    flow.add_barrier("gate").set_entry("slow").add_edge("slow", "gate").add_edge("gate", END)
    async with MemoryCheckpointStore(now=clock.now) as store, GraphExecutor(flow.compile(), store=store, clock=clock) as driven:
        parked = await driven.execute({})
        await clock.advance(timedelta(seconds=3))
        await store.decide(parked.run_id, "gate", Decision.approve(by="ana"))
        await driven.resume(parked.run_id)
        (end,) = of_kind(await log(driven, parked.run_id), "flow_complete")
        assert (end.latency_ms, end.steps_executed, end.success) == (5000, 2, True)


@pytest.mark.parametrize("number", [1, 2, 5, 40, 1000])
async def test_the_last_events_are_the_end_of_the_log_wherever_they_begin(number: int) -> None:
    driven = executor(fan(speaks, line(silent, yields)))
    run = await driven.start(START)
    await live(run)
    stored = await log(driven, run.run_id)
    assert await last_events(driven.store, run.run_id, number) == stored[-number:]


async def test_what_never_becomes_a_run_is_a_typed_error_and_no_stream_that_could_stay_open() -> None:
    broken = Flow("broken", {"n": int}).add_node("a", silent).set_entry("a")
    with pytest.raises(FlowValidationError):
        broken.compile()
    store = MemoryCheckpointStore()
    driven = executor(line(silent), store=store)
    with pytest.raises(InputError):
        await driven.start({"unknown": 1})
    with pytest.raises(RunNotFoundError):
        await anext(driven.events("01a1fd42-c851-7dc3-9dc6-68b24c054827"))
    other = Flow("other", {"n": int}).add_node("a", silent).set_entry("a").add_edge("a", END).compile()
    run_id = await GraphExecutor(other, store=store).submit({"n": 1})
    with pytest.raises(WrongFlowError):
        await driven.attach(run_id)
    assert [run.run_id for run in await store.runs()] == [run_id]
    assert [envelope async for envelope in driven.events(run_id, follow=False)] == [], "nobody has begun it"


# --- reconnecting -----------------------------------------------------------------------------------------------------
async def test_whoever_reconnects_with_any_id_misses_nothing_that_follows() -> None:
    driven = executor(fan(speaks, line(silent, yields)))
    run = await driven.start(START)
    told = await live(run)
    stored = await log(driven, run.run_id)
    for position, last in enumerate(told):
        rest = [envelope async for envelope in driven.events(run.run_id, after=last.id)]
        StreamChecker.check(rest, "segment")
        missing = bare(told[position + 1 :]) - bare(rest)
        assert not missing, f"after {last.id}"
    for position, last in enumerate(stored):
        rest = [envelope async for envelope in driven.events(run.run_id, after=last.id)]
        assert [envelope.id for envelope in rest] == [envelope.id for envelope in stored[position + 1 :]]
        assert rest == stored[position + 1 :]


async def test_a_snapshot_keeps_what_the_log_goes_on_from() -> None:
    async def lectures(state: Any) -> AsyncIterator[Any]:
        for _ in range(20):
            yield "word " * 500
        yield {"n": state["n"] + 1, "log": ["said"]}

    flow = Flow("line", STATE).add_node("lectures", lectures).set_entry("lectures")
    flow.add_edge("lectures", "lectures", when=lambda state: state["n"] < 6, name="more").add_edge("lectures", END)
    driven = executor(flow, max_steps=4)
    run = await driven.start(START)
    await run.result()
    snapshot, _rows = await driven.store.load(run.run_id)
    assert snapshot is not None
    assert len(snapshot.payload) < 2000
    await driven.resume(run.run_id, max_steps=10)
    stored = await log(driven, run.run_id)
    assert [index for index, _text in texts(stored)] == list(range(1, 121))
    last = next(envelope for envelope in stored if envelope.seq == snapshot.seq + 1)
    rest = [envelope async for envelope in driven.events(run.run_id, after=last.id)]
    assert rest == stored[stored.index(last) + 1 :]
    assert stored[-1].event.tokens_output == 120


async def test_an_id_from_beyond_the_log_is_refused() -> None:
    driven = executor(line(silent))
    run = await driven.start(START)
    await run.result()
    with pytest.raises(CheckpointNotFoundError):
        await anext(driven.events(run.run_id, after="1.99.0"))


async def test_another_process_can_follow_a_run_that_is_driven_here() -> None:
    gate = Gate()

    async def waits(state: Any, ctx: Any) -> None:
        ctx.emit_token("here")
        await gate()

    database = MemoryDatabase()
    flow = line(silent, waits)
    driven = executor(flow, store=MemoryCheckpointStore(database=database))
    elsewhere = executor(flow, store=MemoryCheckpointStore(database=database))
    run = await driven.start(START)
    await gate.reached.wait()
    stream = elsewhere.events(run.run_id)
    told = [await anext(stream) for _ in range(6)]
    gate.open.set()
    told += [envelope async for envelope in stream]
    StreamChecker.check(told)
    assert texts(told) == [(1, "here")]
    await run.result()


# --- slow consumers ---------------------------------------------------------------------------------------------------
async def many(state: Any, ctx: Any) -> dict[str, Any]:
    for number in range(50):
        await ctx.emit_token(f"{number} ")
    return {"n": 50}


def fifty() -> str:
    return "".join(f"{number} " for number in range(50))


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_by_default_a_slow_consumer_loses_nothing_and_the_run_does_not_wait(size: int) -> None:
    driven = executor(line(many, silent))
    run = await driven.start(START)
    async with run.events(delivery=Delivery(size=size)) as events:
        told = [await anext(events)]
        assert (await run.result()).status == "completed"
        told += [envelope async for envelope in events]
    StreamChecker.check(told, "segment")
    assert bare(told) == bare(await log(driven, run.run_id))


@pytest.mark.parametrize("size", [1, 3])
async def test_a_consumer_that_stops_and_goes_is_told_everything_once(size: int) -> None:
    driven = executor(fan(many, speaks, yields, line(many, silent)))
    run = await driven.start(START)
    told = []
    async for envelope in run.events(delivery=Delivery(size=size)):
        told.append(envelope)
        for _ in range(len(told) % 5):
            await asyncio.sleep(0)
    StreamChecker.check(told, "segment")
    assert bare(told) == bare(await log(driven, run.run_id))


async def test_with_pause_the_run_waits_for_its_consumer_and_the_queue_stays_small() -> None:
    driven = executor(line(many, silent))
    run = await driven.start(START)
    events = run.events(delivery=Delivery("pause", size=5))
    told = [await anext(events)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert not run.done()
    queue = driven.live(run.run_id).queues[0]  # type: ignore[union-attr]
    most = len(queue)
    async for envelope in events:
        told.append(envelope)
        most = max(most, len(queue))
    StreamChecker.check(told, "segment")
    assert most <= 7
    assert of_kind(told, "step_complete")[0].full_output == fifty()
    assert len(of_kind(told, "step_token")) == 50


async def test_a_run_also_waits_for_who_came_by_its_id() -> None:
    driven = executor(line(many, silent))
    run = await driven.start(START)
    async with driven.events(run.run_id, delivery=Delivery("pause", size=5)) as events:
        await anext(events)
        for _ in range(200):
            await asyncio.sleep(0)
        assert not run.done()
    assert (await asyncio.wait_for(run.result(), 10)).status == "completed"


async def test_with_pause_a_thread_waits_too_and_a_cancel_sets_it_free() -> None:
    def endless(state: Any, ctx: Any) -> None:
        while True:
            ctx.emit_token("x")

    run = await executor(line(endless)).start(START)
    events = run.events(delivery=Delivery("pause", size=5))
    told = [await anext(events), await anext(events)]
    result = await asyncio.wait_for(run.cancel(by="ana"), 10)
    assert result.status == "cancelled"
    told += [envelope async for envelope in events]
    StreamChecker.check(told, "segment")


async def test_a_paused_run_goes_on_when_its_consumer_leaves() -> None:
    run = await executor(line(many, silent)).start(START)
    async with run.events(delivery=Delivery("pause", size=5)) as events:
        await anext(events)
        for _ in range(50):
            await asyncio.sleep(0)
    assert (await asyncio.wait_for(run.result(), 10)).status == "completed"


async def test_a_paused_run_can_be_cancelled() -> None:
    run = await executor(line(silent, silent2, many)).start(START)
    async with run.events(delivery=Delivery("pause", size=1)) as events:
        await anext(events)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (await asyncio.wait_for(run.cancel(by="ana"), 10)).status == "cancelled"


async def silent2(state: Any) -> None:
    return None


async def test_drop_oldest_drops_tokens_only_and_says_how_many_of_which_step() -> None:
    async def floods(state: Any, ctx: Any) -> None:
        for number in range(50):
            ctx.emit_token(f"{number} ")

    driven = executor(line(floods, silent))
    run = await driven.start(START)
    async with run.events(delivery=Delivery("drop_oldest", size=20)) as events:
        told = [await anext(events)]
        await run.result()
        told += [envelope async for envelope in events]
    StreamChecker.check(told, "segment")
    everything = await log(driven, run.run_id)
    lost = bare(everything) - bare(told)
    assert {kind for _path, text in lost for kind in [text.split('"')[3]]} == {"step_token"}
    dropped = of_kind(told, "dropped")
    assert dropped == events.dropped
    assert [(drop.step_name, drop.step_index) for drop in dropped] == [("floods", 0)]
    assert dropped[0].tokens == lost.total() > 20
    assert of_kind(told, "step_complete")[0].full_output == fifty()


async def test_degrade_makes_one_token_of_those_that_wait() -> None:
    async def floods(state: Any, ctx: Any) -> None:
        for number in range(50):
            ctx.emit_token(f"{number} ")

    run = await executor(line(floods)).start(START)
    async with run.events(delivery=Delivery("degrade", size=10)) as events:
        told = [await anext(events)]
        await run.result()
        told += [envelope async for envelope in events]
    StreamChecker.check(told, "segment")
    assert "".join(text for _index, text in texts(told)) == fifty()
    assert len(texts(told)) < 12
    assert [(type(drop), drop.policy, drop.tokens) for drop in events.dropped] == [(Dropped, "degrade", 50 - len(texts(told)))]


async def test_a_merge_that_raises_is_the_consumers_and_not_the_runs() -> None:
    def breaks(texts: Any) -> str:
        raise ZeroDivisionError("mine")

    run = await executor(line(many, silent)).start(START)
    with pytest.raises(ZeroDivisionError, match="mine"):
        async for _ in run.events(delivery=Delivery("degrade", size=3, merge=breaks)):
            pass
    assert (await run.result()).status == "completed"


async def test_fail_tells_the_consumer_and_leaves_the_run_alone() -> None:
    run = await executor(line(many, silent)).start(START)
    with pytest.raises(SlowConsumerError, match="after="):
        async with run.events(delivery=Delivery("fail", size=3)) as events:
            await anext(events)
            await run.result()
            async for _ in events:
                pass
    assert (await run.result()).status == "completed"


# --- consumers that leave ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("on_loss", "status"), [("detach", "completed"), ("suspend", "suspended"), ("cancel", "cancelled")])
@pytest.mark.parametrize("how", ["aclose", "forgotten", "cancelled"])
async def test_a_consumer_that_leaves_does_to_the_run_what_it_asked_for(on_loss: Any, status: str, how: str) -> None:
    gate = Gate()

    async def waits(state: Any) -> None:
        await gate()

    run = await executor(line(waits)).start(START)

    async def consume() -> None:
        async for _ in run.events(on_loss=on_loss):
            if how != "cancelled" and gate.reached.is_set():
                break

    if how == "aclose":
        async with run.events(on_loss=on_loss) as events:
            await anext(events)
            await gate.reached.wait()
    else:
        task = asyncio.create_task(consume())
        await gate.reached.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        gc.collect()
    await asyncio.sleep(0)
    gate.open.set()
    assert (await run.result()).status == status


@pytest.mark.parametrize("slip", [{"policy": "drop-oldest"}, {"size": 0}, {"size": "10"}, {"size": 1.5}, {"merge": None}])
def test_a_delivery_that_is_not_known_is_refused_and_not_taken_for_another(slip: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        Delivery(**slip)
    assert caught.value.argument in slip


@pytest.mark.parametrize("slip", [{"on_loss": "detatch"}, {"delivery": "pause"}])
async def test_a_stream_that_is_asked_for_wrongly_is_not_begun_and_the_run_goes_on(slip: dict[str, Any]) -> None:
    run = await executor(line(silent)).start(START)
    with pytest.raises(ArgumentError) as caught:
        run.events(**slip)
    assert caught.value.argument in slip
    with pytest.raises(BadEventIdError, match="7 is no event id"):
        run.events(after=7)  # type: ignore[arg-type]
    assert (await run.result()).status == "completed"


async def test_leaving_a_stream_that_has_ended_does_nothing() -> None:
    run = await executor(line(silent)).start(START)
    async with run.events(on_loss="cancel") as events:
        async for envelope in events:
            if envelope.event.is_terminator:
                break
    assert (await run.result()).status == "completed"


async def test_a_run_that_nobody_watches_makes_no_facts() -> None:
    driven = executor(line(speaks, silent))
    run = await driven.start(START)
    heard = driven.live(run.run_id)
    assert heard is not None
    assert heard.queues == ()
    await run.result()
    rows = [row async for row in driven.store.history(run.run_id)]
    assert [op[0] for row in rows for op in unpack(row.payload)].count("said") == 1


async def test_ids_rise_over_the_whole_life_of_a_run() -> None:
    driven = executor(review())
    run = await driven.start(START)
    first = await live(run)
    await driven.store.decide(run.run_id, "review", Decision.approve(by="ana"))
    second = await live(await driven.attach(run.run_id))
    places = [EventId.parse(envelope.id) for envelope in [*first, *second]]
    assert places == sorted(places)
    assert {place.attempt for place in places} == {1, 2}


async def test_waiting_for_a_signal_is_told_and_so_is_its_coming() -> None:
    flow = Flow("waiting", STATE)
    flow.add_node("before", speaks).add_wait("parcel", "delivered").add_node("after", silent)
    flow.set_entry("before").add_edge("before", "parcel").add_edge("parcel", "after").add_edge("after", END)
    driven = executor(flow)
    run = await driven.start(START)
    first = await live(run)
    assert kinds(first)[-3:] == ["step_start", "waiting", "suspended"]
    assert (first[-3].event.kind, of_kind(first, "waiting")[0].signal) == ("waiting", "delivered")
    await driven.store.signal(run.run_id, "delivered")
    second = await live(await driven.attach(run.run_id))
    assert kinds(second)[:3] == ["retrying", "woken", "step_complete"]
    assert bare([*first[:-1], *second]) == bare(await log(driven, run.run_id))
    assert {start.step_name: start.step_type for start in of_kind(first, "step_start")} == {"before": "task", "parcel": "wait"}
