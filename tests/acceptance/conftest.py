"""What the tests with real processes share: children to start, kill and listen to, and a database that outlives them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import trailmark
from trailmark.testing.postgres import PostgresServer

collect_ignore = ["child_processes.py", "flows_under_fire.py"]
"""They run in children, where they find each other; here they would only be searched for doctests."""

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0
"""Seconds until a test that waits for a child gives up; no test that passes comes near it."""


class ChildProcess:
    """A child that carries out one request; what it says is read line by line."""

    def __init__(self, address: str, request: dict[str, Any]) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(PATIENCE)
        self._connection.connect(address)
        self._lines = self._connection.makefile("rb")
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self.pid: int = self.next("pid")
        self.said: list[dict[str, Any]] = []

    def next(self, expected: str) -> Any:
        """The next line, which must be of this kind."""
        line = self._line()
        assert expected in line, f"the child was to say {expected!r} and said {_readable(line)}"
        return line[expected]

    def _line(self) -> dict[str, Any]:
        try:
            raw = self._lines.readline()
        except TimeoutError:
            self.kill(signal.SIGUSR1)  # it shows on stderr where it stands
            raise
        assert raw, "the child's connection ended without a word"
        line: dict[str, Any] = json.loads(raw)
        return line

    def say(self, word: str) -> None:
        self._connection.sendall(word.encode() + b"\n")

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def end(self) -> dict[str, Any]:
        """Wait until nothing is left of the child; everything it said since, and ``ended``: its exit code."""
        said: dict[str, Any] = {}
        while "ended" not in said:
            said |= self._line()
        self.close()
        return said

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


def _readable(line: dict[str, Any]) -> str:
    return line["error"]["trace"] if "error" in line else str(line)


class Children:
    """Starts children, all of which write into one journal."""

    def __init__(self, address: str, journal: Path) -> None:
        self._address = address
        self._journal = journal
        self._started: list[ChildProcess] = []

    def start(self, do: str, url: str, **request: Any) -> ChildProcess:
        """Start a child and return while it works."""
        child = ChildProcess(self._address, {"do": do, "url": url, "journal": str(self._journal), **request})
        self._started.append(child)
        return child

    def run(self, do: str, url: str, **request: Any) -> dict[str, Any]:
        """Start a child and wait until it has ended."""
        return self.start(do, url, **request).end()

    def journal(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Every body that ran so far, in order (of one run)."""
        if not self._journal.exists():
            return []
        lines = [json.loads(line) for line in self._journal.read_text().splitlines()]
        return [line | {"place": tuple(line["place"])} for line in lines if run_id in (None, line["run"])]

    def places(self, run_id: str | None = None) -> list[str]:
        """The nodes whose bodies ran, in order."""
        return [line["place"][1] for line in self.journal(run_id)]

    def close(self) -> None:
        for child in self._started:
            child.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[str]:
    """Where children are born: the address of the process that forks them."""
    # Not in pytest's own folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="trailmark-") as folder:
        address = f"{folder}/s"
        path = os.pathsep.join([str(Path(trailmark.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, HERE / "child_processes.py", address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == b"ready\n"
            yield address
            process.stdin.close()
            process.wait()


@pytest.fixture(scope="session")
def children_of(nursery: str) -> Callable[[Path], Children]:
    """Start child processes that write into the given journal."""
    return lambda journal: Children(nursery, journal)


@pytest.fixture
def children(nursery: str, tmp_path: Path) -> Iterator[Children]:
    """Start child processes; those still there at the end of the test lose their connection and are killed with the nursery."""
    children = Children(nursery, tmp_path / "journal")
    yield children
    children.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A database for this test, once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One database for all tests of a file, whose runs are many; once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('shared') / 'runs.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


class Tables:
    """The database as it is, behind the store's back."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ask(self, statement: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """Run one statement; ``%s`` stands for each value."""
        scheme, _, rest = self._url.partition(":///")
        if scheme.startswith("sqlite"):
            with sqlite3.connect(rest, timeout=30) as connection:
                found = connection.execute(statement.replace("%s", "?"), values).fetchall()
            connection.close()
            return found
        for position in range(1, len(values) + 1):
            statement = statement.replace("%s", f"${position}", 1)
        connection = await asyncpg.connect(self._url.replace("+asyncpg", ""))
        try:
            return [tuple(line) for line in await connection.fetch(statement, *values)]
        finally:
            await connection.close()

    async def of_run(self, run_id: str) -> dict[str, Sequence[tuple[Any, ...]]]:
        """Every line of every table that belongs to a run, byte for byte."""
        key = bytes.fromhex(run_id.replace("-", ""))
        orders = {"runs": "run_id", "checkpoints": "seq", "snapshots": "seq", "barriers": "ticket", "decisions": "id"}
        return {table: await self.ask(f"SELECT * FROM {table} WHERE run_id = %s ORDER BY {order}", key) for table, order in orders.items()}


@pytest.fixture
def tables() -> type[Tables]:
    """Look at, or damage, a database: ``await tables(url).ask(...)``."""
    return Tables
