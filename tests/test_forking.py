"""Parts of a step's work: contexts that a body forks by hand for tasks and threads it starts itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from trailmark import (
    END,
    ArgumentError,
    Flow,
    ForkedWaitError,
    GraphExecutor,
    PartContext,
    Retry,
    RunFailedError,
    StaleContextError,
    StepContext,
    current_step,
)
from trailmark.checkpoint_stores import MemoryCheckpointStore

PARTS = ("one", "two", "three")


async def ran(body: Callable[[Any, StepContext], Awaitable[dict[str, Any]]], **options: Any) -> Any:
    flow = Flow("parts", {"said": list[str]}).add_node("work", body, **options).set_entry("work").add_edge("work", END)
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        return await executor.execute({"said": []}), store


async def test_each_part_is_the_same_step_with_a_key_of_its_own_that_every_attempt_has() -> None:
    keys: list[dict[str, str]] = []

    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        parts = [ctx.fork(name) for name in PARTS]
        assert {(part.run_id, part.node, part.visit, part.attempt) for part in parts} == {(ctx.run_id, "work", 1, ctx.attempt)}
        keys.append({"": ctx.idempotency_key, **{part.part: part.idempotency_key for part in parts}})
        if ctx.attempt == 1:
            raise OSError
        return {}

    await ran(work, retry=Retry(first=timedelta(0)))
    assert keys[0] == keys[1]
    assert len(set(keys[0].values())) == 4


async def test_parts_carry_out_effects_of_one_name_each_once() -> None:
    done: list[str] = []

    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        async def one(name: str) -> str:
            with ctx.fork(name) as part:
                return str(await part.once("send", send, name))

        async def send(name: str) -> str:
            done.append(name)
            return f"sent {name}"

        said = await asyncio.gather(*(one(name) for name in PARTS))
        if ctx.attempt == 1:
            raise OSError
        return {"said": list(said)}

    result, store = await ran(work, retry=Retry(first=timedelta(0)))
    assert result.values["said"] == ["sent one", "sent two", "sent three"]
    assert sorted(done) == sorted(PARTS)
    assert sorted(effect.name for effect in await store.effects(result.run_id)) == ["one/send", "three/send", "two/send"]


async def test_whatever_a_part_calls_is_told_of_that_part_and_nobody_beside_it() -> None:
    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        met = asyncio.Barrier(2)

        async def one(name: str) -> str:
            with ctx.fork(name) as part:
                await met.wait()
                assert current_step() is part
                here = current_step()
                assert isinstance(here, PartContext)
                said = here.part
            assert current_step() is ctx
            return said

        return {"said": [*await asyncio.gather(one("one"), one("two"))]}

    assert (await ran(work))[0].values["said"] == ["one", "two"]


async def test_a_part_can_be_told_to_stop_alone_and_is_told_with_its_step() -> None:
    begun = threading.Barrier(3)
    told: list[tuple[str, str | None]] = []

    def in_thread(part: PartContext) -> None:
        begun.wait()
        assert part.cancel.wait(timedelta(seconds=20))
        told.append((part.part, part.cancel.reason))

    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        first, second = ctx.fork("first"), ctx.fork("second")
        threads = [threading.Thread(target=in_thread, args=(part,)) for part in (first, second)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(begun.wait)
        first.cancel.set("not needed")
        await asyncio.to_thread(threads[0].join)
        assert not ctx.cancel.is_set()
        ctx.cancel.set("all of it")
        await asyncio.to_thread(threads[1].join)
        return {}

    await ran(work)
    assert told == [("first", "not needed"), ("second", "all of it")]


async def test_a_part_ends_with_its_block_and_with_its_step() -> None:
    kept: list[PartContext] = []

    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        with ctx.fork("short") as short:
            assert not short.ended
        kept.extend([short, ctx.fork("long").fork("longer")])
        with pytest.raises(StaleContextError, match="'short' is over"):
            short.emit_token("late")
        with pytest.raises(ArgumentError):
            ctx.fork("")
        return {}

    await ran(work)
    for part in kept:
        assert part.ended
        with pytest.raises(StaleContextError):
            part.emit_token("late")
        assert part.cancel.is_set()


async def test_parts_say_what_they_say_in_the_steps_voice() -> None:
    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        ctx.emit_token("a")
        for name in PARTS:
            with ctx.fork(name) as part:
                part.emit_token(name)
        return {}

    flow = Flow("parts", {"said": list[str]}).add_node("work", work).set_entry("work").add_edge("work", END)
    executor = GraphExecutor(flow.compile(), store=MemoryCheckpointStore())
    run = await executor.execute({"said": []})
    tokens = [envelope.event async for envelope in executor.events(run.run_id) if envelope.event.kind == "step_token"]
    assert [(token.content, token.token_index) for token in tokens] == [("a", 1), ("one", 2), ("two", 3), ("three", 4)]


async def test_a_part_cannot_wait_for_a_signal() -> None:
    async def work(state: Any, ctx: StepContext) -> dict[str, Any]:
        with ctx.fork("one") as part:
            await part.wait_for("paid")
        return {}

    with pytest.raises(RunFailedError) as failed:
        await ran(work)
    assert isinstance(failed.value.__cause__, ForkedWaitError)
