"""What a transaction of the SQL store does, one function each, the same on both databases.

Each function runs inside a transaction that somebody else begins and ends,
on a synchronous SQLAlchemy connection (SQLite: in the writer's thread;
PostgreSQL: under `AsyncConnection.run_sync`).  Nothing here awaits, retries or
knows a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import pack
from checkpoint_stores.deciding import find_ticket, judge, node_of, tickets_counting_for
from checkpoint_stores.errors import CheckpointCorruptError, LeaseHeldError, RunEndedError, RunExistsError, RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import ENDED, BarrierRecord, CancelRequest, DecisionRecord, Lease, NewRun, Row, RunRecord, Snapshot
from checkpoint_stores.sql import statements
from checkpoint_stores.sql.leases import is_known_dead, worker_line
from checkpoint_stores.sql.lines import (
    barrier_line,
    barrier_of,
    cancel_line,
    decision_line,
    decision_of,
    id_of,
    key_of,
    new_key_of,
    run_line,
    run_of,
)


@dataclass(frozen=True, slots=True)
class Scribe:
    """What every transaction needs beside its connection."""

    dialect: str
    worker_id: str
    lease: int
    """Microseconds."""
    chain: Chain
    now: Callable[[], int] | None
    """None: the database's clock."""

    def time(self) -> int | None:
        return self.now() if self.now is not None else None


def beat(connection: sa.Connection, scribe: Scribe) -> None:
    """Extend this process's lease."""
    connection.execute(statements.beat(worker_line(scribe.worker_id), scribe.lease, scribe.time(), scribe.dialect))


def leave(connection: sa.Connection, scribe: Scribe) -> list[str]:
    """Give back every lease of this process and forget it; return the runs."""
    owned = connection.execute(statements.owned_by(scribe.worker_id)).all()
    for run_id, epoch in owned:
        connection.execute(statements.give_back(run_id, epoch, scribe.worker_id))
    connection.execute(statements.forget_worker(scribe.worker_id))
    return [id_of(run_id) for run_id, _ in owned]


def release(connection: sa.Connection, scribe: Scribe, run_id: str, epoch: int) -> None:
    """Give one lease back; nothing happens where it is lost."""
    connection.execute(statements.give_back(key_of(run_id), epoch, scribe.worker_id))


def create(connection: sa.Connection, scribe: Scribe, run: NewRun, first: Row, *, store_graph: bool) -> Lease:
    """Insert a run, its first row, its graph and its open barriers.

    Raises RunExistsError, or sa.exc.IntegrityError where another transaction took the name meanwhile.
    """
    now = scribe.time()
    check_name_free(connection, run)
    genesis = scribe.chain.genesis(run.run_id)
    if run.parent_run_id is not None:
        parent = connection.execute(statements.row_digest(key_of(run.parent_run_id), run.forked_at_seq)).scalar()
        genesis = scribe.chain.genesis(run.run_id, bytes(parent)) if parent is not None else b""
    if store_graph and run.definition:
        put_graph(connection, scribe, run.graph_hash, run.definition)
    line = connection.execute(statements.insert_run(run_line(run, first, genesis=genesis, owner=scribe.worker_id), now)).one()
    connection.execute(statements.insert_row((line.run_id, *first[1:11]), now))
    for barrier in run.barriers:
        connection.execute(statements.insert_barrier(barrier_line(barrier, tenant=run.tenant), now))
    return Lease(run_of(line), line.epoch, first.seq, first.digest)


def check_name_free(connection: sa.Connection, run: NewRun) -> None:
    """Raises RunExistsError."""
    key = new_key_of(run.run_id)
    taken = connection.execute(statements.run_taking_name(key, run.tenant, run.flow, run.run_key)).scalar()
    if taken is not None:
        raise RunExistsError(run.run_key or run.run_id, id_of(taken))


def acquire(connection: sa.Connection, scribe: Scribe, run_id: str, details: Mapping[str, Any], *, takeover: bool) -> Lease:
    """Transfer the authority over a run to this process: epoch, attempt, status and the ``attempt`` row.

    Raises RunNotFoundError, RunEndedError, LeaseHeldError, or sa.exc.IntegrityError where a stale owner's row got in first.
    """
    key, now = key_of(run_id), scribe.time()
    line = connection.execute(statements.run_to_change(key, now)).one_or_none()
    if line is None:
        raise RunNotFoundError(run_id)
    if line.status in ENDED:
        raise RunEndedError(run_id, line.status)
    if line.owner is not None and not takeover:
        # A second statement, behind the lock: joined to the first it would show the owner of before the wait.
        owner = connection.execute(statements.worker(line.owner)).one_or_none()
        if owner is not None and owner.lease_expires_at > line.clock and not is_known_dead(owner.host, owner.pid, owner.pid_started):
            raise LeaseHeldError(run_id, line.owner, datetime.fromtimestamp(owner.lease_expires_at / 1_000_000, UTC))
    head = connection.execute(statements.head_of(key)).one_or_none()
    if head is None:
        raise CheckpointCorruptError(run_id, line.head_seq, "the run has no checkpoint at all")
    attempt, epoch = line.attempt + 1, line.epoch + 1
    given = {**details, "owner": scribe.worker_id}
    payload = pack([["status", "running"], ["attempt", attempt, given]])[0]
    row = scribe.chain.seal(bytes(head.digest), id_of(key), head.seq + 1, epoch, head.step, "attempt", "", "", "", payload, 0)
    values = {name: given[name] for name in ("max_steps", "graph_hash") if given.get(name) is not None}
    values |= {"status": "running", "attempt": attempt, "owner": scribe.worker_id, "head_seq": row.seq, "head_digest": row.digest}
    taken = connection.execute(statements.take_run(key, values, now)).one()
    connection.execute(statements.insert_row((key, *row[1:11]), now))
    _tell(connection, scribe, key)
    return Lease(run_of(taken), taken.epoch, row.seq, row.digest)


def put_snapshot(connection: sa.Connection, scribe: Scribe, snapshot: Snapshot, epoch: int) -> None:
    """Keep a snapshot while the epoch is current."""
    line = {
        "run_id": key_of(snapshot.run_id),
        "seq": snapshot.seq,
        "digest": snapshot.digest,
        "seal": scribe.chain.seal_snapshot(snapshot),
        "payload": snapshot.payload,
    }
    connection.execute(statements.put_snapshot(line, epoch, scribe.dialect))


def put_graph(connection: sa.Connection, scribe: Scribe, graph_hash: str, definition: str) -> None:
    """Keep a graph's definition; nothing happens where it is already there."""
    connection.execute(statements.put_graph(graph_hash, definition, scribe.dialect))


def decide(connection: sa.Connection, scribe: Scribe, run_id: str, barrier: str, decision: Decides) -> tuple[DecisionRecord, bool]:
    """Judge and store a decision; return its record and whether it is new.

    Raises what `deciding.find_ticket` and `deciding.judge` raise, and RunNotFoundError.
    """
    # The run's line is locked first, as in every writer: two people are judged one after the other.
    line, run = _open_run(connection, scribe, run_id)
    known = [barrier_of(found) for found in connection.execute(statements.barriers_of_node(line.run_id, node_of(barrier), barrier))]
    definition = None if known else connection.execute(statements.graph(run.graph_hash)).scalar()
    ticket = find_ticket(run, barrier, known, definition)
    counting = tickets_counting_for(ticket.ticket if isinstance(ticket, BarrierRecord) else ticket.name)
    cast = [decision_of(found) for found in connection.execute(statements.votes(line.run_id, counting))]
    verdict = judge(run, ticket, cast, decision, now=line.clock, decision_id=new_id(line.clock))
    if not verdict.is_new:
        return verdict.record, False
    connection.execute(statements.insert_decision(decision_line(verdict.record)))
    if isinstance(ticket, BarrierRecord) and verdict.status != ticket.status:
        connection.execute(statements.set_barrier(line.run_id, ticket.ticket, verdict.status))
    connection.execute(statements.bump_inbox(line.run_id, line.clock))
    _tell(connection, scribe, line.run_id)
    return verdict.record, True


def request_cancel(connection: sa.Connection, scribe: Scribe, run_id: str, actor: str, reason: str) -> tuple[RunRecord, bool]:
    """Leave a request to end the run; return the run and whether the request is new.

    Raises RunNotFoundError, RunEndedError.
    """
    line, run = _open_run(connection, scribe, run_id)
    if run.status in ENDED:
        raise RunEndedError(run_id, run.status)
    if line.cancel is not None:
        return run, False
    request = cancel_line(CancelRequest(actor, reason, line.clock))
    changed = connection.execute(statements.bump_inbox(line.run_id, line.clock, cancel=request)).one()
    _tell(connection, scribe, line.run_id)
    return run_of(changed), True


def _open_run(connection: sa.Connection, scribe: Scribe, run_id: str) -> tuple[Any, RunRecord]:
    line = connection.execute(statements.run_to_change(key_of(run_id), scribe.time())).one_or_none()
    if line is None:
        raise RunNotFoundError(run_id)
    return line, run_of(line)


def _tell(connection: sa.Connection, scribe: Scribe, key: bytes) -> None:
    if scribe.dialect == "postgresql":
        connection.execute(statements.notify(key))
