"""What does a step cost, in memory and durably, alone and in a crowd, and how much does it store?

    python benchmarks/bench_steps.py            all rows (PostgreSQL: a server of our own is started, fsync on)
    python benchmarks/bench_steps.py sqlite     only the rows whose name holds the word

Settings: SQLite in WAL mode with synchronous=FULL; PostgreSQL with fsync and synchronous_commit on; every step durable before
the next starts.  The floor is the bare driver doing only the write, in the same process and round.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import asyncpg
import straight
from flows import chain, counting, fan_out, logging
from measuring import Line, alternate, run, timed

from checkpoint_stores.records import Row
from trailmark import FlowGraph, GraphExecutor
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore
from trailmark.testing.postgres import PostgresServer

STEPS = 400
PAYLOAD = b"x" * 60


async def main() -> list[Line]:
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
    lines: list[Line] = []
    for question in (memory, memory_chain, memory_plain, sqlite, sqlite_crowd, storage, fan, fan_sqlite, postgres):
        if not wanted or any(word in question.__name__ for word in wanted):
            lines += await question()
    return lines


async def per_step(graph: FlowGraph, store: Any, steps: int) -> float:
    """Microseconds per step of one whole run, its creation included."""
    executor = GraphExecutor(graph, store=store, max_steps=steps + 1)
    seconds = await timed(executor.execute({}))
    return seconds / steps * 1e6


async def bare_awaits(steps: int) -> float:
    async def body(n: int) -> dict[str, int]:
        return {"n": n + 1}

    async def loop() -> None:
        n = 0
        for _ in range(steps):
            n = (await body(n))["n"]

    return await timed(loop()) / steps * 1e6


async def straight_steps(steps: int, keep: straight.Keep | None = None) -> float:
    return await timed(straight.counting(steps, keep)) / steps * 1e6


async def straight_crowd(keep: straight.Keep) -> float:
    return 200 * 20 / await timed(straight.crowd(200, 20, keep))


async def memory() -> list[Line]:
    graph = counting(5000)
    async with MemoryCheckpointStore() as store:
        ours, floor = await alternate(lambda: per_step(graph, store, 5000), lambda: bare_awaits(5000))
        again, line = await alternate(lambda: per_step(graph, store, 5000), lambda: straight_steps(5000))
    return [
        Line("in-memory loop, trivial async step, condition each step", "us/step", ours, floor, 8, "memory store"),
        Line("the same, beside a straight line of what must be done", "us/step", again, line, 2 * line, "memory store"),
    ]


async def memory_chain() -> list[Line]:
    graph = chain(500)
    async with MemoryCheckpointStore() as store:
        ours, floor = await alternate(lambda: per_step(graph, store, 500), lambda: bare_awaits(500))
    return [Line("in-memory chain of 500 nodes, no conditions", "us/step", ours, floor, 8, "memory store")]


async def memory_plain() -> list[Line]:
    graph = counting(500, is_plain=True)

    async def in_threads() -> None:
        for _ in range(500):
            await asyncio.to_thread(lambda: {"n": 1})

    async def floor() -> float:
        return await timed(in_threads()) / 500 * 1e6

    async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store, max_steps=501) as executor:

        async def ours() -> float:
            return await timed(executor.execute({})) / 500 * 1e6

        took, bottom = await alternate(ours, floor)
    return [
        Line("in-memory loop, the node a plain function in a thread", "us/step", took, bottom, 1.3 * bottom, "floor: asyncio.to_thread")
    ]


# --- SQLite ---------------------------------------------------------------------------------------------------------


class BareSQLite:
    """The floor: one thread that owns a connection; one hop, one INSERT, one commit for whatever waits."""

    def __init__(self, file: Path) -> None:
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        raw = sqlite3.connect(self._file, isolation_level=None)
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("CREATE TABLE IF NOT EXISTS rows(run BLOB, seq INTEGER, payload BLOB, PRIMARY KEY(run, seq))")
        while (job := self._jobs.get()) is not None:
            jobs = [job, *(self._jobs.get() for _ in range(self._jobs.qsize()))]
            rows = [row for rows, _ in jobs for row in rows]
            if len(rows) > 1:
                raw.execute("BEGIN IMMEDIATE")
            raw.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            if len(rows) > 1:
                raw.execute("COMMIT")
            self._loop.call_soon_threadsafe(_tell, [done for _, done in jobs])
        raw.close()

    def write(self, rows: list[tuple[Any, ...]]) -> asyncio.Future[None]:
        done = self._loop.create_future()
        self._jobs.put((rows, done))
        return done

    def keep(self, row: Row) -> asyncio.Future[None]:
        """As `straight` wants it."""
        return self.write([(row.run_id.encode(), row.seq, row.payload + row.digest)])

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()


def _tell(waiting: list[asyncio.Future[None]]) -> None:
    for done in waiting:
        done.set_result(None)


async def sqlite() -> list[Line]:
    graph = counting(STEPS)
    with tempfile.TemporaryDirectory() as folder:
        bare = BareSQLite(Path(folder) / "floor.db")
        run_number = 0

        async def floor() -> float:
            nonlocal run_number
            run_number += 1
            key = run_number.to_bytes(16)
            started = time.perf_counter()
            for seq in range(STEPS):
                await bare.write([(key, seq, PAYLOAD)])
            return (time.perf_counter() - started) / STEPS * 1e6

        async with SQLCheckpointStore(f"sqlite+aiosqlite:///{folder}/ours.db") as store:
            ours, bottom = await alternate(lambda: per_step(graph, store, STEPS), floor)
            again, line = await alternate(lambda: per_step(graph, store, STEPS), lambda: straight_steps(STEPS, bare.keep))
        bare.close()
    return [
        Line("durable loop in SQLite, a lone run", "us/step", ours, bottom, bottom * 1.3, "WAL, synchronous=FULL"),
        Line("the same, beside a straight line over the bare driver", "us/step", again, line, line * 1.3, "as above"),
    ]


async def sqlite_crowd() -> list[Line]:
    graph = counting(20)
    with tempfile.TemporaryDirectory() as folder:
        bare = BareSQLite(Path(folder) / "floor.db")
        number = 0

        async def floor() -> float:
            nonlocal number
            started = time.perf_counter()
            for seq in range(20):
                number += 1
                await bare.write([(number.to_bytes(16), seq + run * 1000, PAYLOAD) for run in range(200)])
            return 200 * 20 / (time.perf_counter() - started)

        async with SQLCheckpointStore(f"sqlite+aiosqlite:///{folder}/ours.db") as store:
            ours, bottom = await alternate(lambda: crowd(graph, store), floor, rounds=5)
            again, line = await alternate(lambda: crowd(graph, store), lambda: straight_crowd(bare.keep), rounds=5)
        bare.close()
    return [
        Line("200 concurrent runs x 20 durable steps, SQLite", "steps/s", ours, bottom, 25_000, "group commit, FULL"),
        Line("the same, beside 200 straight lines over the bare driver", "steps/s", again, line, line / 2, "as above"),
    ]


async def crowd(graph: FlowGraph, store: Any) -> float:
    executor = GraphExecutor(graph, store=store, max_steps=50)
    started = time.perf_counter()
    await asyncio.gather(*(executor.execute({}) for _ in range(200)))
    return 200 * 20 / (time.perf_counter() - started)


async def storage() -> list[Line]:
    lines = []
    sizes: dict[int, float] = {}
    for steps in (1000, 2000):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "ours.db"
            async with SQLCheckpointStore(f"sqlite+aiosqlite:///{file}", synchronous="OFF") as store:
                executor = GraphExecutor(logging(steps, 1000), store=store, max_steps=steps + 1)
                await executor.execute({"constant": "c" * 20_000})
            sizes[steps] = file.stat().st_size / 1e6
    happened = (1000 * 1000 + 20_000) / 1e6
    lines.append(
        Line("1,000 steps, each appends 1 KB, beside a 20 KB key: stored", "MB", sizes[1000], happened, 1.6, "the whole SQLite file")
    )
    lines.append(Line("2,000 of the same steps, against 1,000", "x", sizes[2000] / sizes[1000], 2.0, 2.0, "file size ratio"))
    return lines


# --- fan-out --------------------------------------------------------------------------------------------------------


async def bare_fan(branches: int) -> float:
    async def one() -> int:
        return 1

    return await timed(asyncio.gather(*(asyncio.create_task(one()) for _ in range(branches)))) * 1e3


async def fan_with(store: Any) -> float:
    graph = _FAN
    executor = GraphExecutor(graph, store=store, max_steps=1000)
    return await timed(executor.execute({})) * 1e3


async def straight_fan() -> float:
    return await timed(straight.fan_out(100)) * 1e3


_FAN = fan_out(100)


async def fan() -> list[Line]:
    async with MemoryCheckpointStore() as store:
        ours, floor = await alternate(lambda: fan_with(store), lambda: bare_fan(100), rounds=15)
        again, line = await alternate(lambda: fan_with(store), straight_fan, rounds=15)
    return [
        Line("fan-out to 100 branches and join", "ms", ours, floor, 2, "memory store"),
        Line("the same, beside straight branches", "ms", again, line, 2 * line, "memory store"),
    ]


async def fan_sqlite() -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        async with SQLCheckpointStore(f"sqlite+aiosqlite:///{folder}/ours.db") as store:
            ours, floor = await alternate(lambda: fan_with(store), lambda: bare_fan(100), rounds=15)
    return [Line("fan-out to 100 branches and join, durable", "ms", ours, floor, 5, "SQLite, WAL, FULL")]


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    running = await asyncio.to_thread(PostgresServer(fsync=True).start)
    try:
        yield await asyncio.to_thread(running.create_database)
    finally:
        await asyncio.to_thread(running.stop)


class BarePostgres:
    """Keeps rows as `straight` wants it: a lone run's each by a statement, those of many by one statement for whatever waits."""

    def __init__(self, raw: Any, one: Any, many: Any) -> None:
        self._raw = raw
        self._one = one
        self._many = many
        self._known: set[str] = set()
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def _know(self, run_ids: set[str]) -> None:
        await self._raw.executemany("INSERT INTO floor_runs VALUES ($1, 1)", [(run_id.encode(),) for run_id in run_ids - self._known])
        self._known |= run_ids

    async def keep_alone(self, row: Row) -> None:
        if row.run_id not in self._known:
            await self._know({row.run_id})
        await self._one.fetchval(row.run_id.encode(), row.seq, row.payload + row.digest)

    def keep(self, row: Row) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            rows = [row for row, _ in batch]
            if any(row.run_id not in self._known for row in rows):
                await self._know({row.run_id for row in rows})
            await self._many.fetch(
                [row.run_id.encode() for row in rows], [row.seq for row in rows], [row.payload + row.digest for row in rows]
            )
            _tell([done for _, done in batch])


async def postgres() -> list[Line]:
    graph, small = counting(STEPS), counting(20)
    async with server() as url:
        raw = await asyncpg.connect(url.replace("+asyncpg", ""))
        await raw.execute("CREATE TABLE floor_runs(run bytea PRIMARY KEY, epoch int)")
        await raw.execute("CREATE TABLE floor_rows(run bytea, seq int, payload bytea, PRIMARY KEY(run, seq))")
        one = await raw.prepare(
            "INSERT INTO floor_rows SELECT r.run, $2, $3 FROM floor_runs r WHERE r.run = $1 AND r.epoch = 1 RETURNING seq"
        )
        many = await raw.prepare(
            "INSERT INTO floor_rows SELECT r.run, v.seq, v.payload FROM unnest($1::bytea[], $2::int[], $3::bytea[]) AS v(run, seq, payload) "
            "JOIN floor_runs r ON r.run = v.run AND r.epoch = 1"
        )
        number = 0

        async def floor() -> float:
            nonlocal number
            number += 1
            key = number.to_bytes(16)
            await raw.execute("INSERT INTO floor_runs VALUES ($1, 1)", key)
            started = time.perf_counter()
            for seq in range(STEPS):
                await one.fetchval(key, seq, PAYLOAD)
            return (time.perf_counter() - started) / STEPS * 1e6

        async def crowd_floor() -> float:
            nonlocal number
            keys = [(number + run + 1).to_bytes(16) for run in range(200)]
            number += 200
            await raw.executemany("INSERT INTO floor_runs VALUES ($1, 1)", [(key,) for key in keys])
            started = time.perf_counter()
            for seq in range(20):
                await many.fetch(keys, [seq] * 200, [PAYLOAD] * 200)
            return 200 * 20 / (time.perf_counter() - started)

        bare = BarePostgres(raw, one, many)
        async with SQLCheckpointStore(url) as store:
            ours, bottom = await alternate(lambda: per_step(graph, store, STEPS), floor)
            again, line = await alternate(lambda: per_step(graph, store, STEPS), lambda: straight_steps(STEPS, bare.keep_alone))
            many_ours, many_bottom = await alternate(lambda: crowd(small, store), crowd_floor, rounds=5)
            many_again, many_line = await alternate(lambda: crowd(small, store), lambda: straight_crowd(bare.keep), rounds=5)
        await raw.close()
    return [
        Line("durable loop in PostgreSQL, a lone run", "us/step", ours, bottom, bottom * 1.3, "fsync on, fenced prepared INSERT"),
        Line("the same, beside a straight line over its bare driver", "us/step", again, line, line * 1.3, "as above"),
        Line("200 concurrent runs x 20 durable steps, PostgreSQL", "steps/s", many_ours, many_bottom, 25_000, "group commit, fsync on"),
        Line("the same, beside 200 straight lines over its bare driver", "steps/s", many_again, many_line, many_line / 2, "as above"),
    ]


if __name__ == "__main__":
    run(main, "steps")
