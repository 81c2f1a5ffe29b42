"""Declared migrations: a run of an older version goes over to the new names and values in one checkpoint, and its history stays true."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from checkpoint_stores.fold import PARKED
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.sql.store import SQLCheckpointStore
from engine.checking import check_run
from engine.decisions import Decision
from engine.errors import FlowValidationError, GraphChangedError, MigrationError
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.loading import load_state
from engine.migration import Migration, Names
from engine.operations import steps, values_of
from engine.plan import END, Retry
from reducers import append
from trailmark.events import Migrated, follow
from trailmark.testing import Death, Process, SimulatedCrash, StreamChecker

OLD = {"amount": int, "log": Annotated[list[str], append]}
NEW = {"cents": int, "currency": str, "log": Annotated[list[str], append]}
START = {"amount": 3, "log": []}


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CheckpointStore]:
    if request.param == "memory":
        opened: CheckpointStore = MemoryCheckpointStore()
    else:
        opened = SQLCheckpointStore(request.getfixturevalue(f"{request.param}_url"))
    async with opened:
        yield opened


def says(word: str) -> Callable[..., Any]:
    async def say(state: Any) -> dict[str, Any]:
        return {"log": [word]}

    return say


def claim(review: str = "review", pay: str = "pay", state: Any = OLD, **options: Any) -> Flow:
    """read -> review (two must agree) -> pay"""
    flow = Flow("claim", state, **options).add_node("read", says("read"))
    flow.add_barrier(review, quorum=2, show=["log"]).add_node(pay, says(pay)).set_entry("read")
    return flow.add_edge("read", review, max_visits=3).add_edge(review, pay).add_edge(pay, END)


def upgrade(values: dict[str, Any]) -> dict[str, Any]:
    return {"cents": values["amount"] * 100, "currency": "EUR", "log": values["log"]}


SECOND = claim(
    "approval", "transfer", NEW, version="2", migrations=[Migration("1", rename={"review": "approval", "pay": "transfer"}, state=upgrade)]
).compile()


async def waiting(store: CheckpointStore) -> str:
    first = GraphExecutor(claim().compile(), store=store)
    run_id = (await first.execute(START)).run_id
    await store.decide(run_id, "review", Decision.approve(by="ana"))
    return run_id


async def test_a_run_goes_over_in_one_checkpoint_with_its_ticket_and_the_votes_for_it(store: CheckpointStore) -> None:
    run_id = await waiting(store)
    before = [row async for row in store.history(run_id)]
    later = GraphExecutor(SECOND, store=store)
    result = await later.resume(run_id)
    assert (result.status, result.waiting_for, result.steps) == ("waiting", ("approval#1",), 2)
    assert result.values == {"cents": 300, "currency": "EUR", "log": ["read"]}
    (ticket,) = await store.barriers(run_id=run_id)
    assert (ticket.ticket, ticket.node) == ("approval#1", "approval")
    await store.decide(run_id, "approval", Decision.approve(by="ben"))
    assert (await later.resume(run_id)).values["log"] == ["read", "transfer"]
    assert [vote.ticket for vote in await store.decisions(run_id)] == ["approval#1", "approval#1"]
    rows = [row async for row in store.history(run_id)]
    assert rows[: len(before)] == before, "what was written stays as it was written"
    assert [row.kind for row in rows[len(before) :]] == ["attempt", "migration", "attempt", "decision", "step"]
    assert (await store.run(run_id)).graph_hash == SECOND.graph_hash
    assert await store.verify(run_id) == []
    assert (await check_run(store, run_id)).problems == ()
    StreamChecker.check([envelope async for envelope in follow(store, run_id, follow=False)])
    said = [line.detail async for line in steps(store, run_id)]
    assert "version 1 -> 2" in said


async def test_the_state_before_and_after_a_migration_can_be_looked_at_and_forked(store: CheckpointStore) -> None:
    run_id = await waiting(store)
    later = GraphExecutor(SECOND, store=store)
    await later.resume(run_id)
    (seq,) = [row.seq async for row in store.history(run_id) if row.kind == "migration"]
    old, new = await load_state(store, run_id, seq - 1), await load_state(store, run_id, seq)
    assert (values_of(old)["amount"], old.root.node, old.root.visits) == (3, "review", {"read": 1, "review": 1})
    assert (values_of(new)["cents"], new.root.node, new.root.visits) == (300, "approval", {"read": 1, "approval": 1})
    assert (old.root.hops, new.root.hops) == ({"read->review": 1}, {"read->approval": 1})
    before, after = await later.fork(run_id, at=seq - 1), await later.fork(run_id, at=seq)
    assert (await store.run(before)).graph_hash != SECOND.graph_hash
    assert [(await store.run(forked)).flow_version for forked in (before, after)] == ["1", "2"]
    for forked in (before, after):
        assert (await later.resume(forked)).waiting_for == ("approval#1",)
        assert (await later.resume(forked)).values["cents"] == 300
        assert await store.verify(forked) == []


async def test_what_was_decided_early_follows_its_barrier(store: CheckpointStore) -> None:
    def two(first: str, second: str, **options: Any) -> Flow:
        flow = Flow("claim", OLD, **options).add_barrier(first).add_barrier(second).set_entry(first)
        return flow.add_edge(first, second).add_edge(second, END)

    run_id = (await GraphExecutor(two("a", "b").compile(), store=store).execute(START)).run_id
    await store.decide(run_id, "b", Decision.approve(by="ana"))
    later = GraphExecutor(two("a", "c", version="2", migrations=[Migration("1", rename={"b": "c"})]).compile(), store=store)
    await store.decide(run_id, "a", Decision.approve(by="ana"))
    assert (await later.resume(run_id)).status == "completed"
    assert [vote.ticket for vote in await store.decisions(run_id)] == ["c", "a#1"]


async def test_migrations_lead_over_several_versions_at_once(store: CheckpointStore) -> None:
    run_id = await waiting(store)
    third = claim(
        "sign", "transfer", {"money": dict[str, Any], "log": OLD["log"]}, version="3",
        migrations=[
            Migration("1", rename={"review": "approval", "pay": "transfer"}, state=upgrade),
            Migration("2", rename={"approval": "sign"}, state=lambda held: {"money": {held["currency"]: held["cents"]}, "log": held["log"]}),
        ],
    )  # fmt: skip
    result = await GraphExecutor(third.compile(), store=store).resume(run_id)
    assert (result.waiting_for, result.values["money"]) == (("sign#1",), {"EUR": 300})
    assert [vote.ticket for vote in await store.decisions(run_id)] == ["sign#1"]
    assert [row.kind async for row in store.history(run_id)].count("migration") == 1


def nested(
    fan: str = "fan", inner: str = "look", ask: str = "ask", lone: str = "b", each: str = "each", step: str = "one", **options: Any
) -> Flow:
    """fan ([look -> ask], b) -> after; and beside it a map whose items wait for people"""
    branch_flow = Flow("branch").add_node(inner, says("look")).add_barrier(ask).set_entry(inner).add_edge(inner, ask).add_edge(ask, END)
    items = Flow("items").add_node(step, says("item")).add_barrier("wait").set_entry(step).add_edge(step, "wait").add_edge("wait", END)
    mapped = Flow("mapped").add_map(each, "parts", items).set_entry(each).add_edge(each, END)
    flow = Flow("nested", {**OLD, "parts": list[int]}, **options).add_node("after", says("after"))
    flow.add_parallel(fan, [branch_flow, branch(says("b"), name=lone), mapped])
    return flow.set_entry(fan).add_edge(fan, "after").add_edge("after", END)


RENAMED: dict[str, Any] = {"fan": "rays", "inner": "peek", "ask": "say", "lone": "c", "each": "every", "step": "first"}
RENAME = {"fan": "rays", "fan[0].look": "peek", "fan[0].ask": "say", "fan[1].b": "c", "fan[2].each": "every", "fan[*].each[*].one": "first"}


async def test_open_branches_and_items_go_over_with_all_that_is_below_them(store: CheckpointStore) -> None:
    run_id = (await GraphExecutor(nested().compile(), store=store).execute({**START, "parts": [1, 2]})).run_id
    later = GraphExecutor(nested(**RENAMED, version="2", migrations=[Migration("1", rename=RENAME)]).compile(), store=store)
    result = await later.resume(run_id)
    assert set(result.waiting_for) == {"rays[0].say#1", "rays[2].every[0].wait#1", "rays[2].every[1].wait#1"}
    assert {ticket.path for ticket in await store.barriers(run_id=run_id)} == {"rays[0]", "rays[2].every[0]", "rays[2].every[1]"}
    for ticket in result.waiting_for:
        await store.decide(run_id, ticket, Decision.approve(by="ana"))
    result = await later.resume(run_id)
    assert (result.status, result.values["log"]) == ("completed", ["look", "b", "item", "item", "after"])
    state = await load_state(store, run_id)
    assert set(state.root.decisions) == {"say", "wait"}
    assert (await check_run(store, run_id)).problems == ()
    told = StreamChecker.check([envelope async for envelope in follow(store, run_id, follow=False)])
    (over,) = [envelope.event for envelope in told if isinstance(envelope.event, Migrated)]
    assert (over.versions, over.paths["fan[0]"]) == (["1", "2"], "rays[0]")
    assert [(step.step_name, step.path) for step in over.steps] == [
        ("rays", ""), ("every", "rays[2]"), ("say", "rays[0]"), ("wait", "rays[2].every[0]"), ("wait", "rays[2].every[1]"),
    ]  # fmt: skip
    for position, last in enumerate(told[:-1]):
        rest = [envelope async for envelope in follow(store, run_id, after=last.id, follow=False)]
        assert rest == told[position + 1 :]
        StreamChecker.check(rest, "segment")
    assert await store.verify(run_id) == []


async def test_a_body_that_may_have_been_in_flight_keeps_its_idempotency_key() -> None:
    keys: list[tuple[str, str]] = []

    def paying(node: str, *, down: bool, **options: Any) -> Flow:
        async def pay(state: Any, ctx: Any) -> dict[str, Any]:
            keys.append((ctx.node, ctx.idempotency_key))
            if down:
                raise ConnectionError("the bank is down")
            return {"log": ["paid"]}

        flow = Flow("paying", OLD, **options).add_node(node, pay, retry=Retry(first=timedelta(hours=1), attempts=9)).set_entry(node)
        return flow.add_edge(node, node, when=once_more).add_edge(node, END)

    def once_more(state: Any) -> bool:
        return len(state["log"]) < 2

    store = MemoryCheckpointStore()
    run_id = (await GraphExecutor(paying("pay", down=True).compile(), store=store).execute(START)).run_id
    graph = paying("transfer", down=False, version="2", migrations=[Migration("1", rename={"pay": "transfer"})]).compile()
    later = GraphExecutor(graph, store=store)
    assert (await later.resume(run_id)).status == "waiting"
    state = await load_state(store, run_id)
    forked = await later.fork(run_id)
    assert (state.root.node, state.root.detail[2]["node"]) == ("transfer", "transfer")
    store._now = lambda: state.root.detail[1] + 1
    later = GraphExecutor(graph, store=store)
    assert (await later.resume(run_id)).status == "completed"
    (first, key), *again = keys
    assert (first, again[0]) == ("pay", ("transfer", key))
    assert again[1][1] != key, "the next entry has a key of its own"
    await later.resume(forked)
    assert len({key for _node, key in keys}) == 4, "and so have the entries of a fork"


class AddressOfClaim(BaseModel):
    street: str


async def test_the_state_function_gets_models_as_plain_dicts_so_that_their_class_may_change_or_go() -> None:
    def shipping(kind: Any, **options: Any) -> Flow:
        flow = Flow("shipping", {"where": kind}, **options).add_barrier("wait").set_entry("wait")
        return flow.add_edge("wait", END)

    store = MemoryCheckpointStore()
    old = GraphExecutor(shipping(AddressOfClaim).compile(), store=store)
    run_id = (await old.execute({"where": AddressOfClaim(street="Main")})).run_id
    moves = Migration("1", state=lambda held: {"where": f"{held['where']['street']} St"})
    result = await GraphExecutor(shipping(str, version="2", migrations=[moves]).compile(), store=store).resume(run_id)
    assert result.values == {"where": "Main St"}


# --- refusals -----------------------------------------------------------------------------------------------------------
def broken(held: dict[str, Any]) -> dict[str, Any]:
    return {"cents": held["euros"]}


REFUSED = {
    "raises": (Migration("1", state=broken), "raised KeyError: 'euros'"),
    "returns no mapping": (Migration("1", state=lambda held: [held]), "returned a list"),  # type: ignore[arg-type,return-value]
    "does not fit": (Migration("1", state=lambda held: {"cents": "many", "log": []}), "does not fit the new state: cents"),
    "is not declared": (Migration("1", state=lambda held: {**upgrade(held), "amount": 3}), "unknown key 'amount'"),
    "cannot be stored": (Migration("1", state=lambda held: {**upgrade(held), "any": object()}), "cannot be stored"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_migration_that_cannot_be_applied_changes_nothing(name: str) -> None:
    migration, said = REFUSED[name]
    store = MemoryCheckpointStore()
    run_id = await waiting(store)
    before = await store.run(run_id)
    flow = claim("review", "pay", {**NEW, "any": Any}, version="2", migrations=[migration])
    with pytest.raises(MigrationError) as refused:
        await GraphExecutor(flow.compile(), store=store).resume(run_id, mode="force")
    assert said in str(refused.value)
    assert await store.run(run_id) == before


async def test_a_new_name_must_be_new() -> None:
    store = MemoryCheckpointStore()
    run_id = await waiting(store)
    flow = claim("pay", "last", version="2", migrations=[Migration("1", rename={"review": "pay", "pay": "last"})])
    with pytest.raises(MigrationError, match="the old version has a node of that name"):
        await GraphExecutor(flow.compile(), store=store).resume(run_id)


async def test_values_that_open_branches_build_upon_are_not_changed_under_them() -> None:
    def fanned(**options: Any) -> Flow:
        inner = Flow("inner").add_node("x", says("x")).add_barrier("ask").set_entry("x").add_edge("x", "ask").add_edge("ask", END)
        flow = Flow("claim", OLD, **options).add_parallel("fan", [inner]).set_entry("fan")
        return flow.add_edge("fan", END)

    store = MemoryCheckpointStore()
    run_id = (await GraphExecutor(fanned().compile(), store=store).execute(START)).run_id
    clears = Migration("1", state=lambda held: {**held, "log": ["new"]})
    with pytest.raises(MigrationError, match=r"it changes 'log', which branch fan\[0\] has written"):
        await GraphExecutor(fanned(version="2", migrations=[clears]).compile(), store=store).resume(run_id)
    doubles = Migration("1", state=lambda held: {**held, "amount": held["amount"] * 2})
    result = await GraphExecutor(fanned(version="2", migrations=[doubles]).compile(), store=store).resume(run_id)
    assert result.values["amount"] == 6


async def test_what_still_differs_after_a_migration_is_judged_like_any_other_change() -> None:
    store = MemoryCheckpointStore()
    run_id = await waiting(store)
    flow = claim("approval", "pay", version="2", migrations=[Migration("1")])
    with pytest.raises(GraphChangedError, match="node 'review' removed"):
        await GraphExecutor(flow.compile(), store=store).resume(run_id)
    with pytest.raises(GraphChangedError):
        await GraphExecutor(SECOND, store=store).resume(run_id, mode="strict")


def test_wrong_declarations_are_found_before_any_run_is_touched() -> None:
    with pytest.raises(FlowValidationError) as invalid:
        claim(
            version="2",
            migrations=[Migration("1"), Migration("1"), Migration("2", rename={"review": "nobody", "fan[0].x": "pay"})],
        ).compile()
    assert [problem.partition(";")[0] for problem in invalid.value.problems] == [
        "2 migrations lead from version '1'",
        "a migration leads from version '2', which is the flow's own",
        "the migration from version '2' renames 'review' to 'nobody', which this flow does not have there",
        "the migration from version '2' renames 'fan[0].x' to 'pay', which this flow does not have there",
    ]
    for rename in ({"a[0]": "b"}, {"a#2": "b"}, {"a[x].b": "c"}, {"a": "b.c"}, {"a": ""}, {"a": "c", "b": "c"}):
        with pytest.raises(ValueError, match=r"rename|no place"):
            Migration("1", rename=rename)
    assert Names({"a[*].b": "c"}).path("a#3[7].b#2[0]") == "a#3[7].c#2[0]"


# --- crashes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_process_that_dies_beside_the_migration_leaves_a_run_that_the_next_one_takes_over(
    store: CheckpointStore, moment: Any
) -> None:
    run_id = await waiting(store)
    await store.decide(run_id, "review", Decision.approve(by="ben"))
    dying = Process(store, Death(1, moment))
    with pytest.raises(SimulatedCrash):
        await GraphExecutor(SECOND, store=dying.store).resume(run_id)
    state = await load_state(store, run_id)
    assert (state.root.node, state.root.phase) == ("review" if moment == "before" else "approval", PARKED)
    assert ((await store.run(run_id)).graph_hash == SECOND.graph_hash) == (moment == "after")
    result = await GraphExecutor(SECOND, store=store).resume(run_id, takeover=True)
    assert (result.status, result.values["cents"], result.values["log"]) == ("completed", 300, ["read", "transfer"])
    assert [row.kind async for row in store.history(run_id)].count("migration") == 1
    assert await store.verify(run_id) == []


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, {tests!r})
from test_flow_migrations import SECOND
from trailmark import GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

class Mortal(SQLCheckpointStore):
    async def change_over(self, changeover):
        await super().change_over(changeover)
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Mortal({url!r}) as store:
        await GraphExecutor(SECOND, store=store).resume({run_id!r})

asyncio.run(main())
"""


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_a_process_killed_between_the_migration_and_the_next_step_loses_nothing_and_repeats_nothing(
    request: pytest.FixtureRequest, database: str
) -> None:
    url = request.getfixturevalue(f"{database}_url")
    async with SQLCheckpointStore(url) as store:
        run_id = await waiting(store)
        await store.decide(run_id, "review", Decision.approve(by="ben"))
        program = KILLED.format(tests=str(Path(__file__).parent), url=url, run_id=run_id)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
        _, said = await child.communicate()
        assert child.returncode == -signal.SIGKILL, said.decode()
        assert [row.kind async for row in store.history(run_id)][-1] == "migration"
        result = await GraphExecutor(SECOND, store=store).resume(run_id)
        assert (result.status, result.values["cents"], result.values["log"]) == ("completed", 300, ["read", "transfer"])
        assert [row.kind async for row in store.history(run_id)].count("migration") == 1
        assert await store.verify(run_id) == []
