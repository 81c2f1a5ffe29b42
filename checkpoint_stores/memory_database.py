"""What `MemoryCheckpointStore` keeps: runs as they stand, and what a commit makes of one.

Pure data and its changes; knows no lease, no clock and no one who waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from checkpoint_stores.addressing import the_one
from checkpoint_stores.errors import SHORTEST_ID, RunNotFoundError
from checkpoint_stores.granting import Use
from checkpoint_stores.records import (
    DRIVEN,
    ENDED,
    UNDRIVEN,
    BarrierRecord,
    BarrierStatus,
    CancelRequest,
    Changeover,
    Commit,
    DecisionRecord,
    EffectRecord,
    Grant,
    Resumption,
    Row,
    RunChange,
    RunRecord,
    Snapshot,
)
from checkpoint_stores.soundness import Stored
from checkpoint_stores.watching import LocalWatches


class HeldRun:
    """Everything one run has in the database; ``record`` holds all of `RunRecord` but epoch, inbox_rev and its owner's lease."""

    __slots__ = ("barriers", "cancel", "decisions", "effects", "epoch", "genesis", "inbox_rev", "record", "rows", "snapshots", "times")

    def __init__(self, record: RunRecord, genesis: bytes) -> None:
        self.record = record
        self.epoch = record.epoch
        self.inbox_rev = 0
        self.genesis = genesis
        self.rows: list[Row] = []
        self.times: list[int] = []
        self.snapshots: list[Snapshot] = []
        self.barriers: dict[str, BarrierRecord] = {}
        self.decisions: dict[str, DecisionRecord] = {}
        self.effects: dict[str, EffectRecord] = {}
        self.cancel: CancelRequest | None = None

    def current(self, workers: Mapping[str, int], now: int) -> RunRecord:
        """The record as of ``now``; ``workers`` tells when each worker's lease expires."""
        owner = self.record.owner
        expires_at = workers.get(owner) if owner is not None else None
        return replace(
            self.record, epoch=self.epoch, inbox_rev=self.inbox_rev, labels=dict(self.record.labels), lease_expires_at=expires_at,
            orphaned=owner is not None and (expires_at is None or expires_at <= now),
        )  # fmt: skip

    def stored(self) -> Stored:
        """What there is to be checked."""
        record = self.record
        rows = [Row(*row[:11], time) for row, time in zip(self.rows, self.times, strict=True)]
        first_seq = 1 if record.parent_run_id is None else 0
        return Stored(record.run_id, self.genesis, first_seq, record.head_seq, record.head_digest, self.snapshots, rows)

    # --- changes ----------------------------------------------------------------------------------------------------
    def change(self, commit: Commit, now: int, uses: Sequence[Use] = ()) -> None:
        """All that a commit writes beside its rows, which are there already; and what allowances decide at once."""
        for barrier in commit.opened:
            self.barriers[barrier.ticket] = replace(barrier, opened_at=barrier.opened_at or now)
        for ticket, status in commit.closed:
            self.set_barrier(ticket, status)
        for nudged in commit.nudged:
            known = self.barriers[nudged.ticket]
            self.barriers[nudged.ticket] = replace(known, approvers=nudged.approvers, nudged=nudged.nudged)
        for use in uses:
            self.decisions[use.record.id] = use.record
            self.set_barrier(use.record.ticket, use.status)
            self.inbox_rev += 1
        for vote in commit.voted:
            self.decisions[vote.id] = replace(vote, decided_at=vote.decided_at or now)
        for decision_id, seq in commit.consumed:
            self.decisions[decision_id] = replace(self.decisions[decision_id], consumed_seq=seq)
        change = commit.change
        if change is not None and change.release_at_rev in (None, self.inbox_rev):
            self._change_record(change, now)
        else:
            self.record = replace(self.record, updated_at=now)

    def told(self, now: int, *, moves: bool) -> None:
        """An outsider has written to the inbox; ``moves``: something that lets a waiting run go on."""
        self.inbox_rev += 1
        wake_at = now if moves and self.record.status == "waiting" else self.record.wake_at
        self.record = replace(self.record, updated_at=now, wake_at=wake_at)

    def is_still(self, resumption: Resumption) -> bool:
        """Whether nobody owns the run, and nobody has written to it since the resumption's maker read it."""
        (_, epoch, rows, *_), inbox_rev, *_, behind = resumption
        newest = self.rows[-1]
        head = (self.epoch + 1, self.inbox_rev, newest.seq + 1)
        is_head = head == (epoch, inbox_rev, rows[0].seq) and behind in (None, newest.digest)
        return is_head and self.record.owner is None and self.record.status not in ENDED

    def take_up(self, resumption: Resumption, *, owner: str, now: int) -> None:
        """All that a resumption changes beside what its commit writes."""
        commit = resumption.commit
        last = commit.rows[-1]
        self.epoch = commit.epoch
        self.inbox_rev += resumption.said
        self.record = replace(
            self.record, status="running", wake_at=None, attempt=self.record.attempt + 1, owner=owner, head_seq=last.seq,
            head_digest=last.digest, updated_at=now, max_steps=resumption.max_steps or self.record.max_steps,
        )  # fmt: skip

    def change_over(self, changeover: Changeover, now: int) -> None:
        """All that a changeover writes beside the graph's definition."""
        row = changeover.row
        self.rows.append(row)
        self.times.append(now)
        self.record = replace(self.record, graph_hash=changeover.graph_hash, head_seq=row.seq, head_digest=row.digest, updated_at=now)
        for ticket, to, node, path in changeover.tickets:
            self.barriers[to] = replace(self.barriers.pop(ticket), ticket=to, node=node, path=path)
        for vote in list(self.decisions.values()):
            if vote.consumed_seq is None:
                self.decisions[vote.id] = replace(vote, ticket=changeover.vote(vote.ticket))

    def _change_record(self, change: RunChange, now: int) -> None:
        record = self.record
        status = change.status or record.status
        gives_back = change.release or status in ENDED
        head = self.rows[-1]
        is_anchored = change.status is not None or gives_back
        self.record = replace(
            record,
            status=status,
            wake_at=None if change.clear_wake_at else record.wake_at if change.wake_at is None else change.wake_at,
            error=record.error if change.error is None else change.error,
            owner=None if gives_back else record.owner,
            head_seq=head.seq if is_anchored else record.head_seq,
            head_digest=head.digest if is_anchored else record.head_digest,
            updated_at=now,
        )

    def set_barrier(self, ticket: str, status: BarrierStatus) -> None:
        if ticket in self.barriers:
            self.barriers[ticket] = replace(self.barriers[ticket], status=status)

    def give_back(self, now: int) -> None:
        """Nobody owns it any more; anybody may drive it on."""
        head = self.rows[-1]
        self.record = replace(self.record, owner=None, head_seq=head.seq, head_digest=head.digest, updated_at=now)
        if self.record.status in DRIVEN:
            self.record = replace(self.record, status="ready", wake_at=now)


class MemoryDatabase:
    """What several `MemoryCheckpointStore` share, as processes share a database."""

    def __init__(self) -> None:
        self.runs: dict[str, HeldRun] = {}
        self.keys: dict[tuple[str, str, str], str] = {}
        self.graphs: dict[str, str] = {}
        self.grants: dict[str, Grant] = {}
        self.workers: dict[str, int] = {}
        """When each worker's lease expires."""
        self.watches = LocalWatches()


def held_run(database: MemoryDatabase, run_id: str) -> HeldRun:
    """Raises RunNotFoundError."""
    held = database.runs.get(run_id)
    if held is None:
        raise RunNotFoundError(run_id)
    return held


def found_run(database: MemoryDatabase, run_id: str) -> HeldRun:
    """The run with this id, or the only one whose id begins, or else ends, so.  Raises RunNotFoundError, AmbiguousRunError."""
    runs = database.runs
    if run_id in runs:
        return runs[run_id]
    part = run_id.lower()
    if len(part) < SHORTEST_ID:
        raise RunNotFoundError(run_id)
    beginning = {known: held for known, held in runs.items() if known.startswith(part)}
    return the_one(run_id, beginning or {known: held for known, held in runs.items() if known.endswith(part)})


def due_at(record: RunRecord) -> int | None:
    """Since when, or from when on, somebody should drive a run that nobody owns; None where somebody does, or a person has to move it."""
    return record.wake_at if record.owner is None and (record.status == "waiting" or record.status in UNDRIVEN) else None


def stats_of(database: MemoryDatabase) -> dict[str, Any]:
    """Counts and sizes."""
    everything = database.runs.values()
    by_status: dict[str, int] = {}
    for held in everything:
        by_status[held.record.status] = by_status.get(held.record.status, 0) + 1
    return {
        "runs": by_status,
        "checkpoints": sum(len(held.rows) for held in everything),
        "snapshots": sum(len(held.snapshots) for held in everything),
        "barriers_open": sum(barrier.status == "open" for held in everything for barrier in held.barriers.values()),
        "decisions": sum(len(held.decisions) for held in everything),
        "bytes": sum(len(row.payload) for held in everything for row in held.rows)
        + sum(len(snapshot.payload) for held in everything for snapshot in held.snapshots),
        "schema": "memory",
    }
