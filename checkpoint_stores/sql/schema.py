"""The tables: the one definition that DDL, queries, migrations and statements are made from.

What is to be known of them without SQLAlchemy is written from here by ``make docs``: the names in `columns`, the words that make a
new SQLite file in ``sqlite_schema.sql``.  Whoever changes a table types it; `tests/test_docs.py` says when it was forgotten.

Every byte a user wrote stands in a LargeBinary column that the codec made, so
that encryption covers it; the other columns are what queries need.  Run ids
are 16 raw bytes, digests raw bytes, times integer microseconds since the epoch.
The reference page of the schema is made from ``doc`` of columns and ``info`` of tables, which no DDL shows.
Knows no engine, no connection.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

VERSION_TABLE: Final = "trailmark_schema"
"""Where the schema's revision is stamped; a name of our own, since the database may have its own Alembic."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _run_id() -> sa.Column[bytes]:
    return sa.Column(
        "run_id", sa.LargeBinary(16), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True, nullable=False, doc="The run."
    )


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.LargeBinary(16), primary_key=True, doc="UUIDv7, 16 raw bytes."),
    sa.Column("tenant", sa.Text, nullable=False, doc="Whose run it is; empty where nobody said."),
    sa.Column("run_key", sa.Text, doc="The caller's own name for the run; unique with tenant and flow."),
    sa.Column("flow", sa.Text, nullable=False, doc="The flow's name."),
    sa.Column("flow_version", sa.Text, nullable=False, doc="The flow's version when the run was created."),
    sa.Column("graph_hash", sa.Text, nullable=False, doc="The graph it runs by; see graphs."),
    sa.Column("status", sa.Text, nullable=False, doc="A copy of what the newest checkpoint says, for listings."),
    sa.Column("head_seq", sa.Integer, nullable=False, doc="The anchor: written at status changes and releases, never read as the head."),
    sa.Column("head_digest", sa.LargeBinary(32), nullable=False, doc="Digest of the checkpoint head_seq."),
    sa.Column(
        "genesis",
        sa.LargeBinary(32),
        nullable=False,
        doc="What the first row stands on; empty where a fork's parent was not in this database.",
    ),
    sa.Column("max_steps", sa.Integer, nullable=False, doc="The step limit, counted over the run's whole life."),
    sa.Column("attempt", sa.Integer, nullable=False, doc="How often a process took the run."),
    sa.Column("inbox_rev", sa.Integer, nullable=False, doc="Goes up with everything outsiders write: decisions, requests to cancel."),
    sa.Column("epoch", sa.Integer, nullable=False, doc="Number of the newest lease; a commit under another epoch is refused."),
    sa.Column("owner", sa.Text, doc="The worker that holds the lease; NULL where nobody does."),
    sa.Column(
        "wake_at",
        sa.BigInteger,
        doc="Since when, or from when on, a run that nobody holds is to be driven: new or given back, decided, or at its next deadline or retry.",
    ),
    sa.Column("parent_run_id", sa.LargeBinary(16), doc="The run this is a fork of."),
    sa.Column("forked_at_seq", sa.Integer, doc="At which checkpoint."),
    sa.Column("labels", sa.LargeBinary, doc="The caller's labels."),
    sa.Column("error", sa.LargeBinary, doc="Of a failed run: type, message, node, path, causes."),
    sa.Column("cancel", sa.LargeBinary, doc="Who asked for the run to end, when and why; the first one who did."),
    sa.Column("created_at", sa.BigInteger, nullable=False, doc="When the run was created."),
    sa.Column("updated_at", sa.BigInteger, nullable=False, doc="When this line last changed; a step does not change it."),
    sa.UniqueConstraint("tenant", "flow", "run_key"),
    sa.Index("ix_runs_newest", "tenant", "created_at", "run_id"),
    sa.Index("ix_runs_by_status", "tenant", "status", "created_at", "run_id"),
    sa.Index("ix_runs_by_flow", "tenant", "flow", "created_at", "run_id"),
    info={"doc": "One line for each run: what listings, leases and the inbox need."},
)
_PARTIAL: Final = {f"ix_runs_{name}": column.is_not(None) for name, column in (("due", runs.c.wake_at), ("owned", runs.c.owner))}
sa.Index("ix_runs_due", runs.c.wake_at, sqlite_where=_PARTIAL["ix_runs_due"])
sa.Index("ix_runs_owned", runs.c.owner, sqlite_where=_PARTIAL["ix_runs_owned"])


@sa.event.listens_for(runs, "before_create")
def _tell_postgres(table: sa.Table, connection: sa.Connection, **_: object) -> None:
    # Said with the index, `postgresql_where` would import SQLAlchemy's PostgreSQL dialect for a SQLite file as well.
    if connection.dialect.name == "postgresql":
        for index in table.indexes:
            if index.name in _PARTIAL:
                index.dialect_options["postgresql"]["where"] = _PARTIAL[str(index.name)]


workers = sa.Table(
    "workers",
    metadata,
    sa.Column("worker_id", sa.Text, primary_key=True, doc="The process's name, as in runs.owner."),
    sa.Column(
        "host", sa.Text, nullable=False, doc="Machine, boot and pid namespace: only where all three are ours does a pid mean anything."
    ),
    sa.Column("pid", sa.Integer, nullable=False, doc="Its process id."),
    sa.Column(
        "pid_started", sa.BigInteger, nullable=False, doc="When that process began, so that a pid used again is not mistaken for it."
    ),
    sa.Column("started_at", sa.BigInteger, nullable=False, doc="When the store was opened."),
    sa.Column("lease_expires_at", sa.BigInteger, nullable=False, doc="Until when it keeps its runs without another heartbeat."),
    info={"doc": "One line for each process that holds runs, so that heartbeats never touch runs."},
)

# No foreign key here: PostgreSQL would lock and dirty the run's line at every step.  The append statement reads
# ``runs`` for its fence, so a row without a run cannot come to be; whoever deletes a run deletes its rows.
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("run_id", sa.LargeBinary(16), primary_key=True, doc="The run."),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False, doc="Dense from 1; 0 only for the first row of a fork."),
    sa.Column("epoch", sa.Integer, nullable=False, doc="The lease under which it was written."),
    sa.Column("step", sa.Integer, nullable=False, doc="Node entries so far, this row included."),
    sa.Column("kind", sa.Text, nullable=False, doc="What happened; see [rows](rows.md)."),
    sa.Column("path", sa.Text, nullable=False, doc="The scope it happened in; empty at the root."),
    sa.Column("node", sa.Text, nullable=False, doc="The node it is about; empty where it is about the run."),
    sa.Column("next", sa.Text, nullable=False, doc="The node or nodes that come next in that scope."),
    sa.Column("payload", sa.LargeBinary, nullable=False, doc="The encoded list of ops; see [rows](rows.md)."),
    sa.Column("started_at", sa.BigInteger, nullable=False, doc="When the node's body began; 0 where there was none."),
    sa.Column(
        "digest",
        sa.LargeBinary(32),
        nullable=False,
        doc="SHA-256 (or HMAC) over the predecessor's digest and all other columns but committed_at.",
    ),
    sa.Column("committed_at", sa.BigInteger, nullable=False, doc="When the database took it."),
    info={"doc": "The rows whose fold is the run."},
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    _run_id(),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False, doc="The checkpoint it stands on."),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, doc="The chain digest of the checkpoint it stands on."),
    sa.Column(
        "seal",
        sa.LargeBinary(32),
        nullable=False,
        doc="A digest over all of this line, made with the chain's key: an edited snapshot is not used.",
    ),
    sa.Column("payload", sa.LargeBinary, nullable=False, doc="The encoded state."),
    info={"doc": "Materialised prefixes of the fold, so that loading is bounded."},
)

barriers = sa.Table(
    "barriers",
    metadata,
    _run_id(),
    sa.Column("ticket", sa.Text, primary_key=True, doc="Node and visit, with the branch path where nested: checks[1].review#1."),
    sa.Column("tenant", sa.Text, nullable=False, doc="A copy of the run's, so that the inbox is one index range."),
    sa.Column("node", sa.Text, nullable=False, doc="The barrier's name."),
    sa.Column("path", sa.Text, nullable=False, doc="The scope it stands in."),
    sa.Column("status", sa.Text, nullable=False, doc="open, decided, resolved or withdrawn; see [statuses](statuses.md)."),
    sa.Column("digest", sa.Text, nullable=False, doc="SHA-256 (hex) of the encoded prompt and payload."),
    sa.Column("deadline", sa.BigInteger, doc="When the barrier's timeout decides."),
    sa.Column("opened_at", sa.BigInteger, nullable=False, doc="When it was opened."),
    sa.Column("opened_seq", sa.Integer, nullable=False, doc="By which checkpoint."),
    sa.Column("details", sa.LargeBinary, nullable=False, doc="Prompt, payload, form, approvers, quorum, early, targets, on_timeout."),
    sa.Index("ix_barriers_inbox", "tenant", "status", "opened_at", "run_id", "ticket"),
    info={"doc": "Tickets: what people are asked. The approvals inbox is one range of its index."},
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, doc="Its identity."),
    sa.Column("run_id", sa.LargeBinary(16), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, doc="The run."),
    sa.Column("ticket", sa.Text, nullable=False, doc="The exact ticket, or the barrier's bare name where it was decided before it opened."),
    sa.Column("action", sa.Text, nullable=False, doc="approve, reject, modify, reroute or skip."),
    sa.Column("actor", sa.Text, nullable=False, doc="Who decided; timeout where a declared default did."),
    sa.Column("payload_digest", sa.Text, doc="Of what the person saw; NULL where it was decided unseen."),
    sa.Column("decided_at", sa.BigInteger, nullable=False, doc="When it was taken."),
    sa.Column("consumed_seq", sa.Integer, doc="The checkpoint that used it; NULL until then."),
    sa.Column("details", sa.LargeBinary, nullable=False, doc="Reason, source, roles, edits, target, approves."),
    sa.Index("ix_decisions_of_run", "run_id", "decided_at", "id"),
    info={"doc": "Who decided what. Lines are never changed but for consumed_seq, and the ticket where a migration renames it."},
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, doc="Its identity; decisions name it."),
    sa.Column("kind", sa.Text, nullable=False, doc="allowance or delegation."),
    sa.Column("tenant", sa.Text, nullable=False, doc="Whose runs it is for."),
    sa.Column("barrier", sa.Text, nullable=False, doc="The barrier's name."),
    sa.Column("flow", sa.Text, doc="For every run of this flow; NULL where it is for one run."),
    sa.Column("run_id", sa.LargeBinary(16), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), doc="For this run; NULL for a flow's."),
    sa.Column("actor", sa.Text, nullable=False, doc="Whose right it is."),
    sa.Column("delegate", sa.Text, doc="Of a delegation: who may decide."),
    sa.Column("uses", sa.Integer, doc="Of an allowance: how many tickets it may decide."),
    sa.Column("used", sa.Integer, nullable=False, doc="How many it has decided; changed in the transaction that opens the ticket."),
    sa.Column("expires_at", sa.BigInteger, doc="Until when it is good."),
    sa.Column("made_at", sa.BigInteger, nullable=False, doc="When it was given."),
    sa.Column("revoked_at", sa.BigInteger, doc="When it was taken back."),
    sa.Column("details", sa.LargeBinary, nullable=False, doc="Action, roles, reason, source, path, ticket; who revoked it and why."),
    sa.Index("ix_grants_of_barrier", "tenant", "barrier", "made_at", "id"),
    info={"doc": "Rights given in advance: to decide tickets that are yet to open, or to decide for somebody."},
)

effects = sa.Table(
    "effects",
    metadata,
    _run_id(),
    sa.Column("key", sa.Text, primary_key=True, doc="SHA-256 (hex) of the node entry's identity and the effect's name."),
    sa.Column("status", sa.Text, nullable=False, doc="started, done, not_done or in_doubt; see [statuses](statuses.md)."),
    sa.Column("epoch", sa.Integer, nullable=False, doc="The lease under which it was last started."),
    sa.Column("begun", sa.Integer, nullable=False, doc="How often it was started."),
    sa.Column("started_at", sa.BigInteger, nullable=False, doc="When it was last started."),
    sa.Column("ended_at", sa.BigInteger, doc="When its outcome became known, or it was settled."),
    sa.Column("details", sa.LargeBinary, nullable=False, doc="Name, node, path, visit; who settled it and why, or what it raised."),
    sa.Column("outcome", sa.LargeBinary, doc="What it returned; NULL where that is not known."),
    info={"doc": "Side effects that a node carries out once. A line is written before the effect and again behind it."},
)

graphs = sa.Table(
    "graphs",
    metadata,
    sa.Column("graph_hash", sa.Text, primary_key=True, doc="SHA-256 (hex) of the definition, descriptions apart."),
    sa.Column("definition", sa.Text, nullable=False, doc="The definition as JSON."),
    info={"doc": "Definitions of graphs, so that tools can draw any run without the author's code."},
)
