"""Writes what is known of the tables without SQLAlchemy, from `checkpoint_stores.sql.schema` (``make docs``); a test says when it is out of date.

Two files: what tables and columns are called, for statements that are text, and how SQLite is told to make them.
"""

# ruff: noqa: INP001 - a script, not a module of a package

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from checkpoint_stores.sql.schema import VERSION_TABLE, metadata

SQL = Path(__file__).resolve().parent.parent / "checkpoint_stores" / "sql"

COLUMNS = '''\
"""What the tables and their columns are called, in order, for statements that are text.  Knows no type, and no SQLAlchemy.

Written by docs/build_schema.py (`make docs`) from `checkpoint_stores.sql.schema`, where the tables are defined; changes here are
lost, and a test says when the two differ.
"""

from __future__ import annotations

from typing import Final

VERSION_TABLE: Final = "{version_table}"
"""Where the schema's revision is stamped."""

COLUMNS: Final = {{
{tables}
}}
"""The columns of each table; a table comes behind those it refers to."""
'''

SQLITE = """\
-- The tables and indexes of a new SQLite file, so that making one takes no SQLAlchemy: what it would say, statement by statement.
-- Written by docs/build_schema.py (`make docs`) from schema.py, where they are defined; changes here are lost, and a test says when
-- the two differ.
"""


def columns() -> str:
    """The text of ``columns.py``."""
    tables = [
        f'    "{table.name}": (\n' + "".join(f'        "{column.name}",\n' for column in table.columns) + "    ),"
        for table in metadata.sorted_tables
    ]
    return COLUMNS.format(version_table=VERSION_TABLE, tables="\n".join(tables))


def statements() -> list[str]:
    """What makes the tables in a SQLite file, one statement each."""
    made: list[str] = []
    for table in metadata.sorted_tables:
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        parts: list[sa.schema.ExecutableDDLElement] = [CreateTable(table), *map(CreateIndex, indexes)]
        made += [str(part.compile(dialect=sqlite.dialect())).strip() for part in parts]
    return made


def sqlite_schema() -> str:
    """The text of ``sqlite_schema.sql``."""
    return "\n".join([SQLITE, *(f"{statement};\n" for statement in statements())])


FILES = {"columns.py": columns, "sqlite_schema.sql": sqlite_schema}


def main() -> None:
    for name, text in FILES.items():
        (SQL / name).write_text(text(), "utf-8")


if __name__ == "__main__":
    main()
