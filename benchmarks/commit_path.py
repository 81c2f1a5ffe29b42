"""What a durable commit costs, beside the bare driver doing only the write.

    python benchmarks/commit_path.py [postgresql+asyncpg://user@host/database]

Prints, for SQLite (WAL, synchronous=FULL) and, where a URL is given, for
PostgreSQL: the median of a lone commit of one run, the floor measured in turn
with it in the same process, their ratio; and the commits per second of 200
runs that commit at once.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from checkpoint_stores.ids import new_id
from checkpoint_stores.records import Commit, NewRun
from checkpoint_stores.sql.store import SQLCheckpointStore

ROUNDS, STEPS = 40, 25
RUNS, STEPS_EACH = 200, 20
PAYLOAD = b"1" + b"x" * 300


async def started(store: SQLCheckpointStore) -> tuple[str, bytes]:
    run_id = new_id(await store.now())
    first = store.chain.seal(store.chain.genesis(run_id), run_id, 1, 1, 0, "start", "", "", "work", PAYLOAD, 0)
    await store.create(NewRun(run_id, "bench", "1", "g" * 64, 50), first)
    return run_id, first.digest


def steps(store: SQLCheckpointStore, run_id: str, digest: bytes, number: int) -> list[Commit]:
    commits = []
    for seq in range(2, number + 2):
        row = store.chain.seal(digest, run_id, seq, 1, seq, "step", "", "work", "work", PAYLOAD, 0)
        digest = row.digest
        commits.append(Commit(run_id, 1, (row,)))
    return commits


class SQLiteFloor:
    """One thread, one hop, one fenced statement."""

    def __init__(self, path: Path) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._seq = 0
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE r (run BLOB PRIMARY KEY, epoch INTEGER)")
        connection.execute("CREATE TABLE c (run BLOB, seq INTEGER, digest BLOB, payload BLOB, PRIMARY KEY (run, seq))")
        connection.execute("INSERT INTO r VALUES (?, 1)", (b"r" * 16,))
        statement = "INSERT INTO c SELECT ?, ?, ?, ? FROM r WHERE run = ? AND epoch = 1"
        while (job := self._jobs.get()) is not None:
            future, values = job
            connection.execute(statement, values)
            self._loop.call_soon_threadsafe(future.set_result, None)

    async def commit(self) -> None:
        self._seq += 1
        future = self._loop.create_future()
        self._jobs.put((future, (b"r" * 16, self._seq, b"d" * 32, PAYLOAD, b"r" * 16)))
        await future


class PostgresFloor:
    """One prepared, fenced statement on one connection."""

    def __init__(self, connection: Any, statement: Any) -> None:
        self._connection = connection
        self._statement = statement
        self._seq = 0

    @classmethod
    async def made(cls, store: SQLCheckpointStore) -> PostgresFloor:
        connection = await store._database.connect()  # noqa: SLF001
        await connection.execute("DROP TABLE IF EXISTS floor_r, floor_c")
        await connection.execute("CREATE TABLE floor_r (run bytea PRIMARY KEY, epoch integer)")
        await connection.execute("CREATE TABLE floor_c (run bytea, seq integer, digest bytea, payload bytea, PRIMARY KEY (run, seq))")
        await connection.execute("INSERT INTO floor_r VALUES ($1, 1)", b"r" * 16)
        text = "INSERT INTO floor_c SELECT $1, $2, $3, $4 FROM floor_r WHERE run = $1 AND epoch = 1 RETURNING seq"
        return cls(connection, await connection.prepare(text))

    async def commit(self) -> None:
        self._seq += 1
        await self._statement.fetchrow(b"r" * 16, self._seq, b"d" * 32, PAYLOAD)

    async def close(self) -> None:
        await self._connection.execute("DROP TABLE floor_r, floor_c")
        await self._connection.close()


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1e6


async def measure(name: str, store: SQLCheckpointStore, floor: SQLiteFloor | PostgresFloor) -> None:
    ours, bare = [], []
    commits = iter(steps(store, *await started(store), ROUNDS * STEPS))
    gc.disable()
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            commit = next(commits)
            ours.append(await timed(lambda commit=commit: store.commit(commit)))
        bare.extend([await timed(floor.commit) for _ in range(STEPS)])
    gc.enable()
    lone, least = statistics.median(ours), statistics.median(bare)
    print(f"{name:<11} lone commit {lone:7.1f} us   floor {least:7.1f} us   ratio {lone / least:4.2f}")

    walks = [steps(store, *await started(store), STEPS_EACH) for _ in range(RUNS)]

    async def walk(commits: list[Commit]) -> None:
        for commit in commits:
            await store.commit(commit)

    start = time.perf_counter()
    await asyncio.gather(*(walk(commits) for commits in walks))
    took = time.perf_counter() - start
    print(f"{'':<11} {RUNS} runs at once: {RUNS * STEPS_EACH / took:9,.0f} commits/s   {took / RUNS / STEPS_EACH * 1e6:5.1f} us each")


async def main(urls: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with SQLCheckpointStore(f"sqlite+aiosqlite:///{folder}/runs.db") as store:
            await measure("SQLite", store, SQLiteFloor(Path(folder) / "floor.db"))
    for url in urls:
        async with SQLCheckpointStore(url) as store:
            floor = await PostgresFloor.made(store)
            await measure("PostgreSQL", store, floor)
            await floor.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
