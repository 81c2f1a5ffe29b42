"""The program that the tests' child processes come from, and what such a child can be asked to do.

One process imports everything, opens no database and starts no thread; for each connection to its socket it forks a
child, which answers one request (a line of JSON) with lines of JSON and ends.  So a child is a real process that can
really be killed, and costs milliseconds.  How a child ended is told on the same connection by the process that forked
it, once nothing of the child is left: ``{"ended": -9}``.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sqlite3
import sys
import traceback
from datetime import timedelta
from typing import Any

import aiosqlite  # noqa: F401 - everything is loaded before the fork, so that no child pays for it
import asyncpg  # noqa: F401
import networkx as nx  # noqa: F401
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401
from flows_under_fire import GRAPHS, Fire, die

from trailmark import Committed, Decision, GraphExecutor, Retention, RunResult, prune
from trailmark.checkpoint_stores import (
    Commit,
    DecisionRecord,
    EffectRecord,
    Inbox,
    Lease,
    NewRun,
    Receipt,
    Resumption,
    Row,
    RunRecord,
    Snapshot,
    SQLCheckpointStore,
    Standing,
)
from trailmark.worker import Worker


class MortalStore(SQLCheckpointStore):
    """A store whose process can be made to die right before or right after a transaction, or in the middle of one."""

    dies_before: Any = None
    """``"create"``, ``"acquire"``, ``"decide"``, ``"cancel"``, ``"begin debit"``, ``"end debit"`` (an effect's name) or the seq of a row."""
    dies_after: Any = None
    stops_after: Any = None
    """As ``dies_before``; the process stops there until SIGCONT."""
    ticks: int | None = None
    """Die after so many instructions of SQLite's machine, counted from the beginning of the commit of ``dies_before``."""
    _armed: int | None = None
    _done: dict[str, int]

    async def create(self, run: NewRun, first: Row) -> Lease:
        return await self._around(super().create(run, first), "create")

    async def acquire(self, run_id: str, **options: Any) -> Lease:
        return await self._around(super().acquire(run_id, **options), "acquire")

    async def decide(self, run_id: str, barrier: str, decision: Any) -> DecisionRecord:
        return await self._around(super().decide(run_id, barrier, decision), "decide")

    async def request_cancel(self, run_id: str, **options: Any) -> RunRecord:
        return await self._around(super().request_cancel(run_id, **options), "cancel")

    async def begin_effect(self, effect: EffectRecord, epoch: int, **options: Any) -> tuple[EffectRecord, bool]:
        return await self._around(super().begin_effect(effect, epoch, **options), f"begin {effect.name}")

    async def end_effect(self, effect: EffectRecord, epoch: int) -> EffectRecord:
        return await self._around(super().end_effect(effect, epoch), f"end {effect.name}")

    def transaction(self, **options: Any) -> Any:
        step: Any = super().transaction(**options)
        write, finish = step._write, step._finish

        async def dying_write(work: Any) -> Any:
            return await self._around(write(work), *(f"write {row[1]}" for row in work.rows))

        async def dying_finish(work: Any) -> None:
            await self._around(finish(work), *(f"finish {row[1]}" for row in work.rows))

        step._write, step._finish = dying_write, dying_finish
        return step

    async def inbox(self, run_id: str) -> Inbox:
        return await self._around(super().inbox(run_id), "inbox")

    async def commit(self, commit: Commit, **options: Any) -> Receipt:
        return await self._around(super().commit(commit, **options), *(row.seq for row in commit.rows))

    async def standing(self, run_id: str, **options: Any) -> Standing:
        return await self._around(super().standing(run_id, **options), "standing")

    async def take_up(self, resumption: Resumption) -> Receipt:
        return await self._around(super().take_up(resumption), "take_up", *(row.seq for row in resumption.commit.rows))

    async def delete(self, run_id: str) -> RunRecord:
        return await self._around(super().delete(run_id), *self._next("delete"))

    async def drop_before(self, snapshot: Snapshot) -> int:
        return await self._around(super().drop_before(snapshot), *self._next("drop"))

    def _next(self, what: str) -> list[Any]:
        """The first, second ... thing of its kind this process does: ``delete 1``."""
        self._done[what] = self._done.get(what, 0) + 1
        return [f"{what} {self._done[what]}"]

    async def _around(self, work: Any, *names: Any) -> Any:
        if self.dies_before in names:
            if self.ticks is None:
                die()
            self._armed = self.ticks
        answer = await work
        if self.dies_after in names:
            die()
        if self.stops_after in names:
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer

    def count_ticks(self) -> None:
        """Let SQLite's machine count what it does on the connection that writes."""
        connect = self._database.connect_writer

        def connect_writer() -> sqlite3.Connection:
            connection = connect()
            connection.set_progress_handler(self._tick, 1)
            return connection

        self._database.connect_writer = connect_writer

    def _tick(self) -> None:
        if self._armed is not None:
            self._armed -= 1
            if self._armed == 0:
                die()


def show_tasks() -> None:
    """Say on stderr where this child stands: the test has waited for it too long."""
    for task in asyncio.all_tasks():
        task.print_stack()
    faulthandler.dump_traceback()


class Child:
    """One request, carried out in a process of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._heard = bytearray()
        self._ear = asyncio.Lock()
        """Who waits for a line gets one, however many came at once."""

    def tell(self, line: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(line).encode() + b"\n")

    def hear_now(self) -> bytes:
        """The next line, waiting for it in this very thread."""
        while b"\n" not in self._heard:
            self._heard += self._connection.recv(65536)
        line, _, rest = bytes(self._heard).partition(b"\n")
        self._heard[:] = rest
        return line

    async def hear(self) -> str:
        """The next line; the loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        async with self._ear:
            self._connection.setblocking(False)
            try:
                while b"\n" not in self._heard:
                    self._heard += await loop.sock_recv(self._connection, 65536)
            finally:
                self._connection.setblocking(True)
            return self.hear_now().decode()

    def run(self) -> None:
        request = json.loads(self.hear_now())
        self.tell({"pid": os.getpid()})
        try:
            asyncio.run(self._carry_out(request))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            fields = {name: value for name, value in vars(error).items() if isinstance(value, str | int | None)}
            self.tell({"error": {"type": type(error).__name__, "message": str(error), "trace": traceback.format_exc(), **fields}})

    async def _carry_out(self, request: dict[str, Any]) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, show_tasks)
        Fire.journal = os.open(request["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        Fire.dies_in = tuple(request["dies_in"]) if "dies_in" in request else None
        Fire.waits_in, Fire.blocks_in = request.get("waits_in"), request.get("blocks_in")
        Fire.hangs = request.get("hangs", False)
        Fire.tell, Fire.hear, Fire.hear_now = self.tell, self.hear, self.hear_now
        if "file_limit" in request:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], resource.RLIM_INFINITY))
        store = MortalStore(request["url"], lease=timedelta(seconds=request.get("lease", 30)), synchronous="OFF")
        store.dies_before, store.dies_after = request.get("dies_before"), request.get("dies_after")
        store.stops_after = request.get("stops_after")
        store._done = {}
        store.ticks = request.get("ticks")
        if store.ticks is not None:
            store.count_ticks()
        async with store:
            await getattr(self, request["do"])(store, request)

    def _observers(self, request: dict[str, Any]) -> list[Any]:
        """What looks on: behind the commit of a row it may die, stop (until SIGCONT), or keep the whole loop waiting for a word."""

        def look(committed: Committed) -> None:
            if committed.row.seq == request.get("dies_behind"):
                die()
            if committed.row.seq == request.get("stops_behind"):
                os.kill(os.getpid(), signal.SIGSTOP)
            if committed.row.seq == request.get("asks_behind"):
                self.tell({"behind": committed.row.seq})
                self.hear_now()

        return [look]

    async def _ready(self, request: dict[str, Any]) -> None:
        if request.get("on_a_word"):
            self.tell({"ready": True})
            await self.hear()

    # --- what can be asked ------------------------------------------------------------------------------------------
    async def start(self, store: MortalStore, request: dict[str, Any]) -> None:
        async with GraphExecutor(GRAPHS[request["flow"]], store=store, observers=self._observers(request)) as executor:
            await self._ready(request)
            options = {name: request[name] for name in ("run_id", "run_key", "if_exists", "through_barriers") if name in request}
            self._show(await executor.execute(request.get("input"), **options))

    async def resume(self, store: MortalStore, request: dict[str, Any]) -> None:
        async with GraphExecutor(GRAPHS[request["flow"]], store=store, observers=self._observers(request)) as executor:
            await store.run(request["run_id"])
            await self._ready(request)
            options = {name: request[name] for name in ("takeover", "through_barriers") if name in request}
            self._show(await executor.resume(request["run_id"], **options))

    async def watch(self, store: MortalStore, request: dict[str, Any]) -> None:
        """Drive a run (a new one, or ``run_id``) and tell every event that comes after ``after``."""
        async with GraphExecutor(GRAPHS[request["flow"]], store=store) as executor:
            run = await (executor.attach(request["run_id"], takeover=True) if "run_id" in request else executor.start(request.get("input")))
            async for envelope in run.events(after=request.get("after")):
                self.tell({"event": envelope.model_dump_json()})
            self._show(await run.result())

    async def decide(self, store: MortalStore, request: dict[str, Any]) -> None:
        decision = {"approve": Decision.approve, "reject": Decision.reject}[request["action"]](by=request["by"])
        await store.run(request["run_id"])
        await self._ready(request)
        record = await store.decide(request["run_id"], request["barrier"], decision)
        self.tell({"decided": {"id": record.id, "actor": record.actor, "action": record.action}})

    async def decide_here(self, store: MortalStore, request: dict[str, Any]) -> None:
        """Decide, and go on with the run in this process."""
        decision = {"approve": Decision.approve, "reject": Decision.reject}[request["action"]](by=request["by"])
        async with GraphExecutor(GRAPHS[request["flow"]], store=store) as executor:
            run = executor.open(request["run_id"])
            record = await run.decide(request["barrier"], decision)
            self.tell({"decided": {"id": record.id, "actor": record.actor, "action": record.action}})
            self._show(await run.result())

    async def decide_often(self, store: MortalStore, request: dict[str, Any]) -> None:
        """Decide one barrier of many runs, each on a word."""
        decision = {"approve": Decision.approve, "reject": Decision.reject}[request["action"]](by=request["by"])
        for run_id in request["run_ids"]:
            await self._ready(request)
            try:
                record = await store.decide(run_id, request["barrier"], decision)
                self.tell({"decided": record.action})
            except Exception as error:  # noqa: BLE001
                self.tell({"refused": {"type": type(error).__name__, "winner": getattr(error, "winner", None), "message": str(error)}})

    async def cancel(self, store: MortalStore, request: dict[str, Any]) -> None:
        async with GraphExecutor(GRAPHS[request["flow"]], store=store) as executor:
            await self._ready(request)
            self._show(await executor.cancel(request["run_id"], by=request["by"], reason=request.get("reason", "")))

    async def work(self, store: MortalStore, request: dict[str, Any]) -> None:
        """Be a worker until nothing is due, or until SIGTERM."""
        options = {name: request[name] for name in ("concurrency", "max_recoveries") if name in request}
        worker = Worker(GRAPHS[request["flow"]], store=store, **options)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        await self._ready(request)
        await worker.run(until_idle=request.get("until_idle", True))

    async def prune(self, store: MortalStore, request: dict[str, Any]) -> None:
        days = request.get("runs_for")
        retention = Retention(runs_for=None if days is None else timedelta(days=days), checkpoints=request.get("checkpoints"))
        done = await prune(store, retention)
        self.tell({"pruned": {"runs": [run.run_id for run in done.runs], "cuts": [cut.run_id for cut in done.cuts]}})

    def _show(self, result: RunResult) -> None:
        self.tell(
            {
                "result": {
                    "run_id": result.run_id, "status": result.status, "values": result.values, "steps": result.steps,
                    "attempt": result.attempt, "waiting_for": result.waiting_for, "seq": result.seq,
                }
            }
        )  # fmt: skip


class Nursery:
    """Forks a child for each connection and tells how each ended.  Ends, with all its children, when its stdin does."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._children: dict[int, socket.socket] = {}
        woken, wakes = socket.socketpair()
        woken.setblocking(False)
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._fork)
        self._selector.register(woken, selectors.EVENT_READ, self._collect)
        self._selector.register(sys.stdin.buffer, selectors.EVENT_READ, self._end)
        self._woken, self._wakes = woken, wakes

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _fork(self) -> None:
        connection, _ = self._listener.accept()
        pid = os.fork()
        if pid:
            self._children[pid] = connection
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._listener.close()
        for other in self._children.values():
            other.close()
        Child(connection).run()
        sys.stderr.flush()
        os._exit(0)

    def _collect(self) -> None:
        self._woken.recv(4096)
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._say(self._children[pid], {"stopped": True})
            else:
                connection = self._children.pop(pid)
                self._say(connection, {"ended": os.waitstatus_to_exitcode(status)})
                connection.close()

    @staticmethod
    def _say(connection: socket.socket, line: dict[str, Any]) -> None:
        try:
            connection.sendall(json.dumps(line).encode() + b"\n")
        except OSError:
            pass  # the test has gone away

    def _end(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)


if __name__ == "__main__":
    sqlalchemy.dialects.postgresql.asyncpg.dialect()
    gc.freeze()
    nursery = Nursery(sys.argv[1])
    os.write(1, b"ready\n")
    nursery.serve()
