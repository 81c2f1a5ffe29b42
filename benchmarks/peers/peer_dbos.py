"""DBOS: an async workflow whose steps are recorded in its system database, which may be SQLite or PostgreSQL.

It has no graph and no state of its own: the workflow is a function, and what is stored is what each step returned.  A step is a read
(was it done before?) and a transaction, in threads; the workflow waits for both.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._dbos import _get_dbos_instance
from peers.peer import CannotError, Done, Peer

entered: Callable[[], object] = lambda: None  # noqa: E731 - replaced by each round, since steps are functions of the module
reached: list[float] = []


@DBOS.step()
async def count(n: int) -> int:
    entered()
    return n + 1


@DBOS.workflow()
async def counting(steps: int) -> int:
    n = 0
    while n < steps:
        n = await count(n)
    return n


@DBOS.step()
async def line(size: int) -> str:
    return "x" * size


@DBOS.workflow()
async def logging(constant: str, steps: int, size: int) -> int:
    log: list[str] = []
    while len(log) < steps:
        log.append(await line(size))
    return len(log)


@DBOS.step()
async def one() -> int:
    return 1


@DBOS.workflow()
async def fan_out(branches: int) -> int:
    return sum(await asyncio.gather(*(one() for _ in range(branches))))


@DBOS.step()
async def behind() -> int:
    reached.append(time.perf_counter())
    return 1


@DBOS.workflow()
async def asking() -> int:
    return await behind() if await DBOS.recv_async("ask", timeout_seconds=300) == "yes" else 0


class Dbos(Peer):
    """Workflows, steps, send and recv."""

    settings: ClassVar = {
        "durability": "what a step returned is one transaction, waited for; no shared commits",
        "in memory": "none: it needs a database",
        "SQLite": "journal_mode=WAL set by us on the file (its default is a rollback journal); sys_db_pool_size=1, quicker on SQLite than its default of 20",
        "fan-out": "asyncio.gather over steps of one workflow",
        "stored": "the steps' outputs only (pickle in base64), the workflow's input once; the growing list is not stored, replay makes it again",
        "waiting runs": "recv in a workflow that stays in the memory of its process; approved by send; on SQLite messages are polled for: every "
        "second (its default; the most approvals/s), or every ms (its least) where the time to the next node is measured",
        "PostgreSQL": "sys_db_pool_size at its default of 20, LISTEN/NOTIFY",
    }
    tables: ClassVar = {"sqlite": "operation_outputs", "postgres": "dbos.operation_outputs"}

    async def set_up(self) -> None:
        if not self.place.is_durable:
            raise CannotError("dbos keeps every step in a database: it has no store in memory")
        global entered  # noqa: PLW0603 - as above
        entered = self.entered
        config = DBOSConfig(
            name="bench-peers", system_database_url=self.place.url, log_level="ERROR", application_version="1",
            executor_id="bench", notification_listener_polling_interval_sec=0.001 if self.act == "go_on" else 1.0,
        )  # fmt: skip
        if self.place.kind == "sqlite":
            with sqlite3.connect(self.place.url) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            config["system_database_url"] = f"sqlite:///{self.place.url}"
            config["sys_db_pool_size"] = 1
        DBOS(config=config)
        DBOS.launch()

    async def tear_down(self) -> None:
        if self.place.is_durable:
            await asyncio.to_thread(DBOS.destroy)

    async def asked(self) -> dict[str, str]:
        with _get_dbos_instance()._sys_db.engine.connect() as connection:  # noqa: SLF001
            if self.place.kind == "sqlite":
                return {name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar()) for name in ("journal_mode", "synchronous")}
            names = ("fsync", "synchronous_commit", "server_version")
            return {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in names}

    async def loop(self, steps: int) -> Done:
        began = time.perf_counter()
        n = await counting(steps)
        return Done(time.perf_counter() - began, n)

    async def crowd(self, runs: int, steps: int) -> Done:
        began = time.perf_counter()
        counters = await asyncio.gather(*(counting(steps) for _ in range(runs)))
        return Done(time.perf_counter() - began, sum(counters))

    async def store_log(self, steps: int, size: int, constant: int) -> Done:
        began = time.perf_counter()
        length = await logging("c" * constant, steps, size)
        return Done(time.perf_counter() - began, length)

    async def fan(self, branches: int) -> Done:
        began = time.perf_counter()
        total = await fan_out(branches)
        return Done(time.perf_counter() - began, total)

    async def approve(self, runs: int) -> Done:
        handles = [await self._waiting() for _ in range(runs)]
        while len(_get_dbos_instance()._sys_db.notifications_map.snapshot()) < runs:  # noqa: SLF001
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # the last ones still write down until when they wait
        began = time.perf_counter()
        await asyncio.gather(*(DBOS.send_async(handle.workflow_id, "yes", "ask") for handle in handles))
        ended = await asyncio.gather(*(handle.get_result() for handle in handles))
        return Done(time.perf_counter() - began, sum(ended))

    async def go_on(self, times: int) -> Done:
        reached.clear()
        took = []
        for _ in range(times):
            handle = await self._waiting()
            await asyncio.sleep(0.05)  # until it waits
            began = time.perf_counter()
            await DBOS.send_async(handle.workflow_id, "yes", "ask")
            await handle.get_result()
            took.append(reached[-1] - began)
        return Done(statistics.median(took), len(reached))

    async def _waiting(self) -> Any:
        with SetWorkflowID(uuid.uuid4().hex):
            return await DBOS.start_workflow_async(asking)
