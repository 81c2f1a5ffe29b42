"""What is promised of who has a run: one owner at a time, fenced by an epoch, from the row that gave the run until it is given back.

What time does to a lease is `expiry`; here nobody falls silent.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio

import pytest

from checkpoint_stores.codec import unpack
from checkpoint_stores.errors import LeaseHeldError, LeaseLostError, RunEndedError, RunNotFoundError, StoreUnavailableError
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Lease, RunChange
from trailmark.testing.owned_runs import OwnedRun, StoreFactory, all_rows, new_run


class LeaseContract:
    """A run has one owner, and whoever has lost it writes nothing more."""

    async def test_each_store_has_its_own_worker_id(self, store: CheckpointStore, other: CheckpointStore) -> None:
        assert store.worker_id != other.worker_id

    async def test_acquiring_writes_an_attempt_row_in_the_same_transaction(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        await store.release(run.run_id, 1)
        lease = await other.acquire(run.run_id, details={"max_steps": 80, "graph_hash": "h" * 64, "why": "retry"})
        assert (lease.epoch, lease.head_seq) == (2, 3)
        assert (lease.run.owner, lease.run.attempt, lease.run.status) == (other.worker_id, 2, "running")
        assert (lease.run.max_steps, lease.run.graph_hash, lease.run.head_seq) == (80, "h" * 64, 3)
        row = (await other.load(run.run_id))[1][-1]
        assert (row.seq, row.epoch, row.kind, row.step, row.next, row.digest) == (3, 2, "attempt", run.step_count, "", lease.head_digest)
        details = {"max_steps": 80, "graph_hash": "h" * 64, "why": "retry", "owner": other.worker_id}
        assert unpack(row.payload) == [["status", "running"], ["attempt", 2, details]]
        assert await other.run(run.run_id) == lease.run

    async def test_a_lease_tells_the_row_that_gave_it(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store, hold=False, status="created")
        lease = await other.acquire(run.run_id, details={"why": "a test"})
        *_, newest = [row async for row in other.history(run.run_id)]
        assert (newest.kind, newest.seq) == ("attempt", lease.head_seq)
        # A store of somebody else's need not tell.
        assert lease.row in (None, newest._replace(committed_at=0))

    async def test_a_process_knows_which_runs_it_holds(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        assert (store.holds(run.run_id), other.holds(run.run_id)) == (True, False)
        await store.release(run.run_id, run.epoch)
        assert not store.holds(run.run_id)

    async def test_a_living_lease_is_not_taken(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        for asking in (other, store):
            with pytest.raises(LeaseHeldError) as caught:
                await asking.acquire(run.run_id)
            assert caught.value.owner == store.worker_id
            assert caught.value.expires_at is not None
        await run.step()

    async def test_takeover_takes_a_living_lease_and_fences_the_old_owner(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        lease = await other.acquire(run.run_id, takeover=True)
        with pytest.raises(LeaseLostError):
            await run.step()
        taken = OwnedRun(other, lease)
        await taken.step()
        await store.release(run.run_id, 1)
        assert (await store.run(run.run_id)).owner == other.worker_id
        assert await store.verify(run.run_id) == []

    async def test_of_two_that_acquire_at_once_one_wins(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store, hold=False)
        asked = [asking.acquire(run.run_id) for asking in (store, other, store, other)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Lease", *["LeaseHeldError"] * 3]
        assert [row.kind for row in await all_rows(store, run.run_id)] == ["start", "attempt"]

    async def test_takeovers_at_once_follow_each_other(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        leases = await asyncio.gather(*(asking.acquire(run.run_id, takeover=True) for asking in (store, other) * 3))
        assert sorted(lease.epoch for lease in leases) == [2, 3, 4, 5, 6, 7]
        assert await store.verify(run.run_id) == []

    async def test_a_takeover_amid_commits_leaves_one_unbroken_chain(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)

        async def walk() -> int:
            done = 0
            try:
                while done < 200:
                    await run.step()
                    done += 1
            except LeaseLostError:
                pass
            return done

        done, lease = await asyncio.gather(walk(), other.acquire(run.run_id, takeover=True))
        rows = (await other.load(run.run_id))[1]
        assert lease.head_seq == done + 2
        assert [row.seq for row in rows] == list(range(1, lease.head_seq + 1))
        assert [row.kind for row in rows].index("attempt") == len(rows) - 1

    async def test_many_are_acquired_at_once_and_one_that_cannot_be_harms_nobody(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        free = [await new_run(store, hold=False, status="ready") for _ in range(20)]
        held, ended = await new_run(other), await new_run(store)
        await ended.end()
        missing = new_id(await store.now())
        asked = [run.run_id for run in free] + [held.run_id, ended.run_id, missing, free[0].run_id]
        answers = await asyncio.gather(*(store.acquire(run_id, details={"n": 1}) for run_id in asked), return_exceptions=True)
        assert [type(answer) for answer in answers[20:23]] == [LeaseHeldError, RunEndedError, RunNotFoundError]
        assert sorted(type(answers[position]).__name__ for position in (0, 23)) == ["Lease", "LeaseHeldError"]
        leases = [answer for answer in answers if isinstance(answer, Lease)]
        assert {lease.run.run_id for lease in leases} == {run.run_id for run in free}
        for lease in leases:
            assert await store.run(lease.run.run_id) == lease.run
            assert [row.kind for row in (await store.load(lease.run.run_id))[1]] == ["start", "attempt"]
            await OwnedRun(store, lease).step()
            assert await store.verify(lease.run.run_id) == []

    async def test_an_ended_run_is_not_acquired(self, store: CheckpointStore) -> None:
        for status in ("completed", "failed", "cancelled"):
            run = await new_run(store)
            await run.end(status)
            with pytest.raises(RunEndedError) as caught:
                await store.acquire(run.run_id, takeover=True)
            assert caught.value.status == status

    async def test_an_ended_run_has_no_owner_even_where_nobody_said_release(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.commit(run.next_commit(change=RunChange(status="completed")))
        assert (await store.run(run.run_id)).owner is None

    async def test_a_released_run_keeps_its_epoch_and_moves_its_anchor(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        await store.release(run.run_id, 2)
        assert (await store.run(run.run_id)).owner == store.worker_id
        await store.release(run.run_id, 1)
        record = await store.run(run.run_id)
        assert (record.owner, record.epoch, record.head_seq, record.head_digest) == (None, 1, 2, run.digest)
        assert (await other.acquire(run.run_id)).epoch == 2

    async def test_closing_a_store_gives_its_leases_back(self, store_factory: StoreFactory, store: CheckpointStore) -> None:
        async with store_factory() as leaving:
            run = await new_run(leaving)
            await run.step()
        await leaving.close()
        assert (await store.run(run.run_id)).owner is None
        assert (await store.acquire(run.run_id)).epoch == 2

    async def test_a_closed_store_says_so(self, store_factory: StoreFactory) -> None:
        async with store_factory() as closed:
            pass
        with pytest.raises(StoreUnavailableError):
            await new_run(closed)
