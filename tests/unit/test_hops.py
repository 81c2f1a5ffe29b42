"""The way of threads into a loop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from checkpoint_stores.hops import into_loop

HERE: ContextVar[str] = ContextVar("here")


class SocketLoop(asyncio.SelectorEventLoop):
    """A loop that waits for sockets and nothing else."""

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        if fd != self._ssock.fileno():  # type: ignore[attr-defined]
            raise NotImplementedError
        return super().add_reader(fd, callback, *args)


@pytest.fixture(params=[asyncio.SelectorEventLoop, SocketLoop])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as running:
        yield running


def open_files() -> set[int]:
    return {int(file.name) for file in Path("/proc/self/fd").iterdir()}


def in_threads(*functions: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def test_each_call_of_many_threads_is_made_once_and_those_of_one_in_order(runner: asyncio.Runner) -> None:
    async def main() -> list[tuple[int, int]]:
        call, heard, over = into_loop(asyncio.get_running_loop()), [], asyncio.Event()

        def hear(thread: int, number: int) -> None:
            heard.append((thread, number))
            if len(heard) == 4 * 500:
                over.set()

        def calling(thread: int) -> Callable[[], None]:
            return lambda: [call(hear, thread, number) for number in range(500)] and None

        threads = in_threads(*map(calling, range(4)))
        await over.wait()
        for thread in threads:
            thread.join()
        return heard

    heard = runner.run(main())
    for thread in range(4):
        assert [number for who, number in heard if who == thread] == list(range(500))


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)])
def test_a_call_that_raises_takes_none_of_those_behind_it_away(runner: asyncio.Runner, error: BaseException) -> None:
    heard: list[int] = []
    told: list[Any] = []

    def bad() -> None:
        raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        call = into_loop(loop)

        def calling() -> None:
            for number in range(100):
                call(bad if number == 1 else lambda number=number: heard.append(number))

        in_threads(calling)[0].join()
        await heard_all()

    async def heard_all() -> None:
        while len(heard) < 99:
            await asyncio.sleep(0)

    try:
        runner.run(main())
    except SystemExit as ended:
        told.append(ended)
        runner.run(heard_all())
    assert told == [error]
    assert heard == [0, *range(2, 100)]


def test_who_first_asked_for_the_way_lends_its_context_to_nobody(runner: asyncio.Runner) -> None:
    async def main() -> str:
        HERE.set("who asked first")
        call, heard = into_loop(asyncio.get_running_loop()), asyncio.get_running_loop().create_future()
        in_threads(lambda: call(lambda: heard.set_result(HERE.get("nobody's"))))[0].join()
        return await heard

    assert runner.run(main()) == "nobody's"


def test_nobody_is_called_once_the_loop_is_closed_and_nobody_is_told() -> None:
    called: list[str] = []
    for kind in (asyncio.SelectorEventLoop, SocketLoop):
        loop = kind()
        call = loop.run_until_complete(_way())
        loop.close()
        call(called.append, "too late")
    assert called == []


async def _way() -> Any:
    return into_loop(asyncio.get_running_loop())


def test_all_who_ask_in_one_loop_share_a_way_and_its_files_are_closed_with_it() -> None:
    before = open_files()
    loop = asyncio.SelectorEventLoop()
    first, second = loop.run_until_complete(_way()), loop.run_until_complete(_way())
    assert first == second
    loop.close()
    del loop, first, second
    gc.collect()
    assert open_files() <= before


def test_a_child_of_a_fork_that_calls_takes_no_call_of_its_parent_away() -> None:
    async def main() -> tuple[list[Any], list[int]]:
        loop, told, heard = asyncio.get_running_loop(), [], []
        loop.set_exception_handler(lambda _loop, context: told.append(context))
        call = into_loop(loop)
        if (child := os.fork()) == 0:
            call(heard.append, 0)
            os._exit(0)
        os.waitpid(child, 0)
        in_threads(lambda: [call(heard.append, number) for number in (1, 2)])[0].join()
        while len(heard) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return told, heard

    assert asyncio.run(main()) == ([], [1, 2])


def test_an_interruption_while_the_loop_hears_makes_it_deaf_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    read, struck = os.read, []

    def interrupted(file: int, number: int) -> bytes:
        found = read(file, number)
        if not struck:
            struck.append(file)
            signal.raise_signal(signal.SIGINT)
        return found

    loop, heard = asyncio.SelectorEventLoop(), []
    call = loop.run_until_complete(_way())
    monkeypatch.setattr(os, "read", interrupted)

    async def both_heard() -> None:
        while len(heard) < 2:
            await asyncio.sleep(0)

    in_threads(lambda: call(heard.append, 1))[0].join()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(both_heard())
    in_threads(lambda: call(heard.append, 2))[0].join()
    loop.run_until_complete(both_heard())
    loop.close()
    assert (heard, len(struck)) == ([1, 2], 1)


def test_loops_that_are_closed_leave_their_pipe_to_the_next() -> None:
    gc.collect()
    gc.disable()
    try:
        before = len(open_files())
        kept = [asyncio.SelectorEventLoop() for _ in range(20)]
        for loop in kept:
            loop.run_until_complete(_way())
            loop.close()
        assert len(open_files()) <= before + 2
    finally:
        gc.enable()


@pytest.mark.parametrize("debug_first", [False, True])
def test_a_loop_that_is_debugged_is_called_too(*, debug_first: bool) -> None:
    async def main() -> bool:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.set_debug(debug_first)
        call = into_loop(loop)
        loop.set_debug(not debug_first)
        in_threads(lambda: call(heard.set))[0].join()
        return await heard.wait()

    assert asyncio.run(main())


def test_where_no_more_files_may_be_opened_the_loop_is_called_its_own_way() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        with no_more_files():
            call = into_loop(loop)
        heard = asyncio.Event()
        in_threads(lambda: call(heard.set))[0].join()
        return await heard.wait()

    assert asyncio.run(main())


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process may open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_files()) + 1, hard))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.dup(0))
        yield
    finally:
        for file in opened:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
