"""What is promised of the inbox of a run: what outsiders say (signals, cancel requests, decisions) is kept until a checkpoint consumes it.

Each raises the inbox's revision, so that an owner does not park past it.  Which decisions count is `decisions` and `judging`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta

import pytest

from checkpoint_stores.errors import (
    InvalidSignalError,
    RunEndedError,
    RunNotFoundError,
    SignalConflictError,
    UnknownSignalError,
    UnserialisableError,
)
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Amendment, RunChange
from trailmark.testing.owned_runs import SetClock, StoreFactory, Verdict, all_rows, new_run, replace_epoch


class InboxContract:
    """What is said to a run is kept once, until it is consumed, and is not overlooked."""

    async def test_a_commit_tells_the_revision_of_the_inbox(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        assert (await run.step()).inbox_rev == 0
        await other.decide(run.run_id, "review", Verdict())
        assert (await run.step()).inbox_rev == 1
        await other.request_cancel(run.run_id, actor="ben")
        assert (await store.commit(run.next_commit(change=RunChange(status="waiting")))).inbox_rev == 2

    async def test_an_owner_does_not_park_over_a_decision_it_has_not_seen(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        await other.decide(run.run_id, "review#1", Verdict())
        parking = RunChange(status="waiting", wake_at=5, release=True, release_at_rev=0)
        receipt = await store.commit(run.next_commit(change=parking))
        record = await store.run(run.run_id)
        assert receipt.inbox_rev == record.inbox_rev == 1
        assert (record.status, record.owner, record.wake_at) == ("running", store.worker_id, None)
        assert len(await all_rows(store, run.run_id)) == 3
        await store.commit(run.next_commit(change=parking._replace(release_at_rev=1)))
        record = await store.run(run.run_id)
        assert (record.status, record.owner, record.wake_at) == ("waiting", None, 5)

    async def test_consumed_decisions_leave_the_inbox(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        decision = await store.decide(run.run_id, "review", Verdict())
        inbox = await store.inbox(run.run_id)
        assert (inbox.rev, inbox.decisions, [found.status for found in inbox.barriers]) == (1, (decision,), ["decided"])
        await store.commit(run.next_commit(closed=(("review#1", "resolved"),), consumed=((decision.id, run.seq),)))
        inbox = await store.inbox(run.run_id)
        assert (inbox.decisions, inbox.barriers) == ((), ())

    async def test_a_cancel_request_is_kept_once(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        assert (await store.inbox(run.run_id)).cancel is None
        first = await other.request_cancel(run.run_id, actor="ana", reason="wrong vendor")
        again = await store.request_cancel(run.run_id, actor="ben")
        assert (first.inbox_rev, again.inbox_rev, again.status) == (1, 1, "running")
        inbox = await store.inbox(run.run_id)
        assert inbox.cancel is not None
        assert (inbox.rev, inbox.cancel.actor, inbox.cancel.reason) == (1, "ana", "wrong vendor")
        assert inbox.cancel.requested_at > 0
        await run.end("cancelled")
        with pytest.raises(RunEndedError):
            await store.request_cancel(run.run_id, actor="ana")

    async def test_a_signal_is_kept_until_a_checkpoint_consumes_it(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        first = await other.signal(run.run_id, "paid", 7, by="bank")
        second = await store.signal(run.run_id, "each[3].ping", {"a": (1, "x")})
        assert (first.name, first.payload, first.actor, first.consumed_seq) == ("paid", 7, "bank", None)
        assert (second.name, second.payload) == ("each[3].ping", {"a": (1, "x")})
        assert first.sent_at > 0
        inbox = await store.inbox(run.run_id)
        assert (inbox.rev, inbox.signals, inbox.decisions) == (2, (first, second), ())
        await store.commit(run.next_commit(consumed=((first.id, run.seq + 1),)))
        assert (await store.inbox(run.run_id)).signals == (second,)
        told = await other.signals(run.run_id)
        assert [(signal.id, signal.consumed_seq) for signal in told] == [(first.id, 2), (second.id, None)]
        assert await store.decisions(run.run_id) == []
        assert await store.verify(run.run_id) == []

    async def test_a_signal_with_an_id_is_sent_once(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run, elsewhere = await new_run(store), await new_run(store)
        first = await store.signal(run.run_id, "paid", 7, signal_id="payment-1")
        assert await other.signal(run.run_id, "paid", 7, signal_id="payment-1", by="somebody else") == first
        assert (await store.inbox(run.run_id)).rev == 1
        for name, payload in (("paid", 8), ("ping", 7)):
            with pytest.raises(SignalConflictError, match="payment-1"):
                await other.signal(run.run_id, name, payload, signal_id="payment-1")
        assert (await store.signal(elsewhere.run_id, "paid", 8, signal_id="payment-1")).payload == 8
        await run.end()
        assert (await store.signal(run.run_id, "paid", 7, signal_id="payment-1")).id == first.id

    async def test_a_signal_nobody_can_wait_for_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        with pytest.raises(UnknownSignalError, match="paid, ping"):
            await store.signal(run.run_id, "payed", 7)
        with pytest.raises(InvalidSignalError, match="integer"):
            await store.signal(run.run_id, "paid", "seven")
        with pytest.raises(UnserialisableError):
            await store.signal(run.run_id, "ping", object())
        with pytest.raises(RunNotFoundError):
            await store.signal(new_id(1), "paid", 7)
        assert (await store.inbox(run.run_id)).rev == 0
        await run.end()
        with pytest.raises(RunEndedError):
            await store.signal(run.run_id, "paid", 7)

    async def test_a_runs_line_says_when_it_last_changed_whoever_changed_it(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            run = await new_run(store)

            async def changed_by(doing: Awaitable[object]) -> bool:
                clock.advance(timedelta(seconds=1))
                await doing
                return (await store.run(run.run_id)).updated_at == clock.now

            assert not await changed_by(run.step())
            assert await changed_by(run.open_barrier(quorum=2, park=False))
            assert await changed_by(store.signal(run.run_id, "paid", 7))
            assert await changed_by(store.decide(run.run_id, "review", Verdict()))
            assert await changed_by(store.request_cancel(run.run_id, actor="ana"))
            assert await changed_by(store.release(run.run_id, run.epoch))
            assert await changed_by(store.amend(Amendment(replace_epoch(run, run.epoch + 1), 3)))

    async def test_a_signal_keeps_a_run_from_parking_past_it(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.signal(run.run_id, "ping")
        receipt = await store.commit(run.next_commit(change=RunChange(status="waiting", release=True, release_at_rev=0)))
        assert receipt.inbox_rev == 1
        assert (await store.run(run.run_id)).owner == store.worker_id
