"""The listings: texts for the bare drivers, put together from what was asked for, each with its values.

What is not asked for is not in the text, so that every listing is one range of an index.  Knows no connection, and executes nothing.
"""

from __future__ import annotations

from typing import Any, Final

from checkpoint_stores.addressing import MOST_CANDIDATES
from checkpoint_stores.sql.columns import COLUMNS
from checkpoint_stores.sql.places import Question
from checkpoint_stores.sql.statements import GRANTS, watched

_BARRIERS: Final = ", ".join(COLUMNS["barriers"])


class _Given(list[Any]):
    """The values of a statement, in the order in which they are said."""

    def __call__(self, value: object) -> str:
        """The place of one more."""
        self.append(value)
        return f"%{len(self)}"


# --- runs: each with its owner, and the clock, which is the second value; see `statements.watched` ------------------
def runs_between(least: bytes, greatest: bytes, now: int | None) -> Question:
    return watched(f"WHERE r.run_id BETWEEN %1 AND %3 LIMIT {MOST_CANDIDATES}"), (least, now, greatest)


def runs_ending(tail: bytes, now: int | None) -> Question:
    """Reads the whole table: only for what a person typed, where nothing else fits."""
    return watched(f"WHERE substr(r.run_id, {17 - len(tail)}) = %1 LIMIT {10 * MOST_CANDIDATES}"), (tail, now)


def runs_newest_first(
    *, flow: str | None, status: str | None, tenant: str, limit: int, before: tuple[int, bytes] | None, now: int | None
) -> Question:
    given = _Given([tenant, now])
    chosen = ["r.tenant = %1"]
    if flow is not None:
        chosen.append(f"r.flow = {given(flow)}")
    if status is not None:
        chosen.append(f"r.status = {given(status)}")
    if before is not None:
        chosen.append(f"(r.created_at, r.run_id) < ({given(before[0])}, {given(before[1])})")
    return watched(f"WHERE {' AND '.join(chosen)} ORDER BY r.created_at DESC, r.run_id DESC LIMIT {given(limit)}"), tuple(given)


# --- barriers and grants --------------------------------------------------------------------------------------------
def barriers_oldest_first(*, status: str | None, tenant: str, limit: int) -> Question:
    given = _Given([tenant])
    chosen = "tenant = %1" if status is None else f"tenant = %1 AND status = {given(status)}"
    return f"SELECT {_BARRIERS} FROM barriers WHERE {chosen} ORDER BY opened_at, run_id, ticket LIMIT {given(limit)}", tuple(given)


def grants_oldest_first(*, flow: str | None, run_id: bytes | None, tenant: str, live: bool, limit: int, now: int | None) -> Question:
    given = _Given([tenant])
    chosen = ["tenant = %1"]
    if flow is not None:
        chosen.append(f"flow = {given(flow)}")
    if run_id is not None:
        chosen.append(f"run_id = {given(run_id)}")
    if live:
        chosen.append("revoked_at IS NULL AND (uses IS NULL OR used < uses)")
        given(now)
        chosen.append(f"(expires_at IS NULL OR expires_at > {{now:{len(given)}}})")
    return f"SELECT {GRANTS} FROM grants WHERE {' AND '.join(chosen)} ORDER BY made_at, id LIMIT {given(limit)}", tuple(given)


# --- counts ---------------------------------------------------------------------------------------------------------
RUNS_BY_STATUS: Question = ("SELECT status, count(*) FROM runs GROUP BY status", ())

COUNTED: Final = ("checkpoints", "snapshots", "barriers_open", "decisions")

_NUMBERS: Final = (
    "count(*) FROM checkpoints",
    "count(*) FROM snapshots",
    "count(*) FROM barriers WHERE status = 'open'",
    "count(*) FROM decisions",
)

COUNTS: Question = (f"SELECT {', '.join(f'(SELECT {number})' for number in _NUMBERS)}", ())
"""What `COUNTED` names."""
