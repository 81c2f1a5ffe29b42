"""What is promised of deciding an open ticket: whose vote it was, when it is decided, and that it is decided once.

Here everybody may decide and says what the ticket takes; who may not, and what it does not take, is `judging`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from checkpoint_stores.errors import BarrierClosedError, DecisionConflictError, InvalidDecisionError, RunEndedError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DecisionRecord
from trailmark.testing.owned_runs import SECOND, SetClock, StoreFactory, Verdict, new_run, reject


class DecisionContract:
    """A ticket is decided once, by people with names."""

    async def test_a_decision_is_attributed_and_bound_to_what_was_shown(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            run = await new_run(store)
            shown = await run.open_barrier(form={"type": "object"})
            clock.advance(timedelta(minutes=1))
            given = Verdict("modify", "ana", "rounded", "cli", ("finance",), {"amount": 900}, approves=True, seen=shown.digest)
            record = await store.decide(run.run_id, "review#1", given)
            expected = DecisionRecord(
                record.id, run.run_id, "review#1", "modify", "ana", "rounded", "cli", ("finance",), {"amount": 900},
                approves=True, payload_digest=shown.digest, decided_at=clock.now,
            )  # fmt: skip
            assert record == expected
            assert await store.decisions(run.run_id) == [record]
            assert (await store.barriers(run_id=run.run_id, status=None))[0].status == "decided"

    @pytest.mark.parametrize("action", ["approve", "reject", "skip", "reroute", "modify"])
    async def test_each_action_is_kept_as_what_it_is(self, store: CheckpointStore, action: str) -> None:
        run = await new_run(store)
        await run.open_barrier(targets=("pay",), form={})
        parts = {"reroute": {"target": "pay"}, "modify": {"edits": {}}}.get(action, {})
        record = await store.decide(run.run_id, "review", Verdict(action, approves=False, **parts))  # type: ignore[arg-type]
        assert (record.action, record.approves) == (action, action == "approve")
        assert (await store.barriers(run_id=run.run_id, status=None))[0].status == "decided"

    async def test_the_same_decision_again_returns_the_stored_one(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        record = await store.decide(run.run_id, "review#1", Verdict())
        assert await other.decide(run.run_id, "review", Verdict(reason="said again")) == record
        assert (await store.run(run.run_id)).inbox_rev == 1
        assert len(await store.decisions(run.run_id)) == 1

    async def test_another_decision_conflicts_and_names_the_winner(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        await store.decide(run.run_id, "review#1", Verdict(by="ana"))
        for late in (reject("ana"), reject("ben"), Verdict(by="ben")):
            with pytest.raises(DecisionConflictError) as caught:
                await store.decide(run.run_id, "review#1", late)
            assert (caught.value.winner, caught.value.winning_action) == ("ana", "approve")
        assert len(await store.decisions(run.run_id)) == 1

    async def test_of_two_people_at_the_same_instant_one_wins(self, store: CheckpointStore, other: CheckpointStore) -> None:
        for _ in range(5):
            run = await new_run(store)
            await run.open_barrier()
            answers = await asyncio.gather(
                store.decide(run.run_id, "review", Verdict(by="ana")),
                other.decide(run.run_id, "review", reject("ben")),
                return_exceptions=True,
            )
            won = [answer for answer in answers if isinstance(answer, DecisionRecord)]
            lost = [answer for answer in answers if isinstance(answer, DecisionConflictError)]
            assert (len(won), len(lost)) == (1, 1)
            assert lost[0].winner == won[0].actor
            assert await store.decisions(run.run_id) == won
            assert (await store.run(run.run_id)).inbox_rev == 1

    async def test_a_quorum_needs_votes_of_different_people(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(quorum=2)
        first = await store.decide(run.run_id, "review", Verdict(by="ana"))
        assert await store.decide(run.run_id, "review", Verdict(by="ana")) == first
        assert [found.status for found in await store.barriers()] == ["open"]
        with pytest.raises(DecisionConflictError):
            await store.decide(run.run_id, "review", reject("ana"))
        await other.decide(run.run_id, "review", Verdict(by="ben"))
        assert [found.status for found in await store.barriers(status=None)] == ["decided"]
        with pytest.raises(DecisionConflictError):
            await store.decide(run.run_id, "review", Verdict(by="eve"))
        assert [decision.actor for decision in await store.decisions(run.run_id)] == ["ana", "ben"]

    async def test_where_several_must_agree_nobody_skips_edits_or_reroutes_alone(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(quorum=2, form={"type": "object"}, targets=("pay",))
        for alone in (Verdict("skip"), Verdict("modify", edits={}, approves=True), Verdict("reroute", target="pay")):
            with pytest.raises(InvalidDecisionError, match="needs 2 approvals"):
                await store.decide(run.run_id, "review", alone)
        assert await store.decisions(run.run_id) == []

    async def test_one_reject_outweighs_a_quorum(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(quorum=3)
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        await store.decide(run.run_id, "review", reject("ben"))
        assert [found.status for found in await store.barriers(status=None)] == ["decided"]
        with pytest.raises(DecisionConflictError) as caught:
            await store.decide(run.run_id, "review", Verdict(by="eve"))
        assert caught.value.winner == "ben"

    async def test_after_the_deadline_the_ticket_is_closed(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            run = await new_run(store)
            await run.open_barrier(deadline=clock.now + SECOND, quorum=2)
            clock.advance(timedelta(seconds=1, microseconds=-1))
            vote = await store.decide(run.run_id, "review", Verdict(by="ana"))
            clock.advance(timedelta(microseconds=1))
            with pytest.raises(BarrierClosedError) as caught:
                await store.decide(run.run_id, "review", Verdict(by="ben"))
            assert caught.value.status == "expired"
            assert await store.decide(run.run_id, "review", Verdict(by="ana")) == vote

    async def test_an_ended_run_takes_no_decision(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        await run.end("cancelled")
        with pytest.raises(RunEndedError):
            await store.decide(run.run_id, "review", Verdict())
        assert await store.decisions(run.run_id) == []
