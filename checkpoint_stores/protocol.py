"""What the engine asks of a store, and what a store promises.

The engine knows this file and never an implementation.  Each method's
docstring is a promise; `trailmark.testing.StoreContract` tests every one of
them, for our stores and for anybody else's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, Self, TypeGuard

from checkpoint_stores.carrying import RunImage
from checkpoint_stores.chain import Chain
from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.fold import RunState
from checkpoint_stores.records import (
    Amendment,
    BarrierRecord,
    Changeover,
    Commit,
    DecisionRecord,
    EffectRecord,
    Grant,
    Inbox,
    Lease,
    NewRun,
    Problem,
    Receipt,
    Resumption,
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


class Transaction(Protocol):
    """A step's own transaction: what a node writes to the store's database is committed by the step's checkpoint, or not at all."""

    @property
    def over(self) -> Exception | None:
        """Why it has ended (also where it was committed); None while it goes on."""
        ...

    async def open(self) -> Any:
        """The node's connection (SQLAlchemy's AsyncConnection); the transaction begins with its first statement."""
        ...

    async def hand_over(self) -> bool:
        """The node has made its last statement; whether there is anything to commit.  Raises TransactionTimeoutError, database errors."""
        ...

    def take(self) -> bool:
        """Stop its time: it is about to be committed.  False where it is over."""
        ...

    async def roll_back(self, reason: str) -> None:
        """End it without a commit, and give its connection back.  Idempotent."""
        ...


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

    def holds(self, run_id: str) -> bool:
        """Whether this process took the run and has not given it back, as far as it knows.  No I/O."""
        ...

    async def heartbeat(self) -> None:
        """Extend this process's lease now.  Also done in the background while any lease is held."""
        ...

    async def create(self, run: NewRun, first: Row) -> Lease:
        """Create a run with its first row, its graph's definition and (where ``hold``) its lease, in one transaction.

        A run created unheld in status ``created`` or ``ready`` is due at once (``wake_at`` is the first row's ``started_at``).
        Where ``run.supersedes`` names an ended run, that run loses its ``run_key`` in the same transaction.

        Raises RunExistsError when (tenant, flow, run_key) or the run id is taken.
        """
        ...

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None = None, takeover: bool = False) -> Lease:
        """Take the authority over a run: epoch + 1, attempt + 1, status running and a row of kind ``attempt`` at head + 1, in one transaction.

        The row's payload is ``[["status", "running"], ["attempt", n, details]]`` with ``owner`` added to the details;
        ``details["max_steps"]``, ``details["graph_hash"]`` (where given) are also written to ``runs``.
        ``wake_at`` is cleared.  A lease that has expired by the store's clock, or whose process is known to be dead on this machine, may be taken;
        ``takeover=True`` takes a living one too.

        Raises RunNotFoundError, RunEndedError, LeaseHeldError.
        """
        ...

    async def commit(self, commit: Commit, *, within: Transaction | None = None) -> Receipt:
        """Write a transition: all of it or nothing, and only while ``commit.epoch`` is the run's epoch and each (run_id, seq) is new.

        Returns when it is durable.  May be batched with commits of other runs.  A refused or failed commit of one run never
        harms another's.  The receipt's ``inbox_rev`` is at least the revision every earlier outsider's write produced.
        Where ``commit.change`` has a status, the anchor (head_seq, head_digest) is written too.  ``within`` a step's own transaction
        its statements and this commit are one; where it is refused, they are rolled back.

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

    def transaction(
        self, *, limit: timedelta | None, begin: Callable[[], Awaitable[None]], ended: Callable[[], None], check: Callable[[], None]
    ) -> Transaction:
        """A step's own transaction on this store's database.

        Args:
            limit: from its first statement to its commit; then it is rolled back.  None: 2 s, or a third of the lease where that is less.
            begin: awaited before it begins.
            ended: called once, when one that has begun holds nothing any more.
            check: raises where the step is over; asked before each statement.

        Raises ArgumentError (``limit``), TransactionUnavailableError.
        """
        ...

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        """Keep a snapshot; refused silently where the epoch is no longer current, or its checkpoint was pruned meanwhile (a snapshot is
        never needed for truth)."""
        ...

    async def release(self, run_id: str, epoch: int) -> None:
        """Give a lease back without writing a checkpoint: a run that was ``running`` or ``draining`` is ``ready``, and due.
        Nothing happens where the lease is already lost."""
        ...

    async def begin_effect(self, effect: EffectRecord, epoch: int, *, again: bool = False) -> tuple[EffectRecord, bool]:
        """Record durably that a side effect is about to be carried out, while ``epoch`` is current; the record, and whether it may be.

        It may where it is new, was not done, or (with ``again``) is in doubt.  Else the record tells why not: ``done`` with its
        outcome, or ``in_doubt`` where it was started and no outcome is known.  Of two that begin it at once only one may.

        Raises LeaseLostError (nothing was written), RunNotFoundError, StoreUnavailableError.
        """
        ...

    async def end_effect(self, effect: EffectRecord, epoch: int) -> EffectRecord:
        """Record durably what became of a side effect (``status``, ``outcome``, ``reason``), while ``epoch`` is current.

        Returns the record as it stands; nothing is changed where it was begun anew or settled meanwhile.  The same again is harmless.

        Raises LeaseLostError (nothing was written), UnknownEffectError (it was never begun), StoreUnavailableError, UnserialisableError.
        """
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

    async def due(self, *, flows: Collection[str] | None = None, limit: int = 50, aside: Collection[str] = ()) -> list[RunRecord]:
        """Runs that nobody drives and that can go on now, at most ``limit``: at first those whose owner is gone, then the others, the
        one that has waited longest first.

        These are: runs created unheld in status ``created`` or ``ready``, runs given back (``ready``), waiting runs whose ``wake_at`` has
        come by the store's clock, and runs whose owner's lease is over or whose process is known to be dead on this machine.
        Runs that a person has to move (suspended, limit_reached, quarantined) are none of them, nor are this process's own.
        ``flows`` are the names of the flows one can drive (None: all), ``aside`` the run ids one does not want to hear of again.
        Reads only: whoever wants one takes it with `acquire`, and may be too late.
        """
        ...

    async def next_due(self) -> int:
        """When to ask `due` again although no watch woke: the next ``wake_at`` or the next end of another process's lease; microseconds,
        in the future, and never later than one lease time from now, since a process that begins and dies at once tells nobody."""
        ...

    async def load(self, run_id: str, upto: int | None = None) -> tuple[Snapshot | None, list[Row]]:
        """The newest usable snapshot (at or before ``upto``) and all rows after it, in order, up to and including ``upto``.

        Raises RunNotFoundError, CheckpointNotFoundError (``upto`` beyond the head), CheckpointCorruptError where a row's digest does
        not follow from its predecessor (rows before it are reachable with a smaller ``upto``) or rows are missing.
        """
        ...

    async def head(self, run_id: str) -> int:
        """The seq of the run's newest row.  Raises RunNotFoundError."""
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
        Who is no approver decides by a delegation, where one is live: the record says on whose behalf, and the vote is that person's.

        Raises RunNotFoundError, RunEndedError, UnknownBarrierError, AmbiguousTicketError, BarrierClosedError,
        DecisionConflictError, NotAnApproverError, NotDelegatedError, StalePayloadError, InvalidDecisionError.
        """
        ...

    async def allow(
        self, barrier: str, decision: Decides, *, uses: int, until: datetime | timedelta, flow: str | None = None,
        run_id: str | None = None, tenant: str = "", path: str | None = None,
    ) -> Grant:  # fmt: skip
        """Decide the next ``uses`` tickets of a barrier that open until ``until`` (a span counts from now, by the store's clock).

        For every run of ``flow`` (of this tenant), or for one run.  The decision is approve, reject or skip.  It is taken in the very
        transaction that opens the ticket, recorded unseen and under the grant's id, and never more than ``uses`` times, however many
        processes open tickets at once.  What people said about the ticket before comes first, then the oldest allowance; a barrier's
        approvers and quorum hold for it as for the person, and ``early=False`` refuses it.  Tickets that are open already stay as they are.

        Raises ArgumentError, InvalidGrantError, UnknownFlowError, UnknownBarrierError, RunNotFoundError, RunEndedError.
        """
        ...

    async def delegate(
        self, barrier: str, *, to: str, by: str, roles: Sequence[str] = (), reason: str = "", source: str = "api",
        until: datetime | timedelta | None = None, flow: str | None = None, run_id: str | None = None, tenant: str = "",
        path: str | None = None,
    ) -> Grant:  # fmt: skip
        """Let ``to`` decide what ``by`` may decide: a ticket of a run, a barrier in a run, or in every run of a flow until ``until``.

        Raises ArgumentError, InvalidGrantError, UnknownFlowError, UnknownBarrierError, AmbiguousTicketError, RunNotFoundError, RunEndedError.
        """
        ...

    async def grants(
        self, *, flow: str | None = None, run_id: str | None = None, tenant: str = "", live: bool = True, limit: int = 100
    ) -> list[Grant]:
        """Allowances and delegations, oldest first; with ``live`` only those that can still be used."""
        ...

    async def revoke(self, grant_id: str, *, by: str, reason: str = "") -> Grant:
        """Take a grant back: it is used no more.  Decisions it has made stay.  Idempotent.

        Raises UnknownGrantError, InvalidGrantError.
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

    async def effects(self, run_id: str) -> list[EffectRecord]:
        """Every side effect of a run, oldest first; one whose process is gone without an outcome is ``in_doubt``."""
        ...

    async def resolve_effect(self, run_id: str, effect: str, *, done: bool, outcome: Any = None, by: str, reason: str = "") -> EffectRecord:
        """Settle a side effect that is in doubt: ``done`` with this outcome, or not done, so that it will be carried out again.

        ``effect`` is its key (at least 8 digits of it) or its name.  The same again by the same person returns the stored record.

        Raises RunNotFoundError, UnknownEffectError, AmbiguousEffectError, EffectNotInDoubtError, UnserialisableError.
        """
        ...

    async def request_cancel(self, run_id: str, *, actor: str, reason: str = "") -> RunRecord:
        """Ask the owner to end the run.  Idempotent.  Raises RunNotFoundError, RunEndedError."""
        ...

    async def amend(self, amendment: Amendment) -> Receipt:
        """Append one row to a run that nobody drives, and reword its open tickets, in one transaction.

        The run's epoch becomes the row's, its owner (who must be gone) nobody, the anchor the row; a run whose owner died is ``ready``
        then, as after `release`; attempt and any other status stay.

        Raises RunNotFoundError, RunEndedError, LeaseHeldError (a living process drives it), RunMovedError (its epoch, its head or
        its inbox is not what the amendment was made from).
        """
        ...

    def watch(self, run_id: str, *, steps: bool = False) -> Watch:
        """Be woken when an outsider (this process or another) writes to the run's inbox or its status changes.

        ``steps``: also when whoever drives the run has committed a step.  Steps that nobody follows cost nothing for it.
        """
        ...

    def watch_due(self) -> Watch:
        """Be woken when something may have become due, in this process or another, or is to become due earlier than `next_due` said.
        Time alone wakes nobody."""
        ...

    # --- the operator's side ----------------------------------------------------------------------------------------
    async def delete(self, run_id: str) -> RunRecord:
        """Delete a run that has ended with all that is kept of it, in one transaction; return what it was.  Its forks stay.

        Raises RunNotFoundError, RunNotEndedError.
        """
        ...

    async def drop_before(self, snapshot: Snapshot) -> int:
        """Keep the snapshot and delete the rows up to its own, in one transaction; return how many went.

        Nothing happens (0) where its row is gone, is another one, or is the head: a run keeps at least one row.  Live runs are not
        disturbed.  The chain is checked from the snapshot's digest on.  Raises RunNotFoundError.
        """
        ...

    async def image(self, run_id: str) -> RunImage:
        """All that is kept of a run, as of one moment; without snapshots whose seal is broken.

        Raises RunNotFoundError.
        """
        ...

    async def admit(self, image: RunImage) -> RunRecord:
        """Keep a run that came from another store, under its own id, with its rows as they were committed; nobody owns it.

        All or nothing.  The image is one that `carrying.image_of` has checked with this store's chain.  Raises RunExistsError
        where its id or its run_key is taken.
        """
        ...

    async def vacuum(self) -> tuple[int, int]:
        """Give the space of what was deleted back; the bytes before and after.  Writers may have to wait meanwhile."""
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

    @property
    def on_behalf_of(self) -> str | None:
        """Who delegated the right to decide; None = their own right, or the oldest delegation that fits where they have none."""
        ...


class Folds(CheckpointStore, Protocol):
    """A store that folds a run where it reads it, and not in the loop.  Optional: of any other the rows are loaded, and folded then."""

    async def folded(self, run_id: str, upto: int | None = None) -> RunState:
        """What the snapshot and the rows that `load` gives come to; the caller has it to himself.

        Raises what `load` raises; CheckpointCorruptError also where a row cannot be folded.
        """
        ...


def folds(store: CheckpointStore) -> TypeGuard[Folds]:
    """Whether a store offers what `Folds` adds."""
    return hasattr(store, "folded")


class Standing(NamedTuple):
    """A run as it stands at one moment: all that whoever goes on with it has to know."""

    run: RunRecord
    state: RunState | None
    """What its rows come to, where that was wanted: whoever is told has it to himself, and may go on with it."""
    inbox: Inbox
    clock: int
    """That moment, by the store's clock."""


class TakesUp(Folds, Protocol):
    """A store that also takes a run with what its new owner makes of it at once.  Optional: any other is asked for the single parts."""

    async def standing(self, run_id: str, *, wanted: Callable[[Standing], bool] | None = None) -> Standing:
        """What `run` and `inbox` tell of a run, and what the rows come to that `load` gives, as of one moment.

        Args:
            wanted: told all but the state; where it says no, no row is read.  It is called where the run is read, perhaps in another
                thread, and what it raises is raised.  Default: the state is always wanted.

        Raises what `run` raises, and where the state is wanted what `folded` raises.
        """
        ...

    async def take_up(self, resumption: Resumption) -> Receipt:
        """Take a run as it was read, and commit what its new owner makes of it at once: what `acquire` and `commit` do, in one transaction.

        Only where nobody owns the run, and where neither its rows nor its inbox nor its epoch have moved since; nobody holds it behind
        a commit that gives it back.

        Raises RunMovedError (it is not as it was read; nothing was written), StoreUnavailableError (nothing was written, or it is
        unknown and re-reading failed).
        """
        ...


def takes_up(store: CheckpointStore) -> TypeGuard[TakesUp]:
    """Whether a store offers what `TakesUp` adds."""
    return folds(store) and hasattr(store, "standing") and hasattr(store, "take_up")


DEFAULT_LEASE = timedelta(seconds=30)


def check_lease(lease: object) -> None:
    """Raise ArgumentError where ``lease`` is no span of time."""
    if not isinstance(lease, timedelta) or lease < timedelta(0):
        raise ArgumentError("lease", lease, "a timedelta, e.g. timedelta(seconds=30)")
