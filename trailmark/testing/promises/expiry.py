"""What is promised of leases in time: an owner keeps its runs for as long as it says that it lives, and time is the given clock's.

Who may take a run while its owner lives is `leases`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from checkpoint_stores.errors import LeaseHeldError, LeaseLostError
from trailmark.testing.owned_runs import LEASE, SetClock, StoreFactory, all_rows, new_run


class ExpiryContract:
    """A lease lives from heartbeat to heartbeat, by the store's clock."""

    async def test_a_run_tells_until_when_its_owner_keeps_it(self, store_factory: StoreFactory) -> None:
        clock, lease = SetClock(), LEASE // timedelta(microseconds=1)
        async with store_factory(now=clock, lease=LEASE) as owner, store_factory(now=clock, lease=LEASE) as reader:
            run = await new_run(owner)
            clock.advance(timedelta(seconds=7))
            await owner.heartbeat()
            held = await reader.run(run.run_id)
            assert (held.lease_expires_at, held.orphaned) == (clock.now + lease, False)
            await owner.release(run.run_id, 1)
            free = await reader.run(run.run_id)
            assert (free.owner, free.lease_expires_at, free.orphaned) == (None, None, False)
            taken = (await reader.acquire(run.run_id)).run
            assert (taken.owner, taken.lease_expires_at, taken.orphaned) == (reader.worker_id, clock.now + lease, False)

    async def test_a_run_whose_owner_fell_silent_is_orphaned_until_somebody_takes_it(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock, lease=LEASE) as silent, store_factory(now=clock, lease=LEASE) as heir:
            run = await new_run(silent, run_key="4711")
            end = clock.now + LEASE // timedelta(microseconds=1)

            async def seen() -> list[tuple[str, str | None, int | None, bool]]:
                by_key = await heir.run_by_key("invoice", "4711")
                assert by_key is not None
                records = [await heir.run(run.run_id), by_key, *await heir.runs(status="running")]
                return [(each.status, each.owner, each.lease_expires_at, each.orphaned) for each in records]

            clock.advance(LEASE - timedelta(microseconds=1))
            assert await seen() == [("running", silent.worker_id, end, False)] * 3
            clock.advance(timedelta(microseconds=1))
            assert await seen() == [("running", silent.worker_id, end, True)] * 3
            await heir.acquire(run.run_id)
            assert not any(orphaned for *_, orphaned in await seen())

    async def test_a_silent_owner_that_is_back_in_time_has_its_runs_still(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock, lease=LEASE) as silent, store_factory(now=clock, lease=LEASE) as reader:
            run = await new_run(silent)
            clock.advance(LEASE)
            assert (await reader.run(run.run_id)).orphaned
            await silent.heartbeat()
            assert not (await reader.run(run.run_id)).orphaned

    async def test_an_expired_lease_may_be_taken(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock, lease=LEASE) as silent, store_factory(now=clock, lease=LEASE) as heir:
            run = await new_run(silent)
            clock.advance(LEASE - timedelta(seconds=1))
            with pytest.raises(LeaseHeldError):
                await heir.acquire(run.run_id)
            await silent.heartbeat()
            clock.advance(LEASE - timedelta(seconds=1))
            with pytest.raises(LeaseHeldError):
                await heir.acquire(run.run_id)
            clock.advance(timedelta(seconds=1))
            assert (await heir.acquire(run.run_id)).epoch == 2
            with pytest.raises(LeaseLostError):
                await run.step()

    async def test_a_lease_is_fresh_after_a_heartbeat_and_not_before(self, store_factory: StoreFactory) -> None:
        async with store_factory() as store:
            assert not store.lease_is_fresh()
            await store.heartbeat()
            assert store.lease_is_fresh()
        async with store_factory(lease=timedelta(0)) as never:
            await never.heartbeat()
            assert not never.lease_is_fresh()

    async def test_a_held_lease_is_extended_in_the_background(self, store_factory: StoreFactory) -> None:
        clock, loop = SetClock(), asyncio.get_running_loop()
        asked: asyncio.Queue[int] = asyncio.Queue()

        def telling_clock() -> int:
            loop.call_soon_threadsafe(asked.put_nowait, clock.now)
            return clock.now

        short = timedelta(milliseconds=60)
        async with store_factory(now=telling_clock, lease=short) as store, store_factory(now=clock, lease=short) as other:
            run = await new_run(store)
            clock.advance(short)
            async with asyncio.timeout(10):
                # When the background asks for the time once more, what it did with an earlier answer is done.
                answers = 0
                while answers < 2:
                    answers += await asked.get() == clock.now
            with pytest.raises(LeaseHeldError):
                await other.acquire(run.run_id)

    async def test_the_clock_is_the_given_one(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            assert await store.now() == clock.now
            run = await new_run(store)
            clock.advance(timedelta(days=1))
            assert (await run.step()).committed_at == clock.now
            assert (await all_rows(store, run.run_id))[1].committed_at == clock.now
