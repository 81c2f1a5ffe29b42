"""Allowances and delegations, driven by the executor: what is decided in advance moves runs, is attributed, and costs nothing where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
import pytest_asyncio

from checkpoint_stores.codec import unpack
from checkpoint_stores.errors import InvalidDecisionError, StalePayloadError
from checkpoint_stores.memory import MemoryCheckpointStore, MemoryDatabase
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.conditions import approved, rejected
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.operations import steps
from engine.plan import END
from reducers.builtin import append
from trailmark.testing import VirtualClock

DAY = timedelta(days=1)
STATE = {"log": Annotated[list[str], append], "items": list[int]}


def paying(**options: Any) -> Flow:
    """A barrier between two nodes."""
    flow = Flow("paying", STATE)
    flow.add_node("read", lambda state: {"log": ["read"]}).add_node("pay", lambda state: {"log": ["paid"]})
    flow.add_barrier("manager", prompt="Pay?", **options)
    return (
        flow.set_entry("read")
        .add_edge("read", "manager")
        .add_edge("manager", "pay", when=approved)
        .add_edge("manager", END)
        .add_edge("pay", END)
    )


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "memory":
        made: Any = MemoryCheckpointStore()
    else:
        made = SQLCheckpointStore(request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]))
    async with made:
        yield made


async def executor_of(store: Any, flow: Flow, **options: Any) -> GraphExecutor:
    graph = flow.compile()
    await store.put_graph(graph.graph_hash, graph.definition_text)
    return GraphExecutor(graph, store=store, **options)


async def test_a_run_goes_through_a_barrier_that_was_allowed_in_advance(store: Any) -> None:
    executor = await executor_of(store, paying())
    grant = await store.allow("manager", Decision.approve(by="ana", reason="small ones"), flow="paying", uses=2, until=DAY)
    results = [await executor.execute({}) for _ in range(3)]

    assert [result.status for result in results] == ["completed", "completed", "waiting"]
    assert results[0].values["log"] == ["read", "paid"]
    assert await store.verify(results[0].run_id) == []
    (record,) = await store.decisions(results[0].run_id)
    assert (record.grant, record.is_early) == (grant.id, True)
    (row,) = [row async for row in store.history(results[0].run_id) if row.kind == "decision"]
    assert record.consumed_seq == row.seq
    # The chain itself says by which grant the run went on.
    (told,) = [op[2] for op in unpack(row.payload) if op[0] == "decision"]
    assert (told["by"], told["grant"], told["seen"]) == ("ana", grant.id, None)
    details = [line.detail async for line in steps(store, results[0].run_id) if line.row.kind == "decision"]
    assert details == [f"approve by ana, allowed in advance ({grant.id})"]


async def test_an_allowance_may_reject(store: Any) -> None:
    flow = Flow("strict", STATE).add_barrier("manager").add_node("pay", lambda state: {"log": ["paid"]})
    flow.set_entry("manager").add_edge("manager", "pay").add_edge("pay", END)
    executor = await executor_of(store, flow)
    await store.allow("manager", Decision.reject(by="ana", reason="closed in August"), flow="strict", uses=1, until=DAY)
    with pytest.raises(RunFailedError, match="closed in August"):
        await executor.execute({})


async def test_each_visit_of_a_loop_uses_an_allowance_of_its_own(store: Any) -> None:
    flow = Flow("loop", STATE).add_barrier("again").add_node("work", lambda state: {"log": ["worked"]})
    flow.set_entry("again").add_edge("again", END, when=rejected).add_edge("again", "work").add_edge("work", "again")
    executor = await executor_of(store, flow)
    await store.allow("again", Decision.approve(by="ana"), flow="loop", uses=3, until=DAY)
    result = await executor.execute({})
    assert (result.status, result.waiting_for, result.values["log"]) == ("waiting", ("again#4",), ["worked"] * 3)


async def test_in_a_map_an_allowance_decides_as_many_items_as_it_may(store: Any) -> None:
    item = Flow("item", STATE).add_barrier("check")
    item.set_entry("check").add_edge("check", END)
    flow = Flow("batch", STATE)
    flow.add_parallel("all", [item, paying()], on_error="collect").set_entry("all").add_edge("all", END)
    executor = await executor_of(store, flow)
    await store.allow("check", Decision.approve(by="ana"), flow="batch", uses=1, until=DAY, path="all[0]")
    await store.allow("manager", Decision.approve(by="ana"), flow="batch", uses=1, until=DAY, path="all[7]")
    result = await executor.execute({})
    assert result.waiting_for == ("all[1].manager#1",)
    await store.decide(result.run_id, "manager", Decision.approve(by="ben"))
    assert (await executor.resume(result.run_id)).status == "completed"


async def test_an_allowance_in_a_quorum_leaves_the_run_parked_for_the_others(store: Any) -> None:
    executor = await executor_of(store, paying(quorum=2))
    await store.allow("manager", Decision.approve(by="ana"), flow="paying", uses=1, until=DAY)
    result = await executor.execute({})
    record = await store.run(result.run_id)
    assert (result.status, record.status, record.owner) == ("waiting", "waiting", None)
    await store.decide(result.run_id, "manager", Decision.approve(by="ben"))
    result = await executor.resume(result.run_id)
    assert result.status == "completed"
    assert {each.consumed_seq is not None for each in await store.decisions(result.run_id)} == {True}


async def test_the_tickets_of_a_fork_are_left_to_people(store: Any) -> None:
    executor = await executor_of(store, paying())
    waiting = await executor.execute({})
    await store.allow("manager", Decision.approve(by="ana"), flow="paying", uses=5, until=DAY)
    fork = await executor.fork(waiting.run_id)
    assert (await executor.resume(fork)).status == "waiting"
    assert (await store.grants())[0].used == 0


async def test_a_decision_made_for_somebody_says_so_to_later_nodes_and_in_the_chain(store: Any) -> None:
    seen: list[Any] = []
    flow = Flow("told", STATE).add_barrier("manager", approvers={"ana"})
    flow.add_node("after", lambda state, ctx: seen.append(ctx.decisions["manager"]) or {})
    flow.set_entry("manager").add_edge("manager", "after").add_edge("after", END)
    executor = await executor_of(store, flow)
    waiting = await executor.execute({})
    grant = await store.delegate("manager#1", to="ben", by="ana", run_id=waiting.run_id)
    await store.decide(waiting.run_id, "manager", Decision.approve(by="ben"))
    result = await executor.resume(waiting.run_id)
    assert result.status == "completed"
    assert (seen[0].by, seen[0].on_behalf_of, seen[0].grant) == ("ben", "ana", grant.id)
    assert "approve by ben on behalf of ana" in [line.detail async for line in steps(store, result.run_id)]


SAID: dict[str, Callable[[str], Decision]] = {
    "approve": lambda seen: Decision.approve(by="ben", reason="fine", roles=["deputy"], seen=seen, source="form", on_behalf_of="ana"),
    "reject": lambda seen: Decision.reject(by="ben", reason="fine", roles=["deputy"], seen=seen, source="form", on_behalf_of="ana"),
    "modify": lambda seen: Decision.modify(
        by="ben", edits={"items": [3]}, reason="fine", roles=["deputy"], seen=seen, source="form", on_behalf_of="ana"
    ),
    "reroute": lambda seen: Decision.reroute(
        by="ben", to="pay", reason="fine", roles=["deputy"], seen=seen, source="form", on_behalf_of="ana"
    ),
    "skip": lambda seen: Decision.skip(by="ben", reason="fine", roles=["deputy"], seen=seen, source="form", on_behalf_of="ana"),
}


@pytest.mark.parametrize("action", SAID)
async def test_whatever_is_decided_is_kept_with_why_in_which_role_whence_and_over_what(action: str) -> None:
    async with MemoryCheckpointStore() as store:
        executor = await executor_of(store, paying(approvers={"ana", "deputy"}, form=["items"], show=["items"]))
        waiting = await executor.execute({"items": [1]})
        await store.delegate("manager#1", to="ben", by="ana", run_id=waiting.run_id)
        (ticket,) = await store.barriers(run_id=waiting.run_id)
        with pytest.raises(StalePayloadError):
            await store.decide(waiting.run_id, "manager", SAID[action]("0" * 64))
        kept = await store.decide(waiting.run_id, "manager", SAID[action](ticket.digest))
    assert (kept.action, kept.reason, kept.roles, kept.source, kept.on_behalf_of) == (action, "fine", ("deputy",), "form", "ana")
    assert kept.payload_digest == ticket.digest


async def test_a_process_that_died_between_the_opening_and_its_reading_goes_on_with_what_was_allowed() -> None:
    clock, database = VirtualClock(), MemoryDatabase()
    store = MemoryCheckpointStore(now=clock.now, database=database)
    executor = await executor_of(store, paying(), clock=clock)
    await store.allow("manager", Decision.approve(by="ana"), flow="paying", uses=1, until=DAY)

    class Died(BaseException):
        pass

    commit = store.commit

    async def dying(work: Any) -> Any:
        receipt = await commit(work)
        if work.opened:
            raise Died
        return receipt

    store.commit = dying  # type: ignore[method-assign]
    handle = await executor.start({})
    with pytest.raises(Died):
        await handle.result()
    store.commit = commit  # type: ignore[method-assign]
    assert (await store.grants(live=False))[0].used == 1
    other = GraphExecutor(executor.graph, store=MemoryCheckpointStore(now=clock.now, database=database), clock=clock)
    result = await other.resume(handle.run_id, takeover=True)
    assert (result.status, (await store.grants(live=False))[0].used) == ("completed", 1)


async def test_one_right_is_one_vote_under_whichever_names_it_was_cast_early() -> None:
    flow = Flow("loop", STATE).add_barrier("ok", quorum=2, approvers={"ana", "carl"}, timeout=DAY, on_timeout="reject")
    flow.add_node("again", lambda state: {"log": ["again"]}).set_entry("ok").add_edge("ok", "again", when=rejected).add_edge("ok", END)
    clock = VirtualClock()
    executor = GraphExecutor(flow.add_edge("again", "ok").compile(), store=MemoryCheckpointStore(now=clock.now), clock=clock)
    store, run_id = executor.store, await executor.submit({})
    await store.delegate("ok", to="ben", by="ana", run_id=run_id)
    await store.decide(run_id, "ok", Decision.approve(by="ana"))  # nobody joins her in time: it counts for the next visit
    await store.decide(run_id, "ok#2", Decision.approve(by="ben"))  # by the same right
    await executor.resume(run_id)
    await clock.advance(2 * DAY)
    assert (await executor.resume(run_id)).waiting_for == ("ok#2",)
    await store.decide(run_id, "ok#2", Decision.approve(by="carl"))
    assert (await executor.resume(run_id)).status == "completed"


async def test_before_it_opens_a_quorum_in_a_branch_has_to_be_named_with_its_branch(store: Any) -> None:
    inner = Flow("inner").add_barrier("ok", quorum=2).set_entry("ok").add_edge("ok", END)
    flow = Flow("outer", STATE).add_parallel("checks", [inner, branch(lambda state: None, name="other")])
    executor = await executor_of(store, flow.set_entry("checks").add_edge("checks", END))
    run_id = await executor.submit({})
    with pytest.raises(InvalidDecisionError, match=r"say which one you mean, e.g. 'checks\[0\].ok'"):
        await store.decide(run_id, "ok", Decision.approve(by="ana"))
    await store.decide(run_id, "checks[0].ok", Decision.approve(by="ana"))
    await executor.resume(run_id)
    await store.decide(run_id, "ok", Decision.approve(by="ben"))
    assert (await store.run(run_id)).wake_at is not None  # whoever drives runs is told that this one can go on
    assert (await executor.resume(run_id)).status == "completed"
