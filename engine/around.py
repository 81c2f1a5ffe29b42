"""What stands around node bodies, at work: waits for places and turns, refuses, tells user-written middleware.

One `Around` for all runs that one executor drives: its breakers, rates and places are this process's, are not stored, and begin anew
with the next process.  Waits are futures that somebody else's leaving, or the clock, resolves: nothing polls and no thread sleeps.
Decides nothing about where a run goes: whatever is raised here is the outcome of the node's attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from engine.clock import MICROSECONDS, Clock, Timer
from engine.errors import BulkheadFullError, CircuitOpenError, MiddlewareError
from engine.limits import Breaker, Window
from engine.middleware import Backpressure, Bulkhead, CircuitBreaker, NodeCall, RateLimit, Timeout, name_of_middleware
from engine.plan import NodePlan, Plan

if TYPE_CHECKING:
    from engine.statistics import MiddlewareStatistics

Body = Callable[[], Awaitable[Any]]
Timed = Callable[[timedelta, Body], Awaitable[Any]]
"""Runs a body under a timeout; raises NodeTimeoutError."""

_MICROSECOND: Final = timedelta(microseconds=1)
_Kind = TypeVar("_Kind", bound="_Post")


class _Post(Protocol):
    """One middleware at its post: what it does to a call, and what it can tell of itself."""

    def told(self) -> dict[str, Any]: ...


class _Queue:
    """Who waits, in the order they came."""

    __slots__ = ("_futures", "waited", "waits")

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[None]] = deque()
        self.waits = 0
        self.waited = 0
        """Microseconds that those who were let in had waited."""

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self, clock: Clock) -> None:
        """Wait to be let in.  Where it raises CancelledError, `was_let_in` tells whether that came too late."""
        future = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        self.waits += 1
        began = clock.now()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                raise _TooLateError from None
            with contextlib.suppress(ValueError):  # who let others in since has passed over it, and put it away
                self._futures.remove(future)
            raise
        finally:
            self.waited += clock.now() - began

    def let_in(self) -> bool:
        """Let the next one in; False where nobody waits."""
        while self._futures:
            future = self._futures.popleft()
            if not future.done():
                future.set_result(None)
                return True
        return False


class _TooLateError(asyncio.CancelledError):
    """The waiter was cancelled in the very moment in which it was let in: what it was given must be given back."""


class _Places:
    """A bulkhead at work."""

    def __init__(self, limit: int, waiting: int | None) -> None:
        self._limit = limit
        self._waiting = waiting
        self.inside = 0
        self.refused = 0
        self.queue = _Queue()

    async def enter(self, clock: Clock, name: str, call: NodeCall) -> None:
        if self.inside < self._limit:
            self.inside += 1
            return
        if self._waiting is not None and len(self.queue) >= self._waiting:
            self.refused += 1
            raise BulkheadFullError(call.node, call.path, name, self._limit, self._waiting)
        try:
            await self.queue.wait(clock)
        except _TooLateError:
            self.leave()
            raise

    def leave(self) -> None:
        """The place goes to whoever waits longest."""
        if not self.queue.let_in():
            self.inside -= 1

    def told(self) -> dict[str, Any]:
        return {**_told(self.queue), "inside": self.inside, "refused": self.refused}


class _Turnstile:
    """A rate limit at work."""

    def __init__(self, calls: int, per: int) -> None:
        self._window = Window(calls, per)
        self._timer: Timer | None = None
        self.queue = _Queue()

    async def enter(self, clock: Clock) -> None:
        now = clock.now()
        if not len(self.queue) and self._window.free_at(now) <= now:
            self._window.start(now)
            return
        if self._timer is None:
            self._timer = clock.call_at(self._window.free_at(now), partial(self._ring, clock))
        # A turn that is given to somebody who was cancelled in that moment is lost: the rate stays below its limit.
        await self.queue.wait(clock)

    def _ring(self, clock: Clock) -> None:
        self._timer = None
        now = clock.now()
        while len(self.queue) and self._window.free_at(now) <= now:
            if self.queue.let_in():
                self._window.start(now)
        if len(self.queue):
            self._timer = clock.call_at(self._window.free_at(now), partial(self._ring, clock))

    def told(self) -> dict[str, Any]:
        return _told(self.queue)


class _Fuse:
    """A circuit breaker at work."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.refused = 0

    def told(self) -> dict[str, Any]:
        return {"state": self.breaker.state, "refused": self.refused}


class _Crowd:
    """How many bodies of one node wait or run, and who holds back because of them."""

    def __init__(self) -> None:
        self.size = 0
        self.dams: list[_Dam] = []

    def leave(self) -> None:
        self.size -= 1
        for dam in self.dams:
            dam.look()


class _Dam:
    """A backpressure at work."""

    def __init__(self, crowd: _Crowd, high: int, low: int) -> None:
        self._crowd = crowd
        self._high = high
        self._low = low
        self._shut = False
        self.queue = _Queue()
        crowd.dams.append(self)

    async def enter(self, clock: Clock) -> None:
        if self._crowd.size >= self._high:
            self._shut = True
        if self._shut:
            await self.queue.wait(clock)

    def look(self) -> None:
        """Somebody has left.  All may go on at once: whoever stays behind might be woken by nobody."""
        if self._shut and self._crowd.size <= self._low:
            self._shut = False
            while self.queue.let_in():
                pass

    def told(self) -> dict[str, Any]:
        return _told(self.queue)


def _told(queue: _Queue) -> dict[str, Any]:
    return {"waiting": len(queue), "waits": queue.waits, "waited": queue.waited / MICROSECONDS}


class Around:
    """The middleware of one executor's nodes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._posts: dict[Any, tuple[str, str, str, _Post]] = {}
        """By the middleware itself where it is shared, else by node and name: (node, name, kind, post)."""
        self._crowds: dict[int, _Crowd] = {}
        """By node plan; only of nodes that a backpressure looks behind to."""

    async def call(self, plan: Plan, node: NodePlan, call: NodeCall, body: Body, timed: Timed) -> Any:
        """Run ``body`` behind the whole stack of ``node``; ``plan`` is the plan the node belongs to."""
        inner = body
        for each in reversed(node.stack):
            inner = self._wrapped(plan, node, each, call, inner, timed)
        if not node.is_looked_at:
            return await inner()
        crowd = self._crowd(node)
        crowd.size += 1
        try:
            return await inner()
        finally:
            crowd.leave()

    def _wrapped(self, plan: Plan, node: NodePlan, each: Any, call: NodeCall, inner: Body, timed: Timed) -> Body:
        match each:
            case Timeout(after=after):
                return partial(timed, after, inner)
            case CircuitBreaker():
                fuse = self._post(node, each, lambda: _Fuse(Breaker(each.failures, each.open_for // _MICROSECOND, each.trials)))
                return partial(self._fused, fuse, each, call, inner)
            case RateLimit(calls=calls, per=per):
                return partial(self._turned, self._post(node, each, lambda: _Turnstile(calls, per // _MICROSECOND)), inner)
            case Bulkhead(limit=limit, waiting=waiting, name=name):
                return partial(self._placed, self._post(node, each, lambda: _Places(limit, waiting)), name, call, inner)
            case Backpressure():
                crowd = self._crowd(plan.nodes[each.behind])
                return partial(self._dammed, self._post(node, each, lambda: _Dam(crowd, each.high, each.resumes_at)), inner)
            case _:
                return partial(_told_to, each, call, inner)

    async def _fused(self, fuse: _Fuse, each: CircuitBreaker, call: NodeCall, inner: Body) -> Any:
        breaker = fuse.breaker
        turn = breaker.admit(self._clock.now())
        if turn is None:
            fuse.refused += 1
            left = max(0, breaker.opens_at - self._clock.now()) / MICROSECONDS
            raise CircuitOpenError(call.node, call.path, each.name, left)
        try:
            value = await inner()
        except each.on:
            breaker.failed(turn, self._clock.now())
            raise
        except Exception:
            breaker.succeeded(turn)
            raise
        except BaseException:
            breaker.dropped(turn)
            raise
        breaker.succeeded(turn)
        return value

    async def _turned(self, turnstile: _Turnstile, inner: Body) -> Any:
        await turnstile.enter(self._clock)
        return await inner()

    async def _placed(self, places: _Places, name: str, call: NodeCall, inner: Body) -> Any:
        await places.enter(self._clock, name, call)
        try:
            return await inner()
        finally:
            places.leave()

    async def _dammed(self, dam: _Dam, inner: Body) -> Any:
        await dam.enter(self._clock)
        return await inner()

    def _post(self, node: NodePlan, each: Any, make: Callable[[], _Kind]) -> _Kind:
        shared = getattr(each, "shared", False)
        key = each if shared else (id(node), each.name)
        found = self._posts.get(key)
        if found is None:
            kind = type(each).__name__
            found = self._posts[key] = ("" if shared else node.name, each.name, kind, make())
        return found[3]  # type: ignore[return-value] # a key has posts of one kind

    def _crowd(self, node: NodePlan) -> _Crowd:
        return self._crowds.setdefault(id(node), _Crowd())

    def statistics(self) -> Iterator[MiddlewareStatistics]:
        """What stands around nodes at this moment; only what a call has reached so far."""
        from engine.statistics import MiddlewareStatistics

        for node, name, kind, post in self._posts.values():
            yield MiddlewareStatistics(node, name, kind, **post.told())


async def _told_to(middleware: Any, call: NodeCall, inner: Body) -> Any:
    """Let the author's own middleware stand around the call, and hold it to its promises."""
    outcome: list[tuple[Any, BaseException | None]] = []
    begun = False

    async def once() -> Any:
        nonlocal begun
        if begun:
            raise MiddlewareError(call.node, call.path, name_of_middleware(middleware), "called the node twice")
        begun = True
        try:
            value = await inner()
        except BaseException as error:
            outcome.append((None, error))
            raise
        outcome.append((value, None))
        return value

    await middleware.around(once, call)
    if not outcome:
        raise MiddlewareError(call.node, call.path, name_of_middleware(middleware), "came back before the node had")
    value, error = outcome[0]
    if isinstance(error, Exception):
        raise MiddlewareError(call.node, call.path, name_of_middleware(middleware), "turned an error into a success") from error
    if error is not None:
        raise error  # it was cancelled, and that is nobody's to hold back
    return value
