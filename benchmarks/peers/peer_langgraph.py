"""LangGraph: a StateGraph over a TypedDict, compiled once, called by `ainvoke`; its own savers, with ``durability="sync"``.

"sync" is the only one of its three modes in which a step is stored before the next one starts ("async", the default, stores it
meanwhile; "exit" at the end).  A step is then two commits: the writes of the task, and the checkpoint; the second is waited for.
"""

from __future__ import annotations

import asyncio
import operator
import statistics
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, ClassVar, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from peers.peer import Done, Peer


class Counted(TypedDict):
    """A number."""

    n: int


class Summed(TypedDict):
    """A number that branches add to."""

    total: Annotated[int, operator.add]


def _appended(log: list[str], updates: list[list[str]]) -> list[str]:
    return [*log, *(line for update in updates for line in update)]


class Logged(TypedDict):
    """A list that grows beside a key that never changes."""

    constant: str
    n: int
    log: Annotated[list[str], operator.add]


class Deltas(TypedDict):
    """The same, the list stored by its changes."""

    constant: str
    n: int
    log: Annotated[list[str], DeltaChannel(_appended)]


class LangGraph(Peer):
    """StateGraph and savers."""

    settings: ClassVar = {
        "durability": 'durability="sync": the checkpoint is waited for; two commits per step (task writes, checkpoint), one connection',
        "in memory": "first row: no checkpointer; else InMemorySaver",
        "fan-out": "Send to one node (faster on SQLite than 100 nodes)",
        "stored": "DeltaChannel (beta; a snapshot every 100 updates, its default); the row below: operator.add, as its tutorials have it",
        "waiting runs": "interrupt(); approved by Command(resume=...), a row in the database until then",
        "PostgreSQL": "AsyncPostgresSaver.from_conn_string, one connection: the saver takes its lock for every call, so a pool is no faster",
    }
    tables: ClassVar = {"sqlite": "checkpoints", "postgres": "checkpoints"}
    branches = "writes"

    async def set_up(self) -> None:
        self.open = AsyncExitStack()
        self.saver: Any = None
        match self.place.kind:
            case "memory":
                self.saver = InMemorySaver()
            case "sqlite":
                self.saver = await self.open.enter_async_context(AsyncSqliteSaver.from_conn_string(self.place.url))
                await self.saver.setup()
            case "postgres":
                self.saver = await self.open.enter_async_context(AsyncPostgresSaver.from_conn_string(self.place.url))
                await self.saver.setup()

    async def tear_down(self) -> None:
        await self.open.aclose()

    async def asked(self) -> dict[str, str]:
        said = {}
        if self.place.kind == "sqlite":
            for name in ("journal_mode", "synchronous"):
                async with self.saver.conn.execute(f"PRAGMA {name}") as found:
                    said[name] = str((await found.fetchone())[0])
        if self.place.kind == "postgres":
            for name in ("fsync", "synchronous_commit", "server_version"):
                found = await self.saver.conn.execute(f"SHOW {name}")
                said[name] = (await found.fetchone())[name]
        return said

    async def loop(self, steps: int) -> Done:
        graph = self._counting(steps)
        began = time.perf_counter()
        state = await self._run(graph, {"n": 0}, steps)
        return Done(time.perf_counter() - began, state["n"])

    async def crowd(self, runs: int, steps: int) -> Done:
        graph = self._counting(steps)
        began = time.perf_counter()
        states = await asyncio.gather(*(self._run(graph, {"n": 0}, steps) for _ in range(runs)))
        return Done(time.perf_counter() - began, sum(state["n"] for state in states))

    async def store_log(self, steps: int, size: int, constant: int) -> Done:
        return await self._store(Deltas, steps, size, constant)

    async def store_plain(self, steps: int, size: int, constant: int) -> Done:
        return await self._store(Logged, steps, size, constant)

    async def _store(self, kept: type[Any], steps: int, size: int, constant: int) -> Done:
        line = "x" * size

        async def log(state: dict[str, Any]) -> dict[str, Any]:
            return {"log": [line], "n": state["n"] + 1}

        graph = _round(StateGraph(kept), log, lambda state: state["n"] < steps).compile(checkpointer=self.saver)
        began = time.perf_counter()
        state = await self._run(graph, {"constant": "c" * constant, "n": 0, "log": []}, steps)
        return Done(time.perf_counter() - began, len(state["log"]))

    async def fan(self, branches: int) -> Done:
        flow = StateGraph(Summed)

        async def one(state: Summed) -> dict[str, int]:
            return {"total": 1}

        flow.add_node("one", one)
        flow.add_conditional_edges(START, lambda state: [Send("one", {}) for _ in range(branches)], ["one"])
        flow.add_edge("one", END)
        graph = flow.compile(checkpointer=self.saver)
        began = time.perf_counter()
        state = await self._run(graph, {"total": 0}, 10)
        return Done(time.perf_counter() - began, state["total"])

    async def approve(self, runs: int) -> Done:
        graph = self._asking(lambda: None)
        threads = [uuid.uuid4().hex for _ in range(runs)]
        waiting = await asyncio.gather(*(self._run(graph, {"n": 0}, 5, thread) for thread in threads))
        if not all("__interrupt__" in state for state in waiting):
            raise AssertionError("a run does not wait")
        began = time.perf_counter()
        states = await asyncio.gather(*(self._run(graph, Command(resume="yes"), 5, thread) for thread in threads))
        return Done(time.perf_counter() - began, sum(state["n"] for state in states))

    async def go_on(self, times: int) -> Done:
        reached: list[float] = []
        graph = self._asking(lambda: reached.append(time.perf_counter()))
        took = []
        for _ in range(times):
            thread = uuid.uuid4().hex
            await self._run(graph, {"n": 0}, 5, thread)
            began = time.perf_counter()
            await self._run(graph, Command(resume="yes"), 5, thread)
            took.append(reached[-1] - began)
        return Done(statistics.median(took), len(reached))

    async def _run(self, graph: Any, given: Any, steps: int, thread: str = "") -> Any:
        config: dict[str, Any] = {"recursion_limit": steps + 5}
        if self.saver is None:
            return await graph.ainvoke(given, config)
        config["configurable"] = {"thread_id": thread or uuid.uuid4().hex}
        return await graph.ainvoke(given, config, durability="sync")

    def _counting(self, steps: int) -> Any:
        entered = self.entered

        async def count(state: Counted) -> dict[str, int]:
            entered()
            return {"n": state["n"] + 1}

        return _round(StateGraph(Counted), count, lambda state: state["n"] < steps).compile(checkpointer=self.saver)

    def _asking(self, reached: Callable[[], object]) -> Any:
        async def ask(state: Counted) -> dict[str, int]:
            return {"n": 0 if interrupt("go on?") == "yes" else -1}

        async def behind(state: Counted) -> dict[str, int]:
            reached()
            return {"n": state["n"] + 1}

        flow = StateGraph(Counted)
        flow.add_node("ask", ask)
        flow.add_node("behind", behind)
        flow.add_edge(START, "ask")
        flow.add_edge("ask", "behind")
        flow.add_edge("behind", END)
        return flow.compile(checkpointer=self.saver)


def _round(flow: Any, body: Any, more: Callable[[Any], bool]) -> Any:
    flow.add_node("again", body)
    flow.add_edge(START, "again")
    flow.add_conditional_edges("again", lambda state: "again" if more(state) else END, ["again", END])
    return flow
