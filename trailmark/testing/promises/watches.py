"""What is promised of watches: whoever waits for what is said to a run, for its steps, or for what is due is woken, whoever wrote it.

A watch may wake for nothing, and tells nothing but that it is time to look.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from checkpoint_stores.protocol import CheckpointStore, Watch
from checkpoint_stores.records import RunChange
from trailmark.testing.owned_runs import OwnedRun, Verdict, new_run


async def _quiet(watch: Watch) -> None:
    """Let the watch tell all there is to tell so far."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(watch.changed(), 0.1)


class WatchContract:
    """Nobody who watches sleeps through what it watches for."""

    async def test_a_watch_wakes_for_what_another_process_writes(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        watch = store.watch(run.run_id)
        await self._woken_by(watch, other.decide(run.run_id, "review", Verdict()), store, run.run_id, 1)
        await self._woken_by(watch, other.request_cancel(run.run_id, actor="ana"), store, run.run_id, 2)
        watch.close()

    async def test_a_watch_wakes_for_what_this_process_writes(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        watch = store.watch(run.run_id)
        await self._woken_by(watch, store.decide(run.run_id, "review", Verdict()), store, run.run_id, 1)
        watch.close()

    async def test_a_watch_does_not_sleep_through_what_came_before_it_waited(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        watch = store.watch(run.run_id)
        await other.decide(run.run_id, "review", Verdict())
        async with asyncio.timeout(10):
            await watch.changed()
        watch.close()

    async def test_a_watch_wakes_when_another_process_ends_the_run(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(other)
        watch = store.watch(run.run_id)

        async def wait_for_the_end() -> None:
            while (await store.run(run.run_id)).status != "completed":
                await watch.changed()

        async with asyncio.timeout(10):
            await asyncio.gather(wait_for_the_end(), run.end())
        watch.close()

    async def test_a_watch_of_steps_wakes_for_each_step_that_another_process_commits(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(other)
        driving = self._driven(run)
        await self._follow_steps(store, run)
        driving.cancel()

    async def test_a_watch_of_steps_wakes_for_each_step_of_this_process(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        driving = self._driven(run)
        await self._follow_steps(store, run)
        driving.cancel()

    async def test_a_watch_of_steps_made_before_anybody_drives_the_run_wakes_for_its_steps(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(other)
        early = store.watch(run.run_id, steps=True)
        await _quiet(early)  # it has waited, and rung for nobody
        driving = self._driven(run)
        await self._follow_steps(store, run)
        early.close()
        driving.cancel()

    async def test_a_watch_without_steps_is_not_woken_by_them(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(other)
        driving = self._driven(run)
        plain = store.watch(run.run_id)
        await _quiet(plain)
        waiting = asyncio.ensure_future(plain.changed())
        await self._follow_steps(store, run)
        assert not waiting.done()
        plain.close()
        await asyncio.gather(waiting, return_exceptions=True)
        driving.cancel()

    async def test_closing_a_watch_frees_who_waits(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        watch = store.watch(run.run_id)

        async def wait() -> None:
            try:
                while True:
                    await watch.changed()
            except RuntimeError:
                pass

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        watch.close()
        async with asyncio.timeout(10):
            await waiting

    async def test_what_becomes_due_wakes_who_watches_for_it(self, store: CheckpointStore, other: CheckpointStore) -> None:
        for asking in (store, other):
            watch = asking.watch_due()
            run = await new_run(store, hold=False, status="created")
            await asyncio.wait_for(watch.changed(), 10)
            lease = await store.acquire(run.run_id)
            await _quiet(watch)
            await store.release(run.run_id, lease.epoch)
            await asyncio.wait_for(watch.changed(), 10)
            held = await new_run(store)
            await _quiet(watch)
            await store.commit(held.next_commit(change=RunChange(status="waiting", wake_at=5, release=True)))
            await asyncio.wait_for(watch.changed(), 10)
            watch.close()

    @staticmethod
    def _driven(run: OwnedRun) -> asyncio.Task[None]:
        """Whoever drives a run waits for what is said to it."""

        async def listen() -> None:
            watch = run.store.watch(run.run_id)
            try:
                while True:
                    await watch.changed()
            finally:
                watch.close()

        return asyncio.ensure_future(listen())

    @staticmethod
    async def _follow_steps(store: CheckpointStore, run: OwnedRun) -> None:
        """Each step is committed when who follows has seen the one before, and so must be woken for it."""
        watch = store.watch(run.run_id, steps=True)
        async with asyncio.timeout(20):
            for _ in range(10):  # more than a watch may be woken for nothing
                waiting = asyncio.ensure_future(watch.changed())
                await asyncio.sleep(0)
                await run.step()
                await waiting
                while await store.head(run.run_id) < run.seq:
                    await watch.changed()
        watch.close()

    @staticmethod
    async def _woken_by(watch: Any, write: Any, store: CheckpointStore, run_id: str, rev: int) -> None:
        async def see_it() -> None:
            while (await store.inbox(run_id)).rev < rev:
                await watch.changed()

        async with asyncio.timeout(10):
            await asyncio.gather(see_it(), write)
