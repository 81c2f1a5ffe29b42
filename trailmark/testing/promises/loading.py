"""What is promised of reading a run back: from the newest sound snapshot on, along the chain of digests, up to any row.

It knows rows by their place and their seal, and not what they mean.  What is dropped on purpose is `pruning`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import pytest

from checkpoint_stores.errors import CheckpointCorruptError, CheckpointNotFoundError, RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, NewRun, Snapshot
from trailmark.testing.owned_runs import StoreFactory, all_rows, new_run


class LoadingContract:
    """What is read back is what was sealed, or it is said where the chain breaks."""

    async def test_load_stops_at_the_seq_that_is_asked_for(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        for _ in range(5):
            await run.step()
        assert [row.seq for row in (await store.load(run.run_id, upto=3))[1]] == [1, 2, 3]
        assert [row.seq for row in (await store.load(run.run_id, upto=6))[1]] == [1, 2, 3, 4, 5, 6]
        for missing in (7, 100, 0, -1):
            with pytest.raises(CheckpointNotFoundError):
                await store.load(run.run_id, upto=missing)

    async def test_load_begins_at_the_newest_snapshot(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        kept = []
        for _ in range(6):
            await run.step()
            if run.seq in (3, 5):
                kept.append(Snapshot(run.run_id, run.seq, b"state at %d" % run.seq, run.digest))
                await store.put_snapshot(kept[-1], 1)
        assert [(found, [row.seq for row in rows]) for found, rows in [await other.load(run.run_id)]] == [(kept[1], [6, 7])]
        assert [(found, [row.seq for row in rows]) for found, rows in [await other.load(run.run_id, upto=5)]] == [(kept[1], [])]
        assert [(found, [row.seq for row in rows]) for found, rows in [await other.load(run.run_id, upto=4)]] == [(kept[0], [4])]
        assert [(found, [row.seq for row in rows]) for found, rows in [await other.load(run.run_id, upto=2)]] == [(None, [1, 2])]
        assert await other.verify(run.run_id) == []

    async def test_a_snapshot_that_does_not_stand_on_its_checkpoint_is_not_used(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        sound = Snapshot(run.run_id, 2, b"sound", run.digest)
        await run.step()
        await store.put_snapshot(sound, 1)
        await store.put_snapshot(Snapshot(run.run_id, 3, b"of another history", b"x" * 32), 1)
        snapshot, rows = await store.load(run.run_id)
        assert snapshot == sound
        assert [row.seq for row in rows] == [3]
        assert [problem.seq for problem in await store.verify(run.run_id)] == [3]

    async def test_a_snapshot_of_a_stale_owner_is_dropped_in_silence(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await other.acquire(run.run_id, takeover=True)
        await store.put_snapshot(Snapshot(run.run_id, 1, b"late", run.digest), 1)
        assert (await store.load(run.run_id))[0] is None

    async def test_rows_sealed_with_another_key_are_corrupt(self, store_factory: StoreFactory) -> None:
        async with store_factory(chain_key=b"one") as store, store_factory(chain_key=b"two") as stranger:
            run = await new_run(store)
            await run.step()
            assert await store.verify(run.run_id) == []
            with pytest.raises(CheckpointCorruptError) as caught:
                await stranger.load(run.run_id)
            assert (caught.value.run_id, caught.value.seq) == (run.run_id, 1)
            assert [problem.seq for problem in await stranger.verify(run.run_id)] == [1, 2]

    async def test_a_row_that_breaks_the_chain_is_corrupt_and_those_before_it_are_readable(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        run.digest = b"y" * 32
        await run.step()
        await run.step()
        with pytest.raises(CheckpointCorruptError) as caught:
            await store.load(run.run_id)
        assert (caught.value.run_id, caught.value.seq) == (run.run_id, 3)
        assert [row.seq for row in (await store.load(run.run_id, upto=2))[1]] == [1, 2]
        assert [problem.seq for problem in await store.verify(run.run_id)] == [3]

    async def test_a_fork_stands_on_its_parents_digest(self, store: CheckpointStore) -> None:
        parent = await new_run(store)
        await parent.step()
        fork_id = new_id(await store.now())
        first = store.chain.seal(store.chain.genesis(fork_id, parent.digest), fork_id, 0, 0, 1, "fork", "", "", "work", b"1[]", 0)
        new = NewRun(fork_id, "invoice", "1", "g" * 64, 50, status="ready", hold=False, parent_run_id=parent.run_id, forked_at_seq=2)
        lease = await store.create(new, first)
        assert (lease.epoch, lease.head_seq, lease.run.parent_run_id, lease.run.forked_at_seq) == (0, 0, parent.run_id, 2)
        await store.acquire(fork_id)
        assert [row.seq for row in (await store.load(fork_id))[1]] == [0, 1]
        assert [row.seq for row in (await store.load(fork_id, upto=0))[1]] == [0]
        assert await store.verify(fork_id) == []

    async def test_a_fork_of_a_parent_that_is_not_here_can_be_loaded(self, store: CheckpointStore) -> None:
        fork_id, parent_id = new_id(await store.now()), new_id(await store.now())
        first = store.chain.seal(store.chain.genesis(fork_id, b"p" * 32), fork_id, 0, 0, 1, "fork", "", "", "work", b"1[]", 0)
        new = NewRun(fork_id, "invoice", "1", "g" * 64, 50, status="ready", hold=False, parent_run_id=parent_id, forked_at_seq=2)
        await store.create(new, first)
        assert [row.seq for row in (await store.load(fork_id))[1]] == [0]
        assert await store.verify(fork_id) == []

    async def test_the_head_is_the_newest_row(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        assert await other.head(run.run_id) == 1
        await run.step()
        await run.step()
        assert await other.head(run.run_id) == 3
        with pytest.raises(RunNotFoundError):
            await store.head(new_id(await store.now()))

    async def test_history_is_read_from_any_seq_on(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.commit(Commit(run.run_id, 1, tuple(run.row() for _ in range(1_100))))
        assert [row.seq for row in await all_rows(store, run.run_id)] == list(range(1, 1_102))
        assert [row.seq for row in await all_rows(store, run.run_id, after=1_099)] == [1_100, 1_101]
        assert await all_rows(store, run.run_id, after=1_101) == []
