"""The floor: the bare driver doing only the write, or nothing but the awaits.  No system can be faster; none is measured against it alone."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
from bench_steps import PAYLOAD, BareSQLite
from peers.peer import Done, Peer


class Floor(Peer):
    """One INSERT and one commit per step; one commit for what could share it."""

    settings: ClassVar = {
        "durability": "one INSERT of 60 bytes per step, its commit waited for; where runs are many, one commit for the step of all of them",
        "stored": "a table with a row of 1 KB per step and one of 20 KB",
        "waiting runs": "approved: one commit for all decisions, one for all steps behind; to the next node: one commit",
    }
    tables: ClassVar = {"sqlite": "rows", "postgres": "rows"}

    async def set_up(self) -> None:
        self.run = 0
        match self.place.kind:
            case "sqlite":
                self.bare = BareSQLite(Path(self.place.url))
                await self.bare.write([])  # its table is there now
            case "postgres":
                self.raw: Any = await asyncpg.connect(self.place.url)
                await self.raw.execute("CREATE TABLE rows(run bytea, seq int, payload bytea, PRIMARY KEY(run, seq))")
                text = "INSERT INTO rows SELECT * FROM unnest($1::bytea[], $2::int[], $3::bytea[])"
                self.one = await self.raw.prepare("INSERT INTO rows VALUES ($1, $2, $3)")
                self.many = await self.raw.prepare(text)

    async def tear_down(self) -> None:
        match self.place.kind:
            case "sqlite":
                self.bare.close()
            case "postgres":
                await self.raw.close()

    async def loop(self, steps: int) -> Done:
        run = self._next()
        n = 0
        began = time.perf_counter()
        while n < steps:
            n = await self._body(n)
            await self._write([(run, n, PAYLOAD)])
        return Done(time.perf_counter() - began, n)

    async def crowd(self, runs: int, steps: int) -> Done:
        all_runs = [self._next() for _ in range(runs)]
        began = time.perf_counter()
        for seq in range(steps):
            await self._write([(run, seq, PAYLOAD) for run in all_runs])
        return Done(time.perf_counter() - began, runs * steps)

    async def fan(self, branches: int) -> Done:
        run = self._next()
        began = time.perf_counter()
        given = await asyncio.gather(*(asyncio.create_task(self._body(0)) for _ in range(branches)))
        await self._write([(run, seq, PAYLOAD) for seq in range(branches)])
        return Done(time.perf_counter() - began, sum(given))

    async def store_log(self, steps: int, size: int, constant: int) -> Done:
        run = self._next()
        began = time.perf_counter()
        await self._write([(run, 0, b"c" * constant)])
        for seq in range(1, steps + 1):
            await self._write([(run, seq, b"x" * size)])
        return Done(time.perf_counter() - began, steps)

    async def approve(self, runs: int) -> Done:
        done = await self.crowd(runs, 2)
        return Done(done.seconds, done.result // 2)

    async def go_on(self, times: int) -> Done:
        took = [(await self.loop(1)).seconds for _ in range(times)]
        return Done(statistics.median(took), times)

    async def _body(self, n: int) -> int:
        self.entered()
        return n + 1

    async def _write(self, rows: list[tuple[Any, ...]]) -> None:
        match self.place.kind:
            case "sqlite":
                await self.bare.write(rows)
            case "postgres" if len(rows) == 1:
                await self.one.fetch(*rows[0])
            case "postgres":
                await self.many.fetch(*map(list, zip(*rows, strict=True)))

    def _next(self) -> bytes:
        self.run += 1
        return self.run.to_bytes(16)
