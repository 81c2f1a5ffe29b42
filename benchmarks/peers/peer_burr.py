"""Burr (now Apache Burr; the distribution is apache-burr, the import package burr): async actions, its async persisters.

Its persister writes the whole state after each action, in one INSERT and commit that is waited for.  On SQLite the connection is
aiosqlite's; WAL is set through it, since the persister sets no pragma.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import asyncpg
from burr.core import ApplicationBuilder, State, action, default, expr
from burr.core.parallelism import MapStates
from burr.core.persistence import AsyncInMemoryPersister
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister
from burr.integrations.persisters.b_asyncpg import AsyncPostgreSQLPersister
from peers.peer import Done, Peer

CONNECTIONS = 10
"""asyncpg's own default for a pool."""


class Burr(Peer):
    """Application.arun and persisters."""

    settings: ClassVar = {
        "durability": "one INSERT of the whole state per action, committed and waited for",
        "in memory": "first row: no persister; else AsyncInMemoryPersister",
        "SQLite": "journal_mode=WAL set by us on the persister's connection (its default is a rollback journal); runs that share the "
        "connection share commits",
        "fan-out": "MapStates with async tasks: each branch is an application of its own",
        "waiting runs": "halt_before; approved: the application is built again from the database with initialize_from, the decision is an input; "
        "from the decision to the next node: the application stays in memory",
        "PostgreSQL": f"AsyncPostgreSQLPersister; a lone run on one connection, the crowd on a pool of {CONNECTIONS}",
    }
    tables: ClassVar = {"sqlite": "burr_state", "postgres": "burr_state"}

    async def set_up(self) -> None:
        self.persister: Any = None
        match self.place.kind:
            case "memory":
                self.persister = AsyncInMemoryPersister()
            case "sqlite":
                self.persister = await AsyncSQLitePersister.from_values(db_path=self.place.url)
                await self.persister.connection.execute("PRAGMA journal_mode=WAL")
                await self.persister.initialize()
            case "postgres":
                self.persister = AsyncPostgreSQLPersister(connection=await asyncpg.connect(self.place.url))
                await self.persister.initialize()

    async def tear_down(self) -> None:
        if self.place.is_durable:
            await self.persister.cleanup()

    async def asked(self) -> dict[str, str]:
        said = {}
        if self.place.kind == "sqlite":
            for name in ("journal_mode", "synchronous"):
                async with self.persister.connection.execute(f"PRAGMA {name}") as found:
                    said[name] = str((await found.fetchone())[0])
        if self.place.kind == "postgres":
            for name in ("fsync", "synchronous_commit", "server_version"):
                said[name] = await self.persister.connection.fetchval(f"SHOW {name}")
        return said

    async def loop(self, steps: int) -> Done:
        began = time.perf_counter()
        app = await self._counting(steps, self.persister)
        _, _, state = await app.arun(halt_before=["end"])
        return Done(time.perf_counter() - began, state["n"])

    async def crowd(self, runs: int, steps: int) -> Done:
        pool = await asyncpg.create_pool(self.place.url, min_size=CONNECTIONS) if self.place.kind == "postgres" else None
        persister = AsyncPostgreSQLPersister(pool=pool) if pool else self.persister

        async def one() -> int:
            _, _, state = await (await self._counting(steps, persister)).arun(halt_before=["end"])
            return int(state["n"])

        began = time.perf_counter()
        counters = await asyncio.gather(*(one() for _ in range(runs)))
        took = time.perf_counter() - began
        if pool:
            await pool.close()
        return Done(took, sum(counters))

    async def store_log(self, steps: int, size: int, constant: int) -> Done:
        line = "x" * size

        @action(reads=["n", "log"], writes=["n", "log"])
        async def log(state: State) -> State:
            return state.append(log=line).update(n=state["n"] + 1)

        began = time.perf_counter()
        app = await self._round(log, steps, self.persister, constant="c" * constant, log=[])
        _, _, state = await app.arun(halt_before=["end"])
        return Done(time.perf_counter() - began, len(state["log"]))

    async def fan(self, branches: int) -> Done:
        began = time.perf_counter()
        app = await _kept(ApplicationBuilder().with_actions(all=FanOut()).with_state(branches=branches), "all", self.persister).abuild()
        _, _, state = await app.arun(halt_after=["all"])
        return Done(time.perf_counter() - began, state["total"])

    async def approve(self, runs: int) -> Done:
        run_ids = [uuid.uuid4().hex for _ in range(runs)]
        graph = _asking(lambda: None)

        async def park(run_id: str) -> None:
            app = await _kept(graph().with_state(n=0), "begin", self.persister, run_id).abuild()
            await app.arun(halt_before=["ask"])

        async def approved(run_id: str) -> int:
            builder = graph().with_identifiers(app_id=run_id, partition_key="bench").with_state_persister(self.persister)
            builder = builder.initialize_from(
                self.persister, resume_at_next_action=True, default_state={"n": 0}, default_entrypoint="begin"
            )
            app = await builder.abuild()
            _, _, state = await app.arun(halt_after=["behind"], inputs={"decision": "yes"})
            return int(state["n"])

        await asyncio.gather(*(park(run_id) for run_id in run_ids))
        began = time.perf_counter()
        ended = await asyncio.gather(*(approved(run_id) for run_id in run_ids))
        return Done(time.perf_counter() - began, sum(ended))

    async def go_on(self, times: int) -> Done:
        reached: list[float] = []
        graph = _asking(lambda: reached.append(time.perf_counter()))
        took = []
        for _ in range(times):
            app = await _kept(graph().with_state(n=0), "begin", self.persister).abuild()
            await app.arun(halt_before=["ask"])
            began = time.perf_counter()
            await app.arun(halt_after=["behind"], inputs={"decision": "yes"})
            took.append(reached[-1] - began)
        return Done(statistics.median(took), len(reached))

    async def _counting(self, steps: int, persister: Any) -> Any:
        entered = self.entered

        @action(reads=["n"], writes=["n"])
        async def count(state: State) -> State:
            entered()
            return state.update(n=state["n"] + 1)

        return await self._round(count, steps, persister)

    async def _round(self, body: Any, steps: int, persister: Any, **state: Any) -> Any:
        builder = ApplicationBuilder().with_actions(again=body, end=end).with_state(n=0, **state)
        builder = builder.with_transitions(("again", "again", expr(f"n < {steps}")), ("again", "end", default))
        return await _kept(builder, "again", persister).abuild()


@action(reads=[], writes=[])
async def end(state: State) -> State:
    return state


@action(reads=[], writes=["one"])
async def one(state: State) -> State:
    return state.update(one=1)


class FanOut(MapStates):
    """Maps one action over as many states as the state says."""

    reads: ClassVar = ["branches"]
    writes: ClassVar = ["total"]

    def is_async(self) -> bool:
        return True

    def action(self, state: State, inputs: dict[str, Any]) -> Any:
        return one

    async def states(self, state: State, context: Any, inputs: dict[str, Any]) -> AsyncIterator[State]:
        for index in range(state["branches"]):
            yield state.update(index=index)

    async def reduce(self, state: State, states: AsyncIterator[State]) -> State:
        return state.update(total=sum([each["one"] async for each in states]))


def _asking(reached: Callable[[], object]) -> Callable[[], ApplicationBuilder[Any]]:
    """Begin, ask (halted before, so that the decision is its input), go on."""

    @action(reads=[], writes=["decision"])
    async def ask(state: State, decision: str) -> State:
        return state.update(decision=decision)

    @action(reads=["n", "decision"], writes=["n"])
    async def behind(state: State) -> State:
        reached()
        return state.update(n=state["n"] + (state["decision"] == "yes"))

    def built() -> ApplicationBuilder[Any]:
        return ApplicationBuilder().with_actions(begin=end, ask=ask, behind=behind).with_transitions(("begin", "ask"), ("ask", "behind"))

    return built


def _kept(builder: ApplicationBuilder[Any], entry: str, persister: Any, run_id: str = "") -> ApplicationBuilder[Any]:
    # The partition must be named: without one the PostgreSQL persister writes NULL into its primary key and fails.
    builder = builder.with_entrypoint(entry).with_identifiers(app_id=run_id or uuid.uuid4().hex, partition_key="bench")
    return builder.with_state_persister(persister) if persister else builder
