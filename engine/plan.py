"""The frozen tables the walk reads: what a compiled graph says about each node.

Made once by `engine.compile` from the networkx graph; never changed, never
scanned: a step touches its own node and that node's edges.  Knows no database,
no loop, no running state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from engine.schema import StateSchema

END = "__end__"
"""The target of an edge that ends its flow (in a branch: the branch)."""

ITEM = "item"
RESULT = "result"
"""The keys of the state of a lone function that a map calls for each item."""

NodeKind: TypeAlias = Literal["task", "parallel", "map", "subflow", "barrier", "timer", "wait"]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a failed node is tried again.

    Attempt ``n`` (from 1) that failed waits ``min(first * factor**(n-1), longest)``, of which ``jitter`` (0 to 1) is
    drawn by chance (derived from the step's idempotency key, so that the same failure always waits the same time).

    >>> Retry(attempts=3).attempts
    3
    """

    attempts: int = 3
    """How often the node may run in all, over every process that drives the run."""
    first: timedelta = timedelta(milliseconds=100)
    """The wait after the first failed attempt."""
    factor: float = 2.0
    """By how much each wait is longer than the one before."""
    longest: timedelta = timedelta(minutes=5)
    """No wait is longer."""
    jitter: float = 0.5
    """Which part of a wait is left to chance: 0 none, 1 all of it."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """Only these errors are tried again (NodeTimeoutError is an Exception, too)."""


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """One way out of a node."""

    target: str
    """A node's name, or END."""
    kind: Literal["conditional", "normal", "fallback"]
    name: str = ""
    """The condition's registered name; "" where there is none."""
    when: Callable[..., Any] | None = None
    when_wants_outcome: bool = False
    """Whether ``when`` takes (state, outcome) instead of (state)."""
    on: tuple[type[BaseException], ...] = ()
    """Of a fallback: which errors it takes; empty = any (but a rejection must be named)."""
    max_visits: int | None = None
    key: int = 0
    """Its key in the MultiDiGraph: which of the edges between the same two nodes it is."""


@dataclass(frozen=True, slots=True)
class BranchPlan:
    """One branch of a parallel node: always a whole plan (a lone node is a plan of one node)."""

    name: str
    index: int
    plan: Plan
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class OnError:
    """What a parallel node does when a branch fails."""

    policy: Literal["fail_fast", "collect", "best_effort"] = "fail_fast"
    min_success: int = 1
    """Of best_effort: with fewer successes the parallel node fails."""
    failures_to: str | None = None
    """Of best_effort: the state key that receives the list of failures."""


class ParallelPlan(NamedTuple):
    """What a parallel node opens, and what it does when a branch fails."""

    branches: tuple[BranchPlan, ...]
    on_error: OnError = OnError()
    max_concurrency: int | None = None

    def branch(self, index: int) -> BranchPlan:
        """The branch at ``index``.  Raises IndexError."""
        return self.branches[index]

    def called(self, index: int) -> str:
        """How errors and failures call a branch."""
        return self.branches[index].name


class Mapped(NamedTuple):
    """How a flow with a state of its own gets and gives values: child keys and the keys of the flow around it."""

    inputs: tuple[tuple[str, str], ...] = ()
    """(child key, key around it), in the order declared."""
    item: str | None = None
    """Of a map: the child key that holds the item."""
    outputs: tuple[tuple[str, str], ...] = ()
    """(key around it, child key).  Of a map at most one: the key that gets the list, and the child key that is an item's result."""
    checked: bool = True
    """Whether what goes in is checked by the child's own state class (a lone function has none)."""


class EachPlan(NamedTuple):
    """What a map node runs for every item of a key, or a subflow node once."""

    plan: Plan
    mapped: Mapped | None
    """None where the child works on the state of the flow around it, as a branch does."""
    over: str | None = None
    """Of a map: the key that holds the items."""
    on_error: OnError = OnError()
    max_concurrency: int | None = None
    timeout: timedelta | None = None
    """Of a subflow: how long it may take."""

    @property
    def branches(self) -> tuple[BranchPlan, ...]:
        return (self.branch(0),)

    def branch(self, index: int) -> BranchPlan:
        """What runs for item ``index``: the same for every item."""
        return BranchPlan(self.plan.flow, index, self.plan)

    def called(self, index: int) -> str:
        """How errors and failures call an item."""
        return self.plan.flow if self.over is None else str(index)


@dataclass(frozen=True, slots=True)
class Escalation:
    """Who may decide a barrier as well, when nobody has for so long.

    >>> from datetime import timedelta
    >>> Escalation(after=timedelta(days=1), approvers={"director"}).after.days
    1
    """

    after: timedelta
    """From the opening of the ticket."""
    approvers: Iterable[str]
    """People or roles; they are added to the barrier's own."""


class BarrierPlan(NamedTuple):
    """What a barrier shows, whom it asks, and until when."""

    prompt: str = ""
    """A str.format template over the shown keys."""
    show: tuple[str, ...] = ()
    form: dict[str, Any] | None = None
    """JSON Schema of edits; None = no edits."""
    edit_keys: tuple[str, ...] = ()
    """State keys a modify may write."""
    form_model: Any = None
    """The pydantic model behind ``form``, where there is one."""
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    early: bool = True
    timeout: timedelta | None = None
    on_timeout: str = "fail"
    """approve, reject, skip or fail."""
    nudges: tuple[tuple[timedelta, tuple[str, ...]], ...] = ()
    """What comes while nobody decides, in order: after how long, and who may decide as well from then on (nobody: a reminder)."""
    on_reject: Literal["route", "fail", "continue"] = "fail"
    """Resolved at compile time: ``route`` where a condition of the barrier asks for the decision, else ``fail``; what the author says comes first."""


class TimerPlan(NamedTuple):
    """How long a timer node waits."""

    delay: timedelta | None
    key: str | None = None
    """The state key that holds how long (a timedelta) or until when (an aware datetime)."""


class WaitPlan(NamedTuple):
    """Which signal a wait node waits for."""

    event: str
    to: str | None
    """The state key that gets the payload."""
    timeout: timedelta | None = None
    on_timeout: Literal["fail", "continue"] = "fail"


Takes: TypeAlias = Literal["state", "state_context", "nothing", "item", "item_context", "item_state", "item_state_context"]
"""What a node's function is called with."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Everything the walk needs to know of one node."""

    name: str
    kind: NodeKind
    fn: Callable[..., Any] | None = None
    is_async: bool = True
    streams: bool = False
    """Whether ``fn`` is an async generator function: its text is told while it runs."""
    takes: Takes = "state"
    gives: Literal["update", "result", "nothing"] = "update"
    """What the function returns means: an update; an item's result, under the key RESULT; or nothing that anybody asked for."""
    retry: Retry | None = None
    timeout: timedelta | None = None
    max_visits: int | None = None
    overlap: bool = False
    """Whether a retry may start while an attempt that timed out still runs (a thread, or an async body that ignored its cancellation)."""
    writes: frozenset[str] | None = None
    """The keys it may write; None = any."""
    middleware: tuple[Any, ...] = ()
    """What stands around it, outermost first, retry and timeout included: for people and tools."""
    stack: tuple[Any, ...] = ()
    """The same without its retry, where more than a timeout is in it: what each attempt passes through.  Empty = none."""
    is_looked_at: bool = False
    """Whether a backpressure counts its bodies."""
    is_wrapped: bool = field(init=False, default=False)
    """Whether a body goes through `engine.around`."""
    runs_inline: bool = field(init=False, default=False)
    """Whether a lone body needs no task of its own: nothing around it, no timeout."""
    only_way: EdgePlan | None = field(init=False, default=None)
    """The edge it is always left along where nothing goes wrong; None where that is to be chosen."""
    sees_state_alone: bool = field(init=False, default=False)
    """Whether its function is an async one that is called with the state and nothing else: a context is made when something asks for it."""
    starts_at_once: bool = field(init=False, default=False)
    """Whether a scope that has come here begins its body, and nothing else can happen first."""
    conditional: tuple[EdgePlan, ...] = ()
    """In the order they are asked: (priority, declaration)."""
    normal: EdgePlan | None = None
    fallbacks: tuple[EdgePlan, ...] = ()
    opens: ParallelPlan | EachPlan | None = None
    """Of a parallel, map or subflow node: the child scopes it opens."""
    barrier: BarrierPlan | None = None
    timer: TimerPlan | None = None
    wait: WaitPlan | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts_at_once", self.kind == "task" and self.max_visits is None)
        if not self.conditional and self.normal is not None and self.normal.max_visits is None:
            object.__setattr__(self, "only_way", self.normal)
        object.__setattr__(self, "sees_state_alone", self.takes == "state" and self.is_async and not self.streams)
        object.__setattr__(self, "is_wrapped", bool(self.stack) or self.is_looked_at)
        object.__setattr__(self, "runs_inline", self.timeout is None and not self.is_wrapped)

    def edges(self) -> tuple[EdgePlan, ...]:
        """All ways out, in the order they are asked."""
        return (*self.conditional, *((self.normal,) if self.normal else ()), *self.fallbacks)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A flow (or a branch), ready to be walked."""

    flow: str
    version: str
    entry: str
    nodes: Mapping[str, NodePlan]
    schema: StateSchema
    graph_hash: str = ""
    signals: Mapping[str, Callable[[Any], Any] | None] = field(default_factory=dict)
    """Of the whole flow: what checks the payload of each signal it may wait for; None = anything goes."""
    at_once: frozenset[str] = field(init=False, repr=False, default=frozenset())
    """The nodes whose body begins as soon as a scope has come there (see `NodePlan.starts_at_once`)."""
    is_limited: bool = field(init=False, repr=False, default=False)
    """Whether any of its parallel or map nodes, or of those below, runs only so many at a time."""
    _places: dict[str, Plan] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        opened = [node.opens for node in self.nodes.values() if node.opens is not None]
        is_limited = any(each.max_concurrency is not None or any(branch.plan.is_limited for branch in each.branches) for each in opened)
        object.__setattr__(self, "is_limited", is_limited)
        object.__setattr__(self, "at_once", frozenset(name for name, node in self.nodes.items() if node.starts_at_once))

    def at(self, path: str) -> Plan:
        """The plan of the scope at ``path``: ``""`` is this plan, ``checks[1]`` its second branch's, ``checks#2[1].review[0]`` nested.

        Raises KeyError where the path does not fit the plan.
        """
        if not path:
            return self
        # A visit number never changes which plan a scope has; the memo is bounded by dropping them.
        place = ".".join(_without_visit(part) for part in path.split(".")) if "#" in path else path
        found = self._places.get(place)
        if found is None:
            if len(self._places) > _MOST_PLACES:
                self._places.clear()  # a map may have any number of items
            found = self._places[place] = self._find(place)
        return found

    def _find(self, place: str) -> Plan:
        plan = self
        for part in place.split("."):
            node, _, index = part.rstrip("]").partition("[")
            opens = plan.nodes[node].opens
            if opens is None:
                raise KeyError(place)
            plan = opens.branch(int(index)).plan
        return plan


_MOST_PLACES = 4096


def _without_visit(part: str) -> str:
    head, _, tail = part.partition("#")
    return head if not tail else head + tail[tail.index("[") :]


@dataclass(frozen=True, slots=True)
class Warn:
    """One warning of the static analysis, as data."""

    code: str
    """cycle, cycle_without_exit, fallback_in_cycle, parallel_writers, dead_end, anonymous_condition, read_before_write, read_maybe_before_write ..."""
    message: str
    nodes: tuple[str, ...] = ()
    key: str = ""
