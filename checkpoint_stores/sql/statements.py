"""Every statement of the SQL store: functions and texts, no connection, no execution.

Queries and rare writes are SQLAlchemy Core.  The append path is text for the
bare drivers, made once from the tables' metadata: Core's execution would cost
more than the commit itself.  How its places ``%1``, ``%2`` ... are said to each
driver is the business of `checkpoint_stores.sql.places`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from checkpoint_stores.addressing import MOST_CANDIDATES
from checkpoint_stores.records import DRIVEN, ENDED, UNDRIVEN
from checkpoint_stores.sql.places import POSTGRES_CLOCK, places
from checkpoint_stores.sql.schema import (
    barriers,
    checkpoints,
    decisions,
    effects,
    grants,
    graphs,
    metadata,
    runs,
    snapshots,
    workers,
)

CHANNEL: Final = "trailmark_runs"
STEPS_CHANNEL: Final = "trailmark_steps"
"""Who follows a run's steps rings for it here, and whoever drives it tells of them."""
"""Where PostgreSQL tells that a run changed; the payload is the run id in hexadecimal."""

NEWEST: Final = 2**31 - 1
"""A seq no run reaches: all of a run."""
ROW_COLUMNS: Final = tuple(column.name for column in checkpoints.columns)
ROWS: Final = ", ".join(ROW_COLUMNS)


def clock(now: int | None) -> sa.ColumnElement[int]:
    """The store's clock inside a statement: the database's, or a value given by a virtual clock (always given on SQLite)."""
    return sa.literal(now, sa.BigInteger) if now is not None else sa.literal_column(POSTGRES_CLOCK, sa.BigInteger)


# --- runs -----------------------------------------------------------------------------------------------------------
def clock_now() -> sa.Select[Any]:
    return sa.select(clock(None))


def _runs(now: int | None) -> sa.Select[Any]:
    """Lines of ``runs``, each with its owner's line of ``workers`` and the clock, all from one moment; see `lines.watched_run_of`."""
    owner = (workers.c.lease_expires_at, workers.c.host, workers.c.pid, workers.c.pid_started)
    return sa.select(runs, *owner, clock(now).label("clock")).select_from(runs.outerjoin(workers, workers.c.worker_id == runs.c.owner))


OWNER_COLUMNS: Final = ("lease_expires_at", "host", "pid", "pid_started")

RUN_BY_ID: Final = (
    f"SELECT {', '.join(f'r.{column.name}' for column in runs.columns)}, {', '.join(f'w.{name}' for name in OWNER_COLUMNS)}, {{now:2}}"
    f" FROM {runs.name} r LEFT JOIN {workers.name} w ON w.worker_id = r.owner WHERE r.run_id = %1"
)
"""What `_runs` selects, of one run, for the bare driver: it is asked for with every taking."""


def runs_between(least: bytes, greatest: bytes, now: int | None) -> sa.Select[Any]:
    return _runs(now).where(runs.c.run_id.between(least, greatest)).limit(MOST_CANDIDATES)


def runs_ending(tail: bytes, now: int | None) -> sa.Select[Any]:
    """Reads the whole table: only for what a person typed, where nothing else fits."""
    ending = sa.func.substr(runs.c.run_id, 17 - len(tail), type_=sa.LargeBinary)
    return _runs(now).where(ending == tail).limit(10 * MOST_CANDIDATES)


def run_by_key(flow: str, run_key: str, tenant: str, now: int | None) -> sa.Select[Any]:
    return _runs(now).where(runs.c.tenant == tenant, runs.c.flow == flow, runs.c.run_key == run_key)


def runs_newest_first(
    *, flow: str | None, status: str | None, tenant: str, limit: int, before: tuple[int, bytes] | None, now: int | None
) -> sa.Select[Any]:
    chosen = _runs(now).where(runs.c.tenant == tenant)
    if flow is not None:
        chosen = chosen.where(runs.c.flow == flow)
    if status is not None:
        chosen = chosen.where(runs.c.status == status)
    if before is not None:
        chosen = chosen.where(sa.tuple_(runs.c.created_at, runs.c.run_id) < sa.tuple_(*before))
    return chosen.order_by(runs.c.created_at.desc(), runs.c.run_id.desc()).limit(limit)


def give_back(run_id: bytes, epoch: int, owner: str, now: int | None) -> sa.Update:
    head = (
        sa.select(checkpoints.c.seq, checkpoints.c.digest).where(checkpoints.c.run_id == run_id).order_by(checkpoints.c.seq.desc()).limit(1)
    )
    newest = head.subquery()
    return (
        sa.update(runs)
        .where(runs.c.run_id == run_id, runs.c.epoch == epoch, runs.c.owner == owner)
        .values(
            owner=None,
            head_seq=sa.func.coalesce(sa.select(newest.c.seq).scalar_subquery(), runs.c.head_seq),
            head_digest=sa.func.coalesce(sa.select(newest.c.digest).scalar_subquery(), runs.c.head_digest),
            status=sa.case((runs.c.status.in_(DRIVEN), "ready"), else_=runs.c.status),
            wake_at=sa.case((runs.c.status.in_(DRIVEN), clock(now)), else_=runs.c.wake_at),
            updated_at=clock(now),
        )
    )


def owned_by(owner: str) -> sa.Select[Any]:
    return sa.select(runs.c.run_id, runs.c.epoch).where(runs.c.owner == owner)


# --- what is due ----------------------------------------------------------------------------------------------------
class Wanted(NamedTuple):
    """Which runs somebody could drive: of these flows (None: of all), without those put aside; and the clock."""

    flows: Collection[str] | None
    aside: Collection[bytes]
    now: int | None

    def of(self, chosen: sa.Select[Any]) -> sa.Select[Any]:
        if self.flows is not None:
            chosen = chosen.where(runs.c.flow.in_(self.flows))
        return chosen.where(runs.c.run_id.not_in(self.aside)) if self.aside else chosen


def runs_due(wanted: Wanted, limit: int) -> sa.Select[Any]:
    """Runs that nobody owns and whose time has come, the oldest time first."""
    # As a subquery the clock is asked once; PostgreSQL would ask it for each line, and could use no index.
    come = runs.c.wake_at <= sa.select(clock(wanted.now)).scalar_subquery()
    idle = runs.c.owner.is_(None) & runs.c.status.in_(("waiting", *sorted(UNDRIVEN)))
    return wanted.of(_runs(wanted.now).where(come, idle)).order_by(runs.c.wake_at).limit(limit)


def runs_of_owners(owners: Collection[str], wanted: Wanted, limit: int) -> sa.Select[Any]:
    return wanted.of(_runs(wanted.now).where(runs.c.owner.in_(owners))).limit(limit)


def perhaps_gone(worker_id: str, host: str, now: int | None) -> sa.Select[Any]:
    """Other processes whose lease is over, or that ran on this machine (whether they still do, the machine knows)."""
    over = workers.c.lease_expires_at <= sa.select(clock(now)).scalar_subquery()
    return sa.select(workers, clock(now).label("clock")).where(workers.c.worker_id != worker_id, over | (workers.c.host == host))


def next_due(worker_id: str, lease: int, now: int | None) -> sa.Select[Any]:
    """The next time at which something becomes due; one lease from now where nothing is known."""
    moment = sa.select(clock(now).label("now")).cte("moment")
    at = sa.select(moment.c.now).scalar_subquery()
    wakes = sa.select(sa.func.min(runs.c.wake_at)).where(runs.c.wake_at > at).scalar_subquery()
    ends = (
        sa.select(sa.func.min(workers.c.lease_expires_at))
        .where(workers.c.lease_expires_at > at, workers.c.worker_id != worker_id)
        .scalar_subquery()
    )
    known = sa.union_all(sa.select(wakes.label("at")), sa.select(ends), sa.select(moment.c.now + lease)).subquery()
    return sa.select(sa.func.min(known.c.at))


DUE_MARK: Final = (
    f"SELECT (SELECT count(*) FROM (SELECT 1 FROM {runs.name} WHERE wake_at <= %1 LIMIT %2)),"
    f" (SELECT max(wake_at) FROM {runs.name} WHERE wake_at <= %1), (SELECT min(wake_at) FROM {runs.name} WHERE wake_at > %1)"
)
"""What a watcher of all runs compares at a moment: how many are due (%2 at most), the newest of them, and the next one to be."""


def inbox_states_text(number: int) -> str:
    """What a watcher compares, for the bare sqlite3 driver: where it differs, a watch must wake."""
    return f"SELECT run_id, inbox_rev, status FROM {runs.name} WHERE run_id IN ({', '.join('?' * number)})"


def heads_text(number: int) -> str:
    """The newest checkpoint of each run, for the bare sqlite3 driver."""
    newest = f"SELECT max(c.seq) FROM {checkpoints.name} c WHERE c.run_id = r.run_id"
    return f"SELECT r.run_id, ({newest}) FROM {runs.name} r WHERE r.run_id IN ({', '.join('?' * number)})"


# --- workers --------------------------------------------------------------------------------------------------------
def forget_worker(worker_id: str) -> sa.Delete:
    return sa.delete(workers).where(workers.c.worker_id == worker_id)


def forget_gone_workers(worker_ids: Collection[str], before: int) -> sa.Delete:
    """Of these, the lines of processes that ended long ago and own nothing any more."""
    return sa.delete(workers).where(
        workers.c.worker_id.in_(worker_ids),
        workers.c.lease_expires_at < before,
        ~sa.exists().where(runs.c.owner == workers.c.worker_id).correlate(workers),
    )


# --- barriers and decisions -----------------------------------------------------------------------------------------
def barriers_oldest_first(*, run_id: bytes | None, status: str | None, tenant: str, limit: int | None) -> sa.Select[Any]:
    chosen = sa.select(barriers)
    chosen = chosen.where(barriers.c.tenant == tenant) if run_id is None else chosen.where(barriers.c.run_id == run_id)
    if status is not None:
        chosen = chosen.where(barriers.c.status == status)
    return chosen.order_by(barriers.c.opened_at, barriers.c.run_id, barriers.c.ticket).limit(limit)


def decisions_of(run_id: bytes) -> sa.Select[Any]:
    return sa.select(decisions).where(decisions.c.run_id == run_id).order_by(decisions.c.decided_at, decisions.c.id)


# --- grants ---------------------------------------------------------------------------------------------------------
def grants_oldest_first(
    *, flow: str | None, run_id: bytes | None, tenant: str, live: bool, limit: int, now: int | None
) -> sa.Select[Any]:  # fmt: skip
    chosen = sa.select(grants).where(grants.c.tenant == tenant)
    if flow is not None:
        chosen = chosen.where(grants.c.flow == flow)
    if run_id is not None:
        chosen = chosen.where(grants.c.run_id == run_id)
    if live:
        chosen = chosen.where(
            grants.c.revoked_at.is_(None),
            sa.or_(grants.c.expires_at.is_(None), grants.c.expires_at > clock(now)),
            sa.or_(grants.c.uses.is_(None), grants.c.used < grants.c.uses),
        )
    return chosen.order_by(grants.c.made_at, grants.c.id).limit(limit)


# --- graphs ---------------------------------------------------------------------------------------------------------
def graphs_naming(flow: str) -> sa.Select[Any]:
    """Definitions in which the flow is named: its own, and those it is a branch of."""
    named = f'"flow": {json.dumps(flow, ensure_ascii=False)}'
    return sa.select(graphs.c.definition).where(graphs.c.definition.contains(named, autoescape=True))


def graph(graph_hash: str) -> sa.Select[Any]:
    return sa.select(graphs.c.definition).where(graphs.c.graph_hash == graph_hash)


# --- counts ---------------------------------------------------------------------------------------------------------
def runs_by_status() -> sa.Select[Any]:
    return sa.select(runs.c.status, sa.func.count().label("number")).group_by(runs.c.status)


def counts() -> sa.Select[int, int, int, int]:
    def number(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        return sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery()

    return sa.select(
        number(checkpoints).label("checkpoints"),
        number(snapshots).label("snapshots"),
        number(barriers, barriers.c.status == "open").label("barriers_open"),
        number(decisions).label("decisions"),
    )


# --- the append path: text for the bare drivers ---------------------------------------------------------------------
# A commit extends the head: its first row's predecessor is there (or was pruned into a snapshot).  Without this, a
# commit that was queued behind a refused one would leave a hole.
def extends_head(run_id: str, seq: str) -> str:
    return (
        f"(EXISTS (SELECT 1 FROM {checkpoints.name} p WHERE p.run_id = {run_id} AND p.seq = {seq} - 1)"
        f" OR EXISTS (SELECT 1 FROM {snapshots.name} p WHERE p.run_id = {run_id} AND p.seq = {seq} - 1))"
    )


def still_free(run: str, epoch: str, inbox_rev: str) -> str:
    """Whether nobody owns the run of the line ``run`` or has written to it since it was read, beside its rows; ``epoch`` is the one it
    is to be taken under."""
    ended = ", ".join(repr(status) for status in sorted(ENDED))
    return f"{run}.epoch = {epoch} - 1 AND {run}.owner IS NULL AND {run}.inbox_rev = {inbox_rev} AND {run}.status NOT IN ({ended})"


def in_time(release_at_rev: str, inbox_rev: str) -> str:
    return f"({release_at_rev} IS NULL OR {release_at_rev} = {inbox_rev})"


def newest_row(column: str, run_id: str, status: str, gives_back: str) -> str:
    """The anchor of a transition that brings no row of its own (its rows' last one was given otherwise)."""
    newest = f"SELECT k.{column} FROM {checkpoints.name} k WHERE k.run_id = {run_id} ORDER BY k.seq DESC LIMIT 1"
    return f"CASE WHEN {status} IS NOT NULL OR {gives_back} THEN ({newest}) END"


SQLITE_APPEND: Final = (
    f"INSERT INTO {checkpoints.name} ({ROWS})"
    f" SELECT {places(len(ROW_COLUMNS))}"
    f" FROM {runs.name} r WHERE r.run_id = %1 AND r.epoch = %3 AND {extends_head('%1', '%2')}"
    f" RETURNING (SELECT r.inbox_rev FROM {runs.name} r WHERE r.run_id = %1)"
)
"""One row; parameters are its columns in order.  Returns inbox_rev, or no line where the lease is lost."""

APPENDED_TOGETHER: Final = (64, 16, 4)
"""How many ordinary commits share a statement on SQLite, where so many wait: few different texts, so that each stays prepared."""


@cache
def sqlite_append_many(number: int) -> str:
    """So many rows, each of another run; parameters are their columns but the last in order, row after row, and that one once, behind them.

    Returns (run_id, inbox_rev) of those that are in; of a run whose lease is lost, or whose row does not follow, there is no line.
    """
    return (
        f"{_given(number)} INSERT INTO {checkpoints.name} ({ROWS}) SELECT given.*, ? FROM given CROSS JOIN {runs.name} r"
        f" WHERE r.run_id = given.run_id AND r.epoch = given.epoch AND {extends_head('given.run_id', 'given.seq')}"
        f" RETURNING run_id, (SELECT r.inbox_rev FROM {runs.name} r WHERE r.run_id = {checkpoints.name}.run_id)"
    )


@cache
def sqlite_insert_many(number: int) -> str:
    """So many rows behind one that was appended in the same transaction, of the same run; parameters as those of `sqlite_append_many`."""
    return f"{_given(number)} INSERT INTO {checkpoints.name} ({ROWS}) SELECT given.*, ? FROM given"


def _given(number: int) -> str:
    own = ROW_COLUMNS[:-1]
    row = f"({', '.join('?' * len(own))})"
    return f"WITH given ({', '.join(own)}) AS (VALUES {', '.join([row] * number)})"


SQLITE_CHANGE_RUN: Final = (
    f"UPDATE {runs.name} SET status = CASE WHEN {in_time('%10', 'inbox_rev')} THEN coalesce(%3, status) ELSE status END,"
    f" wake_at = CASE WHEN NOT {in_time('%10', 'inbox_rev')} THEN wake_at WHEN %5 THEN NULL ELSE coalesce(%4, wake_at) END,"
    " error = coalesce(%6, error),"
    f" owner = CASE WHEN %7 AND {in_time('%10', 'inbox_rev')} THEN NULL ELSE owner END,"
    f" head_seq = coalesce(%8, {newest_row('seq', '%1', '%3', '%7')}, head_seq),"
    f" head_digest = coalesce(%9, {newest_row('digest', '%1', '%3', '%7')}, head_digest), updated_at = %11"
    " WHERE run_id = %1 AND epoch = %2 RETURNING inbox_rev, tenant"
)
SQLITE_TAKE_UP: Final = (
    f"UPDATE {runs.name} SET epoch = %2, attempt = attempt + 1, status = 'running', owner = %3, wake_at = NULL,"
    " max_steps = coalesce(%5, max_steps), head_seq = %6, head_digest = %7, inbox_rev = inbox_rev + %8, updated_at = %9"
    f" WHERE run_id = %1 AND {still_free(runs.name, '%2', '%4')} RETURNING inbox_rev, tenant"
)
"""(run_id, epoch, owner, inbox_rev, max_steps, head_seq, head_digest, said, now).  No line where the run is not as it was read."""
BARRIERS: Final = tuple(column.name for column in barriers.columns)
DECISIONS: Final = tuple(column.name for column in decisions.columns)
BARRIER_AGAIN: Final = ", ".join(f"{name} = excluded.{name}" for name in BARRIERS if name not in ("run_id", "ticket"))
SQLITE_OPEN_BARRIER: Final = (
    f"INSERT INTO {barriers.name} ({', '.join(BARRIERS)}) VALUES ({', '.join(f':{name}' for name in BARRIERS)})"
    f" ON CONFLICT (run_id, ticket) DO UPDATE SET {BARRIER_AGAIN}"
)
SQLITE_SET_BARRIER: Final = f"UPDATE {barriers.name} SET status = %3 WHERE run_id = %1 AND ticket = %2"
SQLITE_CONSUME: Final = f"UPDATE {decisions.name} SET consumed_seq = %3 WHERE run_id = %1 AND id = %2"
SQLITE_NUDGE: Final = f"UPDATE {barriers.name} SET details = %3 WHERE run_id = %1 AND ticket = %2"
SQLITE_VOTE: Final = f"INSERT INTO {decisions.name} ({', '.join(DECISIONS)}) VALUES ({', '.join(f':{name}' for name in DECISIONS)})"

_ROWS_READ: Final = ", ".join(ROW_COLUMNS[1:])
"""Who reads rows knows whose they are."""
LOAD_ROWS: Final = f"SELECT {_ROWS_READ} FROM {checkpoints.name} WHERE run_id = %1 AND seq >= %2 AND seq <= %3 ORDER BY seq LIMIT %4"
LOAD_SNAPSHOTS: Final = f"SELECT seq, digest, seal, payload FROM {snapshots.name} WHERE run_id = %1 AND seq <= %2 ORDER BY seq"
LOAD_NEWEST_SNAPSHOT: Final = f"{LOAD_SNAPSHOTS} DESC LIMIT 1"
LOAD_ROWS_UPTO: Final = f"SELECT {_ROWS_READ} FROM {checkpoints.name} WHERE run_id = %1 AND seq <= %2 ORDER BY seq"
LOAD_ROWS_FROM_SNAPSHOT: Final = (
    f"SELECT {_ROWS_READ} FROM {checkpoints.name} c WHERE run_id = %1 AND seq <= %2 AND seq >="
    f" coalesce((SELECT max(s.seq) FROM {snapshots.name} s WHERE s.run_id = %1 AND s.seq <= %2), 0) ORDER BY seq"
)
LOAD_ANCHOR: Final = f"SELECT genesis, parent_run_id, head_seq, head_digest FROM {runs.name} WHERE run_id = %1"


def newest_part(key: bytes, last: int) -> list[tuple[str, tuple[Any, ...]]]:
    """What tells of a run up to ``last`` from its newest snapshot on: the anchor, the snapshot, the rows; see `lines.stored_of`."""
    return [(LOAD_ANCHOR, (key,)), (LOAD_NEWEST_SNAPSHOT, (key, last)), (LOAD_ROWS_FROM_SNAPSHOT, (key, last))]


def whole_part(key: bytes, last: int) -> list[tuple[str, tuple[Any, ...]]]:
    """All that tells of a run up to ``last``."""
    return [(LOAD_ANCHOR, (key,)), (LOAD_SNAPSHOTS, (key, last)), (LOAD_ROWS_UPTO, (key, last))]


# What outsiders left for a run: the revision first, since on PostgreSQL each statement sees its own moment.
INBOX_REVISION: Final = f"SELECT inbox_rev, cancel FROM {runs.name} WHERE run_id = %1"
LIVE_BARRIERS: Final = (
    f"SELECT {', '.join(BARRIERS)} FROM {barriers.name} WHERE run_id = %1 AND status IN ('open', 'decided') ORDER BY opened_at, ticket"
)
PENDING_DECISIONS: Final = (
    f"SELECT {', '.join(DECISIONS)} FROM {decisions.name} WHERE run_id = %1 AND consumed_seq IS NULL ORDER BY decided_at, id"
)


def standing(key: bytes, now: int | None) -> list[tuple[str, tuple[Any, ...]]]:
    """All that tells how a run stands: its line with its owner's, its newest snapshot, the rows from there on, its inbox."""
    _, *stored = newest_part(key, NEWEST)
    return [(RUN_BY_ID, (key, now)), *stored, (LIVE_BARRIERS, (key,)), (PENDING_DECISIONS, (key,))]


SQLITE_SIZE: Final = "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()"
TABLES: Final = tuple(table.name for table in metadata.sorted_tables)
POSTGRES_SIZE: Final = "SELECT " + " + ".join(f"pg_total_relation_size('{table.name}')" for table in metadata.sorted_tables) + " AS bytes"

# --- what transactions say, as text for the bare drivers ------------------------------------------------------------
RUN_COLUMNS: Final = tuple(column.name for column in runs.columns)
RUN: Final = ", ".join(RUN_COLUMNS)
TIMES: Final = ("created_at", "updated_at")

LOCK_RUN: Final = f"SELECT {RUN}, {{now:2}} FROM {runs.name} WHERE run_id = %1{{lock}}"
"""(run_id, now): the run's line, locked until the transaction ends, and the clock."""
BEAT: Final = (
    f"INSERT INTO {workers.name} (worker_id, host, pid, pid_started, started_at, lease_expires_at)"
    " VALUES (%1, %2, %3, %4, {now:5}, {now:5} + %6)"
    " ON CONFLICT (worker_id) DO UPDATE SET lease_expires_at = excluded.lease_expires_at RETURNING lease_expires_at"
)
"""Registers a process, or extends its lease by %6 microseconds; returns until when."""
WORKER: Final = f"SELECT lease_expires_at, host, pid, pid_started FROM {workers.name} WHERE worker_id = %1"
HEAD: Final = f"SELECT seq, digest, step FROM {checkpoints.name} WHERE run_id = %1 ORDER BY seq DESC LIMIT 1"
ROW_DIGEST: Final = f"SELECT digest FROM {checkpoints.name} WHERE run_id = %1 AND seq = %2"
INSERT_ROW: Final = f"INSERT INTO {checkpoints.name} ({ROWS}) VALUES ({places(len(ROW_COLUMNS) - 1)}, {{now:{len(ROW_COLUMNS)}}})"
NAME_TAKEN: Final = f"SELECT run_id FROM {runs.name} WHERE run_id = %1 OR (tenant = %2 AND flow = %3 AND run_key = %4) LIMIT 1"
NEW_RUN_WIDTH: Final = len(RUN_COLUMNS) - len(TIMES)
"""The times of a run are its last columns; a new run gives all before them."""
_NOW_OF_NEW: Final = f"{{now:{NEW_RUN_WIDTH + 1}}}"
INSERT_RUN: Final = (
    f"INSERT INTO {runs.name} ({RUN}) SELECT {places(NEW_RUN_WIDTH)}, moment, moment FROM (SELECT {_NOW_OF_NEW} AS moment) m"
    f" WHERE true ON CONFLICT DO NOTHING RETURNING {TIMES[0]}"
)
"""Returns created_at, or no line where the run's id or its run_key is taken."""
GIVE_KEY_UP: Final = (
    f"UPDATE {runs.name} SET run_key = NULL, updated_at = {{now:3}}"
    f" WHERE run_id = %1 AND run_key = %2 AND status IN ({', '.join(repr(status) for status in sorted(ENDED))})"
)
TAKE_RUN: Final = (
    f"UPDATE {runs.name} SET epoch = epoch + 1, attempt = attempt + 1, status = 'running', owner = %2, wake_at = NULL,"
    " max_steps = coalesce(%3, max_steps), graph_hash = coalesce(%4, graph_hash), head_seq = %5, head_digest = %6,"
    f" updated_at = {{now:7}} WHERE run_id = %1 RETURNING {RUN}"
)
_DRIVEN: Final = ", ".join(repr(status) for status in sorted(DRIVEN))
WHOLE_RUN: Final = f"SELECT {RUN} FROM {runs.name} WHERE run_id = %1"
GRAPH_OF_RUN: Final = f"SELECT g.definition FROM {graphs.name} g JOIN {runs.name} r ON r.graph_hash = g.graph_hash WHERE r.run_id = %1"
ALL_BARRIERS: Final = f"SELECT {', '.join(BARRIERS)} FROM {barriers.name} WHERE run_id = %1 ORDER BY opened_seq, ticket"
ALL_DECISIONS: Final = f"SELECT {', '.join(DECISIONS)} FROM {decisions.name} WHERE run_id = %1 ORDER BY decided_at, id"
ADMIT_RUN: Final = f"INSERT INTO {runs.name} ({RUN}) VALUES ({places(len(RUN_COLUMNS))})"
ADMIT_ROW: Final = f"INSERT INTO {checkpoints.name} ({ROWS}) VALUES ({places(len(ROW_COLUMNS))})"
DELETE_RUN: Final = tuple(
    f"DELETE FROM {table.name} WHERE run_id = %1" for table in reversed(metadata.sorted_tables) if "run_id" in table.columns
)
"""One after another, the run's own line last."""
DROP_ROWS: Final = f"DELETE FROM {checkpoints.name} WHERE run_id = %1 AND seq <= %2 RETURNING seq"
DROP_SNAPSHOTS: Final = f"DELETE FROM {snapshots.name} WHERE run_id = %1 AND seq < %2"
AMEND_RUN: Final = (
    f"UPDATE {runs.name} SET epoch = %2, owner = NULL, head_seq = %3, head_digest = %4, updated_at = {{now:5}},"
    f" status = CASE WHEN status IN ({_DRIVEN}) THEN 'ready' ELSE status END,"
    f" wake_at = CASE WHEN status IN ({_DRIVEN}) THEN {{now:5}} ELSE wake_at END WHERE run_id = %1"
)
REWORD_BARRIER: Final = f"UPDATE {barriers.name} SET digest = %3, details = %4 WHERE run_id = %1 AND ticket = %2"
BUMP_INBOX: Final = (
    f"UPDATE {runs.name} SET inbox_rev = inbox_rev + 1, updated_at = %2, cancel = coalesce(%3, cancel),"
    f" wake_at = CASE WHEN %4 AND status = 'waiting' THEN %2 ELSE wake_at END WHERE run_id = %1 RETURNING {RUN}"
)
INSERT_BARRIER: Final = f"INSERT INTO {barriers.name} ({', '.join(barriers.columns.keys())}) VALUES ({places(len(barriers.columns))})"
BARRIERS_OF_NODE: Final = (
    f"SELECT {', '.join(barriers.columns.keys())} FROM {barriers.name} WHERE run_id = %1 AND (node = %2 OR ticket = %3)"
)
CHANGE_GRAPH: Final = f"UPDATE {runs.name} SET graph_hash = %2, head_seq = %3, head_digest = %4, updated_at = %5 WHERE run_id = %1"
MOVE_BARRIER: Final = f"UPDATE {barriers.name} SET ticket = %3, node = %4, path = %5 WHERE run_id = %1 AND ticket = %2"
MOVE_VOTE: Final = f"UPDATE {decisions.name} SET ticket = %3 WHERE run_id = %1 AND id = %2"
SET_BARRIER: Final = f"UPDATE {barriers.name} SET status = %3 WHERE run_id = %1 AND ticket = %2"
VOTES: Final = (
    f"SELECT {', '.join(decisions.columns.keys())} FROM {decisions.name} WHERE run_id = %1 AND ticket IN (%2, %3) ORDER BY decided_at, id"
)
DECISION_BY_ID: Final = f"SELECT {', '.join(decisions.columns.keys())} FROM {decisions.name} WHERE id = %1"
INSERT_DECISION: Final = f"INSERT INTO {decisions.name} ({', '.join(decisions.columns.keys())}) VALUES ({places(len(decisions.columns))})"
GRANT_COLUMNS: Final = tuple(column.name for column in grants.columns)
GRANTS: Final = ", ".join(GRANT_COLUMNS)
INSERT_GRANT: Final = f"INSERT INTO {grants.name} ({GRANTS}) VALUES ({places(len(grants.columns))})"
GRANT_BY_ID: Final = f"SELECT {GRANTS} FROM {grants.name} WHERE id = %1{{lock}}"
REVOKE_GRANT: Final = f"UPDATE {grants.name} SET revoked_at = %2, details = %3 WHERE id = %1"
USE_GRANT: Final = f"UPDATE {grants.name} SET used = used + 1 WHERE id = %1"
CLOCK: Final = "SELECT {now:1}"


def allowances(run: str, tenant: str, flow: str, barrier: str, now: str) -> str:
    """What is true of a line ``a`` of ``grants`` that may decide a ticket that opens now."""
    return (
        f"a.kind = 'allowance' AND a.tenant = {tenant} AND a.barrier = {barrier} AND a.revoked_at IS NULL AND a.used < a.uses"
        f" AND a.expires_at > {now} AND (a.run_id = {run} OR (a.run_id IS NULL AND a.flow = {flow}))"
    )


ALLOWANCES: Final = (
    f"SELECT {', '.join(f'a.{name}' for name in GRANT_COLUMNS)} FROM {grants.name} a"
    f" WHERE {allowances('%1', '%2', '%3', '%4', '%5')} ORDER BY a.made_at, a.id{{lock}}"
)
"""(run_id, tenant, flow, barrier, now): allowances that may decide what opens now, the oldest first; locked, always in that order."""
DELEGATIONS: Final = (
    f"SELECT {GRANTS} FROM {grants.name} WHERE kind = 'delegation' AND tenant = %1 AND barrier = %2 AND delegate = %3 ORDER BY made_at, id"
)
RUN_REACH: Final = f"SELECT tenant, flow FROM {runs.name} WHERE run_id = %1"
_SNAPSHOT: Final = tuple(column.name for column in snapshots.columns)
PUT_SNAPSHOT: Final = (
    f"INSERT INTO {snapshots.name} ({', '.join(_SNAPSHOT)}) SELECT {places(len(_SNAPSHOT))}"
    f" WHERE EXISTS (SELECT 1 FROM {runs.name} r WHERE r.run_id = %1 AND r.epoch = %{len(_SNAPSHOT) + 1})"
    f" ON CONFLICT (run_id, seq) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _SNAPSHOT[2:])}"
)
"""The columns, then the epoch that must be current."""
PUT_GRAPH: Final = f"INSERT INTO {graphs.name} (graph_hash, definition) VALUES (%1, %2) ON CONFLICT DO NOTHING"
GRAPH: Final = f"SELECT definition FROM {graphs.name} WHERE graph_hash = %1"
EFFECTS: Final = tuple(column.name for column in effects.columns)
EFFECTS_OF: Final = f"SELECT {', '.join(EFFECTS)} FROM {effects.name} WHERE run_id = %1 ORDER BY started_at, key"
EFFECT: Final = f"SELECT {', '.join(EFFECTS)} FROM {effects.name} WHERE run_id = %1 AND key = %2"
PUT_EFFECT: Final = (
    f"INSERT INTO {effects.name} ({', '.join(EFFECTS)}) VALUES ({places(len(EFFECTS))})"
    f" ON CONFLICT (run_id, key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in EFFECTS[2:])}"
)
NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', %1)"
NOTIFY_OF_STEPS: Final = f"SELECT pg_notify('{STEPS_CHANNEL}', said) FROM unnest(%1::text[]) said"
"""PostgreSQL only."""
OWNER_OF: Final = f"SELECT owner, epoch FROM {runs.name} WHERE run_id = %1"
