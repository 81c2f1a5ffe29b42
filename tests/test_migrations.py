"""The migrations and the metadata say the same, on both databases, and every opening finds the schema it needs."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from checkpoint_stores.errors import SchemaVersionError, StoreUnavailableError
from checkpoint_stores.sql import migrate, sqlite_schema, stamp
from checkpoint_stores.sql.schema import VERSION_TABLE, metadata
from checkpoint_stores.sql.store import SQLCheckpointStore
from trailmark.testing.contract import new_run

EMPTY_STAMP = f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


async def on(url: str, work: Any) -> Any:
    """Run ``work`` in one transaction of a database."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


async def execute(url: str, *texts: str) -> None:
    await on(url, lambda connection: [connection.execute(sa.text(text)) for text in texts])


def differences(connection: sa.Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
    return list(compare_metadata(context, metadata))


async def test_all_migrations_make_what_the_metadata_says(url: str) -> None:
    await on(url, migrate.upgrade)
    assert await on(url, differences) == []
    assert await on(url, migrate.revision_of) == stamp.HEAD


async def test_a_fresh_database_is_made_current_by_its_first_use(url: str) -> None:
    async with SQLCheckpointStore(url) as store:
        await new_run(store)
    assert await on(url, differences) == []
    assert await on(url, migrate.revision_of) == stamp.HEAD


async def test_a_new_file_is_made_of_the_very_words_that_sqlalchemy_has_for_it(sqlite_url: str, tmp_path: Path) -> None:
    def words(connection: sa.Connection) -> list[Any]:
        found = connection.execute(sa.text("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"))
        return [tuple(line) for line in found]

    async with SQLCheckpointStore(sqlite_url):
        pass
    by_core = f"sqlite+aiosqlite:///{tmp_path / 'core.db'}"
    await on(by_core, lambda connection: migrate.prepare(connection, by_core, may_upgrade=False))
    assert await on(sqlite_url, words) == await on(by_core, words)


async def test_a_file_with_tables_of_somebody_else_is_shared_where_no_name_is_ours(sqlite_url: str) -> None:
    await execute(sqlite_url, "CREATE TABLE accounts (owner TEXT)", "INSERT INTO accounts VALUES ('ana')")
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
    assert await on(sqlite_url, lambda connection: connection.scalar(sa.text("SELECT owner FROM accounts"))) == "ana"
    assert await on(sqlite_url, migrate.revision_of) == stamp.HEAD


async def test_whoever_loses_the_race_for_a_new_file_finds_it_made(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the file and its lock another process makes the tables."""
    is_absent, looked = sqlite_schema.is_absent, []

    def overtaken(raw: sqlite3.Connection) -> bool:
        answer = is_absent(raw)
        if not looked:
            looked.append(answer)
            with closing(sqlite3.connect(sqlite_url.partition("///")[2])) as faster, faster:
                sqlite_schema.make(faster)
        return answer

    monkeypatch.setattr(sqlite_schema, "is_absent", overtaken)
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
    assert looked == [True]


async def test_a_file_whose_making_fails_is_left_without_any_table(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_schema, "STAMPED", ("CREATE TABLE nonsense",))
    with pytest.raises(StoreUnavailableError):
        await SQLCheckpointStore(sqlite_url).upgrade()
    assert await on(sqlite_url, lambda connection: sa.inspect(connection).get_table_names()) == []
    monkeypatch.undo()
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)


@pytest.mark.parametrize("name", ["RUNS", "Checkpoints"])
async def test_a_table_whose_name_is_ours_but_for_its_case_is_somebody_elses(sqlite_url: str, name: str) -> None:
    await execute(sqlite_url, f"CREATE TABLE {name} (mine INTEGER)")
    with closing(sqlite3.connect(sqlite_url.partition("///")[2])) as raw:
        assert not sqlite_schema.is_absent(raw)


async def test_tables_of_migrations_and_of_first_use_are_alike_down_to_their_indexes(url: str, tmp_path: Any) -> None:
    def described(connection: sa.Connection) -> dict[str, Any]:
        inspector = sa.inspect(connection)
        return {
            name: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)],
                sorted((index["name"], index["column_names"], index["unique"]) for index in inspector.get_indexes(name)),
                sorted(str(key) for key in inspector.get_unique_constraints(name)),
                inspector.get_pk_constraint(name),
                inspector.get_foreign_keys(name),
            )
            for name in sorted(metadata.tables)
        }

    await on(url, migrate.upgrade)
    migrated = await on(url, described)
    await on(url, metadata.drop_all)
    await on(url, metadata.create_all)
    assert await on(url, described) == migrated


async def test_the_revisions_in_the_folder_are_the_known_ones() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    script = ScriptDirectory.from_config(config)
    assert tuple(revision.revision for revision in reversed(list(script.walk_revisions()))) == stamp.REVISIONS
    assert script.get_heads() == [stamp.HEAD]


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    async with SQLCheckpointStore(url):
        pass
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaVersionError) as caught:
        async with SQLCheckpointStore(url):
            pass
    assert (caught.value.newer, caught.value.found, caught.value.expected) == (True, "9999", stamp.HEAD)
    with pytest.raises(SchemaVersionError):
        await SQLCheckpointStore(url).upgrade()


async def test_an_older_postgresql_schema_waits_for_upgrade(postgres_url: str) -> None:
    await execute(postgres_url, EMPTY_STAMP)
    with pytest.raises(SchemaVersionError) as caught:
        async with SQLCheckpointStore(postgres_url):
            pass
    assert (caught.value.newer, caught.value.found) == (False, "empty")
    assert "trailmark db upgrade" in str(caught.value)
    store = SQLCheckpointStore(postgres_url)
    await store.upgrade()
    await store.upgrade()
    async with store:
        await new_run(store)
    assert await on(postgres_url, migrate.revision_of) == stamp.HEAD


async def test_an_older_sqlite_schema_is_upgraded_by_its_first_use(sqlite_url: str) -> None:
    await execute(sqlite_url, EMPTY_STAMP)
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
    assert await on(sqlite_url, migrate.revision_of) == stamp.HEAD
    assert await on(sqlite_url, differences) == []


async def test_tables_of_somebody_else_are_not_touched(url: str) -> None:
    await execute(url, "CREATE TABLE runs (mine INTEGER)")
    with pytest.raises(SchemaVersionError, match=r"not trailmark's .*a table 'runs' without a revision.*a database .* of its own"):
        async with SQLCheckpointStore(url):
            pass
    assert await on(url, lambda connection: sa.inspect(connection).get_table_names()) == ["runs"]


async def test_a_stamp_table_of_somebody_else_is_named_and_left_alone(url: str) -> None:
    await execute(url, f"CREATE TABLE {VERSION_TABLE} (mine INTEGER)")
    with pytest.raises(SchemaVersionError) as caught:
        async with SQLCheckpointStore(url):
            pass
    assert f"its table {VERSION_TABLE!r} has no column 'version_num'" in str(caught.value)
    assert caught.value.url in str(caught.value)
    assert caught.value.remedy == "give trailmark a database (or a file) of its own"
    assert await on(url, lambda connection: sa.inspect(connection).get_table_names()) == [VERSION_TABLE]


async def test_a_stamp_that_no_trailmark_wrote_is_not_taken_for_a_newer_one(url: str) -> None:
    await execute(url, f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32))", f"INSERT INTO {VERSION_TABLE} VALUES ('3f2a9c')")
    with pytest.raises(SchemaVersionError, match=r"is '3f2a9c', this trailmark needs .*; give trailmark a database") as caught:
        async with SQLCheckpointStore(url):
            pass
    assert not caught.value.newer


async def test_a_lost_stamp_beside_full_tables_is_told_and_nothing_is_made(url: str) -> None:
    async with SQLCheckpointStore(url) as store:
        await new_run(store)
    await execute(url, f"DELETE FROM {VERSION_TABLE}")
    for opening in (SQLCheckpointStore(url).__aenter__, SQLCheckpointStore(url).upgrade):
        with pytest.raises(SchemaVersionError, match=r"is empty, but there is a table 'barriers'.*restore it from a backup"):
            await opening()
    assert await on(url, migrate.revision_of) == ""


async def test_many_may_open_a_fresh_database_at_once(url: str) -> None:
    stores = [SQLCheckpointStore(url) for _ in range(6)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    runs = [await new_run(store) for store in stores]
    assert {run.run_id for run in await stores[0].runs()} == {run.run_id for run in runs}
    for store in stores:
        await store.close()


def test_many_processes_may_open_a_fresh_database_at_once(url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from checkpoint_stores.sql.store import SQLCheckpointStore\n"
        "async def main():\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    async with SQLCheckpointStore(sys.argv[1]) as store:\n"
        "        print(await store.stats())\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert all(f"'{stamp.HEAD}'" in answer for answer in answers)


def test_opening_a_new_or_a_current_file_imports_neither_alembic_nor_sqlalchemy(sqlite_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from checkpoint_stores.sql.store import SQLCheckpointStore\n"
        "async def main():\n"
        "    async with SQLCheckpointStore(sys.argv[1]): pass\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules or 'sqlalchemy' in sys.modules)\n"
    )
    for _ in ("new", "current"):
        answer = subprocess.run([sys.executable, "-c", program, sqlite_url], check=True, capture_output=True, text=True, timeout=60)
        assert answer.stdout == "False\n"
