"""What an author may put around node bodies: retry, time, places, rates, breakers, and middleware of one's own.

Declarations only, frozen: `engine.stack` puts them in order, `engine.compile` writes them into the plan, `engine.around` does what they
say.  Knows no loop, no clock, no run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long one attempt of a node may take: the same as ``timeout=`` of the node, for a whole flow.

    Counted is what stands behind it in the stack: a wait at a `RateLimit` before it is not, one behind it is.

    >>> Timeout(timedelta(seconds=30)).name
    'timeout'
    """

    after: timedelta
    name: str = "timeout"


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Refuses calls (`CircuitOpenError`) for a while after failures in a row, so that what is down is left alone.

    Closed, it counts failures in a row; with ``failures`` of them it opens.  After ``open_for`` it lets ``trials`` calls through: when
    all of them succeed it closes, with the first that fails it opens again.

    >>> from trailmark import Flow
    >>> Flow("pay", {"n": int}, middleware=[CircuitBreaker(failures=3, open_for=timedelta(minutes=1))]).middleware[0].failures
    3
    """

    failures: int = 5
    """Failed calls in a row that open it."""
    open_for: timedelta = timedelta(seconds=30)
    """How long it refuses before it tries again, and how long it waits for trials to come back before it lets others through."""
    trials: int = 1
    """How many calls it lets through then, at most at once, and how many of them must succeed."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """Only these errors count as failures; any other is as good as an answer.  A cancelled call counts as nothing."""
    shared: bool = False
    """One for all nodes that have it, instead of one for each node."""
    name: str = "circuit_breaker"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``calls`` bodies begin in any stretch of ``per``; the others wait for their turn, first come, first served.

    >>> RateLimit(calls=10, per=timedelta(seconds=1), shared=True).calls
    10
    """

    calls: int
    per: timedelta
    shared: bool = False
    """One for all nodes that have it, instead of one for each node."""
    name: str = "rate_limit"


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """At most ``limit`` bodies at a time; the others wait for a place, first come, first served.

    >>> Bulkhead(4, waiting=100).limit
    4
    """

    limit: int
    waiting: int | None = None
    """How many may wait; one more is refused (`BulkheadFullError`).  None = as many as come."""
    shared: bool = False
    """One for all nodes that have it, instead of one for each node."""
    name: str = "bulkhead"


@dataclass(frozen=True, slots=True)
class Backpressure:
    """Begins no body while ``high`` or more bodies of a later node are waiting or running; goes on when they are ``low`` or fewer.

    Counted is who has arrived.  Who has passed here already arrives all the same, so that the crowd may grow beyond ``high``; a `Bulkhead`
    before it keeps those few.

    >>> Backpressure(behind="print", high=20).behind
    'print'
    """

    behind: str
    """The later node, of the same flow (or branch)."""
    high: int
    low: int | None = None
    """None = half of ``high``."""
    name: str = "backpressure"

    @property
    def resumes_at(self) -> int:
        """``low``, or its default."""
        return self.high // 2 if self.low is None else self.low


@dataclass(frozen=True, slots=True)
class Without:
    """In the ``middleware`` of a node or an inner flow: what is called ``name`` shall not stand around it."""

    name: str


def without(name: str) -> Without:
    """Take a middleware of the flow away from a node: ``flow.add_node("log", log, middleware=[without("retry")])``.

    >>> without("retry").name
    'retry'
    """
    return Without(name)


class NodeCall(NamedTuple):
    """Which attempt of which node entry a middleware stands around."""

    run_id: str
    path: str
    """Branch path: ``""`` at the root."""
    node: str
    visit: int
    """How often the node was entered in this scope, this entry included: from 1."""
    attempt: int
    """Which attempt of this entry this is: from 1, over every process."""


class Middleware(Protocol):
    """Middleware of one's own: any object with a ``name`` and an async ``around``.

    It may watch a call, time it, hold it back, refuse it by raising, and turn an error into another error.  It may not change what
    a node returned (what ``around`` returns is not looked at), not turn an error into a success, not leave the call out and not make it
    twice: `MiddlewareError`.  One object serves all runs of all executors of the graph, so it must keep calls apart by itself.

    Two further attributes are read where they are there: ``version`` (text; change it when the meaning changes) and ``settings`` (a
    mapping of plain data).  Both stand in the definition and decide the graph's hash.

    >>> class Timed:
    ...     name = "timed"
    ...
    ...     async def around(self, call, node):
    ...         print(f"{node.node} begins")
    ...         return await call()
    >>> import asyncio
    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> flow = Flow("pay", {"n": int}, middleware=[Timed()]).add_node("pay", lambda state: {"n": 1}).set_entry("pay").add_edge("pay", END)
    >>> asyncio.run(GraphExecutor(flow.compile(), store=MemoryCheckpointStore()).execute({})).values
    pay begins
    {'n': 1}
    """

    name: str

    async def around(self, call: Callable[[], Awaitable[Any]], node: NodeCall) -> object:
        """Await ``call()`` exactly once, or raise."""
        ...


def name_of_middleware(middleware: Any) -> str:
    """What flows and nodes call it by: its ``name``; ``retry`` for a Retry, which has none.

    >>> from engine.plan import Retry
    >>> name_of_middleware(Retry()), name_of_middleware(Bulkhead(3, name="bank"))
    ('retry', 'bank')
    """
    from engine.plan import Retry

    return "retry" if isinstance(middleware, Retry) else str(getattr(middleware, "name", ""))
