"""What PostgreSQL is told on the paths where people and steps wait: one text for a whole batch, made from the metadata.

Each writes everything that belongs together in one statement, which is its own
transaction: no BEGIN, no COMMIT, no lock held while Python thinks.  Arrays come
in by column; ``$1`` is always the clock, or null for the database's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from checkpoint_stores.sql.places import POSTGRES_CLOCK
from checkpoint_stores.sql.schema import barriers, checkpoints, decisions, effects, grants, graphs, runs, snapshots, workers
from checkpoint_stores.sql.statements import (
    BARRIER_AGAIN,
    BARRIERS,
    CHANNEL,
    DECISIONS,
    NEW_RUN_WIDTH,
    OWNER_COLUMNS,
    ROW_COLUMNS,
    ROWS,
    RUN,
    RUN_COLUMNS,
    allowances,
    in_time,
    newest_row,
    still_free,
)

PLANNING: Final = (
    "SET plan_cache_mode = force_generic_plan; SET jit = off;"
    " SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
)
"""How a held connection is told that all its statements go by keys.  A plan is made once, perhaps while the tables are still empty,
and must be right when they are full; to plan anew each time would cost as much as a lone commit itself."""

_TYPES: Final = {sa.LargeBinary: "bytea", sa.Text: "text", sa.Integer: "integer", sa.BigInteger: "bigint"}


def _type_of(column: sa.Column[Any]) -> str:
    return next(name for kind, name in reversed(_TYPES.items()) if isinstance(column.type, kind))


def _unnested(alias: str, fields: Sequence[tuple[str, str]], start: int) -> str:
    """``unnest($start::type[], ...) AS alias(name, ...)`` for the fields (name, type)."""
    places = ", ".join(f"${start + position}::{kind}[]" for position, (_, kind) in enumerate(fields))
    return f"unnest({places}) AS {alias}({', '.join(name for name, _ in fields)})"


def _starts(parts: Sequence[int]) -> list[int]:
    """The first place of each part, behind the clock's."""
    return [2 + sum(parts[:position]) for position in range(len(parts))]


_ROW_FIELDS: Final = [(column.name, _type_of(column)) for column in checkpoints.columns if column.name != "committed_at"]
_BARRIER_FIELDS: Final = [(column.name, _type_of(column)) for column in barriers.columns if column.name != "tenant"]
_DECISION_FIELDS: Final = [(column.name, _type_of(column)) for column in decisions.columns]
_NOW: Final = f"coalesce($1::bigint, {POSTGRES_CLOCK})"
_GIVEN_ROWS: Final = ", ".join(f"g.{name}" for name, _ in _ROW_FIELDS)

# Each subquery below asks for one line by its key, so these statements cost the same in a small table and in a large one.


def _extends_head(run_id: str, seq: str) -> str:
    """`statements.extends_head`, in a form that PostgreSQL never answers by reading the whole table."""
    return (
        f"coalesce((SELECT true FROM {checkpoints.name} p WHERE p.run_id = {run_id} AND p.seq = {seq} - 1),"
        f" (SELECT true FROM {snapshots.name} p WHERE p.run_id = {run_id} AND p.seq = {seq} - 1), false)"
    )


def _among(run_id: str, written: str) -> str:
    """Whether the run is one that the part ``written`` of the statement returned.  As a join it would cost the square of a batch."""
    return f"CASE WHEN {run_id} IN (SELECT {written}.run_id FROM {written}) THEN true END"


APPEND_ONE: Final = (
    f"INSERT INTO {checkpoints.name} ({ROWS})"
    f" SELECT {', '.join(f'${position}::{kind}' for position, (_, kind) in enumerate(_ROW_FIELDS, start=2))}, {_NOW}"
    f" FROM {runs.name} r WHERE r.run_id = $2::bytea AND r.epoch = $4::integer AND {_extends_head('$2::bytea', '$3::integer')}"
    f" RETURNING (SELECT r.inbox_rev FROM {runs.name} r WHERE r.run_id = $2::bytea), committed_at"
)
"""$1 the clock or null, then the columns of a row.  Returns (inbox_rev, committed_at), or no line where the lease is lost."""

APPEND_MANY: Final = (
    f"INSERT INTO {checkpoints.name} ({ROWS}) SELECT {_GIVEN_ROWS}, {_NOW}"
    f" FROM {_unnested('g', [*_ROW_FIELDS, ('first', 'integer')], 2)}"
    f" WHERE g.epoch = (SELECT r.epoch FROM {runs.name} r WHERE r.run_id = g.run_id) AND {_extends_head('g.run_id', 'g.first')}"
    f" RETURNING run_id, (SELECT r.inbox_rev FROM {runs.name} r WHERE r.run_id = {checkpoints.name}.run_id), committed_at"
)
"""$1 the clock or null; arrays of all columns of all rows, and of the first seq of each row's commit.
Returns (run_id, inbox_rev, committed_at) for each row that is in; of the other runs none is."""

_CHANGE_FIELDS: Final = [
    ("run_id", "bytea"),
    ("epoch", "integer"),
    ("seq", "integer"),
    ("status", "text"),
    ("wake_at", "bigint"),
    ("clear_wake_at", "boolean"),
    ("error", "bytea"),
    ("gives_back", "boolean"),
    ("head_seq", "integer"),
    ("head_digest", "bytea"),
    ("release_at_rev", "integer"),
    ("asks", "text"),
]
_CLOSE_FIELDS: Final = [("run_id", "bytea"), ("ticket", "text"), ("status", "text")]
_CONSUME_FIELDS: Final = [("run_id", "bytea"), ("id", "text"), ("seq", "integer")]
_NUDGE_FIELDS: Final = [("run_id", "bytea"), ("ticket", "text"), ("details", "bytea")]
TRANSITION_PARTS: Final = (
    len(_ROW_FIELDS),
    len(_CHANGE_FIELDS),
    len(_BARRIER_FIELDS),
    len(_CLOSE_FIELDS),
    len(_CONSUME_FIELDS),
    len(_DECISION_FIELDS),
    len(_NUDGE_FIELDS),
)
"""How many arrays each part of `TRANSITION` takes: rows, changes of runs, opened, closed, consumed, voted, nudged."""
TRANSITION_BARRIER: Final = tuple(name for name, _ in _BARRIER_FIELDS)
TRANSITION_DECISION: Final = tuple(name for name, _ in _DECISION_FIELDS)


_TAKE_UP_FIELDS: Final = [
    *_CHANGE_FIELDS,
    ("owner", "text"),
    ("inbox_rev", "integer"),
    ("max_steps", "integer"),
    ("last_seq", "integer"),
    ("last_digest", "bytea"),
    ("said", "integer"),
    ("behind", "bytea"),
]
RESUMPTION_PARTS: Final = (TRANSITION_PARTS[0], len(_TAKE_UP_FIELDS), *TRANSITION_PARTS[2:])
"""The same of `RESUMPTION`."""


def _changed(start: int, asked: str) -> str:
    """What a commit changes of the runs that it holds."""
    timely = in_time("c.release_at_rev", "r.inbox_rev")
    return (
        f"UPDATE {runs.name} r SET status = CASE WHEN {timely} THEN coalesce(c.status, r.status) ELSE r.status END,"
        f" wake_at = CASE WHEN NOT {timely} THEN r.wake_at WHEN c.clear_wake_at THEN NULL ELSE coalesce(c.wake_at, r.wake_at) END,"
        " error = coalesce(c.error, r.error),"
        f" owner = CASE WHEN c.gives_back AND {timely} THEN NULL ELSE r.owner END,"
        f" head_seq = coalesce(c.head_seq, {newest_row('seq', 'c.run_id', 'c.status', 'c.gives_back')}, r.head_seq),"
        f" head_digest = coalesce(c.head_digest, {newest_row('digest', 'c.run_id', 'c.status', 'c.gives_back')}, r.head_digest),"
        f" updated_at = {_NOW}"
        f" FROM {_unnested('c', _CHANGE_FIELDS, start)}"
        f" WHERE r.run_id = c.run_id AND r.epoch = c.epoch AND (c.seq IS NULL OR {_extends_head('c.run_id', 'c.seq')}) AND {asked}"
        f" RETURNING r.run_id, r.inbox_rev, r.updated_at, c.status IS NOT NULL AND {timely} AS is_news"
    )


def _taken_up(start: int, asked: str) -> str:
    """What a resumption changes of the runs that it takes."""
    timely = in_time("c.release_at_rev", "r.inbox_rev + c.said")
    return (
        f"UPDATE {runs.name} r SET epoch = c.epoch, attempt = r.attempt + 1,"
        f" status = CASE WHEN {timely} THEN coalesce(c.status, 'running') ELSE 'running' END,"
        f" wake_at = CASE WHEN {timely} AND NOT c.clear_wake_at THEN c.wake_at END, error = coalesce(c.error, r.error),"
        f" owner = CASE WHEN c.gives_back AND {timely} THEN NULL ELSE c.owner END, max_steps = coalesce(c.max_steps, r.max_steps),"
        f" head_seq = c.last_seq, head_digest = c.last_digest, inbox_rev = r.inbox_rev + c.said, updated_at = {_NOW}"
        f" FROM {_unnested('c', _TAKE_UP_FIELDS, start)}"
        f" WHERE r.run_id = c.run_id AND {still_free('r', 'c.epoch', 'c.inbox_rev', 'c.behind')} AND {_extends_head('c.run_id', 'c.seq')} AND {asked}"
        " RETURNING r.run_id, r.inbox_rev, r.updated_at, true AS is_news"
    )


def _transition(changed: Callable[[int, str], str], parts: Sequence[int]) -> str:
    starts = _starts(parts)
    asked = allowances("r.run_id", "r.tenant", "r.flow", "ANY(string_to_array(c.asks, ','))", _NOW)
    known = {
        "tenant": f"(SELECT r.tenant FROM {runs.name} r WHERE r.run_id = b.run_id)",
        "opened_at": f"coalesce(nullif(b.opened_at, 0), {_NOW})",
    }
    opened = [known.get(name, f"b.{name}") for name in BARRIERS]
    voted = [f"coalesce(nullif(d.{name}, 0), {_NOW})" if name == "decided_at" else f"d.{name}" for name in DECISIONS]
    return (
        # The UPDATE is the fence: it waits for an outsider who is at the run just now, and tells the inbox_rev as of then.
        # What an allowance may decide opens the long way.
        f"WITH upd AS ({changed(starts[1], f'(c.asks IS NULL OR NOT EXISTS (SELECT 1 FROM {grants.name} a WHERE {asked}))')}),"
        f" new AS (INSERT INTO {checkpoints.name} ({ROWS}) SELECT {_GIVEN_ROWS}, {_NOW}"
        f" FROM {_unnested('g', _ROW_FIELDS, starts[0])} WHERE {_among('g.run_id', 'upd')}),"
        f" opened AS (INSERT INTO {barriers.name} ({', '.join(BARRIERS)}) SELECT {', '.join(opened)}"
        f" FROM {_unnested('b', _BARRIER_FIELDS, starts[2])} WHERE {_among('b.run_id', 'upd')}"
        f" ON CONFLICT (run_id, ticket) DO UPDATE SET {BARRIER_AGAIN}),"
        f" closed AS (UPDATE {barriers.name} b SET status = x.status"
        f" FROM {_unnested('x', _CLOSE_FIELDS, starts[3])}"
        f" WHERE b.run_id = x.run_id AND b.ticket = x.ticket AND {_among('x.run_id', 'upd')}),"
        f" consumed AS (UPDATE {decisions.name} d SET consumed_seq = x.seq"
        f" FROM {_unnested('x', _CONSUME_FIELDS, starts[4])}"
        f" WHERE d.run_id = x.run_id AND d.id = x.id AND {_among('x.run_id', 'upd')}),"
        f" voted AS (INSERT INTO {decisions.name} ({', '.join(DECISIONS)}) SELECT {', '.join(voted)}"
        f" FROM {_unnested('d', _DECISION_FIELDS, starts[5])} WHERE {_among('d.run_id', 'upd')}),"
        f" nudged AS (UPDATE {barriers.name} b SET details = x.details"
        f" FROM {_unnested('x', _NUDGE_FIELDS, starts[6])}"
        f" WHERE b.run_id = x.run_id AND b.ticket = x.ticket AND {_among('x.run_id', 'upd')})"
        " SELECT upd.run_id, upd.inbox_rev, upd.updated_at,"
        f" CASE WHEN upd.is_news THEN pg_notify('{CHANNEL}', encode(upd.run_id, 'hex'))::text END FROM upd"
    )


TRANSITION: Final = _transition(_changed, TRANSITION_PARTS)
"""Everything a transition writes, for many runs at once: $1 the clock or null, then the arrays of `TRANSITION_PARTS`.
Returns (run_id, inbox_rev, committed_at, _) for each run that still held its lease, and opens nothing that an allowance may decide."""

RESUMPTION: Final = _transition(_taken_up, RESUMPTION_PARTS)
"""The same with the taking of the runs, by the arrays of `RESUMPTION_PARTS`: for each that is still as it was read."""

REREAD: Final = (
    f"SELECT k.seq, k.digest, k.epoch, k.committed_at, r.inbox_rev FROM {checkpoints.name} k JOIN {runs.name} r ON r.run_id = k.run_id"
    " WHERE k.run_id = $1::bytea AND k.seq >= $2::integer AND k.seq <= $3::integer ORDER BY k.seq"
)

_TELL: Final = f"pg_notify('{CHANNEL}', encode({{run_id}}, 'hex'))::text"

# --- creating -------------------------------------------------------------------------------------------------------
_NEW_RUN_FIELDS: Final = [(column.name, _type_of(column)) for column in runs.columns][:NEW_RUN_WIDTH]
_GRAPH_FIELDS: Final = [(column.name, _type_of(column)) for column in graphs.columns]
_NEW_BARRIER_FIELDS: Final = [(column.name, _type_of(column)) for column in barriers.columns]
CREATION_PARTS: Final = (len(_NEW_RUN_FIELDS), len(_ROW_FIELDS), len(_GRAPH_FIELDS), len(_NEW_BARRIER_FIELDS))
"""How many arrays each part of `CREATE` takes: runs, first rows, graphs, barriers."""


def _create() -> str:
    run, row, graph, barrier = _starts(CREATION_PARTS)
    now = "(SELECT now FROM moment)"
    opened = [f"coalesce(nullif(b.{name}, 0), {now})" if name == "opened_at" else f"b.{name}" for name in BARRIERS]
    return (
        f"WITH moment AS MATERIALIZED (SELECT {_NOW} AS now),"
        f" made AS (INSERT INTO {runs.name} ({RUN}) SELECT {', '.join(f'n.{name}' for name, _ in _NEW_RUN_FIELDS)}, {now}, {now}"
        f" FROM {_unnested('n', _NEW_RUN_FIELDS, run)} ON CONFLICT DO NOTHING RETURNING run_id, graph_hash, created_at, wake_at),"
        f" begun AS (INSERT INTO {checkpoints.name} ({ROWS}) SELECT {_GIVEN_ROWS}, {now}"
        f" FROM {_unnested('g', _ROW_FIELDS, row)} WHERE {_among('g.run_id', 'made')}),"
        f" kept AS (INSERT INTO {graphs.name} ({', '.join(graphs.columns.keys())}) SELECT k.graph_hash, k.definition"
        f" FROM {_unnested('k', _GRAPH_FIELDS, graph)}"
        " WHERE k.graph_hash IN (SELECT made.graph_hash FROM made) ON CONFLICT DO NOTHING),"
        f" opened AS (INSERT INTO {barriers.name} ({', '.join(BARRIERS)}) SELECT {', '.join(opened)}"
        f" FROM {_unnested('b', _NEW_BARRIER_FIELDS, barrier)} WHERE {_among('b.run_id', 'made')})"
        f" SELECT run_id, created_at, CASE WHEN wake_at IS NOT NULL THEN {_TELL.format(run_id='run_id')} END FROM made"
    )


CREATE: Final = _create()
"""New runs with all that belongs to them: $1 the clock or null, then the arrays of `CREATION_PARTS`.
Returns (run_id, created_at, _) for each run whose id and run_key were free; of the others nothing is written."""

CREATED: Final = (
    f"SELECT r.run_id, r.created_at FROM unnest($1::bytea[], $2::bytea[]) AS g(run_id, digest)"
    f" JOIN {runs.name} r ON r.run_id = g.run_id JOIN {checkpoints.name} k ON k.run_id = g.run_id AND k.digest = g.digest"
)
"""Which of the runs are there with that very first row: what an earlier `CREATE` wrote whose answer was lost."""

# --- read, judge, write only where nothing changed in between -------------------------------------------------------
# Every writer but an ordinary append writes the run's line, so its xmin is the version of all that a judgement rests on.
# Whoever is held up or changed is skipped, never waited for: a batch that waited would hold the other runs' locks meanwhile.
_LOCKED: Final = (
    f"locked AS (SELECT g.* FROM {{given}} JOIN {runs.name} r ON r.run_id = g.run_id"
    " WHERE r.xmin::text = g.version FOR NO KEY UPDATE OF r SKIP LOCKED)"
)
_ASKED_BARRIERS: Final = f"FROM {barriers.name} b WHERE b.run_id = r.run_id AND (b.node = g.node OR b.ticket = g.barrier)"
_IS_KNOWN: Final = "g.barrier IN (b.ticket, b.node, regexp_replace(b.ticket, '#[0-9]+$', ''))"
"""`deciding.is_known`: where not, the definition says whether there is such a barrier."""

READ_CASES: Final = (
    f"SELECT r.run_id, r.xmin::text, r.flow, r.flow_version, r.graph_hash, r.status, r.max_steps, {_NOW}, g.barrier,"
    f" ARRAY(SELECT ROW({', '.join(f'b.{name}' for name in BARRIERS)}) {_ASKED_BARRIERS}),"
    f" ARRAY(SELECT ROW({', '.join(f'd.{name}' for name in DECISIONS)}) FROM {decisions.name} d WHERE d.run_id = r.run_id"
    " ORDER BY d.decided_at, d.id),"
    f" (SELECT k.definition FROM {graphs.name} k WHERE k.graph_hash = r.graph_hash AND NOT EXISTS (SELECT 1 {_ASKED_BARRIERS} AND {_IS_KNOWN}))"
    f" FROM unnest($2::bytea[], $3::text[], $4::text[]) AS g(run_id, node, barrier) JOIN {runs.name} r ON r.run_id = g.run_id"
)
"""$1 the clock or null; arrays of runs, nodes and barriers as they were asked for.  One line for each that has a run: its version,
what `RunRecord` needs, the clock, the barrier, its barriers, its decisions, and the definition where none of them is meant."""

_INBOX: Final = (
    f"ARRAY(SELECT ROW({', '.join(f'b.{name}' for name in BARRIERS)}) FROM {barriers.name} b"
    " WHERE b.run_id = r.run_id AND b.status IN ('open', 'decided') ORDER BY b.opened_at, b.ticket),"
    f" ARRAY(SELECT ROW({', '.join(f'd.{name}' for name in DECISIONS)}) FROM {decisions.name} d"
    " WHERE d.run_id = r.run_id AND d.consumed_seq IS NULL ORDER BY d.decided_at, d.id)"
)
READ_INBOXES: Final = (
    f"SELECT r.run_id, r.inbox_rev, r.cancel, {_INBOX} FROM unnest($1::bytea[]) AS g(run_id) JOIN {runs.name} r ON r.run_id = g.run_id"
)
"""The inboxes of runs: of each its revision, the request to cancel, its live barriers, its decisions not yet consumed."""

FEW: Final = 64
_FEW_BYTES: Final = 4_096


def _few(table: str, names: Sequence[str], large: str, which: str) -> str:
    """Lines of a run, one more than `FEW` at the most; what is large in one is null: those of many runs come in one answer."""
    given = [f"CASE WHEN octet_length(l.{name}) <= {_FEW_BYTES} THEN l.{name} END" if name == large else f"l.{name}" for name in names]
    return f"ARRAY(SELECT ROW({', '.join(given)}) FROM {table} l WHERE l.run_id = r.run_id {which})"


_WATCHED: Final = f"{', '.join(f'r.{name}' for name in RUN_COLUMNS)}, {', '.join(f'w.{name}' for name in OWNER_COLUMNS)}, {_NOW}"
_WHICH: Final = (
    f"FROM unnest($2::bytea[]) AS g(run_id) JOIN {runs.name} r ON r.run_id = g.run_id LEFT JOIN {workers.name} w ON w.worker_id = r.owner"
)

READ_RUNS: Final = f"SELECT {_WATCHED} {_WHICH}"
"""Runs, each with its owner's line and the clock: $1 the clock or null, $2 which."""

_NEWEST: Final = f"coalesce((SELECT max(s.seq) FROM {snapshots.name} s WHERE s.run_id = r.run_id), 0)"
_STANDING: Final = (
    _few(snapshots.name, ("seq", "digest", "seal", "payload"), "payload", "ORDER BY l.seq DESC LIMIT 1"),
    _few(checkpoints.name, ROW_COLUMNS[1:], "payload", f"AND l.seq >= {_NEWEST} ORDER BY l.seq LIMIT {FEW + 1}"),
    _few(barriers.name, BARRIERS, "details", f"AND l.status IN ('open', 'decided') ORDER BY l.opened_at, l.ticket LIMIT {FEW + 1}"),
    _few(decisions.name, DECISIONS, "details", f"AND l.consumed_seq IS NULL ORDER BY l.decided_at, l.id LIMIT {FEW + 1}"),
)

READ_STANDINGS: Final = f"SELECT {_WATCHED}, {', '.join(_STANDING)} {_WHICH}"
"""How runs stand: $1 the clock or null, $2 which.  Of each its line with its owner's and the clock, its newest snapshot, its rows from
there on, and its inbox; see `_few`."""

_CASE_FIELDS: Final = [("run_id", "bytea"), ("version", "text"), ("added", "integer"), ("wakes", "boolean")]
_SETTLED_FIELDS: Final = [("run_id", "bytea"), ("ticket", "text"), ("status", "text")]
DECISION_PARTS: Final = (len(_CASE_FIELDS), len(_SETTLED_FIELDS), len(_DECISION_FIELDS))
"""How many arrays each part of `DECIDE` takes: runs, barriers, decisions."""


def _decide() -> str:
    case, settled, decision = _starts(DECISION_PARTS)
    return (
        f"WITH {_LOCKED.format(given=_unnested('g', _CASE_FIELDS, case))},"
        f" bumped AS (UPDATE {runs.name} r SET inbox_rev = r.inbox_rev + l.added, updated_at = {_NOW},"
        f" wake_at = CASE WHEN l.wakes AND r.status = 'waiting' THEN {_NOW} ELSE r.wake_at END"
        " FROM locked l WHERE r.run_id = l.run_id RETURNING r.run_id),"
        f" settled AS (UPDATE {barriers.name} b SET status = x.status"
        f" FROM {_unnested('x', _SETTLED_FIELDS, settled)}"
        f" WHERE b.run_id = x.run_id AND b.ticket = x.ticket AND {_among('x.run_id', 'bumped')}),"
        f" given AS (INSERT INTO {decisions.name} ({', '.join(DECISIONS)}) SELECT {', '.join(f'd.{name}' for name in DECISIONS)}"
        f" FROM {_unnested('d', _DECISION_FIELDS, decision)} WHERE {_among('d.run_id', 'bumped')})"
        f" SELECT run_id, {_TELL.format(run_id='run_id')} FROM bumped"
    )


DECIDE: Final = _decide()
"""Accepted decisions: $1 the clock or null, then the arrays of `DECISION_PARTS`.
Returns (run_id, _) for each run that is still at the version it was judged by; of the others nothing is written."""

READ_FREE: Final = (
    f"SELECT {', '.join(f'r.{name}' for name in RUN_COLUMNS)}, r.xmin::text, h.seq, h.digest, h.step"
    f" FROM unnest($1::bytea[]) AS g(run_id) JOIN {runs.name} r ON r.run_id = g.run_id LEFT JOIN LATERAL"
    f" (SELECT k.seq, k.digest, k.step FROM {checkpoints.name} k WHERE k.run_id = r.run_id ORDER BY k.seq DESC LIMIT 1) h ON true"
)
"""The lines of runs, each with its version and its newest row's seq, digest and step."""

_TAKE_FIELDS: Final = [
    ("run_id", "bytea"),
    ("version", "text"),
    ("max_steps", "integer"),
    ("graph_hash", "text"),
    ("seq", "integer"),
    ("digest", "bytea"),
]
TAKING_PARTS: Final = (1, len(_TAKE_FIELDS), len(_ROW_FIELDS))
"""How many arrays each part of `TAKE` takes, behind the owner: runs, rows."""


def _take() -> str:
    _, run, row = _starts(TAKING_PARTS)
    return (
        f"WITH {_LOCKED.format(given=_unnested('g', _TAKE_FIELDS, run))},"
        f" taken AS (UPDATE {runs.name} r SET epoch = r.epoch + 1, attempt = r.attempt + 1, status = 'running', owner = $2::text, wake_at = NULL,"
        " max_steps = coalesce(l.max_steps, r.max_steps), graph_hash = coalesce(l.graph_hash, r.graph_hash),"
        f" head_seq = l.seq, head_digest = l.digest, updated_at = {_NOW}"
        " FROM locked l WHERE r.run_id = l.run_id"
        f" RETURNING {', '.join(f'r.{name}' for name in RUN_COLUMNS)}),"
        f" attempted AS (INSERT INTO {checkpoints.name} ({ROWS}) SELECT {_GIVEN_ROWS}, {_NOW}"
        f" FROM {_unnested('g', _ROW_FIELDS, row)} WHERE {_among('g.run_id', 'taken')})"
        f" SELECT {RUN}, {_TELL.format(run_id='run_id')} FROM taken"
    )


TAKE: Final = _take()
"""Transfers of authority: $1 the clock or null, $2 the new owner, then the arrays of `TAKING_PARTS`.
Returns the line of each run that is still at the version it was read at; of the others nothing is written."""

TAKEN: Final = (
    f"SELECT {', '.join(f'r.{name}' for name in RUN_COLUMNS)} FROM unnest($1::bytea[], $2::bytea[]) AS g(run_id, digest)"
    f" JOIN {runs.name} r ON r.run_id = g.run_id JOIN {checkpoints.name} k ON k.run_id = g.run_id AND k.digest = g.digest"
)
"""The lines of runs that have that very row: what an earlier `TAKE` wrote whose answer was lost."""

# --- side effects ---------------------------------------------------------------------------------------------------
EFFECT_FIELDS: Final = [(column.name, _type_of(column)) for column in effects.columns]


def _owned(fields: Sequence[tuple[str, str]]) -> str:
    """The lines given, of the runs that are still their owner's; a run that somebody is at just now is skipped."""
    return (
        f"owned AS MATERIALIZED (SELECT g.* FROM {_unnested('g', fields, 2)} CROSS JOIN LATERAL (SELECT FROM {runs.name} r"
        " WHERE r.run_id = g.run_id AND r.epoch = g.lease FOR NO KEY UPDATE SKIP LOCKED) r)"
    )


def _start_effects() -> str:
    fields = [(name, kind) if name != "epoch" else ("lease", kind) for name, kind in EFFECT_FIELDS]
    given = [_NOW if name == "started_at" else f"o.{name}" for name, _ in fields]
    return (
        f"WITH {_owned(fields)} INSERT INTO {effects.name} ({', '.join(effects.columns.keys())}) SELECT {', '.join(given)} FROM owned o"
        " ON CONFLICT DO NOTHING RETURNING run_id, key, started_at"
    )


START_EFFECTS: Final = _start_effects()
"""Side effects begun for the first time: $1 the clock or null, then arrays of all columns of ``effects``.
Returns (run_id, key, started_at) for each that is; of the others nothing is written."""

END_EFFECTS: Final = (
    f"WITH {_owned([*EFFECT_FIELDS, ('lease', 'integer'), ('held', 'bytea')])} UPDATE {effects.name} e"
    f" SET status = o.status, ended_at = {_NOW}, details = o.details, outcome = o.outcome FROM owned o"
    " WHERE e.run_id = o.run_id AND e.key = o.key AND e.begun = o.begun AND e.epoch = o.epoch AND e.started_at = o.started_at"
    " AND e.details = o.held AND e.status IN ('started', 'in_doubt')"
    " RETURNING e.run_id, e.key, e.ended_at"
)
"""What became of side effects: $1 the clock or null, then arrays of all columns of ``effects``, of the epochs that must be current, and of the details as they must be.
Returns (run_id, key, ended_at) for each that was waiting for this, as `effects.end` says; of the others nothing is written."""
