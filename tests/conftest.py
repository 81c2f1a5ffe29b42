"""What every test can ask for: a database of its own, on SQLite or on PostgreSQL.

One PostgreSQL server serves the whole run.  With xdist the controlling process starts it and stops it, so that no
worker's death can take it away or leave it behind; the workers are told its URL.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from trailmark.testing.postgres import PostgresServer, PostgresUnavailableError

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever starts the tests in the background has Ctrl-C ignored, and children inherit that; some are sent one on purpose.
    signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, max_examples=100)
hypothesis.settings.register_profile("long", deadline=None, print_blob=True, max_examples=2_000)
hypothesis.settings.load_profile("ci")

_server = pytest.StashKey[PostgresServer]()
_missing = pytest.StashKey[PostgresUnavailableError]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist where the server is, or why there is none."""
    try:
        node.workerinput["postgres_url"] = _started(node.config).url
    except PostgresUnavailableError as error:
        # Only the tests that need the server fail, each with this reason; the others still have their say.
        node.workerinput["postgres_missing"] = error.reason


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say once, where it is read, what hundreds of tests failed for."""
    if (error := config.stash.get(_missing, None)) is not None:
        terminalreporter.section("no PostgreSQL server", red=True)
        terminalreporter.line(str(error))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, whatever became of the run."""
    if (server := config.stash.get(_server, None)) is not None:
        server.stop()


def _started(config: pytest.Config) -> PostgresServer:
    """The server of this run, started when first asked for."""
    server = config.stash.get(_server, None)
    if server is None:
        # What the tests kill is a process, never the machine: fsync would only cost time here.
        try:
            server = config.stash[_server] = PostgresServer(fsync=False).start()
        except PostgresUnavailableError as error:
            config.stash[_missing] = error
            raise
    return server


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    """The PostgreSQL server of this run.  Where none can be had the test fails: a promise not tested is not kept."""
    told: dict[str, str] | None = getattr(request.config, "workerinput", None)
    if told is None:
        return _started(request.config)
    if "postgres_missing" in told:
        raise PostgresUnavailableError(told["postgres_missing"])
    return PostgresServer(url=told["postgres_url"])


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty PostgreSQL database for this test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file for this test; it does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def told_to_sqlite(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of every SQLite connection that is opened from now on, in order; clear it to begin anew."""
    told: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(told.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", traced)
    return told
