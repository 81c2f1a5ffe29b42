"""What a flow needs opened beside the store: opened for its runs and nobody else's, and given back on every way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from trailmark import (
    END,
    ArgumentError,
    Decision,
    Flow,
    GraphExecutor,
    MissingResourceError,
    ResourceError,
    ResourceNotClosedWarning,
    RunFailedError,
    StepContext,
    UndeclaredResourceError,
)
from trailmark.checkpoint_stores import MemoryCheckpointStore
from trailmark.worker import Worker


class Bank:
    """Opens connections and remembers what became of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_down = False
        self.breaks = False

    def opener(self, name: str = "bank") -> Callable[[], AbstractAsyncContextManager[str]]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[str]:
            if self.is_down:
                raise ConnectionError("no line")
            self.log.append(f"open {name}")
            try:
                yield f"a line to the {name}"
            finally:
                self.log.append(f"close {name}")
                if self.breaks:
                    raise ConnectionError("cut")

        return opened


async def pay(state: Any, ctx: StepContext) -> dict[str, Any]:
    return {"paid": ctx.resource("bank")}


def paying(body: Any = pay, **options: Any) -> Flow:
    return Flow("paying", {"paid": str}, **options).add_node("pay", body).set_entry("pay").add_edge("pay", END)


async def test_a_run_has_what_its_flow_needs_open_while_it_is_driven_and_no_longer() -> None:
    bank = Bank()

    async def looks(state: Any, ctx: StepContext) -> dict[str, Any]:
        assert bank.log == ["open bank"]
        return {"paid": ctx.resource("bank")}

    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(paying(looks, needs=["bank"]).compile(), store=store, resources={"bank": bank.opener()})
        assert (await executor.execute({})).values == {"paid": "a line to the bank"}
    assert bank.log == ["open bank", "close bank"]


async def test_only_what_the_flow_and_the_flows_in_it_need_is_opened() -> None:
    bank = Bank()
    inner = (
        Flow("inner", needs=["mail"])
        .add_node("send", lambda state, ctx: {"paid": ctx.resource("mail")})
        .set_entry("send")
        .add_edge("send", END)
    )
    flow = Flow("outer", {"paid": str}, needs=["bank"]).add_parallel("both", {"inner": inner}).set_entry("both").add_edge("both", END)
    async with MemoryCheckpointStore() as store:
        providers = {name: bank.opener(name) for name in ("bank", "mail", "fax")}
        result = await GraphExecutor(flow.compile(), store=store, resources=providers).execute({})
        assert result.values == {"paid": "a line to the mail"}
        await GraphExecutor(paying(lambda state: {}).compile(), store=store, resources=providers).execute({})
    assert bank.log == ["open bank", "open mail", "close mail", "close bank"]


@pytest.mark.parametrize("how", ["failed", "cancelled", "suspended", "waiting", "closed", "given back"])
async def test_everything_is_given_back_however_the_drive_ends(how: str) -> None:
    bank, begun = Bank(), asyncio.Event()

    async def body(state: Any, ctx: StepContext) -> dict[str, Any]:
        begun.set()
        if how == "failed":
            raise OSError
        if how != "waiting":
            await asyncio.Event().wait()
        return {}

    flow = Flow("paying", {"paid": str}, needs={"bank": bank.opener()}).add_node("pay", body).add_barrier("ok").add_node("again", body)
    graph = flow.set_entry("pay").add_edge("pay", "ok").add_edge("ok", "again").add_edge("again", END).compile()
    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
        run = await executor.start({})
        await begun.wait()
        match how:
            case "failed":
                with pytest.raises(RunFailedError):
                    await run.result()
            case "cancelled":
                await run.cancel(by="ana")
            case "suspended":
                await run.suspend()
            case "waiting":
                assert (await run.result()).status == "waiting"
            case "closed":
                await executor.aclose()
            case _:
                await executor.shutdown(timedelta(0))
        assert bank.log == ["open bank", "close bank"]
        if how == "waiting":
            await store.decide(run.run_id, "ok", Decision.approve(by="ana"))
            assert (await executor.resume(run.run_id)).status == "completed"
            assert bank.log == ["open bank", "close bank"] * 2


async def test_what_nobody_opens_is_told_before_anything_is_opened_or_begun() -> None:
    bank = Bank()
    flow = paying(needs={"bank": bank.opener(), "mail": None})
    async with MemoryCheckpointStore() as store:
        with pytest.raises(MissingResourceError, match="'mail', which nothing opens") as missing:
            GraphExecutor(flow.compile(), store=store)
        assert missing.value.names == ("mail",)
        with pytest.raises(MissingResourceError):
            Worker(flow, store=store)
        with pytest.raises(ArgumentError, match="'mail'"):
            GraphExecutor(flow.compile(), store=store, resources={"mail": "mailto:"})  # type: ignore[dict-item]
        assert (bank.log, await store.runs()) == ([], [])


async def test_a_run_whose_resource_cannot_be_opened_stays_as_it_was_and_gives_back_what_was_open() -> None:
    bank, other = Bank(), Bank()
    bank.is_down = True
    flow = paying(needs={"other": other.opener("other"), "bank": bank.opener()})
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(flow.compile(), store=store)
        run = await executor.start({})
        with pytest.raises(ResourceError, match="ConnectionError: no line") as failed:
            await run.result()
        assert (failed.value.name, isinstance(failed.value.__cause__, ConnectionError)) == ("bank", True)
        assert other.log == ["open other", "close other"]
        assert (await store.run(run.run_id)).owner is None
        bank.is_down = False
        assert (await executor.resume(run.run_id)).values == {"paid": "a line to the bank"}


async def test_a_run_that_is_over_as_it_is_taken_opens_nothing_and_is_over_whatever_is_down() -> None:
    """The decision that ends it is used with the taking: no body begins that could want anything."""
    bank = Bank()
    flow = Flow("paying", {"paid": str}, needs=["bank"]).add_node("pay", pay).add_barrier("ask").set_entry("pay")
    graph = flow.add_edge("pay", "ask").add_edge("ask", END).compile()
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(graph, store=store, resources={"bank": bank.opener()})
        run = await executor.start({})
        assert (await run.result()).status == "waiting"
        bank.is_down = True
        await run.decide("ask", Decision.approve(by="ana"))
        assert (await run.result()).status == "completed"
        assert bank.log == ["open bank", "close bank"]


@pytest.mark.parametrize("word", ["stop", "shutdown", "suspend", "cancel", "aclose"])
async def test_a_run_whose_resource_is_never_open_stops_when_it_is_told_to(word: str) -> None:
    opening, bank = asyncio.Event(), Bank()

    @asynccontextmanager
    async def never() -> AsyncIterator[str]:
        opening.set()
        await asyncio.Event().wait()
        yield "nothing"

    flow = paying(needs={"bank": bank.opener(), "other": never})
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(flow.compile(), store=store)
        run = await executor.start({})
        await opening.wait()
        async with asyncio.timeout(5):
            await (executor.aclose() if word == "aclose" else run.cancel(by="ana") if word == "cancel" else getattr(run, word)())
        record = await store.run(run.run_id)
        expected = {"shutdown": "ready", "cancel": "cancelled"}.get(word, "suspended")
        assert (record.status, record.owner, executor.is_driving(run.run_id)) == (expected, None, False)
        assert bank.log == ["open bank", "close bank"]
        if expected != "cancelled":
            again = GraphExecutor(flow.compile(), store=store, resources={"other": bank.opener("other")})
            assert (await again.resume(run.run_id)).values == {"paid": "a line to the bank"}


async def test_an_opener_that_says_it_was_cancelled_cancels_nobody() -> None:
    bank = Bank()

    @asynccontextmanager
    async def cancelled() -> AsyncIterator[str]:
        raise asyncio.CancelledError
        yield "nothing"

    flow = paying(needs={"bank": bank.opener(), "other": cancelled})
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(flow.compile(), store=store)
        with pytest.raises(ResourceError, match="'other' could not be opened: CancelledError"):
            await executor.execute({})
        assert [(run.status, run.owner) for run in await store.runs()] == [("ready", None)]
        assert bank.log == ["open bank", "close bank"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_closer_that_says_it_was_cancelled_cancels_nobody(fails: bool) -> None:
    @asynccontextmanager
    async def cancelled() -> AsyncIterator[str]:
        yield "a line"
        raise asyncio.CancelledError

    bank = Bank()
    bank.is_down = fails
    flow = paying(needs={"other": cancelled, "bank": bank.opener()})
    async with MemoryCheckpointStore() as store:
        executor = GraphExecutor(flow.compile(), store=store)
        run = await executor.start({})
        with pytest.warns(ResourceNotClosedWarning, match="CancelledError"):
            told = await asyncio.gather(run.result(), return_exceptions=True)
        assert [getattr(each, "status", type(each)) for each in told] == [ResourceError if fails else "completed"]
        assert (await store.run(run.run_id)).owner is None


async def test_what_cannot_be_closed_is_a_warning_and_the_run_is_as_it_is() -> None:
    bank = Bank()
    bank.breaks = True
    async with MemoryCheckpointStore() as store:
        with pytest.warns(ResourceNotClosedWarning, match="cut"):
            result = await GraphExecutor(paying(needs={"bank": bank.opener()}).compile(), store=store).execute({})
        assert result.status == "completed"
        assert [type(warning) for warning in result.warnings] == [ResourceNotClosedWarning]


async def test_a_worker_opens_for_each_run_what_its_flow_needs() -> None:
    bank = Bank()
    graph = paying(needs=["bank"]).compile()
    async with MemoryCheckpointStore() as store:
        submitted = GraphExecutor(graph, store=store, resources={"bank": bank.opener()})
        run_ids = [await submitted.submit({}) for _ in range(3)]
        assert bank.log == [], "who only submits drives nothing"
        await Worker(graph, store=store, concurrency=1, resources={"bank": bank.opener()}).run(until_idle=True)
        assert {(await store.run(run_id)).status for run_id in run_ids} == {"completed"}
    assert bank.log == ["open bank", "close bank"] * 3


async def test_what_is_not_declared_cannot_be_had() -> None:
    async with MemoryCheckpointStore() as store:
        with pytest.raises(RunFailedError) as failed:
            await GraphExecutor(paying(needs={"mail": Bank().opener()}).compile(), store=store).execute({})
        assert isinstance(failed.value.__cause__, UndeclaredResourceError)
        assert failed.value.__cause__.declared == ("mail",)


def test_what_a_flow_needs_is_no_part_of_its_hash() -> None:
    assert paying().compile().graph_hash == paying(needs=["bank"]).compile().graph_hash
