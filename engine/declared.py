"""What a flow's author declared, word for word, before anything was checked.

Frozen records only: `engine.flow` fills them, `engine.validate` judges them, `engine.compile` turns them into a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from engine.plan import Escalation, OnError, Retry

if TYPE_CHECKING:
    from engine.migration import Migration


class Task(NamedTuple):
    """A node that calls a function."""

    name: str
    fn: Callable[..., Any]
    retry: Retry | None = None
    timeout: timedelta | None = None
    max_visits: int | None = None
    version: str = ""
    description: str = ""
    overlap: bool = False
    goto: tuple[str, ...] = ()
    """Where the function may say ``Goto``; END stands for ``End``."""
    writes: tuple[str, ...] | None = None
    """The keys it may write; None = not said."""
    gives: Literal["update", "result", "nothing"] = "update"
    """What it returns: an update; of a map's function: an item's result, or nothing that is kept."""
    reads: tuple[str, ...] = ()
    """The keys it needs a value of."""
    middleware: tuple[Any, ...] = ()
    """What stands around it, and what of the flow's shall not."""
    kind: Literal["task"] = "task"


class Barrier(NamedTuple):
    """A node where people decide."""

    name: str
    prompt: str = ""
    show: tuple[str, ...] = ()
    form: Any = None
    """A pydantic model, a tuple of state keys, or None."""
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    timeout: timedelta | None = None
    on_timeout: str | None = None
    on_reject: str | None = None
    early: bool = True
    remind: tuple[timedelta, ...] = ()
    escalate: tuple[Escalation, ...] = ()
    max_visits: int | None = None
    description: str = ""
    kind: Literal["barrier"] = "barrier"


class Branch(NamedTuple):
    """One branch of a parallel node, as it was given: a function, a flow, a task, or the name of a declared node."""

    name: str | None
    target: Any
    timeout: timedelta | None = None


class Parallel(NamedTuple):
    """A node whose branches run beside each other."""

    name: str
    branches: tuple[Branch, ...]
    on_error: OnError = OnError()
    max_concurrency: int | None = None
    max_visits: int | None = None
    description: str = ""
    kind: Literal["parallel"] = "parallel"


class Map(NamedTuple):
    """A node that runs a function or a flow for every item of a key."""

    name: str
    over: str
    target: Branch
    to: str | None = None
    item: str | None = None
    inputs: tuple[tuple[str, str], ...] = ()
    """(child key, key around it)."""
    result: str | None = None
    on_error: OnError = OnError()
    max_concurrency: int | None = None
    max_visits: int | None = None
    description: str = ""
    kind: Literal["map"] = "map"

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (self.target,)


class Subflow(NamedTuple):
    """A node that runs a whole flow once."""

    name: str
    target: Branch
    inputs: tuple[tuple[str, str], ...] = ()
    """(child key, key around it)."""
    outputs: tuple[tuple[str, str], ...] = ()
    """(key around it, child key)."""
    max_visits: int | None = None
    description: str = ""
    kind: Literal["subflow"] = "subflow"
    on_error: OnError = OnError()
    max_concurrency: None = None

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (self.target,)


class Timer(NamedTuple):
    """A node that waits for a time."""

    name: str
    delay: timedelta | None = None
    key: str | None = None
    max_visits: int | None = None
    description: str = ""
    kind: Literal["timer"] = "timer"


class Wait(NamedTuple):
    """A node that waits for a signal."""

    name: str
    event: str
    to: str | None = None
    timeout: timedelta | None = None
    on_timeout: str = "fail"
    max_visits: int | None = None
    description: str = ""
    kind: Literal["wait"] = "wait"


Opening: TypeAlias = Parallel | Map | Subflow
"""A node that opens child scopes."""

Node: TypeAlias = Task | Barrier | Parallel | Map | Subflow | Timer | Wait


class Edge(NamedTuple):
    """One way from a node to another."""

    source: str
    target: str
    kind: Literal["conditional", "normal", "fallback"]
    when: Callable[..., Any] | None = None
    name: str = ""
    """The condition's name; "<lambda>" where it has none."""
    on: tuple[type[BaseException], ...] = ()
    priority: int = 0
    max_visits: int | None = None

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


class Declaration(NamedTuple):
    """A whole flow as it stood at one moment."""

    name: str
    version: str
    description: str
    state: Any
    entry: str | None
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    mistakes: tuple[str, ...] = ()
    """What was already seen to be wrong while it was declared."""
    signals: tuple[tuple[str, Any], ...] = ()
    """Events it may wait for, and the type of their payload (Any = anything)."""
    middleware: tuple[Any, ...] = ()
    """What stands around every node."""
    migrations: tuple[Migration, ...] = ()
    needs: Mapping[str, Any] = MappingProxyType({})
    """What is to be opened for its runs, and what opens it (None = whoever drives them says)."""

    def node(self, name: str) -> Node | None:
        """The first node of this name."""
        return next((node for node in self.nodes if node.name == name), None)
