"""Workers as processes: they share a database, are killed in the middle of their runs, are brought down by one of them."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest_asyncio

from checkpoint_stores.codec import unpack
from engine.clock import StoreClock
from engine.operations import steps
from engine.recovery import release_run
from trailmark import END, Flow, GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore
from trailmark.reducers import append


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[SQLCheckpointStore]:
    """The store through which the test submits and looks."""
    async with SQLCheckpointStore(store_url, synchronous="OFF") as store:
        yield store


async def submitted(store: SQLCheckpointStore, number: int, *, kills: bool = False) -> list[str]:
    """Runs of the flow shift, left for whoever works; the children know its bodies, here it needs only the same shape."""
    flow = Flow("shift", {"kills": bool, "trail": Annotated[list[str], append]})

    @flow.node
    async def lift(state: Any) -> None:
        raise AssertionError("only children work here")

    @flow.node
    async def carry(state: Any) -> None:
        raise AssertionError("only children work here")

    graph = flow.set_entry("lift").add_edge("lift", "carry").add_edge("carry", END).compile()
    async with GraphExecutor(graph, store=store) as executor:
        return [await executor.submit({"kills": kills, "trail": []}) for _ in range(number)]


async def statuses_of(store: SQLCheckpointStore, run_ids: list[str]) -> Counter[str]:
    return Counter([(await store.run(run_id)).status for run_id in run_ids])


async def vain_takings_of(store: SQLCheckpointStore, run_id: str) -> int:
    """How often in a row the run was taken up in vain at most."""
    takings = [op[2] async for row in store.history(run_id) if row.kind == "attempt" for op in unpack(row.payload) if op[0] == "attempt"]
    return max([taking.get("recoveries", 0) for taking in takings], default=0)


async def test_a_worker_leaves_what_another_one_has_in_hand(store: SQLCheckpointStore, store_url: str, children: Any) -> None:
    run_ids = await submitted(store, 20)
    holder = children.start("work", store_url, flow="shift", concurrency=5, waits_in="lift")
    for _ in range(5):
        holder.next("in_body")
    assert children.run("work", store_url, flow="shift", concurrency=5)["ended"] == 0
    for _ in range(5):
        holder.say("go on")
    assert holder.end()["ended"] == 0
    assert await statuses_of(store, run_ids) == {"completed": 20}
    shares = Counter(line["pid"] for line in children.journal() if line["place"][1] == "lift")
    assert sorted(shares.values()) == [5, 15], "both had their share"


async def test_two_workers_share_fifty_runs_and_no_body_runs_twice(store: SQLCheckpointStore, store_url: str, children: Any) -> None:
    run_ids = await submitted(store, 50)
    workers = [children.start("work", store_url, flow="shift", concurrency=5, on_a_word=True) for _ in range(2)]
    for worker in workers:
        worker.next("ready")
    for worker in workers:
        worker.say("go")
    assert [worker.end()["ended"] for worker in workers] == [0, 0]
    assert await statuses_of(store, run_ids) == {"completed": 50}
    assert Counter((line["run"], line["place"][1]) for line in children.journal()) == Counter(
        (run_id, node) for run_id in run_ids for node in ("lift", "carry")
    )
    assert {(await store.run(run_id)).attempt for run_id in run_ids} == {1}
    for run_id in run_ids[::10]:
        assert await store.verify(run_id) == []


async def test_the_ten_runs_of_a_killed_worker_are_finished_by_another(store: SQLCheckpointStore, store_url: str, children: Any) -> None:
    run_ids = await submitted(store, 10)
    killed = children.start("work", store_url, flow="shift", hangs=True)
    for _ in range(10):
        killed.next("in_body")
    killed.kill()
    assert killed.end()["ended"] == -signal.SIGKILL
    assert await statuses_of(store, run_ids) == {"running": 10}
    assert children.run("work", store_url, flow="shift")["ended"] == 0
    assert await statuses_of(store, run_ids) == {"completed": 10}
    assert Counter(line["place"][1] for line in children.journal()) == {"lift": 20, "carry": 10}
    for run_id in run_ids:
        assert (await store.run(run_id)).attempt == 2
        assert await store.verify(run_id) == []


async def test_a_worker_that_waits_hears_of_what_others_submit(store: SQLCheckpointStore, store_url: str, children: Any) -> None:
    worker = children.start("work", store_url, flow="shift", until_idle=False, on_a_word=True)
    worker.next("ready")
    worker.say("go")
    (first,) = await submitted(store, 1)
    await reached(store, [first], "completed")
    await reached(store, await submitted(store, 1), "completed")
    worker.kill(signal.SIGTERM)
    assert worker.end()["ended"] == 0


async def test_a_worker_takes_over_what_another_one_beside_it_died_with(store: SQLCheckpointStore, store_url: str, children: Any) -> None:
    run_ids = await submitted(store, 3)
    dying = children.start("work", store_url, flow="shift", hangs=True, lease=1)
    for _ in run_ids:
        dying.next("in_body")
    waiting = children.start("work", store_url, flow="shift", until_idle=False, lease=1, on_a_word=True)
    waiting.next("ready")
    waiting.say("go")
    dying.kill()
    await reached(store, run_ids, "completed")
    waiting.kill(signal.SIGTERM)
    assert waiting.end()["ended"] == 0
    assert Counter(line["place"][1] for line in children.journal()) == {"lift": 6, "carry": 3}


async def test_a_worker_told_to_end_in_the_middle_of_a_body_lets_it_finish(
    store: SQLCheckpointStore, store_url: str, children: Any
) -> None:
    (run_id,) = await submitted(store, 1)
    worker = children.start("work", store_url, flow="shift", waits_in="lift", until_idle=False)
    worker.next("in_body")
    worker.kill(signal.SIGTERM)
    await reached(store, [run_id], "draining")
    worker.say("go on")
    assert worker.end()["ended"] == 0
    record = await store.run(run_id)
    assert (record.status, record.owner) == ("ready", None)
    assert children.run("work", store_url, flow="shift")["ended"] == 0
    assert (await store.run(run_id)).status == "completed"
    assert children.places(run_id) == ["lift", "carry"], "nothing was done twice"
    assert await store.verify(run_id) == []


async def reached(store: SQLCheckpointStore, run_ids: list[str], status: Any) -> None:
    """Wait until all these runs have a status."""
    flow = Flow("any", {})

    @flow.node
    async def nothing(state: Any) -> None:
        """Only a graph to look through."""

    executor = GraphExecutor(flow.set_entry("nothing").add_edge("nothing", END).compile(), store=store)
    async with asyncio.timeout(30):
        for run_id in run_ids:
            await executor.open(run_id).wait_for(status)


async def test_a_run_that_kills_its_process_is_quarantined_while_the_others_complete(
    store: SQLCheckpointStore, store_url: str, children: Any
) -> None:
    others = await submitted(store, 3)
    (poison,) = await submitted(store, 1, kills=True)
    others += await submitted(store, 3)
    ended = []
    while not ended or ended[-1] != 0:
        assert len(ended) < 10
        ended.append(children.run("work", store_url, flow="shift", concurrency=4, max_recoveries=3)["ended"])
    assert ended == [-signal.SIGKILL] * 4 + [0], "the first time, and three recoveries"
    assert await statuses_of(store, others) == {"completed": 6}
    record = await store.run(poison)
    assert (record.status, record.owner) == ("quarantined", None)
    assert [run.run_id for run in await store.runs(status="quarantined")] == [poison]
    assert "3 recoveries in a row got nowhere" in [line.detail async for line in steps(store, poison)][-1]
    assert Counter(line["place"][1] for line in children.journal(poison)) == {"lift": 4}
    assert max([await vain_takings_of(store, run_id) for run_id in others]) <= 2, "beside it the others were taken up in vain twice at most"
    assert await store.verify(poison) == []

    assert children.run("work", store_url, flow="shift")["ended"] == 0, "nobody takes it by itself"
    await release_run(store, poison, actor="ana", reason="try again", clock=StoreClock(await store.now()))
    assert children.run("work", store_url, flow="shift")["ended"] == -signal.SIGKILL
