"""What is promised of deciding before there is a ticket: a barrier that the run has not come to, or a later visit of it.

Rights that decide tickets to come, many of them, are `trailmark.testing.grant_contract`.
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import pytest

from checkpoint_stores.errors import BarrierClosedError, DecisionConflictError, InvalidDecisionError, NotAnApproverError
from checkpoint_stores.protocol import CheckpointStore
from trailmark.testing.owned_runs import Verdict, new_run, reject


class EarlyDecisionContract:
    """What is decided early counts once the ticket is open, as if it had been said then."""

    async def test_a_decision_may_come_before_its_ticket(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        record = await other.decide(run.run_id, "review", Verdict(reason="known vendor"))
        assert (record.ticket, record.payload_digest, record.consumed_seq) == ("review", None, None)
        assert (await store.inbox(run.run_id)).decisions == (record,)
        assert await store.decide(run.run_id, "review", Verdict()) == record
        with pytest.raises(DecisionConflictError):
            await store.decide(run.run_id, "review", reject("ben"))
        assert (await store.decide(run.run_id, "review#2", reject("ben"))).ticket == "review#2"

    async def test_an_early_decision_is_plain_and_by_an_approver(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        for wrong in (Verdict("modify", edits={}), Verdict("reroute", target="pay"), Verdict(seen="d" * 64)):
            with pytest.raises(InvalidDecisionError):
                await store.decide(run.run_id, "review", wrong)
        with pytest.raises(BarrierClosedError):
            await store.decide(run.run_id, "sealed", Verdict())
        with pytest.raises(NotAnApproverError):
            await store.decide(run.run_id, "board", Verdict(by="ben"))
        assert (await store.decide(run.run_id, "board", Verdict("skip", "ana"))).approves is False

    async def test_an_early_vote_counts_once_the_ticket_is_open(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        await run.open_barrier(quorum=2, park=False)
        with pytest.raises(DecisionConflictError):
            await store.decide(run.run_id, "review", reject("ana"))
        await store.decide(run.run_id, "review", Verdict(by="ben"))
        assert [found.status for found in await store.barriers(status=None)] == ["decided"]

    async def test_a_bare_name_that_was_never_a_ticket_means_the_first_one(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        first = await store.decide(run.run_id, "review", Verdict(by="ana"))
        assert await store.decide(run.run_id, "review#1", Verdict(by="ana")) == first
        with pytest.raises(DecisionConflictError):
            await store.decide(run.run_id, "review#1", reject("ben"))

    async def test_who_voted_early_under_two_names_is_one_person_and_keeps_nobody_from_voting(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        for name in ("review", "review#2"):
            await store.decide(run.run_id, name, Verdict(by="ana"))
        await run.open_barrier("review#2", quorum=2, park=False)
        assert [found.status for found in await store.barriers(status=None)] == ["open"]
        await store.decide(run.run_id, "review#2", Verdict(by="ben"))
        assert [found.status for found in await store.barriers(status=None)] == ["decided"]

    async def test_a_decision_may_come_before_a_later_visit(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        record = await store.decide(run.run_id, "review#2", reject("ben"))
        assert (record.ticket, record.payload_digest) == ("review#2", None)
        assert [found.status for found in await store.barriers()] == ["open"]
