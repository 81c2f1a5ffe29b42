"""What a node may know about the step it is in.

One `StepContext` for one attempt of one node entry.  Once the attempt is over
(timed out, cancelled) the context is revoked: every further use raises
StaleContextError, so that a thread that outlives its timeout can do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from checkpoint_stores.codec import encode, to_json
from checkpoint_stores.codec import materialise as copied
from checkpoint_stores.ops import Op
from engine.decisions import Decision
from engine.errors import StaleContextError, WaitOrderError, WaitTimeoutError
from engine.identity import idempotency_key
from engine.live import Live
from engine.outcomes import BodyHeld
from engine.signals import checked
from engine.speech import Speech


class Room:
    """Awaited, it waits until every consumer that asked the run to wait has room; not awaited, it is nothing."""

    __slots__ = ("_context", "_live")

    def __init__(self, live: Live, context: StepContext) -> None:
        self._live = live
        self._context = context

    def __await__(self) -> Generator[Any, None, None]:
        if self._live.is_held_up:
            yield from self._live.room(lambda: self._context.ended).__await__()


class StepContext:
    """The step a node's body runs in.  Read-only.

    Every attribute raises StaleContextError once the attempt is over; `ended` tells without raising.
    """

    __slots__ = (
        "_asked", "_checks", "_decisions", "_error", "_facts", "_heard", "_index", "_item", "_key", "_live", "_over", "_speech", "began_at",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - the identity of a step
        self, run_id: str, path: str, node: str, visit: int, failed: int, run_attempt: int, error: Mapping[str, Any] | None,
        decisions: Mapping[str, Mapping[str, Any]], live: Live, index: int,
    ) -> None:  # fmt: skip
        self._facts = (run_id, path, node, visit, failed + 1, run_attempt)
        self._error = error
        self._decisions = decisions
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

    def count_tokens(self, *, input: int = 0, output: int = 0) -> None:  # noqa: A002 - the words of the events
        """Add to the tokens this step used.  Where nothing is counted, ``tokens_output`` is the number of tokens sent."""
        self.check()
        self._live.count(self._spoken(), input, output)

    def _say(self, kind: str, fields: dict[str, Any]) -> Room:
        self.check()
        _run_id, path, node, *_ = self._facts
        self._live.say(self._spoken(), (path, node, self._index), kind, fields)
        self._live.room_from_thread(lambda: self.ended)
        return Room(self._live, self)

    def _spoken(self) -> Speech:
        if self._speech is None:
            self._speech = self._live.speech(self._facts[1], self.began_at)
        return self._speech

    def said(self) -> Op | None:
        """Called by the driver when the body is over: what it said, for its checkpoint."""
        if self._speech is None:
            return None
        self._live.hush(self._facts[1], self._speech)
        return self._speech.op()

    @property
    def ended(self) -> bool:
        """Whether this attempt is over.  A long synchronous node may ask and stop; never raises."""
        return self._over is not None

    def check(self) -> None:
        """Raise StaleContextError where this attempt is over."""
        if self._over is not None:
            raise StaleContextError(self._facts[2], self._over)

    def revoke(self, reason: str) -> None:
        """Called by the driver when the attempt is over.  Idempotent: the first reason stays."""
        if self._over is None:
            self._over = reason
