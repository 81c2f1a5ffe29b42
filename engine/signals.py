"""Waiting for time and for signals: what the nodes `timer` and `wait` do, and bodies that call ``ctx.wait_for``.

Part of `engine.decide`: what follows when a scope begins to wait, when a signal comes, and when the time is over.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from checkpoint_stores.codec import materialise
from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import WAIT, RunState, Scope
from checkpoint_stores.moments import MICROSECOND, later
from checkpoint_stores.ops import Op
from engine.commands import Command, Hear, SetTimer
from engine.errors import NodeError, SignalTypeError, TimerError, UndeclaredSignalError, WaitTimeoutError
from engine.events import Arrived, BodyWaits, Signalled, WaitOver
from engine.leaving import NOTHING, Decision, Draft, chosen, counted, give_up, leave, not_storable
from engine.plan import NodePlan, Plan
from engine.updates import first_line, ops_of_update
from reducers.changes import ABSENT

TIMER: Final = "timer"
SIGNAL: Final = "signal"
BODY: Final = "body"
"""What waits: a timer node, a wait node, the body of a task."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def begin(plan: Plan, state: RunState, scope: Scope, node: NodePlan, now: int) -> Decision:
    """The scope has come to a timer or wait node."""
    try:
        kind, name, due = _wanted(node, scope, now)
    except NodeError as error:
        return give_up(plan, state, scope, node, error, now)
    draft = Draft("wait", scope.path, node.name, node.name, [["wait", kind, name, due]], entered=True)
    return Decision(draft, (), _timer(scope, due))


def _wanted(node: NodePlan, scope: Scope, now: int) -> tuple[str, str, int | None]:
    if node.wait is not None:
        return SIGNAL, node.wait.event, None if node.wait.timeout is None else later(now, node.wait.timeout)
    assert node.timer is not None  # noqa: S101 - only these two kinds wait
    if node.timer.delay is not None:
        return TIMER, "", later(now, node.timer.delay)
    key = node.timer.key
    assert key is not None  # noqa: S101 - the flow was checked
    held = scope.read(key)
    value = held if held is ABSENT else materialise(held)
    if isinstance(value, timedelta):
        return TIMER, "", later(now, value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return TIMER, "", (value - _EPOCH) // MICROSECOND
    what = (
        "nothing" if value is ABSENT else "a datetime without a time zone" if isinstance(value, datetime) else f"a {type(value).__name__}"
    )
    raise TimerError(node.name, scope.path, key, what)


def _timer(scope: Scope, due: int | None) -> tuple[Command, ...]:
    return () if due is None else (SetTimer(due, WaitOver(scope.path, due)),)


def body_waits(plan: Plan, state: RunState, scope: Scope, event: BodyWaits, now: int) -> Decision:
    """A body asked for a signal that has not come; ``scope`` still stands before its node."""
    here = plan.at(event.path)
    if event.name not in plan.signals:
        error = UndeclaredSignalError(event.node, event.path, event.name, tuple(plan.signals))
        return give_up(here, state, scope, here.nodes[event.node], error, now, started_at=event.started_at)
    due = None if event.timeout is None else later(now, event.timeout)
    ops: list[Op] = [["wait", BODY, event.name, due]]
    draft = Draft("wait", scope.path, event.node, event.node, ops, entered=False, started_at=event.started_at)
    return Decision(draft, (), _timer(scope, due))


def signalled(plan: Plan, state: RunState, event: Signalled, now: int) -> Decision:
    """A signal that the scope waits for has come."""
    scope = state.scopes.get(event.path)
    record = event.record
    if scope is None or scope.phase != WAIT or scope.detail[1] not in (record.name, record.name.rpartition(".")[2]):
        return NOTHING
    kind, name, _due = scope.detail
    here = plan.at(event.path)
    node = here.nodes[scope.node]
    used: tuple[Command, ...] = (Hear(record.id),)
    if kind == BODY:  # what does not fit is told to the body as SignalTypeError: its entry counts when it is over
        return _told(scope, node, name, record.payload, used, in_time=True)
    try:
        value = checked(plan.signals, name, record.payload, node.name, scope.path)
    except NodeError as error:
        return give_up(here, state, scope, node, error, now, entered=False, commands=used)
    assert node.wait is not None  # noqa: S101
    update = {} if node.wait.to is None else {node.wait.to: value}
    return _go_on(here, state, scope, node, now, update=update, outcome=value, kind="signal", commands=used)


def checked(checks: Mapping[str, Callable[[Any], Any] | None], name: str, payload: Any, node: str, path: str) -> Any:
    """A signal's payload as the flow declares it.  Raises SignalTypeError."""
    value = materialise(payload)
    check = checks.get(name)
    if check is None:
        return value
    try:
        return check(value)
    except Exception as error:
        raise SignalTypeError(node, path, name, first_line(error)) from error


def wait_over(plan: Plan, state: RunState, event: WaitOver, now: int) -> Decision:
    """The time until which the scope waits may have come."""
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != WAIT or scope.detail[2] != event.due or now < event.due:
        return NOTHING
    kind, name, _due = scope.detail
    here = plan.at(event.path)
    node = here.nodes[scope.node]
    if kind == BODY:
        return _told(scope, node, name, None, (), in_time=False)
    if node.wait is not None and node.wait.on_timeout == "fail":
        return give_up(here, state, scope, node, WaitTimeoutError(node.name, scope.path, name), now, entered=False)
    return _go_on(here, state, scope, node, now, update={}, outcome=None, kind="timer")


def _told(scope: Scope, node: NodePlan, name: str, payload: Any, used: tuple[Command, ...], *, in_time: bool) -> Decision:
    draft = Draft("heard", scope.path, node.name, node.name, [["heard", name, payload, in_time]], entered=False)
    return Decision(draft, (Arrived(scope.path),), used)


def _go_on(
    plan: Plan, state: RunState, scope: Scope, node: NodePlan, now: int, *, update: dict[str, Any], outcome: Any, kind: str,
    commands: tuple[Command, ...] = (),
) -> Decision:  # fmt: skip
    """Leave the node along its edges."""
    try:
        ops = ops_of_update(plan.schema, scope, node.name, update)
        taken = chosen(plan, node, scope, ops, outcome)
    except NodeError as error:
        return give_up(plan, state, scope, node, error, now, entered=False, commands=commands)
    except UnserialisableError as error:
        return give_up(plan, state, scope, node, not_storable(node, scope, error), now, entered=False, commands=commands)
    ops = [*ops, *counted(node, taken)]
    return leave(plan, state, scope, kind, ops, taken.edge.target, node=node, error=taken.error, entered=False, commands=commands)
