"""Every statement of the SQL store that is text for the bare drivers: functions and texts, no connection, no execution.

All that a run takes while it is driven, decided and resumed is here, and what a worker asks: SQLAlchemy's execution would cost more
than the commit itself, and importing it as much as a first run.  Listings are put together in `listings`.  What tables and columns are called is read from
`columns`; how the places ``%1``, ``%2`` ... are said to each driver is the business of `checkpoint_stores.sql.places`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Final

from checkpoint_stores.records import DRIVEN, ENDED, UNDRIVEN
from checkpoint_stores.sql.columns import COLUMNS
from checkpoint_stores.sql.places import Question, places

CHANNEL: Final = "trailmark_runs"
"""Where PostgreSQL tells that a run changed; the payload is the run id in hexadecimal."""
STEPS_CHANNEL: Final = "trailmark_steps"
"""Who follows a run's steps rings for it here, and whoever drives it tells of them."""

NEWEST: Final = 2**31 - 1
"""A seq no run reaches: all of a run."""
ROW_COLUMNS: Final = COLUMNS["checkpoints"]
ROWS: Final = ", ".join(ROW_COLUMNS)


# --- runs -----------------------------------------------------------------------------------------------------------
RUN_COLUMNS: Final = COLUMNS["runs"]
OWNER_COLUMNS: Final = ("lease_expires_at", "host", "pid", "pid_started")

_WATCHED: Final = (
    f"SELECT {', '.join(f'r.{name}' for name in RUN_COLUMNS)}, {', '.join(f'w.{name}' for name in OWNER_COLUMNS)}, {{now:2}}"
    " FROM runs r LEFT JOIN workers w ON w.worker_id = r.owner"
)


def watched(which: str) -> str:
    """Lines of ``runs``, each with its owner's line of ``workers`` and the clock (the second value), all from one moment; see
    `lines.watched_run_of`."""
    return f"{_WATCHED} {which}"


RUN_BY_ID: Final = watched("WHERE r.run_id = %1")
"""(run_id, now): a run and its owner; asked for with every taking."""

RUN_BY_KEY: Final = watched("WHERE r.tenant = %1 AND r.flow = %3 AND r.run_key = %4")
"""(tenant, now, flow, run_key): the same of the run of that name."""

# --- what is due ----------------------------------------------------------------------------------------------------
_IDLE: Final = ", ".join(repr(status) for status in ("waiting", *sorted(UNDRIVEN)))


@cache
def runs_due(flows: int, aside: int) -> str:
    """Runs that nobody owns and whose time has come, the oldest time first: (limit, now, *flows, *aside), so many of these."""
    # As a subquery the clock is asked once; PostgreSQL would ask it for each line, and could use no index.
    idle = f"r.wake_at <= (SELECT {{now:2}}) AND r.owner IS NULL AND r.status IN ({_IDLE})"
    return watched(f"WHERE {idle}{_wanted(3, flows, aside)} ORDER BY r.wake_at LIMIT %1")


@cache
def runs_of_owners(owners: int, flows: int, aside: int) -> str:
    """Runs that name one of these owners: (limit, now, *owners, *flows, *aside), so many of these."""
    return watched(f"WHERE r.owner IN {_among(3, owners)}{_wanted(3 + owners, flows, aside)} LIMIT %1")


def _wanted(first: int, flows: int, aside: int) -> str:
    """Only runs of these flows (none: of all), without those put aside."""
    chosen = f" AND r.flow IN {_among(first, flows)}" if flows else ""
    return f"{chosen} AND r.run_id NOT IN {_among(first + flows, aside)}" if aside else chosen


def _among(first: int, number: int) -> str:
    return f"({', '.join(f'%{place}' for place in range(first, first + number))})"


PERHAPS_GONE: Final = (
    "SELECT worker_id, host, pid, pid_started, lease_expires_at, {now:3} FROM workers"
    " WHERE worker_id != %1 AND (lease_expires_at <= (SELECT {now:3}) OR host = %2)"
)
"""(worker_id, host, now): other processes whose lease is over, or that ran on this machine (whether they still do, the machine knows)."""

NEXT_DUE: Final = (
    "WITH moment AS (SELECT {now:3} AS clock) SELECT min(due) FROM ("
    "SELECT (SELECT min(wake_at) FROM runs WHERE wake_at > (SELECT clock FROM moment)) AS due"
    " UNION ALL SELECT (SELECT min(lease_expires_at) FROM workers WHERE lease_expires_at > (SELECT clock FROM moment) AND worker_id != %1)"
    " UNION ALL SELECT clock + %2 FROM moment) known"
)
"""(worker_id, lease, now): the next time at which something becomes due; one lease from now where nothing is known."""

DUE_MARK: Final = (
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM runs WHERE wake_at <= %1 LIMIT %2)),"
    " (SELECT max(wake_at) FROM runs WHERE wake_at <= %1), (SELECT min(wake_at) FROM runs WHERE wake_at > %1)"
)
"""What a watcher of all runs compares at a moment: how many are due (%2 at most), the newest of them, and the next one to be."""


def inbox_states_text(number: int) -> str:
    """What a watcher compares, for the bare sqlite3 driver: where it differs, a watch must wake."""
    return f"SELECT run_id, inbox_rev, status FROM runs WHERE run_id IN ({', '.join('?' * number)})"


def heads_text(number: int) -> str:
    """The newest checkpoint of each run, for the bare sqlite3 driver."""
    newest = "SELECT max(c.seq) FROM checkpoints c WHERE c.run_id = r.run_id"
    return f"SELECT r.run_id, ({newest}) FROM runs r WHERE r.run_id IN ({', '.join('?' * number)})"


# --- the append path: text for the bare drivers ---------------------------------------------------------------------
# A commit extends the head: its first row's predecessor is there (or was pruned into a snapshot).  Without this, a
# commit that was queued behind a refused one would leave a hole.
def extends_head(run_id: str, seq: str) -> str:
    return (
        f"(EXISTS (SELECT 1 FROM checkpoints p WHERE p.run_id = {run_id} AND p.seq = {seq} - 1)"
        f" OR EXISTS (SELECT 1 FROM snapshots p WHERE p.run_id = {run_id} AND p.seq = {seq} - 1))"
    )


def still_free(run: str, epoch: str, inbox_rev: str, behind: str) -> str:
    """Whether nobody owns the run of the line ``run`` or has written to it since it was read, beside its rows; ``epoch`` is the one it
    is to be taken under, ``behind`` the digest of its head as it was read (null: any)."""
    ended = ", ".join(repr(status) for status in sorted(ENDED))
    return (
        f"{run}.epoch = {epoch} - 1 AND {run}.owner IS NULL AND {run}.inbox_rev = {inbox_rev} AND {run}.status NOT IN ({ended})"
        f" AND {run}.head_digest = coalesce({behind}, {run}.head_digest)"
    )


def in_time(release_at_rev: str, inbox_rev: str) -> str:
    return f"({release_at_rev} IS NULL OR {release_at_rev} = {inbox_rev})"


def newest_row(column: str, run_id: str, status: str, gives_back: str) -> str:
    """The anchor of a transition that brings no row of its own (its rows' last one was given otherwise)."""
    newest = f"SELECT k.{column} FROM checkpoints k WHERE k.run_id = {run_id} ORDER BY k.seq DESC LIMIT 1"
    return f"CASE WHEN {status} IS NOT NULL OR {gives_back} THEN ({newest}) END"


SQLITE_APPEND: Final = (
    f"INSERT INTO checkpoints ({ROWS})"
    f" SELECT {places(len(ROW_COLUMNS))}"
    f" FROM runs r WHERE r.run_id = %1 AND r.epoch = %3 AND {extends_head('%1', '%2')}"
    " RETURNING (SELECT r.inbox_rev FROM runs r WHERE r.run_id = %1)"
)
"""One row; parameters are its columns in order.  Returns inbox_rev, or no line where the lease is lost."""

# --- what many runs want at once, on SQLite ---------------------------------------------------------------------------
# Made for up to so many lines; a line whose run is null is none.  No such statement returns lines but `sqlite_told`, and that one returns
# one: the driver gives up Python's lock before each, and gets it back behind a loop that is busy.

EFFECTS: Final = COLUMNS["effects"]

MOST_TOGETHER: Final = 256
"""How many lines a statement is made for at the most: what is prepared for them takes 2.5 KB a line, of each such text."""


def room_for(number: int) -> int:
    """For how many lines the statement is made that takes ``number`` of them: few different texts, so that each stays prepared.

    >>> room_for(1), room_for(5), room_for(70), room_for(256)
    (1, 8, 128, 256)
    """
    return 1 << (number - 1).bit_length()


@cache
def sqlite_append_many(number: int) -> str:
    """One row of each run; parameters are the rows' columns but the last, row after row, and that one once, behind them.

    Nothing is written of a run whose lease is lost, or whose row does not follow.
    """
    return (
        f"INSERT INTO checkpoints ({ROWS}) {_given(number, *ROW_COLUMNS[:-1])} SELECT given.*, ? FROM given CROSS JOIN runs r"
        f" WHERE r.run_id = given.run_id AND r.epoch = given.epoch AND {extends_head('given.run_id', 'given.seq')}"
    )


@cache
def sqlite_insert_many(number: int) -> str:
    """Rows behind one that was appended in the same transaction, of the same run; parameters as those of `sqlite_append_many`."""
    given = _given(number, *ROW_COLUMNS[:-1])
    return f"INSERT INTO checkpoints ({ROWS}) {given} SELECT given.*, ? FROM given WHERE given.run_id IS NOT NULL"


@cache
def sqlite_create_many(number: int) -> str:
    """Runs, but those whose id or run_key is taken; parameters are the columns of a new run, run after run, and when it is, twice."""
    new = RUN_COLUMNS[: -len(TIMES)]
    return (
        f"INSERT INTO runs ({RUN}) {_given(number, *new)} SELECT given.*, ?, ? FROM given WHERE given.run_id IS NOT NULL"
        " ON CONFLICT DO NOTHING"
    )


@cache
def sqlite_first_rows(number: int) -> str:
    """The first row of each run that has just been created; parameters as those of `sqlite_append_many`."""
    return (
        f"INSERT INTO checkpoints ({ROWS}) {_given(number, *ROW_COLUMNS[:-1])} SELECT given.*, ? FROM given CROSS JOIN runs r"
        " WHERE r.run_id = given.run_id AND r.head_digest = given.digest"
    )


@cache
def sqlite_change_many(number: int) -> str:
    """What becomes of runs that bring a row of their own; parameters are those of `SQLITE_CHANGE_RUN`, run after run, when it is once."""
    return f"{_given(number, *_CHANGED)} UPDATE runs SET {_change_of_run('?', **_CHANGE_GIVEN)} FROM given WHERE runs.run_id = given.run_id AND runs.epoch = given.epoch"


@cache
def sqlite_take_many(number: int) -> str:
    """Runs that are taken as they were read; parameters are those of `SQLITE_TAKE_UP`, run after run, when it is once."""
    return f"{_given(number, *_TAKEN)} UPDATE runs SET {_taken_up('?', **_TAKE_GIVEN)} FROM given WHERE runs.run_id = given.run_id AND {_TAKE_FREE}"


@cache
def sqlite_close_many(number: int) -> str:
    """What becomes of tickets; parameters are (run_id, ticket, status), ticket after ticket."""
    return _set_many(number, "barriers", "ticket", "status")


@cache
def sqlite_vote_many(number: int) -> str:
    """Decisions; parameters are their columns, decision after decision."""
    given = _given(number, *DECISIONS)
    return f"INSERT INTO decisions ({', '.join(DECISIONS)}) {given} SELECT given.* FROM given WHERE given.run_id IS NOT NULL"


@cache
def sqlite_consume_many(number: int) -> str:
    """Which checkpoints use decisions; parameters are (run_id, id, seq), decision after decision."""
    return _set_many(number, "decisions", "id", "consumed_seq")


@cache
def sqlite_start_effects(number: int) -> str:
    """Side effects begun for the first time, by whoever still holds their runs; parameters are the columns of ``effects``, effect after
    effect, and when it is once."""
    given = ["?" if name == "started_at" else f"given.{name}" for name in EFFECTS]
    return (
        f"INSERT INTO effects ({', '.join(EFFECTS)}) {_given(number, *EFFECTS)} SELECT {', '.join(given)} FROM given CROSS JOIN runs r"
        " WHERE r.run_id = given.run_id AND r.epoch = given.epoch ON CONFLICT DO NOTHING"
    )


@cache
def sqlite_end_effects(number: int) -> str:
    """What became of side effects that waited for it, as `effects.end` says; parameters are the columns of ``effects``, the epoch that
    must be current and the details as they must be, effect after effect, and when it is once."""
    return (
        f"{_given(number, *EFFECTS, 'lease', 'held')} UPDATE effects SET status = given.status, ended_at = ?, details = given.details,"
        " outcome = given.outcome FROM given CROSS JOIN runs r WHERE r.run_id = given.run_id AND r.epoch = given.lease"
        " AND effects.run_id = given.run_id AND effects.key = given.key AND effects.begun = given.begun AND effects.epoch = given.epoch"
        " AND effects.started_at = given.started_at AND effects.details = given.held AND effects.status IN ('started', 'in_doubt')"
    )


def _set_many(number: int, table: str, key: str, column: str) -> str:
    return (
        f"{_given(number, 'run_id', key, column)} UPDATE {table} SET {column} = given.{column} FROM given"
        f" WHERE {table}.run_id = given.run_id AND {table}.{key} = given.{key}"
    )


@cache
def sqlite_told(number: int) -> str:
    """How many rows the statement before has written, and the inbox_rev of each run in the order given, comma-separated."""
    return (
        f"{_given(number, 'run_id')} SELECT changes(), group_concat(coalesce(r.inbox_rev, ''))"
        " FROM given LEFT JOIN runs r ON r.run_id = given.run_id"
    )


def _given(number: int, *columns: str) -> str:
    line = f"({', '.join('?' * len(columns))})"
    return f"WITH given ({', '.join(columns)}) AS (VALUES {', '.join([line] * number)})"


SQLITE_IS_IN: Final = (
    "SELECT 1 FROM checkpoints c JOIN runs r ON r.run_id = c.run_id AND r.epoch = c.epoch"
    " WHERE c.run_id = %1 AND c.seq = %2 AND c.digest = %3"
)
"""Whether a row is in, is this very one, and its writer has the run: the same may have been written before, by who has lost it since."""


def _change_of_run(
    now: str, *, status: str, wake_at: str, clears: str, error: str, gives_back: str, seq: str, digest: str, at_rev: str
) -> str:
    return (
        f"status = CASE WHEN {in_time(at_rev, 'runs.inbox_rev')} THEN coalesce({status}, runs.status) ELSE runs.status END,"
        f" wake_at = CASE WHEN NOT {in_time(at_rev, 'runs.inbox_rev')} THEN runs.wake_at WHEN {clears} THEN NULL"
        f" ELSE coalesce({wake_at}, runs.wake_at) END, error = coalesce({error}, runs.error),"
        f" owner = CASE WHEN {gives_back} AND {in_time(at_rev, 'runs.inbox_rev')} THEN NULL ELSE runs.owner END,"
        f" head_seq = coalesce({seq}, runs.head_seq), head_digest = coalesce({digest}, runs.head_digest), updated_at = {now}"
    )


_CHANGED: Final = ("run_id", "epoch", "status", "wake_at", "clears", "error", "gives_back", "seq", "digest", "at_rev")
_CHANGE_GIVEN: Final = {name: f"given.{name}" for name in _CHANGED[2:]}
_CHANGE_ALONE: Final = {name: f"%{place}" for place, name in enumerate(_CHANGED[2:], 3)} | {
    # Where it brings no row of its own (its rows' last one was given otherwise).
    anchor: f"%{place}, {newest_row(anchor, '%1', '%3', '%7')}"
    for place, anchor in ((8, "seq"), (9, "digest"))
}
SQLITE_CHANGE_RUN: Final = (
    f"UPDATE runs SET {_change_of_run('%11', **_CHANGE_ALONE)} WHERE run_id = %1 AND epoch = %2 RETURNING inbox_rev, tenant"
)
"""(run_id, epoch, what is left of a `Transition`'s change, now).  Returns (inbox_rev, tenant), or no line where the lease is lost."""


def _taken_up(now: str, *, epoch: str, owner: str, max_steps: str, seq: str, digest: str, said: str) -> str:
    return (
        f"epoch = {epoch}, attempt = runs.attempt + 1, status = 'running', owner = {owner}, wake_at = NULL,"
        f" max_steps = coalesce({max_steps}, runs.max_steps), head_seq = {seq}, head_digest = {digest},"
        f" inbox_rev = runs.inbox_rev + {said}, updated_at = {now}"
    )


_TAKEN: Final = ("run_id", "epoch", "owner", "inbox_rev", "max_steps", "seq", "digest", "said", "behind")
_TAKE_SAYS: Final = ("epoch", "owner", "max_steps", "seq", "digest", "said")
_TAKE_GIVEN: Final = {name: f"given.{name}" for name in _TAKE_SAYS}
_TAKE_FREE: Final = still_free("runs", "given.epoch", "given.inbox_rev", "given.behind")
_TAKE_ALONE: Final = {name: f"%{place}" for place, name in enumerate(_TAKEN, 1) if name in _TAKE_SAYS}
SQLITE_TAKE_UP: Final = (
    f"UPDATE runs SET {_taken_up('%10', **_TAKE_ALONE)} WHERE run_id = %1 AND {still_free('runs', '%2', '%4', '%9')}"
    " RETURNING inbox_rev, tenant"
)
"""(run_id, epoch, owner, inbox_rev, max_steps, head_seq, head_digest, said, behind, now).  No line where the run is not as it was read."""
BARRIERS: Final = COLUMNS["barriers"]
DECISIONS: Final = COLUMNS["decisions"]
BARRIER_AGAIN: Final = ", ".join(f"{name} = excluded.{name}" for name in BARRIERS if name not in ("run_id", "ticket"))
SQLITE_OPEN_BARRIER: Final = (
    f"INSERT INTO barriers ({', '.join(BARRIERS)}) VALUES ({', '.join(f':{name}' for name in BARRIERS)})"
    f" ON CONFLICT (run_id, ticket) DO UPDATE SET {BARRIER_AGAIN}"
)
SQLITE_SET_BARRIER: Final = "UPDATE barriers SET status = %3 WHERE run_id = %1 AND ticket = %2"
SQLITE_CONSUME: Final = "UPDATE decisions SET consumed_seq = %3 WHERE run_id = %1 AND id = %2"
SQLITE_NUDGE: Final = "UPDATE barriers SET details = %3 WHERE run_id = %1 AND ticket = %2"
SQLITE_VOTE: Final = f"INSERT INTO decisions ({', '.join(DECISIONS)}) VALUES ({', '.join(f':{name}' for name in DECISIONS)})"

_ROWS_READ: Final = ", ".join(ROW_COLUMNS[1:])
"""Who reads rows knows whose they are."""
LOAD_ROWS: Final = f"SELECT {_ROWS_READ} FROM checkpoints WHERE run_id = %1 AND seq >= %2 AND seq <= %3 ORDER BY seq LIMIT %4"
LOAD_SNAPSHOTS: Final = "SELECT seq, digest, seal, payload FROM snapshots WHERE run_id = %1 AND seq <= %2 ORDER BY seq"
LOAD_NEWEST_SNAPSHOT: Final = f"{LOAD_SNAPSHOTS} DESC LIMIT 1"
LOAD_ROWS_UPTO: Final = f"SELECT {_ROWS_READ} FROM checkpoints WHERE run_id = %1 AND seq <= %2 ORDER BY seq"
LOAD_ROWS_FROM_SNAPSHOT: Final = (
    f"SELECT {_ROWS_READ} FROM checkpoints c WHERE run_id = %1 AND seq <= %2 AND seq >="
    " coalesce((SELECT max(s.seq) FROM snapshots s WHERE s.run_id = %1 AND s.seq <= %2), 0) ORDER BY seq"
)
LOAD_ANCHOR: Final = "SELECT genesis, parent_run_id, head_seq, head_digest FROM runs WHERE run_id = %1"


def newest_part(key: bytes, last: int) -> list[Question]:
    """What tells of a run up to ``last`` from its newest snapshot on: the anchor, the snapshot, the rows; see `lines.stored_of`."""
    return [(LOAD_ANCHOR, (key,)), (LOAD_NEWEST_SNAPSHOT, (key, last)), (LOAD_ROWS_FROM_SNAPSHOT, (key, last))]


def whole_part(key: bytes, last: int) -> list[Question]:
    """All that tells of a run up to ``last``."""
    return [(LOAD_ANCHOR, (key,)), (LOAD_SNAPSHOTS, (key, last)), (LOAD_ROWS_UPTO, (key, last))]


# What outsiders left for a run: the revision first, since on PostgreSQL each statement sees its own moment.
INBOX_REVISION: Final = "SELECT inbox_rev, cancel FROM runs WHERE run_id = %1"
LIVE_BARRIERS: Final = (
    f"SELECT {', '.join(BARRIERS)} FROM barriers WHERE run_id = %1 AND status IN ('open', 'decided') ORDER BY opened_at, ticket"
)
PENDING_DECISIONS: Final = (
    f"SELECT {', '.join(DECISIONS)} FROM decisions WHERE run_id = %1 AND consumed_seq IS NULL ORDER BY decided_at, id"
)


def standing(key: bytes, now: int | None) -> list[Question]:
    """All that tells how a run stands: its line with its owner's, its newest snapshot, the rows from there on, its inbox."""
    _, *stored = newest_part(key, NEWEST)
    return [(RUN_BY_ID, (key, now)), *stored, (LIVE_BARRIERS, (key,)), (PENDING_DECISIONS, (key,))]


SQLITE_SIZE: Final = "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()"
TABLES: Final = tuple(COLUMNS)
POSTGRES_SIZE: Final = "SELECT " + " + ".join(f"pg_total_relation_size('{table}')" for table in TABLES) + " AS bytes"

# --- what transactions say, as text for the bare drivers ------------------------------------------------------------
RUN: Final = ", ".join(RUN_COLUMNS)
TIMES: Final = ("created_at", "updated_at")

LOCK_RUN: Final = f"SELECT {RUN}, {{now:2}} FROM runs WHERE run_id = %1{{lock}}"
"""(run_id, now): the run's line, locked until the transaction ends, and the clock."""
BEAT: Final = (
    "INSERT INTO workers (worker_id, host, pid, pid_started, started_at, lease_expires_at)"
    " VALUES (%1, %2, %3, %4, {now:5}, {now:5} + %6)"
    " ON CONFLICT (worker_id) DO UPDATE SET lease_expires_at = excluded.lease_expires_at RETURNING lease_expires_at"
)
"""Registers a process, or extends its lease by %6 microseconds; returns until when."""
WORKER: Final = "SELECT lease_expires_at, host, pid, pid_started FROM workers WHERE worker_id = %1"
HEAD: Final = "SELECT seq, digest, step FROM checkpoints WHERE run_id = %1 ORDER BY seq DESC LIMIT 1"
ROW_DIGEST: Final = "SELECT digest FROM checkpoints WHERE run_id = %1 AND seq = %2"
INSERT_ROW: Final = f"INSERT INTO checkpoints ({ROWS}) VALUES ({places(len(ROW_COLUMNS) - 1)}, {{now:{len(ROW_COLUMNS)}}})"
NAME_TAKEN: Final = "SELECT run_id FROM runs WHERE run_id = %1 OR (tenant = %2 AND flow = %3 AND run_key = %4) LIMIT 1"
NEW_RUN_WIDTH: Final = len(RUN_COLUMNS) - len(TIMES)
"""The times of a run are its last columns; a new run gives all before them."""
_NOW_OF_NEW: Final = f"{{now:{NEW_RUN_WIDTH + 1}}}"
INSERT_RUN: Final = (
    f"INSERT INTO runs ({RUN}) SELECT {places(NEW_RUN_WIDTH)}, moment, moment FROM (SELECT {_NOW_OF_NEW} AS moment) m"
    f" WHERE true ON CONFLICT DO NOTHING RETURNING {TIMES[0]}"
)
"""Returns created_at, or no line where the run's id or its run_key is taken."""
GIVE_KEY_UP: Final = (
    f"UPDATE runs SET run_key = NULL, updated_at = {{now:3}}"
    f" WHERE run_id = %1 AND run_key = %2 AND status IN ({', '.join(repr(status) for status in sorted(ENDED))})"
)
TAKE_RUN: Final = (
    "UPDATE runs SET epoch = epoch + 1, attempt = attempt + 1, status = 'running', owner = %2, wake_at = NULL,"
    " max_steps = coalesce(%3, max_steps), graph_hash = coalesce(%4, graph_hash), head_seq = %5, head_digest = %6,"
    f" updated_at = {{now:7}} WHERE run_id = %1 RETURNING {RUN}"
)
_DRIVEN: Final = ", ".join(repr(status) for status in sorted(DRIVEN))
WHOLE_RUN: Final = f"SELECT {RUN} FROM runs WHERE run_id = %1"
GRAPH_OF_RUN: Final = "SELECT g.definition FROM graphs g JOIN runs r ON r.graph_hash = g.graph_hash WHERE r.run_id = %1"
ALL_BARRIERS: Final = f"SELECT {', '.join(BARRIERS)} FROM barriers WHERE run_id = %1 ORDER BY opened_seq, ticket"
ALL_DECISIONS: Final = f"SELECT {', '.join(DECISIONS)} FROM decisions WHERE run_id = %1 ORDER BY decided_at, id"
ADMIT_RUN: Final = f"INSERT INTO runs ({RUN}) VALUES ({places(len(RUN_COLUMNS))})"
ADMIT_ROW: Final = f"INSERT INTO checkpoints ({ROWS}) VALUES ({places(len(ROW_COLUMNS))})"
DELETE_RUN: Final = tuple(f"DELETE FROM {table} WHERE run_id = %1" for table, columns in reversed(COLUMNS.items()) if "run_id" in columns)
"""One after another, the run's own line last."""
DROP_ROWS: Final = "DELETE FROM checkpoints WHERE run_id = %1 AND seq <= %2 RETURNING seq"
DROP_SNAPSHOTS: Final = "DELETE FROM snapshots WHERE run_id = %1 AND seq < %2"
AMEND_RUN: Final = (
    f"UPDATE runs SET epoch = %2, owner = NULL, head_seq = %3, head_digest = %4, updated_at = {{now:5}},"
    f" status = CASE WHEN status IN ({_DRIVEN}) THEN 'ready' ELSE status END,"
    f" wake_at = CASE WHEN status IN ({_DRIVEN}) THEN {{now:5}} ELSE wake_at END WHERE run_id = %1"
)
REWORD_BARRIER: Final = "UPDATE barriers SET digest = %3, details = %4 WHERE run_id = %1 AND ticket = %2"
BUMP_INBOX: Final = (
    "UPDATE runs SET inbox_rev = inbox_rev + 1, updated_at = %2, cancel = coalesce(%3, cancel),"
    f" wake_at = CASE WHEN %4 AND status = 'waiting' THEN %2 ELSE wake_at END WHERE run_id = %1 RETURNING {RUN}"
)
GIVE_BACK: Final = (
    "UPDATE runs SET owner = NULL,"
    " head_seq = coalesce((SELECT k.seq FROM checkpoints k WHERE k.run_id = %1 ORDER BY k.seq DESC LIMIT 1), head_seq),"
    " head_digest = coalesce((SELECT k.digest FROM checkpoints k WHERE k.run_id = %1 ORDER BY k.seq DESC LIMIT 1), head_digest),"
    f" status = CASE WHEN status IN ({_DRIVEN}) THEN 'ready' ELSE status END,"
    f" wake_at = CASE WHEN status IN ({_DRIVEN}) THEN {{now:4}} ELSE wake_at END, updated_at = {{now:4}}"
    " WHERE run_id = %1 AND epoch = %2 AND owner = %3 RETURNING run_id"
)
"""(run_id, epoch, owner, now).  No line where the lease is lost."""
OWNED_BY: Final = "SELECT run_id, epoch FROM runs WHERE owner = %1"
FORGET_WORKER: Final = "DELETE FROM workers WHERE worker_id = %1"
FORGET_GONE_WORKERS: Final = (
    "DELETE FROM workers WHERE lease_expires_at < %1 AND worker_id != %2"
    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.owner = workers.worker_id)"
)
"""(before, worker_id): processes but one whose lease was over long ago and that own nothing any more."""
INSERT_BARRIER: Final = f"INSERT INTO barriers ({', '.join(BARRIERS)}) VALUES ({places(len(BARRIERS))})"
BARRIERS_OF_RUN: Final = (
    f"SELECT {', '.join(BARRIERS)} FROM barriers WHERE run_id = %1 AND status = coalesce(%2, status)"
    " ORDER BY opened_at, run_id, ticket LIMIT %3"
)
"""(run_id, status or None for any, limit)."""
BARRIERS_OF_NODE: Final = f"SELECT {', '.join(BARRIERS)} FROM barriers WHERE run_id = %1 AND (node = %2 OR ticket = %3)"
CHANGE_GRAPH: Final = "UPDATE runs SET graph_hash = %2, head_seq = %3, head_digest = %4, updated_at = %5 WHERE run_id = %1"
MOVE_BARRIER: Final = "UPDATE barriers SET ticket = %3, node = %4, path = %5 WHERE run_id = %1 AND ticket = %2"
MOVE_VOTE: Final = "UPDATE decisions SET ticket = %3 WHERE run_id = %1 AND id = %2"
SET_BARRIER: Final = "UPDATE barriers SET status = %3 WHERE run_id = %1 AND ticket = %2"
VOTES: Final = f"SELECT {', '.join(DECISIONS)} FROM decisions WHERE run_id = %1 AND ticket IN (%2, %3) ORDER BY decided_at, id"
DECISION_BY_ID: Final = f"SELECT {', '.join(DECISIONS)} FROM decisions WHERE id = %1"
INSERT_DECISION: Final = f"INSERT INTO decisions ({', '.join(DECISIONS)}) VALUES ({places(len(DECISIONS))})"
GRANT_COLUMNS: Final = COLUMNS["grants"]
GRANTS: Final = ", ".join(GRANT_COLUMNS)
INSERT_GRANT: Final = f"INSERT INTO grants ({GRANTS}) VALUES ({places(len(GRANT_COLUMNS))})"
GRANT_BY_ID: Final = f"SELECT {GRANTS} FROM grants WHERE id = %1{{lock}}"
REVOKE_GRANT: Final = "UPDATE grants SET revoked_at = %2, details = %3 WHERE id = %1"
USE_GRANT: Final = "UPDATE grants SET used = used + 1 WHERE id = %1"
CLOCK: Final = "SELECT {now:1}"


def allowances(run: str, tenant: str, flow: str, barrier: str, now: str) -> str:
    """What is true of a line ``a`` of ``grants`` that may decide a ticket that opens now."""
    return (
        f"a.kind = 'allowance' AND a.tenant = {tenant} AND a.barrier = {barrier} AND a.revoked_at IS NULL AND a.used < a.uses"
        f" AND a.expires_at > {now} AND (a.run_id = {run} OR (a.run_id IS NULL AND a.flow = {flow}))"
    )


ALLOWANCES: Final = (
    f"SELECT {', '.join(f'a.{name}' for name in GRANT_COLUMNS)} FROM grants a"
    f" WHERE {allowances('%1', '%2', '%3', '%4', '%5')} ORDER BY a.made_at, a.id{{lock}}"
)
"""(run_id, tenant, flow, barrier, now): allowances that may decide what opens now, the oldest first; locked, always in that order."""
DELEGATIONS: Final = (
    f"SELECT {GRANTS} FROM grants WHERE kind = 'delegation' AND tenant = %1 AND barrier = %2 AND delegate = %3 ORDER BY made_at, id"
)
RUN_REACH: Final = "SELECT tenant, flow FROM runs WHERE run_id = %1"
_SNAPSHOT: Final = COLUMNS["snapshots"]
PUT_SNAPSHOT: Final = (
    f"INSERT INTO snapshots ({', '.join(_SNAPSHOT)}) SELECT {places(len(_SNAPSHOT))}"
    f" WHERE EXISTS (SELECT 1 FROM runs r WHERE r.run_id = %1 AND r.epoch = %{len(_SNAPSHOT) + 1})"
    f" ON CONFLICT (run_id, seq) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _SNAPSHOT[2:])}"
)
"""The columns, then the epoch that must be current."""
PUT_GRAPH: Final = "INSERT INTO graphs (graph_hash, definition) VALUES (%1, %2) ON CONFLICT DO NOTHING"
GRAPH: Final = "SELECT definition FROM graphs WHERE graph_hash = %1"
GRAPHS_NAMING: Final = "SELECT definition FROM graphs WHERE definition LIKE %1 ESCAPE '/'"


def naming(flow: str) -> str:
    """What definitions are like in which the flow is named: its own, and those it is a branch of.

    >>> naming("50%_off")
    '%"flow": "50/%/_off"%'
    """
    named = f'"flow": {json.dumps(flow, ensure_ascii=False)}'
    return f"%{re.sub('[/%_]', lambda found: f'/{found[0]}', named)}%"


EFFECTS_OF: Final = f"SELECT {', '.join(EFFECTS)} FROM effects WHERE run_id = %1 ORDER BY started_at, key"
EFFECT: Final = f"SELECT {', '.join(EFFECTS)} FROM effects WHERE run_id = %1 AND key = %2"
PUT_EFFECT: Final = (
    f"INSERT INTO effects ({', '.join(EFFECTS)}) VALUES ({places(len(EFFECTS))})"
    f" ON CONFLICT (run_id, key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in EFFECTS[2:])}"
)
NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', %1)"
NOTIFY_OF_STEPS: Final = f"SELECT pg_notify('{STEPS_CHANNEL}', said) FROM unnest(%1::text[]) said"
"""PostgreSQL only."""
OWNER_OF: Final = "SELECT owner, epoch FROM runs WHERE run_id = %1"
