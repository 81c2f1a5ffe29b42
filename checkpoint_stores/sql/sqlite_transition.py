"""A commit as SQLite's statements, one after the other, inside a transaction that somebody else begins and ends.

Knows how a statement is carried out only as a function: the writer's thread does it on the bare connection, a step's own
transaction does it on that step's.
"""

from __future__ import annotations

import sqlite3

from checkpoint_stores.errors import LeaseLostError, RunMovedError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import sqlite_together, statements
from checkpoint_stores.sql.places import for_sqlite
from checkpoint_stores.sql.transitions import Transition
from checkpoint_stores.sql.wires import Execute


def append(execute: Execute, work: Transition, now: int) -> Receipt:
    """One row; LeaseLostError where it is refused."""
    try:
        inserted = execute(*for_sqlite(statements.SQLITE_APPEND, (*work.rows[0], now)))
    except sqlite3.IntegrityError:
        raise lost(execute, work) from None
    if not inserted:
        raise lost(execute, work)
    return Receipt(inserted[0][0], now)


def write(execute: Execute, work: Transition, now: int) -> Receipt:
    """All that a commit holds; LeaseLostError where any of it is refused, RunMovedError where it was to take the run."""
    commit, key = work.commit, work.key
    tenant = ""
    inbox_rev: int | None = None
    try:
        if work.taking is not None:
            taken = execute(*for_sqlite(statements.SQLITE_TAKE_UP, (key, commit.epoch, *work.taking, now)))
            if not taken:
                raise refused(execute, work)
            inbox_rev, tenant = taken[0]
        if work.change is not None and (work.taking is None or commit.change is not None):
            changed = execute(*for_sqlite(statements.SQLITE_CHANGE_RUN, (key, commit.epoch, *work.change, now)))
            if not changed:
                raise refused(execute, work)
            inbox_rev, tenant = changed[0]
        if work.rows:
            inbox_rev = _append_all(execute, work, now)
    except sqlite3.IntegrityError:
        raise refused(execute, work) from None
    for barrier in work.opened:
        execute(statements.SQLITE_OPEN_BARRIER, barrier | {"tenant": tenant, "opened_at": barrier["opened_at"] or now})
    for ticket, status in work.closed:
        execute(*for_sqlite(statements.SQLITE_SET_BARRIER, (key, ticket, status)))
    for ticket, details in work.nudged:
        execute(*for_sqlite(statements.SQLITE_NUDGE, (key, ticket, details)))
    for vote in work.voted:
        execute(statements.SQLITE_VOTE, vote | {"decided_at": vote["decided_at"] or now})
    for decision_id, seq in work.consumed:
        execute(*for_sqlite(statements.SQLITE_CONSUME, (key, decision_id, seq)))
    if inbox_rev is None:
        raise ValueError("a commit needs at least one row or a change")
    return Receipt(inbox_rev, now)


def _append_all(execute: Execute, work: Transition, now: int) -> int:
    """All rows of a commit; the inbox's revision."""
    first, *others = work.rows
    inserted = execute(*for_sqlite(statements.SQLITE_APPEND, (*first, now)))
    if not inserted or any(row[1] != first[1] + place for place, row in enumerate(others, 1)):
        raise refused(execute, work)
    # Nobody else writes before this transaction ends: what holds of the first row holds of those behind it.
    sqlite_together.follow(execute, others, now)
    inbox_rev: int = inserted[0][0]
    return inbox_rev


def refused(execute: Execute, work: Transition) -> LeaseLostError | RunMovedError:
    """Why nothing of a commit is written."""
    return lost(execute, work) if work.taking is None else RunMovedError(work.commit.run_id)


def lost(execute: Execute, work: Transition) -> LeaseLostError:
    """Who has the run instead."""
    owner, epoch = next(iter(execute(*for_sqlite(statements.OWNER_OF, (work.key,)))), (None, None))
    return LeaseLostError(work.commit.run_id, work.commit.epoch, owner=owner, current_epoch=epoch)
