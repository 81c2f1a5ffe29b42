"""A flow changes while its runs are under way: which runs go on, which are refused, and what they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, NotRequired

import pytest
from typing_extensions import TypedDict

from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.memory_database import MemoryDatabase
from engine.decisions import Decision
from engine.errors import GraphChangedError
from engine.executor import GraphExecutor
from engine.flow import Flow, branch
from engine.loading import load_state
from engine.plan import END, Escalation, Retry
from reducers import append, max_
from trailmark.testing import VirtualClock

STATE = {"n": int, "log": Annotated[list[str], append], "items": list[str]}
START = {"n": 1, "log": [], "items": ["a", "b", "c"]}


def says(word: str) -> Callable[..., Any]:
    async def say(state: Any) -> dict[str, Any]:
        return {"log": [word]}

    return say


def fails(word: str) -> Callable[..., Any]:
    async def fail(state: Any) -> None:
        raise ValueError(word)

    return fail


def always(state: Any) -> bool:
    return True


FAILS = fails("no")


def sounds(item: str) -> str:
    return item


def asked(**options: Any) -> Flow:
    """before -> review -> after"""
    flow = Flow("changing", options.pop("state", STATE), version=options.pop("version", "1")).add_node("before", says("before"))
    given = {"prompt": "{n}", "show": ["n"], "form": ["n"], **options}
    flow.add_barrier("review", **given)
    flow.add_node("after", says("after")).set_entry("before")
    return flow.add_edge("before", "review").add_edge("review", "after").add_edge("after", END)


def beside(*branches: Any, inner: Callable[[Flow], Any] = lambda flow: None, **options: Any) -> Flow:
    """fan (a branch that waits for people, and another) -> after"""
    waiting = Flow("waiting").add_barrier("review", form=None).add_node("then", says("then")).set_entry("review")
    waiting.add_edge("review", "then").add_edge("then", END)
    inner(waiting)
    flow = Flow("changing", options.pop("state", STATE)).add_parallel(
        "fan", [waiting, *(branches or (branch(says("b"), name="b"),))], **options
    )
    flow.add_node("after", says("after")).set_entry("fan")
    return flow.add_edge("fan", "after").add_edge("after", END)


def over_items(inner: Callable[[Flow], Any] = lambda flow: None, *, entry: str = "look", **options: Any) -> Flow:
    """each (item by item, one at a time: look -> ask) -> after"""
    one = Flow("one", {"item": str, "result": str}).add_node("look", lambda state: {"result": state["item"]}).add_barrier("ask")
    one.set_entry(entry).add_edge("look", "ask").add_edge("ask", END)
    inner(one)
    given = {"item": "item", "result": "result", "to": "log", "max_concurrency": 1, **options}
    flow = Flow("changing", STATE).add_map("each", "items", one, **given).add_node("after", says("after")).set_entry("each")
    return flow.add_edge("each", "after").add_edge("after", END)


def retried(work: Any = FAILS) -> Flow:
    flow = Flow("changing", STATE)
    if work is None:
        flow.add_barrier("work")
    else:
        flow.add_node("work", work, retry=Retry(first=timedelta(hours=1)))
    return flow.set_entry("work").add_edge("work", END)


def looping(*, cap: int | None = None, edge_cap: int | None = 5, other: bool = False) -> Flow:
    """a -> a three times, then it is asked; from there back to a"""
    flow = Flow("changing", {**STATE, "n": int}).add_node("a", lambda state: {"n": state["n"] + 1}, max_visits=cap).add_barrier("review")
    flow.set_entry("a").add_edge("a", "a", when=again, max_visits=edge_cap, name="other" if other else "again")
    return flow.add_edge("a", "review").add_edge("review", "a", when=always).add_edge("review", END)


def again(state: Any) -> bool:
    return bool(state["n"] < 4)


def without(flow: Flow, node: str) -> Flow:
    flow._nodes = [each for each in flow._nodes if each.name != node]
    flow._edges = [each for each in flow._edges if node not in (each.source, each.target)]
    return flow


def unasked(flow: Flow) -> Flow:
    """Without the barrier in a branch: another one stands there."""
    flow = without(flow, "review").add_barrier("other").add_edge("other", "then")
    flow._entry = "other"
    return flow


def shorter() -> Flow:
    flow = Flow("changing", STATE).add_barrier("review", prompt="{n}", show=["n"], form=["n"]).add_node("after", says("after"))
    return flow.set_entry("review").add_edge("review", "after").add_edge("after", END)


def longer() -> Flow:
    flow = asked().add_node("earlier", says("earlier")).add_edge("earlier", "before").add_node("more", says("more"))
    flow._entry = "earlier"
    return flow.add_edge("after", "more", when=always).add_edge("more", END)


def fanned_after() -> Flow:
    flow = without(asked(), "after").add_parallel("after", [branch(says("x"), name="x")])
    return flow.add_edge("review", "after").add_edge("after", END)


def rerouted() -> Flow:
    return without(asked(), "after").add_node("other", says("other")).add_edge("review", "other").add_edge("other", END)


def task_review() -> Flow:
    return without(asked(), "review").add_node("review", says("x")).add_edge("before", "review").add_edge("review", "after")


def named(*names: str) -> Flow:
    return beside(*(branch(says(name), name=name) for name in names))


def mapped_fan() -> Flow:
    flow = Flow("changing", STATE).add_map("fan", "items", sounds).add_node("after", says("after")).set_entry("fan")
    return flow.add_edge("fan", "after").add_edge("after", END)


def ahead_in_items(one: Flow) -> None:
    one.add_node("x", lambda state: None).add_edge("ask", "x", when=always).add_edge("x", END)


def unlooked(one: Flow) -> None:
    without(one, "look")._entry = "ask"


def keyed(**keys: Any) -> Flow:
    return asked(state={name: kind for name, kind in {**STATE, **keys}.items() if kind is not None})


def sleeps(kind: str = "wait", *, event: str = "paid", delay: int = 1, work: Any = None) -> Flow:
    """A run that waits for a signal or a time, in a node or in a body."""
    flow = Flow("changing", STATE).add_signal(event)
    if kind == "wait":
        flow.add_wait("sleep", event)
    elif kind == "timer":
        flow.add_timer("sleep", delay=timedelta(days=delay))
    else:
        flow.add_node("sleep", work or listens)
    return flow.set_entry("sleep").add_edge("sleep", END)


async def listens(state: Any, ctx: Any) -> None:
    await ctx.wait_for("paid")


async def listens_twice(state: Any, ctx: Any) -> None:
    await ctx.wait_for("paid")
    await ctx.wait_for("paid")


HARMLESS = {
    "how long a timer takes the next time": (lambda: sleeps("timer"), lambda: sleeps("timer", delay=2)),
    "what is behind is gone": (asked, shorter),
    "new nodes behind and ahead": (asked, longer),
    "a node ahead is of another kind": (asked, fanned_after),
    "another node behind the barrier": (asked, rerouted),
    "another prompt": (asked, lambda: asked(prompt="{n}?")),
    "a deadline for the next time": (asked, lambda: asked(timeout=timedelta(days=1))),
    "a new key": (asked, lambda: keyed(more=str)),
    "a reducer of a key that the run holds no value of": (lambda: keyed(more=str), lambda: keyed(more=Annotated[str, max_])),
    "ahead in an open branch": (beside, lambda: beside(inner=lambda flow: flow.add_edge("then", "review", when=always))),
    "how many branches at once": (beside, lambda: beside(max_concurrency=1)),
    "a cap that is not used up": (looping, lambda: looping(cap=9)),
    "ahead in the items of a map": (over_items, lambda: over_items(ahead_in_items)),
    "the function of a node that is to be tried again": (retried, lambda: retried(work=says("x"))),
}

REFUSED = {
    "what is waited for": (sleeps, lambda: sleeps(event="settled"), "the run waits there for 'paid'"),
    "a body that waits": (lambda: sleeps("body"), lambda: sleeps("body", work=listens_twice), "its function changed"),
    "the other edits": (asked, lambda: asked(form=["log"]), "form changed"),
    "other approvers": (asked, lambda: asked(approvers={"board"}), "approvers changed"),
    "another quorum": (lambda: asked(form=None), lambda: asked(form=None, quorum=2), "quorum changed"),
    "a key is gone": (asked, lambda: keyed(items=None), "key 'items' removed"),
    "another reducer": (asked, lambda: keyed(n=Annotated[int, max_]), "the reducer error became max"),
    "a value that does not fit": (
        asked,
        lambda: asked(state={**STATE, "items": int}, version="2"),
        "key 'items': the run's value does not fit",
    ),
    "branches in another order": (lambda: named("b", "c"), lambda: named("c", "b"), "branches waiting, b, c became waiting, c, b"),
    "another policy of an open join": (beside, lambda: beside(on_error="collect"), "on_error changed"),
    "where an open map puts its results": (over_items, lambda: over_items(to="items"), "node 'each': to changed"),
    "a cap is used up": (looping, lambda: looping(cap=2), "max_visits became 2"),
    "the cap of an edge is used up": (looping, lambda: looping(edge_cap=2), "edge a->a: max_visits became 2"),
    "another edge would inherit the count": (looping, lambda: looping(other=True), "edge a->a is another one"),
}

NO_PLACE = {
    "what waits for a signal is a timer": (sleeps, lambda: sleeps("timer"), "was a wait and is a timer"),
    "a body that waits is a node that waits": (lambda: sleeps("body"), sleeps, "was a task and is a wait"),
    "the node is gone": (asked, lambda: without(asked(), "review").add_edge("before", "after"), "people are asked there (ticket review#1)"),
    "the barrier is a task": (asked, task_review, "was a barrier and is a task"),
    "fewer branches": (lambda: named("b", "c"), lambda: named("b"), "3 branches became 2"),
    "a node in a branch is gone": (beside, lambda: beside(inner=unasked), "node 'review' in fan[0] removed"),
    "the open parallel is a map": (beside, mapped_fan, "was a parallel and is a map"),
    "what is to be tried again is a barrier": (retried, lambda: retried(None), "waits there to try it again"),
}


async def stopped(flow: Flow, *, max_steps: int = 100) -> tuple[GraphExecutor, str]:
    """A run that has come as far as it can by itself."""
    store = MemoryCheckpointStore()
    executor = GraphExecutor(flow.compile(), store=store)
    result = await executor.execute(START, max_steps=max_steps)
    assert result.status in ("waiting", "limit_reached")
    return executor, result.run_id


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_run_goes_on_where_nothing_under_way_has_changed_and_that_is_recorded(name: str) -> None:
    old, new = (make() for make in HARMLESS[name])
    executor, run_id = await stopped(old)
    later = GraphExecutor(new.compile(), store=executor.store)
    assert later.graph.graph_hash != executor.graph.graph_hash
    assert (await later.resume(run_id)).status == "waiting"
    record, details = await executor.store.run(run_id), (await load_state(executor.store, run_id)).details
    assert (record.graph_hash, details["graph_hash"]) == (later.graph.graph_hash, later.graph.graph_hash)
    assert (details["judged"], details["changed_from"]) == ("compatible", executor.graph.graph_hash)
    assert await executor.store.graph(record.graph_hash) == later.graph.definition_text
    assert await executor.store.verify(run_id) == []


@pytest.mark.parametrize("name", REFUSED)
async def test_a_run_is_refused_with_the_reason_where_what_is_under_way_has_changed_and_force_is_recorded(name: str) -> None:
    old, new, said = REFUSED[name]
    executor, run_id = await stopped(old())
    later = GraphExecutor(new().compile(), store=executor.store)
    before = await executor.store.run(run_id)
    with pytest.raises(GraphChangedError) as refused:
        await later.resume(run_id)
    assert said in str(refused.value)
    assert refused.value.has_place
    assert all(each.why and each.remedy for each in refused.value.objections)
    assert await executor.store.run(run_id) == before, "bad input changes nothing"
    assert (await later.resume(run_id, mode="force")).status == "waiting"
    details = (await load_state(executor.store, run_id)).details
    assert (details["judged"], any(said in line for line in details["overruled"])) == ("forced", True)


async def test_a_run_is_taken_over_under_the_same_rules_as_it_is_resumed() -> None:
    executor, run_id = await stopped(asked())
    stands = GraphExecutor(asked(approvers=["board"]).compile(), store=executor.store)
    with pytest.raises(GraphChangedError):
        await stands.attach(run_id)
    assert (await (await stands.attach(run_id, mode="force")).result()).status == "waiting"
    ahead = GraphExecutor(longer().compile(), store=executor.store)
    with pytest.raises(GraphChangedError):
        await ahead.attach(run_id, mode="strict")


@pytest.mark.parametrize("name", NO_PLACE)
async def test_no_force_takes_a_run_that_has_no_place(name: str) -> None:
    old, new, said = NO_PLACE[name]
    executor, run_id = await stopped(old())
    later = GraphExecutor(new().compile(), store=executor.store)
    with pytest.raises(GraphChangedError) as refused:
        await later.resume(run_id, mode="force")
    assert said in str(refused.value)
    assert not refused.value.has_place
    assert (await executor.resume(run_id)).status == "waiting", "the old graph still goes on with it"


async def test_items_that_have_not_begun_begin_where_it_was_said_when_their_node_was_opened() -> None:
    executor, run_id = await stopped(over_items(), max_steps=2)
    with pytest.raises(GraphChangedError, match="2 items have still to begin there") as refused:
        await GraphExecutor(over_items(unlooked).compile(), store=executor.store).resume(run_id, mode="force")
    assert not refused.value.has_place


async def test_a_person_who_sends_a_run_where_no_edge_leads_any_more_is_asked_again() -> None:
    executor, run_id = await stopped(asked())
    await executor.store.decide(run_id, "review", Decision.reroute(by="ana", to="after"))
    later = GraphExecutor(rerouted().compile(), store=executor.store)
    assert (await later.resume(run_id)).waiting_for == ("review#1",)
    await executor.store.decide(run_id, "review", Decision.approve(by="ana"))
    assert (await later.resume(run_id)).values["log"] == ["before", "other"]


@pytest.mark.parametrize(("asked_now", "goes_on"), [({"finance"}, True), ({"board"}, False), ({"finance", "board"}, False)])
async def test_whom_an_escalation_added_to_a_ticket_is_no_change_of_the_flow(asked_now: set[str], goes_on: bool) -> None:
    clock = VirtualClock()
    store = MemoryCheckpointStore(now=clock.now)
    escalate = [Escalation(after=timedelta(hours=1), approvers={"director"})]
    before = GraphExecutor(asked(approvers={"finance"}, escalate=escalate).compile(), store=store, clock=clock)
    run = await before.execute(START)
    await clock.advance(timedelta(hours=2))
    await before.resume(run.run_id)
    assert [ticket.approvers for ticket in await store.barriers()] == [("finance", "director")]
    after = GraphExecutor(asked(approvers=asked_now, escalate=escalate, prompt="{n}?").compile(), store=store, clock=clock)
    if goes_on:
        assert (await after.resume(run.run_id)).status == "waiting"
    else:
        with pytest.raises(GraphChangedError, match="approvers changed"):
            await after.resume(run.run_id)


async def test_a_decision_made_before_its_barrier_opened_is_not_lost_silently() -> None:
    def two(*barriers: str) -> Flow:
        flow = Flow("changing", STATE).set_entry(barriers[0])
        for name, following in zip(barriers, [*barriers[1:], END], strict=True):
            flow.add_barrier(name).add_edge(name, following)
        return flow

    executor, run_id = await stopped(two("first", "second"))
    await executor.store.decide(run_id, "second", Decision.approve(by="ana"))
    later = GraphExecutor(two("first", "third").compile(), store=executor.store)
    with pytest.raises(GraphChangedError, match="ana has decided it before it opened"):
        await later.resume(run_id)


async def test_a_signal_that_nobody_has_read_is_not_lost_silently() -> None:
    def asks(*signals: str) -> Flow:
        flow = asked()
        for signal in signals:
            flow.add_signal(signal)
        return flow

    executor, run_id = await stopped(asks("paid", "shipped"))
    await executor.store.signal(run_id, "paid", by="bank")
    with pytest.raises(GraphChangedError, match="signal 'paid' removed: 'paid' was sent"):
        await GraphExecutor(asks("shipped").compile(), store=executor.store).resume(run_id)
    assert (await GraphExecutor(asks("paid").compile(), store=executor.store).resume(run_id)).status == "waiting"


async def test_a_run_whose_graph_nobody_knows_any_more_is_not_judged_but_can_be_forced() -> None:
    executor, run_id = await stopped(asked())
    store = executor.store
    assert isinstance(store, MemoryCheckpointStore)
    store.database.graphs.clear()
    later = GraphExecutor(longer().compile(), store=store)
    with pytest.raises(GraphChangedError, match="is not in the store"):
        await later.resume(run_id)
    assert (await later.resume(run_id, mode="force")).status == "waiting"


async def test_a_mode_that_does_not_exist_is_refused() -> None:
    executor, run_id = await stopped(asked())
    with pytest.raises(ArgumentError, match="'compatible' or 'strict' or 'force'"):
        await executor.resume(run_id, mode="maybe")  # type: ignore[arg-type]


class Overtaken(MemoryCheckpointStore):
    """Between being judged and being taken the run goes on elsewhere."""

    meanwhile: Any = None

    async def acquire(self, run_id: str, **options: Any) -> Any:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().acquire(run_id, **options)


async def test_a_run_that_moves_on_while_it_is_judged_is_judged_again_and_keeps_its_graph_where_it_is_refused_then() -> None:
    def two(last: str) -> Flow:
        flow = Flow("changing", STATE).add_barrier("first").add_barrier(last).set_entry("first")
        return flow.add_edge("first", last).add_edge(last, END)

    database = MemoryDatabase()
    executor = GraphExecutor(two("second").compile(), store=MemoryCheckpointStore(database=database))
    run_id = (await executor.execute(START)).run_id

    async def goes_on() -> None:
        await executor.store.decide(run_id, "first", Decision.approve(by="ana"))
        await executor.resume(run_id)

    overtaken = Overtaken(database=database)
    overtaken.meanwhile = goes_on
    later = GraphExecutor(two("third").compile(), store=overtaken)
    with pytest.raises(GraphChangedError, match="people are asked there"):
        await later.resume(run_id, takeover=True)
    assert (await executor.store.run(run_id)).graph_hash == executor.graph.graph_hash
    assert (await executor.resume(run_id)).waiting_for == ("second#1",)
    assert await executor.store.verify(run_id) == []


# --- types of keys ----------------------------------------------------------------------------------------------------
class Small(TypedDict):
    amount: int


class Large(TypedDict):
    amount: int
    currency: NotRequired[str]


class Strict(TypedDict):
    amount: int
    currency: str


@pytest.mark.parametrize(
    ("before", "after", "value", "goes_on"),
    [
        (int, int | None, 1, True),
        (int, str, 1, False),
        (str, int, "many", False),
        (Small, Large, {"amount": 1}, True),
        (Small, Strict, {"amount": 1}, False),
        (list[int], list[str], [], True),
        (list[int], list[str], [1], False),
    ],
)
async def test_a_run_goes_on_with_another_type_of_a_key_where_its_value_fits(before: Any, after: Any, value: Any, goes_on: bool) -> None:
    old, new = (asked(state={"log": Annotated[list[str], append], "n": kind}, form=None).compile() for kind in (before, after))
    assert old.graph_hash != new.graph_hash
    database = MemoryDatabase()
    store = MemoryCheckpointStore(database=database)
    run = await GraphExecutor(old, store=store).execute({"log": [], "n": value})
    await store.decide(run.run_id, "review", Decision.approve(by="ana"))
    with pytest.raises(GraphChangedError) as strict:
        await GraphExecutor(new, store=store).resume(run.run_id, mode="strict")
    assert any(change.startswith("type of key 'n' ") for change in strict.value.difference)
    if goes_on:
        assert (await GraphExecutor(new, store=store).resume(run.run_id)).status == "completed"
    else:
        with pytest.raises(GraphChangedError, match="the run's value does not fit") as refused:
            await GraphExecutor(new, store=store).resume(run.run_id)
        assert [objection.change for objection in refused.value.objections] == ["key 'n': the run's value does not fit"]
        assert (await store.run(run.run_id)).owner is None


async def test_a_run_whose_definition_says_nothing_of_types_goes_on() -> None:
    graph = asked().compile()
    database = MemoryDatabase()
    store = MemoryCheckpointStore(database=database)
    run = await GraphExecutor(graph, store=store).execute(START)
    # As an older trailmark kept it.
    untyped = {key: value for key, value in graph.definition.items() if key != "types"}
    database.graphs["o" * 64] = json.dumps(untyped)
    database.runs[run.run_id].record = replace(database.runs[run.run_id].record, graph_hash="o" * 64)
    await store.decide(run.run_id, "review", Decision.approve(by="ana"))
    assert (await GraphExecutor(graph, store=store).resume(run.run_id)).status == "completed"
