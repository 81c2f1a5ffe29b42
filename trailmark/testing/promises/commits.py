"""What is promised of a commit: all of it or nothing, in order, by the owner alone, and harmless to those committed beside it.

How it is read back from a snapshot on, or out of a broken chain, is `loading`; what people said meanwhile, `inbox`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio

import pytest

from checkpoint_stores.errors import LeaseLostError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, DecisionRecord, Receipt, RunChange
from trailmark.testing.owned_runs import SECOND, OwnedRun, StoreFactory, all_rows, barrier, new_run


class CommitContract:
    """A commit is written whole, behind the row before it, or not at all."""

    async def test_a_commit_is_read_back_as_it_was(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        given = run.row("parallel", "prüfen ✓", payload=bytes(range(256)))
        receipt = await store.commit(Commit(run.run_id, 1, (given,)))
        assert receipt.inbox_rev == 0
        snapshot, rows = await other.load(run.run_id)
        assert snapshot is None
        assert rows[1]._replace(committed_at=0) == given
        assert abs(rows[1].committed_at - receipt.committed_at) < SECOND
        assert await all_rows(other, run.run_id) == rows

    async def test_a_commit_of_several_rows_keeps_their_order(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.commit(Commit(run.run_id, 1, tuple(run.row() for _ in range(5))))
        assert [row.seq for row in (await store.load(run.run_id))[1]] == [1, 2, 3, 4, 5, 6]

    async def test_a_stale_epoch_writes_nothing(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await other.acquire(run.run_id, takeover=True)
        before = await store.run(run.run_id), await all_rows(store, run.run_id)
        stale = run.next_commit()
        everything = stale._replace(
            change=RunChange(status="completed", release=True), opened=(barrier(run.run_id),),
            voted=(DecisionRecord("v", run.run_id, "review#1", "approve", "timeout"),),
        )  # fmt: skip
        for commit in (stale, everything, Commit(run.run_id, 1, (), RunChange(status="failed"))):
            with pytest.raises(LeaseLostError) as caught:
                await store.commit(commit)
            assert (caught.value.owner, caught.value.current_epoch) == (other.worker_id, 2)
        assert (await store.run(run.run_id), await all_rows(store, run.run_id)) == before
        assert await store.barriers(status=None) == []
        assert await store.decisions(run.run_id) == []

    async def test_a_taken_seq_is_refused_and_nothing_of_the_commit_is_written(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        again = store.chain.seal(run.digest, run.run_id, 2, 1, 1, "step", "", "other", "", b"1[]", 0)
        beyond = store.chain.seal(again.digest, run.run_id, 3, 1, 1, "step", "", "other", "", b"1[]", 0)
        with pytest.raises(LeaseLostError):
            await store.commit(Commit(run.run_id, 1, (again, beyond), RunChange(status="failed"), opened=(barrier(run.run_id),)))
        with pytest.raises(LeaseLostError):
            await store.commit(Commit(run.run_id, 1, (again,)))
        assert [row.node for row in await all_rows(store, run.run_id)] == ["", "work"]
        assert (await store.run(run.run_id)).status == "running"
        assert await store.barriers() == []

    async def test_a_commit_that_leaves_a_hole_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        run.row()
        for commit in (run.next_commit(), run.next_commit(change=RunChange(status="waiting"))):
            with pytest.raises(LeaseLostError):
                await store.commit(commit)
        assert await store.verify(run.run_id) == []

    async def test_a_refused_run_does_not_harm_those_committed_at_the_same_time(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        runs = [await new_run(store) for _ in range(20)]
        for lost in runs[::5]:
            await other.acquire(lost.run_id, takeover=True)
        doubled = runs[1]
        await doubled.step()
        doubled.seq -= 1
        answers = await asyncio.gather(*(run.step() for run in runs), return_exceptions=True)
        for position, (run, answer) in enumerate(zip(runs, answers, strict=True)):
            is_refused = position % 5 == 0 or run is doubled
            assert isinstance(answer, LeaseLostError if is_refused else Receipt)
            assert await store.verify(run.run_id) == []
            assert len(await all_rows(store, run.run_id)) == 2

    async def test_transitions_of_many_runs_at_the_same_time_are_each_whole(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(10)]
        await other.acquire(runs[3].run_id, takeover=True)
        answers = await asyncio.gather(*(run.open_barrier() for run in runs), return_exceptions=True)
        assert [position for position, answer in enumerate(answers) if isinstance(answer, LeaseLostError)] == [3]
        assert {found.run_id for found in await store.barriers()} == {run.run_id for run in runs} - {runs[3].run_id}
        assert {run.run_id for run in await store.runs(status="waiting")} == {run.run_id for run in runs} - {runs[3].run_id}

    async def test_many_runs_may_commit_many_steps_at_once(self, store: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(20)]

        async def walk(run: OwnedRun) -> None:
            for _ in range(10):
                await run.step()

        await asyncio.gather(*(walk(run) for run in runs))
        for run in runs:
            assert [row.seq for row in (await store.load(run.run_id))[1]] == list(range(1, 12))

    async def test_commits_of_one_run_that_are_sent_together_keep_their_order(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await asyncio.gather(*(store.commit(run.next_commit()) for _ in range(10)))
        assert await store.verify(run.run_id) == []
        assert len(await all_rows(store, run.run_id)) == 11

    async def test_a_transition_changes_the_run_and_moves_the_anchor(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        assert (await store.run(run.run_id)).head_seq == 1
        await store.commit(run.next_commit(change=RunChange(status="waiting", wake_at=99)))
        record = await store.run(run.run_id)
        assert (record.status, record.wake_at, record.owner) == ("waiting", 99, store.worker_id)
        assert (record.head_seq, record.head_digest) == (3, run.digest)
        await store.commit(
            run.next_commit(change=RunChange(status="failed", error={"type": "Boom", "at": [1]}, clear_wake_at=True, release=True))
        )
        record = await store.run(run.run_id)
        assert (record.status, record.wake_at, record.owner, record.error) == ("failed", None, None, {"type": "Boom", "at": [1]})
        assert record.epoch == 1

    async def test_a_transition_without_rows_moves_the_anchor_too(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.step()
        await store.commit(Commit(run.run_id, 1, (), RunChange(status="waiting", release=True)))
        record = await store.run(run.run_id)
        assert (record.status, record.owner, record.head_seq, record.head_digest) == ("waiting", None, 2, run.digest)

    async def test_fields_of_a_change_that_are_left_out_stay(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.commit(run.next_commit(change=RunChange(status="waiting", wake_at=99, error={"a": 1})))
        await store.commit(run.next_commit(change=RunChange(status="running")))
        record = await store.run(run.run_id)
        assert (record.status, record.wake_at, record.error, record.owner) == ("running", 99, {"a": 1}, store.worker_id)

    async def test_a_text_with_signs_that_mean_something_elsewhere_is_kept(self, store: CheckpointStore) -> None:
        run = await new_run(store, flow="a'b\"c%s$1?1;--", run_key="k'%(x)s")
        await store.commit(Commit(run.run_id, 1, (run.row(node="n'%s$1?2\\:x{}"),)))
        assert (await all_rows(store, run.run_id))[1].node == "n'%s$1?2\\:x{}"
        assert (await store.run_by_key("a'b\"c%s$1?1;--", "k'%(x)s")) is not None

    async def test_closing_a_store_commits_what_is_queued(self, store_factory: StoreFactory, store: CheckpointStore) -> None:
        leaving = store_factory()
        async with leaving:
            run = await new_run(leaving)
            queued = [asyncio.ensure_future(leaving.commit(run.next_commit())) for _ in range(5)]
            await asyncio.sleep(0)
        assert all(isinstance(answer, Receipt) for answer in await asyncio.gather(*queued))
        assert len(await all_rows(store, run.run_id)) == 6
