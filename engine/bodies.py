"""Node bodies in flight: starting them, timing them out, cancelling them, bringing back what became of them.

Knows the author's functions, tasks and threads; knows no store and decides
nothing.  What happened is handed back as an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

from engine.clock import Clock, Timer
from engine.commands import StartBody
from engine.context import StepContext
from engine.errors import BranchError, NodeTimeoutError
from engine.events import BodyFailed, BodyReturned, Event
from engine.plan import NodePlan
from engine.threads import NodeThreads, ThreadCall
from engine.walk import Walk

_MICROSECOND: Final = timedelta(microseconds=1)


class _Body:
    """A node's body in flight."""

    __slots__ = ("call", "context", "start", "task", "timed_out", "timer")

    def __init__(self, start: StartBody, context: StepContext | None) -> None:
        self.start = start
        self.context = context
        self.task: asyncio.Task[None] | None = None
        self.timer: Timer | None = None
        self.call: ThreadCall | None = None
        self.timed_out = False

    def revoke(self, reason: str) -> None:
        if self.context is not None:
            self.context.revoke(reason)
        if self.timer is not None:
            self.timer.cancel()


class Bodies:
    """The node bodies of one run that this process has begun."""

    def __init__(self, walk: Walk, clock: Clock, threads: NodeThreads, post: Callable[[Event], None]) -> None:
        self._walk = walk
        self._clock = clock
        self._threads = threads
        self._post = post
        self._in_flight: dict[str, _Body] = {}
        self._abandoned: dict[tuple[str, str, int], ThreadCall] = {}
        """By path, node and visit: threads whose attempt timed out and that had not returned then."""
        self._causes: dict[str, BaseException] = {}
        """By path: the exceptions this process saw, for whoever asks why the run failed."""
        self._task: asyncio.Task[Any] | None = None
        self._inline = False
        self._interrupts = 0
        """How often `interrupt` has cancelled the driver's own task, to wake the body that runs in it."""

    def interrupt(self) -> None:
        """Wake the body that runs in the driver's own task, if one does: the run is to be cancelled or suspended."""
        if self._inline and self._task is not None:
            self._interrupts += 1
            self._task.cancel()

    async def cancel_all(self, reason: str) -> None:
        """`cancel` everything in flight."""
        await self.cancel(list(self._in_flight), reason)

    def _arguments(self, node: NodePlan, start: StartBody) -> tuple[tuple[Any, ...], StepContext | None]:
        if node.takes == "nothing":
            return (), None
        state = self._walk.state
        scope = state.scopes[start.path]
        view = self._walk.plan.at(start.path).schema.view(scope.read)
        if node.takes == "state":
            return (view,), None
        context = StepContext(
            state.run_id, start.path, start.node, start.visit, start.failed, state.attempt, scope.error, scope.all_decisions()
        )
        return (view, context), context

    async def run_here(self, node: NodePlan, start: StartBody) -> Event | None:
        """Run a lone async body in the driver's own task; None where it was interrupted by `cancel` or `suspend`."""
        arguments, context = self._arguments(node, start)
        started_at = self._clock.now()
        self._task = asyncio.current_task()
        self._inline = True
        try:
            value = await node.fn(*arguments)  # type: ignore[misc]
        except asyncio.CancelledError:
            if self._interrupts:
                await self._absorb_interrupts()
                return None
            if self._task is not None and self._task.cancelling():
                raise
            return self._failed(start, RuntimeError("the node was cancelled from inside (it raised CancelledError)"), started_at)
        except Exception as error:  # noqa: BLE001 - whatever a node raises is an outcome
            if self._interrupts:
                # What a body raises when it is told to stop is no failure of the node: the request is read next.
                await self._absorb_interrupts()
                return None
            return self._failed(start, error, started_at)
        finally:
            self._inline = False
            if context is not None:
                context.revoke("the node has returned")
        if self._interrupts:
            # The body finished although it was told to stop: its work counts, and the request is read next.
            await self._absorb_interrupts()
        return BodyReturned(start.path, start.node, start.visit, value, started_at)

    async def _absorb_interrupts(self) -> None:
        """Take back our own cancellations of this task, which may not have been delivered yet; another's goes on."""
        self._inline = False
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        assert self._task is not None  # noqa: S101 - only `drive` runs bodies
        for _ in range(self._interrupts):
            self._task.uncancel()
        self._interrupts = 0
        if self._task.cancelling():
            raise asyncio.CancelledError

    def launch(self, start: StartBody) -> None:
        node = self._walk.plan.at(start.path).nodes[start.node]
        arguments, context = self._arguments(node, start)
        body = _Body(start, context)
        self._in_flight[start.path] = body
        body.task = asyncio.create_task(self._run(node, body, arguments))

    async def _run(self, node: NodePlan, body: _Body, arguments: tuple[Any, ...]) -> None:
        start = body.start
        started_at = self._clock.now()
        event: Event
        try:
            before = self._abandoned.pop(start[:3], None)
            if before is not None and not node.overlap and not before.over.done():
                await asyncio.shield(before.over)
            if node.timeout is not None:
                body.timer = self._clock.call_at(self._clock.now() + node.timeout // _MICROSECOND, partial(self._time_out, body))
            if node.is_async:
                value = await node.fn(*arguments)  # type: ignore[misc]
            else:
                body.call = self._threads.start(partial(node.fn, *arguments))  # type: ignore[arg-type, misc]
                value = await body.call.answer
            event = BodyReturned(start.path, start.node, start.visit, value, started_at)
        except asyncio.CancelledError:
            if not body.timed_out:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                event = self._failed(start, RuntimeError("the node was cancelled from inside (it raised CancelledError)"), started_at)
        except Exception as error:  # noqa: BLE001 - whatever a node raises is an outcome
            event = self._failed(start, error, started_at)
        finally:
            body.revoke("the node has returned")
        if body.timed_out:
            assert node.timeout is not None  # noqa: S101
            event = self._failed(start, NodeTimeoutError(start.node, start.path, node.timeout.total_seconds()), started_at)
            if body.call is not None and not body.call.over.done():
                self._abandoned[start[:3]] = body.call
        if self._in_flight.get(start.path) is body:
            del self._in_flight[start.path]
            self._post(event)

    def _time_out(self, body: _Body) -> None:
        body.timed_out = True
        body.revoke("timed out")
        if body.task is not None:
            body.task.cancel()

    def _failed(self, start: StartBody, error: BaseException, started_at: int) -> BodyFailed:
        self._causes[start.path] = error
        return BodyFailed(start.path, start.node, start.visit, error, started_at)

    async def cancel(self, paths: Sequence[str], reason: str) -> None:
        """Cancel bodies and wait until the async ones have ended; threads cannot be stopped, only disowned."""
        tasks = []
        for path in paths:
            body = self._in_flight.pop(path, None)
            if body is not None and body.task is not None:
                body.revoke(reason)
                body.task.cancel()
                tasks.append(body.task)
        if tasks:
            await asyncio.wait(tasks)

    def explained(self, error: BaseException) -> BaseException:
        """Chain the exceptions of the branches that failed below their BranchErrors, where this process saw them."""
        for failed in error.exceptions if isinstance(error, BaseExceptionGroup) else (error,):
            if isinstance(failed, BranchError) and failed.__cause__ is None:
                cause = self._causes.get(failed.error.get("path", ""))
                # The newest exception seen there may have been an earlier one, which took a fallback.
                if cause is not None and type(cause).__qualname__ == failed.error.get("type"):
                    failed.__cause__ = cause
        return error
