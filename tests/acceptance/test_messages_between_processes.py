"""What one process wants of a run that another one drives, or that nobody drives: to decide, to cancel, to be told.

Where a moment matters the other process is held there: behind a commit, inside a node, or for good (SIGSTOP, SIGKILL).
"""

from __future__ import annotations

import signal
from typing import Any

import pytest

from engine.clock import StoreClock
from engine.operations import cancel_run
from trailmark import Decision
from trailmark.checkpoint_stores import SQLCheckpointStore

BARRIER_ROW = 3
"""Of the flow ``approval``: 1 start, 2 before, 3 the barrier opens."""


def parked(children: Any, url: str) -> str:
    """A run that waits at its barrier, held by nobody."""
    said = children.run("start", url, flow="approval", input={})
    assert said["result"]["waiting_for"] == ["gate#1"]
    run_id: str = said["result"]["run_id"]
    return run_id


async def when_parked(store: SQLCheckpointStore) -> str:
    """The id of the store's one run, once it waits."""
    while not (found := await store.runs(status="waiting")):
        pass
    return found[0].run_id


async def test_a_running_run_is_cancelled_from_another_process(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="relay", input={}, waits_in="second")
    owner.next("in_body")
    run_id = children.journal()[0]["run"]

    said = children.run("cancel", store_url, flow="relay", run_id=run_id, by="ana", reason="wrong order")

    assert said["result"]["status"] == "cancelled"
    assert owner.end()["result"]["status"] == "cancelled"
    assert children.places(run_id) == ["first", "second"]
    async with SQLCheckpointStore(store_url) as store:
        record = await store.run(run_id)
        assert (record.status, record.owner, record.epoch) == ("cancelled", None, 1), "the living owner was to end it itself"
        assert await store.verify(run_id) == []


async def test_a_run_at_a_barrier_is_cancelled_from_another_process_and_nothing_is_approved(children: Any, store_url: str) -> None:
    run_id = parked(children, store_url)

    said = children.run("cancel", store_url, flow="approval", run_id=run_id, by="ana")

    assert said["result"]["status"] == "cancelled"
    assert children.places(run_id) == ["before"]
    async with SQLCheckpointStore(store_url) as store:
        (barrier,) = await store.barriers(run_id=run_id, status=None)
        assert barrier.status == "withdrawn"
        assert await store.decisions(run_id) == []
        assert await store.verify(run_id) == []


async def test_a_run_attached_at_a_barrier_is_cancelled_from_another_process(children: Any, store_url: str) -> None:
    waiting = children.start("start", store_url, flow="approval", input={}, through_barriers=True)
    async with SQLCheckpointStore(store_url) as store:
        run_id = await when_parked(store)
        said = children.run("cancel", store_url, flow="approval", run_id=run_id, by="ana")

        assert said["result"]["status"] == "cancelled"
        assert waiting.end()["result"]["status"] == "cancelled"
        assert children.places(run_id) == ["before"]


async def test_a_decision_from_another_process_wakes_whoever_waits_for_the_result(children: Any, store_url: str) -> None:
    waiting = children.start("start", store_url, flow="approval", input={}, through_barriers=True)
    async with SQLCheckpointStore(store_url) as store:
        run_id = await when_parked(store)
        decided = children.run("decide", store_url, run_id=run_id, barrier="gate", action="approve", by="ana")
        assert decided["decided"]["actor"] == "ana"

        said = waiting.end()

        assert said["result"]["status"] == "completed"
        assert said["result"]["values"] == {"trail": ["before", "after"]}
        assert {line["pid"] for line in children.journal(run_id)} == {waiting.pid}


async def test_who_waits_for_a_decision_takes_no_other_runs_news_for_it(children: Any, store_url: str) -> None:
    waiting = children.start("start", store_url, flow="approval", input={}, through_barriers=True)
    async with SQLCheckpointStore(store_url) as store:
        run_id = await when_parked(store)
        before = await store.run(run_id)

        others = [children.run("start", store_url, flow="relay", input={})["result"]["status"] for _ in range(3)]

        assert others == ["completed"] * 3
        assert await store.run(run_id) == before
        await store.decide(run_id, "gate", Decision.reject(by="ben"))
        said = waiting.end()
        assert said["result"]["status"] == "completed"
        assert [row.kind async for row in store.history(run_id)] == ["start", "step", "barrier", "attempt", "decision", "step"]


# --- just before the owner lets go ----------------------------------------------------------------------------------
async def test_a_decision_made_between_the_opening_of_a_barrier_and_the_parking_is_not_slept_through(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="approval", input={}, asks_behind=BARRIER_ROW)
    owner.next("behind")
    async with SQLCheckpointStore(store_url) as store:
        run_id = (await store.runs())[0].run_id
        await store.decide(run_id, "gate", Decision.approve(by="ana"))
        owner.say("go on")
        said = owner.end()

        if said["result"]["status"] == "waiting":  # it had parked in the transaction that opened the barrier
            said = children.run("resume", store_url, flow="approval", run_id=run_id)
        assert said["result"]["status"] == "completed"
        assert children.places(run_id) == ["before", "after"]
        assert await store.verify(run_id) == []


async def test_a_decision_made_while_the_owner_is_busy_elsewhere_is_taken_up_by_it(children: Any, store_url: str) -> None:
    """The barrier of one branch is open and decided while the other branch works: nobody has to resume anything."""
    owner = children.start("start", store_url, flow="beside", input={}, waits_in="work")
    owner.next("in_body")
    async with SQLCheckpointStore(store_url) as store:
        run_id = (await store.runs())[0].run_id
        while not (found := await store.barriers(run_id=run_id)):
            pass
        record = await store.decide(run_id, found[0].ticket, Decision.approve(by="ana"))
        while (await store.decisions(run_id))[0].consumed_seq is None:
            pass
        assert record.actor == "ana"
        owner.say("go on")

        said = owner.end()

        assert said["result"]["status"] == "completed"
        assert said["result"]["attempt"] == 1
        assert await store.verify(run_id) == []


async def test_a_decision_its_owner_could_not_hear_of_is_found_when_it_wants_to_park(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="beside", input={}, blocks_in="work")
    owner.next("in_body")
    async with SQLCheckpointStore(store_url) as store:
        run_id = (await store.runs())[0].run_id
        before = [row.kind async for row in store.history(run_id)]
        if "barrier" not in before:
            # The body that blocks was begun before the other branch had come to its barrier: an early decision.
            await store.decide(run_id, "gate", Decision.approve(by="ana"))
        else:
            await store.decide(run_id, (await store.barriers(run_id=run_id))[0].ticket, Decision.approve(by="ana"))
        owner.say("go on")

        said = owner.end()

        assert said["result"]["status"] == "completed"
        assert said["result"]["attempt"] == 1
        assert await store.verify(run_id) == []


async def test_a_cancel_between_two_commits_ends_the_run_before_the_next_node(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="relay", input={}, asks_behind=2)
    owner.next("behind")
    async with SQLCheckpointStore(store_url) as store:
        run_id = (await store.runs())[0].run_id
        await store.request_cancel(run_id, actor="ana", reason="too late")
        owner.say("go on")

        said = owner.end()

        assert said["result"]["status"] == "cancelled"
        # The commit that told of the request came before: at most the one body that it made ready has begun.
        assert children.places(run_id) in (["first"], ["first", "second"])
        assert await store.verify(run_id) == []


# --- when nobody answers --------------------------------------------------------------------------------------------
async def test_a_run_whose_owner_does_not_react_is_cancelled_over_its_head(children: Any, store_url: str, tables: Any) -> None:
    owner = children.start("start", store_url, flow="relay", input={}, waits_in="second")
    owner.next("in_body")
    owner.kill(signal.SIGSTOP)
    owner.next("stopped")
    async with SQLCheckpointStore(store_url) as store:
        run_id = (await store.runs())[0].run_id
        record = await cancel_run(store, run_id, actor="ana", reason="stuck", clock=StoreClock(await store.now()), grace=0.05)
        assert (record.status, record.owner, record.epoch) == ("cancelled", None, 2)
        before = await tables(store_url).of_run(run_id)

        owner.kill(signal.SIGCONT)
        owner.say("go on")
        answer = owner.end()

        assert "result" not in answer or answer["result"]["status"] == "cancelled", answer
        assert await tables(store_url).of_run(run_id) == before
        assert children.places(run_id) == ["first", "second"]
        assert await store.verify(run_id) == []


@pytest.mark.parametrize("moment", ["dies_before", "dies_after"])
async def test_who_cancels_may_be_killed_and_the_request_is_there_or_is_not(children: Any, store_url: str, moment: str) -> None:
    run_id = parked(children, store_url)
    assert children.run("cancel", store_url, flow="approval", run_id=run_id, by="ana", **{moment: "cancel"})["ended"] == -9
    async with SQLCheckpointStore(store_url) as store:
        request = (await store.inbox(run_id)).cancel
        assert (request is not None) == (moment == "dies_after")

        said = children.run("resume", store_url, flow="approval", run_id=run_id)

        assert said["result"]["status"] == ("cancelled" if request else "waiting")
        assert children.places(run_id) == ["before"]


async def test_a_run_whose_canceller_was_killed_half_way_ends_as_cancelled_all_the_same(children: Any, store_url: str) -> None:
    run_id = parked(children, store_url)
    assert children.run("cancel", store_url, flow="approval", run_id=run_id, by="ana", dies_after="acquire")["ended"] == -9

    said = children.run("resume", store_url, flow="approval", run_id=run_id)

    assert said["result"]["status"] == "cancelled"
    assert children.places(run_id) == ["before"]
    async with SQLCheckpointStore(store_url) as store:
        assert await store.verify(run_id) == []


@pytest.mark.parametrize("moment", ["dies_before", "dies_after"])
async def test_who_decides_may_be_killed_and_deciding_again_is_one_decision(children: Any, store_url: str, moment: str) -> None:
    run_id = parked(children, store_url)
    decide = {"run_id": run_id, "barrier": "gate", "action": "approve", "by": "ana"}
    assert children.run("decide", store_url, **decide, **{moment: "decide"})["ended"] == -9
    async with SQLCheckpointStore(store_url) as store:
        kept = [record.id for record in await store.decisions(run_id)]
        assert len(kept) == (moment == "dies_after")

        again = children.run("decide", store_url, **decide)

        assert kept in ([], [again["decided"]["id"]])
        assert len(await store.decisions(run_id)) == 1
        assert children.run("resume", store_url, flow="approval", run_id=run_id)["result"]["status"] == "completed"


async def test_a_process_killed_while_it_waits_at_a_barrier_takes_nothing_with_it(children: Any, store_url: str) -> None:
    waiting = children.start("start", store_url, flow="approval", input={}, through_barriers=True)
    async with SQLCheckpointStore(store_url) as store:
        run_id = await when_parked(store)
        waiting.kill()
        assert waiting.end()["ended"] == -9
        await store.decide(run_id, "gate", Decision.approve(by="ana"))

        said = children.run("resume", store_url, flow="approval", run_id=run_id)

        assert said["result"]["status"] == "completed"
        assert children.places(run_id) == ["before", "after"]


# --- a process that is asked to end ---------------------------------------------------------------------------------
async def test_ctrl_c_decides_nothing_and_leaves_a_run_that_can_be_taken_at_once(children: Any, store_url: str) -> None:
    owner = children.start("start", store_url, flow="relay", input={}, waits_in="second", lease=3600)
    owner.next("in_body")
    owner.kill(signal.SIGINT)
    owner.end()
    async with SQLCheckpointStore(store_url) as store:
        (record,) = await store.runs()
        assert (record.status, record.owner) == ("suspended", None)

        said = children.run("resume", store_url, flow="relay", run_id=record.run_id)

        assert said["result"]["status"] == "completed"
        assert children.places(record.run_id) == ["first", "second", "second", "third"]
        assert len({line["key"] for line in children.journal(record.run_id)}) == 3
