"""The store fails in the middle of a run: nothing is lost, nobody is told a lie, and after the repair the run goes on.

Every failure reaches whoever drives the run as one typed error that names the database without its password.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import pytest
import sqlalchemy as sa

from trailmark import END, Decision, Flow, FlowGraph, GraphExecutor, StepContext
from trailmark.checkpoint_stores import (
    CheckpointCorruptError,
    SchemaVersionError,
    SQLCheckpointStore,
    StoreUnavailableError,
)
from trailmark.reducers import append
from trailmark.testing import postgres_programs
from trailmark.testing.postgres import PostgresServer, _became_ready


class Relay:
    """first -> second -> third; a test may do something inside ``second``."""

    def __init__(self, inside_second: Callable[[str], Awaitable[None]] | None = None, *, size: int = 0) -> None:
        self.ran: list[tuple[str, str]] = []
        """(node, idempotency key)"""
        self.inside_second = inside_second
        self._size = size

    def graph(self) -> FlowGraph:
        flow = Flow("relay", {"trail": Annotated[list[str], append], "bulk": Annotated[list[str], append]})

        async def step(state: Any, ctx: StepContext) -> dict[str, Any]:
            self.ran.append((ctx.node, ctx.idempotency_key))
            if ctx.node == "second" and self.inside_second is not None:
                hook, self.inside_second = self.inside_second, None
                await hook(ctx.run_id)
            return {"trail": [ctx.node], "bulk": ["x" * self._size]}

        for name in ("first", "second", "third"):
            flow.add_node(name, step)
        flow.set_entry("first").add_edge("first", "second").add_edge("second", "third").add_edge("third", END)
        return flow.compile()

    def nodes(self) -> list[str]:
        return [node for node, _key in self.ran]


async def end_after_repair(relay: Relay, url: str, run_id: str) -> None:
    """Resume with a new store; ``second``, whose commit failed, runs once more under its key, and all ends well."""
    async with SQLCheckpointStore(url) as store, GraphExecutor(relay.graph(), store=store) as executor:
        result = await executor.resume(run_id)
        assert result.status == "completed"
        assert result.values["trail"] == ["first", "second", "third"]
        assert result.steps == 3
        assert await store.verify(run_id) == []
    assert relay.nodes() == ["first", "second", "second", "third"]
    assert len(set(relay.ran)) == 3, "a repeated body got another key"


def check_names_the_store(error: StoreUnavailableError, url: str) -> None:
    password = sa.make_url(url).password
    assert error.url == sa.make_url(url).render_as_string(hide_password=True)
    assert error.url in str(error)
    assert error.reason
    assert password is None or password not in str(error)
    assert password is None or password not in "".join(getattr(error, "__notes__", []))


# --- the database is not there --------------------------------------------------------------------------------------
class OwnServer:
    """A PostgreSQL server that a test may stop and start again, with its data."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.url = server.create_database()

    def stop(self, number: int) -> None:
        process = self._server._process
        assert process is not None
        process.send_signal(number)
        process.wait()

    def start(self) -> None:
        folder = self._server.folder
        assert folder is not None
        account = postgres_programs.unprivileged_account()
        programs = postgres_programs.reachable(postgres_programs.find_programs(), folder, account)
        process = self._server._launch(programs, folder, sa.make_url(self.url).port or 0, account)
        assert _became_ready(process, folder / "data" / "postmaster.pid")


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    with PostgresServer(programs=postgres_programs.find_programs(), fsync=False, max_connections=20) as server:
        yield server


@pytest.fixture
def server(own_server: PostgresServer) -> OwnServer:
    return OwnServer(own_server)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_a_server_that_goes_away_in_the_middle_of_a_run_is_an_error_and_the_run_can_be_resumed(
    server: OwnServer, how: signal.Signals
) -> None:
    run_ids = []

    async def stop_the_server(run_id: str) -> None:
        run_ids.append(run_id)
        server.stop(how)

    relay = Relay(stop_the_server)
    with pytest.raises(StoreUnavailableError) as unavailable:
        async with SQLCheckpointStore(server.url) as store, GraphExecutor(relay.graph(), store=store) as executor:
            store._database.writer._patience = 0.1  # type: ignore[union-attr]
            await executor.execute({})
    check_names_the_store(unavailable.value, server.url)
    assert relay.nodes() == ["first", "second"]

    with pytest.raises(StoreUnavailableError) as unopened:
        async with SQLCheckpointStore(server.url):
            pass
    check_names_the_store(unopened.value, server.url)

    server.start()
    await when_free(server.url, run_ids[0])
    await end_after_repair(relay, server.url, run_ids[0])


async def when_free(url: str, run_id: str) -> None:
    """This very process could not give its lease back while the server was away; another would see that we live."""
    key = bytes.fromhex(run_id.replace("-", ""))
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT owner FROM runs WHERE run_id = $1", key)
    # Time passes by itself; here we help it along.
    await connection.execute("UPDATE workers SET lease_expires_at = 0")
    await connection.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_a_server_that_is_restarted_in_the_middle_of_a_run_is_not_even_noticed(server: OwnServer, how: signal.Signals) -> None:
    async def restart_the_server(_run_id: str) -> None:
        server.stop(how)
        server.start()

    relay = Relay(restart_the_server)
    async with SQLCheckpointStore(server.url) as store, GraphExecutor(relay.graph(), store=store) as executor:
        result = await executor.execute({})

        assert result.status == "completed"
        assert relay.nodes() == ["first", "second", "third"]
        assert await store.verify(result.run_id) == []


# --- the database cannot be written ---------------------------------------------------------------------------------
async def fail_in_second(url: str, spoil: Callable[[SQLCheckpointStore, str], Awaitable[None]], tables: Any) -> tuple[Relay, str]:
    """Run until ``second`` has spoiled the store; the run's lines must be then as they were before."""
    seen: dict[str, Any] = {}
    relay = Relay(size=50_000)
    with pytest.raises(StoreUnavailableError) as unavailable:
        async with SQLCheckpointStore(url) as store, GraphExecutor(relay.graph(), store=store) as executor:

            async def inside_second(run_id: str) -> None:
                seen[run_id] = await tables(url).of_run(run_id)
                await spoil(store, run_id)

            relay.inside_second = inside_second
            await executor.execute({})
    check_names_the_store(unavailable.value, url)
    assert relay.nodes() == ["first", "second"]
    ((run_id, before),) = seen.items()
    after = await tables(url).of_run(run_id)
    assert after["checkpoints"] == before["checkpoints"]
    return relay, run_id


async def test_a_file_that_becomes_read_only_loses_nothing(sqlite_url: str, tables: Any) -> None:
    async def spoil(store: SQLCheckpointStore, _run_id: str) -> None:
        store._database.writer._raw.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]

    relay, run_id = await fail_in_second(sqlite_url, spoil, tables)
    await tables(sqlite_url).ask("UPDATE workers SET lease_expires_at = 0")
    await end_after_repair(relay, sqlite_url, run_id)


async def test_a_disk_that_is_full_loses_nothing(sqlite_url: str, tables: Any) -> None:
    async def spoil(store: SQLCheckpointStore, _run_id: str) -> None:
        raw = store._database.writer._raw  # type: ignore[union-attr]
        (pages,) = raw.execute("PRAGMA page_count").fetchone()
        raw.execute(f"PRAGMA max_page_count = {pages}")

    relay, run_id = await fail_in_second(sqlite_url, spoil, tables)
    await end_after_repair(relay, sqlite_url, run_id)


async def test_a_file_that_another_program_keeps_locked_loses_nothing(sqlite_url: str, tables: Any) -> None:
    locks = []

    async def spoil(store: SQLCheckpointStore, _run_id: str) -> None:
        store._database.writer._raw.execute("PRAGMA busy_timeout = 0")  # type: ignore[union-attr]
        other = sqlite3.connect(sqlite_url.partition("///")[2], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        locks.append(other)

    relay, run_id = await fail_in_second(sqlite_url, spoil, tables)
    locks[0].execute("ROLLBACK")
    locks[0].close()
    await tables(sqlite_url).ask("UPDATE workers SET lease_expires_at = 0")
    await end_after_repair(relay, sqlite_url, run_id)


async def test_a_database_that_becomes_read_only_loses_nothing(postgres_url: str, tables: Any) -> None:
    name = sa.make_url(postgres_url).database

    async def spoil(_store: SQLCheckpointStore, _run_id: str) -> None:
        await tables(postgres_url).ask(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await tables(postgres_url).ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", name
        )

    relay, run_id = await fail_in_second(postgres_url, spoil, tables)
    await tables(postgres_url.replace(f"/{name}", "/postgres")).ask(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
    await tables(postgres_url).ask("UPDATE workers SET lease_expires_at = 0")
    await end_after_repair(relay, postgres_url, run_id)


async def test_a_read_only_file_can_be_read_and_says_that_it_cannot_be_written(sqlite_url: str) -> None:
    relay = Relay()
    async with SQLCheckpointStore(sqlite_url) as store, GraphExecutor(relay.graph(), store=store) as executor:
        result = await executor.execute({})
    path = sqlite_url.partition("///")[2]
    read_only = f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true"

    async with SQLCheckpointStore(read_only) as store, GraphExecutor(relay.graph(), store=store) as executor:
        assert (await store.run(result.run_id)).status == "completed"
        assert await store.verify(result.run_id) == []
        with pytest.raises(StoreUnavailableError) as unavailable:
            await executor.execute({})
    assert "readonly" in unavailable.value.reason
    assert relay.nodes() == ["first", "second", "third"]


async def test_a_process_whose_files_may_grow_no_more_loses_nothing(children: Any, sqlite_url: str) -> None:
    said = children.run("start", sqlite_url, flow="bulky", input={}, file_limit=400_000)

    assert said["error"]["type"] == "StoreUnavailableError", said
    assert said["error"]["url"] == sqlite_url
    failed_in = children.places()[-1]
    run_id = children.journal()[0]["run"]
    again = children.run("resume", sqlite_url, flow="bulky", run_id=run_id)
    assert again["result"]["status"] == "completed"
    assert again["result"]["steps"] == 6
    ran = children.places(run_id)
    assert list(dict.fromkeys(ran)) == ["a", "b", "c", "d", "e", "f"]
    assert sorted(ran) == sorted([*"abcdef", failed_in])
    async with SQLCheckpointStore(sqlite_url) as store:
        assert await store.verify(run_id) == []


# --- the connection is cut between question and answer --------------------------------------------------------------
class Wire:
    """A line to the server that is cut when a certain question passes: before it reaches the server, or behind it."""

    def __init__(self, url: str) -> None:
        self._server = sa.make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = self._server.set(host="127.0.0.1", port=self._listener.getsockname()[1]).render_as_string(hide_password=False)
        self._mark: bytes | None = None
        self._moment = ""
        self._unanswered: set[socket.socket] = set()
        self._late: tuple[socket.socket, bytes] | None = None
        self._landed = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.cuts = 0
        self.when_cut: Callable[[], None] = lambda: None

    def cut_at(self, mark: bytes, moment: str) -> None:
        """Cut the line once, at the next question that holds ``mark``.

        ``moment``: ``before`` the question is passed on; ``behind`` it, not waiting for the answer; ``instead`` of
        passing on the answer, which has come; or ``late``: the question reaches the server only when it is asked again,
        just before it.
        """
        self._mark, self._moment = mark, moment

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            _hang_up(one)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._server.host, self._server.port))
            self._sockets += [client, server]
            for pump in (self._ask, self._answer):
                self._threads.append(threading.Thread(target=pump, args=(client, server)))
                self._threads[-1].start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while question := client.recv(1 << 20):
                if self._mark is None or self._mark not in question:
                    server.sendall(question)
                    continue
                if self._late is not None:
                    lost, first = self._late
                    lost.sendall(first)
                    self._landed.wait(PATIENCE)
                    server.sendall(question)
                    self._mark = self._late = None
                    continue
                self.cuts += 1
                if self._moment == "late":
                    self._late = (server, question)
                    break
                self._mark = None
                if self._moment == "instead":
                    self._unanswered.add(server)
                    server.sendall(question)
                    continue
                if self._moment == "behind":
                    server.sendall(question)
                self.when_cut()
                break
        except OSError:
            pass
        _hang_up(client)
        if self._moment not in ("behind", "late"):
            _hang_up(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while answer := server.recv(1 << 20):
                if self._late is not None and server is self._late[0]:
                    self._landed.set()
                    break
                if server in self._unanswered:
                    self.when_cut()
                    break
                client.sendall(answer)
        except OSError:
            pass
        _hang_up(client)


def _hang_up(one: socket.socket) -> None:
    # A lingering time of 0 makes it a reset, as when a cable or a machine is gone.
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    wire = Wire(postgres_url)
    yield wire
    wire.close()


MOMENTS = ["before", "instead", "behind"]
PATIENCE = 30.0
"""Seconds until a test that waits for the server gives up; no test that passes comes near it."""

ORDINARY, ENDING = b'"second', b'"third'
"""What nothing holds but the commit of an ordinary step, and of the one that ends the run: a value that the node wrote."""


@pytest.mark.parametrize("moment", [*MOMENTS, "late"])
@pytest.mark.parametrize("mark", [ORDINARY, ENDING], ids=["a step", "the end of the run"])
async def test_a_connection_cut_around_a_commit_neither_doubles_nor_loses_a_step(wire: Wire, moment: str, mark: bytes) -> None:
    async def arm(_run_id: str) -> None:
        wire.cut_at(mark, moment)

    relay, told = Relay(arm), []
    look = [lambda committed: told.append(committed.row.seq)]
    async with SQLCheckpointStore(wire.url) as store, GraphExecutor(relay.graph(), store=store, observers=look) as executor:
        result = await executor.execute({})

        assert wire.cuts == 1
        assert result.status == "completed"
        assert result.values["trail"] == ["first", "second", "third"]
        assert relay.nodes() == ["first", "second", "third"]
        assert told == [2, 3, 4]
        rows = [row async for row in store.history(result.run_id)]
        assert [(row.seq, row.kind, row.step, row.epoch) for row in rows] == [
                (1, "start", 0, 1), (2, "step", 1, 1), (3, "step", 2, 1), (4, "step", 3, 1),
            ]  # fmt: skip
        assert await store.verify(result.run_id) == []
        assert (await store.run(result.run_id)).owner is None


async def test_a_lost_commit_and_its_repetition_may_both_hang_in_the_server_and_one_gets_in(
    wire: Wire, postgres_url: str, tables: Any
) -> None:
    url = postgres_url.replace("+asyncpg", "")
    hold, watch = await asyncpg.connect(url), await asyncpg.connect(url)
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def inside_second(run_id: str) -> None:
        # A row that nobody can see yet stands where the commit must go: both the lost question and the one sent again wait for it.
        await hold.execute("BEGIN")
        await hold.execute(
            "INSERT INTO checkpoints (run_id, seq, epoch, step, kind, path, node, next, payload, started_at, digest, committed_at)"
            " VALUES ($1, 3, 1, 0, '', '', '', '', '', 0, '', 0)",
            bytes.fromhex(run_id.replace("-", "")),
        )
        wire.cut_at(ORDINARY, "behind")

    relay = Relay(inside_second)
    async with SQLCheckpointStore(wire.url) as store, GraphExecutor(relay.graph(), store=store) as executor:
        run = await executor.start({})
        async with asyncio.timeout(PATIENCE):
            while await watch.fetchval(blocked) < 2:
                assert not run.done()
        await hold.execute("ROLLBACK")

        result = await run.result()

        assert wire.cuts == 1
        assert result.status == "completed"
        assert relay.nodes() == ["first", "second", "third"]
        assert [row.step async for row in store.history(run.run_id)] == [0, 1, 2, 3]
        assert await store.verify(run.run_id) == []
    await hold.close()
    await watch.close()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_run_whose_creation_was_cut_is_there_or_is_not_there_and_its_key_tells(wire: Wire, moment: str) -> None:
    relay = Relay()
    async with SQLCheckpointStore(wire.url) as store, GraphExecutor(relay.graph(), store=store) as executor:
        await store.now()  # the connection is there already
        wire.cut_at(b"COMMIT;", moment)
        try:
            result = await executor.execute({}, run_key="order-1")
        except StoreUnavailableError as unavailable:
            check_names_the_store(unavailable, wire.url)
            assert relay.nodes() == []
            result = await executor.execute({}, run_key="order-1")
        assert wire.cuts == 1
        assert result.status == "completed"
        assert relay.nodes() == ["first", "second", "third"]
        assert len(await store.runs()) == 1
        assert await store.verify(result.run_id) == []


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_decision_whose_answer_was_cut_can_simply_be_made_again(wire: Wire, moment: str) -> None:
    flow = Flow("gate", {"trail": Annotated[list[str], append]})
    flow.add_barrier("gate", prompt="Go on?")
    flow.set_entry("gate").add_edge("gate", END)
    async with SQLCheckpointStore(wire.url) as store, GraphExecutor(flow.compile(), store=store) as executor:
        parked = await executor.execute({})
        decision = Decision.approve(by="ana", reason="as agreed with Ben")
        wire.cut_at(b"as agreed with Ben", moment)
        try:
            record = await store.decide(parked.run_id, "gate", decision)
        except StoreUnavailableError as unavailable:
            check_names_the_store(unavailable, wire.url)
            record = await store.decide(parked.run_id, "gate", decision)

        assert wire.cuts == 1
        assert [found.id for found in await store.decisions(parked.run_id)] == [record.id]
        assert (await executor.resume(parked.run_id)).status == "completed"


async def test_what_a_machine_that_is_gone_had_locked_is_free_after_a_while(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hears nothing more of the connection, and nothing of its end either: the transaction in it would stay open for hours."""
    monkeypatch.setattr("checkpoint_stores.sql.postgres_database._IDLE_SECONDS", 0.5)
    flow = Flow("gate", {"n": int}).add_barrier("gate", prompt="Go on?").set_entry("gate").add_edge("gate", END)
    async with SQLCheckpointStore(wire.url) as store, GraphExecutor(flow.compile(), store=store) as executor:
        parked = await executor.execute({})
        wire.cut_at(b"no longer wanted", "behind")
        with pytest.raises(StoreUnavailableError):
            await store.request_cancel(parked.run_id, actor="ana", reason="no longer wanted")
        assert wire.cuts == 1
        asked = await asyncio.wait_for(store.request_cancel(parked.run_id, actor="ana", reason="no longer wanted"), PATIENCE)
        assert asked.run_id == parked.run_id
        assert (await executor.resume(parked.run_id)).status == "cancelled"


@pytest.mark.parametrize("mark", [ORDINARY, ENDING], ids=["a step", "the end of the run"])
async def test_a_process_killed_while_the_server_has_its_commit_finds_it_done(
    children: Any, wire: Wire, postgres_url: str, mark: bytes
) -> None:
    child = children.start("start", wire.url, flow="relay", input={}, waits_in="second")
    child.next("in_body")
    # The server has committed and answered; the answer reaches a process that is no more.
    wire.when_cut = child.kill
    wire.cut_at(mark, "instead")
    child.say("go on")
    assert child.end()["ended"] == -9
    run_id = children.journal()[0]["run"]

    said = children.run("resume", postgres_url, flow="relay", run_id=run_id)

    assert wire.cuts == 1
    assert said["result"]["status"] == "completed"
    assert children.places(run_id) == ["first", "second", "third"]
    async with SQLCheckpointStore(postgres_url) as store:
        assert await store.verify(run_id) == []


# --- what is stored was damaged, or is of another version -----------------------------------------------------------
@asynccontextmanager
async def interrupted(url: str) -> AsyncIterator[tuple[Relay, SQLCheckpointStore, GraphExecutor, str]]:
    """A run that stands before ``third``, held by nobody: its rows are 1 (start), 2, 3, and 4 (suspended)."""
    relay = Relay()
    async with SQLCheckpointStore(url) as store, GraphExecutor(relay.graph(), store=store) as executor:

        async def suspend(run_id: str) -> None:
            executor._drives.driver(run_id).suspend("for the test")

        relay.inside_second = suspend
        run = await executor.start({})
        result = await run.result()
        assert result.status == "suspended"
        yield relay, store, executor, run.run_id


DAMAGES = {
    "a payload is edited": ("UPDATE checkpoints SET payload = %s WHERE run_id = %s AND seq = 2", b'[["set","trail",["forged"]]]'),
    "a payload is garbage": ("UPDATE checkpoints SET payload = %s WHERE run_id = %s AND seq = 2", bytes([255, 0, 7])),
    "a column is edited": ("UPDATE checkpoints SET node = %s WHERE run_id = %s AND seq = 2", "third"),
    "a digest is edited": ("UPDATE checkpoints SET digest = %s WHERE run_id = %s AND seq = 2", bytes(32)),
    "a row is gone": ("DELETE FROM checkpoints WHERE node <> %s AND run_id = %s AND seq = 2", "?"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_checkpoint_is_named_and_what_stands_before_it_is_readable(store_url: str, tables: Any, damage: str) -> None:
    async with interrupted(store_url) as (relay, store, executor, run_id):
        before = await store.load(run_id, 1)
        statement, value = DAMAGES[damage]
        await tables(store_url).ask(statement, value, bytes.fromhex(run_id.replace("-", "")))
        held = await tables(store_url).of_run(run_id)
        ran = relay.nodes()

        with pytest.raises(CheckpointCorruptError) as corrupt:
            await executor.resume(run_id)

        assert (corrupt.value.run_id, corrupt.value.seq) == (run_id, 2)
        assert run_id in str(corrupt.value)
        assert await store.load(run_id, 1) == before
        with pytest.raises(CheckpointCorruptError):
            await store.load(run_id, 2 if "gone" not in damage else 3)
        problems = await store.verify(run_id)
        assert problems[0].run_id == run_id
        assert problems[0].seq == 2
        assert relay.nodes() == ran, "a body ran over a damaged state"
        assert await tables(store_url).of_run(run_id) == held


async def test_a_run_whose_end_was_cut_off_is_not_resumed_as_if_nothing_were_missing(store_url: str, tables: Any) -> None:
    async with interrupted(store_url) as (_, store, executor, run_id):
        head = [row.seq async for row in store.history(run_id)][-1]
        await tables(store_url).ask("DELETE FROM checkpoints WHERE seq = %s AND run_id = %s", head, bytes.fromhex(run_id.replace("-", "")))

        with pytest.raises(CheckpointCorruptError) as corrupt:
            await executor.resume(run_id)

        assert corrupt.value.seq == head
        assert [problem.seq for problem in await store.verify(run_id)] == [head]


@pytest.mark.parametrize("found", ["9999", "0002_of_the_future"])
async def test_a_schema_of_a_newer_trailmark_is_refused_and_left_alone(store_url: str, tables: Any, found: str) -> None:
    async with SQLCheckpointStore(store_url):
        pass
    await tables(store_url).ask("UPDATE trailmark_schema SET version_num = %s", found)

    with pytest.raises(SchemaVersionError) as refused:
        async with SQLCheckpointStore(store_url):
            pass

    assert refused.value.newer
    assert refused.value.found == found
    password = sa.make_url(store_url).password
    assert password is None or password not in str(refused.value)
    assert await tables(store_url).ask("SELECT version_num FROM trailmark_schema") == [(found,)]


async def test_an_older_schema_is_refused_until_it_is_upgraded(postgres_url: str, tables: Any) -> None:
    await tables(postgres_url).ask("CREATE TABLE trailmark_schema (version_num VARCHAR(32) NOT NULL)")

    with pytest.raises(SchemaVersionError) as refused:
        async with SQLCheckpointStore(postgres_url):
            pass

    assert not refused.value.newer
    assert "db upgrade" in str(refused.value)


async def test_tables_that_are_not_ours_are_refused_and_left_alone(store_url: str, tables: Any) -> None:
    await tables(store_url).ask("CREATE TABLE runs (mine INTEGER)")

    with pytest.raises(SchemaVersionError):
        async with SQLCheckpointStore(store_url):
            pass

    assert await tables(store_url).ask("SELECT mine FROM runs") == []


async def test_a_store_that_cannot_be_opened_says_why_without_the_password(postgres_url: str, tmp_path: Path) -> None:
    nowhere = sa.make_url(postgres_url).set(database="trailmark_nowhere").render_as_string(hide_password=False)
    wrong = sa.make_url(postgres_url).set(password="open-sesame").render_as_string(hide_password=False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        deaf = sa.make_url(postgres_url).set(host="127.0.0.1", port=closed.getsockname()[1]).render_as_string(hide_password=False)
    text = tmp_path / "no.db"
    text.write_text("this is a letter to my aunt, and no database at all; it is long enough to be read as a header, too\n" * 10)
    for url in (nowhere, wrong, deaf, f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/runs.db", f"sqlite+aiosqlite:///{text}"):
        with pytest.raises(StoreUnavailableError) as unavailable:
            async with SQLCheckpointStore(url):
                pass
        check_names_the_store(unavailable.value, url)
