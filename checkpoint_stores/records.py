"""The nouns a store keeps: frozen data, no behaviour, no database.

Times are integer microseconds since the Unix epoch, UTC, by the store's clock.
Run ids are UUIDv7 in canonical text; the SQL stores keep them as 16 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

new_tuple: Final = tuple.__new__
"""Makes a NamedTuple, all of whose fields are given, without the Python function that stands before it: for what every step makes."""

RunStatus: TypeAlias = Literal[
    "created", "ready", "running", "waiting", "draining",
    "completed", "failed", "cancelled",
    "suspended", "limit_reached", "quarantined",
]  # fmt: skip

ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Statuses nothing can follow."""

STOPPED: frozenset[str] = frozenset({"suspended", "limit_reached", "quarantined", "waiting"})
"""Statuses in which no process has to hold the run, and a resume can go on."""

UNDRIVEN: frozenset[str] = frozenset({"created", "ready"})
"""Statuses of a run that nobody drives although nothing keeps it from going on."""

DRIVEN: frozenset[str] = frozenset({"running", "draining"})
"""Statuses of a run that a process drives, or drove until it died."""


class Row(NamedTuple):
    """One checkpoint as it is committed: position, payload, chain."""

    run_id: str
    seq: int
    """Dense from 1 (0 only for the first row of a fork)."""
    epoch: int
    """The lease epoch that wrote it."""
    step: int
    """Node entries committed so far, this row included."""
    kind: str
    """start, fork, attempt, migration, step, parallel, join, barrier, decision, retry, fallback, failure, limit, cancelled, suspended ..."""
    path: str
    """Branch path of the scope it happened in; "" at the root."""
    node: str
    """The node it is about; "" where it is about the run."""
    next: str
    """The node(s) that come next in that scope, comma-separated; "" where there is none."""
    payload: bytes
    """The encoded list of ops (see checkpoint_stores.ops)."""
    started_at: int
    """When the node's body began (microseconds); 0 where there was none.  Of ``cancelled``: when the newest body began; 0 where none had."""
    digest: bytes
    """SHA-256 (or HMAC) over the predecessor's digest and all columns but committed_at."""
    committed_at: int = 0
    """When the database took it (microseconds); set by the store."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One line of the table ``runs``."""

    run_id: str
    flow: str
    flow_version: str
    graph_hash: str
    status: RunStatus
    max_steps: int
    tenant: str = ""
    run_key: str | None = None
    head_seq: int = 0
    """Anchor, written at status changes and releases; never read as the head."""
    head_digest: bytes = b""
    attempt: int = 0
    inbox_rev: int = 0
    epoch: int = 0
    owner: str | None = None
    """The worker that holds the lease; None where nobody does."""
    wake_at: int | None = None
    parent_run_id: str | None = None
    forked_at_seq: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    created_at: int = 0
    updated_at: int = 0
    lease_expires_at: int | None = field(default=None, compare=False)
    """Until when the owner keeps the run without another heartbeat, as of this reading; None where nobody owns it."""
    orphaned: bool = field(default=False, compare=False)
    """Whether the owner is gone, so that anybody may resume the run: its lease was over by the database's clock at this reading, or its
    process is known to be dead on this machine.  The status still says what the last commit said."""


class Lease(NamedTuple):
    """The right of one process to advance a run, and where the run stands."""

    run: RunRecord
    """As committed together with the transfer of authority."""
    epoch: int
    head_seq: int
    """The seq of the ``attempt`` row that transferred the authority."""
    head_digest: bytes
    row: Row | None = None
    """That row, so that nobody need read it; None where a store does not tell.  Of a run that was created: its first."""


class RunChange(NamedTuple):
    """What a commit changes in ``runs`` beside appending rows.  Fields left None stay as they are."""

    status: RunStatus | None = None
    wake_at: int | None = None
    clear_wake_at: bool = False
    error: dict[str, Any] | None = None
    release: bool = False
    """Give the lease back (owner becomes NULL; the epoch stays)."""
    release_at_rev: int | None = None
    """Where given: status, wake_at and release take effect only if ``inbox_rev`` still has this value (the rest of the commit always does);
    the receipt's ``inbox_rev`` tells.  So a parking owner never sleeps through a decision that got in first."""


BarrierStatus: TypeAlias = Literal["open", "decided", "resolved", "withdrawn"]
"""open: takes decisions; decided: enough votes are in, the run has not read them yet; resolved: consumed by a checkpoint;
withdrawn: its scope was closed or its run ended without a decision."""


@dataclass(frozen=True, slots=True)
class BarrierRecord:
    """One ticket of one run: what is asked, of whom, until when."""

    run_id: str
    ticket: str
    """``node#visit``, with the branch path where nested: ``checks[1].review#1``."""
    node: str
    path: str
    status: BarrierStatus
    prompt: str
    payload: Any
    """What the person is shown: plain data."""
    digest: str
    """SHA-256 (hex) of the encoded payload and prompt."""
    form: dict[str, Any] | None = None
    """JSON Schema of the edits a ``modify`` may carry; None where edits are not allowed."""
    approvers: tuple[str, ...] = ()
    """People or roles; empty means anybody."""
    quorum: int = 1
    early: bool = True
    """Whether decisions made before the ticket opened count."""
    targets: tuple[str, ...] = ()
    """Nodes a ``reroute`` may name."""
    deadline: int | None = None
    on_timeout: str | None = None
    opened_at: int = 0
    opened_seq: int = 0
    """By which checkpoint."""
    nudges: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """When nobody has decided until then (microseconds), in order: who may then decide as well (an escalation); nobody: a reminder."""
    nudged: int = 0
    """How many of them have come."""


DecisionAction: TypeAlias = Literal["approve", "reject", "modify", "reroute", "skip"]


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """Who decided what, when, why, over which payload.  Immutable once stored."""

    id: str
    run_id: str
    ticket: str
    """The exact ticket, or the bare barrier name where it was decided before the ticket opened."""
    action: DecisionAction | Literal["signal"]
    """What was decided; ``signal`` is how stores keep signals among the decisions, and is never handed out as a decision."""
    actor: str
    reason: str = ""
    source: str = "api"
    """api, cli, console, timeout ..."""
    roles: tuple[str, ...] = ()
    edits: dict[str, Any] | None = None
    target: str | None = None
    approves: bool = False
    """Whether it lets the run pass: True for approve and for modify(approve=True)."""
    payload_digest: str | None = None
    """Digest of the payload the person saw; None = decided unseen (early)."""
    decided_at: int = 0
    consumed_seq: int | None = None
    on_behalf_of: str | None = None
    """Whose right it was, where the actor decided for somebody who had delegated it."""
    grant: str | None = None
    """Id of the allowance that made it, or of the delegation it rests on."""

    @property
    def is_early(self) -> bool:
        """Whether it was made before its ticket opened (by a person, or by an allowance): nobody saw a payload."""
        return self.payload_digest is None


EffectStatus: TypeAlias = Literal["started", "done", "not_done", "in_doubt"]
"""started: it is being carried out; done: its outcome is known; not_done: it raised, or a person says so, and may be carried out
(again); in_doubt: it was started and nobody knows whether it happened."""


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """A side effect that a node carries out once: `StepContext.once`."""

    run_id: str
    key: str
    """64 hex digits: SHA-256 of the node entry's identity and the effect's name; the same for every attempt and process."""
    name: str
    """What the node calls it."""
    node: str
    path: str
    visit: int
    status: EffectStatus = "started"
    epoch: int = 0
    """The lease under which it was last started."""
    begun: int = 1
    """How often it was started."""
    started_at: int = 0
    ended_at: int | None = None
    """When its outcome became known, or it was settled."""
    outcome: Any = None
    """What it returned (or what the person who settled it says)."""
    by: str | None = None
    """Who settled it, where a person did."""
    reason: str = ""
    """Why; of an effect that raised: what it raised."""

    @property
    def place(self) -> str:
        """The node entry it belongs to.

        >>> EffectRecord("r", "k", "debit", "pay", "checks[1]", 2).place
        'checks[1].pay#2'
        """
        return f"{self.path}.{self.node}#{self.visit}" if self.path else f"{self.node}#{self.visit}"


GrantKind: TypeAlias = Literal["allowance", "delegation"]


@dataclass(frozen=True, slots=True)
class Grant:
    """A right given in advance: to decide tickets that are yet to open (an allowance), or to decide for somebody (a delegation)."""

    id: str
    kind: GrantKind
    barrier: str
    """The barrier's name."""
    actor: str
    """Whose right it is; checked against the approvers of each ticket it is used for."""
    roles: tuple[str, ...] = ()
    reason: str = ""
    source: str = "api"
    tenant: str = ""
    flow: str | None = None
    """For every run of this flow; None where it is for one run."""
    run_id: str | None = None
    path: str | None = None
    """Only for tickets in branches whose path fits this pattern; see `checkpoint_stores.grants.fits_path`."""
    ticket: str | None = None
    """Of a delegation: only this ticket."""
    action: str | None = None
    """Of an allowance: approve, reject or skip."""
    uses: int | None = None
    """Of an allowance: how many tickets it may decide."""
    used: int = 0
    to: str | None = None
    """Of a delegation: who may decide."""
    expires_at: int | None = None
    made_at: int = 0
    revoked_at: int | None = None
    revoked_by: str = ""
    revoked_because: str = ""


class Snapshot(NamedTuple):
    """A materialised prefix of the fold."""

    run_id: str
    seq: int
    payload: bytes
    digest: bytes
    """The chain digest of the checkpoint it stands on."""


class Commit(NamedTuple):
    """Everything one transition writes, in one transaction, under one lease epoch."""

    run_id: str
    epoch: int
    rows: tuple[Row, ...]
    """May be empty (a run that parks again right after a resume)."""
    change: RunChange | None = None
    opened: tuple[BarrierRecord, ...] = ()
    closed: tuple[tuple[str, BarrierStatus], ...] = ()
    """(ticket, new status) of barriers this transition ends, or reopens (status open, after a refused decision)."""
    consumed: tuple[tuple[str, int], ...] = ()
    """(id, seq) of decisions and signals this transition consumes."""
    voted: tuple[DecisionRecord, ...] = ()
    """Decisions this transition itself makes (a timeout default)."""
    nudged: tuple[BarrierRecord, ...] = ()
    """Open tickets of which people were reminded, or which others may now decide too; their status stays as it is."""


ROWS_ALONE: Final = Commit("", 0, ())[3:]
"""What stands behind the rows of a commit that holds nothing else: nearly every one."""


class Amendment(NamedTuple):
    """What somebody who holds no lease writes into a run that nobody drives: one row, under an epoch of its own."""

    row: Row
    """Its epoch is one more than the run's, so that whoever drove the run can write nothing more."""
    inbox_rev: int
    """What the run's was when the row was made."""
    reworded: tuple[BarrierRecord, ...] = ()
    """Open tickets that show something else from now on."""


class Receipt(NamedTuple):
    """What a durable commit tells."""

    inbox_rev: int
    committed_at: int


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """Something that happened outside, told to a run.  Immutable once stored, but for ``consumed_seq``."""

    id: str
    run_id: str
    name: str
    """The event it is called by; ``each[3].paid`` is for the scope at ``each[3]`` only."""
    payload: Any = None
    """Plain data, as the codec gave it back."""
    actor: str = ""
    """Who sent it."""
    sent_at: int = 0
    consumed_seq: int | None = None
    """The checkpoint that used it."""


class Inbox(NamedTuple):
    """What outsiders left for a run: cancel requests, and decisions and signals not yet consumed."""

    rev: int
    cancel: CancelRequest | None
    barriers: tuple[BarrierRecord, ...]
    """Barriers of the run that are ``open`` or ``decided``."""
    decisions: tuple[DecisionRecord, ...]
    """Decisions with ``consumed_seq`` None, oldest first."""
    signals: tuple[SignalRecord, ...] = ()
    """Signals with ``consumed_seq`` None, oldest first."""


class Resumption(NamedTuple):
    """A run that is taken as it was read, together with what its new owner makes of it at once: one transaction."""

    commit: Commit
    """Its first row is the ``attempt``; its epoch is one more than the run's was."""
    inbox_rev: int
    """What the run's was when it was read."""
    max_steps: int | None = None
    """The run's step limit from now on, where it gets another one."""
    said: int = 0
    """How many of the decisions it writes people have just made: by so much the inbox is newer behind it, and before its change is judged."""
    behind: bytes | None = None
    """The digest of the row that its first one follows; None: whichever stands there.  A run that was deleted, and made again under the
    same id, may stand under the same numbers."""


class CancelRequest(NamedTuple):
    """Somebody asked for the run to end."""

    actor: str
    reason: str
    requested_at: int


class NewRun(NamedTuple):
    """What a run is created from, together with its first row."""

    run_id: str
    flow: str
    flow_version: str
    graph_hash: str
    max_steps: int
    status: RunStatus = "running"
    tenant: str = ""
    run_key: str | None = None
    labels: Mapping[str, str] = MappingProxyType({})
    parent_run_id: str | None = None
    forked_at_seq: int | None = None
    definition: str = ""
    """The graph's definition as JSON text; stored once per graph_hash."""
    hold: bool = True
    """Whether the creator also takes the lease (epoch 1); a fork is created unheld (epoch 0)."""
    barriers: tuple[BarrierRecord, ...] = ()
    """Barriers already open at creation (a fork of a waiting run)."""
    supersedes: str | None = None
    """A run that has ended and gives its ``run_key`` up to this one."""


class TicketMove(NamedTuple):
    """A ticket that has another name from now on, because its node has."""

    ticket: str
    to: str
    node: str
    path: str


class Changeover(NamedTuple):
    """A run goes over to another graph: the checkpoint that says so, and what follows for what people see."""

    run_id: str
    epoch: int
    row: Row
    graph_hash: str
    definition: str
    """The new graph's, as JSON text."""
    tickets: tuple[TicketMove, ...] = ()
    """Live tickets; who has voted for one has voted for it under its new name."""
    barriers: Mapping[str, str] = MappingProxyType({})
    """New names of barriers, by the names under which decisions may have been made early: ``review``, ``checks[1].review``."""

    def vote(self, ticket: str) -> str:
        """What a vote nobody has read yet is for from now on."""
        return vote_moved(ticket, self.tickets, self.barriers)


def vote_moved(ticket: str, tickets: Iterable[TicketMove], barriers: Mapping[str, str]) -> str:
    """What a vote for ``ticket`` is for where tickets and barriers have new names.

    >>> vote_moved("review", (), {"review": "check"}), vote_moved("review#2", (), {"review": "check"})
    ('check', 'check#2')
    """
    for move in tickets:
        if move.ticket == ticket:
            return move.to
    head, hash_, visit = ticket.rpartition("#")
    name = head if hash_ and visit.isdigit() else ticket
    return barriers.get(name, name) + ticket[len(name) :]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of `verify`."""

    run_id: str
    seq: int
    reason: str
