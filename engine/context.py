"""What a node may know about the step it is in.

One `StepContext` for one attempt of one node entry.  Once the attempt is over
(timed out, cancelled) the context is revoked: every further use raises
StaleContextError, so that a thread that outlives its timeout can do nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args, overload

from checkpoint_stores.codec import encode, to_json
from checkpoint_stores.codec import materialise as copied
from checkpoint_stores.errors import ArgumentError, TransactionOverError
from checkpoint_stores.ops import Op
from checkpoint_stores.records import EffectRecord
from engine.arguments import token_count
from engine.callables import is_coroutine
from engine.cancelling import CancelToken
from engine.decisions import Decision
from engine.effects import Effects, Once
from engine.errors import (
    CapabilityDenied,
    NoStepError,
    StaleContextError,
    UndeclaredResourceError,
    WaitOrderError,
    WaitTimeoutError,
    WrongThreadError,
)
from engine.identity import effect_key, idempotency_key
from engine.live import Live
from engine.notices import NodeWarning, TrailmarkWarning
from engine.outcomes import BodyHeld
from engine.signals import checked
from engine.speech import Speech
from engine.transacting import Place, Transacting

if TYPE_CHECKING:
    from engine.forking import PartContext


class Room:
    """Awaited, it waits until every consumer that asked the run to wait has room; not awaited, it is nothing."""

    __slots__ = ("_context", "_live")

    def __init__(self, live: Live, context: StepContext) -> None:
        self._live = live
        self._context = context

    def __await__(self) -> Generator[Any, None, None]:
        if self._live.is_held_up:
            yield from self._live.room(lambda: self._context.ended).__await__()


T = TypeVar("T")

OnDoubt: TypeAlias = Literal["fail", "rerun"]

_MAKING: Final = threading.Lock()
"""Held while a token is made, or what keeps what a step says: the loop and a node's threads may all be the first to want it."""

_CURRENT: Final[contextvars.ContextVar[StepContext | Callable[[], StepContext] | None]] = contextvars.ContextVar(
    "trailmark_current_step", default=None
)


def current_step() -> StepContext:
    """The step that this code runs in: in a node, in whatever it calls, in its thread, and in tasks begun from it.

    >>> current_step()
    Traceback (most recent call last):
      ...
    engine.errors.NoStepError: no node runs here; current_step() is for code that a node calls

    Raises NoStepError.
    """
    found = _CURRENT.get()
    if found is None:
        raise NoStepError
    return found if isinstance(found, StepContext) else found()


runs_in: Final = _CURRENT.set
"""Called by the driver: what `current_step` tells in this task from now on (or what makes it, when it is asked)."""


def current_part(part: StepContext) -> contextvars.Token[StepContext | Callable[[], StepContext] | None]:
    """Called by a part of a step: what `current_step` tells from now on, until the token is reset."""
    return _CURRENT.set(part)


class RunFacts(NamedTuple):
    """What is the same for every step of a run."""

    flow: str = ""
    tenant: str = ""
    run_key: str | None = None
    labels: Mapping[str, str] = MappingProxyType({})
    capabilities: frozenset[str] = frozenset()
    resources: Mapping[str, Any] = MappingProxyType({})
    """What is open for the run in this process, by name."""
    warn: Callable[[TrailmarkWarning], object] = warnings.warn
    """Called from every thread."""


class StepContext:
    """The step a node's body runs in.  Read-only.

    Every attribute raises StaleContextError once the attempt is over; `ended` tells without raising.

    >>> import asyncio
    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> flow = Flow("pay", {"receipt": str})
    >>> @flow.node
    ... async def pay(state, ctx):
    ...     receipt = await ctx.once("debit", lambda key: f"paid, key of {len(key)} digits", ctx.idempotency_key)
    ...     return {"receipt": receipt}
    >>> graph = flow.set_entry("pay").add_edge("pay", END).compile()
    >>> asyncio.run(GraphExecutor(graph, store=MemoryCheckpointStore()).execute({})).values
    {'receipt': 'paid, key of 64 digits'}
    """

    __slots__ = (
        "_asked", "_cancel", "_checks", "_decisions", "_effects", "_error", "_facts", "_has_transaction", "_heard", "_index", "_item", "_key",
        "_live", "_over", "_run", "_speech", "_transacting", "began_at",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - the identity of a step
        self, run_id: str, path: str, node: str, visit: int, failed: int, run_attempt: int, error: Mapping[str, Any] | None,
        decisions: Mapping[str, Mapping[str, Any]], live: Live, index: int, effects: Effects | None = None,
        transacting: Transacting | None = None, run: RunFacts | None = None,
    ) -> None:  # fmt: skip
        self._facts = (run_id, path, node, visit, failed + 1, run_attempt)
        self._error = error
        self._decisions = decisions
        self._effects = effects
        self._transacting = transacting
        self._has_transaction = False
        self._run = run or RunFacts()
        self._cancel: CancelToken | None = None
        self._item: tuple[int, Any] | None = None
        self._heard: Sequence[Any] = ()
        self._checks: Mapping[str, Callable[[Any], Any] | None] = {}
        self._asked = 0
        self._key: str | None = None
        self._over: str | None = None
        self._live = live
        self._index = index
        self._speech: Speech | None = None
        self.began_at = 0
        """When the body began (microseconds); set by the driver."""

    @property
    def run_id(self) -> str:
        self.check()
        return self._facts[0]

    @property
    def flow(self) -> str:
        """The name of the run's flow."""
        self.check()
        return self._run.flow

    @property
    def tenant(self) -> str:
        """Whose run it is; "" where nobody said."""
        self.check()
        return self._run.tenant

    @property
    def run_key(self) -> str | None:
        """The caller's own name for the run."""
        self.check()
        return self._run.run_key

    @property
    def labels(self) -> Mapping[str, str]:
        """The caller's labels (a session, a user, a cause), read-only."""
        self.check()
        return self._run.labels

    @property
    def path(self) -> str:
        """Branch path of the step: ``""`` at the root, ``checks[1]`` in a branch."""
        self.check()
        return self._facts[1]

    @property
    def node(self) -> str:
        self.check()
        return self._facts[2]

    @property
    def visit(self) -> int:
        """How often this node was entered in this scope, this entry included: from 1."""
        self.check()
        return self._facts[3]

    @property
    def attempt(self) -> int:
        """Which attempt of this entry this is, counted from 1 over every process."""
        self.check()
        return self._facts[4]

    @property
    def run_attempt(self) -> int:
        """How many processes have driven the run, this one included: from 1."""
        self.check()
        return self._facts[5]

    @property
    def idempotency_key(self) -> str:
        """64 hex digits that name this node entry: the same for every attempt and after every resume."""
        self.check()
        run_id, path, node, visit, *_ = self._facts
        if self._key is None:
            self._key = idempotency_key(run_id, path, node, visit)
        return self._key

    @property
    def error(self) -> Mapping[str, Any] | None:
        """In a fallback node: the error that led here (``type``, ``message``, ``node``, ``path``, ``causes``); else None."""
        self.check()
        return None if self._error is None else dict(copied(self._error))

    @property
    def decisions(self) -> dict[str, Decision]:
        """The newest decision of each barrier passed so far, by barrier name."""
        self.check()
        return {name: Decision.of_data(copied(data)) for name, data in self._decisions.items()}

    @property
    def item(self) -> Any:
        """In a map: a copy of the item this step works on (of the innermost map, where they nest); None elsewhere."""
        self.check()
        return None if self._item is None else copied(self._item[1])

    @property
    def index(self) -> int | None:
        """In a map: the place of `item` in its list, from 0; None elsewhere."""
        self.check()
        return None if self._item is None else self._item[0]

    async def wait_for(self, event: str, *, timeout: timedelta | None = None) -> Any:  # noqa: ASYNC109 - it outlives the process
        """The payload of the next signal ``event``, which somebody sends with ``store.signal(run_id, event, payload)``.

        Where it has not come yet the body ends here and runs again from its beginning once it has: what it did before is done
        again, so keep side effects behind this call, or use a wait node (`Flow.add_wait`), before which nothing is repeated.  Signals
        that were heard are kept with the step and are told again, also after a crash.

        ``timeout`` counts from the first time the body asks.  In a function that is not async call `wait_for_sync`.

        Raises WaitTimeoutError, SignalTypeError, UndeclaredSignalError, WaitOrderError.
        """
        return self.wait_for_sync(event, timeout=timeout)

    def wait_for_sync(self, event: str, *, timeout: timedelta | None = None) -> Any:
        """`wait_for` for plain functions."""
        self.check()
        self._not_in_transaction("ctx.wait_for()")
        node, path = self._facts[2], self._facts[1]
        at, self._asked = self._asked, self._asked + 1
        if at >= len(self._heard):
            raise BodyHeld(event, None if timeout is None else timeout // timedelta(microseconds=1))
        name, payload, in_time = self._heard[at]
        if name != event:
            raise WaitOrderError(node, path, event, name)
        if not in_time:
            raise WaitTimeoutError(node, path, event)
        return checked(self._checks, event, payload, node, path)

    def hears(self, heard: Sequence[Any], checks: Mapping[str, Callable[[Any], Any] | None]) -> None:
        """Called by the driver: what this entry of the node has waited for so far."""
        self._heard = heard
        self._checks = checks

    def is_known_by(self, key: str) -> None:
        """Called by the driver: the idempotency key the step had before a migration renamed its place."""
        self._key = key

    def works_on(self, item: tuple[int, Any] | None) -> None:
        """Called by the driver: the place and value of a map's item."""
        self._item = item

    # --- saying something -------------------------------------------------------------------------------------------
    def emit_token(self, text: str) -> Room:
        """Send a piece of text to whoever watches the run (event ``step_token``), and keep it with the step's checkpoint.

        Awaiting what this returns waits for consumers that asked the run to wait (`Delivery` ``pause``); in a node that runs in a
        thread the call itself waits.  Raises StaleContextError.
        """
        return self._say("step_token", {"content": str(text)})

    def emit_tool_call(self, name: str, content: str) -> Room:
        """Tell that the node calls a tool (event ``tool_call``).  As `emit_token`."""
        return self._say("tool_call", {"tool_name": str(name), "content": str(content)})

    def emit(self, name: str, data: Any = None) -> Room:
        """Tell anything else (event ``custom``); ``data`` is told as JSON.  As `emit_token`.

        Raises UnserialisableError where ``data`` is no data.
        """
        encode(data, name)
        return self._say("custom", {"name": str(name), "data": to_json(data)})

    def warn(self, text: str) -> None:
        """Warn of something that does not keep the step from being done: in `RunResult.warnings` of whoever drives the run (`NodeWarning`),
        as a Python warning, and as the event ``custom`` named ``warning``, which is kept with the step's checkpoint."""
        self.emit("warning", str(text))
        run_id, path, node, *_ = self._facts
        self._run.warn(NodeWarning(run_id, node, path, str(text)))

    def count_tokens(self, *, input: int = 0, output: int = 0) -> None:  # noqa: A002 - the words of the events
        """Add to the tokens this step used.  Where nothing is counted, ``tokens_output`` is the number of tokens sent.

        Raises ArgumentError where one is no whole number from 0.
        """
        self.check()
        self._live.count(self._spoken(), token_count("input", input), token_count("output", output))

    def _say(self, kind: str, fields: dict[str, Any]) -> Room:
        self.check()
        _run_id, path, node, *_ = self._facts
        self._live.say(self._spoken(), (path, node, self._index), kind, fields)
        self._live.room_from_thread(lambda: self.ended)
        return Room(self._live, self)

    def _spoken(self) -> Speech:
        if self._speech is None:
            with _MAKING:
                if self._speech is None:
                    self._speech = self._live.speech(self._facts[1], self.began_at)
        return self._speech

    def said(self) -> Op | None:
        """Called by the driver when the body is over: what it said, for its checkpoint."""
        if self._speech is None:
            return None
        self._live.hush(self._facts[1], self._speech)
        return self._speech.op()

    # --- a transaction of the step's own ----------------------------------------------------------------------------
    @asynccontextmanager
    async def transaction(self, *, limit: timedelta | None = None) -> AsyncIterator[Any]:
        """SQL on the store's own database that is committed by this step's checkpoint: both, or neither::

            async with ctx.transaction() as connection:
                await connection.execute(text("UPDATE accounts SET balance = balance - :amount"), {"amount": 7})
            return {"paid": True}

        ``connection`` is SQLAlchemy's AsyncConnection.  The transaction begins with its first statement.  Leaving the block hands it
        over: it is committed together with what the node returns.  Where the node raises (also behind the block), returns something
        that is refused or `Fallback`, is cancelled or times out, or has lost the run, it is rolled back; the next attempt gets a new one.

        Only in async nodes; one in a node entry, one at a time in a run: meanwhile what other branches returned waits.  On SQLite all
        other writers of the file wait, so keep it short.

        Args:
            limit: how long it may take from its first statement on, at most 4 s and a third of the store's lease; None: 2 s.

        Raises TransactionUnavailableError, TransactionTimeoutError, TransactionOverError, ArgumentError, StoreUnavailableError.
        """
        self.check()
        if self._transacting is None:
            raise StaleContextError(self._facts[2], "it belongs to no run that is driven")
        self._not_in_transaction("ctx.transaction()")
        path, node, visit = self._facts[1:4]
        async with self._transacting.transaction(self, Place(path, node, visit), limit) as connection:
            self._has_transaction = True
            try:
                yield connection
            except BaseException:
                self._has_transaction = False
                raise

    def _not_in_transaction(self, what: str) -> None:
        if self._has_transaction:
            raise TransactionOverError(f"{what} inside or behind the block of ctx.transaction(): a node entry has one; do it before")

    # --- side effects -----------------------------------------------------------------------------------------------
    def effect_key(self, name: str) -> str:
        """64 hex digits that name the side effect ``name`` of this node entry, e.g. to hand to a payment provider; see `once`."""
        return effect_key(self.idempotency_key, name)

    @overload
    def once(
        self, name: str, fn: Callable[..., Coroutine[Any, Any, T]], /, *args: Any,
        on_doubt: OnDoubt = ..., in_doubt_on: tuple[type[Exception], ...] = ..., **options: Any,
    ) -> Coroutine[Any, Any, T]: ...  # fmt: skip
    @overload
    def once(
        self, name: str, fn: Callable[..., T], /, *args: Any,
        on_doubt: OnDoubt = ..., in_doubt_on: tuple[type[Exception], ...] = ..., **options: Any,
    ) -> Coroutine[Any, Any, T]: ...  # fmt: skip
    def once(
        self, name: str, fn: Callable[..., Any], /, *args: Any,
        on_doubt: OnDoubt = "fail", in_doubt_on: tuple[type[Exception], ...] = (), **options: Any,
    ) -> Coroutine[Any, Any, Any]:  # fmt: skip
        """Carry out a side effect at most once over every attempt and every process, and return its outcome::

            receipt = await ctx.once("debit", bank.debit, account, amount)

        Before ``fn(*args, **options)`` is called, that it is about to be is written to the database; behind it, what it returned.
        A later attempt of this node entry gets that outcome, and ``fn`` is not called.  Where ``fn`` raises, it counts as not done
        and may be called again.  Where the process died in between, or ``fn`` was cancelled, nobody knows: EffectInDoubtError.

        Args:
            name: what the effect is called; two effects of one node entry need two names.
            fn: async, or plain (then it runs in a thread).  What it returns must be data; it comes back as a resume would see it.
            args: what it is called with.
            on_doubt: ``rerun`` carries out again what is in doubt; for effects that may happen twice.
            in_doubt_on: exceptions of ``fn`` behind which nobody knows whether it happened, e.g. ``(TimeoutError,)``.
            options: what it is called with, by name.

        Raises EffectInDoubtError, whatever ``fn`` raises, LeaseLostError, StoreUnavailableError, StaleContextError.
        """
        effects, asked = self._once(name, fn, args, options, on_doubt, in_doubt_on)
        if not _loop_runs_here():
            raise WrongThreadError("a plain node runs in a thread, where nothing can be awaited; use ctx.once_sync(...)")
        return effects.once(self, asked)

    def once_sync(
        self, name: str, fn: Callable[..., T], /, *args: Any,
        on_doubt: OnDoubt = "fail", in_doubt_on: tuple[type[Exception], ...] = (), **options: Any,
    ) -> T:  # fmt: skip
        """`once` for plain nodes: ``fn`` is plain, too, and runs in the node's own thread."""
        effects, asked = self._once(name, fn, args, options, on_doubt, in_doubt_on)
        if _loop_runs_here():
            raise WrongThreadError("once_sync would block the event loop; use `await ctx.once(...)` in an async node")
        if is_coroutine(fn):
            raise ArgumentError("fn", fn, "a plain function: nothing awaits an async one in a plain node")
        outcome: T = effects.once_sync(self, asked)
        return outcome

    def _once(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], on_doubt: str,
        in_doubt_on: tuple[type[Exception], ...],
    ) -> tuple[Effects, Once]:  # fmt: skip
        key = self.effect_key(name)
        self._not_in_transaction("ctx.once()")
        if self._effects is None:
            raise StaleContextError(self._facts[2], "it belongs to no run that is driven")
        if not isinstance(name, str) or not name:
            raise ArgumentError("the name of a side effect", name, "a text that is not empty: ctx.once('debit', fn, ...)")
        if on_doubt not in get_args(OnDoubt):
            raise ArgumentError("on_doubt", on_doubt, f"one of {', '.join(get_args(OnDoubt))}")
        run_id, path, node, visit, *_ = self._facts
        effect = EffectRecord(run_id, key, self._effect_name(name), node, path, visit)
        return self._effects, Once(effect, partial(fn, *args, **options), on_doubt == "rerun", in_doubt_on)

    def _effect_name(self, name: str) -> str:
        """How people read of the effect."""
        return name

    # --- parts of the work ------------------------------------------------------------------------------------------
    def fork(self, part: str) -> PartContext:
        """A context for one part of the work that the body does side by side, in tasks or threads that it starts itself::

            async def fetch(ctx, url):
                with ctx.fork(url) as part:
                    await part.once("fetch", get, url)

        The part is the same step to everybody, and says what it says in the step's voice.  It has a cancel token of its own (set with
        the step's, or alone: ``part.cancel.set(...)``), its own `idempotency_key`, and side effects of its own: two parts may both call
        one ``fetch``.  It ends with the ``with`` block, and with the step.  `wait_for` belongs to the step as a whole.

        Args:
            part: its name; the same in every attempt.  Two parts of one name share their key and their effects.

        Raises ArgumentError, StaleContextError.
        """
        from engine.forking import PartContext

        self.check()
        if not isinstance(part, str) or not part:
            raise ArgumentError("the name of a part", part, "a text that is not empty: ctx.fork('page 3')")
        return PartContext(self, part)

    @property
    def ended(self) -> bool:
        """Whether this attempt is over.  A long synchronous node may ask and stop; never raises."""
        return self._over is not None

    def check(self) -> None:
        """Raise StaleContextError where this attempt is over."""
        if self._over is not None:
            raise StaleContextError(self._facts[2], self._over)

    @property
    def cancel(self) -> CancelToken:
        """Tells when this attempt is to stop, and why: the run is cancelled or suspended, the node or its branch timed out, a sibling
        failed, the executor is closed.  A plain function asks ``ctx.cancel.is_set()`` or waits ``ctx.cancel.wait(timedelta(...))``; an
        async one is cancelled besides.  Never raises, also when the attempt is over.
        """
        if self._cancel is None:
            with _MAKING:
                if self._cancel is None:
                    self._cancel = CancelToken()
            if self._over is not None:
                self._cancel.set(self._over)
        return self._cancel

    def revoke(self, reason: str) -> None:
        """Called by the driver when the attempt is over.  Idempotent: the first reason stays."""
        if self._over is None:
            self._over = reason
        if self._cancel is not None:
            self._cancel.set(reason)

    def stop(self, reason: str) -> None:
        """Called by the driver when the attempt is asked to end; it may still use its context."""
        self.cancel.set(reason)

    def resource(self, name: str) -> Any:
        """What was opened for this run under ``name``: a connection, a client; see ``Flow(..., needs=...)``.

        Raises UndeclaredResourceError, StaleContextError.
        """
        self.check()
        try:
            return self._run.resources[name]
        except KeyError:
            raise UndeclaredResourceError(name, sorted(self._run.resources)) from None

    # --- what it may do ---------------------------------------------------------------------------------------------
    @property
    def capabilities(self) -> frozenset[str]:
        """What the run may do; see `require`."""
        self.check()
        return self._run.capabilities

    def require(self, capability: str, *, resource: str = "") -> None:
        """Make sure, before a side effect, that the run may do it; what is not held is denied.

        A run holds what ``capabilities=`` of the executor or of ``start`` gave it, in the same words exactly, and keeps it over resumes.

        Args:
            capability: e.g. ``pay:acme``.
            resource: what it is needed for, for the error's text.

        Raises CapabilityDenied, StaleContextError.
        """
        self.check()
        if capability not in self._run.capabilities:
            raise CapabilityDenied(self._facts[2], self._facts[1], resource or capability, capability, self._run.capabilities)


def _loop_runs_here() -> bool:
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - documented for this: no exception where there is none
