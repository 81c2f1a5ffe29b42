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
from flows import Counted, chain, counting, fan_out, logging
from measuring import Line, alternate, run, timed

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import pack
from checkpoint_stores.records import Row
from engine.views import model_view
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


async def memory() -> list[Line]:
    graph = counting(5000)
    async with MemoryCheckpointStore() as store:
        ours, floor = await alternate(lambda: per_step(graph, store, 5000), lambda: bare_awaits(5000))
        again, straight = await alternate(lambda: per_step(graph, store, 5000), lambda: straight_line(5000))
    return [
        Line("in-memory loop, trivial async step, condition each step", "us/step", ours, floor, 8, "memory store"),
        Line("the same, beside a straight line of what must be done", "us/step", again, straight, 2 * straight, "memory store"),
    ]


async def straight_line(steps: int) -> float:
    """The duties of such a step and no engine: view, body, check, condition, encoding, digest, row, fold, all in one loop."""

    async def body(state: Counted) -> dict[str, Any]:
        return {"n": state.n + 1}

    def more(state: Counted) -> bool:
        return state.n < steps

    view, chain, plain = model_view(Counted, {}), Chain(), {"n": int}
    values: dict[str, Any] = {"n": 0}
    rows: list[Row] = []

    async def loop() -> None:
        digest = chain.genesis("run")
        goes_on = True
        while goes_on:
            began = time.monotonic_ns() // 1000
            update = await body(view(values.__getitem__))
            ops: list[list[Any]] = []
            for key, value in update.items():
                if plain[key] is not type(value):
                    raise TypeError(key)
                ops.append(["set", key, value])
            after = {key: value for _, key, value in ops}
            goes_on = more(view(lambda key: after[key] if key in after else values[key]))  # noqa: B023 - asked here and now
            payload, ops = pack(ops)
            row = chain.seal(digest, "run", len(rows) + 1, 1, len(rows) + 1, "step", "", "count", "count", payload, began)
            values.update((key, value) for _, key, value in ops)
            digest = row.digest
            rows.append(row._replace(committed_at=time.time_ns() // 1000))

    return await timed(loop()) / steps * 1e6


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
    """The floor: one thread that owns a connection; one hop, one INSERT, one commit per step."""

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
            rows, done = job
            if len(rows) > 1:
                raw.execute("BEGIN IMMEDIATE")
            raw.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            if len(rows) > 1:
                raw.execute("COMMIT")
            self._loop.call_soon_threadsafe(done.set_result, None)
        raw.close()

    def write(self, rows: list[tuple[Any, ...]]) -> asyncio.Future[None]:
        done = self._loop.create_future()
        self._jobs.put((rows, done))
        return done

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()


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
        bare.close()
    return [Line("durable loop in SQLite, a lone run", "us/step", ours, bottom, bottom * 1.3, "WAL, synchronous=FULL")]


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
        bare.close()
    return [Line("200 concurrent runs x 20 durable steps, SQLite", "steps/s", ours, bottom, 25_000, "group commit, FULL")]


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


_FAN = fan_out(100)


async def fan() -> list[Line]:
    async with MemoryCheckpointStore() as store:
        ours, floor = await alternate(lambda: fan_with(store), lambda: bare_fan(100), rounds=15)
    return [Line("fan-out to 100 branches and join", "ms", ours, floor, 2, "memory store")]


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

        async with SQLCheckpointStore(url) as store:
            ours, bottom = await alternate(lambda: per_step(graph, store, STEPS), floor)
            many_ours, many_bottom = await alternate(lambda: crowd(small, store), crowd_floor, rounds=5)
        await raw.close()
    return [
        Line("durable loop in PostgreSQL, a lone run", "us/step", ours, bottom, bottom * 1.3, "fsync on, fenced prepared INSERT"),
        Line("200 concurrent runs x 20 durable steps, PostgreSQL", "steps/s", many_ours, many_bottom, 25_000, "group commit, fsync on"),
    ]


if __name__ == "__main__":
    run(main, "steps")
