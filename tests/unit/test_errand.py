"""A coroutine is carried out in callbacks of the loop, and in no task."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from checkpoint_stores.sql.errand import Errand
from checkpoint_stores.sql.settling import Answer

WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")


async def test_it_comes_as_far_as_it_can_at_once_and_goes_on_in_the_callback_that_brings_what_it_waits_for() -> None:
    loop, done = asyncio.get_running_loop(), []
    brings = loop.create_future()

    async def work() -> None:
        done.append("begun")
        done.append(await brings)
        done.append(asyncio.current_task())

    errand = Errand(work(), loop)
    assert done == ["begun"]
    brings.set_result("brought")
    loop.call_soon(done.append, "behind it")
    await asyncio.wait([errand.ended])
    assert done == ["begun", "brought", None, "behind it"]


async def test_an_answer_has_it_go_on_before_the_answer_returns_within_a_task_as_well() -> None:
    loop, done = asyncio.get_running_loop(), []
    waiting = Answer(loop=loop)

    async def work() -> None:
        done.append(await waiting)

    errand = Errand(work(), loop)
    waiting.answer(7, None)
    assert (done, errand.ended.done()) == ([7], True)


async def test_it_has_a_context_of_its_own_and_leaves_that_of_others_alone() -> None:
    loop, seen = asyncio.get_running_loop(), []
    waiting = Answer(loop=loop)

    async def work() -> None:
        seen.append(WHERE.get())
        WHERE.set("in the errand")
        await waiting
        seen.append(WHERE.get())

    WHERE.set("where it began")
    Errand(work(), loop)
    WHERE.set("where it is answered")
    waiting.answer(None, None)
    assert [*seen, WHERE.get()] == ["nowhere", "in the errand", "where it is answered"]


async def test_what_it_waits_for_in_vain_is_raised_in_it() -> None:
    loop, told = asyncio.get_running_loop(), []
    brings = loop.create_future()

    async def work() -> None:
        try:
            await brings
        except ValueError as error:
            told.append(str(error))

    errand = Errand(work(), loop)
    brings.set_exception(ValueError("no"))
    await errand.ended
    assert told == ["no"]


async def test_it_may_let_a_turn_of_the_loop_pass() -> None:
    loop, order = asyncio.get_running_loop(), []

    async def work() -> None:
        loop.call_soon(order.append, "another")
        await asyncio.sleep(0)
        order.append("errand")

    await Errand(work(), loop).ended
    assert order == ["another", "errand"]


async def test_what_wants_a_task_gets_one_that_it_waits_for() -> None:
    loop, told = asyncio.get_running_loop(), []

    async def in_time() -> str:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "in time"

    async def work() -> None:
        told.append(await loop.create_task(in_time()))

    await Errand(work(), loop).ended
    assert told == ["in time"]


async def test_how_it_fails_is_how_it_ended() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Errand(work(), asyncio.get_running_loop()).ended


async def test_what_ends_a_program_goes_on_up_to_whoever_had_it_go_on() -> None:
    loop = asyncio.get_running_loop()
    waiting: Any = Answer(loop=loop)

    async def work() -> None:
        await waiting
        raise KeyboardInterrupt

    errand = Errand(work(), loop)
    with pytest.raises(KeyboardInterrupt):
        waiting.answer(None, None)
    assert isinstance(errand.ended.exception(), KeyboardInterrupt)
