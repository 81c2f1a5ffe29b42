"""The stamp: the schema's revision, as the database itself says it.

Looked at by every opening; what is missing is made by `sqlite_schema` or `migrate`.  Loads no SQLAlchemy.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Final

from checkpoint_stores.errors import SchemaVersionError
from checkpoint_stores.sql.columns import VERSION_TABLE

REVISIONS: Final = ("0001", "0002", "0003")
"""All revisions, oldest first; the last is what this trailmark needs."""

HEAD: Final = REVISIONS[-1]

ANOTHER: Final = "give trailmark a database (or a file) of its own"

STAMPED: Final = (
    f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))",
    f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{HEAD}')",
)
"""What stamps a database whose tables have just been made."""


def is_stamped(raw: sqlite3.Connection) -> bool:
    """Whether a SQLite file is certainly current: one bare statement instead of SQLAlchemy's way to it, which `migrate.revision_of` goes."""
    with contextlib.suppress(sqlite3.Error):  # whatever is wrong, `revision_of` says it
        return bool(raw.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == (HEAD,))
    return False


def is_current(revision: str | None, url: str) -> bool:
    """Whether the schema is what this trailmark needs; False where it is absent or older.

    Raises SchemaVersionError where it is newer.
    """
    if revision and revision not in REVISIONS:
        # Revisions begin with a number of four digits that counts up: anything else was not written by any trailmark.
        is_ours = revision[:4].isdecimal()
        raise SchemaVersionError(url, revision if is_ours else repr(revision), HEAD, newer=is_ours, remedy="" if is_ours else ANOTHER)
    return revision == HEAD
