"""What is promised of what is due: which runs a worker is told of, in which order, from when on, and by whose word.

Being due gives nobody the run: that is the lease (`leases`).  Who is woken when a run becomes due is `watches`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

from datetime import timedelta

from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import RunChange
from trailmark.testing.owned_runs import LEASE, SECOND, SetClock, StoreFactory, Verdict, new_run


class DueContract:
    """What is due is what somebody can go on with now, the longest waiting first."""

    async def test_a_run_created_unheld_is_due_at_once(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store, hold=False, status="created")
        await new_run(store)
        await new_run(store, hold=False, status="suspended")
        assert [record.run_id for record in await store.due()] == [run.run_id]
        assert [record.status for record in await other.due()] == ["created"]
        lease = await other.acquire(run.run_id)
        assert (await store.due(), await other.due(), lease.run.wake_at) == ([], [], None)

    async def test_a_waiting_run_is_due_when_its_time_has_come(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store, store_factory(now=clock) as other:
            run, later = await new_run(store), await new_run(store)
            await new_run(store)
            due = clock.now + 60 * SECOND
            await store.commit(run.next_commit(change=RunChange(status="waiting", wake_at=due, release=True)))
            await store.commit(later.next_commit(change=RunChange(status="waiting", wake_at=due + 1, release=True)))
            assert await other.due() == []
            clock.advance(timedelta(seconds=20))
            await store.heartbeat()
            assert await other.next_due() == clock.now + LEASE // timedelta(microseconds=1), "nothing is due within a lease"
            clock.advance(timedelta(seconds=20))
            await store.heartbeat()
            assert (await store.next_due(), await other.next_due()) == (due, due)
            clock.advance(timedelta(seconds=20))
            assert [record.run_id for record in await other.due()] == [run.run_id]
            clock.advance(timedelta(seconds=1))
            assert [record.run_id for record in await other.due()] == [run.run_id, later.run_id]
            assert [record.run_id for record in await other.due(limit=1)] == [run.run_id]

    async def test_a_run_without_a_time_to_wake_is_not_due(self, store: CheckpointStore) -> None:
        await (await new_run(store)).open_barrier()
        stopped = await new_run(store)
        await store.commit(stopped.next_commit(change=RunChange(status="suspended", clear_wake_at=True, release=True)))
        ended = await new_run(store)
        await ended.end()
        assert await store.due() == []

    async def test_a_run_given_back_is_ready_and_due(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await store.release(run.run_id, run.epoch)
        record = await store.run(run.run_id)
        assert (record.status, record.owner) == ("ready", None)
        assert [record.run_id for record in await other.due()] == [run.run_id]
        await store.release(run.run_id, run.epoch)
        assert (await store.acquire(run.run_id)).run.status == "running"

    async def test_what_stood_still_is_not_made_ready_by_giving_it_back(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.commit(run.next_commit(change=RunChange(status="suspended")))
        await store.release(run.run_id, run.epoch)
        assert (await store.run(run.run_id)).status == "suspended"
        assert await store.due() == []

    async def test_a_closed_store_leaves_its_runs_ready(self, store: CheckpointStore, store_factory: StoreFactory) -> None:
        async with store_factory() as leaving:
            run = await new_run(leaving)
        assert [(record.run_id, record.status) for record in await store.due()] == [(run.run_id, "ready")]

    async def test_the_runs_of_a_process_that_is_gone_are_due(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store, store_factory(now=clock) as other:
            run = await new_run(store)
            own = await new_run(other)
            ends = clock.now + LEASE // timedelta(microseconds=1)
            clock.advance(timedelta(seconds=1))
            assert (await other.next_due(), await other.due()) == (ends, [])
            clock.advance(LEASE)
            assert [record.run_id for record in await other.due()] == [run.run_id]
            assert [record.run_id for record in await store.due()] == [own.run_id], "one's own runs are never due"
            assert await other.next_due() > clock.now
            assert (await other.due())[0].orphaned

    async def test_only_flows_one_can_drive_are_due_and_nothing_that_was_put_aside(self, store: CheckpointStore) -> None:
        mine, other, refund = [await new_run(store, flow=flow, hold=False, status="created") for flow in ("mine", "mine", "refund")]
        assert {record.run_id for record in await store.due(flows=["mine"])} == {mine.run_id, other.run_id}
        assert {record.run_id for record in await store.due(flows=[])} == set()
        assert [record.run_id for record in await store.due(flows={"mine", "refund"}, aside=[mine.run_id, other.run_id])] == [refund.run_id]

    async def test_any_number_of_runs_may_be_put_aside(self, store: CheckpointStore) -> None:
        left_out, wanted = [await new_run(store, hold=False, status="created") for _ in range(2)]
        aside = [*(new_id(number) for number in range(40_000)), left_out.run_id]
        assert [record.run_id for record in await store.due(aside=aside, limit=1)] == [wanted.run_id]

    async def test_the_longest_waiting_is_due_first(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            runs = [await new_run(store) for _ in range(3)]
            for run, ago in zip(runs, (5, 9, 7), strict=True):
                await store.commit(run.next_commit(change=RunChange(status="waiting", wake_at=clock.now - ago, release=True)))
            assert [record.run_id for record in await store.due()] == [runs[1].run_id, runs[2].run_id, runs[0].run_id]

    async def test_what_an_outsider_says_makes_a_waiting_run_due(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            told, decided, cancelled, working = [await new_run(store) for _ in range(4)]
            for run in (told, decided, cancelled):
                await run.open_barrier()
            assert [(await store.run(run.run_id)).wake_at for run in (told, decided, cancelled)] == [None] * 3
            clock.advance(timedelta(minutes=1))
            await store.signal(told.run_id, "paid", 7)
            await store.decide(decided.run_id, "review", Verdict())
            await store.request_cancel(cancelled.run_id, actor="ana")
            await store.signal(working.run_id, "paid", 7)
            found = [(await store.run(run.run_id)).wake_at for run in (told, decided, cancelled, working)]
            assert found == [clock.now, clock.now, clock.now, None]

    async def test_a_vote_that_does_not_decide_makes_no_run_due(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(quorum=2)
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        assert (await store.run(run.run_id)).wake_at is None
        await store.decide(run.run_id, "review", Verdict(by="ben"))
        assert (await store.run(run.run_id)).wake_at is not None

    async def test_a_vote_for_what_is_not_open_yet_makes_no_run_due(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        for name in ("review#2", "board"):  # a later visit, and a barrier that the run has not come to
            await store.decide(run.run_id, name, Verdict(by="ana"))
        assert ((await store.run(run.run_id)).wake_at, await store.due()) == (None, [])
