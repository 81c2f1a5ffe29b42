"""The schema's revision: made where there is none, upgraded on request.

What a database says of itself is judged by `stamp`; a SQLite file that is current, or new (see `sqlite_schema`), does without this
file and the SQLAlchemy it imports.  Alembic is imported only to upgrade.  Everything here is synchronous and runs inside a
transaction that holds the schema's lock, so that two processes may open a fresh database at the same moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from checkpoint_stores.errors import SchemaVersionError
from checkpoint_stores.sql.schema import VERSION_TABLE, metadata
from checkpoint_stores.sql.stamp import ANOTHER, HEAD, STAMPED, is_current

FOLDER: Final = Path(__file__).parent / "migrations"

_LOCK: Final = 0x7472_6169_6C6D_726B
"""Names the schema's advisory lock on PostgreSQL ("trailmrk")."""

_version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))


def revision_of(connection: sa.Connection, url: str = "") -> str | None:
    """The stamped revision; "" where the stamp is empty, None where there is none at all.

    Raises SchemaVersionError where a table of somebody else stands in the stamp's place.
    """
    if connection.dialect.name == "postgresql":
        # Not to_regclass: it answers from a cache that a transaction of another process does not refresh.
        text = "SELECT 1 FROM pg_catalog.pg_class WHERE relname = :name AND relkind = 'r' AND pg_catalog.pg_table_is_visible(oid)"
        exists = connection.scalar(sa.text(text), {"name": VERSION_TABLE}) is not None
    else:
        exists = connection.scalar(sa.text("SELECT 1 FROM sqlite_master WHERE name = :name"), {"name": VERSION_TABLE}) is not None
    if not exists:
        return None
    try:
        return connection.scalar(sa.select(_version.c.version_num)) or ""
    except sa.exc.DBAPIError as error:
        if "version_num" not in str(error.orig):
            raise
        found = f"not trailmark's (its table {VERSION_TABLE!r} has no column 'version_num')"
        raise SchemaVersionError(url, found, HEAD, newer=False, remedy=ANOTHER) from error


def prepare(connection: sa.Connection, url: str, *, may_upgrade: bool) -> None:
    """Make the tables in a database that has none of them; upgrade older ones where allowed.

    Raises SchemaVersionError: the schema is newer, or older and may not be upgraded, or the tables are somebody else's.
    """
    lock(connection)
    revision = revision_of(connection, url)  # again: another process may have been faster
    if is_current(revision, url):
        return
    present = sorted(set(sa.inspect(connection).get_table_names()).intersection(metadata.tables))
    if revision == "" and present:
        found = f"unknown (its table {VERSION_TABLE!r} is empty, but there is a table {present[0]!r})"
        raise SchemaVersionError(url, found, HEAD, newer=False, remedy=f"restore it from a backup, or {ANOTHER}")
    if revision is not None:
        if not may_upgrade:
            raise SchemaVersionError(url, revision or "empty", HEAD, newer=False)
        upgrade(connection)
        return
    if present:
        found = f"not trailmark's (there is a table {present[0]!r} without a revision)"
        raise SchemaVersionError(url, found, HEAD, newer=False, remedy=ANOTHER)
    metadata.create_all(connection)
    for statement in STAMPED:
        connection.execute(sa.text(statement))


def lock(connection: sa.Connection) -> None:
    """Hold the schema's lock until the transaction ends (on SQLite the transaction itself is exclusive)."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def upgrade(connection: sa.Connection) -> None:
    """Run every migration that is missing."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
