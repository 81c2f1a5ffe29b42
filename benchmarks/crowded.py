"""A database as full as after a year: one real run copied by SQL until there are as many as are wanted.

A copy has its run's lines under another id, so that tables, indexes and statistics are those of a full database; its digests are
those of the run it was copied from, so that it can be listed and counted, not resumed.  Knows the tables, no flow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import asyncpg
import sqlalchemy as sa

from checkpoint_stores.sql import schema

COPIED = (schema.runs, schema.checkpoints, schema.barriers)

MOVED = {
    "run_key": "'copy ' || n",
    "status": "CASE WHEN n % 20 = 0 THEN 'waiting' WHEN n % 10 = 1 THEN 'failed' ELSE 'completed' END",
    "flow": "'flow ' || (n % 7)",
    "owner": "NULL",
    "wake_at": "NULL",
    "created_at": "{table}.created_at - 1000 * n",
    "opened_at": "{table}.opened_at - 1000 * n",
}
"""What is not the same in all copies, by column; of the barriers one in twenty is open (see `_status`)."""


async def fill(url: str, run_id: str, copies: int, asks: str) -> dict[str, float]:
    """Copy a run ``copies`` times, with the tickets of the run ``asks``; how many bytes each new line takes, indexes included, by table."""
    ids = {table: bytes.fromhex((asks if table is schema.barriers else run_id).replace("-", "")) for table in COPIED}
    taken: dict[str, float] = {}
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition("///")[2])) as file, file:
            for table, run in ids.items():
                before = _bytes_of_sqlite(file)
                numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :copies) "
                text = numbers + _copying(table, "CAST(printf('%016d', n) AS BLOB)", "numbers", ":run")
                file.execute(text, {"run": run, "copies": copies})
                ((lines,),) = file.execute("SELECT changes()")
                taken[table.name] = (_bytes_of_sqlite(file) - before) / lines
            file.execute("ANALYZE")
        return taken
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    for table, run in ids.items():
        before = await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table.name)
        text = _copying(table, "convert_to(lpad(n::text, 16, '0'), 'UTF8')", "generate_series(1, $2::int) AS numbers(n)", "$1")
        lines = int((await connection.execute(text, run, copies)).split()[-1])
        await connection.execute(f"VACUUM ANALYZE {table.name}")
        taken[table.name] = (await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table.name) - before) / lines
    await connection.close()
    return taken


def _bytes_of_sqlite(file: sqlite3.Connection) -> int:
    ((pages, size),) = file.execute("SELECT * FROM pragma_page_count, pragma_page_size")
    return int(pages * size)


def _copying(table: sa.Table, new_id: str, numbers: str, run: str) -> str:
    columns = [column.name for column in table.columns]
    selected = [new_id if name == "run_id" else _moved(table, name) for name in columns]
    from_ = f"{table.name} CROSS JOIN {numbers} WHERE {table.name}.run_id = {run}"
    return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(selected)} FROM {from_} ORDER BY n"


def _moved(table: sa.Table, column: str) -> str:
    if table is schema.barriers and column == "status":
        return "CASE WHEN n % 20 = 0 THEN 'open' ELSE 'resolved' END"
    return MOVED[column].format(table=table.name) if column in MOVED else f"{table.name}.{column}"


# --- what a question reads ------------------------------------------------------------------------------------------


@contextmanager
def overheard() -> Iterator[set[str]]:
    """The statements that SQLite connections carry out which are opened meanwhile, with their values."""
    told: set[str] = set()
    connect = sqlite3.connect

    def listened(*args: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)  # type: ignore[arg-type, call-overload]
        connection.set_trace_callback(told.add)
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = listened  # type: ignore[assignment, attr-defined]
    try:
        yield told
    finally:
        sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[attr-defined]


def scans_of_sqlite(url: str, told: set[str]) -> list[str]:
    """What EXPLAIN QUERY PLAN calls a scan of a large table (and no range of an index), with the statement that does it."""
    found = []
    large = tuple(f"SCAN {table.name}" for table in COPIED)
    with closing(sqlite3.connect(url.partition("///")[2])) as connection:
        for statement in told:
            if statement.lstrip().upper().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                plan = [line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
                found += [f"{step}: {' '.join(statement.split())[:120]}" for step in plan if step.startswith(large)]
    return found


async def scanned_in_postgres(url: str) -> dict[str, int]:
    """How many lines each large table gave to sequential scans so far; a session's are counted once it has ended."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    lines = await connection.fetch("SELECT relname, seq_tup_read FROM pg_stat_user_tables")
    await connection.close()
    return {line["relname"]: line["seq_tup_read"] for line in lines if line["relname"] in {table.name for table in COPIED}}
