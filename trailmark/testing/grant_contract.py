"""Every promise of `CheckpointStore` about rights given in advance: allowances and delegations; reminders of open tickets too.

A second base beside `StoreContract`::

    class TestMyStore(StoreContract, GrantContract):
        ...
"""

# ruff: noqa: S101 - a test asserts
from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from checkpoint_stores.errors import (
    ArgumentError,
    BarrierClosedError,
    DecisionConflictError,
    InvalidDecisionError,
    InvalidGrantError,
    LeaseLostError,
    NotAnApproverError,
    NotDelegatedError,
    RunEndedError,
    RunNotFoundError,
    UnknownBarrierError,
    UnknownFlowError,
    UnknownGrantError,
)
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, DecisionRecord, Grant, RunChange
from trailmark.testing.owned_runs import SECOND, SetClock, StoreFactory, Verdict, barrier, new_run, reject

DAY = timedelta(days=1)
DRAWN = '{"flow": "invoice", "barriers": {"review": {"approvers": [], "early": true}}, "nodes": {"review": {"kind": "barrier"}}}'
"""A definition that says where its barrier stands."""


async def allow(store: CheckpointStore, barrier: str = "review", by: str = "ana", **options: Any) -> Grant:
    """Approve the next ticket of every run of the flow, or what ``options`` say."""
    stated: dict[str, Any] = {"uses": 1, "until": DAY, **({} if "run_id" in options else {"flow": "invoice"})}
    verdict = options.pop("decision", Verdict(by=by, reason="on holiday", roles=options.pop("roles", ())))
    return await store.allow(barrier, verdict, **{**stated, **options})


async def made(store: CheckpointStore, run_id: str) -> list[tuple[str, str, str | None]]:
    """(ticket, actor, grant) of every decision."""
    return [(each.ticket, each.actor, each.grant) for each in await store.decisions(run_id)]


async def status_of(store: CheckpointStore, run_id: str, ticket: str = "review#1") -> str:
    return next(each.status for each in await store.barriers(run_id=run_id, status=None) if each.ticket == ticket)


class GrantContract:
    """The promises.  The class needs the fixtures of `StoreContract` as well."""

    pytestmark = pytest.mark.asyncio

    # --- allowances -------------------------------------------------------------------------------------------------
    async def test_an_allowance_decides_the_next_tickets_and_no_more(self, store: CheckpointStore, other: CheckpointStore) -> None:
        await new_run(store)
        grant = await allow(other, uses=2)
        runs = [await new_run(store) for _ in range(3)]
        for run in runs:
            await run.open_barrier(park=False)
        assert [await status_of(other, run.run_id) for run in runs] == ["decided", "decided", "open"]
        (record,) = await other.decisions(runs[0].run_id)
        assert (record.action, record.approves, record.actor, record.reason) == ("approve", True, "ana", "on holiday")
        assert (record.grant, record.source, record.payload_digest, record.consumed_seq) == (grant.id, "allowance", None, None)
        assert await other.grants() == []
        (spent,) = await other.grants(live=False)
        assert (spent.used, spent.uses) == (2, 2)

    async def test_an_owner_does_not_park_over_what_an_allowance_has_decided(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store)
        change = RunChange(status="waiting", release=True, release_at_rev=0)
        receipt = await store.commit(run.next_commit(change=change, opened=(barrier(run.run_id, opened_seq=2),)))
        assert receipt.inbox_rev == 1
        record = await store.run(run.run_id)
        assert (record.status, record.owner) == ("running", store.worker_id)
        (decision,) = (await store.inbox(run.run_id)).decisions
        await store.commit(run.next_commit(consumed=((decision.id, run.seq + 1),), closed=(("review#1", "resolved"),)))
        assert (await store.decisions(run.run_id))[0].consumed_seq == 3

    async def test_where_no_allowance_fits_the_owner_parks(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store, "board")
        change = RunChange(status="waiting", release=True, release_at_rev=0)
        receipt = await store.commit(run.next_commit(change=change, opened=(barrier(run.run_id, opened_seq=2),)))
        assert receipt.inbox_rev == 0
        assert (await store.run(run.run_id)).status == "waiting"
        assert await made(store, run.run_id) == []

    async def test_a_ticket_that_is_open_already_is_left_to_people(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        await allow(store)
        assert await status_of(store, run.run_id) == "open"
        await store.acquire(run.run_id)
        assert await made(store, run.run_id) == []
        assert (await store.decide(run.run_id, "review", reject("ben"))).grant is None

    async def test_an_allowance_is_for_its_flow_its_tenant_its_barrier_and_its_run(self, store: CheckpointStore) -> None:
        mine, another = await new_run(store), await new_run(store)
        await new_run(store, flow="order", definition='{"flow": "order", "barriers": {"review": {}}}', graph_hash="o" * 64)
        grants = [
            await allow(store, flow="order"),
            await allow(store, tenant="acme"),
            await allow(store, "board"),
            await allow(store, run_id=another.run_id),
        ]
        await mine.open_barrier(park=False)
        assert await made(store, mine.run_id) == []
        await another.open_barrier(park=False)
        assert await made(store, another.run_id) == [("review#1", "ana", grants[3].id)]
        assert grants[3].tenant == (await store.run(another.run_id)).tenant

    async def test_an_allowance_may_be_for_some_branches_only(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        grant = await allow(store, uses=5, path="orders[*]")
        tickets = ("orders[3].review#1", "orders#2[14].review#1", "review#1", "orders[1].checks[0].review#1", "other[1].review#1")
        for ticket in tickets:
            await run.open_barrier(ticket, park=False)
        assert {ticket for ticket, *_ in await made(store, run.run_id)} == {"orders[3].review#1", "orders#2[14].review#1"}
        assert (await store.grants())[0].used == 2
        assert grant.path == "orders[*]"

    async def test_several_tickets_of_one_commit_use_it_one_by_one(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        grant = await allow(store, uses=2)
        opened = tuple(barrier(run.run_id, f"each[{index}].review#1", opened_seq=2) for index in range(3))
        await store.commit(run.next_commit(opened=opened))
        assert await made(store, run.run_id) == [(each.ticket, "ana", grant.id) for each in opened[:2]]

    async def test_an_allowance_ends_by_the_stores_clock(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            first, second = await new_run(store), await new_run(store)
            grant = await allow(store, uses=5, until=timedelta(seconds=10))
            assert grant.expires_at == clock.now + 10 * SECOND
            friday = datetime.fromtimestamp(clock.now / SECOND + 20, UTC)
            assert (await allow(store, "board", until=friday)).expires_at == clock.now + 20 * SECOND
            await first.open_barrier(park=False)
            clock.advance(timedelta(seconds=10))
            await second.open_barrier(park=False)
            assert [await status_of(store, run.run_id) for run in (first, second)] == ["decided", "open"]
            assert [each.barrier for each in await store.grants()] == ["board"]

    async def test_a_revoked_allowance_decides_nothing_more(self, store: CheckpointStore, other: CheckpointStore) -> None:
        first, second = await new_run(store), await new_run(store)
        grant = await allow(store, uses=5)
        await first.open_barrier(park=False)
        revoked = await other.revoke(grant.id, by="ben", reason="ana is back")
        assert (revoked.revoked_by, revoked.revoked_because, revoked.used) == ("ben", "ana is back", 1)
        assert revoked.revoked_at is not None
        assert await store.revoke(grant.id, by="eve") == revoked
        await second.open_barrier(park=False)
        assert [await status_of(store, run.run_id) for run in (first, second)] == ["decided", "open"]
        assert await store.grants() == []
        assert await store.grants(live=False) == [revoked]
        with pytest.raises(UnknownGrantError):
            await store.revoke("nothing", by="ben")
        with pytest.raises(InvalidGrantError, match="names nobody"):
            await store.revoke(grant.id, by="")

    async def test_the_oldest_allowance_is_used_first(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            runs = [await new_run(store) for _ in range(3)]
            grants = []
            for by in ("ana", "ben"):
                grants.append(await allow(store, by=by))
                clock.advance(timedelta(seconds=1))
            for run in runs:
                await run.open_barrier(park=False)
            assert [await made(store, run.run_id) for run in runs] == [
                [("review#1", "ana", grants[0].id)], [("review#1", "ben", grants[1].id)], []
            ]  # fmt: skip

    @pytest.mark.parametrize("named", ["review", "review#1"])
    async def test_what_a_person_said_before_comes_first(self, store: CheckpointStore, named: str) -> None:
        run = await new_run(store)
        await allow(store)
        await store.decide(run.run_id, named, reject("ben"))
        await run.open_barrier(park=False)
        assert await made(store, run.run_id) == [(named, "ben", None)]
        assert (await store.grants())[0].used == 0

    async def test_a_person_who_comes_after_an_allowance_is_told(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store)
        await run.open_barrier(park=False)
        with pytest.raises(DecisionConflictError) as caught:
            await store.decide(run.run_id, "review", reject("ben"))
        assert caught.value.winner == "ana"

    async def test_an_allowance_is_only_as_good_as_who_gave_it(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store, by="mallory")
        helped = await allow(store, by="carl", roles=("finance",))
        await run.open_barrier(park=False, approvers=("finance", "ben"))
        assert await made(store, run.run_id) == [("review#1", "carl", helped.id)]

    async def test_in_a_quorum_an_allowance_is_one_vote(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store, uses=5)
        await allow(store, uses=5)
        await run.open_barrier(park=False, quorum=2)
        assert [actor for _, actor, _ in await made(store, run.run_id)] == ["ana"]
        assert await status_of(store, run.run_id) == "open"
        with pytest.raises(DecisionConflictError):
            await store.decide(run.run_id, "review", reject("ana"))
        await store.decide(run.run_id, "review", Verdict(by="ben"))
        assert await status_of(store, run.run_id) == "decided"

    async def test_where_several_must_agree_no_allowance_skips(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store, decision=Verdict("skip", approves=False))
        await run.open_barrier(park=False, quorum=2)
        assert await made(store, run.run_id) == []

    async def test_a_barrier_may_refuse_allowances(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store)
        await run.open_barrier(park=False, early=False)
        assert await made(store, run.run_id) == []
        with pytest.raises(InvalidGrantError, match="early=False"):
            await allow(store, "sealed")

    async def test_a_ticket_opened_and_withdrawn_at_once_uses_nothing(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store)
        await store.commit(run.next_commit(opened=(barrier(run.run_id, opened_seq=2),), closed=(("review#1", "withdrawn"),)))
        assert (await store.grants())[0].used == 0

    async def test_who_lost_the_run_uses_nothing(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await allow(store)
        await other.acquire(run.run_id, takeover=True)
        with pytest.raises(LeaseLostError):
            await run.open_barrier(park=False)
        assert (await store.grants())[0].used == 0
        assert await made(store, run.run_id) == []

    async def test_tickets_that_open_at_once_never_use_more_than_there_is(self, store: CheckpointStore, other: CheckpointStore) -> None:
        await new_run(store)
        grant = await allow(store, uses=7)
        runs = [await new_run(each) for each in (store, other) * 10]
        await asyncio.gather(*(run.open_barrier(park=False) for run in runs))
        statuses = Counter([await status_of(store, run.run_id) for run in runs])
        assert statuses == {"decided": 7, "open": 13}
        assert [each.used for each in await store.grants(live=False)] == [7]
        assert sum([len(await made(store, run.run_id)) for run in runs]) == grant.uses

    async def test_an_allowance_that_could_never_be_used_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        with pytest.raises(UnknownBarrierError) as caught:
            await allow(store, "reviev")
        assert (caught.value.flow, "review" in caught.value.known) == ("invoice", True)
        with pytest.raises(UnknownBarrierError):
            await allow(store, "reviev", run_id=run.run_id)
        with pytest.raises(UnknownFlowError):
            await allow(store, flow="invoise")
        with pytest.raises(RunNotFoundError):
            await allow(store, run_id=new_id(1))
        with pytest.raises(InvalidGrantError, match=r"'ben' may not decide it.*approvers are: ana"):
            await allow(store, "board", by="ben")
        with pytest.raises(InvalidGrantError, match="over before it begins"):
            await allow(store, until=timedelta(0))
        with pytest.raises(InvalidGrantError, match="may only approve, reject, skip"):
            await allow(store, decision=Verdict("modify", edits={"n": 1}))
        with pytest.raises(InvalidGrantError, match="names nobody"):
            await allow(store, by="timeout")
        with pytest.raises(InvalidGrantError, match="it is a ticket"):
            await allow(store, "review#1")
        for wrong in (
            {"uses": 0},
            {"uses": True},
            {"until": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is the mistake
            {"until": None},
            {"flow": None},
            {"flow": "invoice", "run_id": "x"},
        ):
            with pytest.raises(ArgumentError):
                await allow(store, **wrong)
        assert await store.grants(live=False) == []
        await run.end()
        with pytest.raises(RunEndedError):
            await allow(store, run_id=run.run_id)

    async def test_a_graph_that_was_put_is_a_flow_that_is_known(self, store: CheckpointStore) -> None:
        await store.put_graph("n" * 64, '{"flow": "new one", "barriers": {"sign": {"approvers": []}}}')
        assert (await allow(store, "sign", flow="new one")).flow == "new one"

    @pytest.mark.parametrize("flow", ["50%_off", "a/b", "back\\slash", "Grün & 'so'"])
    async def test_a_flow_is_known_by_its_whole_name_whatever_signs_are_in_it(self, store: CheckpointStore, flow: str) -> None:
        with pytest.raises(UnknownFlowError):
            await allow(store, "sign", flow=flow)
        await store.put_graph("n" * 64, json.dumps({"flow": flow, "barriers": {"sign": {"approvers": []}}}, ensure_ascii=False))
        assert (await allow(store, "sign", flow=flow)).flow == flow

    async def test_grants_are_listed_oldest_first_and_by_what_they_are_for(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            run = await new_run(store, tenant="acme")
            first = await allow(store, tenant="acme")
            clock.advance(timedelta(seconds=1))
            second = await allow(store, run_id=run.run_id)
            assert await store.grants(tenant="acme") == [first, second]
            assert await store.grants(tenant="acme", limit=1) == [first]
            assert await store.grants(tenant="acme", flow="invoice") == [first]
            assert await store.grants(tenant="acme", run_id=run.run_id) == [second]
            assert await store.grants() == []

    # --- delegations ------------------------------------------------------------------------------------------------
    async def test_who_was_handed_a_ticket_decides_on_behalf_of_its_approver(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(approvers=("ana",))
        with pytest.raises(NotAnApproverError):
            await store.decide(run.run_id, "review", Verdict(by="ben"))
        grant = await other.delegate("review#1", to="ben", by="ana", run_id=run.run_id, reason="at the dentist's")
        record = await store.decide(run.run_id, "review", Verdict(by="ben"))
        assert (record.actor, record.on_behalf_of, record.grant) == ("ben", "ana", grant.id)
        assert record.payload_digest == "d" * 64
        assert await other.decisions(run.run_id) == [record]
        with pytest.raises(DecisionConflictError) as caught:
            await store.decide(run.run_id, "review", reject("ana"))
        assert caught.value.winner == "ben"

    async def test_all_tickets_of_a_barrier_are_handed_on_for_a_time(self, store_factory: StoreFactory) -> None:
        clock = SetClock()
        async with store_factory(now=clock) as store:
            runs = [await new_run(store) for _ in range(2)]
            await store.delegate("board", to="ben", by="ana", flow="invoice", until=DAY)
            for run in runs:
                await run.open_barrier("board#1", approvers=("ana",))
            assert (await store.decide(runs[0].run_id, "board", Verdict(by="ben"))).on_behalf_of == "ana"
            clock.advance(DAY)
            with pytest.raises(NotAnApproverError):
                await store.decide(runs[1].run_id, "board", Verdict(by="ben"))

    async def test_a_delegation_may_be_for_some_branches_and_for_one_tenant_only(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        for ticket in ("orders[3].review#1", "other[1].review#1"):
            await run.open_barrier(ticket, approvers=("ana",), park=False)
        elsewhere = await store.delegate("review", to="ben", by="ana", flow="invoice", until=DAY, tenant="acme", source="form")
        with pytest.raises(NotAnApproverError):
            await store.decide(run.run_id, "orders[3].review#1", Verdict(by="ben"))
        await store.delegate("review", to="ben", by="ana", flow="invoice", until=DAY, path="orders[*]")
        with pytest.raises(NotAnApproverError):
            await store.decide(run.run_id, "other[1].review#1", Verdict(by="ben"))
        assert (await store.decide(run.run_id, "orders[3].review#1", Verdict(by="ben"))).on_behalf_of == "ana"
        assert await store.grants(tenant="acme") == [elsewhere]
        assert (elsewhere.tenant, elsewhere.source) == ("acme", "form")

    async def test_a_delegation_is_for_its_ticket_its_person_and_until_it_is_revoked(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier("review#1", approvers=("ana",), park=False)
        await run.open_barrier("review#2", approvers=("ana",))
        grant = await store.delegate("review#1", to="ben", by="ana", run_id=run.run_id)
        for ticket, person in (("review#2", "ben"), ("review#1", "carl")):
            with pytest.raises(NotAnApproverError):
                await store.decide(run.run_id, ticket, Verdict(by=person))
        await store.revoke(grant.id, by="ana")
        with pytest.raises(NotAnApproverError):
            await store.decide(run.run_id, "review#1", Verdict(by="ben"))

    async def test_nobody_hands_on_what_they_have_not(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier("board#1", approvers=("ana",))
        with pytest.raises(InvalidGrantError, match="nobody gives what they have not"):
            await store.delegate("board#1", to="carl", by="ben", run_id=run.run_id)
        await store.delegate("board#1", to="ben", by="ana", run_id=run.run_id)
        with pytest.raises(InvalidGrantError, match="nobody gives what they have not"):
            await store.delegate("board#1", to="carl", by="ben", run_id=run.run_id)
        with pytest.raises(InvalidGrantError, match="may not decide it"):
            await allow(store, "board", by="ben")

    async def test_a_delegation_is_worth_what_its_giver_may_do_when_it_is_used(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        # Anybody may decide it by the graph; this ticket is for ana alone.
        await store.delegate("review", to="ben", by="mallory", run_id=run.run_id)
        await run.open_barrier(approvers=("ana",))
        with pytest.raises(NotAnApproverError):
            await store.decide(run.run_id, "review", Verdict(by="ben"))

    async def test_a_role_is_handed_on_with_the_ticket(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(approvers=("finance",))
        await store.delegate("review#1", to="ben", by="ana", roles=("finance",), run_id=run.run_id)
        assert (await store.decide(run.run_id, "review", Verdict(by="ben"))).on_behalf_of == "ana"

    async def test_in_a_quorum_nobody_votes_twice_through_another(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        approvers = ("ana", "ben", "carl")
        await run.open_barrier(approvers=approvers, quorum=2)
        await store.delegate("review#1", to="ben", by="ana", run_id=run.run_id)
        await store.delegate("review#1", to="eve", by="ana", run_id=run.run_id)
        first = await store.decide(run.run_id, "review", Verdict(by="ben", on_behalf_of="ana"))
        assert first.on_behalf_of == "ana"
        for vote in (
            Verdict("reject", "ben", approves=False),
            Verdict("reject", "ana", approves=False),
            Verdict(by="ana"),
            Verdict(by="eve"),
        ):
            with pytest.raises(DecisionConflictError):
                await store.decide(run.run_id, "review", vote)
        assert await status_of(store, run.run_id) == "open"
        await store.decide(run.run_id, "review", Verdict(by="carl"))
        assert await status_of(store, run.run_id) == "decided"

    async def test_who_may_decide_decides_for_themselves_unless_they_say_for_whom(self, store: CheckpointStore) -> None:
        first, second = await new_run(store), await new_run(store)
        await store.delegate("review", to="ben", by="ana", flow="invoice", until=DAY)
        for run in (first, second):
            await run.open_barrier(approvers=("ana", "ben"))
        assert (await store.decide(first.run_id, "review", Verdict(by="ben"))).on_behalf_of is None
        assert (await store.decide(second.run_id, "review", Verdict(by="ben", on_behalf_of="ana"))).on_behalf_of == "ana"

    async def test_nobody_speaks_for_somebody_who_did_not_ask_them_to(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier()
        with pytest.raises(NotDelegatedError) as caught:
            await store.decide(run.run_id, "review", Verdict(by="ben", on_behalf_of="ana"))
        assert (caught.value.actor, caught.value.principal) == ("ben", "ana")
        with pytest.raises(InvalidDecisionError, match="for themselves"):
            await store.decide(run.run_id, "review", Verdict(by="ben", on_behalf_of="ben"))

    async def test_a_delegate_may_decide_early(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        await store.delegate("board", to="ben", by="ana", run_id=run.run_id)
        record = await store.decide(run.run_id, "board", Verdict(by="ben"))
        assert (record.on_behalf_of, record.is_early) == ("ana", True)

    async def test_a_delegation_that_means_nothing_is_refused(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        for by, to in (("ana", ""), ("ana", "ana"), ("", "ben"), ("ana", "timeout")):
            with pytest.raises(InvalidGrantError):
                await store.delegate("review", to=to, by=by, run_id=run.run_id)
        drawn = await new_run(store, graph_hash="d" * 64, definition=DRAWN)
        for name in ("reviev", "nowhere[3].review#1"):
            with pytest.raises(UnknownBarrierError):
                await store.delegate(name, to="ben", by="ana", run_id=drawn.run_id)
        with pytest.raises(ArgumentError, match="until"):
            await store.delegate("review", to="ben", by="ana", flow="invoice")
        with pytest.raises(ArgumentError, match="run_id"):
            await store.delegate("review#1", to="ben", by="ana", flow="invoice", until=DAY)
        assert await store.grants(live=False) == []

    # --- reminders and escalations ----------------------------------------------------------------------------------
    async def test_an_escalated_ticket_names_who_may_decide_it_now(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        opened = await run.open_barrier(park=False, approvers=("ana",), nudges=((5, ()), (9, ("board",))))
        with pytest.raises(NotAnApproverError):
            await other.decide(run.run_id, "review", Verdict(by="eve", roles=("board",)))
        wider = replace(opened, approvers=("ana", "board"), nudged=2, status="open")
        await store.commit(run.next_commit(nudged=(wider,)))
        (ticket,) = await other.barriers(run_id=run.run_id)
        assert (ticket.approvers, ticket.nudged, ticket.nudges, ticket.opened_seq) == (
            ("ana", "board"),
            2,
            opened.nudges,
            opened.opened_seq,
        )
        assert (await other.decide(run.run_id, "review", Verdict(by="eve", roles=("board",)))).actor == "eve"

    async def test_a_reminder_does_not_open_what_is_decided(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        opened = await run.open_barrier(park=False, nudges=((5, ()),))
        await other.decide(run.run_id, "review", Verdict())
        await store.commit(run.next_commit(nudged=(replace(opened, nudged=1),)))
        assert await status_of(store, run.run_id) == "decided"
        with pytest.raises((BarrierClosedError, DecisionConflictError)):
            await other.decide(run.run_id, "review", reject("ben"))

    async def test_a_commit_may_do_nothing_but_remind(self, store: CheckpointStore) -> None:
        run = await new_run(store)
        opened = await run.open_barrier(park=False, nudges=((5, ()),))
        receipt = await store.commit(Commit(run.run_id, run.epoch, (run.row("reminded"),), nudged=(replace(opened, nudged=1),)))
        assert receipt.inbox_rev == 0
        assert (await store.barriers(run_id=run.run_id))[0].nudged == 1

    async def test_decisions_keep_by_whose_right_they_were_made(self, store: CheckpointStore, other: CheckpointStore) -> None:
        run = await new_run(store)
        await run.open_barrier(park=False)
        vote = DecisionRecord(
            id=f"v:{run.run_id}", run_id=run.run_id, ticket="review#1", action="approve", actor="ben", on_behalf_of="ana", grant="g1", decided_at=5
        )  # fmt: skip
        await store.commit(run.next_commit(voted=(vote,)))
        assert await other.decisions(run.run_id) == [vote]
