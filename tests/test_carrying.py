"""A run as a file: whole, checked, and as good in the store it comes to as where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint_stores.carrying import image_of, lines_of
from checkpoint_stores.errors import RunExistsError, RunFileError
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.loading import load_state
from engine.plan import END
from engine.pruning import Retention, prune
from tests.laws.test_walk_laws import random_flow
from tests.test_pruning import looping


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CheckpointStore]:
    if request.param == "memory":
        opened: CheckpointStore = MemoryCheckpointStore()
    else:
        opened = SQLCheckpointStore(request.getfixturevalue(f"{request.param}_url"))
    async with opened as store:
        yield store


async def exported(store: CheckpointStore, run_id: str) -> list[bytes]:
    return list(lines_of(await store.image(run_id), store.chain))


async def test_a_run_that_was_carried_verifies_resumes_and_forks(store: CheckpointStore, tmp_path: Any) -> None:
    graph = looping()
    async with SQLCheckpointStore(f"sqlite+aiosqlite:///{tmp_path / 'home.db'}") as home:
        async with GraphExecutor(graph, store=home) as executor:
            run = await executor.execute({"n": 20, "log": []}, run_key="k", labels={"team": "a"})
            await prune(home, Retention(checkpoints=8))
            await home.decide(run.run_id, "gate", Decision.approve(by="ana", reason="ok"))
        lines = await exported(home, run.run_id)

        admitted = await store.admit(image_of(lines, store.chain))

        there = await home.run(run.run_id)
        assert admitted == there
        assert await store.run(run.run_id) == there
        assert [row async for row in store.history(run.run_id)] == [row async for row in home.history(run.run_id)]
        assert await store.decisions(run.run_id) == await home.decisions(run.run_id)
        assert await store.barriers(run_id=run.run_id, status=None) == await home.barriers(run_id=run.run_id, status=None)
        assert await exported(store, run.run_id) == lines
    assert await store.verify(run.run_id) == []
    async with GraphExecutor(graph, store=store) as executor:
        fork = await executor.fork(run.run_id, at=run.seq - 2)
        done = await executor.resume(run.run_id)
        assert (done.status, done.values["log"]) == ("completed", list(range(20, 0, -1)))
        assert (await executor.execute({"n": 20, "log": []}, run_key="k")).run_id == run.run_id
    assert await store.verify(run.run_id) == await store.verify(fork) == []


async def test_a_fork_is_carried_without_its_parent(store: CheckpointStore) -> None:
    async with MemoryCheckpointStore() as home, GraphExecutor(looping(), store=home) as executor:
        run = await executor.execute({"n": 5, "log": []})
        fork = await executor.fork(run.run_id, at=3)
        await store.admit(image_of(await exported(home, fork), store.chain))
    assert await store.verify(fork) == []
    async with GraphExecutor(looping(), store=store) as executor:
        assert (await executor.resume(fork)).values["log"] == [5, 4, 3, 2, 1]


async def test_a_run_that_is_due_where_it_comes_to_is_heard_of_there(store: CheckpointStore) -> None:
    home = MemoryCheckpointStore()
    run_id = await GraphExecutor(looping(), store=home).submit({"n": 20, "log": []})
    watch = store.watch_due()
    async with asyncio.timeout(20):
        if "sqlite" in store.url:
            await watch.changed()  # who begins to watch a file is told to look once
        heard = asyncio.create_task(watch.changed())
        await store.admit(image_of(await exported(home, run_id), store.chain))
        await heard
    watch.close()
    assert [run.run_id for run in await store.due()] == [run_id]


async def test_what_is_there_is_not_written_over(store: CheckpointStore) -> None:
    async with GraphExecutor(looping(), store=store) as executor:
        run = await executor.execute({"n": 1, "log": []}, run_key="k")
    image = image_of(await exported(store, run.run_id), store.chain)
    with pytest.raises(RunExistsError) as refused:
        await store.admit(image)
    assert refused.value.run_id == run.run_id
    await store.delete(run.run_id)
    async with GraphExecutor(looping(), store=store) as executor:
        other = await executor.execute({"n": 1, "log": []}, run_key="k")
    with pytest.raises(RunExistsError) as refused:
        await store.admit(image)
    assert (refused.value.run_id, refused.value.run_key) == (other.run_id, "k")
    assert len(await store.runs()) == 1


async def a_file() -> list[bytes]:
    async with MemoryCheckpointStore() as home, GraphExecutor(looping(), store=home) as executor:
        run = await executor.execute({"n": 5, "log": []})
        return await exported(home, run.run_id)


async def test_a_file_that_was_cut_changed_or_is_none_is_refused() -> None:
    lines = await a_file()
    chain = MemoryCheckpointStore().chain
    assert image_of(lines, chain).run.flow == "pruned"
    for number in range(len(lines)):
        with pytest.raises(RunFileError):
            image_of(lines[:number], chain)
        with pytest.raises(RunFileError):
            image_of([*lines[:number], *lines[number + 1 :]], chain)
    for number in range(len(lines) - 1):
        with pytest.raises(RunFileError):
            image_of([*lines[:number], lines[number].replace(b"1", b"2", 1), *lines[number + 1 :]], chain)
    for other in ([], [b"{}"], [b"\xff\n"], [b'["run",1,{}]'], [b'["trailmark run",1,{"version":2}]']):
        with pytest.raises(RunFileError):
            image_of(other, chain)


async def test_a_run_sealed_with_another_key_is_refused() -> None:
    async with MemoryCheckpointStore(chain_key=b"theirs") as home, GraphExecutor(looping(), store=home) as executor:
        run = await executor.execute({"n": 5, "log": []})
        await prune(home, Retention(checkpoints=3))
        lines = await exported(home, run.run_id)
    assert image_of(lines, MemoryCheckpointStore(chain_key=b"theirs").chain).run.run_id == run.run_id
    for key in (None, b"ours"):
        with pytest.raises(RunFileError, match="key is another"):
            image_of(lines, MemoryCheckpointStore(chain_key=key).chain)


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 12))
@settings(max_examples=40)
def test_every_run_comes_out_of_a_file_as_it_went_in(seed: int, steps: int) -> None:
    asyncio.run(carried(seed, steps))


async def carried(seed: int, steps: int) -> None:
    graph = random_flow(Random(seed), timely=False).compile()
    async with MemoryCheckpointStore() as home, MemoryCheckpointStore() as there:
        async with GraphExecutor(graph, store=home) as executor:
            try:
                run_id = (await executor.execute({}, max_steps=steps)).run_id
            except RunFailedError as failed:
                run_id = failed.result.run_id
        lines = await exported(home, run_id)
        await there.admit(image_of(lines, there.chain))
        assert await exported(there, run_id) == lines
        assert await there.verify(run_id) == []
        assert (await load_state(there, run_id)).dump() == (await load_state(home, run_id)).dump()


async def test_side_effects_are_carried_and_not_carried_out_again(store: CheckpointStore) -> None:
    rung: list[str] = []
    flow = Flow("carried_effects", {"n": int})

    @flow.node
    async def ring(state: Any, ctx: Any) -> dict[str, Any]:
        async def bell() -> str:
            rung.append("rung")
            return "rung"

        await ctx.once("bell", bell)
        return {"n": 1}

    flow.add_barrier("gate", on_reject="continue")
    flow.set_entry("ring").add_edge("ring", "gate").add_edge("gate", END)
    async with MemoryCheckpointStore() as home, GraphExecutor(flow.compile(), store=home) as executor:
        run = await executor.execute({"n": 0})
        await store.admit(image_of(await exported(home, run.run_id), store.chain))
        assert await store.effects(run.run_id) == await home.effects(run.run_id)
        assert len(await store.effects(run.run_id)) == 1
    await store.decide(run.run_id, "gate", Decision.approve(by="ana"))
    async with GraphExecutor(flow.compile(), store=store) as executor:
        assert (await executor.resume(run.run_id)).status == "completed"
        await store.delete(run.run_id)
    assert rung == ["rung"]
