"""The tables: the one definition that DDL, queries, migrations and the append path are made from.

Every byte a user wrote stands in a LargeBinary column that the codec made, so
that encryption covers it; the other columns are what queries need.  Run ids
are 16 raw bytes, digests raw bytes, times integer microseconds since the epoch.
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
    return sa.Column("run_id", sa.LargeBinary(16), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True, nullable=False)


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.LargeBinary(16), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("run_key", sa.Text),
    sa.Column("flow", sa.Text, nullable=False),
    sa.Column("flow_version", sa.Text, nullable=False),
    sa.Column("graph_hash", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    # The anchor: written at status changes and releases, never read as the head.
    sa.Column("head_seq", sa.Integer, nullable=False),
    sa.Column("head_digest", sa.LargeBinary(32), nullable=False),
    # What the first row stands on; empty where a fork's parent was not in this database.
    sa.Column("genesis", sa.LargeBinary(32), nullable=False),
    sa.Column("max_steps", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("inbox_rev", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("wake_at", sa.BigInteger),
    sa.Column("parent_run_id", sa.LargeBinary(16)),
    sa.Column("forked_at_seq", sa.Integer),
    sa.Column("labels", sa.LargeBinary),
    sa.Column("error", sa.LargeBinary),
    # Who asked for the run to end, when and why; the first one who did.
    sa.Column("cancel", sa.LargeBinary),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("tenant", "flow", "run_key"),
    sa.Index("ix_runs_newest", "tenant", "created_at", "run_id"),
    sa.Index("ix_runs_by_status", "tenant", "status", "created_at", "run_id"),
    sa.Index("ix_runs_by_flow", "tenant", "flow", "created_at", "run_id"),
)
sa.Index("ix_runs_due", runs.c.wake_at, sqlite_where=runs.c.wake_at.is_not(None), postgresql_where=runs.c.wake_at.is_not(None))
sa.Index("ix_runs_owned", runs.c.owner, sqlite_where=runs.c.owner.is_not(None), postgresql_where=runs.c.owner.is_not(None))

# One row per process, so that heartbeats never touch ``runs``.
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("worker_id", sa.Text, primary_key=True),
    # Machine, boot and pid namespace: only where all three are ours does a pid mean anything.
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("pid_started", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("lease_expires_at", sa.BigInteger, nullable=False),
)

# No foreign key here: PostgreSQL would lock and dirty the run's line at every step.  The append statement reads
# ``runs`` for its fence, so a row without a run cannot come to be; whoever deletes a run deletes its rows.
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("run_id", sa.LargeBinary(16), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("next", sa.Text, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("committed_at", sa.BigInteger, nullable=False),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    _run_id(),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    # The chain digest of the checkpoint it stands on.
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    # A digest over all of this line, made with the chain's key: an edited snapshot is not used.
    sa.Column("seal", sa.LargeBinary(32), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)

barriers = sa.Table(
    "barriers",
    metadata,
    _run_id(),
    sa.Column("ticket", sa.Text, primary_key=True),
    # A copy of the run's, so that the inbox is one index range.
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("deadline", sa.BigInteger),
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("opened_seq", sa.Integer, nullable=False),
    # Prompt, payload, form, approvers, quorum, early, targets, on_timeout.
    sa.Column("details", sa.LargeBinary, nullable=False),
    sa.Index("ix_barriers_inbox", "tenant", "status", "opened_at", "run_id", "ticket"),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.LargeBinary(16), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False),
    sa.Column("ticket", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("payload_digest", sa.Text),
    sa.Column("decided_at", sa.BigInteger, nullable=False),
    sa.Column("consumed_seq", sa.Integer),
    # Reason, source, roles, edits, target, approves.
    sa.Column("details", sa.LargeBinary, nullable=False),
    sa.Index("ix_decisions_of_run", "run_id", "decided_at", "id"),
)

effects = sa.Table(
    "effects",
    metadata,
    _run_id(),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.LargeBinary),
)

graphs = sa.Table(
    "graphs",
    metadata,
    sa.Column("graph_hash", sa.Text, primary_key=True),
    sa.Column("definition", sa.Text, nullable=False),
)
