"""What a transaction of the SQL store does, one function each, the same on both databases.

Each function runs inside a transaction that somebody else begins and ends, and
speaks through a `Wire` (SQLite: in the writer's thread; PostgreSQL: under
`AsyncConnection.run_sync`).  Nothing here awaits, retries or knows a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from checkpoint_stores import attempts, effects
from checkpoint_stores.chain import Chain
from checkpoint_stores.deciding import find_ticket, is_known, judge, needs_delegations, node_of, tickets_counting_for
from checkpoint_stores.errors import (
    CheckpointCorruptError,
    LeaseHeldError,
    LeaseLostError,
    NotAnApproverError,
    NotDelegatedError,
    RunEndedError,
    RunExistsError,
    RunMovedError,
    RunNotFoundError,
    UnknownEffectError,
)
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import (
    ENDED,
    Amendment,
    BarrierRecord,
    CancelRequest,
    Changeover,
    DecisionRecord,
    EffectRecord,
    Lease,
    NewRun,
    Receipt,
    Row,
    RunRecord,
    SignalRecord,
    Snapshot,
)
from checkpoint_stores.signalling import id_of_signal, judge_signal, signal_of
from checkpoint_stores.sql import statements
from checkpoint_stores.sql.leases import is_over, worker_line
from checkpoint_stores.sql.lines import (
    BarrierLine,
    DecisionLine,
    EffectLine,
    GrantLine,
    RunLine,
    barrier_line,
    barrier_of,
    cancel_line,
    decision_line,
    decision_of,
    effect_line,
    effect_of,
    grant_of,
    id_of,
    key_of,
    new_key_of,
    run_line,
    run_of,
)
from checkpoint_stores.sql.wires import Wire


@dataclass(frozen=True, slots=True)
class Scribe:
    """What every transaction needs beside its wire."""

    worker_id: str
    lease: int
    """Microseconds."""
    chain: Chain
    now: Callable[[], int] | None
    """None: the database's clock."""

    def time(self) -> int | None:
        return self.now() if self.now is not None else None


def beat(wire: Wire, scribe: Scribe) -> int:
    """Extend this process's lease; return until when."""
    extended = wire.fetch(statements.BEAT, *worker_line(scribe.worker_id).values(), scribe.time(), scribe.lease)
    return int(extended[0][0])


def leave(wire: Wire, scribe: Scribe) -> list[str]:
    """Give back every lease of this process and forget it; return the runs."""
    owned = wire.fetch(statements.OWNED_BY, scribe.worker_id)
    for run_id, epoch in owned:
        wire.fetch(statements.GIVE_BACK, run_id, epoch, scribe.worker_id, scribe.time())
        wire.tell(run_id)
    wire.fetch(statements.FORGET_WORKER, scribe.worker_id)
    return [id_of(run_id) for run_id, _ in owned]


def forget(wire: Wire, scribe: Scribe, before: int) -> None:
    """Forget other processes whose lease was over at ``before`` and that own nothing."""
    wire.fetch(statements.FORGET_GONE_WORKERS, before, scribe.worker_id)


def release(wire: Wire, scribe: Scribe, run_id: str, epoch: int) -> None:
    """Give one lease back; nothing happens where it is lost."""
    key = key_of(run_id)
    if wire.fetch(statements.GIVE_BACK, key, epoch, scribe.worker_id, scribe.time()):
        wire.tell(key)


def create(wire: Wire, scribe: Scribe, run: NewRun, first: Row, *, store_graph: bool) -> Lease:
    """Insert a run, its first row, its graph and its open barriers.  Raises RunExistsError."""
    now = scribe.time()
    genesis = scribe.chain.genesis(run.run_id)
    if run.parent_run_id is not None:
        parent = wire.fetch(statements.ROW_DIGEST, key_of(run.parent_run_id), run.forked_at_seq)
        genesis = scribe.chain.genesis(run.run_id, bytes(parent[0][0])) if parent else b""
    if run.supersedes is not None:
        wire.fetch(statements.GIVE_KEY_UP, key_of(run.supersedes), run.run_key, now)
    line = run_line(run, first, genesis=genesis, owner=scribe.worker_id)
    made = wire.fetch(statements.INSERT_RUN, *line[: statements.NEW_RUN_WIDTH], now)
    if not made:
        check_name_free(wire, run)
        raise RunExistsError(run.run_key or run.run_id, run.run_id)  # whoever had the name is gone again
    if store_graph and run.definition:
        put_graph(wire, scribe, run.graph_hash, run.definition)
    created_at = made[0][0]
    wire.fetch(statements.INSERT_ROW, line.run_id, *first[1:11], now)
    for barrier in run.barriers:
        opened = barrier_line(barrier, tenant=run.tenant)
        opened["opened_at"] = opened["opened_at"] or created_at
        wire.fetch(statements.INSERT_BARRIER, *(opened[name] for name in BarrierLine._fields))
    if line.wake_at is not None:
        wire.tell(line.run_id)
    return lease_of(line, first, created_at)


def lease_of(line: Any, first: Row, created_at: int) -> Lease:
    """What the creator of a run is told; ``line`` is what `run_line` made."""
    return Lease(run_of(line._replace(created_at=created_at, updated_at=created_at)), line.epoch, first.seq, first.digest, first)


def check_name_free(wire: Wire, run: NewRun) -> None:
    """Raises RunExistsError."""
    taken = wire.fetch(statements.NAME_TAKEN, new_key_of(run.run_id), run.tenant, run.flow, run.run_key)
    if taken:
        raise RunExistsError(run.run_key or run.run_id, id_of(taken[0][0]))


def acquire(wire: Wire, scribe: Scribe, run_id: str, details: Mapping[str, Any], *, takeover: bool) -> Lease:
    """Transfer the authority over a run to this process: epoch, attempt, status and the ``attempt`` row.

    Raises RunNotFoundError, RunEndedError, LeaseHeldError, or the driver's own error where a stale owner's row got in first.
    """
    line, clock = locked(wire, scribe, run_id)
    if line.status in ENDED:
        raise RunEndedError(run_id, line.status)
    if not takeover:
        check_owner_gone(wire, line, clock)
    heads = wire.fetch(statements.HEAD, line.run_id)
    if not heads:
        raise CheckpointCorruptError(run_id, line.head_seq, "the run has no checkpoint at all")
    row, given = attempt_row(scribe, line, heads[0], details)
    # The row at once behind the reading of the head: a rival that goes on committing gets in between seldom, and waits behind it.
    wire.fetch(statements.INSERT_ROW, line.run_id, *row[1:11], scribe.time())
    changed = (scribe.worker_id, given.get("max_steps"), given.get("graph_hash"), row.seq, row.digest, scribe.time())
    taken = RunLine(*wire.fetch(statements.TAKE_RUN, line.run_id, *changed)[0])
    wire.tell(line.run_id)
    return Lease(run_of(taken), taken.epoch, row.seq, row.digest, row)


def check_owner_gone(wire: Wire, line: Any, clock: int) -> None:
    """Raises LeaseHeldError where a living process owns the run of ``line``, which is locked."""
    if line.owner is None:
        return
    # A second statement, behind the lock: joined to the first it would show the owner of before the wait.
    for expires_at, host, pid, pid_started in wire.fetch(statements.WORKER, line.owner):
        if not is_over(expires_at, clock, host, pid, pid_started):
            raise LeaseHeldError(id_of(line.run_id), line.owner, datetime.fromtimestamp(expires_at / 1_000_000, UTC))


def amend(wire: Wire, scribe: Scribe, amendment: Amendment) -> Receipt:
    """Append a row under an epoch of its own, and reword open tickets.

    Raises RunNotFoundError, RunEndedError, LeaseHeldError, RunMovedError, or the driver's own error where a stale owner's row got in first.
    """
    row = amendment.row
    line, clock = locked(wire, scribe, row.run_id)
    if line.status in ENDED:
        raise RunEndedError(row.run_id, line.status)
    check_owner_gone(wire, line, clock)
    heads = wire.fetch(statements.HEAD, line.run_id)
    if (line.epoch + 1, line.inbox_rev, heads[0][0] + 1 if heads else None) != (row.epoch, amendment.inbox_rev, row.seq):
        raise RunMovedError(row.run_id)
    wire.fetch(statements.INSERT_ROW, line.run_id, *row[1:11], scribe.time())
    wire.fetch(statements.AMEND_RUN, line.run_id, row.epoch, row.seq, row.digest, scribe.time())
    for barrier in amendment.reworded:
        values = barrier_line(barrier, tenant=line.tenant)
        wire.fetch(statements.REWORD_BARRIER, line.run_id, barrier.ticket, values["digest"], values["details"])
    wire.tell(line.run_id)
    return Receipt(line.inbox_rev, clock)


def attempt_row(scribe: Scribe, line: Any, head: Sequence[Any], details: Mapping[str, Any]) -> tuple[Row, dict[str, Any]]:
    """The row by which this process takes the run of ``line``, whose newest row has seq, digest and step; and its details.

    Raises UnserialisableError where the details hold no data.
    """
    seq, digest, step = head
    given = {**details, "owner": scribe.worker_id}
    row = attempts.attempt_row(scribe.chain, id_of(line.run_id), (seq, bytes(digest), step), line.epoch + 1, line.attempt + 1, given)
    return row, given


def change_over(wire: Wire, scribe: Scribe, changeover: Changeover) -> Receipt:
    """Write a run's changeover to another graph.  Raises LeaseLostError."""
    try:
        # Behind the lock nobody votes, and nobody takes the run.
        line, clock = locked(wire, scribe, changeover.run_id)
    except RunNotFoundError:
        raise LeaseLostError(changeover.run_id, changeover.epoch) from None
    row = changeover.row
    if line.epoch != changeover.epoch or wire.fetch(statements.HEAD, line.run_id)[0][0] + 1 != row.seq:
        raise LeaseLostError(changeover.run_id, changeover.epoch, owner=line.owner, current_epoch=line.epoch)
    wire.fetch(statements.INSERT_ROW, line.run_id, *row[1:11], scribe.time())
    put_graph(wire, scribe, changeover.graph_hash, changeover.definition)
    wire.fetch(statements.CHANGE_GRAPH, line.run_id, changeover.graph_hash, row.seq, row.digest, clock)
    for move in changeover.tickets:
        wire.fetch(statements.MOVE_BARRIER, line.run_id, *move)
    for values in wire.fetch(statements.PENDING_DECISIONS, line.run_id):
        vote = decision_of(DecisionLine(*values))
        if changeover.vote(vote.ticket) != vote.ticket:
            wire.fetch(statements.MOVE_VOTE, line.run_id, vote.id, changeover.vote(vote.ticket))
    wire.tell(line.run_id)
    return Receipt(line.inbox_rev, clock)


def put_snapshot(wire: Wire, scribe: Scribe, snapshot: Snapshot, epoch: int) -> None:
    """Keep a snapshot while the epoch is current, and its checkpoint is there: behind a pruning it would be one without the rows behind it."""
    key = key_of(snapshot.run_id)
    # The run's line is locked against a pruning that is under way.
    if wire.fetch(statements.LOCK_RUN, key, scribe.time()) and wire.fetch(statements.ROW_DIGEST, key, snapshot.seq):
        seal = scribe.chain.seal_snapshot(snapshot)
        wire.fetch(statements.PUT_SNAPSHOT, key, snapshot.seq, snapshot.digest, seal, snapshot.payload, epoch)


def put_graph(wire: Wire, _scribe: Scribe, graph_hash: str, definition: str) -> None:
    """Keep a graph's definition; nothing happens where it is already there."""
    wire.fetch(statements.PUT_GRAPH, graph_hash, definition)


def decide(wire: Wire, scribe: Scribe, run_id: str, barrier: str, decision: Decides) -> tuple[DecisionRecord, bool]:
    """Judge and store a decision; return its record and whether it is new.

    Raises what `deciding.find_ticket` and `deciding.judge` raise, and RunNotFoundError.
    """
    # The run's line is locked first, as in every writer: two people are judged one after the other.
    line, clock = locked(wire, scribe, run_id)
    run = run_of(line)
    found = wire.fetch(statements.BARRIERS_OF_NODE, line.run_id, node_of(barrier), barrier)
    known = [barrier_of(BarrierLine(*values)) for values in found]
    definitions = [] if is_known(barrier, known) else wire.fetch(statements.GRAPH, run.graph_hash)
    ticket = find_ticket(run, barrier, known, definitions[0][0] if definitions else None)
    counting = tickets_counting_for(ticket.ticket if isinstance(ticket, BarrierRecord) else ticket.name)
    cast = [decision_of(DecisionLine(*values)) for values in wire.fetch(statements.VOTES, line.run_id, *counting)]
    judged = partial(judge, run, ticket, cast, decision, now=clock, decision_id=new_id(clock))
    try:
        verdict = judged()
    except (NotAnApproverError, NotDelegatedError) as error:
        if not needs_delegations(error, decision):
            raise
        handed_on = wire.fetch(statements.DELEGATIONS, run.tenant, node_of(barrier), decision.by)
        verdict = judged(delegations=[grant_of(GrantLine(*values)) for values in handed_on])
    if not verdict.is_new:
        return verdict.record, False
    values = decision_line(verdict.record)
    wire.fetch(statements.INSERT_DECISION, *(values[name] for name in DecisionLine._fields))
    if isinstance(ticket, BarrierRecord) and verdict.status != ticket.status:
        wire.fetch(statements.SET_BARRIER, line.run_id, ticket.ticket, verdict.status)
    # A vote for what is not open yet may be enough for it, and still moves no run.
    moves = isinstance(ticket, BarrierRecord) and verdict.status == "decided"
    wire.fetch(statements.BUMP_INBOX, line.run_id, clock, None, moves)
    wire.tell(line.run_id)
    return verdict.record, True


def signal(wire: Wire, scribe: Scribe, run_id: str, name: str, payload: Any, *, by: str, given_id: str | None) -> tuple[SignalRecord, bool]:
    """Judge and store a signal; return its record and whether it is new.

    Raises what `signalling.judge_signal` raises, and RunNotFoundError.
    """
    line, clock = locked(wire, scribe, run_id)
    signal_id = id_of_signal(id_of(line.run_id), given_id) if given_id is not None else new_id(clock)
    before = [decision_of(DecisionLine(*values)) for values in wire.fetch(statements.DECISION_BY_ID, signal_id)]
    definitions = wire.fetch(statements.GRAPH, line.graph_hash)
    definition = definitions[0][0] if definitions else None
    record, is_new = judge_signal(
        run_of(line), name, payload, definition, before[0] if before else None, by=by, signal_id=signal_id, now=clock
    )
    if is_new:
        values = decision_line(record)
        wire.fetch(statements.INSERT_DECISION, *(values[column] for column in DecisionLine._fields))
        wire.fetch(statements.BUMP_INBOX, line.run_id, clock, None, True)
        wire.tell(line.run_id)
    return signal_of(record), is_new


def request_cancel(wire: Wire, scribe: Scribe, run_id: str, actor: str, reason: str) -> bool:
    """Leave a request to end the run; return whether it is new.

    Raises RunNotFoundError, RunEndedError.
    """
    line, clock = locked(wire, scribe, run_id)
    if line.status in ENDED:
        raise RunEndedError(run_id, line.status)
    if line.cancel is not None:
        return False
    request = cancel_line(CancelRequest(actor, reason, clock))
    wire.fetch(statements.BUMP_INBOX, line.run_id, clock, request, True)
    wire.tell(line.run_id)
    return True


def begin_effect(wire: Wire, scribe: Scribe, effect: EffectRecord, epoch: int, *, again: bool) -> tuple[EffectRecord, bool]:
    """Record that a side effect is about to be carried out; see `effects.begin`.  Raises RunNotFoundError, LeaseLostError."""
    clock = _owned(wire, scribe, effect.run_id, epoch)
    held = _effect(wire, effect)
    record, may_run = effects.begin(held, effect, epoch, clock, again=again)
    if record is not held:
        wire.fetch(statements.PUT_EFFECT, *effect_line(record))
    return record, may_run


def end_effect(wire: Wire, scribe: Scribe, effect: EffectRecord, epoch: int) -> EffectRecord:
    """Record what became of a side effect; see `effects.end`.

    Raises RunNotFoundError, LeaseLostError, UnknownEffectError, UnserialisableError.
    """
    clock = _owned(wire, scribe, effect.run_id, epoch)
    held = _effect(wire, effect)
    if held is None:
        known = wire.fetch(statements.EFFECTS_OF, key_of(effect.run_id))
        raise UnknownEffectError(effect.run_id, effect.name, tuple(effect_of(EffectLine(*line)).name for line in known))
    ended = effects.end(held, effect, clock)
    if ended is None:
        return held
    line = effect_line(ended)
    wire.fetch(statements.PUT_EFFECT, *line)
    return effect_of(line)


def effects_of(wire: Wire, scribe: Scribe, run_id: str) -> tuple[RunRecord, list[EffectRecord], int]:
    """The run, locked, with its side effects as readers are told them, and the clock.  Raises RunNotFoundError."""
    line, clock = locked(wire, scribe, run_id)
    workers = wire.fetch(statements.WORKER, line.owner) if line.owner is not None else []
    is_orphaned = line.owner is not None and all(is_over(worker[0], clock, *worker[1:]) for worker in workers)
    run = run_of(line, orphaned=is_orphaned)
    found = wire.fetch(statements.EFFECTS_OF, line.run_id)
    return run, [effects.seen(run, effect_of(EffectLine(*values))) for values in found], clock


def resolve_effect(wire: Wire, scribe: Scribe, run_id: str, effect: str, *, done: bool, outcome: Any, by: str, reason: str) -> EffectRecord:
    """Settle a side effect that is in doubt.

    Raises RunNotFoundError and what `effects.find` and `effects.settle` raise.
    """
    run, known, clock = effects_of(wire, scribe, run_id)
    held = effects.find(run.run_id, known, effect)
    settled = effects.settle(run, held, done=done, outcome=outcome, by=by, reason=reason, now=clock)
    if settled is not held:
        wire.fetch(statements.PUT_EFFECT, *effect_line(settled))
    return settled


def _owned(wire: Wire, scribe: Scribe, run_id: str, epoch: int) -> int:
    """Lock a run that is still its owner's; the clock."""
    line, clock = locked(wire, scribe, run_id)
    if line.epoch != epoch:
        raise LeaseLostError(run_id, epoch, owner=line.owner, current_epoch=line.epoch)
    return clock


def _effect(wire: Wire, effect: EffectRecord) -> EffectRecord | None:
    found = wire.fetch(statements.EFFECT, key_of(effect.run_id), effect.key)
    return effect_of(EffectLine(*found[0])) if found else None


def locked(wire: Wire, scribe: Scribe, run_id: str) -> tuple[Any, int]:
    """The line of a run, locked until the transaction ends, and the clock.  Raises RunNotFoundError."""
    found = wire.fetch(statements.LOCK_RUN, key_of(run_id), scribe.time())
    if not found:
        raise RunNotFoundError(run_id)
    *values, clock = found[0]
    return RunLine(*values), clock
