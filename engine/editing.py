"""What an operator writes into a run that nobody drives: other values for its state keys.

The edit is one committed row, made under an epoch of its own: it is fenced against whoever drove the run, and stands in the chain with
who made it and why.  Tickets that show an edited key are reworded in the same transaction.  Runs no node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from checkpoint_stores.codec import pack, to_json
from checkpoint_stores.errors import RunEndedError, RunMovedError
from checkpoint_stores.fold import OPEN, PARKED, RunState, Scope, read_anew
from checkpoint_stores.ops import Op
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, Amendment, Inbox
from engine.barriers import payload_digest, record_of, worded
from engine.errors import EditError, NodeError
from engine.loading import load_state
from engine.plan import NodePlan, Plan
from engine.updates import first_line

_TRIES: Final = 10
"""How often an edit looks again where somebody else writes to the run at the same moment."""


async def edit_run(store: CheckpointStore, run_id: str, edits: Mapping[str, Any], *, by: str, reason: str, plan: Plan) -> int:
    """Commit ``edits`` to a run that nobody drives, and return the number of the checkpoint that holds them.

    Raises RunNotFoundError, RunEndedError, LeaseHeldError, EditError, RunMovedError, CheckpointCorruptError.
    """
    run_id = (await store.run(run_id)).run_id
    for _ in range(_TRIES):
        with contextlib.suppress(RunMovedError):
            return await _edit_once(store, run_id, edits, by=by, reason=reason, plan=plan)
    raise RunMovedError(run_id)


async def _edit_once(store: CheckpointStore, run_id: str, edits: Mapping[str, Any], *, by: str, reason: str, plan: Plan) -> int:
    # In this order: whatever comes in between makes the amendment be refused.
    record = await store.run(run_id)
    if record.status in ENDED:
        raise RunEndedError(run_id, record.status)
    inbox = await store.inbox(run_id)
    state = await load_state(store, run_id)
    schema = plan.schema
    ops = edited(state, record.flow, edits, schema.validate_update, tuple(schema.keys))
    try:
        schema.check_final(state.root.read)
    except ValueError as error:
        raise EditError(record.flow, [str(error)]) from error
    tickets = reworded(state, record.flow, edits, plan)
    problems = list(_decided_already(tickets, inbox))
    if problems:
        raise EditError(record.flow, problems)
    ops += [["shows", scope.path, scope.detail[1]] for scope in tickets]
    ops.append(["edited", {"by": by, "reason": reason}])
    payload, _folded = pack(ops)
    row = store.chain.seal(state.digest, run_id, state.seq + 1, record.epoch + 1, state.step, "edit", "", "", "", payload, 0)
    records = tuple(record_of(run_id, scope, seq=row.seq) for scope in tickets)
    await store.amend(Amendment(row, inbox.rev, records))
    return row.seq


def edited(
    state: RunState, flow: str, edits: Mapping[str, Any], validate: Callable[[str, Any], Any] | None, keys: Sequence[str]
) -> list[Op]:
    """Write ``edits`` into the root's values, and return the ops that say so.  Raises EditError, with every problem at once."""
    problems: list[str] = []
    ops: list[Op] = []
    for key, value in edits.items():
        if keys and key not in keys:
            problems.append(f"{key!r} is not declared (declared are: {', '.join(keys)})")
            continue
        try:
            ops.append(["set", key, validate(key, value) if validate else value])
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            problems.append(f"{key}: {first_line(error)}")
    problems += [
        f"{scope.detail[2]['over']}: map node {scope.node!r} is at work on its items; wait until they are done"
        for scope in _mapping(state)
        if _root_key(scope, scope.detail[2]["over"]) in set(edits)
    ]
    if problems:
        raise EditError(flow, problems)
    ops = pack(ops)[1]
    for _kind, key, value in ops:
        state.root.values[key] = value
    read_anew(state)
    return ops


def reworded(state: RunState, flow: str, edits: Mapping[str, Any], plan: Plan | None) -> list[Scope]:
    """Let every open ticket that shows what was edited show it as it is now; the scopes of those tickets.

    Nobody may decide over what a ticket showed before the edits.  Raises EditError where a prompt cannot be written with them.
    """
    changed = []
    for scope in state.frontier():
        if scope.phase != PARKED:
            continue
        details = scope.detail[1]
        before = details["digest"]
        details["payload"] |= {key: to_json(scope.read(key)) for key in edits if key in details["payload"]}
        node = None if plan is None else _barrier_at(plan, scope)
        if node is not None:
            try:
                details["prompt"], details["payload"] = worded(node, scope)
            except NodeError as error:
                raise EditError(flow, [str(error)]) from error
        details["digest"] = payload_digest(details["prompt"], details["payload"])
        if details["digest"] != before:
            changed.append(scope)
    return changed


def _barrier_at(plan: Plan, scope: Scope) -> NodePlan | None:
    """The barrier that a scope is parked at; None where a changed flow, which a fork may be edited with, has none there."""
    try:
        node = plan.at(scope.path).nodes.get(scope.node)
    except (KeyError, IndexError):
        return None
    return node if node is not None and node.barrier is not None else None


def _mapping(state: RunState) -> Iterator[Scope]:
    """Scopes in which a map node is at work on the items of a key."""
    return (
        scope for scope in state.scopes.values() if scope.phase == OPEN and len(scope.detail) > 2 and scope.detail[2]["over"] is not None
    )


def _root_key(scope: Scope, key: str) -> str | None:
    """Which of the root's keys ``scope`` reads when it reads ``key``; None where the value is its own."""
    read: str | None = key
    while scope.parent is not None and read is not None:
        if scope.base is None:
            read = None if read in scope.values else scope.parent.detail[2]["lent"].get(read)
        scope = scope.parent
    return read


def _decided_already(tickets: Sequence[Scope], inbox: Inbox) -> Iterator[str]:
    """What people have said over what a ticket shows, and the run has not read yet: it must not count for something else."""
    for scope in tickets:
        said = [vote.actor for vote in inbox.decisions if vote.ticket == scope.detail[0] and vote.payload_digest is not None]
        if said:
            yield f"ticket {scope.detail[0]} was decided over what it shows now, by {', '.join(said)}; let the run use that first"
