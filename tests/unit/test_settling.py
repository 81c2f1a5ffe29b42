"""Those who wait for a writer's answer go on in the callback that brings it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from checkpoint_stores.sql.settling import Answer, answer

WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("where")


async def begun(waits: Any) -> asyncio.Task[Any]:
    """A task that has come to its waiting."""
    task = asyncio.create_task(waits)
    await asyncio.sleep(0)
    return task


async def got(waiting: asyncio.Future[Any]) -> Any:
    return await waiting


async def test_who_waits_goes_on_before_the_callback_returns_and_in_its_own_context() -> None:
    loop = asyncio.get_running_loop()
    waiting, told = Answer(loop=loop), []

    async def waits() -> None:
        WHERE.set("in the task")
        told.append(await waiting)
        told.append(WHERE.get())
        told.append(asyncio.current_task())

    task = await begun(waits())
    over = loop.create_future()

    def brought() -> None:
        answer([(waiting, 7, None)])
        over.set_result(list(told))

    loop.call_soon(brought)
    assert await over == [7, "in the task", task]


async def test_an_error_is_raised_where_somebody_waits() -> None:
    waiting = Answer(loop=asyncio.get_running_loop())
    task = await begun(got(waiting))
    asyncio.get_running_loop().call_soon(answer, [(waiting, None, ValueError("no"))])
    with pytest.raises(ValueError, match="no"):
        await task


async def test_several_who_wait_are_all_told_and_who_asks_later_finds_the_answer() -> None:
    waiting = Answer(loop=asyncio.get_running_loop())
    tasks = [await begun(got(waiting)) for _ in range(3)]
    asyncio.get_running_loop().call_soon(answer, [(waiting, 7, None)])
    assert await asyncio.gather(*tasks) == [7, 7, 7]
    assert await got(waiting) == 7


async def test_who_was_cancelled_is_told_nothing_and_keeps_nobody_from_being_told() -> None:
    loop = asyncio.get_running_loop()
    first, second = Answer(loop=loop), Answer(loop=loop)
    tasks = [await begun(got(first)), await begun(got(second))]
    tasks[0].cancel()
    loop.call_soon(answer, [(first, 1, None), (second, 2, None)])
    assert await tasks[1] == 2
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert first.cancelled()


async def test_who_waits_with_others_or_for_a_time_only_is_told() -> None:
    loop = asyncio.get_running_loop()
    waiting = Answer(loop=loop)
    shielded = await begun(got(asyncio.shield(waiting)))
    timed = await begun(asyncio.wait_for(waiting, 10))
    waited = await begun(asyncio.wait([waiting]))
    loop.call_soon(answer, [(waiting, 7, None)])
    assert await asyncio.gather(shielded, timed) == [7, 7]
    done, _pending = await waited
    assert done == {waiting}


def test_who_ends_the_loop_when_told_keeps_nobody_from_being_told() -> None:
    loop = asyncio.new_event_loop()
    first, second = Answer(loop=loop), Answer(loop=loop)

    async def leaves() -> None:
        await first
        raise SystemExit(3)

    left, stays = loop.create_task(leaves()), loop.create_task(got(second))
    loop.call_soon(answer, [(first, None, None), (second, 2, None)])
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert loop.run_until_complete(stays) == 2
    assert isinstance(left.exception(), SystemExit)
    loop.close()
