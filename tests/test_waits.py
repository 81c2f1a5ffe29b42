"""Timers, signals and bodies that wait, driven by the executor: nothing is lost, nothing is slept through, no memory is held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

import pytest
from pydantic import BaseModel

from checkpoint_stores.errors import InvalidSignalError, RunEndedError, UnknownSignalError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.moments import LAST
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.context import StepContext
from engine.errors import FlowValidationError, RunFailedError, WaitTimeoutError
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.plan import END, Retry
from reducers.builtin import append
from trailmark.testing import VirtualClock, always_reload, crash_at_every_checkpoint
from trailmark.testing.clock import settled

STATE = {"log": Annotated[list[str], append], "paid": int, "when": Any}


def flow_of(*names: str) -> Flow:
    """A flow whose nodes stand one after the other; they are added by the caller."""
    flow = Flow("waiting", STATE)
    flow.set_entry(names[0])
    for name, following in zip(names, [*names[1:], END], strict=True):
        flow.add_edge(name, following)
    return flow


def noting(text: str) -> Any:
    return lambda state: {"log": [text]}


class Stage:
    """An executor over a store in memory, under a clock that stands still."""

    def __init__(self, flow: Flow) -> None:
        self.clock = VirtualClock()
        self.database = MemoryDatabase()
        self.store = MemoryCheckpointStore(now=self.clock.now, database=self.database)
        self.graph = flow.compile()
        self.executor = GraphExecutor(self.graph, store=self.store, clock=self.clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.executor.aclose()
        await self.store.close()


# --- timers -----------------------------------------------------------------------------------------------------------
async def test_a_timer_parks_the_run_and_rings_when_its_time_has_come() -> None:
    flow = flow_of("before", "nap", "after").add_node("before", noting("before")).add_timer("nap", timedelta(hours=2))
    async with Stage(flow.add_node("after", noting("after"))) as stage:
        waiting = await stage.executor.execute({"log": []})
        record = await stage.store.run(waiting.run_id)
        assert (waiting.status, record.owner, record.wake_at) == ("waiting", None, stage.clock.now() + 7_200_000_000)
        assert [(wait.node, wait.signal, wait.due_at) for wait in waiting.waits] == [("nap", "", record.wake_at)]
        early = await stage.executor.resume(waiting.run_id)
        assert early.status == "waiting"
        await stage.clock.advance(timedelta(hours=2))
        result = await stage.executor.resume(waiting.run_id)

    assert (result.status, result.values["log"], result.steps) == ("completed", ["before", "after"], 3)


def for_ever(state: Any, ctx: Any) -> Any:
    return ctx.wait_for_sync("paid", timeout=timedelta.max)


def fails(state: Any) -> None:
    raise ConnectionError


ASKING = Flow("asking").add_barrier("ask").set_entry("ask").add_edge("ask", END)


@pytest.mark.parametrize(
    "waits",
    [
        lambda flow: flow.add_timer("it", timedelta.max),
        lambda flow: flow.add_timer("it", "when"),
        lambda flow: flow.add_wait("it", "paid", timeout=timedelta.max),
        lambda flow: flow.add_signal("paid").add_node("it", for_ever),
        lambda flow: flow.add_barrier("it", timeout=timedelta.max),
        lambda flow: flow.add_barrier("it", remind=timedelta.max),
        lambda flow: flow.add_parallel("it", [ASKING], branch_timeout=timedelta.max),
        lambda flow: flow.add_subflow("it", ASKING, timeout=timedelta.max),
        lambda flow: flow.add_node("it", fails, retry=Retry(attempts=2, first=timedelta.max, longest=timedelta.max)),
    ],
)
async def test_a_time_beyond_every_calendar_is_waited_for_in_a_database_too(waits: Callable[[Flow], Flow], sqlite_url: str) -> None:
    async with SQLCheckpointStore(sqlite_url) as store:
        result = await GraphExecutor(waits(flow_of("it")).compile(), store=store).execute({"when": timedelta.max})
        assert result.status == "waiting"
        assert {wait.due_at for wait in result.waits} <= {LAST, None}
        assert all(retry.due.year <= 9999 for retry in result.retries)


async def test_a_short_timer_is_waited_for_in_the_process() -> None:
    flow = flow_of("nap").add_timer("nap", timedelta(seconds=2))
    async with Stage(flow) as stage:
        waits = asyncio.create_task(stage.executor.execute({}))
        await stage.clock.wait_for_timer()
        await stage.clock.advance(timedelta(seconds=2))
        assert (await waits).status == "completed"


@pytest.mark.parametrize("until", [timedelta(hours=1), datetime(2026, 1, 1, 13, tzinfo=UTC)], ids=["how long", "until when"])
async def test_a_timer_reads_its_time_from_the_state(until: Any) -> None:
    async with Stage(flow_of("nap").add_timer("nap", "when")) as stage:
        waiting = await stage.executor.execute({"when": until})
        assert waiting.waits[0].due_at == stage.clock.now() + 3_600_000_000


@pytest.mark.parametrize("held", [5, datetime(2026, 1, 1, 13), None], ids=str)  # noqa: DTZ001 - refused for that
async def test_a_timer_that_is_told_no_time_fails_and_names_the_key(held: Any) -> None:
    async with Stage(flow_of("nap").add_timer("nap", "when")) as stage:
        with pytest.raises(
            RunFailedError, match=r"node 'nap' waits as 'when' says, which holds .*; give it a timedelta or an aware datetime"
        ):
            await stage.executor.execute({"when": held})


@pytest.mark.parametrize("waits", ["timer", "state", "signal", "barrier", "item", "branch"])
async def test_a_wait_longer_than_any_calendar_ends_with_the_calendar(sqlite_url: str, waits: str) -> None:
    ever = timedelta.max
    flow = flow_of("nap")
    match waits:
        case "timer":
            flow.add_timer("nap", ever)
        case "state":
            flow.add_timer("nap", "when")
        case "signal":
            flow.add_wait("nap", "paid", timeout=ever)
        case "barrier":
            flow.add_barrier("nap", timeout=ever)
        case "item":
            flow.add_subflow("nap", Flow("inner", None).add_barrier("ok").set_entry("ok").add_edge("ok", END), timeout=ever)
        case _:
            inner = Flow("inner", None).add_barrier("ok").set_entry("ok").add_edge("ok", END)
            flow.add_parallel("nap", {"one": inner}, branch_timeout=ever)
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(flow.compile(), store=store) as executor:
        waiting = await executor.execute({"when": ever})
        wake_at = (await store.run(waiting.run_id)).wake_at
    assert (waiting.status, wake_at) == ("waiting", LAST)


async def test_a_time_that_has_passed_is_not_waited_for() -> None:
    async with Stage(flow_of("nap").add_timer("nap", "when")) as stage:
        assert (await stage.executor.execute({"when": datetime(2020, 1, 1, tzinfo=UTC)})).status == "completed"


# --- signals ----------------------------------------------------------------------------------------------------------
class Payment(BaseModel):
    amount: int
    payer: str = "?"


def payment_flow(**options: Any) -> Flow:
    return flow_of("wait", "after").add_wait("wait", "paid", to="paid", type=int, **options).add_node("after", noting("after"))


async def test_a_signal_moves_the_run_that_waits_for_it() -> None:
    async with Stage(payment_flow()) as stage:
        waiting = await stage.executor.execute({"log": []})
        assert (waiting.status, [(wait.node, wait.signal) for wait in waiting.waits]) == ("waiting", [("wait", "paid")])
        sent = await stage.store.signal(waiting.run_id, "paid", 7, by="bank")
        result = await stage.executor.resume(waiting.run_id)
        (kept,) = await stage.store.signals(waiting.run_id)

    assert (result.status, result.values["paid"], result.values["log"]) == ("completed", 7, ["after"])
    assert (kept.id, kept.actor) == (sent.id, "bank")
    assert kept.consumed_seq is not None


async def test_a_signal_that_comes_early_is_kept_and_each_is_used_once_the_oldest_first() -> None:
    flow = flow_of("first", "second").add_wait("first", "paid", to="paid").add_wait("second", "paid", to="when")
    async with Stage(flow.add_signal("go")) as stage:
        handle = await stage.executor.start({})
        for payload in (1, 2, 3):
            await stage.store.signal(handle.run_id, "paid", payload)
        result = await handle.result()
        left = [signal.payload for signal in await stage.store.signals(handle.run_id) if signal.consumed_seq is None]

    assert (result.status, result.values["paid"], result.values["when"], left) == ("completed", 1, 2, [3])


async def test_a_signal_that_comes_while_an_earlier_one_is_about_to_be_used_does_not_use_that_one_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = flow_of("before", "work", "first", "second").add_wait("first", "paid", to="paid").add_wait("second", "paid", to="when")
    entered, may_end = {"before": asyncio.Event(), "work": asyncio.Event()}, {"before": asyncio.Event(), "work": asyncio.Event()}

    def held(name: str) -> Any:
        async def body(state: Any) -> dict[str, Any]:
            entered[name].set()
            await may_end[name].wait()
            return {}

        return body

    async def with_another_behind_it(work: Any) -> Any:
        receipt = await commit(work)
        if [row.node for row in work.rows if row.kind == "wait"] == ["first"]:
            await stage.store.signal(work.run_id, "paid", 2)
            await settled()  # whoever listens has told the driver of it, before the driver is told of its commit
        return receipt

    monkeypatch.setattr("engine.driver.WATCH_AFTER", timedelta(0))
    async with Stage(flow.add_node("before", held("before")).add_node("work", held("work"))) as stage:
        commit = stage.store.commit
        monkeypatch.setattr(stage.store, "commit", with_another_behind_it)
        handle = await stage.executor.start({})
        await entered["before"].wait()
        await stage.store.signal(handle.run_id, "paid", 1)
        may_end["before"].set()
        await entered["work"].wait()
        may_end["work"].set()
        result = await handle.result()
        signals = await stage.store.signals(handle.run_id)

    assert (result.values["paid"], result.values["when"]) == (1, 2)
    assert [signal.payload for signal in signals if signal.consumed_seq is not None] == [1, 2]


async def test_a_handle_signals_and_goes_on_here() -> None:
    async with Stage(payment_flow()) as stage:
        handle = await stage.executor.start({})
        await handle.result()
        sent = await handle.signal("paid", 7, by="bank", signal_id="transfer-1")
        again = await handle.signal("paid", 7, by="bank", signal_id="transfer-1")
        assert replace(again, consumed_seq=None) == sent
        assert (await handle.result()).status == "completed"
        assert [(signal.id, signal.actor) for signal in await stage.store.signals(handle.run_id)] == [(sent.id, "bank")]


async def test_whoever_stays_goes_on_when_another_process_signals() -> None:
    async with Stage(payment_flow()) as stage, MemoryCheckpointStore(now=stage.clock.now, database=stage.database) as other:
        handle = await stage.executor.start({})
        stays = asyncio.create_task(handle.result(through_barriers=True))
        while (await other.run(handle.run_id)).status != "waiting":
            await asyncio.sleep(0)
        await other.signal(handle.run_id, "paid", 7)
        assert (await stays).values["paid"] == 7


async def test_what_nobody_can_wait_for_is_refused_where_it_is_sent() -> None:
    async with Stage(payment_flow()) as stage:
        waiting = await stage.executor.execute({})
        with pytest.raises(UnknownSignalError, match="paid"):
            await stage.store.signal(waiting.run_id, "payed", 7)
        with pytest.raises(InvalidSignalError, match="'seven' is not of type 'integer'"):
            await stage.store.signal(waiting.run_id, "paid", "seven")
        await stage.store.signal(waiting.run_id, "paid", 7)
        await stage.executor.resume(waiting.run_id)
        with pytest.raises(RunEndedError):
            await stage.store.signal(waiting.run_id, "paid", 7)


async def test_a_typed_payload_arrives_as_its_type() -> None:
    flow = Flow("typed", {"payment": Payment, "who": str})
    flow.add_wait("wait", "paid", type=Payment, to="payment").add_node("read", lambda state: {"who": state["payment"].payer})
    flow.set_entry("wait").add_edge("wait", "read").add_edge("read", END)
    async with Stage(flow) as stage:
        run_id = (await stage.executor.execute({})).run_id
        await stage.store.signal(run_id, "paid", {"amount": 3, "payer": "ana"})
        result = await stage.executor.resume(run_id)

    assert (result.state["payment"], result.values["who"]) == (Payment(amount=3, payer="ana"), "ana")


async def test_a_signal_that_does_not_come_in_time_fails_the_node() -> None:
    async with Stage(payment_flow(timeout=timedelta(days=1))) as stage:
        run_id = (await stage.executor.execute({"log": []})).run_id
        await stage.clock.advance(timedelta(days=1))
        with pytest.raises(RunFailedError) as failed:
            await stage.executor.resume(run_id)

    assert isinstance(failed.value.__cause__, WaitTimeoutError)


async def test_a_signal_that_does_not_come_in_time_takes_the_fallback_or_is_done_without() -> None:
    late = payment_flow(timeout=timedelta(days=1)).add_node("late", noting("late")).add_edge("late", END)
    late.add_fallback("wait", "late", on=WaitTimeoutError)
    for flow, log in ((late, ["late"]), (payment_flow(timeout=timedelta(days=1), on_timeout="continue"), ["after"])):
        async with Stage(flow) as stage:
            run_id = (await stage.executor.execute({"log": []})).run_id
            await stage.clock.advance(timedelta(days=1))
            assert (await stage.executor.resume(run_id)).values["log"] == log


async def test_a_signal_sent_before_the_time_was_over_counts_though_nobody_has_read_it() -> None:
    async with Stage(payment_flow(timeout=timedelta(days=1))) as stage:
        run_id = (await stage.executor.execute({"log": []})).run_id
        await stage.store.signal(run_id, "paid", 7)
        await stage.clock.advance(timedelta(days=2))
        assert (await stage.executor.resume(run_id)).values["paid"] == 7


async def test_an_item_of_a_map_can_be_signalled_by_its_path() -> None:
    item = Flow("item", {"name": str, "answer": str}).add_wait("ask", "answer", to="answer")
    item.set_entry("ask").add_edge("ask", END)
    flow = Flow("many", {"names": list[str], "answers": list[str]})
    flow.add_map("each", "names", item, item="name", result="answer", to="answers").set_entry("each").add_edge("each", END)
    async with Stage(flow) as stage:
        run_id = (await stage.executor.execute({"names": ["a", "b", "c"]})).run_id
        await stage.store.signal(run_id, "each[1].answer", "to b")
        await stage.store.signal(run_id, "answer", "first")
        await stage.store.signal(run_id, "answer", "second")
        result = await stage.executor.resume(run_id)

    assert result.values["answers"] == ["first", "to b", "second"]


# --- bodies that wait -------------------------------------------------------------------------------------------------
def asking_flow(body: Any, **options: Any) -> Flow:
    flow = flow_of("ask").add_signal("paid", int).add_signal("go")
    return flow.add_node("ask", body, **options)


async def test_a_body_that_waits_is_ended_and_runs_again_when_the_signal_has_come() -> None:
    began = []

    async def ask(state: Any, ctx: Any) -> dict[str, Any]:
        began.append(ctx.idempotency_key)
        first = await ctx.wait_for("paid")
        second = await ctx.wait_for("paid")
        return {"paid": first + second}

    async with Stage(asking_flow(ask)) as stage:
        waiting = await stage.executor.execute({})
        assert (waiting.status, waiting.steps) == ("waiting", 0)
        for payload in (7, 8):
            await stage.store.signal(waiting.run_id, "paid", payload)
        result = await stage.executor.resume(waiting.run_id)

    assert (result.status, result.values["paid"], result.steps) == ("completed", 15, 1)
    assert (len(began), len(set(began))) == (3, 1)


@pytest.mark.parametrize("where", ["at the root", "in a branch"])
async def test_a_body_that_waits_in_a_task_group_waits_like_any_other(where: str) -> None:
    async def ask(state: Any, ctx: StepContext) -> dict[str, Any]:
        async with asyncio.TaskGroup() as parts:
            heard = parts.create_task(ctx.wait_for("paid"))
        return {"paid": heard.result()}

    flow = flow_of("ask").add_signal("paid")
    flow = flow.add_node("ask", ask) if where == "at the root" else flow.add_parallel("ask", [branch(ask, name="one")])
    async with Stage(flow) as stage:
        async with asyncio.timeout(5):
            waiting = await stage.executor.execute({})
        await stage.store.signal(waiting.run_id, "paid", 7)
        result = await stage.executor.resume(waiting.run_id)

    assert (waiting.status, result.status, result.values["paid"]) == ("waiting", "completed", 7)


async def test_a_plain_function_waits_too() -> None:
    def ask(state: Any, ctx: Any) -> dict[str, Any]:
        return {"paid": ctx.wait_for_sync("paid")}

    async with Stage(asking_flow(ask)) as stage:
        run_id = (await stage.executor.execute({})).run_id
        await stage.store.signal(run_id, "paid", 7)
        assert (await stage.executor.resume(run_id)).values["paid"] == 7


async def test_a_body_may_catch_its_own_waiting_time() -> None:
    async def ask(state: Any, ctx: Any) -> dict[str, Any]:
        try:
            return {"paid": await ctx.wait_for("paid", timeout=timedelta(hours=1))}
        except TimeoutError:
            await ctx.wait_for("go", timeout=timedelta(hours=1))
            return {"paid": 0}

    async with Stage(asking_flow(ask)) as stage:
        run_id = (await stage.executor.execute({})).run_id
        await stage.clock.advance(timedelta(hours=1))
        assert (await stage.executor.resume(run_id)).status == "waiting"
        await stage.store.signal(run_id, "go")
        assert (await stage.executor.resume(run_id)).values["paid"] == 0


async def test_what_was_heard_is_told_to_every_attempt() -> None:
    attempts = []

    async def ask(state: Any, ctx: Any) -> dict[str, Any]:
        paid = await ctx.wait_for("paid")
        attempts.append((ctx.attempt, paid))
        if ctx.attempt == 1:
            raise ConnectionError("once more")
        return {"paid": paid}

    async with Stage(asking_flow(ask, retry=Retry(attempts=2, first=timedelta(0)))) as stage:
        run_id = (await stage.executor.execute({})).run_id
        await stage.store.signal(run_id, "paid", 7)
        assert (await stage.executor.resume(run_id)).values["paid"] == 7

    assert attempts == [(1, 7), (2, 7)]


async def test_a_body_that_waits_for_what_the_flow_does_not_declare_fails_and_says_how_to() -> None:
    async def ask(state: Any, ctx: Any) -> None:
        await ctx.wait_for("nobody")

    async with Stage(asking_flow(ask)) as stage:
        with pytest.raises(
            RunFailedError, match=r"waits for the signal 'nobody', which the flow does not declare: flow.add_signal\('nobody'"
        ):
            await stage.executor.execute({})


async def test_a_body_that_asks_in_another_order_when_it_runs_again_fails_and_says_why() -> None:
    asked = iter(["paid", "go"])

    async def ask(state: Any, ctx: Any) -> None:
        await ctx.wait_for(next(asked))

    async with Stage(asking_flow(ask)) as stage:
        run_id = (await stage.executor.execute({})).run_id
        await stage.store.signal(run_id, "paid", 7)
        with pytest.raises(RunFailedError, match="waits for 'go' where it waited for 'paid' before"):
            await stage.executor.resume(run_id)


async def test_waiting_is_no_time_of_the_body_and_in_a_branch_nothing_beside_it_is_done_again() -> None:
    beside = []

    async def ask(state: Any, ctx: Any) -> dict[str, Any]:
        return {"paid": await ctx.wait_for("paid")}

    async def work(state: Any) -> dict[str, Any]:
        beside.append(1)
        return {"log": ["worked"]}

    flow = Flow("beside", STATE).add_signal("paid", int).add_node("ask", ask, timeout=timedelta(minutes=1)).add_node("work", work)
    flow.add_parallel("both", ["ask", "work"]).set_entry("both").add_edge("both", END)
    async with Stage(flow) as stage:
        run_id = (await stage.executor.execute({"log": []})).run_id
        await stage.clock.advance(timedelta(hours=1))
        await stage.store.signal(run_id, "paid", 7)
        result = await stage.executor.resume(run_id)

    assert (result.values["paid"], result.values["log"], beside) == (7, ["worked"], [1])


# --- crashes ----------------------------------------------------------------------------------------------------------
def long_flow() -> Flow:
    async def ask(state: Any, ctx: Any) -> dict[str, Any]:
        return {"log": [f"{await ctx.wait_for('paid')} {await ctx.wait_for('paid')}"]}

    flow = Flow("long", STATE).add_signal("paid", int)
    flow.add_timer("nap", timedelta(days=3)).add_wait("wait", "paid", to="paid").add_node("ask", ask)
    flow.add_node("beside", noting("beside")).add_parallel("both", ["ask", "beside"])
    return flow.set_entry("nap").add_edge("nap", "wait").add_edge("wait", "both").add_edge("both", END)


async def test_a_crash_at_any_checkpoint_loses_no_signal_and_no_time(tmp_path: Any) -> None:
    number = iter(range(1000))

    def store(clock: VirtualClock) -> Any:
        return SQLCheckpointStore(f"sqlite+aiosqlite:///{tmp_path}/{next(number)}.db", now=clock.now, synchronous="OFF")

    signals = {"paid": [1, 2, 3]}
    report = await crash_at_every_checkpoint(long_flow(), {"log": []}, signals=signals, store_factory=store)
    reloaded = await always_reload(long_flow(), {"log": []}, signals=signals)

    assert report.result.values == reloaded.values
    assert (report.result.status, report.result.values["paid"]) == ("completed", 1)
    assert report.result.values["log"] == ["2 3", "beside"]


# --- what a flow may not say ------------------------------------------------------------------------------------------
def test_every_problem_of_timers_and_waits_is_named_at_once() -> None:
    flow = flow_of("a", "b", "c", "d").add_timer("a", "nothing").add_timer("b", timedelta(seconds=-1))
    flow.add_wait("c", "x.y", to="nowhere", timeout=timedelta(0), on_timeout="hope")  # type: ignore[arg-type]
    flow.add_wait("d", "paid", type=int).add_signal("paid", str).add_signal("odd", type=object())
    with pytest.raises(FlowValidationError) as wrong:
        flow.compile()

    said = "\n".join(wrong.value.problems)
    for part in (
        "node 'a': delay names 'nothing'", "node 'b': delay=", "node 'c': timeout=", "node 'c': to names 'nowhere'",
        "node 'c': on_timeout='hope' is none of fail, continue", "signal 'x.y': an event is named by a text without", "signal 'odd': its type",
        "signal 'paid' is declared with the type str and with int",
    ):  # fmt: skip
        assert part in said


def test_waits_and_timers_are_drawn_and_hashed() -> None:
    graph = long_flow().compile()

    assert "signal paid" in graph.to_mermaid()
    assert "259200 s" in graph.to_dot()
    assert graph.to_svg().startswith("<svg")
    assert "wait wait" in graph.describe()
    other = long_flow().add_wait("unused", "x")
    assert (
        other.add_edge("wait", "unused", when=lambda state: False, name="never").add_edge("unused", END).compile().graph_hash
        != graph.graph_hash
    )
