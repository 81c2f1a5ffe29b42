"""The listings: SQLAlchemy Core, said once for both databases.  Importing this imports SQLAlchemy.

What is asked for in the course of a run, or by a worker, is text for the bare drivers, in `statements`.  Knows no connection, and executes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sqlalchemy as sa

from checkpoint_stores.addressing import MOST_CANDIDATES
from checkpoint_stores.sql.places import POSTGRES_CLOCK
from checkpoint_stores.sql.schema import barriers, checkpoints, decisions, grants, runs, snapshots, workers


class Queries:
    """What can be asked at one moment.

    Args:
        now: the moment, microseconds; None is the database's own clock (on SQLite it is always given).
    """

    def __init__(self, now: int | None) -> None:
        self._clock: sa.ColumnElement[int] = (
            sa.literal(now, sa.BigInteger) if now is not None else sa.literal_column(POSTGRES_CLOCK, sa.BigInteger)
        )

    # --- runs -------------------------------------------------------------------------------------------------------
    def _runs(self) -> sa.Select[Any]:
        """What `statements.RUN_BY_ID` selects; see `lines.watched_run_of`."""
        owner = (workers.c.lease_expires_at, workers.c.host, workers.c.pid, workers.c.pid_started)
        joined = runs.outerjoin(workers, workers.c.worker_id == runs.c.owner)
        return sa.select(runs, *owner, self._clock.label("clock")).select_from(joined)

    def runs_between(self, least: bytes, greatest: bytes) -> sa.Select[Any]:
        return self._runs().where(runs.c.run_id.between(least, greatest)).limit(MOST_CANDIDATES)

    def runs_ending(self, tail: bytes) -> sa.Select[Any]:
        """Reads the whole table: only for what a person typed, where nothing else fits."""
        ending = sa.func.substr(runs.c.run_id, 17 - len(tail), type_=sa.LargeBinary)
        return self._runs().where(ending == tail).limit(10 * MOST_CANDIDATES)

    def runs_newest_first(
        self, *, flow: str | None, status: str | None, tenant: str, limit: int, before: tuple[int, bytes] | None
    ) -> sa.Select[Any]:
        chosen = self._runs().where(runs.c.tenant == tenant)
        if flow is not None:
            chosen = chosen.where(runs.c.flow == flow)
        if status is not None:
            chosen = chosen.where(runs.c.status == status)
        if before is not None:
            chosen = chosen.where(sa.tuple_(runs.c.created_at, runs.c.run_id) < sa.tuple_(*before))
        return chosen.order_by(runs.c.created_at.desc(), runs.c.run_id.desc()).limit(limit)

    # --- barriers and grants ----------------------------------------------------------------------------------------
    def barriers_oldest_first(self, *, status: str | None, tenant: str, limit: int) -> sa.Select[Any]:
        chosen = sa.select(barriers).where(barriers.c.tenant == tenant)
        if status is not None:
            chosen = chosen.where(barriers.c.status == status)
        return chosen.order_by(barriers.c.opened_at, barriers.c.run_id, barriers.c.ticket).limit(limit)

    def grants_oldest_first(self, *, flow: str | None, run_id: bytes | None, tenant: str, live: bool, limit: int) -> sa.Select[Any]:
        chosen = sa.select(grants).where(grants.c.tenant == tenant)
        if flow is not None:
            chosen = chosen.where(grants.c.flow == flow)
        if run_id is not None:
            chosen = chosen.where(grants.c.run_id == run_id)
        if live:
            chosen = chosen.where(
                grants.c.revoked_at.is_(None),
                sa.or_(grants.c.expires_at.is_(None), grants.c.expires_at > self._clock),
                sa.or_(grants.c.uses.is_(None), grants.c.used < grants.c.uses),
            )
        return chosen.order_by(grants.c.made_at, grants.c.id).limit(limit)

    # --- counts -----------------------------------------------------------------------------------------------------
    def runs_by_status(self) -> sa.Select[Any]:
        return sa.select(runs.c.status, sa.func.count().label("number")).group_by(runs.c.status)

    def counts(self) -> sa.Select[int, int, int, int]:
        return sa.select(
            _number(checkpoints).label("checkpoints"),
            _number(snapshots).label("snapshots"),
            _number(barriers, barriers.c.status == "open").label("barriers_open"),
            _number(decisions).label("decisions"),
        )


Question: TypeAlias = Callable[[Queries], sa.Executable]
"""Chooses one of the queries.  Whoever asks imports nothing for it: it is called where the queries are, on SQLite in the lister's thread."""


def _number(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery()
