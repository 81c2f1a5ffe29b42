"""Starting by key: however often and wherever a run is started, there is one of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from checkpoint_stores.codec import unpack
from checkpoint_stores.errors import RunExistsError
from checkpoint_stores.ids import new_id
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.errors import RunFailedError, RunKeyConflictError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.plan import END


class KeyedOrder(BaseModel):
    amount: int
    note: str = ""
    mark: str = Field(default_factory=lambda: new_id(0))


def gated(bodies: list[int]) -> FlowGraph:
    """Counts its bodies; waits for a person where the amount is large; fails where it is 13."""
    flow = Flow("keyed", KeyedOrder)

    @flow.node
    async def read(state: Any) -> dict[str, Any]:
        bodies.append(state.amount)
        if state.amount == 13:
            raise ValueError("thirteen")
        return {"note": "read"}

    flow.add_barrier("gate", show=["amount"])
    flow.set_entry("read")
    flow.add_edge("read", "gate", when=lambda state: state.amount > 100)
    flow.add_edge("read", END)
    flow.add_edge("gate", END)
    return flow.compile()


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CheckpointStore]:
    if request.param == "memory":
        opened: CheckpointStore = MemoryCheckpointStore()
    else:
        opened = SQLCheckpointStore(request.getfixturevalue(f"{request.param}_url"))
    async with opened as store:
        yield store


async def test_the_same_start_twice_is_the_same_run(store: CheckpointStore) -> None:
    bodies: list[int] = []
    async with GraphExecutor(gated(bodies), store=store) as executor:
        first = await executor.start({"amount": 5}, run_key="invoice-4711")
        again = await executor.start({"amount": 5}, run_key="invoice-4711")
        assert (first.created, again.created) == (True, False)
        assert (await again.result()).run_id == (await first.result()).run_id
        later = await executor.execute({"amount": 5}, run_key="invoice-4711")
    assert (later.run_id, later.status, later.values["note"]) == (first.run_id, "completed", "read")
    assert bodies == [5]


async def test_starts_that_race_get_one_run_and_one_result(store: CheckpointStore) -> None:
    bodies: list[int] = []
    async with GraphExecutor(gated(bodies), store=store) as one, GraphExecutor(gated(bodies), store=store) as other:
        starts = [executor.execute({"amount": 5}, run_key="k") for executor in (one, other) * 5]
        results = await asyncio.gather(*starts)
    assert len({result.run_id for result in results}) == 1
    assert {result.status for result in results} == {"completed"}
    assert bodies == [5]


async def test_a_key_is_free_again_in_another_tenant(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        mine = await executor.execute({"amount": 5}, run_key="k", tenant="mine")
        yours = await executor.execute({"amount": 6}, run_key="k", tenant="yours")
    assert mine.run_id != yours.run_id


async def test_another_input_under_the_key_is_refused_and_names_what_differs(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        first = await executor.execute({"amount": 500}, run_key="k")
        with pytest.raises(RunKeyConflictError, match="amount differs") as refused:
            await executor.start({"amount": 501}, run_key="k")
    assert (refused.value.run_id, refused.value.keys, refused.value.status) == (first.run_id, ("amount",), "waiting")
    assert len(await store.runs()) == 1


async def test_a_default_that_is_made_anew_each_time_makes_no_other_input(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        first = await executor.execute({"amount": 500}, run_key="k")
        again = await executor.execute(KeyedOrder(amount=500), run_key="k")
    assert again.run_id == first.run_id


async def test_the_explicit_form_refuses_whatever_the_input(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        first = await executor.execute({"amount": 5}, run_key="k", if_exists="error")
        with pytest.raises(RunExistsError) as refused:
            await executor.start({"amount": 5}, run_key="k", if_exists="error")
    assert refused.value.run_id == first.run_id


async def test_a_run_id_that_is_taken_is_never_joined(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        first = await executor.execute({"amount": 5}, run_key="k")
        with pytest.raises(RunExistsError):
            await executor.start({"amount": 5}, run_key="other", run_id=first.run_id)


async def test_a_superseded_run_is_cancelled_by_name_and_gives_its_key_up(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        old = await executor.execute({"amount": 500}, run_key="k")
        new = await executor.execute({"amount": 501}, run_key="k", if_exists="supersede", by="ana")
    ended = await store.run(old.run_id)
    assert (ended.status, ended.run_key) == ("cancelled", None)
    found = await store.run_by_key("keyed", "k")
    assert found is not None
    assert (found.run_id, found.status) == (new.run_id, "waiting")
    rows = [row async for row in store.history(old.run_id)]
    assert "ana" in str(unpack(rows[-1].payload))
    assert new.run_id in str(unpack(rows[-1].payload))
    (first,) = [row async for row in store.history(new.run_id) if row.kind == "start"]
    assert old.run_id in str(unpack(first.payload))
    for run_id in (old.run_id, new.run_id):
        assert await store.verify(run_id) == []


async def test_to_supersede_with_the_same_input_is_to_find_the_run(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        first = await executor.execute({"amount": 500}, run_key="k")
        again = await executor.execute({"amount": 500}, run_key="k", if_exists="supersede")
    assert (again.run_id, again.status) == (first.run_id, "waiting")


async def test_a_failed_run_is_found_with_its_failure_until_it_is_superseded(store: CheckpointStore) -> None:
    bodies: list[int] = []
    async with GraphExecutor(gated(bodies), store=store) as executor:
        for _ in range(2):
            with pytest.raises(RunFailedError, match="thirteen"):
                await executor.execute({"amount": 13}, run_key="k")
        assert bodies == [13]
        with pytest.raises(RunFailedError):
            await executor.execute({"amount": 13}, run_key="k", if_exists="supersede")
    assert bodies == [13, 13]
    assert len(await store.runs()) == 2


async def test_rivals_that_supersede_leave_one_run_that_has_the_key(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as one, GraphExecutor(gated([]), store=store) as other:
        await one.execute({"amount": 500}, run_key="k")
        starts = [
            executor.execute({"amount": amount}, run_key="k", if_exists="supersede")
            for executor, amount in ((one, 501), (other, 502), (one, 501), (other, 502))
        ]
        await asyncio.gather(*starts)
    runs = await store.runs()
    assert [run.status for run in runs if run.run_key == "k"] == ["waiting"]
    assert {run.status for run in runs if run.run_key is None} == {"cancelled"}


async def test_a_key_that_goes_over_to_another_run_while_it_is_looked_at_is_asked_for_again(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = store.run

    async def overtaken(run_id: str) -> Any:
        monkeypatch.setattr(store, "run", look)
        await other.execute({"amount": 502}, run_key="k", if_exists="supersede")
        return await look(run_id)

    async with GraphExecutor(gated([]), store=store) as one, GraphExecutor(gated([]), store=store) as other:
        await one.execute({"amount": 500}, run_key="k")
        monkeypatch.setattr(store, "run", overtaken)
        run = await one.execute({"amount": 501}, run_key="k", if_exists="supersede")
    assert {each.run_id: each.status for each in await store.runs() if each.run_key == "k"} == {run.run_id: "waiting"}
    assert [each.status for each in await store.runs() if each.run_key is None] == ["cancelled", "cancelled"]


async def test_a_run_whose_process_is_gone_is_gone_on_with() -> None:
    bodies: list[int] = []
    opened = partial(MemoryCheckpointStore, database=MemoryDatabase())
    waits = asyncio.Event()
    flow = Flow("slow", {"n": int})

    @flow.node
    async def work(state: Any) -> dict[str, Any]:
        bodies.append(state["n"])
        if len(bodies) == 1:
            await waits.wait()
        return {"n": state["n"] + 1}

    flow.set_entry("work").add_edge("work", END)
    async with opened() as gone, opened() as living:
        lost = GraphExecutor(flow.compile(), store=gone)
        await lost.start({"n": 1}, run_key="k")
        while not bodies:
            await asyncio.sleep(0)
        living.database.workers.clear()  # its lease is over: it says nothing any more
        async with GraphExecutor(flow.compile(), store=living) as executor:
            result = await executor.execute({"n": 1}, run_key="k")
        waits.set()
        await lost.aclose()
    assert (result.status, result.values, bodies) == ("completed", {"n": 2}, [1, 1])


async def test_what_is_left_to_a_worker_twice_is_one_run(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        first = await executor.submit({"amount": 5}, run_key="k")
        assert await executor.submit({"amount": 5}, run_key="k") == first
        with pytest.raises(RunKeyConflictError):
            await executor.submit({"amount": 6}, run_key="k")
        assert (await executor.execute({"amount": 5}, run_key="k")).run_id == first


async def test_what_is_left_to_a_worker_may_take_the_place_of_what_has_its_key(store: CheckpointStore) -> None:
    async with GraphExecutor(gated([]), store=store) as executor:
        old = await executor.submit({"amount": 5}, run_key="k")
        with pytest.raises(RunExistsError):
            await executor.submit({"amount": 5}, run_key="k", if_exists="error")
        new = await executor.submit({"amount": 6}, run_key="k", if_exists="supersede", by="ana")
    assert ((await store.run(old)).status, (await store.run(new)).status) == ("cancelled", "created")
    rows = [row async for row in store.history(old)]
    assert "ana" in str(unpack(rows[-1].payload))
