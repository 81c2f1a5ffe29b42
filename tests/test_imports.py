"""What a program loads is what it uses: said as allow-lists, since a time says little on another machine."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import trailmark
import trailmark.checkpoint_stores
import trailmark.reducers

TELLS = """
import sys

BEFORE = set(sys.modules)

def loaded():
    import json
    from pathlib import Path

    found = set()
    for name in set(sys.modules) - BEFORE:
        where = getattr(sys.modules[name], "__file__", None)
        if where and {"site-packages", "dist-packages"} & set(Path(where).parts):
            found.add(name)
    return json.dumps([sorted(found), sorted(ours())])

def ours():
    return {name for name in sys.modules if name.partition(".")[0] in ("trailmark", "engine", "checkpoint_stores", "reducers")}

def dataclasses():
    import dataclasses, json

    there = [(name, each) for name in ours() for each in vars(sys.modules[name]).values() if isinstance(each, type)]
    return json.dumps(sorted(each.__name__ for name, each in there if each.__module__ == name and dataclasses.is_dataclass(each)))
"""

RUNS = """
import asyncio, trailmark
from trailmark.checkpoint_stores import SQLCheckpointStore

async def go(state):
    return {"n": state["n"] + 1}

flow = trailmark.Flow("small", {"n": int}).add_node("go", go).set_entry("go").add_edge("go", trailmark.END)

async def main():
    async with SQLCheckpointStore(URL) as store:
        run = await trailmark.GraphExecutor(flow.compile(), store=store).execute({"n": 1})
        assert run.values == {"n": 2}
        LOOKS

asyncio.run(main())
"""

MODELS = {"annotated_types", "orjson", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}
"""What every state and every update passes through."""


DECIDED = """
import asyncio, trailmark
from trailmark.checkpoint_stores import SQLCheckpointStore

async def go(state):
    return {"n": state["n"] + 1}

flow = trailmark.Flow("asked", {"n": int}).add_node("go", go).add_barrier("boss", prompt="Go on?").set_entry("go")
flow.add_edge("go", "boss").add_edge("boss", trailmark.END, when=trailmark.approved).add_edge("boss", trailmark.END)

async def started(store):
    run = await trailmark.GraphExecutor(flow.compile(), store=store).execute({"n": 1}, run_key="mine")
    assert run.status == "waiting"
    again = await trailmark.GraphExecutor(flow.compile(), store=store).execute({"n": 1}, run_key="mine")
    assert again.run_id == run.run_id

async def decided(store):
    run = await store.run_by_key("asked", "mine")
    (ticket,) = await store.barriers(run_id=run.run_id)
    await store.decide(run.run_id, ticket.ticket, trailmark.Decision.approve(by="ana"))
    assert [each.actor for each in await store.decisions(run.run_id)] == ["ana"]
    assert await store.graph(run.graph_hash)

async def resumed(store):
    run = await store.run_by_key("asked", "mine")
    run = await trailmark.GraphExecutor(flow.compile(), store=store).resume(run.run_id)
    assert run.status == "completed" and run.values == {"n": 2}
    assert await store.verify(run.run_id) == []
    assert len((await store.load(run.run_id))[1]) == len([row async for row in store.history(run.run_id)]) > 2

async def worked(store):
    from trailmark.worker import Worker

    run_id = await trailmark.GraphExecutor(flow.compile(), store=store).submit({"n": 7})
    await Worker([flow.compile()], store=store).run(until_idle=True)
    assert (await store.run(run_id)).status == "waiting"

async def handled(store):
    handle = await trailmark.GraphExecutor(flow.compile(), store=store).start({"n": 5})
    assert (await handle.result()).status == "waiting"
    assert (await handle.decide("boss", trailmark.Decision.approve(by="ana"))).actor == "ana"
    assert (await handle.result()).status == "completed"

async def main():
    async with SQLCheckpointStore(URL) as store:
        await PART(store)

asyncio.run(main())
"""


def told_at_the_end(program: str, asked: str) -> Any:
    """What ``asked``, a function of those above, answers once a program has run."""
    told = f"{TELLS}\n{textwrap.dedent(program)}\nprint({asked}())"
    done = subprocess.run([sys.executable, "-P", "-c", told], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def loaded(program: str) -> tuple[set[str], set[str]]:
    """The modules of others and of ours that a program has loaded at its end."""
    others, ours = told_at_the_end(program, "loaded")
    return set(others), set(ours)


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def a_run(url: str, looks: str = "pass") -> str:
    return RUNS.replace("URL", repr(url)).replace("LOOKS", looks)


def test_the_front_door_alone_loads_no_package_of_others() -> None:
    others, ours = loaded("import trailmark")
    assert others == set()
    assert packages(ours - {"engine", "checkpoint_stores", "reducers"}) == {"trailmark"}


def test_flows_and_an_executor_load_the_models_and_the_json_and_nothing_else() -> None:
    others, _ = loaded("import trailmark; trailmark.Flow, trailmark.GraphExecutor")
    assert "pydantic" in others
    assert packages(others) <= MODELS


def test_the_sql_store_loads_the_json_and_neither_sqlalchemy_nor_any_driver_but_the_standard_librarys() -> None:
    others, _ = loaded("import trailmark.checkpoint_stores as stores; stores.SQLCheckpointStore")
    assert packages(others) == {"orjson"}


def test_a_run_on_sqlite_loads_no_sqlalchemy_neither_for_a_new_file_nor_for_an_old_one(sqlite_url: str) -> None:
    for _ in ("new", "old"):
        others, _ = loaded(a_run(sqlite_url))
        assert {"networkx", "pydantic"} <= packages(others) <= MODELS | {"networkx"}


def test_starting_deciding_resuming_and_working_on_sqlite_loads_no_sqlalchemy_in_any_of_their_processes(sqlite_url: str) -> None:
    for part in ("started", "decided", "resumed", "handled", "worked"):
        others, _ = loaded(DECIDED.replace("URL", repr(sqlite_url)).replace("PART", part))
        assert "orjson" in others
        assert packages(others) <= MODELS | {"networkx"}, part


def test_a_decider_on_sqlite_loads_the_json_alone(sqlite_url: str) -> None:
    loaded(DECIDED.replace("URL", repr(sqlite_url)).replace("PART", "started"))
    others, _ = loaded(DECIDED.replace("URL", repr(sqlite_url)).replace("PART", "decided"))
    assert packages(others) == {"orjson"}


LOOKS = {
    "runs": "await store.runs()",
    "approvals": "await store.barriers()",
    "figures": "await store.stats()",
    "grants": "await store.grants()",
    "a part of an id": "await store.run(run.run_id[:-4])",
}


@pytest.mark.parametrize("looks", LOOKS)
def test_a_listing_on_sqlite_loads_no_sqlalchemy(sqlite_url: str, looks: str) -> None:
    others, _ = loaded(a_run(sqlite_url, LOOKS[looks]))
    assert packages(others) <= MODELS | {"networkx"}


WHERE = """
import importlib.abc, sys, threading

IMPORTED_BY = []

class Watches(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "sqlalchemy":
            IMPORTED_BY.append(threading.current_thread())

sys.meta_path.insert(0, Watches())
"""


def test_a_steps_own_transaction_on_sqlite_has_sqlalchemy_imported_in_a_thread_and_not_on_the_loop(sqlite_url: str) -> None:
    opens = "await store.transaction(limit=None, begin=None, ended=lambda: None, check=lambda: None).open()"
    told = "\nassert IMPORTED_BY\nassert threading.main_thread() not in IMPORTED_BY"
    loaded(WHERE + a_run(sqlite_url, opens) + told)


RARE = {
    "checkpoint_stores.granting": "rights given in advance",
    "checkpoint_stores.memory": "another store",
    "checkpoint_stores.sql.migrate": "older tables",
    "checkpoint_stores.sql.postgres_database": "another database",
    "checkpoint_stores.sql.schema": "tables in SQLAlchemy's words",
    "checkpoint_stores.sql.step_transaction": "steps with a transaction of their own",
    "engine.catalog": "events, which nobody watches",
    "engine.checking": "the contracts of a run",
    "engine.compatibility": "a graph that has changed",
    "engine.draw": "pictures",
    "engine.following": "streams of events",
    "engine.migrating": "a version that has changed",
    "engine.migration": "a version that has changed",
    "engine.migration_checks": "a version that has changed",
    "engine.queues": "events, which nobody watches",
    "engine.statistics": "figures for operators",
    "engine.telling": "events, which nobody watches",
    "engine.topology": "shapes for tools",
    "trailmark.settings": "settings from files",
    "trailmark.worker": "workers",
}


def test_a_run_loads_nothing_of_ours_that_only_others_ask_for(sqlite_url: str) -> None:
    _, ours = loaded(a_run(sqlite_url))
    assert "engine.driver" in ours
    assert ours & set(RARE) == set()


@pytest.mark.parametrize("name", RARE)
def test_what_is_said_to_be_rare_is_there(name: str) -> None:
    _, ours = loaded(f"import {name}")
    assert name in ours


GIVEN = {*trailmark.__all__, *trailmark.checkpoint_stores.__all__, *trailmark.reducers.__all__}
"""What users make, or are given."""

DATACLASSES = {
    "Beginning": "made once for each run",
    "BranchPlan": "its field `index` would cover a tuple's method",
    "EdgePlan": "every step reads it, and a slot is read faster",
    "EnumData": "a value: no tuple, so that it is stored as what it is",
    "ModelData": "a value: no tuple, so that it is stored as what it is",
    "NodePlan": "every step reads it, and a slot is read faster",
    "OnError": "`best_effort` gives it to users",
    "Plan": "equal to itself only",
    "Scribe": "made once for each transaction",
    "SignalRecord": "`store.signal` gives it to users",
    "Warn": "graphs give it to users",
    "Without": "`without` gives it to users",
    "_Custom": "is called, as the function in it is",
}


def test_what_a_run_makes_as_a_dataclass_is_given_to_users_or_has_a_reason(sqlite_url: str) -> None:
    made = set(told_at_the_end(a_run(sqlite_url), "dataclasses"))
    assert made >= {"RunRecord", "NodePlan"}
    assert made - GIVEN <= set(DATACLASSES)
