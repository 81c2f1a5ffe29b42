"""What an operator writes into a run that nobody drives: checked, attributed, fenced, and seen by whoever decides next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, model_validator

from checkpoint_stores.codec import encode, unpack
from checkpoint_stores.errors import LeaseHeldError, LeaseLostError, RunEndedError, StalePayloadError
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Commit, Snapshot
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.conditions import approved
from engine.decisions import Decision
from engine.editing import edit_run
from engine.errors import EditError, GraphChangedError
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.loading import load_state
from engine.plan import END
from reducers.builtin import append


class EditedOrder(BaseModel):
    amount: int
    limit: int = 1000
    log: Annotated[list[str], append] = []

    @model_validator(mode="after")
    def within(self) -> EditedOrder:
        if self.amount > self.limit:
            raise ValueError("the amount is above the limit")
        return self


def paying() -> Flow:
    flow = Flow("paying", EditedOrder)

    @flow.node
    async def pay(state: Any) -> dict[str, Any]:
        return {"log": [f"paid {state.amount}"]}

    flow.add_barrier("gate", prompt="Pay {amount}?", show=["amount"], on_reject="continue")
    flow.set_entry("gate").add_edge("gate", "pay", when=approved).add_edge("gate", END).add_edge("pay", END)
    return flow


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CheckpointStore]:
    if request.param == "memory":
        opened: CheckpointStore = MemoryCheckpointStore()
    else:
        opened = SQLCheckpointStore(request.getfixturevalue(f"{request.param}_url"))
    async with opened as store:
        yield store


async def test_an_edit_is_one_checkpoint_that_says_who_and_why_and_the_run_goes_on_with_it(store: CheckpointStore) -> None:
    async with GraphExecutor(paying().compile(), store=store) as executor:
        parked = await executor.execute({"amount": 9})
        before = await store.run(parked.run_id)
        seq = await executor.edit(parked.run_id, {"amount": 5}, by="ana", reason="a typo")
        after = await store.run(parked.run_id)
        assert seq == parked.seq + 1
        assert (after.status, after.attempt, after.owner, after.head_seq) == ("waiting", before.attempt, None, seq)
        (row,) = [row async for row in store.history(parked.run_id, after=parked.seq)]
        assert (row.kind, unpack(row.payload)[-1]) == ("edit", ["edited", {"by": "ana", "reason": "a typo"}])
        await store.decide(parked.run_id, "gate", Decision.approve(by="ben"))
        done = await executor.resume(parked.run_id)
    assert done.values["log"] == ["paid 5"]
    assert await store.verify(parked.run_id) == []


async def test_a_ticket_shows_what_was_edited_and_who_saw_the_old_value_decides_nothing(store: CheckpointStore) -> None:
    async with GraphExecutor(paying().compile(), store=store) as executor:
        run_id = (await executor.execute({"amount": 9})).run_id
        (seen,) = await store.barriers(run_id=run_id)
        await executor.edit(run_id, {"amount": 900}, by="ana")
        (shown,) = await store.barriers(run_id=run_id)
        assert (shown.prompt, shown.payload, shown.status) == ("Pay 900?", {"amount": 900}, "open")
        assert shown.digest != seen.digest
        with pytest.raises(StalePayloadError):
            await store.decide(run_id, "gate", Decision.approve(by="ben", seen=seen.digest))
        await store.decide(run_id, "gate", Decision.approve(by="ben", seen=shown.digest))
        assert (await executor.resume(run_id)).values["log"] == ["paid 900"]


async def test_a_ticket_that_shows_nothing_of_it_stays_as_it_is(store: CheckpointStore) -> None:
    async with GraphExecutor(paying().compile(), store=store) as executor:
        run_id = (await executor.execute({"amount": 9})).run_id
        (seen,) = await store.barriers(run_id=run_id)
        await executor.edit(run_id, {"limit": 2000}, by="ana")
        assert await store.barriers(run_id=run_id) == [seen]


async def test_what_somebody_has_approved_is_not_edited_under_the_approval(store: CheckpointStore) -> None:
    async with GraphExecutor(paying().compile(), store=store) as executor:
        run_id = (await executor.execute({"amount": 9})).run_id
        await store.decide(run_id, "gate", Decision.approve(by="ben"))
        with pytest.raises(EditError, match="gate#1 was decided over what it shows now, by ben"):
            await executor.edit(run_id, {"amount": 900}, by="ana")
        assert (await executor.resume(run_id)).values["log"] == ["paid 9"]


async def test_an_edit_that_does_not_fit_changes_nothing_and_names_every_problem(store: CheckpointStore) -> None:
    async with GraphExecutor(paying().compile(), store=store) as executor:
        run = await executor.execute({"amount": 9})
        with pytest.raises(EditError) as refused:
            await executor.edit(run.run_id, {"amount": "many", "nothing": 1}, by="ana")
        assert len(refused.value.problems) == 2
        with pytest.raises(EditError, match="above the limit"):
            await executor.edit(run.run_id, {"amount": 1001}, by="ana")
    assert (await load_state(store, run.run_id)).seq == run.seq


async def test_a_run_that_ended_or_is_driven_is_not_edited(store: CheckpointStore) -> None:
    flow, waits, runs = Flow("held", {"n": int}), asyncio.Event(), asyncio.Event()

    @flow.node
    async def work(state: Any) -> dict[str, Any]:
        runs.set()
        await waits.wait()
        return {"n": state["n"] + 1}

    flow.set_entry("work").add_edge("work", END)
    async with GraphExecutor(flow.compile(), store=store) as executor:
        handle = await executor.start({"n": 1})
        await runs.wait()
        with pytest.raises(LeaseHeldError):
            await executor.edit(handle.run_id, {"n": 5}, by="ana")
        await handle.suspend("to be edited")
        await executor.edit(handle.run_id, {"n": 5}, by="ana")
        waits.set()
        assert (await executor.resume(handle.run_id)).values == {"n": 6}
        with pytest.raises(RunEndedError):
            await executor.edit(handle.run_id, {"n": 7}, by="ana")


async def test_an_owner_that_was_thought_dead_writes_nothing_after_an_edit(store: CheckpointStore) -> None:
    graph = paying().compile()
    async with GraphExecutor(graph, store=store) as executor:
        run = await executor.execute({"amount": 9})
        lease = await store.acquire(run.run_id)
        await store.release(run.run_id, lease.epoch)
        seq = await executor.edit(run.run_id, {"amount": 5}, by="ana")
    head = await load_state(store, run.run_id)
    late = store.chain.seal(head.digest, run.run_id, seq + 1, lease.epoch, head.step, "step", "", "gate", "", encode([]), 0)
    with pytest.raises(LeaseLostError):
        await store.commit(Commit(run.run_id, lease.epoch, (late,)))


async def test_edits_that_race_are_both_there(store: CheckpointStore) -> None:
    graph = paying().compile()
    async with GraphExecutor(graph, store=store) as executor:
        run = await executor.execute({"amount": 9})
        await asyncio.gather(
            edit_run(store, run.run_id, {"amount": 5}, by="ana", reason="", plan=graph.plan),
            edit_run(store, run.run_id, {"limit": 50}, by="ben", reason="", plan=graph.plan),
        )
    state = await load_state(store, run.run_id)
    assert (state.root.values["amount"], state.root.values["limit"], state.seq) == (5, 50, run.seq + 2)
    assert await store.verify(run.run_id) == []


async def test_another_flow_of_the_name_edits_nothing(store: CheckpointStore) -> None:
    other = Flow("paying", EditedOrder)
    other.add_node("pay", lambda state: {})
    other.set_entry("pay").add_edge("pay", END)
    async with GraphExecutor(paying().compile(), store=store) as executor, GraphExecutor(other.compile(), store=store) as wrong:
        run_id = (await executor.execute({"amount": 9})).run_id
        with pytest.raises(GraphChangedError):
            await wrong.edit(run_id, {"amount": 5}, by="ana")


def nested() -> Flow:
    """A barrier in each item of a map whose flow is lent a key."""
    inner = Flow("edited_inner", {"item": int, "factor": int, "made": int})
    inner.add_barrier("look", show=["factor", "item"], on_reject="continue")
    inner.add_node("make", lambda state: {"made": state["item"] * state["factor"]})
    inner.set_entry("look").add_edge("look", "make", when=approved).add_edge("look", END).add_edge("make", END)
    flow = Flow("edited_outer", {"items": list[int], "factor": int, "made": list[int]})
    flow.add_map("each", "items", inner, item="item", inputs={"factor": "factor"}, result="made", to="made")
    flow.set_entry("each").add_edge("each", END)
    return flow


async def test_an_edit_reaches_what_was_lent_to_the_items_of_an_open_map(store: CheckpointStore) -> None:
    async with GraphExecutor(nested().compile(), store=store) as executor:
        run = await executor.execute({"items": [1, 2], "factor": 10, "made": []})
        assert run.waiting_for == ("each[0].look#1", "each[1].look#1")
        await store.decide(run.run_id, "each[0].look#1", Decision.approve(by="ben"))
        run = await executor.resume(run.run_id)
        await executor.edit(run.run_id, {"factor": 100}, by="ana")
        (shown,) = await store.barriers(run_id=run.run_id)
        assert shown.payload == {"factor": 100, "item": 2}

        folded = await load_state(store, run.run_id)
        lease = await store.acquire(run.run_id)
        await store.put_snapshot(Snapshot(run.run_id, folded.seq, encode(folded.dump()), folded.digest), lease.epoch)
        await store.release(run.run_id, lease.epoch)
        from_snapshot = await load_state(store, run.run_id)
        paths = [scope.path for scope in folded.scopes.values()]
        assert [from_snapshot.scopes[path].read("factor") for path in paths] == [100] * len(paths)
        assert [folded.scopes[path].read("factor") for path in paths] == [100] * len(paths)

        await store.decide(run.run_id, "each[1].look#1", Decision.approve(by="ben"))
        assert (await executor.resume(run.run_id)).values["made"] == [10, 200]


async def test_the_items_of_an_open_map_are_not_edited(store: CheckpointStore) -> None:
    async with GraphExecutor(nested().compile(), store=store) as executor:
        run = await executor.execute({"items": [1, 2], "factor": 10, "made": []})
        with pytest.raises(EditError, match="map node 'each' is at work on its items"):
            await executor.edit(run.run_id, {"items": [1]}, by="ana")
        with pytest.raises(EditError, match="map node 'each' is at work on its items"):
            await executor.fork(run.run_id, edits={"items": [1]})


async def test_an_edited_run_keeps_its_contracts_and_tells_its_events(store: CheckpointStore) -> None:
    async with GraphExecutor(paying().compile(), store=store, strict=True) as executor:
        run_id = (await executor.execute({"amount": 9})).run_id
        await executor.edit(run_id, {"amount": 5}, by="ana")
        await store.decide(run_id, "gate", Decision.approve(by="ben"))
        done = await executor.resume(run_id)
        assert done.status == "completed"
        assert (await executor.check(run_id)).problems == ()
        told = [envelope.event.kind async for envelope in executor.events(run_id)]
    assert told[0] == "flow_start"
    assert told[-1] == "flow_complete"


async def test_an_edit_that_a_prompt_cannot_be_written_with_changes_nothing(store: CheckpointStore) -> None:
    flow = Flow("asking", {"rate": float | None}).add_barrier("gate", prompt="Take {rate:.2f}?", show=["rate"])
    async with GraphExecutor(flow.set_entry("gate").add_edge("gate", END).compile(), store=store) as executor:
        parked = await executor.execute({"rate": 0.5})
        for editing in (executor.edit(parked.run_id, {"rate": None}, by="ana"), executor.fork(parked.run_id, edits={"rate": None})):
            with pytest.raises(EditError, match="the prompt of node 'gate' cannot be written"):
                await editing
        assert (await store.run(parked.run_id)).head_seq == parked.seq
        assert [ticket.prompt for ticket in await store.barriers()] == ["Take 0.50?"]


async def test_a_fork_is_edited_with_a_flow_that_has_no_place_for_its_ticket(store: CheckpointStore) -> None:
    inner = Flow("inner").add_barrier("gate", prompt="Take {n}?", show=["n"]).set_entry("gate").add_edge("gate", END)
    branched = Flow("moved", {"n": int}).add_parallel("fan", [inner, branch(lambda state: None, name="beside")])
    parked = await GraphExecutor(branched.set_entry("fan").add_edge("fan", END).compile(), store=store).execute({"n": 1})
    plain = Flow("moved", {"n": int}).add_node("only", lambda state: None).set_entry("only").add_edge("only", END)
    fork_id = await GraphExecutor(plain.compile(), store=store).fork(parked.run_id, edits={"n": 2})
    assert [ticket.payload for ticket in await store.barriers(run_id=fork_id)] == [{"n": 2}]
