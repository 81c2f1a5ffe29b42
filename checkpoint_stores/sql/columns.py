"""What the tables and their columns are called, in order, for statements that are text.  Knows no type, and no SQLAlchemy.

Written by docs/build_schema.py (`make docs`) from `checkpoint_stores.sql.schema`, where the tables are defined; changes here are
lost, and a test says when the two differ.
"""

from __future__ import annotations

from typing import Final

VERSION_TABLE: Final = "trailmark_schema"
"""Where the schema's revision is stamped."""

COLUMNS: Final = {
    "checkpoints": (
        "run_id",
        "seq",
        "epoch",
        "step",
        "kind",
        "path",
        "node",
        "next",
        "payload",
        "started_at",
        "digest",
        "committed_at",
    ),
    "graphs": (
        "graph_hash",
        "definition",
    ),
    "runs": (
        "run_id",
        "tenant",
        "run_key",
        "flow",
        "flow_version",
        "graph_hash",
        "status",
        "head_seq",
        "head_digest",
        "genesis",
        "max_steps",
        "attempt",
        "inbox_rev",
        "epoch",
        "owner",
        "wake_at",
        "parent_run_id",
        "forked_at_seq",
        "labels",
        "error",
        "cancel",
        "created_at",
        "updated_at",
    ),
    "workers": (
        "worker_id",
        "host",
        "pid",
        "pid_started",
        "started_at",
        "lease_expires_at",
    ),
    "barriers": (
        "run_id",
        "ticket",
        "tenant",
        "node",
        "path",
        "status",
        "digest",
        "deadline",
        "opened_at",
        "opened_seq",
        "details",
    ),
    "decisions": (
        "id",
        "run_id",
        "ticket",
        "action",
        "actor",
        "payload_digest",
        "decided_at",
        "consumed_seq",
        "details",
    ),
    "effects": (
        "run_id",
        "key",
        "status",
        "epoch",
        "begun",
        "started_at",
        "ended_at",
        "details",
        "outcome",
    ),
    "grants": (
        "id",
        "kind",
        "tenant",
        "barrier",
        "flow",
        "run_id",
        "actor",
        "delegate",
        "uses",
        "used",
        "expires_at",
        "made_at",
        "revoked_at",
        "details",
    ),
    "snapshots": (
        "run_id",
        "seq",
        "digest",
        "seal",
        "payload",
    ),
}
"""The columns of each table; a table comes behind those it refers to."""
