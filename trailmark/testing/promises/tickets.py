"""What is promised of tickets: how they are listed, opened, closed and opened again, and which of them a name means.

What a decision does to an open one is `decisions`; what is decided before there is one, `early_decisions`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from checkpoint_stores.errors import AmbiguousTicketError, BarrierClosedError, DecisionConflictError, UnknownBarrierError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DecisionRecord
from trailmark.testing.owned_runs import SetClock, StoreFactory, Verdict, barrier, new_run, reject


class TicketContract:
    """A ticket is one question of one visit, and a name means one ticket or none."""

    async def test_the_inbox_of_approvals_is_oldest_first(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            opened = []
            for number in range(4):
                clock.advance(timedelta(seconds=1))
                run = await new_run(store, tenant="acme" if number == 3 else "")
                await run.open_barrier(payload={"n": number}, form={"type": "object"}, approvers=("ana", "finance"), quorum=2,
                                       early=False, targets=("pay",), deadline=clock.now + 5, on_timeout="reject")  # fmt: skip
                opened.append(run.run_id)
            assert [found.run_id for found in await store.barriers()] == opened[:3]
            assert [found.run_id for found in await store.barriers(limit=2)] == opened[:2]
            assert [found.run_id for found in await store.barriers(tenant="acme")] == opened[3:]
            (found,) = await store.barriers(run_id=opened[3])
            expected = barrier(
                opened[3], opened_seq=2, opened_at=clock.now, payload={"n": 3}, form={"type": "object"}, approvers=("ana", "finance"),
                quorum=2, early=False, targets=("pay",), deadline=clock.now + 5, on_timeout="reject",
            )  # fmt: skip
            assert found == expected

    async def test_closed_barriers_leave_the_inbox_and_stay_in_the_books(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        await run.open_barrier("other#1", park=False)
        await store.commit(run.next_commit(closed=(("review#1", "withdrawn"),)))
        assert [found.ticket for found in await store.barriers()] == ["other#1"]
        assert [found.ticket for found in await store.barriers(status="withdrawn")] == ["review#1"]
        assert {found.ticket for found in await store.barriers(status=None)} == {"review#1", "other#1"}
        assert [found.ticket for found in (await store.inbox(run.run_id)).barriers] == ["other#1"]

    async def test_a_barrier_opened_and_closed_in_one_commit_is_closed(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        early = await store.decide(run.run_id, "review", Verdict())
        commit = run.next_commit(opened=(barrier(run.run_id),), closed=(("review#1", "resolved"),), consumed=((early.id, 2),))
        await store.commit(commit)
        assert [found.status for found in await store.barriers(run_id=run.run_id, status=None)] == ["resolved"]
        assert [decision.consumed_seq for decision in await store.decisions(run.run_id)] == [2]

    async def test_a_ticket_can_be_opened_again(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        await store.commit(run.next_commit(closed=(("review#1", "resolved"),)))
        await run.open_barrier(park=False, payload={"second": "time"})
        (found,) = await store.barriers(run_id=run.run_id, status=None)
        assert (found.status, found.payload) == ("open", {"second": "time"})

    async def test_a_timeouts_decision_is_voted_and_consumed_in_its_commit(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        vote = DecisionRecord(
            f"timeout:{run.run_id}:review#1", run.run_id, "review#1", "reject", "timeout", source="timeout", decided_at=77
        )
        commit = run.next_commit(closed=(("review#1", "resolved"),), voted=(vote,), consumed=((vote.id, run.seq),))
        await store.commit(commit)
        assert await store.decisions(run.run_id) == [replace(vote, consumed_seq=run.seq - 1)]
        assert (await store.inbox(run.run_id)).decisions == ()
        with pytest.raises(DecisionConflictError) as caught:
            await store.decide(run.run_id, "review#1", Verdict())
        assert caught.value.winner == "timeout"

    async def test_an_unknown_barrier_lists_the_known_ones(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        with pytest.raises(UnknownBarrierError) as caught:
            await store.decide(run.run_id, "reviev", Verdict())
        assert set(caught.value.known) == {"review", "sealed", "board"}

    @pytest.mark.parametrize("ticket", ["review#\u00b2", "review#" + "9" * 5000, "score[\u00b2].review", "score[00].review"])
    async def test_a_number_that_no_ticket_has_names_no_barrier(self, store: CheckpointStore, ticket: str) -> None:
        inside = '{"score": {"kind": "parallel", "branches": [{"nodes": {"review": {"kind": "barrier"}}}]}, "review": {"kind": "barrier"}}'
        run = await new_run(store, definition=f'{{"barriers": {{"review": {{}}}}, "nodes": {inside}}}', graph_hash="n" * 64)
        with pytest.raises(UnknownBarrierError):
            await store.decide(run.run_id, ticket, Verdict())

    async def test_a_name_with_several_open_tickets_is_ambiguous(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier("score[0].review#1", park=False)
        await run.open_barrier("score[1].review#1", park=False)
        with pytest.raises(AmbiguousTicketError) as caught:
            await store.decide(run.run_id, "review", Verdict())
        assert caught.value.tickets == ("score[0].review#1", "score[1].review#1")
        assert (await store.decide(run.run_id, "score[1].review#1", Verdict())).ticket == "score[1].review#1"
        assert (await store.decide(run.run_id, "review", Verdict())).ticket == "score[0].review#1"

    async def test_withdrawn_and_resolved_tickets_take_no_decision(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        await store.commit(run.next_commit(closed=(("review#1", "withdrawn"),)))
        for name in ("review#1", "review"):
            with pytest.raises(BarrierClosedError) as caught:
                await store.decide(run.run_id, name, Verdict())
            assert caught.value.status == "withdrawn"

    async def test_the_next_visit_of_a_barrier_is_another_ticket(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        first = await store.decide(run.run_id, "review", Verdict())
        await store.commit(run.next_commit(closed=(("review#1", "resolved"),), consumed=((first.id, run.seq),)))
        await run.open_barrier("review#2", park=False)
        second = await store.decide(run.run_id, "review", reject())
        assert (first.ticket, second.ticket) == ("review#1", "review#2")
        assert await store.decide(run.run_id, "review#1", Verdict()) == replace(first, consumed_seq=2)

    async def test_a_ticket_whose_decision_was_refused_takes_another(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False, form={})
        refused = await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": -1}))
        await store.commit(run.next_commit(closed=(("review#1", "open"),), consumed=((refused.id, run.seq),)))
        better = await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": 1}))
        assert (await store.inbox(run.run_id)).decisions == (better,)
        assert [found.status for found in await store.barriers(status=None)] == ["decided"]
