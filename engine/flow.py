"""Flow: what a person writes.

A builder that remembers declarations in order and judges nothing: `Flow.compile` reports every problem at once.
Knows no networkx (loaded by the first `compile`), no store, no run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from checkpoint_stores.errors import UnserialisableError
from engine import declared
from engine.callables import name_of
from engine.errors import FlowError
from engine.graph import FlowGraph
from engine.letting import let_of
from engine.plan import Escalation, OnError, Retry

Function = TypeVar("Function", bound=Callable[..., Any])

if TYPE_CHECKING:
    from engine.migration import Migration
    from engine.resources import Provider


def best_effort(*, min_success: int = 1, failures_to: str | None = None) -> OnError:
    """``on_error`` of a parallel node: go on with what succeeded.

    Args:
        min_success: with fewer successful branches the node fails.
        failures_to: the state key that receives the failures as a list of mappings (branch, type, message).

    >>> best_effort(min_success=2, failures_to="lost").min_success
    2
    """
    return OnError("best_effort", min_success, failures_to)


def branch(
    target: Callable[..., Any] | Flow | str,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    version: str = "",
    writes: Iterable[str] | None = None,
    reads: Iterable[str] = (),
    middleware: Iterable[Any] = (),
) -> declared.Branch:
    """One branch of a parallel node with options of its own: ``flow.add_parallel("checks", [branch(fn, retry=Retry())])``.

    ``target`` is a function, a flow or the name of a declared node; ``retry``, ``version``, ``writes``, ``reads`` and ``middleware`` are for functions.

    Raises FlowError where they are given with a flow or a name.

    >>> branch(len, name="length", retry=Retry(attempts=2)).name
    'length'
    """
    reads = _of_a_branch("reads", reads, "state keys")
    middleware = _of_a_branch("middleware", middleware, "middleware")
    written = None if writes is None else _of_a_branch("writes", writes, "state keys")
    if retry is None and not version and writes is None and not reads and not middleware:
        return declared.Branch(name, target, timeout)
    if isinstance(target, str | Flow):
        raise FlowError(f"retry, version, writes, reads and middleware are for functions; declare them where {target!r} is declared")
    chosen = name or name_of(target)
    task = declared.Task(chosen, target, retry=retry, version=version, writes=written, reads=reads, middleware=middleware)
    return declared.Branch(chosen, task, timeout)


def _of_a_branch(option: str, given: Any, what: str) -> tuple[Any, ...]:
    listed = _listed(given)
    if listed is None:
        raise FlowError(f"branch(...): {option}={given!r} must be a list of {what}")
    return listed


def _listed(given: Any) -> tuple[Any, ...] | None:
    """``given`` as a tuple, also one name, function or class that was given as it is; None where it is no list."""
    if isinstance(given, str | Flow | declared.Branch) or callable(given):
        return (given,)
    return tuple(given) if isinstance(given, Iterable) else None


class Flow:
    """The definition of a flow: nodes, and edges between them.

    ``state`` declares the keys: a pydantic model class, a TypedDict class, a dict of annotations by key, or None for a
    flow that is only ever a branch and takes its parent's.  ``middleware`` stands around every node, outermost first: `Retry`,
    `Timeout`, `CircuitBreaker`, `RateLimit`, `Bulkhead`, or your own (`Middleware`); nodes and inner flows change it by name.
    ``needs`` names what is to be opened for its runs (``ctx.resource(name)``), by name alone or with the function that opens it.
    ``migrations`` say how runs of older versions go over to this one, oldest first (those of a flow within another are not looked at).

    >>> flow = Flow("greeting", {"name": str, "text": str})
    >>> @flow.node
    ... def greet(state):
    ...     return {"text": f"Hello {state['name']}"}
    >>> flow.set_entry("greet").add_edge("greet", "__end__").name
    'greeting'
    """

    def __init__(
        self, name: str, state: Any = None, *, version: str = "1", description: str = "", middleware: Iterable[Any] = (),
        migrations: Iterable[Migration] = (), needs: Iterable[str] | Mapping[str, Provider] = (),
    ) -> None:  # fmt: skip
        self.name = name
        self.state = state
        self.version = version
        self.description = description
        self._mistakes: list[str] = []
        self.middleware = self._several(middleware, "the flow: middleware", "middleware")
        self.migrations = self._several(migrations, "the flow: migrations", "migrations")
        self.needs: dict[str, Provider | None] = self._needed(needs)
        self._entry: str | None = None
        self._nodes: list[declared.Node] = []
        self._edges: list[declared.Edge] = []
        self._signals: list[tuple[str, Any]] = []

    def __repr__(self) -> str:
        return f"Flow({self.name!r}, version={self.version!r}, nodes={[node.name for node in self._nodes]})"

    # --- nodes ------------------------------------------------------------------------------------------------------
    @overload
    def node(self, fn: Function, /) -> Function: ...
    @overload
    def node(
        self,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        max_visits: int | None = None,
        version: str = "",
        description: str = "",
        overlap: bool = False,
        goto: Iterable[str | Callable[..., Any]] = (),
        writes: Iterable[str] | None = None,
        reads: Iterable[str] = (),
        middleware: Iterable[Any] = (),
    ) -> Callable[[Function], Function]: ...
    def node(self, fn: Function | None = None, **options: Any) -> Function | Callable[[Function], Function]:
        """Declare the decorated function as a node; the function stays what it is.  Options are those of `add_node`."""
        if fn is not None:
            if not callable(fn):  # @flow.node("pay"): what follows would call the text
                given_as = f"name={fn!r}" if isinstance(fn, str) else "..."
                raise FlowError(f"@flow.node({fn!r}) decorates no function; give options by name: @flow.node({given_as})")
            self.add_node(options.pop("name", None), fn, **options)
            return fn

        def declare(decorated: Function) -> Function:
            given = dict(options)
            self.add_node(given.pop("name", None), decorated, **given)
            return decorated

        return declare

    def add_node(
        self,
        name: str | None,
        fn: Callable[..., Any],
        *,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        max_visits: int | None = None,
        version: str = "",
        description: str = "",
        overlap: bool = False,
        goto: Iterable[str | Callable[..., Any]] = (),
        writes: Iterable[str] | None = None,
        reads: Iterable[str] = (),
        middleware: Iterable[Any] = (),
    ) -> Flow:
        """Declare a node that calls ``fn(state)``, ``fn(state, ctx)`` or ``fn()`` and merges the update it returns.

        Args:
            name: None = the function's own name.
            fn: async functions run in the event loop, others in threads.
            retry: how often and how patiently it is tried again.
            timeout: how long one attempt may take.
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            version: change it when the function's meaning changes, so that stored runs notice.
            description: for people; no part of the graph's hash.
            overlap: whether a retry may start while an attempt that timed out still runs (a thread, or a body that ignored its cancellation).
            goto: the nodes it may name in ``Goto`` (END for ``End``), checked at compile time.
            writes: the keys it may write; any other is refused (UndeclaredWriteError).  Used to warn of conflicting branches
                and of keys that are read before they are written.
            reads: the keys it needs; a warning tells where none may have been written yet.  It may read others, too.
            middleware: what stands around it beside the flow's; the same name replaces the flow's, `without(name)` takes it away.
        """
        named = name_of(fn) if name is None else name
        if not named or named == "<lambda>":
            what = "a lambda" if name_of(fn) == "<lambda>" else repr(fn)
            self._mistakes.append(f'a node that calls {what} has no name of its own; give it one: add_node("name", ...)')
            return self
        return self._declare(
            declared.Task(
                named, fn, retry, timeout, max_visits, version, description, overlap,
                tuple(self._name(target, "goto") for target in self._several(goto, f"node {named!r}: goto", "node names")),
                None if writes is None else self._several(writes, f"node {named!r}: writes", "state keys"),
                reads=self._several(reads, f"node {named!r}: reads", "state keys"), middleware=self._several(middleware, f"node {named!r}: middleware", "middleware"),
            )
        )  # fmt: skip

    def add_let(self, name: str, values: Mapping[str, Any], *, version: str = "", description: str = "") -> Flow:
        """Declare a node that writes values under their keys: constants, or what plain functions of the state make::

            flow.add_let("prices", {"currency": "EUR", "gross": lambda state: state.net * 1.2})

        All functions see the state as it was before the node.

        Args:
            name: what edges call it.
            values: by state key.
            version: change it when what a function makes changes its meaning; constants are part of the graph's hash by themselves.
            description: for people; no part of the graph's hash.
        """
        try:
            fn, known_by = let_of(name, values)
        except (ValueError, UnserialisableError) as error:
            self._mistakes.append(f"node {name!r}: {error}")
            return self
        return self.add_node(name, fn, version=f"{version}{known_by}", description=description, writes=values)

    def add_parallel(
        self,
        name: str,
        branches: Iterable[Any] | Mapping[str, Any],
        *,
        on_error: Literal["fail_fast", "collect", "best_effort"] | OnError = "fail_fast",
        max_concurrency: int | None = None,
        branch_timeout: timedelta | None = None,
        max_visits: int | None = None,
        description: str = "",
    ) -> Flow:
        """Declare a node whose branches run beside each other and merge in declared order.

        Args:
            name: what edges call it; the branch paths begin with it.
            branches: functions, flows, names of declared nodes or `branch(...)`, as a list or by branch name.  A node
                that only serves as a branch is declared like any other and keeps its options.
            on_error: ``fail_fast`` (the first failure cancels the others), ``collect`` (wait for all, then fail with all)
                or ``best_effort(min_success=..., failures_to=...)``.
            max_concurrency: how many branches may run at once.
            branch_timeout: how long each branch may take; `branch(timeout=...)` says otherwise.
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            description: for people; no part of the graph's hash.
        """
        listed = branches if isinstance(branches, Mapping) else self._several(branches, f"node {name!r}: branches", "functions or flows")
        pairs = listed.items() if isinstance(listed, Mapping) else ((None, target) for target in listed)
        made = []
        for given, target in pairs:
            one = target if isinstance(target, declared.Branch) else declared.Branch(None, target)
            called = given or one.name
            if not (called is None or isinstance(called, str)):
                self._mistakes.append(f"node {name!r}: a branch is named by a text, not by {called!r}")
                continue
            made.append(declared.Branch(called, one.target, branch_timeout if one.timeout is None else one.timeout))
        policy = on_error if isinstance(on_error, OnError) else OnError(on_error)
        return self._declare(declared.Parallel(name, tuple(made), policy, max_concurrency, max_visits, description))

    def add_map(
        self,
        name: str,
        over: str,
        target: Callable[..., Any] | Flow | str | declared.Branch,
        *,
        to: str | None = None,
        item: str | None = None,
        inputs: Mapping[str, str] | None = None,
        result: str | None = None,
        max_concurrency: int | None = 16,
        on_error: Literal["fail_fast", "collect", "best_effort"] | OnError = "fail_fast",
        max_visits: int | None = None,
        description: str = "",
    ) -> Flow:
        """Declare a node that runs a function or a flow for every item of a list in the state.

        Each item has a branch path (``score[7]``) and checkpoints of its own: an item that is finished is never done again.
        Every node entry of an item is a step; mind ``max_steps``.

        Args:
            name: what edges call it; the branch paths begin with it.
            over: the state key that holds the items: a list or a tuple.
            target: a function of (item), (item, ctx), (item, state) or (item, state, ctx), whose answer is the item's result;
                `branch(fn, retry=..., timeout=...)`; a flow with a state of its own, which gets ``item`` and ``inputs``; or a
                flow (or a node's name) without, which works on this flow's state like a branch and reads ``ctx.item``.
            to: the state key that gets the list of results, in the order of the items; none = the results are not kept.
            item: of a flow with a state of its own: the key that gets the item.
            inputs: of such a flow: which of its keys get which keys of this flow, ``{"rules": "rules"}``.
            result: of such a flow: the key that is an item's result.
            max_concurrency: how many node bodies may run at once; an item begins when there is room for it.  None = all at once.
            on_error: as in `add_parallel`; failures name the ``index`` of the item, and the results are those of the items that succeeded.
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            description: for people; no part of the graph's hash.

        >>> flow = Flow("lengths", {"words": list[str], "lengths": list[int]})
        >>> flow = flow.add_map("measure", "words", len, to="lengths").set_entry("measure").add_edge("measure", "__end__")
        >>> flow.compile().plan.nodes["measure"].kind
        'map'
        """
        policy = on_error if isinstance(on_error, OnError) else OnError(on_error)
        one = target if isinstance(target, declared.Branch) else declared.Branch(None, target)
        kept = self._pairs(inputs, f"node {name!r}: inputs")
        return self._declare(declared.Map(name, over, one, to, item, kept, result, policy, max_concurrency, max_visits, description))

    def add_subflow(
        self,
        name: str,
        target: Flow,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        timeout: timedelta | None = None,
        max_visits: int | None = None,
        description: str = "",
    ) -> Flow:
        """Declare a node that runs a whole flow once, as a part of this run.

        Args:
            name: what edges call it; its steps have the branch path ``name[0]``.
            target: the flow.  One without a state of its own works on this flow's state.
            inputs: of a flow with a state of its own: which of its keys get which keys of this flow, ``{"vendor": "customer"}``.
            outputs: which keys of this flow get which of its keys when it ends, ``{"risk": "score"}``; merged by this flow's reducers.
            timeout: how long it may take.
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            description: for people; no part of the graph's hash.
        """
        one = declared.Branch(None, target, timeout)
        given, back = self._pairs(inputs, f"node {name!r}: inputs"), self._pairs(outputs, f"node {name!r}: outputs")
        return self._declare(declared.Subflow(name, one, given, back, max_visits, description))

    def add_timer(self, name: str, delay: timedelta | str, *, max_visits: int | None = None, description: str = "") -> Flow:
        """Declare a node that waits: a sleep that outlives the process and costs no memory.

        Args:
            name: what edges call it.
            delay: how long; or the state key that holds how long (a timedelta) or until when (an aware datetime).
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            description: for people; no part of the graph's hash.

        A run that waits for more than five seconds is parked: a worker, or ``result(through_barriers=True)``, goes on with it.
        """
        given = {"key": delay} if isinstance(delay, str) else {"delay": delay}
        return self._declare(declared.Timer(name, max_visits=max_visits, description=description, **given))

    def add_signal(self, event: str, type: Any = Any) -> Flow:  # noqa: A002 - the word users know
        """Declare an event that nodes may wait for with ``ctx.wait_for(event)``.

        ``type`` is the type of its payload (a pydantic model, ``int`` ...): it is checked when a signal is sent and when it is heard.
        """
        self._signals.append((event, type))
        return self

    def add_wait(
        self,
        name: str,
        event: str,
        *,
        to: str | None = None,
        type: Any = Any,  # noqa: A002 - the word users know
        timeout: timedelta | None = None,
        on_timeout: Literal["fail", "continue"] = "fail",
        max_visits: int | None = None,
        description: str = "",
    ) -> Flow:
        """Declare a node that waits for a signal, which somebody sends with ``store.signal(run_id, event, payload)``.

        A signal that comes early is kept until it is waited for; each is used once, the oldest first.

        Args:
            name: what edges call it.
            event: the signal's name; ``store.signal(run_id, "each[3].paid")`` is for the item at ``each[3]`` only.
            to: the state key that gets the payload, merged by its reducer.
            type: the type of the payload; checked when a signal is sent and when it is heard.
            timeout: how long to wait at most, from the time the node is entered.
            on_timeout: ``fail`` the node (WaitTimeoutError), or ``continue`` along its edges without a payload.
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            description: for people; no part of the graph's hash.
        """
        self._signals.append((event, type))
        return self._declare(declared.Wait(name, event, to, timeout, on_timeout, max_visits, description))

    def add_barrier(
        self,
        name: str,
        *,
        prompt: str = "",
        show: Iterable[str] = (),
        form: Any = None,
        approvers: Iterable[str] = (),
        quorum: int = 1,
        timeout: timedelta | None = None,
        on_timeout: Literal["approve", "reject", "skip", "fail"] | None = None,
        on_reject: Literal["route", "fail", "continue"] | None = None,
        early: bool = True,
        remind: timedelta | Iterable[timedelta] = (),
        escalate: Iterable[Escalation] = (),
        max_visits: int | None = None,
        description: str = "",
    ) -> Flow:
        """Declare a node where people decide.

        Args:
            name: what edges, tickets and decisions call it.
            prompt: a ``str.format`` template over the shown keys.
            show: the state keys people see before they decide.
            form: what a ``modify`` may write: a pydantic model whose fields are state keys, or a list of state keys.
            approvers: people or roles who may decide; none = anybody.
            quorum: how many different people must approve; any one rejects.
            timeout: how long people have, from the opening of the ticket; none = for ever.
            on_timeout: what happens then: ``approve``, ``reject`` or ``skip`` by nobody, or ``fail`` (the default) the node.
            on_reject: what a rejection does: ``fail`` the node, ``continue`` along the edges as if approved, or ``route``
                along them (the default where a condition asks for the decision; otherwise ``fail``).
            early: whether decisions made before the barrier opens count, those of allowances too.
            remind: when to remind people, from the opening of the ticket: each time is a row ``reminded``.
            escalate: who else may decide after so long; each time is a row ``escalated``.
            max_visits: how often it may be entered in one scope; once more takes its fallback (LoopLimitExceeded).
            description: for people; no part of the graph's hash.
        """
        kept = tuple(form) if isinstance(form, list | tuple | set | frozenset) else form
        people = tuple(sorted(self._several(approvers, f"barrier {name!r}: approvers", "names"), key=str))
        shown = self._several(show, f"barrier {name!r}: show", "state keys")
        reminders = (remind,) if isinstance(remind, timedelta) else self._several(remind, f"barrier {name!r}: remind", "timedeltas")
        escalations = self._several(escalate, f"barrier {name!r}: escalate", "Escalations")
        return self._declare(
            declared.Barrier(
                name, prompt, shown, kept, people, quorum, timeout, on_timeout, on_reject, early, reminders, escalations, max_visits, description
            )
        )  # fmt: skip

    # --- edges ------------------------------------------------------------------------------------------------------
    def set_entry(self, node: str | Callable[..., Any]) -> Flow:
        """Say where a run begins."""
        entry = self._name(node, "the entry")
        if self._entry is not None and self._entry != entry:
            self._mistakes.append(f"the entry is set twice, to {self._entry!r} and to {entry!r}; keep one")
        self._entry = entry
        return self

    def add_edge(
        self,
        source: str | Callable[..., Any],
        target: str | Callable[..., Any],
        when: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        priority: int = 0,
        max_visits: int | None = None,
    ) -> Flow:
        """Declare a way from one node to another (or to END).

        Args:
            source: a node's name, or its function.
            target: a node's name, its function, or END.
            when: a plain function of (state) or (state, outcome) that answers whether to go this way.  Without it the edge
                is the node's one normal edge, taken when no condition holds.
            name: how the condition is called in errors, drawings and the graph's hash; its own name by default.
            priority: conditions are asked by priority, lowest first, and then in the order declared.
            max_visits: how often the edge may be taken in one scope.
        """
        known = "" if when is None else (name or name_of(when) or type(when).__name__)
        ends = self._name(source, "an edge"), self._name(target, "an edge")
        self._edges.append(
            declared.Edge(*ends, "normal" if when is None else "conditional", when, known, priority=priority, max_visits=max_visits)
        )
        return self

    def add_fallback(
        self,
        source: str | Callable[..., Any],
        target: str | Callable[..., Any],
        on: type[BaseException] | Iterable[type[BaseException]] = (),
        *,
        max_visits: int | None = None,
    ) -> Flow:
        """Declare where to go when the node failed, timed out, hit its visit cap, returned ``Fallback`` or found no other way.

        Several fallbacks of a node are asked in order.

        Args:
            source: a node's name, or its function.
            target: a node's name, its function, or END.
            on: the errors this edge takes; none = any but a rejection, which must be named (RejectedError).
            max_visits: how often the edge may be taken in one scope.
        """
        ends = self._name(source, "a fallback"), self._name(target, "a fallback")
        kinds = self._several(on, f"fallback {ends[0]} -> {ends[1]}: on", "exception classes")
        self._edges.append(declared.Edge(*ends, "fallback", on=kinds, max_visits=max_visits))
        return self

    # --- reading ----------------------------------------------------------------------------------------------------
    def declaration(self) -> declared.Declaration:
        """Everything declared so far, frozen."""
        return declared.Declaration(
            self.name, self.version, self.description, self.state, self._entry,
            tuple(self._nodes), tuple(self._edges), tuple(self._mistakes), signals=tuple(self._signals), middleware=self.middleware,
            migrations=self.migrations, needs=MappingProxyType(dict(self.needs)),
        )  # fmt: skip

    def compile(self) -> FlowGraph:
        """Check everything and return the graph; the flow may go on changing, the graph does not.

        Raises:
            FlowValidationError: with all problems at once.
        """
        from engine.compile import compile_flow  # networkx is loaded by whoever compiles

        return compile_flow(self)

    def _several(self, given: Any, where: str, what: str) -> tuple[Any, ...]:
        """``given`` as a tuple; one name, function or class may be given as it is."""
        listed = _listed(given)
        if listed is None:
            self._mistakes.append(f"{where}={given!r} must be a list of {what}")
        return listed or ()

    def _pairs(self, given: Any, where: str) -> tuple[tuple[Any, Any], ...]:
        if given is not None and not isinstance(given, Mapping):
            self._mistakes.append(f"{where}={given!r} must be a mapping of keys to keys, e.g. {{'text': 'question'}}")
            return ()
        return tuple((given or {}).items())

    def _needed(self, needs: Any) -> dict[str, Any]:
        listed = needs if isinstance(needs, Mapping) else self._several(needs, "the flow: needs", "names of resources")
        wrong = [name for name in listed if not isinstance(name, str)]
        self._mistakes += [f"the flow: needs names {name!r}; a resource is named by a text" for name in wrong]
        return {name: needs[name] if isinstance(needs, Mapping) else None for name in listed if isinstance(name, str)}

    def _declare(self, node: declared.Node) -> Flow:
        """Keep a node.  One whose name is no text is told at once: no other problem could name it."""
        if isinstance(node.name, str):
            self._nodes.append(node)
        else:
            self._mistakes.append(f"node {node.name!r} cannot have this name: a name is a text that is not empty")
        return self

    def _name(self, node: object, where: str) -> str:
        if isinstance(node, str):
            return node
        names = [known.name for known in self._nodes if isinstance(known, declared.Task) and known.fn == node]
        if len(names) == 1:
            return names[0]
        called = name_of(node) or repr(node)
        if not names:
            return called  # declared later, or never: compile tells
        self._mistakes.append(f"{where} names the function {called}, which is node {' and node '.join(map(repr, names))}; name the node")
        return names[0]
