"""What an operator does to a stored run, without the author's code: cancel, fork, look back.

These need no graph and no node function; the CLI uses them on any run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from checkpoint_stores.codec import pack, unpack
from checkpoint_stores.errors import LeaseHeldError, RunEndedError
from checkpoint_stores.fold import PARKED, RunState
from checkpoint_stores.ids import new_id
from checkpoint_stores.ops import Op
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, Commit, NewRun, Row, RunChange, RunRecord
from checkpoint_stores.statuses import after
from engine.barriers import record_of
from engine.clock import Clock
from engine.editing import edited, reworded
from engine.errors import ForkError
from engine.events import CancelAsked, Event
from engine.loading import catch_up, load_state
from engine.plan import Plan
from engine.walk import Walk
from reducers.changes import ABSENT

CANCEL_GRACE: Final = 10.0
"""Seconds a run's living owner gets to end a cancelled run itself, before the canceller takes over."""


async def cancel_run(
    store: CheckpointStore, run_id: str, *, actor: str, reason: str, clock: Clock, grace: float = CANCEL_GRACE
) -> RunRecord:
    """End a run as cancelled: ask its owner, or do it here where there is none or it does not react within ``grace`` seconds.

    Returns the run as it ended (a run that had already ended stays as it was).  Raises RunNotFoundError.
    """
    run_id = (await store.run(run_id)).run_id
    watch = store.watch(run_id)
    try:
        try:
            await store.request_cancel(run_id, actor=actor, reason=reason)
            await _end_as_cancelled(store, run_id, actor, reason, clock, takeover=False)
        except RunEndedError:
            return await store.run(run_id)
        except LeaseHeldError:
            try:
                async with asyncio.timeout(grace):
                    while (await store.run(run_id)).status not in ENDED:
                        await watch.changed()
            except TimeoutError:
                try:
                    await _end_as_cancelled(store, run_id, actor, reason, clock, takeover=True)
                except RunEndedError:
                    return await store.run(run_id)
    finally:
        watch.close()
    return await store.run(run_id)


async def _end_as_cancelled(store: CheckpointStore, run_id: str, actor: str, reason: str, clock: Clock, *, takeover: bool) -> None:
    change = RunChange(status=after("running", "cancel"), clear_wake_at=True, release=True)
    await change_run(store, run_id, CancelAsked(actor, reason), change, clock, takeover=takeover)


async def change_run(
    store: CheckpointStore, run_id: str, event: Event, change: RunChange, clock: Clock, *,
    takeover: bool = False, note: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Take a run, commit what an event about the run as a whole makes of it, and let it go.

    Raises RunNotFoundError, RunEndedError, LeaseHeldError, CheckpointCorruptError.
    """
    state = await load_state(store, run_id)
    lease = await store.acquire(run_id, details=note, takeover=takeover)
    await catch_up(store, state)
    walk = Walk(NO_PLAN, state, store.chain, lease.epoch)
    batch = walk.feed([event], clock.now())
    await store.commit(Commit(run_id, lease.epoch, tuple(batch.rows), change, closed=tuple(batch.closed)))


NO_PLAN: Final[Any] = None
"""Such an event asks no node and no edge: it works on runs whose flow is not here."""


async def fork_run(
    store: CheckpointStore, run_id: str, *, at: int | None, clock: Clock, edits: Mapping[str, Any] | None = None,
    validate: Callable[[str, Any], Any] | None = None, keys: Sequence[str] = (), plan: Plan | None = None,
) -> str:  # fmt: skip
    """Make a run that stands where ``run_id`` stood at checkpoint ``at`` (default: its head), and return its id.

    The new run depends on its parent no more; decisions are not inherited, open tickets are opened anew and show what was
    edited (their prompts say it only where ``plan`` is given).

    Raises ForkError where nothing could follow, EditError for edits that do not fit, CheckpointNotFoundError.
    """
    record = await store.run(run_id)
    state = await load_state(store, record.run_id, at)
    if state.status in ENDED:
        raise ForkError(record.run_id, state.seq, state.status)
    if edits:
        edited(state, record.flow, edits, validate, keys)
        reworded(state, record.flow, edits, plan)
    state.status = "suspended"
    state.details = {name: value for name, value in state.details.items() if name != "keys"}  # its effects are its own
    new_run_id = new_id(clock.now())
    barriers = tuple(record_of(new_run_id, scope, seq=0) for scope in state.frontier() if scope.phase == PARKED)
    payload, _ops = pack([["restore", state.dump()]])
    chain = store.chain
    row = chain.seal(chain.genesis(new_run_id, state.digest), new_run_id, 0, 0, state.step, "fork", "", "", "", payload, clock.now())
    await store.create(
        NewRun(
            run_id=new_run_id, flow=record.flow, flow_version=_version_at(record, state), graph_hash=await _graph_at(store, record, state),
            max_steps=state.max_steps, status="suspended", tenant=record.tenant, labels=record.labels, parent_run_id=record.run_id,
            forked_at_seq=state.seq, hold=False, barriers=barriers,
        ),
        row,
    )  # fmt: skip
    return new_run_id


def _version_at(record: RunRecord, state: RunState) -> str:
    """The version of the flow that the run was driven by at ``state``."""
    return str(state.details.get("flow_version", record.flow_version))


async def _graph_at(store: CheckpointStore, record: RunRecord, state: RunState) -> str:
    """The hash of the graph the run was driven with at ``state``: a later resume may have brought another."""
    if "graph_hash" in state.details:
        return str(state.details["graph_hash"])
    async for row in store.history(record.run_id, after=state.seq):
        if row.kind in ("attempt", "migration"):
            for op in unpack(row.payload):
                if op[0] in ("attempt", "migrate") and "changed_from" in op[2]:
                    return str(op[2]["changed_from"])
    return record.graph_hash


class StepLine(NamedTuple):
    """One checkpoint, for people."""

    row: Row
    keys: tuple[str, ...]
    """State keys it changed."""
    detail: str
    """What else there is to say: an error, a status, a decision."""

    @property
    def went(self) -> str:
        """Where it led, which may be the same node again; "" where it stayed or ended."""
        row = self.row
        return "" if row.next == row.node and row.kind in _STAYING else row.next


_STAYING: Final = frozenset({"barrier", "begin", "retry", "decision_refused", "reminded", "escalated"})
"""Kinds of checkpoints after which the scope still stands in the same visit of its node."""


async def steps(store: CheckpointStore, run_id: str, *, after: int = -1) -> AsyncIterator[StepLine]:
    """Every checkpoint of a run, in order.  Raises RunNotFoundError; a row that cannot be read says so in its line."""
    async for row in store.history((await store.run(run_id)).run_id, after=after):
        yield step_line(row)


def step_line(row: Row) -> StepLine:
    """What a checkpoint changed and what else there is to say of it."""
    try:
        ops = unpack(row.payload)
    except Exception as error:  # noqa: BLE001 - shown in the line: earlier and later rows stay readable
        return StepLine(row, (), f"unreadable: {error}")
    return StepLine(row, tuple(dict.fromkeys(_key(op) for op in ops if _key(op))), _detail(ops))


def _key(op: Op) -> str:
    if op[0] in ("set", "delete", "append", "merge", "patch", "increment"):
        return str(op[1])
    return str(op[2]) if op[0] == "take" else ""


def _detail(ops: list[Op]) -> str:  # noqa: C901, PLR0912 - a table of what ops say
    said = []
    for op in ops:
        match op:
            case ["fail" | "error", {"type": kind, "message": message}]:
                said.append(f"{kind}: {message}")
            case ["retry", number, _due, {"type": kind, "message": message}]:
                said.append(f"attempt {number} failed: {kind}: {message}")
            case ["decision", _node, {"action": action, "by": by, **more}]:
                said.append(f"{action} by {by}{_by_right_of(more)}")
            case ["status", status]:
                said.append(str(status))
            case ["edited", {"by": by, "reason": reason}]:
                said.append(f"edited by {by}" + (f": {reason}" if reason else ""))
            case ["attempt", _, {"quarantined": str(reason)}]:
                said.append(reason)
            case ["attempt", _, {"released": {"actor": actor, "reason": reason}}]:
                said.append(f"released by {actor}" + (f": {reason}" if reason else ""))
            case ["attempt", _, {"cancelled": {"actor": actor, "reason": reason}}]:
                said.append(f"by {actor}" + (f": {reason}" if reason else ""))
            case ["attempt", _, {"suspended": str(reason)}] if reason:
                said.append(reason)
            case ["attempt", number, details]:
                said.append(_attempt(number, details))
            case ["wait", _kind, name, _due]:
                said.append(f"waits for {f'the signal {name}' if name else 'its time'}")
            case ["heard", name, _payload, in_time]:
                said.append(f"heard {name}" if in_time else f"{name} did not come in time")
            case ["migrate", _state, {"versions": versions}]:
                said.append(f"version {' -> '.join(versions)}")
            case ["park", ticket, _details]:
                said.append(f"waits for {ticket}")
            case ["nudge", _number, approvers]:
                said.append(_nudge(approvers))
    return "; ".join(said)


def _attempt(number: int, details: Any) -> str:
    match details:
        case {"recoveries": recoveries}:
            return f"attempt {number}, recovery {recoveries} without progress"
        case _:
            return f"attempt {number}"


def _nudge(approvers: Sequence[str] | None) -> str:
    return "still undecided" if approvers is None else f"still undecided: {', '.join(approvers) or 'nobody new'} may decide too"


def _by_right_of(decision: Mapping[Any, Any]) -> str:
    if "on_behalf_of" in decision:
        return f" on behalf of {decision['on_behalf_of']}"
    return f", allowed in advance ({decision['grant']})" if "grant" in decision else ""


def values_of(state: RunState) -> dict[str, Any]:
    """The values of a state as data (models and enums as placeholders)."""
    return {key: value for key in sorted(state.root.values) if (value := state.root.read(key)) is not ABSENT}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, each with (before, after); ABSENT where there is none.

    >>> difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    {'b': (2, 3)}
    """
    keys = dict.fromkeys([*before, *after])
    pairs = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
