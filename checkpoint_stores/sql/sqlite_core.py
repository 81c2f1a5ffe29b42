"""SQLAlchemy over a bare SQLite connection, for migrations.  Importing it imports SQLAlchemy."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa


def core_over(raw: sqlite3.Connection) -> sa.Connection:
    """A connection whose transactions are ours: SQLAlchemy neither begins, commits nor resets."""
    engine = sa.create_engine(
        "sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
    )
    return engine.connect()
