"""What is promised of looking for runs: by a part of an id, in pages, by what they have in common, and counted.

It reads the lines of runs.  What a run has been through is `loading`; which runs somebody ought to drive, `due`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from checkpoint_stores.errors import AmbiguousRunError, RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from trailmark.testing.owned_runs import SetClock, StoreFactory, Verdict, all_rows, new_run


class FindingContract:
    """A run is found where it is named without doubt, and listed where it belongs."""

    async def test_an_unknown_run_is_not_found(self, store: CheckpointStore) -> None:
        missing = new_id(await store.now())
        for ask in (
            store.run(missing), store.load(missing), store.inbox(missing), store.verify(missing), store.acquire(missing),
            store.decisions(missing), store.barriers(run_id=missing), store.request_cancel(missing, actor="ana"),
            store.decide(missing, "review", Verdict()), all_rows(store, missing), store.run("no-run-id"), store.run(""), store.load("no-run-id"),
        ):  # fmt: skip
            with pytest.raises(RunNotFoundError):
                await ask

    async def test_the_first_characters_of_an_id_find_a_run_where_no_other_begins_so(self, store: CheckpointStore) -> None:
        first = await new_run(store, run_id="0190a000-1111-7000-8000-000000000001")
        others = [await new_run(store, run_id=f"0190b000-2222-7000-8000-00000000000{last}") for last in "12"]
        assert (await store.run("0190a000")).run_id == first.run_id
        assert (await store.run("0190A000-1111-7")).run_id == first.run_id
        for ambiguous in ("0190b000", "0190b000-2222-7000-8000-00000000000"):
            with pytest.raises(AmbiguousRunError) as caught:
                await store.run(ambiguous)
            assert sorted(caught.value.candidates) == [other.run_id for other in others]
        for short_or_wrong in ("0190a00", "0190a0001", "0190c000", "not an id"):
            with pytest.raises(RunNotFoundError):
                await store.run(short_or_wrong)

    async def test_the_last_characters_of_an_id_find_a_run_where_no_other_ends_so(self, store: CheckpointStore) -> None:
        first = await new_run(store, run_id="0190a000-1111-7000-8000-0000aa123456")
        second = await new_run(store, run_id="0190a000-1111-7000-8000-0001ab123456")
        assert (await store.run("aa123456")).run_id == first.run_id
        assert (await store.run("8000-0001AB123456")).run_id == second.run_id
        assert (await store.run("1ab123456")).run_id == second.run_id
        for short_or_wrong in ("b123456", "ac123456", "8001-0001ab123456", "7000-80000001ab123456"):
            with pytest.raises(RunNotFoundError):
                await store.run(short_or_wrong)

    async def test_an_ending_that_several_ids_have_names_them(self, store: CheckpointStore) -> None:
        ids = [(await new_run(store, run_id=f"0190a00{first}-1111-7000-8000-0000aa123456")).run_id for first in "012"]
        with pytest.raises(AmbiguousRunError) as caught:
            await store.run("aa123456")
        assert sorted(caught.value.candidates) == ids
        assert (await store.run("0190a001")).run_id == ids[1]

    async def test_runs_are_listed_newest_first_and_in_pages(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            made = []
            for _ in range(5):
                clock.advance(timedelta(seconds=1))
                made.append((await new_run(store)).run_id)
            made.reverse()
            pages = [[run.run_id for run in await store.runs(limit=2)]]
            while pages[-1]:
                pages.append([run.run_id for run in await store.runs(limit=2, before=pages[-1][-1])])
            assert [run_id for page in pages for run_id in page] == made

    async def test_runs_are_listed_by_flow_status_and_tenant(self, store: CheckpointStore) -> None:
        plain = await new_run(store)
        refund = await new_run(store, flow="refund")
        done = await new_run(store)
        await done.end()
        theirs = await new_run(store, tenant="acme")

        async def listed(**chosen: Any) -> set[str]:
            return {run.run_id for run in await store.runs(**chosen)}

        assert await listed() == {plain.run_id, refund.run_id, done.run_id}
        assert await listed(flow="refund") == {refund.run_id}
        assert await listed(status="running") == {plain.run_id, refund.run_id}
        assert await listed(status="completed", flow="invoice") == {done.run_id}
        assert await listed(tenant="acme") == {theirs.run_id}

    async def test_stats_count_what_is_there(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        await new_run(store)
        stats = await store.stats()
        assert stats["runs"] == {"waiting": 1, "running": 1}
        assert (stats["checkpoints"], stats["snapshots"], stats["barriers_open"], stats["decisions"]) == (3, 0, 0, 1)
        assert stats["bytes"] > 0
        assert stats["schema"]
