"""What a step knows and may do: when to stop, in which run it is, what its run holds; and whose runs a tenant sees."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, Receipt
from trailmark import (
    END,
    ArgumentError,
    CancelToken,
    CapabilityDenied,
    Decision,
    Flow,
    FlowGraph,
    GraphExecutor,
    NodeWarning,
    NoStepError,
    RunFailedError,
    StaleContextError,
    StepContext,
    branch,
    current_step,
)
from trailmark.checkpoint_stores import (
    MemoryCheckpointStore,
    RunNotFoundError,
    SQLCheckpointStore,
    TenantError,
    TenantStore,
)


def single(body: Callable[..., Any], **options: Any) -> FlowGraph:
    flow = Flow("single", {"amount": int, "note": str})
    flow.add_node("body", body, **options)
    return flow.set_entry("body").add_edge("body", END).compile()


# --- the cancel token -----------------------------------------------------------------------------------------------
async def test_a_token_is_set_once_and_tells_children_waiters_and_other_threads() -> None:
    token = CancelToken()
    child = token.child()
    waiting = asyncio.ensure_future(_awaited(child))
    blocked = asyncio.create_task(asyncio.to_thread(child.wait, timedelta(seconds=20)))
    await asyncio.sleep(0)
    child_of_its_own = token.child()
    child_of_its_own.set("alone")
    assert (token.is_set(), token.reason) == (False, None)
    await asyncio.to_thread(token.set, "enough")
    token.set("later")
    assert (await waiting, await blocked, token.reason, child_of_its_own.reason) == ("enough", True, "enough", "alone")
    assert (await token, token.child().is_set(), CancelToken().wait(timedelta(0))) == ("enough", True, False)


async def _awaited(token: CancelToken) -> str:
    return await token


STOPS = ["cancel", "suspend", "close", "timeout", "branch timeout", "fail_fast"]


@pytest.mark.parametrize("how", STOPS)
async def test_a_plain_node_hears_that_it_is_to_stop_and_why(how: str) -> None:
    begun = threading.Event()
    heard: list[str | None] = []
    over = threading.Event()

    def body(state: Any, ctx: StepContext) -> dict[str, Any]:
        begun.set()
        assert ctx.cancel.wait(timedelta(seconds=20))
        heard.append(ctx.cancel.reason)
        over.set()
        return {}

    async def fails(state: Any) -> dict[str, Any]:
        await asyncio.to_thread(begun.wait, 20)
        raise ConnectionError

    flow = Flow("single", {"amount": int, "note": str})
    short = timedelta(milliseconds=50)
    if how in ("branch timeout", "fail_fast"):
        other = [branch(fails, name="fails")] if how == "fail_fast" else []
        flow.add_parallel("both", [branch(body, name="body", timeout=short if not other else None), *other])
        flow.set_entry("both").add_edge("both", END)
    else:
        flow.add_node("body", body, timeout=short if how == "timeout" else None)
        flow.set_entry("body").add_edge("body", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        handle = await executor.start({"amount": 1})
        await asyncio.to_thread(begun.wait, 20)
        match how:
            case "cancel":
                await handle.cancel(by="ana", reason="wrong vendor")
            case "suspend":
                await handle.suspend("a deployment")
            case "close":
                await executor.aclose()
            case _:
                with pytest.raises(RunFailedError):
                    await handle.result()
        assert await asyncio.to_thread(over.wait, 20)
    expected = {
        "cancel": "the run was cancelled: wrong vendor",
        "suspend": "the run was suspended: a deployment",
        "close": "the run was suspended: the executor was closed",
        "timeout": "timed out",
        "branch timeout": "the run was failed",
        "fail_fast": "the run was failed",
    }
    assert heard == [expected[how]]


async def test_a_plain_node_without_a_context_learns_that_it_is_over_though_it_asks_late() -> None:
    begun, over, heard = threading.Event(), threading.Event(), asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def body(state: Any) -> None:
        begun.set()
        over.wait(20)
        step = current_step()
        try:
            step.warn("nobody hears this any more")
        except StaleContextError as stale:
            loop.call_soon_threadsafe(heard.set_result, (step.cancel.reason, stale.reason))

    flow = Flow("single", {"amount": int}).add_node("body", body)
    graph = flow.set_entry("body").add_edge("body", END).compile()
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        handle = await executor.start({"amount": 1})
        await asyncio.to_thread(begun.wait, 20)
        await handle.cancel(by="ana", reason="wrong vendor")
        over.set()
        assert await heard == 2 * ("the run was cancelled: wrong vendor",)


async def test_a_plain_node_by_which_the_program_ends_is_no_failed_one() -> None:
    loop, may_end = asyncio.get_running_loop(), threading.Event()

    def end_the_program() -> None:
        for task in asyncio.all_tasks(loop):
            if task.get_name().startswith("trailmark run"):
                task.cancel()

    def body(state: Any) -> None:
        loop.call_soon_threadsafe(end_the_program)
        may_end.wait(20)

    flow = Flow("single", {"amount": int}).add_node("body", body)
    async with (
        MemoryCheckpointStore() as store,
        GraphExecutor(flow.set_entry("body").add_edge("body", END).compile(), store=store) as executor,
    ):
        with pytest.raises(asyncio.CancelledError):
            await executor.execute({"amount": 1})
        may_end.set()
        assert [run.status for run in await store.runs()] == ["ready"]


async def test_what_a_plain_node_has_returned_as_its_run_is_given_back_counts() -> None:
    loop, answered = asyncio.get_running_loop(), threading.Event()
    drivers: list[Any] = []

    def meanwhile() -> None:
        answered.set()
        while not threads_are_idle():  # the loop stands still until the thread has answered: what comes then comes in the same turn
            pass
        loop.call_soon(drivers[0].give_back)

    def threads_are_idle() -> bool:
        return executor.statistics().threads == 0

    def body(state: Any) -> dict[str, Any]:
        loop.call_soon_threadsafe(meanwhile)
        answered.wait(20)
        return {"amount": 2}

    flow = Flow("single", {"amount": int}).add_node("body", body)
    async with (
        MemoryCheckpointStore() as store,
        GraphExecutor(flow.set_entry("body").add_edge("body", END).compile(), store=store) as executor,
    ):
        handle = await executor.start({"amount": 1})
        drivers.append(executor._drives.driver(handle.run_id))
        result = await handle.result()
        assert (result.status, result.values) == ("completed", {"amount": 2})


async def test_a_node_hears_that_it_is_to_stop_within_a_tenth_of_a_second() -> None:
    """Of 40 runs that are cancelled while a plain node waits in its thread, 38 must have told it by then."""
    begun: dict[str, threading.Event] = {}
    heard: queue.SimpleQueue[float] = queue.SimpleQueue()

    def body(state: Any, ctx: StepContext) -> dict[str, Any]:
        token = ctx.cancel
        begun[ctx.run_id].set()
        assert token.wait(timedelta(seconds=20))
        heard.put(time.perf_counter())
        return {}

    flow = Flow("single", {"amount": int, "note": str}).add_node("body", body).set_entry("body").add_edge("body", END)
    waits: list[float] = []
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        for number in range(40):
            run_id = new_id(number)
            begun[run_id] = threading.Event()
            handle = await executor.start({"amount": 1}, run_id=run_id)
            await asyncio.to_thread(begun[run_id].wait, 20)
            told = time.perf_counter()
            await handle.cancel(by="ana")
            waits.append(await asyncio.to_thread(heard.get, timeout=20) - told)
    assert sorted(waits)[37] < 0.1


async def test_an_async_node_in_the_drivers_own_task_hears_why_too() -> None:
    begun = asyncio.Event()
    heard: list[str | None] = []

    async def body(state: Any, ctx: StepContext) -> dict[str, Any]:
        child = ctx.cancel.child()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            heard.append(child.reason)
        return {}

    async with MemoryCheckpointStore() as store, GraphExecutor(single(body), store=store) as executor:
        handle = await executor.start({"amount": 1})
        await begun.wait()
        await handle.cancel(by="ana", reason="wrong vendor")
    assert heard == ["the run was cancelled: wrong vendor"]


async def test_a_token_may_be_asked_when_the_attempt_is_over() -> None:
    kept: list[StepContext] = []

    async def body(state: Any, ctx: StepContext) -> dict[str, Any]:
        kept.append(ctx)
        return {}

    async with MemoryCheckpointStore() as store, GraphExecutor(single(body), store=store) as executor:
        await executor.execute({"amount": 1})
    assert kept[0].cancel.reason == "the node has returned"
    with pytest.raises(StaleContextError):
        _ = kept[0].node


# --- the current step -----------------------------------------------------------------------------------------------
async def test_whatever_a_node_calls_can_ask_in_which_step_it_is() -> None:
    told: list[tuple[str, str, str, str, str | None, dict[str, str]]] = []

    def deep_down() -> None:
        step = current_step()
        told.append((step.flow, step.path, step.node, step.tenant, step.run_key, dict(step.labels)))

    async def lone(state: Any) -> dict[str, Any]:
        deep_down()
        await asyncio.to_thread(deep_down)
        return {}

    async def begins(state: Any) -> dict[str, Any]:
        async def inner() -> None:
            deep_down()

        await asyncio.create_task(inner())
        return {}

    def plain() -> dict[str, Any]:
        deep_down()
        return {}

    flow = Flow("deep", {"amount": int})
    flow.add_node("lone", lone).add_parallel("both", [begins, plain])
    flow.set_entry("lone").add_edge("lone", "both").add_edge("both", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        await executor.execute({"amount": 1}, tenant="acme", run_key="k", labels={"session": "7"})
    of_the_run = ("acme", "k", {"session": "7"})
    assert told[:2] == [("deep", "", "lone", *of_the_run)] * 2
    assert sorted(told[2:]) == [("deep", "both[0]", "begins", *of_the_run), ("deep", "both[1]", "plain", *of_the_run)]
    with pytest.raises(NoStepError):
        current_step()


async def test_what_outlives_its_step_is_in_no_later_one() -> None:
    goes_on = asyncio.Event()
    outliving: list[asyncio.Task[Any]] = []

    async def first(state: Any) -> dict[str, Any]:
        async def asks() -> str:
            await goes_on.wait()
            return current_step().node

        outliving.append(asyncio.create_task(asks()))
        return {}

    async def second(state: Any) -> dict[str, Any]:
        goes_on.set()
        with pytest.raises((NoStepError, StaleContextError)):
            await outliving[0]
        assert current_step().node == "second"
        return {}

    flow = Flow("deep", {"amount": int})
    flow.add_node("first", first).add_node("second", second)
    flow.set_entry("first").add_edge("first", "second").add_edge("second", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        assert (await executor.execute({"amount": 1})).status == "completed"


async def test_what_is_said_through_the_current_step_is_kept_with_it() -> None:
    async def says(state: Any) -> dict[str, Any]:
        await current_step().emit_token("said")
        return {}

    async def says_in_a_branch(state: Any) -> dict[str, Any]:
        await current_step().emit_token("said in a branch")
        return {}

    flow = Flow("deep", {"amount": int})
    flow.add_node("says", says).add_parallel("both", [says_in_a_branch])
    flow.set_entry("says").add_edge("says", "both").add_edge("both", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        run = await executor.execute({"amount": 1})
        told = [each.event async for each in executor.events(run.run_id)]
    assert [event.content for event in told if event.kind == "step_token"] == ["said", "said in a branch"]


@pytest.mark.parametrize("where", ["alone", "in a branch"])
async def test_all_threads_of_a_body_are_in_one_step_which_ends_with_it(where: str) -> None:
    interval = sys.getswitchinterval()
    found: list[list[StepContext]] = []

    async def asks(state: Any) -> dict[str, Any]:
        together = threading.Barrier(4)

        def first() -> StepContext:
            together.wait()
            step = current_step()
            step.emit_token("here")
            return step

        found.append(await asyncio.gather(*(asyncio.to_thread(first) for _ in range(4))))
        return {"amount": state["amount"] + 1}

    flow = Flow("deep", {"amount": int})
    if where == "alone":
        flow.add_node("asks", asks)
    else:
        flow.add_parallel("asks", [asks])
    flow.set_entry("asks").add_edge("asks", END, when=lambda state: state["amount"] == 300).add_edge("asks", "asks")
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        sys.setswitchinterval(1e-6)
        try:
            run = await executor.execute({"amount": 0})
        finally:
            sys.setswitchinterval(interval)
        tokens = [each async for each in executor.events(run.run_id) if each.event.kind == "step_token"]
    assert all(each is steps[0] and each.ended for steps in found for each in steps)
    assert len(tokens) == 4 * len(found) == 1200


class Slow(MemoryCheckpointStore):
    """A store that takes its time over a failure: until ``meanwhile`` has come to an end."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    async def commit(self, commit: Commit, *, within: Any = None) -> Receipt:
        if any(row.kind == "failure" for row in commit.rows):
            await self._meanwhile()
        return await super().commit(commit, within=within)


async def test_a_branch_that_is_given_up_before_it_is_told_so_is_in_no_step_any_more() -> None:
    goes_on, has_asked = asyncio.Event(), asyncio.Event()
    told: list[object] = []

    async def fails(state: Any) -> None:
        raise OSError

    async def asks(state: Any) -> None:
        await goes_on.wait()
        try:
            told.append(current_step().node)
        except Exception as error:
            told.append(type(error))
            raise
        finally:
            has_asked.set()

    async def meanwhile() -> None:
        goes_on.set()
        await has_asked.wait()

    graph = Flow("deep", {"amount": int}).add_parallel("both", [fails, asks]).set_entry("both").add_edge("both", END).compile()
    async with Slow(meanwhile) as store, GraphExecutor(graph, store=store) as executor:
        with pytest.raises(RunFailedError, match="OSError"):
            await executor.execute({"amount": 1})
    assert told == [NoStepError]


# --- warnings -------------------------------------------------------------------------------------------------------
async def test_what_a_node_warns_of_is_in_the_result_and_kept_with_its_step() -> None:
    async def lone(state: Any, ctx: StepContext) -> dict[str, Any]:
        ctx.warn("the rate is of yesterday")
        return {}

    def plain(state: Any, ctx: StepContext) -> dict[str, Any]:
        ctx.warn("rounded")
        return {}

    flow = Flow("warning", {"amount": int})
    flow.add_node("plain", plain).add_node("lone", lone)
    flow.set_entry("plain").add_edge("plain", "lone").add_edge("lone", END)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
            result = await executor.execute({"amount": 1})
            told = [event.event async for event in executor.events(result.run_id)]
    assert [(each.node, each.said) for each in result.warnings if isinstance(each, NodeWarning)] == [
        ("plain", "rounded"), ("lone", "the rate is of yesterday"),
    ]  # fmt: skip
    assert [each.data for each in told if each.kind == "custom" and each.name == "warning"] == ["rounded", "the rate is of yesterday"]


# --- capabilities ---------------------------------------------------------------------------------------------------
async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
    ctx.require("pay:acme", resource="the bank")
    return {"note": ",".join(sorted(ctx.capabilities))}


@pytest.mark.parametrize("held", [(), ("pay",), ("pay:acme:more",), ("PAY:ACME",), ("pay:*",)])
async def test_what_is_not_held_in_the_same_words_is_denied(held: tuple[str, ...]) -> None:
    async with MemoryCheckpointStore() as store, GraphExecutor(single(pay), store=store, capabilities=held) as executor:
        with pytest.raises(RunFailedError) as failed:
            await executor.execute({"amount": 1})
    denied = failed.value.__cause__
    assert isinstance(denied, CapabilityDenied)
    assert (denied.resource, denied.required, denied.held) == ("the bank", "pay:acme", frozenset(held))


async def test_capabilities_of_the_executor_or_of_the_start_are_held() -> None:
    async with MemoryCheckpointStore() as store, GraphExecutor(single(pay), store=store, capabilities=["pay:acme"]) as executor:
        assert (await executor.execute({"amount": 1})).values["note"] == "pay:acme"
        assert (await executor.execute({"amount": 1}, capabilities={"mail", "pay:acme"})).values["note"] == "mail,pay:acme"
        with pytest.raises(RunFailedError, match="the run holds none"):
            await executor.execute({"amount": 1}, capabilities=())
        with pytest.raises(ArgumentError):
            await executor.execute({"amount": 1}, capabilities="pay:acme")


async def test_a_run_keeps_what_it_holds_over_resumes_unless_it_is_said_anew() -> None:
    flow = Flow("single", {"amount": int, "note": str})
    flow.add_barrier("gate", prompt="Pay?").add_node("pay", pay)
    graph = flow.set_entry("gate").add_edge("gate", "pay").add_edge("pay", END).compile()
    async with MemoryCheckpointStore() as store:
        run_ids = []
        async with GraphExecutor(graph, store=store) as executor:
            for _ in range(2):
                run_ids.append((await executor.execute({"amount": 1}, capabilities={"pay:acme"})).run_id)
                await store.decide(run_ids[-1], "gate", Decision.approve(by="ana"))
        async with GraphExecutor(graph, store=store, capabilities={"other"}) as another:
            assert (await another.resume(run_ids[0])).values["note"] == "pay:acme"
            with pytest.raises(RunFailedError, match="CapabilityDenied"):
                await another.resume(run_ids[1], capabilities={"other"})


# --- tenants --------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> CheckpointStore:
    return MemoryCheckpointStore() if request.param == "memory" else SQLCheckpointStore(request.getfixturevalue("sqlite_url"))


async def test_a_tenant_finds_no_run_of_another_whatever_it_asks(store: Any) -> None:
    async def waits(state: Any, ctx: StepContext) -> dict[str, Any]:
        await ctx.once("mail", lambda: 1)
        return {"note": ctx.tenant}

    flow = Flow("single", {"amount": int, "note": str})
    flow.add_node("first", waits).add_barrier("gate", prompt="Go on?", show=["note"])
    graph = flow.set_entry("first").add_edge("first", "gate").add_edge("gate", END).compile()
    async with store:
        acme, rival = store.for_tenant("acme"), store.for_tenant("rival")
        async with GraphExecutor(graph, store=acme) as executor:
            result = await executor.execute({"amount": 1}, run_key="k")
        run_id = result.run_id
        record = await acme.run(run_id)
        assert (record.tenant, result.values["note"]) == ("acme", "acme")
        assert [(await acme.folded(run_id, upto)).seq for upto in (1, 2, None)] == [1, 2, record.head_seq]

        async def history() -> list[Any]:
            return [row async for row in rival.history(run_id)]

        asks: list[Callable[[], Any]] = [
            lambda: rival.run(run_id), lambda: rival.run(run_id[:13]), lambda: rival.load(run_id), lambda: rival.folded(run_id), history, lambda: rival.inbox(run_id),
            lambda: rival.verify(run_id), lambda: rival.barriers(run_id=run_id), lambda: rival.decisions(run_id),
            lambda: rival.decide(run_id, "gate", Decision.approve(by="eve")), lambda: rival.signal(run_id, "paid"),
            lambda: rival.signals(run_id), lambda: rival.effects(run_id), lambda: rival.runs(before=run_id),
            lambda: rival.resolve_effect(run_id, "mail", done=False, by="eve"), lambda: rival.request_cancel(run_id, actor="eve"),
            lambda: rival.acquire(run_id, takeover=True), lambda: rival.release(run_id, record.epoch),
            lambda: GraphExecutor(graph, store=rival).resume(run_id), lambda: GraphExecutor(graph, store=rival).fork(run_id),
            lambda: GraphExecutor(graph, store=rival).cancel(run_id, by="eve"),
        ]  # fmt: skip
        for ask in asks:
            with pytest.raises(RunNotFoundError):
                await ask()
        with pytest.raises(RunNotFoundError):
            rival.watch(run_id)
        assert await rival.runs() == []
        assert await rival.barriers() == []
        assert await rival.run_by_key("single", "k") is None
        for refused in (rival.stats, lambda: rival.runs(tenant="acme"), lambda: rival.run_by_key("single", "k", tenant="acme")):
            with pytest.raises(TenantError):
                await refused()
        with pytest.raises(TenantError):
            rival.for_tenant("acme")
        assert (await store.run(run_id)).status == "waiting"

        await acme.decide(run_id, "gate", Decision.approve(by="ana"))
        async with GraphExecutor(graph, store=acme) as executor:
            assert (await executor.resume(run_id)).status == "completed"
        assert [each.run_id for each in await acme.runs()] == [run_id]


def test_a_view_covers_everything_a_store_can_be_asked() -> None:
    asked = {name for name in dir(CheckpointStore) if not name.startswith("_")}
    assert asked <= set(dir(TenantStore)) | {"url", "chain"}
