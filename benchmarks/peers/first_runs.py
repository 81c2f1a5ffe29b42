"""The first program of each system: three async steps in a row, each adding a line to a list, durable in a new SQLite file.

Texts, since each is the whole of a process that is started for it; ``{file}`` is the database.  Written as the systems' own
documentation begins, with nothing imported that it does not use, and no less durable than in the other rows.
"""

from __future__ import annotations

from bench_resume import BARE_RUN, FIRST_RUN
from peers.work import FLOOR, OURS

LANGGRAPH = """
import asyncio
import operator
from typing import Annotated, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    notes: Annotated[list[str], operator.add]


async def fetch(state):
    return {{"notes": ["fetched"]}}


async def check(state):
    return {{"notes": ["checked"]}}


async def keep(state):
    return {{"notes": ["kept"]}}


flow = StateGraph(State).add_node(fetch).add_node(check).add_node(keep)
flow.add_edge(START, "fetch").add_edge("fetch", "check").add_edge("check", "keep").add_edge("keep", END)


async def main():
    async with AsyncSqliteSaver.from_conn_string("{file}") as saver:
        graph = flow.compile(checkpointer=saver)
        state = await graph.ainvoke({{"notes": []}}, {{"configurable": {{"thread_id": "first"}}}}, durability="sync")
    assert state["notes"] == ["fetched", "checked", "kept"]


asyncio.run(main())
"""

BURR = """
import asyncio

from burr.core import ApplicationBuilder, action
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister


@action(reads=["notes"], writes=["notes"])
async def fetch(state):
    return state.append(notes="fetched")


@action(reads=["notes"], writes=["notes"])
async def check(state):
    return state.append(notes="checked")


@action(reads=["notes"], writes=["notes"])
async def keep(state):
    return state.append(notes="kept")


async def main():
    persister = await AsyncSQLitePersister.from_values(db_path="{file}")
    await persister.connection.execute("PRAGMA journal_mode=WAL")
    await persister.initialize()
    builder = ApplicationBuilder().with_actions(fetch, check, keep).with_transitions(("fetch", "check"), ("check", "keep"))
    app = await builder.with_state(notes=[]).with_entrypoint("fetch").with_state_persister(persister).abuild()
    _, _, state = await app.arun(halt_after=["keep"])
    assert state["notes"] == ["fetched", "checked", "kept"]
    await persister.cleanup()


asyncio.run(main())
"""

DBOS = """
import asyncio
import sqlite3

from dbos import DBOS


@DBOS.step()
async def fetch():
    return "fetched"


@DBOS.step()
async def check():
    return "checked"


@DBOS.step()
async def keep():
    return "kept"


@DBOS.workflow()
async def first():
    return [await fetch(), await check(), await keep()]


async def main():
    raw = sqlite3.connect("{file}")
    raw.execute("PRAGMA journal_mode=WAL")
    raw.close()
    DBOS(config={{"name": "first", "system_database_url": "sqlite:///{file}", "sys_db_pool_size": 1, "log_level": "ERROR"}})
    DBOS.launch()
    assert await first() == ["fetched", "checked", "kept"]
    await asyncio.to_thread(DBOS.destroy)


asyncio.run(main())
"""

PROGRAMS = {FLOOR: BARE_RUN, OURS: FIRST_RUN, "langgraph": LANGGRAPH, "burr": BURR, "dbos": DBOS}
