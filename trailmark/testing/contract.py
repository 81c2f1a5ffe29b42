"""Every promise of `CheckpointStore`, as tests: ours pass them, and so does any store you write.

Subclass `StoreContract` in a test file and give it a fixture ``store_factory``::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return lambda **options: MyStore(tmp_path / "runs", **options)

What is promised of rights given in advance is `trailmark.testing.grant_contract.GrantContract`, and of the optional `take_up`
`trailmark.testing.resumption_contract.ResumptionContract`: further bases of the same class.

Each call returns one more store, not yet opened, over the same database: two
stores are two processes.  ``options`` are ``now`` (a clock: a callable that
returns microseconds), ``lease`` (a timedelta) and ``chain_key`` (bytes).
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from checkpoint_stores.errors import (
    AmbiguousEffectError,
    AmbiguousTicketError,
    BarrierClosedError,
    DecisionConflictError,
    EffectNotInDoubtError,
    InvalidDecisionError,
    InvalidSignalError,
    LeaseLostError,
    NotAnApproverError,
    RunEndedError,
    RunNotFoundError,
    SignalConflictError,
    StalePayloadError,
    UnknownBarrierError,
    UnknownEffectError,
    UnknownSignalError,
    UnserialisableError,
)
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore, Watch
from checkpoint_stores.records import Amendment, DecisionRecord, EffectRecord, RunChange
from trailmark.testing.owned_runs import (
    DEFINITION,
    LEASE,
    SECOND,
    OwnedRun,
    SetClock,
    StoreFactory,
    Verdict,
    all_rows,
    barrier,
    new_run,
    reject,
    replace_epoch,
)
from trailmark.testing.promises.amending import AmendmentContract
from trailmark.testing.promises.commits import CommitContract
from trailmark.testing.promises.creating import CreationContract
from trailmark.testing.promises.due import DueContract
from trailmark.testing.promises.expiry import ExpiryContract
from trailmark.testing.promises.finding import FindingContract
from trailmark.testing.promises.leases import LeaseContract
from trailmark.testing.promises.loading import LoadingContract
from trailmark.testing.promises.pruning import PruningContract

__all__ = [
    "DEFINITION",
    "LEASE",
    "SECOND",
    "OwnedRun",
    "SetClock",
    "StoreContract",
    "StoreFactory",
    "Verdict",
    "all_rows",
    "barrier",
    "effect",
    "new_run",
    "reject",
    "replace_epoch",
]


async def _quiet(watch: Watch) -> None:
    """Let the watch tell all there is to tell so far."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(watch.changed(), 0.1)


class StoreContract(
    CreationContract,
    FindingContract,
    DueContract,
    LeaseContract,
    ExpiryContract,
    CommitContract,
    LoadingContract,
    PruningContract,
    AmendmentContract,
):
    """The promises.  Provide the fixture ``store_factory``; see the module."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        raise NotImplementedError("a subclass of StoreContract provides the fixture store_factory")

    @pytest_asyncio.fixture
    async def store(self, store_factory: StoreFactory) -> AsyncIterator[CheckpointStore]:
        async with store_factory() as store:
            yield store

    @pytest_asyncio.fixture
    async def other(self, store: CheckpointStore, store_factory: StoreFactory) -> AsyncIterator[CheckpointStore]:
        """Another process on the same database."""
        async with store_factory() as other:
            yield other

    # --- what is due ------------------------------------------------------------------------------------------------
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

    # --- committing -------------------------------------------------------------------------------------------------
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

    # --- the inbox --------------------------------------------------------------------------------------------------
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

    # --- signals ----------------------------------------------------------------------------------------------------
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

    # --- deciding ---------------------------------------------------------------------------------------------------
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

    async def test_only_approvers_decide(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(approvers=("ana", "finance"))
        with pytest.raises(NotAnApproverError) as caught:
            await store.decide(run.run_id, "review", Verdict(by="ben", roles=("sales",)))
        assert caught.value.approvers == ("ana", "finance")
        assert await store.decisions(run.run_id) == []
        await store.decide(run.run_id, "review", Verdict(by="ben", roles=("sales", "finance")))

    @pytest.mark.parametrize("nobody", ["", "timeout"])
    async def test_nobody_decides_without_a_name_or_in_the_name_of_the_deadline(self, store: CheckpointStore, nobody: str) -> None:
        run = await new_run(store)
        await run.open_barrier()
        with pytest.raises(InvalidDecisionError):
            await store.decide(run.run_id, "review", Verdict(by=nobody))

    async def test_a_decision_over_another_payload_is_stale(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        shown = await run.open_barrier()
        with pytest.raises(StalePayloadError) as caught:
            await store.decide(run.run_id, "review", Verdict(seen="e" * 64))
        assert (caught.value.seen, caught.value.current) == ("e" * 64, shown.digest)
        await store.decide(run.run_id, "review", Verdict(seen=shown.digest))

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

    async def test_edits_fit_the_form(self, store: CheckpointStore) -> None:
        form = {"type": "object", "properties": {"amount": {"type": "number", "maximum": 1000}}, "additionalProperties": False}
        run = await new_run(store)
        await run.open_barrier(form=form)
        for edits in ({"amount": "much"}, {"amount": 1001}, {"vendor": "x"}, None):
            with pytest.raises(InvalidDecisionError):
                await store.decide(run.run_id, "review", Verdict("modify", edits=edits))
        with pytest.raises(InvalidDecisionError, match="amount"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": 1001}))
        assert await store.decisions(run.run_id) == []
        assert (await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": 1000}))).edits == {"amount": 1000}

    async def test_edits_are_kept_as_data_and_nobody_can_change_them_afterwards(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(form={})
        with pytest.raises(UnserialisableError):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"file": object()}))
        edits = {"lines": [1, 2]}
        await store.decide(run.run_id, "review", Verdict("modify", edits=edits))
        edits["lines"].append(3)
        assert [decision.edits for decision in await store.decisions(run.run_id)] == [{"lines": [1, 2]}]

    async def test_a_form_never_fetches_a_remote_schema(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(form={"$ref": "http://127.0.0.1:9/form.json"})
        with pytest.raises(InvalidDecisionError, match="not a usable JSON Schema"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={}))

    async def test_what_an_action_does_not_take_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(targets=("pay",))
        for wrong in (
            Verdict("modify", edits={"amount": 1}), Verdict("reroute", target="elsewhere"), Verdict("reroute"),
            Verdict("approve", edits={}), Verdict("approve", target="pay"), Verdict("wave"),
        ):  # fmt: skip
            with pytest.raises(InvalidDecisionError):
                await store.decide(run.run_id, "review", wrong)
        assert await store.decisions(run.run_id) == []
        assert (await store.decide(run.run_id, "review", Verdict("reroute", target="pay"))).target == "pay"

    @pytest.mark.parametrize("name", ["", " ", "timeout", " ana", "ana ", "ana\n", "a\x00b", "Jose\u0301"])
    async def test_what_names_nobody_or_somebody_in_another_spelling_decides_nothing(self, store: CheckpointStore, name: str) -> None:
        run = await new_run(store)
        await run.open_barrier(quorum=2)
        await store.decide(run.run_id, "review", Verdict(by="ana"))
        for decision in (Verdict(by=name), Verdict(by="ben", on_behalf_of=name)):
            with pytest.raises(InvalidDecisionError, match="names nobody"):
                await store.decide(run.run_id, "review", decision)
        assert [vote.actor for vote in await store.decisions(run.run_id)] == ["ana"]

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

    @pytest.mark.parametrize("amount", [float("nan"), float("inf"), 10**400])
    async def test_an_edit_that_cannot_be_checked_is_refused(self, store: CheckpointStore, amount: float) -> None:
        run = await new_run(store)
        await run.open_barrier(form={"properties": {"amount": {"type": "number", "multipleOf": 0.01}}})
        with pytest.raises(InvalidDecisionError, match="the edits cannot be checked"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"amount": amount}))

    async def test_a_form_with_a_pattern_that_python_does_not_read_is_said_to_be_unusable(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(form={"properties": {"vendor": {"pattern": r"^\p{L}+$"}}})
        with pytest.raises(InvalidDecisionError, match="not a usable JSON Schema: bad escape"):
            await store.decide(run.run_id, "review", Verdict("modify", edits={"vendor": "ACME"}))

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

    async def test_an_ended_run_takes_no_decision(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        await run.end("cancelled")
        with pytest.raises(RunEndedError):
            await store.decide(run.run_id, "review", Verdict())
        assert await store.decisions(run.run_id) == []

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

    async def test_many_decisions_at_once_are_all_kept(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(20)]
        await asyncio.gather(*(run.open_barrier() for run in runs))
        await asyncio.gather(*((store, other)[n % 2].decide(run.run_id, "review", Verdict(by="ana")) for n, run in enumerate(runs)))
        assert await store.barriers() == []
        assert len(await store.barriers(status="decided")) == 20

    async def test_a_decision_may_come_before_a_later_visit(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        record = await store.decide(run.run_id, "review#2", reject("ben"))
        assert (record.ticket, record.payload_digest) == ("review#2", None)
        assert [found.status for found in await store.barriers()] == ["open"]

    async def test_of_many_decisions_at_once_the_refused_harm_nobody(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(24)]
        await asyncio.gather(*(run.open_barrier(form={}, approvers=("ana",)) for run in runs))
        ended = runs[3]
        await other.acquire(ended.run_id)
        wrong = {
            3: (Verdict(seen="e" * 64), StalePayloadError),
            8: (Verdict(by="ben"), NotAnApproverError),
            13: (Verdict("wave"), InvalidDecisionError),
            18: (Verdict("modify", edits={"file": object()}), UnserialisableError),
        }
        decided = [
            (store, other)[number % 2].decide(run.run_id, "review", wrong.get(number, (Verdict(reason=str(number)),))[0])
            for number, run in enumerate(runs)
        ]
        missing = store.decide(new_id(await store.now()), "review", Verdict())
        unknown = store.decide(runs[0].run_id, "reviev", Verdict())
        answers = await asyncio.gather(*decided, missing, unknown, return_exceptions=True)
        assert [type(answer) for answer in answers[24:]] == [RunNotFoundError, UnknownBarrierError]
        for number, run in enumerate(runs):
            answer = answers[number]
            if number in wrong:
                assert isinstance(answer, wrong[number][1])
                assert await store.decisions(run.run_id) == []
            else:
                assert isinstance(answer, DecisionRecord)
                assert answer.reason == str(number)
                assert await store.decisions(run.run_id) == [answer]
            assert (await store.run(run.run_id)).inbox_rev == int(number not in wrong)

    async def test_of_many_decisions_at_once_on_one_ticket_one_wins(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        people = [f"p{number}" for number in range(20)]
        asked = [(store, other)[number % 2].decide(run.run_id, "review", Verdict(by=by)) for number, by in enumerate(people)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        (won,) = [answer for answer in answers if isinstance(answer, DecisionRecord)]
        lost = [answer for answer in answers if isinstance(answer, DecisionConflictError)]
        assert {error.winner for error in lost} == {won.actor}
        assert len(lost) == 19
        assert await store.decisions(run.run_id) == [won]
        assert (await store.run(run.run_id)).inbox_rev == 1

    async def test_votes_of_one_run_at_the_same_time_are_counted_one_after_the_other(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        run = await new_run(store)
        await run.open_barrier("score[0].review#1", park=False, quorum=3)
        await run.open_barrier("score[1].review#1", park=False, quorum=3)
        asked = [
            (store, other)[number % 2].decide(run.run_id, f"score[{branch}].review#1", Verdict(by=by))
            for number, by in enumerate(("ana", "ben", "ana", "eve", "kim"))
            for branch in (0, 1)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for branch in (0, 1):
            kept = [vote for vote in await store.decisions(run.run_id) if vote.ticket == f"score[{branch}].review#1"]
            assert len({vote.actor for vote in kept}) == len(kept) == 3
            said = {answer.id: answer for answer in answers[branch::2] if isinstance(answer, DecisionRecord)}
            assert said == {vote.id: vote for vote in kept}
        assert {found.status for found in await store.barriers(status=None)} == {"decided"}
        assert (await store.run(run.run_id)).inbox_rev == 6

    async def test_decisions_and_commits_of_the_same_runs_go_on_side_by_side(self, store: CheckpointStore, other: CheckpointStore) -> None:
        runs = [await new_run(store) for _ in range(10)]
        await asyncio.gather(*(run.open_barrier(park=False, quorum=5) for run in runs))

        async def walk(run: OwnedRun) -> None:
            for _ in range(5):
                await store.commit(run.next_commit(change=RunChange(status="running")))
                await run.step()

        async def vote(run: OwnedRun, number: int) -> None:
            await (store, other)[number % 2].decide(run.run_id, "review", Verdict(by=f"p{number}"))

        async with asyncio.timeout(30):
            await asyncio.gather(*(walk(run) for run in runs), *(vote(run, number) for number in range(5) for run in runs))
        for run in runs:
            assert (await store.run(run.run_id)).inbox_rev == 5
            assert len(await store.decisions(run.run_id)) == 5
            assert [found.status for found in await store.barriers(run_id=run.run_id, status=None)] == ["decided"]
            assert await store.verify(run.run_id) == []

    # --- watching ---------------------------------------------------------------------------------------------------
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

    @staticmethod
    async def _woken_by(watch: Any, write: Any, store: CheckpointStore, run_id: str, rev: int) -> None:
        async def see_it() -> None:
            while (await store.inbox(run_id)).rev < rev:
                await watch.changed()

        async with asyncio.timeout(10):
            await asyncio.gather(see_it(), write)

    # --- side effects -----------------------------------------------------------------------------------------------
    async def test_of_two_that_begin_an_effect_one_may_carry_it_out(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        answers = await asyncio.gather(*(store.begin_effect(effect(run), run.epoch) for _ in range(4)))
        assert sorted(may_run for _, may_run in answers) == [False, False, False, True]
        assert {record.status for record, may_run in answers if not may_run} == {"in_doubt"}

    async def test_an_effect_tells_its_outcome_to_whoever_begins_it_again(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        started, may_run = await store.begin_effect(effect(run), run.epoch)
        assert (may_run, started.status, started.begun) == (True, "started", 1)
        done = replace(started, status="done", outcome={"receipt": [1, None, 2.5]})
        ended = await store.end_effect(done, run.epoch)
        assert (ended.status, ended.outcome, ended.ended_at is not None) == ("done", {"receipt": [1, None, 2.5]}, True)
        assert await store.end_effect(done, run.epoch) == ended
        assert await store.begin_effect(effect(run), run.epoch, again=True) == (ended, False)
        assert await other.effects(run.run_id) == [ended]

    async def test_an_outcome_of_none_is_an_outcome(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        started, _ = await store.begin_effect(effect(run), run.epoch)
        ended = await store.end_effect(replace(started, status="done"), run.epoch)
        assert await store.begin_effect(effect(run), run.epoch) == (ended, False)

    async def test_an_effect_that_was_not_done_may_be_begun_again(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        first, _ = await store.begin_effect(effect(run), run.epoch)
        await store.end_effect(replace(first, status="not_done", reason="refused"), run.epoch)
        second, may_run = await store.begin_effect(effect(run), run.epoch)
        assert (may_run, second.begun, second.reason) == (True, 2, "")
        # What the first one's process brings now comes too late.
        assert (await store.end_effect(replace(first, status="done", outcome=1), run.epoch)).status == "started"

    async def test_an_effect_whose_process_is_gone_is_in_doubt(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        started, _ = await store.begin_effect(effect(run), run.epoch)
        assert [each.status for each in await other.effects(run.run_id)] == ["started"]
        lease = await other.acquire(run.run_id, takeover=True)
        assert [each.status for each in await store.effects(run.run_id)] == ["in_doubt"]
        with pytest.raises(LeaseLostError):
            await store.end_effect(replace(started, status="done", outcome=1), run.epoch)
        with pytest.raises(LeaseLostError):
            await store.begin_effect(effect(run, "other"), run.epoch)
        record, may_run = await other.begin_effect(effect(run), lease.epoch)
        assert (record.status, may_run) == ("in_doubt", False)
        record, may_run = await other.begin_effect(effect(run), lease.epoch, again=True)
        assert (record.status, may_run, record.begun, record.epoch) == ("started", True, 2, lease.epoch)

    async def test_a_person_settles_an_effect_that_is_in_doubt(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        for name in ("debit", "credit"):
            await store.begin_effect(effect(run, name), run.epoch)
        await store.release(run.run_id, run.epoch)
        done = await other.resolve_effect(run.run_id, "debit", done=True, outcome={"receipt": 7}, by="ana", reason="on the statement")
        assert (done.status, done.outcome, done.by, done.reason) == ("done", {"receipt": 7}, "ana", "on the statement")
        assert await store.resolve_effect(run.run_id, "debit", done=True, outcome={"receipt": 7}, by="ana") == done
        for by, is_done in (("ben", True), ("ana", False)):
            with pytest.raises(EffectNotInDoubtError):
                await store.resolve_effect(run.run_id, "debit", done=is_done, outcome={"receipt": 7}, by=by)
        key = effect(run, "credit").key
        await store.resolve_effect(run.run_id, key[:10], done=False, by="ana")
        assert {each.name: each.status for each in await store.effects(run.run_id)} == {"debit": "done", "credit": "not_done"}
        lease = await other.acquire(run.run_id)
        assert await other.begin_effect(effect(run, "debit"), lease.epoch) == (done, False)
        assert (await other.begin_effect(effect(run, "credit"), lease.epoch))[1]

    async def test_an_effect_that_is_going_on_or_unknown_cannot_be_settled(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.begin_effect(effect(run), run.epoch)
        with pytest.raises(EffectNotInDoubtError):
            await store.resolve_effect(run.run_id, "debit", done=False, by="ana")
        with pytest.raises(UnknownEffectError):
            await store.resolve_effect(run.run_id, "unheard", done=False, by="ana")
        await store.begin_effect(effect(run, visit=2), run.epoch)
        await store.release(run.run_id, run.epoch)
        with pytest.raises(AmbiguousEffectError):
            await store.resolve_effect(run.run_id, "debit", done=False, by="ana")
        with pytest.raises(ValueError, match="by must be"):
            await store.resolve_effect(run.run_id, effect(run).key, done=False, by="")
        with pytest.raises(RunNotFoundError):
            await store.resolve_effect(new_id(await store.now()), "debit", done=False, by="ana")
        with pytest.raises(RunNotFoundError):
            await store.effects(new_id(await store.now()))

    async def test_an_effect_that_was_never_begun_has_no_end(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.begin_effect(effect(run), run.epoch)
        with pytest.raises(UnknownEffectError, match="debit"):
            await store.end_effect(replace(effect(run, "credit"), status="done"), run.epoch)
        assert [each.name for each in await store.effects(run.run_id)] == ["debit"]

    async def test_an_outcome_that_is_no_data_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        started, _ = await store.begin_effect(effect(run), run.epoch)
        with pytest.raises(UnserialisableError):
            await store.end_effect(replace(started, status="done", outcome=object()), run.epoch)
        assert [each.status for each in await store.effects(run.run_id)] == ["started"]


def effect(run: OwnedRun, name: str = "debit", *, visit: int = 1) -> EffectRecord:
    """A side effect of the node ``pay``."""
    key = hashlib.sha256(f"{run.run_id} {name} {visit}".encode()).hexdigest()
    return EffectRecord(run.run_id, key, name, "pay", "", visit)
