"""The migrations and the metadata say the same, on both databases, and every opening finds the schema it needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from checkpoint_stores.errors import SchemaVersionError
from checkpoint_stores.sql import migrate
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
    assert await on(url, migrate.revision_of) == migrate.HEAD


async def test_a_fresh_database_is_made_current_by_its_first_use(url: str) -> None:
    async with SQLCheckpointStore(url) as store:
        await new_run(store)
    assert await on(url, differences) == []
    assert await on(url, migrate.revision_of) == migrate.HEAD


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
    assert tuple(revision.revision for revision in reversed(list(script.walk_revisions()))) == migrate.REVISIONS
    assert script.get_heads() == [migrate.HEAD]


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    async with SQLCheckpointStore(url):
        pass
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaVersionError) as caught:
        async with SQLCheckpointStore(url):
            pass
    assert (caught.value.newer, caught.value.found, caught.value.expected) == (True, "9999", migrate.HEAD)
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
    assert await on(postgres_url, migrate.revision_of) == migrate.HEAD


async def test_an_older_sqlite_schema_is_upgraded_by_its_first_use(sqlite_url: str) -> None:
    await execute(sqlite_url, EMPTY_STAMP)
    async with SQLCheckpointStore(sqlite_url) as store:
        await new_run(store)
    assert await on(sqlite_url, migrate.revision_of) == migrate.HEAD
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
    assert all(f"'{migrate.HEAD}'" in answer for answer in answers)


def test_opening_a_current_database_does_not_import_alembic(sqlite_url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from checkpoint_stores.sql.store import SQLCheckpointStore\n"
        "async def main():\n"
        "    async with SQLCheckpointStore(sys.argv[1]): pass\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program, sqlite_url], check=True, capture_output=True, text=True, timeout=60)
    assert answer.stdout == "False\n"
