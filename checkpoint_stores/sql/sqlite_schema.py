"""The tables of a new SQLite file, made without SQLAlchemy: ``sqlite_schema.sql``, which is written from `schema`.

A file in which anything of ours is found already is `migrate`'s business.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from checkpoint_stores.sql.columns import COLUMNS, VERSION_TABLE
from checkpoint_stores.sql.stamp import STAMPED

SCRIPT: Final = Path(__file__).with_suffix(".sql")

_NAMES: Final = (*COLUMNS, VERSION_TABLE)
_ANY_OF_OURS: Final = f"SELECT 1 FROM sqlite_master WHERE lower(name) IN ({', '.join('?' * len(_NAMES))})"


def is_absent(raw: sqlite3.Connection) -> bool:
    """Whether nothing in the file is called what one of our tables is called."""
    return raw.execute(_ANY_OF_OURS, _NAMES).fetchone() is None


def make(raw: sqlite3.Connection) -> None:
    """Make and stamp the tables, in a transaction that somebody else begins and ends."""
    for statement in (*SCRIPT.read_text("utf-8").split(";\n"), *STAMPED):
        raw.execute(statement)
