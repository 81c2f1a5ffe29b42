"""What the engine asks of a store, and what a store promises.

The engine knows this file and never an implementation.  Each method's
docstring is a promise; `trailmark.testing.StoreContract` tests every one of
them, for our stores and for anybody else's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, Self

from checkpoint_stores.chain import Chain
from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.records import (
    BarrierRecord,
    Changeover,
    Commit,
    DecisionRecord,
    Inbox,
    Lease,
    NewRun,
    Problem,
    Receipt,
    Row,
    RunRecord,
    SignalRecord,
    Snapshot,
)


class Watch(Protocol):
    """Tells a process that something outside changed a run.  May wake for nothing, never sleeps through a change."""

    async def changed(self) -> None:
        """Return after the next change of the run since this watch was made or last returned."""
        ...

    def close(self) -> None: ...


class CheckpointStore(Protocol):
    """Remembers runs.  Knows rows and bytes; knows nothing of graphs, nodes or reducers."""

    url: str
    """How errors and logs name it; never holds a password."""

    chain: Chain
    """Seals and checks rows (holds the HMAC key, where one is configured)."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...
    async def close(self) -> None:
        """Commit what is queued, give back held leases, close connections.  Idempotent."""
        ...

    # --- the owner's side -------------------------------------------------------------------------------------------
    async def now(self) -> int:
        """The store's clock: microseconds since the epoch, UTC."""
        ...

    @property
    def worker_id(self) -> str:
        """Who this process is in ``workers`` and as ``owner`` of runs."""
        ...

    def lease_is_fresh(self) -> bool:
        """Whether, by this process's monotonic clock, less than 2/3 of the lease time has passed since the last heartbeat
        that the database confirmed.  No I/O.  An owner that gets False must `heartbeat` before it starts anything new."""
        ...

    async def heartbeat(self) -> None:
        """Extend this process's lease now.  Also done in the background while any lease is held."""
        ...

    async def create(self, run: NewRun, first: Row) -> Lease:
        """Create a run with its first row, its graph's definition and (where ``hold``) its lease, in one transaction.

        Raises RunExistsError when (tenant, flow, run_key) or the run id is taken.
        """
        ...

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None = None, takeover: bool = False) -> Lease:
        """Take the authority over a run: epoch + 1, attempt + 1, status running and a row of kind ``attempt`` at head + 1, in one transaction.

        The row's payload is ``[["status", "running"], ["attempt", n, details]]`` with ``owner`` added to the details;
        ``details["max_steps"]``, ``details["graph_hash"]`` (where given) are also written to ``runs``.
        A lease that has expired by the store's clock, or whose process is known to be dead on this machine, may be taken;
        ``takeover=True`` takes a living one too.

        Raises RunNotFoundError, RunEndedError, LeaseHeldError.
        """
        ...

    async def commit(self, commit: Commit) -> Receipt:
        """Write a transition: all of it or nothing, and only while ``commit.epoch`` is the run's epoch and each (run_id, seq) is new.

        Returns when it is durable.  May be batched with commits of other runs.  A refused or failed commit of one run never
        harms another's.  The receipt's ``inbox_rev`` is at least the revision every earlier outsider's write produced.
        Where ``commit.change`` has a status, the anchor (head_seq, head_digest) is written too.

        Raises LeaseLostError (nothing was written), StoreUnavailableError (nothing was written, or it is unknown and
        re-reading failed).
        """
        ...

    async def change_over(self, changeover: Changeover) -> Receipt:
        """Write the checkpoint by which a run goes over to another graph; in the same transaction ``runs`` follows (graph_hash, anchor), the
        graph's definition is kept, live tickets get their new names (ticket, node, path), and so do votes that no checkpoint has consumed.

        Fenced as `commit` is: only while ``epoch`` is the run's and the row extends the head.

        Raises LeaseLostError (nothing was written), StoreUnavailableError (nothing was written, or it is unknown).
        """
        ...

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        """Keep a snapshot; refused silently where the epoch is no longer current (a snapshot is never needed for truth)."""
        ...

    async def release(self, run_id: str, epoch: int) -> None:
        """Give a lease back without writing a checkpoint.  Nothing happens where it is already lost."""
        ...

    # --- reading ----------------------------------------------------------------------------------------------------
    async def run(self, run_id: str) -> RunRecord:
        """A run, and (as of this moment, by the store's clock) whether its owner still lives: ``lease_expires_at``, ``orphaned``.

        It is found by its id, or by the first or the last characters of it (8 at least).

        Raises RunNotFoundError; AmbiguousRunError where several ids begin (or, where none begins, end) so.
        """
        ...

    async def run_by_key(self, flow: str, run_key: str, *, tenant: str = "") -> RunRecord | None: ...

    async def runs(
        self, *, flow: str | None = None, status: str | None = None, tenant: str = "", limit: int = 50, before: str | None = None
    ) -> list[RunRecord]:
        """Newest first, each as `run` tells it; ``before`` is a run id to page on from."""
        ...

    async def load(self, run_id: str, upto: int | None = None) -> tuple[Snapshot | None, list[Row]]:
        """The newest usable snapshot (at or before ``upto``) and all rows after it, in order, up to and including ``upto``.

        Raises RunNotFoundError, CheckpointNotFoundError (``upto`` beyond the head), CheckpointCorruptError where a row's digest does
        not follow from its predecessor (rows before it are reachable with a smaller ``upto``) or rows are missing.
        """
        ...

    def history(self, run_id: str, *, after: int = -1) -> AsyncIterator[Row]:
        """All rows with seq > ``after``, in order, unchecked and without holding them all in memory."""
        ...

    async def inbox(self, run_id: str) -> Inbox: ...

    async def graph(self, graph_hash: str) -> str | None:
        """The stored definition (JSON text) of a graph."""
        ...

    async def put_graph(self, graph_hash: str, definition: str) -> None:
        """Keep a graph's definition (JSON text); nothing happens where it is already there."""
        ...

    async def verify(self, run_id: str) -> list[Problem]:
        """Check the digest chain, density, snapshots and the anchor of a run.  Empty means sound."""
        ...

    async def stats(self) -> dict[str, Any]:
        """Counts and sizes: runs by status, checkpoints, snapshots, barriers open, bytes, schema version."""
        ...

    # --- the outsider's side ----------------------------------------------------------------------------------------
    async def barriers(
        self, *, run_id: str | None = None, status: str | None = "open", tenant: str = "", limit: int = 100
    ) -> list[BarrierRecord]:
        """The approvals inbox, oldest first: one indexed query."""
        ...

    async def decisions(self, run_id: str) -> list[DecisionRecord]:
        """Every decision ever taken on a run, oldest first."""
        ...

    async def decide(self, run_id: str, barrier: str, decision: Decides) -> DecisionRecord:
        """Record a decision durably and wake the run's owner.  ``barrier`` is a ticket or a barrier's name.

        Checked here, without user code: the run has not ended, the barrier exists (open, or declared in the graph's
        definition: then it is an early decision), it takes decisions (deadline by the store's clock), the actor is an
        approver and has not voted differently, edits fit the form, the target is allowed, the payload digest fits.
        The same decision again by the same actor returns the stored record.  Any reject decides; otherwise ``quorum``
        votes do (one per actor).  A run that waits and can now move becomes due: its ``wake_at`` is now.  With a quorum above 1 only approve and reject are taken, so that nobody decides alone.

        Raises RunNotFoundError, RunEndedError, UnknownBarrierError, AmbiguousTicketError, BarrierClosedError,
        DecisionConflictError, NotAnApproverError, StalePayloadError, InvalidDecisionError.
        """
        ...

    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        """Tell a run of an event, durably, and wake its owner; a run that waits becomes due.  Kept until a node waits for it.

        ``name`` is an event its flow declares; ``each[3].paid`` is for the scope at ``each[3]`` only.  The payload is checked against
        the JSON Schema in the graph's definition.  The same ``signal_id`` again returns the stored record.

        Raises RunNotFoundError, RunEndedError, UnknownSignalError, InvalidSignalError, SignalConflictError, UnserialisableError.
        """
        ...

    async def signals(self, run_id: str) -> list[SignalRecord]:
        """Every signal ever sent to a run, oldest first."""
        ...

    async def request_cancel(self, run_id: str, *, actor: str, reason: str = "") -> RunRecord:
        """Ask the owner to end the run.  Idempotent.  Raises RunNotFoundError, RunEndedError."""
        ...

    def watch(self, run_id: str) -> Watch:
        """Be woken when an outsider (this process or another) writes to the run's inbox or its status changes."""
        ...


class Decides(Protocol):
    """What `decide` reads of a decision (trailmark.Decision has it)."""

    @property
    def action(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def roles(self) -> Sequence[str]: ...
    @property
    def edits(self) -> Mapping[str, Any] | None: ...
    @property
    def target(self) -> str | None: ...
    @property
    def approves(self) -> bool: ...
    @property
    def seen(self) -> str | None:
        """Digest of the payload the person saw; None = bind to what the open ticket shows now."""
        ...


DEFAULT_LEASE = timedelta(seconds=30)


def check_lease(lease: object) -> None:
    """Raise ArgumentError where ``lease`` is no span of time."""
    if not isinstance(lease, timedelta) or lease < timedelta(0):
        raise ArgumentError("lease", lease, "a timedelta, e.g. timedelta(seconds=30)")
