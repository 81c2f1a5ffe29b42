"""Side effects are carried out once, and one that may or may not have happened is named and never repeated by itself."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from trailmark import (
    END,
    EffectInDoubtError,
    Flow,
    FlowGraph,
    GraphExecutor,
    LeaseLostError,
    Retry,
    RunFailedError,
    StaleContextError,
    StepContext,
    StoreUnavailableError,
    branch,
    register_type,
)
from trailmark.checkpoint_stores import (
    EffectNotInDoubtError,
    EffectRecord,
    MemoryCheckpointStore,
    MemoryDatabase,
    SQLCheckpointStore,
)

NOW = timedelta(0)
AT_ONCE = Retry(attempts=3, first=timedelta(0), jitter=0.0)


class Bank:
    """Counts what really happens."""

    def __init__(self) -> None:
        self.debits: list[int] = []
        self.begun = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def debit(self, amount: int) -> dict[str, Any]:
        self.debits.append(amount)
        self.begun.set()
        await self.answers.wait()
        return {"receipt": len(self.debits)}


@register_type(name="receipt on paper")
class Receipt(BaseModel):
    """What may be an outcome because it is registered."""

    number: int


def paying(pay: Any, **options: Any) -> FlowGraph:
    flow = Flow("paying", {"amount": int, "receipt": int, "note": str})
    flow.add_node("pay", pay, **options)
    flow.set_entry("pay").add_edge("pay", END)
    return flow.compile()


async def once(store: Any, graph: FlowGraph, **options: Any) -> Any:
    async with GraphExecutor(graph, store=store) as executor:
        return await executor.execute({"amount": 7}, **options)


async def resumed(store: Any, graph: FlowGraph, run_id: str) -> Any:
    async with GraphExecutor(graph, store=store) as executor:
        return await executor.resume(run_id)


async def interrupted(store: Any, graph: FlowGraph, bank: Bank) -> str:
    """A run that is suspended while the bank has the debit and has not answered; the bank answers from then on."""
    bank.answers.clear()
    async with GraphExecutor(graph, store=store) as executor:
        handle = await executor.start({"amount": 7})
        await bank.begun.wait()
        await handle.suspend("a deployment")
    bank.answers.set()
    return handle.run_id


def simple(bank: Bank, **options: Any) -> Any:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        receipt = await ctx.once("debit", bank.debit, state["amount"], **options)
        return {"receipt": receipt["receipt"]}

    return pay


async def test_an_effect_that_was_done_is_not_carried_out_by_the_next_attempt() -> None:
    bank = Bank()

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        receipt = await ctx.once("debit", bank.debit, state["amount"])
        if ctx.attempt < 3:
            raise ConnectionError("behind the debit")
        return {"receipt": receipt["receipt"]}

    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(pay, retry=AT_ONCE))
        effects = await store.effects(result.run_id)
    assert result.values["receipt"] == 1
    assert bank.debits == [7]
    assert [(effect.name, effect.status, effect.outcome, effect.place) for effect in effects] == [
        ("debit", "done", {"receipt": 1}, "pay#1")
    ]


async def test_a_plain_node_carries_its_effects_out_in_its_own_thread() -> None:
    threads: list[tuple[int, int]] = []

    def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        def debit(amount: int, *, times: int) -> int:
            threads.append((threading.get_ident(), threading.main_thread().ident or 0))
            return amount * times

        first = ctx.once_sync("debit", debit, state["amount"], times=2)
        return {"receipt": first + ctx.once_sync("debit", debit, state["amount"], times=2)}

    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(pay))
    assert result.values["receipt"] == 28
    assert len(threads) == 1
    assert threads[0][0] != threads[0][1]


async def test_a_plain_function_of_an_async_node_does_not_block_the_loop() -> None:
    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        answered = threading.Event()
        asyncio.get_running_loop().call_soon(answered.set)
        return {"receipt": int(await ctx.once("debit", answered.wait, 10))}

    async with MemoryCheckpointStore() as store:
        assert (await once(store, paying(pay))).values["receipt"] == 1


async def test_an_effect_that_raised_is_not_done_and_is_carried_out_by_the_next_attempt() -> None:
    tried: list[int] = []

    async def debit() -> int:
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionError("refused")
        return len(tried)

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        return {"receipt": await ctx.once("debit", debit)}

    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(pay, retry=AT_ONCE))
        effects = await store.effects(result.run_id)
    assert result.values["receipt"] == 3
    assert [(effect.status, effect.begun) for effect in effects] == [("done", 3)]


async def test_an_effect_that_was_interrupted_stops_the_run_in_doubt_though_its_node_has_a_retry() -> None:
    bank = Bank()
    graph = paying(simple(bank), retry=AT_ONCE)
    async with MemoryCheckpointStore() as store:
        run_id = await interrupted(store, graph, bank)
        assert [effect.status for effect in await store.effects(run_id)] == ["in_doubt"]
        result = await resumed(store, graph, run_id)
        assert result.status == "suspended"
        assert isinstance(result.exception, EffectInDoubtError)
        assert (result.exception.effect, result.exception.run_id) == ("debit", run_id)
        assert bank.debits == [7]
        assert (await resumed(store, graph, run_id)).status == "suspended"
        assert bank.debits == [7]


async def test_a_person_says_that_it_happened_and_the_run_goes_on_with_that_outcome() -> None:
    bank = Bank()
    graph = paying(simple(bank))
    async with MemoryCheckpointStore() as store:
        run_id = await interrupted(store, graph, bank)
        settled = await store.resolve_effect(run_id, "debit", done=True, outcome={"receipt": 41}, by="ana", reason="on the statement")
        assert (settled.status, settled.by, settled.reason) == ("done", "ana", "on the statement")
        result = await resumed(store, graph, run_id)
    assert (result.status, result.values["receipt"], bank.debits) == ("completed", 41, [7])


async def test_a_person_says_that_it_did_not_happen_and_it_is_carried_out_again() -> None:
    bank = Bank()
    graph = paying(simple(bank))
    async with MemoryCheckpointStore() as store:
        run_id = await interrupted(store, graph, bank)
        effect = (await store.effects(run_id))[0]
        await store.resolve_effect(run_id, effect.key[:8], done=False, by="ana")
        result = await resumed(store, graph, run_id)
    assert (result.status, result.values["receipt"], bank.debits) == ("completed", 2, [7, 7])


async def test_an_effect_that_may_happen_twice_is_carried_out_again_by_itself() -> None:
    bank = Bank()
    graph = paying(simple(bank, on_doubt="rerun"))
    async with MemoryCheckpointStore() as store:
        run_id = await interrupted(store, graph, bank)
        result = await resumed(store, graph, run_id)
    assert (result.status, bank.debits) == ("completed", [7, 7])


async def test_a_fallback_edge_takes_a_doubt_only_where_it_names_it() -> None:
    bank = Bank()

    def graph(*on: Any) -> FlowGraph:
        flow = Flow("paying", {"amount": int, "receipt": int, "note": str})
        flow.add_node("pay", simple(bank), retry=AT_ONCE)
        flow.add_node("ask", lambda state, ctx: {"note": ctx.error["type"]})
        flow.set_entry("pay").add_edge("pay", END).add_fallback("pay", "ask", on=on).add_edge("ask", END)
        return flow.compile()

    async with MemoryCheckpointStore() as store:
        run_id = await interrupted(store, graph(), bank)
        assert (await resumed(store, graph(), run_id)).status == "suspended"
        bank.begun.clear()
        run_id = await interrupted(store, graph(EffectInDoubtError), bank)
        result = await resumed(store, graph(EffectInDoubtError), run_id)
    assert (result.status, result.values["note"], bank.debits) == ("completed", "EffectInDoubtError", [7, 7])


async def test_an_exception_that_leaves_it_open_puts_the_effect_in_doubt() -> None:
    calls: list[int] = []

    async def debit() -> None:
        calls.append(1)
        raise TimeoutError("no answer")

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        await ctx.once("debit", debit, in_doubt_on=(TimeoutError,))
        return {}

    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(pay, retry=AT_ONCE))
        effects = await store.effects(result.run_id)
    assert (result.status, len(calls)) == ("suspended", 1)
    assert [(effect.status, effect.reason) for effect in effects] == [("in_doubt", "TimeoutError: no answer")]


async def test_a_node_that_times_out_within_an_effect_is_not_tried_again() -> None:
    bank = Bank()
    bank.answers.clear()
    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(simple(bank), retry=AT_ONCE, timeout=timedelta(milliseconds=30)))
    assert (result.status, bank.debits) == ("suspended", [7])


async def test_a_thread_that_outlives_its_timeout_still_writes_down_what_it_did() -> None:
    goes_on = threading.Event()
    stale: list[type] = []
    ended = threading.Event()

    def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        try:
            return {"receipt": ctx.once_sync("debit", lambda: goes_on.wait(20) and 5)}
        except StaleContextError:
            stale.append(StaleContextError)
            raise
        finally:
            ended.set()

    graph = paying(pay, timeout=timedelta(milliseconds=30))
    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError) as failed:
            await once(store, graph)
        assert [effect.status for effect in await store.effects(failed.value.result.run_id)] == ["in_doubt"]
        goes_on.set()
        await asyncio.to_thread(ended.wait, 20)
        effects = await store.effects(failed.value.result.run_id)
    assert [(effect.status, effect.outcome) for effect in effects] == [("done", 5)]
    assert stale == [StaleContextError]


async def test_what_an_effect_returns_must_be_data_and_what_is_none_leaves_it_in_doubt() -> None:
    calls: list[int] = []

    async def debit() -> object:
        calls.append(1)
        return object()

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        await ctx.once("debit", debit)
        return {}

    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(pay, retry=AT_ONCE))
        effects = await store.effects(result.run_id)
    assert (result.status, len(calls), effects[0].status) == ("suspended", 1, "in_doubt")
    assert "cannot be stored as data" in effects[0].reason


async def test_a_fork_carries_its_effects_out_anew() -> None:
    bank = Bank()
    flow = Flow("paying", {"amount": int, "receipt": int, "note": str})
    flow.add_node("begin", lambda state: {"note": "begun"})
    flow.add_node("pay", simple(bank))
    flow.set_entry("begin").add_edge("begin", "pay").add_edge("pay", END)
    graph = flow.compile()
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        result = await executor.execute({"amount": 7})
        fork = await executor.fork(result.run_id, at=2)
        await executor.resume(fork)
        keys = [(await store.effects(run_id))[0].key for run_id in (result.run_id, fork)]
    assert bank.debits == [7, 7]
    assert keys[0] != keys[1]


async def test_branches_have_effects_of_their_own_under_one_name() -> None:
    bank = Bank()

    async def left(state: Any, ctx: StepContext) -> dict[str, Any]:
        return {"receipt": (await ctx.once("debit", bank.debit, 1))["receipt"]}

    async def right(state: Any, ctx: StepContext) -> dict[str, Any]:
        await ctx.once("debit", bank.debit, 2)
        return {}

    flow = Flow("paying", {"amount": int, "receipt": int})
    flow.add_parallel("both", [left, branch(right)])
    flow.set_entry("both").add_edge("both", END)
    async with MemoryCheckpointStore() as store:
        result = await once(store, flow.compile())
        effects = await store.effects(result.run_id)
    assert sorted(bank.debits) == [1, 2]
    assert sorted(effect.place for effect in effects) == ["both[0].left#1", "both[1].right#1"]


async def test_a_process_that_lost_the_run_begins_no_effect() -> None:
    bank = Bank()
    database = MemoryDatabase()

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        if ctx.run_attempt == 1:
            await rival.acquire(ctx.run_id, takeover=True)
        return {"receipt": (await ctx.once("debit", bank.debit, 7))["receipt"]}

    async with MemoryCheckpointStore(database=database) as store, MemoryCheckpointStore(database=database) as rival:
        with pytest.raises(LeaseLostError):
            await once(store, paying(pay, retry=AT_ONCE))
    assert bank.debits == []


async def test_an_outcome_that_the_store_refuses_for_a_moment_is_written_down_later() -> None:
    bank = Bank()

    class Hiccup(MemoryCheckpointStore):
        refused = 0

        async def end_effect(self, effect: EffectRecord, epoch: int) -> EffectRecord:
            if not self.refused:
                self.refused += 1
                raise StoreUnavailableError(self.url, "a failover")
            return await super().end_effect(effect, epoch)

    async with Hiccup() as store:
        result = await once(store, paying(simple(bank)))
        assert store.refused == 1
    assert (result.status, bank.debits) == ("completed", [7])


async def test_a_store_that_cannot_be_written_stops_the_run_and_fails_no_node() -> None:
    bank = Bank()

    class Broken(MemoryCheckpointStore):
        async def begin_effect(self, effect: EffectRecord, epoch: int, *, again: bool = False) -> tuple[EffectRecord, bool]:
            raise StoreUnavailableError(self.url, "the disk is full")

    database = MemoryDatabase()
    for options in ({}, {"timeout": timedelta(seconds=60)}):
        graph = paying(simple(bank), **options)
        async with Broken(database=database) as store:
            async with GraphExecutor(graph, store=store) as executor:
                handle = await executor.start({"amount": 7})
                with pytest.raises(StoreUnavailableError):
                    await handle.result()
            assert [row.kind async for row in store.history(handle.run_id)] == ["start"]
    assert bank.debits == []


async def in_parts(ctx: StepContext, fn: Any, **options: Any) -> None:
    """Carry out one effect in each of two parts side by side, in a task group."""

    async def one(name: str) -> None:
        with ctx.fork(name) as part:
            await part.once("debit", fn, name, **options)

    async with asyncio.TaskGroup() as parts:
        for name in ("first", "second"):
            parts.create_task(one(name))


async def gathered(ctx: StepContext, fn: Any) -> None:
    await asyncio.gather(*(ctx.once(name, fn, name) for name in ("first", "second")))


@pytest.mark.parametrize("several", [in_parts, gathered, None], ids=["in a task group", "gathered", "in branches"])
async def test_a_store_that_several_are_told_cannot_be_written_fails_no_node_either(several: Any) -> None:
    calls: list[str] = []

    class Away(MemoryCheckpointStore):
        is_away = True

        async def begin_effect(self, effect: EffectRecord, epoch: int, *, again: bool = False) -> tuple[EffectRecord, bool]:
            if self.is_away:
                raise StoreUnavailableError(self.url, "it is away")
            return await super().begin_effect(effect, epoch, again=again)

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        await several(ctx, calls.append)
        return {}

    async def alone(state: Any, ctx: StepContext) -> dict[str, Any]:
        await ctx.once("debit", calls.append, ctx.path)
        return {}

    graph = paying(pay)
    if several is None:
        flow = Flow("paying", {"amount": int}).add_parallel("both", [branch(alone, name="first"), branch(alone, name="second")])
        graph = flow.set_entry("both").add_edge("both", END).compile()
    async with Away() as store, GraphExecutor(graph, store=store) as executor:
        handle = await executor.start({"amount": 7})
        with pytest.raises(StoreUnavailableError):
            await handle.result()
        assert calls == []
        store.is_away = False
        assert (await executor.resume(handle.run_id)).status == "completed"
    assert len(calls) == 2


async def test_a_doubt_among_several_failures_suspends_the_run_as_one_alone_does() -> None:
    calls: list[str] = []
    both = asyncio.Event()

    async def debit(name: str) -> None:
        calls.append(name)
        if name == "first":
            await both.wait()
            raise TimeoutError("no answer")
        both.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("no such account") from None

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        await in_parts(ctx, debit, in_doubt_on=(TimeoutError,))
        return {}

    async with MemoryCheckpointStore() as store:
        result = await once(store, paying(pay, retry=AT_ONCE))
    assert (result.status, type(result.exception), calls) == ("suspended", EffectInDoubtError, ["first", "second"])


async def test_an_effect_in_progress_or_done_cannot_be_settled() -> None:
    bank = Bank()
    bank.answers.clear()
    graph = paying(simple(bank))
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        handle = await executor.start({"amount": 7})
        await bank.begun.wait()
        with pytest.raises(EffectNotInDoubtError, match="living process"):
            await store.resolve_effect(handle.run_id, "debit", done=False, by="ana")
        bank.answers.set()
        await handle.result()
        with pytest.raises(EffectNotInDoubtError, match="is done"):
            await store.resolve_effect(handle.run_id, "debit", done=False, by="ana")


async def test_the_wrong_twin_is_refused_with_the_right_ones_name() -> None:
    async def waits(state: Any, ctx: StepContext) -> dict[str, Any]:
        ctx.once_sync("debit", lambda: 1)
        return {}

    def blocks(state: Any, ctx: StepContext) -> dict[str, Any]:
        ctx.once("debit", lambda: 1)
        return {}

    async with MemoryCheckpointStore() as store:
        for node, right in ((waits, r"ctx\.once\("), (blocks, r"ctx\.once_sync")):
            with pytest.raises(RunFailedError, match=right):
                await once(store, paying(node))


async def test_what_once_returns_live_is_what_it_returns_after_a_resume(sqlite_url: str) -> None:
    seen: list[Any] = []

    async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
        seen.append(await ctx.once("debit", lambda: {"pair": (1, 2), "at": timedelta(1)}))
        if ctx.attempt == 1:
            raise ConnectionError
        return {}

    async with SQLCheckpointStore(sqlite_url) as store:
        await once(store, paying(pay, retry=AT_ONCE))
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert type(seen[0]["pair"]) is type(seen[1]["pair"])


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_an_outcome_of_a_registered_type_comes_back_as_one(kind: str, request: pytest.FixtureRequest) -> None:
    told: list[Any] = []

    async def pay(state: dict[str, Any], ctx: StepContext) -> dict[str, Any]:
        told.append(await ctx.once("debit", lambda: Receipt(number=state["amount"])))
        if len(told) == 1:
            raise ConnectionError
        return {"receipt": told[-1].number}

    store: Any = MemoryCheckpointStore() if kind == "memory" else SQLCheckpointStore(request.getfixturevalue(f"{kind}_url"))
    async with store:
        result = await once(store, paying(pay, retry=AT_ONCE))
        assert result.values["receipt"] == 7
        assert told == [Receipt(number=7)] * 2
