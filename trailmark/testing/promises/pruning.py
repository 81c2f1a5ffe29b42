"""What is promised of letting go: rows behind a snapshot, whole runs that ended, and the room that they took.

Which runs and rows are old enough is for others to say.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import pytest

from checkpoint_stores.errors import CheckpointNotFoundError, RunNotEndedError, RunNotFoundError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Snapshot
from trailmark.testing.owned_runs import Verdict, all_rows, new_run


class PruningContract:
    """What is dropped is gone altogether, and what is left can be read and gone on with."""

    async def test_a_run_that_ended_is_deleted_with_all_that_is_kept_of_it(self, store: CheckpointStore) -> None:
        run = await new_run(store, run_key="4711")
        await run.open_barrier(park=False)
        await store.decide(run.run_id, "review#1", Verdict())
        await store.put_snapshot(Snapshot(run.run_id, run.seq, b"1{}", run.digest), run.epoch)
        with pytest.raises(RunNotEndedError):
            await store.delete(run.run_id)
        await run.end()
        kept = await new_run(store)
        assert (await store.delete(run.run_id)).status == "completed"
        with pytest.raises(RunNotFoundError):
            await store.delete(run.run_id)
        for reading in (store.run, store.decisions, store.inbox, store.load, store.verify):
            with pytest.raises(RunNotFoundError):
                await reading(run.run_id)
        counted = await store.stats()
        assert [counted[name] for name in ("checkpoints", "snapshots", "barriers_open", "decisions")] == [1, 0, 0, 0]
        assert [each.run_id for each in await store.runs()] == [kept.run_id]
        await new_run(store, run_key="4711", run_id=run.run_id)

    async def test_rows_are_dropped_behind_a_snapshot_and_the_chain_goes_on_from_it(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(store)
        digests = {run.seq: run.digest}
        for _ in range(5):
            await run.step()
            digests[run.seq] = run.digest
        for wrong in (Snapshot(run.run_id, 3, b"1{}", b"x" * 32), Snapshot(run.run_id, 6, b"1{}", digests[6])):
            assert await other.drop_before(wrong) == 0
        assert await other.drop_before(Snapshot(run.run_id, 3, b"1{}", digests[3])) == 3
        assert await other.drop_before(Snapshot(run.run_id, 3, b"1{}", digests[3])) == 0
        assert [row.seq for row in await all_rows(store, run.run_id)] == [4, 5, 6]
        assert await store.verify(run.run_id) == []
        snapshot, rows = await store.load(run.run_id)
        assert (snapshot, [row.seq for row in rows]) == (Snapshot(run.run_id, 3, b"1{}", digests[3]), [4, 5, 6])
        for gone in (1, 2):
            with pytest.raises(CheckpointNotFoundError):
                await store.load(run.run_id, gone)
        await run.step()  # its owner goes on
        assert await store.verify(run.run_id) == []

    async def test_a_store_is_packed(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        assert all(size >= 0 for size in await store.vacuum())
        assert await store.verify(run.run_id) == []

    async def test_a_snapshot_of_what_was_pruned_meanwhile_is_dropped_in_silence(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(store)
        early = Snapshot(run.run_id, 1, b"written beside the steps", run.digest)
        for _ in range(4):
            await run.step()
        kept = Snapshot(run.run_id, 5, b"the oldest that is left", run.digest)
        await run.step()
        assert await other.drop_before(kept) == 5
        await store.put_snapshot(early, 1)
        assert [(found, [row.seq for row in rows]) for found, rows in [await other.load(run.run_id)]] == [(kept, [6])]
        assert await other.verify(run.run_id) == []
