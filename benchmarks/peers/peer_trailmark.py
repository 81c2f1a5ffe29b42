"""trailmark, as its README shows it: the memory store, or `SQLCheckpointStore` with nothing said but the URL."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, ClassVar

from flows import asking, counting, fan_out, logging
from peers.peer import Done, Peer

from trailmark import Decision, GraphExecutor
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore


class Trailmark(Peer):
    """Ours."""

    settings: ClassVar = {
        "durability": "one commit per step, waited for; WAL and synchronous=FULL by default; commits of many runs share one (group commit)",
        "in memory": "the memory store, checkpoints kept: there is no mode without",
        "waiting runs": "rows in the database, none in memory; approved by a handle's decide(), which takes the run and goes on with it",
    }
    tables: ClassVar = {"sqlite": "checkpoints", "postgres": "checkpoints"}

    async def set_up(self) -> None:
        self.store: Any
        match self.place.kind:
            case "sqlite":
                self.store = SQLCheckpointStore(f"sqlite+aiosqlite:///{self.place.url}")
            case "postgres":
                self.store = SQLCheckpointStore(self.place.url.replace("postgresql://", "postgresql+asyncpg://", 1))
            case _:
                self.store = MemoryCheckpointStore()
        await self.store.__aenter__()

    async def tear_down(self) -> None:
        await self.store.__aexit__(None, None, None)

    async def asked(self) -> dict[str, str]:
        if self.place.kind == "sqlite":

            def pragmas(wire: Any) -> dict[str, str]:
                return {name: str(wire.fetch(f"PRAGMA {name}")[0][0]) for name in ("journal_mode", "synchronous")}

            said: dict[str, str] = await self.store._database.writer.submit(pragmas)  # noqa: SLF001
            return said
        if self.place.kind == "postgres":
            connection = await self.store._database.connect()  # noqa: SLF001
            said = {name: await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "server_version")}
            await connection.close()
            return said
        return {}

    async def loop(self, steps: int) -> Done:
        executor = GraphExecutor(counting(steps, self.entered), store=self.store, max_steps=steps + 1)
        began = time.perf_counter()
        run = await executor.execute({})
        return Done(time.perf_counter() - began, run.state.n)

    async def crowd(self, runs: int, steps: int) -> Done:
        executor = GraphExecutor(counting(steps, self.entered), store=self.store, max_steps=steps + 1)
        began = time.perf_counter()
        ended = await asyncio.gather(*(executor.execute({}) for _ in range(runs)))
        return Done(time.perf_counter() - began, sum(run.state.n for run in ended))

    async def store_log(self, steps: int, size: int, constant: int) -> Done:
        executor = GraphExecutor(logging(steps, size), store=self.store, max_steps=steps + 1)
        began = time.perf_counter()
        run = await executor.execute({"constant": "c" * constant})
        return Done(time.perf_counter() - began, len(run.state.log))

    async def store_plain(self, steps: int, size: int, constant: int) -> Done:
        return await self.store_log(steps, size, constant)

    async def fan(self, branches: int) -> Done:
        executor = GraphExecutor(fan_out(branches), store=self.store, max_steps=branches * 2 + 10)
        began = time.perf_counter()
        run = await executor.execute({})
        return Done(time.perf_counter() - began, run.state.total)

    async def approve(self, runs: int) -> Done:
        async with GraphExecutor(asking(lambda: None), store=self.store) as executor:
            waiting = await asyncio.gather(*(executor.execute({}) for _ in range(runs)))
            if any(run.status != "waiting" for run in waiting):
                raise AssertionError("a run does not wait")

            async def approved(run_id: str) -> str:
                run = executor.open(run_id)
                await run.decide("ask", Decision.approve(by="ana"))
                return str((await run.result()).status)

            began = time.perf_counter()
            statuses = await asyncio.gather(*(approved(run.run_id) for run in waiting))
            return Done(time.perf_counter() - began, statuses.count("completed"))

    async def go_on(self, times: int) -> Done:
        reached: list[float] = []
        took = []
        async with GraphExecutor(asking(lambda: reached.append(time.perf_counter())), store=self.store) as executor:
            for _ in range(times):
                run = await executor.start({})
                await run.result()
                began = time.perf_counter()
                await run.decide("ask", Decision.approve(by="ana"))
                await run.result()
                took.append(reached[-1] - began)
        return Done(statistics.median(took), len(reached))
