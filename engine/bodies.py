"""Node bodies in flight: starting them, timing them out, cancelling them, bringing back what became of them.

Knows the author's functions, tasks and threads; knows no store and decides
nothing.  What happened is handed back as an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final

from checkpoint_stores.codec import materialise
from checkpoint_stores.errors import StoreError
from checkpoint_stores.records import new_tuple
from engine.around import Around
from engine.clock import Clock, Timer
from engine.commands import StartBody
from engine.context import RunFacts, StepContext, runs_in
from engine.driving import DriveTask, HandedOverError, Strays, context_outside
from engine.effects import Effects
from engine.errors import BranchError, EffectInDoubtError, NodeCancelledError, NodeTimeoutError, NoStepError
from engine.events import BodyFailed, BodyReturned, BodyWaits, Event
from engine.facts import Began
from engine.failures import beyond_exception
from engine.identity import key_of
from engine.live import Live
from engine.middleware import NodeCall
from engine.notices import StrayBodyWarning, TrailmarkWarning
from engine.outcomes import BodyHeld
from engine.plan import ITEM, NodePlan, Plan
from engine.streaming import streamed
from engine.threads import NodeThreads, ThreadCall
from engine.transacting import Transacting
from engine.walk import Walk

_MICROSECOND: Final = timedelta(microseconds=1)
_NOT_THE_NODES: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends the process, the loop or a coroutine: nothing that a node has done wrong."""
_TAKEN: Final = {"nothing": 0, "state": 1, "state_context": 2}
"""How many of (state, context) a node's function takes."""


_MAKING: Final = threading.Lock()
"""Held while a body's context is made because it is asked for, and while a body ends that has none: several of its threads, and the loop,
may be the first to ask."""


class _Body:
    """A node's body in flight."""

    __slots__ = ("begun", "call", "context", "is_over", "start", "started_at", "task", "timed_out", "timer")

    def __init__(self, start: StartBody, context: StepContext | None, started_at: int) -> None:
        self.start = start
        self.context = context
        """None where it takes none, and nothing it calls has asked for it."""
        self.is_over = False
        self.started_at = started_at
        self.begun = False
        self.task: asyncio.Task[None] | None = None
        self.timer: Timer | None = None
        self.call: ThreadCall | None = None
        self.timed_out = False

    def revoke(self, reason: str) -> None:
        with _MAKING:
            self.is_over = True
        if self.context is not None:
            self.context.revoke(reason)
        if self.timer is not None:
            self.timer.cancel()


class Bodies:
    """The node bodies of one run that this process has begun."""

    def __init__(
        self, walk: Walk, clock: Clock, threads: NodeThreads, strays: Strays, *, post: Callable[[Event], None],
        warn: Callable[[TrailmarkWarning], None], hand_over: Callable[[], None], around: Around, effects: Effects, transacting: Transacting,
        facts: RunFacts, stop: Callable[[StoreError], None],
    ) -> None:  # fmt: skip
        self._walk = walk
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._strays = strays
        self._around = around
        self._post = post
        self._warn = warn
        self._hand_over = hand_over
        """Has the run driven on in another task."""
        self.live = Live(walk.state.run_id, walk.state.seq, walk.state.tokens, clock.now, self._begun)
        self._effects = effects
        self._transacting = transacting
        self._facts = facts
        self._stop = stop
        """Stops driving the run: the store failed a body."""
        self._in_flight: dict[str, _Body] = {}
        self._abandoned: dict[tuple[str, str, int], asyncio.Future[Any]] = {}
        """By path, node and visit: threads and strays whose attempt timed out and that had not come back then."""
        self._causes: dict[str, BaseException] = {}
        """By path: the exceptions this process saw, for whoever asks why the run failed."""
        self.task: DriveTask[Any] | None = None
        """The driver's own, in which it runs; None from when a body keeps it until there is another."""
        self._lent: StartBody | None = None
        """The lone body that the driver's task runs, if it does."""
        self._lent_context: StepContext | None = None
        self._interrupts = 0
        """How often `interrupt` has cancelled the driver's own task, to wake the body that runs in it."""
        self._patience: Timer | None = None
        """Rings when that body has had the time it gets to stop."""

    def retire(self) -> None:
        """The run is no longer driven here: a body that comes back later has nobody to tell."""
        self.task = None
        for cause in self._causes.values():
            _leave_to_the_author(cause)
        self._causes.clear()
        self._post = self._stop = self._warn = _nobody
        self._facts = self._facts._replace(warn=_nobody)

    # --- a lone body, in the driver's own task ----------------------------------------------------------------------
    def interrupt(self, reason: str) -> None:
        """Wake the body that runs in the driver's own task, if one does: the run is to be cancelled or suspended."""
        if self._lent is None or self.task is None:
            return
        if self._lent_context is not None:
            self._lent_context.stop(reason)
        self._interrupts += 1
        self.task.interrupt()
        if self._patience is None:
            self._patience = self._clock.call_at(self._end_of_grace(), partial(self._leave, self._lent))

    def _leave(self, start: StartBody) -> None:
        """The body in the driver's own task does not stop: leave it the task, and go on in another one."""
        if self._lent is not start or self.task is None:
            return
        self._patience = None
        with _MAKING:
            self._lent = None
        if self._lent_context is not None:
            self._lent_context.revoke(self._lent_context.cancel.reason or "cancelled")
        self._gave_up(start, self.task)
        self.task = None
        self._interrupts = 0
        self._hand_over()

    def _arguments(self, node: NodePlan, start: StartBody) -> tuple[tuple[Any, ...], StepContext | None]:
        takes, walk = node.takes, self._walk
        scope, plan = walk.state.scopes[start.path], walk.plan
        if takes == "nothing" and node.is_async and not node.streams:
            return (), None
        context = self._context(start)  # of a plain function always: its thread is not to read what the loop may be changing
        if takes in _TAKEN:
            return (plan.at(start.path).schema.view(scope.read), context)[: _TAKEN[takes]], context
        # A function that a map calls: its own scope holds the item, the scope around it the state.
        given: list[Any] = [materialise(scope.read(ITEM))]
        if "state" in takes:
            assert scope.parent is not None  # noqa: S101
            given.append(plan.at(scope.parent.path).schema.view(scope.parent.read))
        if "context" in takes:
            given.append(context)
        return tuple(given), context

    def _begun(self) -> Iterator[Began]:
        """The bodies that have begun and have not come to an end."""
        if self._lent is not None:
            yield self._known(self._lent, self._walk.began_at)
        for body in self._in_flight.values():
            if body.begun and body.start.path in self._walk.state.running:
                yield self._known(body.start, body.started_at)

    def _known(self, start: StartBody, began_at: int) -> Began:
        return Began(start.path, start.node, self._walk.index_of(start.path), began_at)

    def _begins(self, start: StartBody, context: StepContext | None, began_at: int) -> None:
        """Tell that a body has begun."""
        if context is not None:
            context.began_at = began_at
        if self.live.queues:
            self.live.began(*self._known(start, began_at))

    def _context(self, start: StartBody) -> StepContext:
        state = self._walk.state
        scope = state.scopes[start.path]
        context = StepContext(
            state.run_id, start.path, start.node, start.visit, start.failed, state.attempt, scope.error, scope.all_decisions(),
            self.live, self._walk.index_of(start.path), self._effects, self._transacting, self._facts,
        )  # fmt: skip
        if "keys" in state.details:
            context.is_known_by(key_of(state, start.path, start.node, start.visit))
        if scope.parent is not None:
            context.works_on(scope.item())
        context.hears(scope.heard or (), self._walk.plan.signals)
        return context

    def _lent_step(self, start: StartBody) -> StepContext:
        """The context of a lone body that takes none, made when something it calls asks for it."""
        with _MAKING:
            if self._lent is not start:
                raise NoStepError
            if self._lent_context is None:
                self._lent_context = self._context(start)
                self._lent_context.began_at = self._walk.began_at
            return self._lent_context

    async def run_here(self, node: NodePlan, start: StartBody) -> Event | None:
        """Run a lone body in the driver's own task; None where it was interrupted by `cancel` or `suspend`.

        Raises HandedOverError where another task has gone on without it.
        """
        task = self.task
        assert task is not None  # noqa: S101 - `drive` has said in which task it runs
        walk = self._walk
        context: StepContext | None = None
        if node.sees_state_alone:
            arguments: tuple[Any, ...] = (walk.plan.schema.view(walk.state.root.read),)
        else:
            arguments, context = self._arguments(node, start)
        started_at = walk.began_at = self._clock.now()
        if context is not None or self.live.queues:
            self._begins(start, context, started_at)
        outside = task.outside
        event: Event | None = None
        raised: BaseException | None = None
        self._lent, self._lent_context = start, context
        runs_in(context if context is not None else partial(self._lent_step, start))
        try:
            is_called_here = node.is_async and not node.streams
            value = await (node.fn(*arguments) if is_called_here else self._called(node, arguments, context))  # type: ignore[misc]
            path, name, visit, _failed = start
            speaker = self._lent_context if self._lent is start else context  # it may have been made only when it was asked for
            event = new_tuple(BodyReturned, (path, name, visit, value, started_at, None if speaker is None else speaker.said()))
        except _NOT_THE_NODES:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a node raises is an outcome
            raised = error
        finally:
            with _MAKING:
                is_left = self._lent is not start
                if not is_left:
                    context = self._lent_context
                    self._lent = self._lent_context = None
            if context is not None:
                context.revoke(self._why_over(context, is_outside=raised is not None and task.outside > outside))
        if is_left:
            raise HandedOverError
        if raised is not None and task.outside > outside:
            # Whoever ends the loop is no failure of the node, whatever the body makes of it.
            raise asyncio.CancelledError from raised
        if self._interrupts:
            # The request is read next.  What a body raises when it is told to stop is no failure; what it returns counts.
            await self._absorb(task)
            return event
        if task.cancelling() > task.outside:
            await self._absorb(task)
        if raised is None:
            return event
        broken = self._effects.told(raised)
        if broken is not None:
            raise broken  # the store's error is no failure of the node: the run stops here, and can be resumed
        return self._failed(start, raised, started_at, context)

    def _why_over(self, context: StepContext, *, is_outside: bool) -> str:
        """Why the context of a lone body is of no use any more: of a plain function, which may be at it still."""
        if self._interrupts:
            return context.cancel.reason or "the run is to stop"
        return "the run is no longer driven here" if is_outside else "the node has returned"

    async def _called(self, node: NodePlan, arguments: tuple[Any, ...], context: StepContext | None) -> Any:
        """What a lone node comes to that streams, or whose function is a plain one."""
        if node.streams:
            assert context is not None  # noqa: S101 - what streams speaks through one
            return await streamed(node, arguments, context)
        call = self._threads.start(partial(node.fn, *arguments), context_outside())  # type: ignore[arg-type, misc]
        try:
            return await call.answer
        except asyncio.CancelledError:
            if self._interrupts and call.answer.done() and not call.answer.cancelled():
                return call.answer.result()  # it came in the very turn in which the run was to stop: what it returns counts
            raise
        finally:
            self._strays.add(call.over)  # where nobody waits for it any more, and it is still about

    async def _absorb(self, task: DriveTask[Any]) -> None:
        """Take back cancellations that were ours or the body's own, and may not have been delivered yet; another's goes on."""
        outside = task.outside
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        while task.cancelling() > task.outside:
            task.uncancel()
        self._interrupts = 0
        if task.outside > outside:
            raise asyncio.CancelledError

    # --- bodies in tasks of their own -------------------------------------------------------------------------------
    def launch(self, start: StartBody) -> None:
        plan = self._walk.plan.at(start.path)
        node = plan.nodes[start.node]
        if node.sees_state_alone:
            arguments: tuple[Any, ...] = (plan.schema.view(self._walk.state.scopes[start.path].read),)
            context = None
        else:
            arguments, context = self._arguments(node, start)
        body = _Body(start, context, self._clock.now())
        self._in_flight[start.path] = body
        body.task = self._loop.create_task(self._run(plan, node, body, arguments))

    def _step_of(self, body: _Body) -> StepContext:
        """The context of a body that takes none, made when something it calls asks for it."""
        with _MAKING:
            if body.context is None:
                # Its branch may be gone: given up by a checkpoint that is being written, and the body is told only behind that.
                if body.is_over or body.start.path not in self._walk.state.scopes:
                    raise NoStepError
                body.context = self._context(body.start)
                body.context.began_at = body.started_at
            return body.context

    async def _run(self, plan: Plan, node: NodePlan, body: _Body, arguments: tuple[Any, ...]) -> None:
        start = body.start
        runs_in(body.context if body.context is not None else partial(self._step_of, body))
        event: Event
        raised: BaseException | None = None
        try:
            before = self._abandoned.pop(start[:3], None)
            if before is not None and not node.overlap and not before.done():
                await asyncio.wait([before])
            body.started_at = self._walk.began_at = self._clock.now()
            self._begins(start, body.context, body.started_at)
            body.begun = True
            if node.is_wrapped:
                where = NodeCall(self._walk.state.run_id, start.path, start.node, start.visit, start.failed + 1)
                performed = partial(self._perform, node, body, arguments)
                value = await self._around.call(plan, node, where, performed, partial(self._timed, node, body))
            else:
                if node.timeout is not None:
                    body.timer = self._clock.call_at(body.started_at + node.timeout // _MICROSECOND, partial(self._time_out, node, body))
                value = await self._perform(node, body, arguments)
            said = None if body.context is None else body.context.said()
            path, name, visit, _failed = start
            event = new_tuple(BodyReturned, (path, name, visit, value, body.started_at, said))
        except _NOT_THE_NODES:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a node raises is an outcome
            raised = error
        finally:
            body.revoke("the node has returned")
            body.task = None  # this one, whose context knows the body
        if self._in_flight.get(start.path) is not body:
            return  # it was cancelled or given up: whatever it brings comes too late
        if body.timed_out and body.call is not None and not body.call.over.done():
            self._abandon(body, body.call.over)
        # In a stack its timeout says so itself; a CancelledError in its place was made of it by what stands around (asyncio.wait_for).
        if body.timed_out and (not node.is_wrapped or isinstance(raised, asyncio.CancelledError)):
            event = self._timed_out(node, body)
        elif raised is not None:
            broken = self._effects.told(raised)
            if broken is not None:
                self._stop(broken)
                return
            event = self._failed(start, raised, body.started_at, body.context)
        del self._in_flight[start.path]
        self._post(event)

    async def _perform(self, node: NodePlan, body: _Body, arguments: tuple[Any, ...]) -> Any:
        if node.is_wrapped:
            body.started_at = self._clock.now()
        if node.streams:
            assert body.context is not None  # noqa: S101 - what streams speaks through one
            return await streamed(node, arguments, body.context)
        if node.is_async:
            return await node.fn(*arguments)  # type: ignore[misc]
        body.call = self._threads.start(partial(node.fn, *arguments))  # type: ignore[arg-type, misc]
        return await body.call.answer

    async def _timed(self, node: NodePlan, body: _Body, after: timedelta, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run ``call`` for at most ``after``, as a part of a stack; what it returns or raises after that counts no more.

        Raises NodeTimeoutError, which what stands around it sees.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - bodies run in tasks
        rang = False

        def ring() -> None:
            nonlocal rang
            rang = True
            self._time_out(node, body)

        timer = self._clock.call_at(self._clock.now() + after // _MICROSECOND, ring)
        try:
            value = await call()
        except (Exception, asyncio.CancelledError):
            if not rang:
                raise
        else:
            if not rang:
                return value
        finally:
            timer.cancel()
        if task.uncancel():
            raise asyncio.CancelledError  # somebody else wants it to stop, too
        raise NodeTimeoutError(body.start.node, body.start.path, after.total_seconds())

    def _time_out(self, node: NodePlan, body: _Body) -> None:
        body.timed_out = True
        body.revoke("timed out")
        self.live.stir()
        if body.task is not None:
            body.task.cancel()
            if node.is_async:
                body.timer = self._clock.call_at(self._end_of_grace(), partial(self._outlived, node, body, body.task))

    def _outlived(self, node: NodePlan, body: _Body, task: asyncio.Task[None]) -> None:
        """An async body that timed out does not stop: the attempt is over without it."""
        if self._in_flight.get(body.start.path) is body:
            del self._in_flight[body.start.path]
            self._gave_up(body.start, task)
            self._abandon(body, task)
            self._post(self._timed_out(node, body))

    def _timed_out(self, node: NodePlan, body: _Body) -> Event:
        assert node.timeout is not None  # noqa: S101
        late = NodeTimeoutError(body.start.node, body.start.path, node.timeout.total_seconds())
        return self._failed(body.start, late, body.started_at, body.context)

    def _abandon(self, body: _Body, still_about: asyncio.Future[Any]) -> None:
        """Let the next attempt wait for it."""
        self._abandoned[body.start[:3]] = still_about
        self._strays.add(still_about)

    def _failed(self, start: StartBody, error: BaseException, started_at: int, context: StepContext | None) -> BodyFailed | BodyWaits:
        error.__traceback__ = _from_the_author(error.__traceback__)
        error = _ungrouped(error)
        if isinstance(error, BodyHeld):
            return BodyWaits(
                start.path, start.node, start.visit, error.event, error.timeout, started_at, None if context is None else context.said()
            )
        if isinstance(error, asyncio.CancelledError):
            cancelled, error = error, NodeCancelledError(start.node, start.path)
            error.__cause__ = cancelled
        elif not isinstance(error, Exception):
            error = beyond_exception(error)
        self._causes[start.path] = error
        return BodyFailed(start.path, start.node, start.visit, error, started_at, None if context is None else context.said())

    # --- stopping ---------------------------------------------------------------------------------------------------
    async def cancel_all(self, reason: str) -> None:
        """`cancel` everything in flight."""
        await self.cancel(list(self._in_flight), reason)

    async def cancel(self, paths: Sequence[str], reason: str) -> None:
        """Cancel bodies and wait until the async ones have ended, at most for the grace; threads cannot be stopped, only disowned."""
        stopping: dict[asyncio.Task[None], StartBody] = {}
        for path in paths:
            body = self._in_flight.pop(path, None)
            if body is not None and body.task is not None:
                body.revoke(reason)
                body.task.cancel()
                stopping[body.task] = body.start
                if body.call is not None:
                    self._strays.add(body.call.over)
        if stopping:
            self.live.stir()
            await self._ended_or_given_up(stopping)

    async def _ended_or_given_up(self, stopping: dict[asyncio.Task[None], StartBody]) -> None:
        all_ended = asyncio.gather(*stopping, return_exceptions=True)
        grace_is_over = asyncio.get_running_loop().create_future()
        timer = self._clock.call_at(self._end_of_grace(), partial(grace_is_over.set_result, None))
        try:
            await asyncio.wait([all_ended, grace_is_over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        for task, start in stopping.items():
            if not task.done():
                self._gave_up(start, task)

    def _end_of_grace(self) -> int:
        return self._clock.now() + self._strays.grace // _MICROSECOND

    def _gave_up(self, start: StartBody, task: asyncio.Task[Any]) -> None:
        self._strays.add(task)
        seconds = self._strays.grace.total_seconds()
        self._warn(StrayBodyWarning(self._walk.state.run_id, start.node, start.path, seconds))

    def explained(self, error: BaseException) -> BaseException:
        """Chain the exceptions of the branches that failed below their BranchErrors, where this process saw them."""
        for failed in error.exceptions if isinstance(error, BaseExceptionGroup) else (error,):
            if isinstance(failed, BranchError) and failed.__cause__ is None:
                cause = self._causes.get(failed.error.get("path", ""))
                # The newest exception seen there may have been an earlier one, which took a fallback.
                if cause is not None and type(cause).__qualname__ == failed.error.get("type"):
                    failed.__cause__ = cause
        return error


def _from_the_author(seen: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the author's code.

    The frames around a body know the exception, and the whole run: it would not be free before garbage is next collected.
    """
    while seen is not None and seen.tb_next is not None and seen.tb_frame.f_globals.get("__name__", "").startswith("engine."):
        seen = seen.tb_next
    return seen


def _leave_to_the_author(cause: BaseException | None) -> None:
    """Empty the frames of ours that called what raised ``cause``: from Python 3.12 on a frame keeps those that called it, and all they know.

    Among them may be one that only waits, and serves others as well.  Python 3.13 refuses to empty that; 3.12 would end it, so there
    the run is free when garbage is next collected.
    """
    while cause is not None and sys.version_info >= (3, 13):
        seen = cause.__traceback__
        frame = None if seen is None else seen.tb_frame.f_back
        while frame is not None and frame.f_globals.get("__name__", "").startswith(("engine.", "checkpoint_stores.")):
            with contextlib.suppress(RuntimeError):  # it is not over yet
                frame.clear()
            frame = frame.f_back
        cause = cause.__cause__


def _nobody(_told: object) -> None:
    """Who is told once the run is no longer driven."""


def _ungrouped(error: BaseException) -> BaseException:
    """What the node has to say where the parts of its work brought several exceptions: a doubt before a failure, a failure before a wait."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    doubts = error.subgroup(EffectInDoubtError)
    waits, failed = error.split(BodyHeld)
    if doubts is None and failed is not None:
        return failed
    first: BaseException = doubts or waits or error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
