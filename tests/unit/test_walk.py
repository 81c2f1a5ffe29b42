"""The walk: the order of things, the places under a concurrency limit, the steps that are left, beginning anywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import encode, pack, unpack
from checkpoint_stores.fold import RunState, fold
from checkpoint_stores.records import Row
from engine.events import BodyFailed, BodyReturned, BranchTimedOut, Event
from engine.flow import Flow, branch
from engine.plan import END, Plan, Retry
from engine.walk import Batch, Walk
from reducers.builtin import append

STATE = {"n": int, "log": Annotated[list[str], append]}


def body(state: Any) -> None:
    return None


def line(*names: str, name: str = "line") -> Flow:
    flow = Flow(name, None)
    for each in names:
        flow.add_node(each, body)
    flow.set_entry(names[0])
    for each, following in zip(names, [*names[1:], END], strict=True):
        flow.add_edge(each, following)
    return flow


def fan(*branches: Any, **options: Any) -> Flow:
    made = {f"b{number}": each for number, each in enumerate(branches)}
    return Flow("fan", STATE).add_parallel("fan", made, **options).set_entry("fan").add_edge("fan", END)


class Driven:
    def __init__(self, flow: Flow, max_steps: int = 100) -> None:
        self.plan: Plan = flow.compile().plan
        self.chain = Chain(b"key")
        payload, ops = pack([["set", "log", []], ["attempt", 1, {"max_steps": max_steps}]])
        state = RunState("r")
        row = self.chain.seal(self.chain.genesis("r"), "r", 1, 1, 0, "start", "", "", self.plan.entry, payload, 0)
        self.rows: list[Row] = [row]
        fold(state, row, ops)
        self.walk = Walk(self.plan, state, self.chain, 1)
        self.batch = self.take(self.walk.begin(0))

    @property
    def state(self) -> RunState:
        return self.walk.state

    def take(self, batch: Batch) -> Batch:
        self.rows += batch.rows
        return batch

    def feed(self, *events: Event, now: int = 0) -> Batch:
        self.batch = self.take(self.walk.feed(list(events), now))
        return self.batch

    def ends(self, *paths: str, **update: Any) -> Batch:
        return self.feed(*(self.answer(path, update) for path in paths))

    def fails(self, path: str) -> Batch:
        scope = self.state.scopes[path]
        return self.feed(BodyFailed(path, scope.node, scope.visits.get(scope.node, 0) + 1, ValueError("no"), 0))

    def answer(self, path: str, value: Any = None) -> BodyReturned:
        scope = self.state.scopes[path]
        return BodyReturned(path, scope.node, scope.visits.get(scope.node, 0) + 1, value or None, 0)

    def again(self, upto: int | None = None) -> Driven:
        """The same run in a new process, from its rows (or the first ``upto`` of them)."""
        other = object.__new__(Driven)
        other.plan, other.chain, other.rows = self.plan, self.chain, list(self.rows[:upto])
        state = RunState("r")
        for row in other.rows:
            fold(state, row, unpack(row.payload))
        other.walk = Walk(self.plan, state, self.chain, 2)
        other.batch = other.take(other.walk.begin(0))
        return other


def started(batch: Batch) -> list[str]:
    return [start.path for start in batch.starts]


def test_rows_are_numbered_densely_and_chained() -> None:
    run = Driven(fan(line("x", "y"), body))
    run.ends("fan[0]")
    run.ends("fan[1]", "fan[0]")
    assert [row.seq for row in run.rows] == [1, 2, 3, 4, 5, 6]
    assert [row.kind for row in run.rows] == ["start", "parallel", "step", "step", "step", "join"]
    previous = run.chain.genesis("r")
    for row in run.rows:
        assert run.chain.follows(previous, row)
        previous = row.digest


def test_places_under_a_limit_go_to_branches_that_have_begun() -> None:
    run = Driven(fan(line("x", "y"), line("x", "y"), line("x", "y"), max_concurrency=2))
    assert started(run.batch) == ["fan[0]", "fan[1]"]
    assert started(run.ends("fan[0]")) == ["fan[0]"]
    assert started(run.ends("fan[1]")) == ["fan[1]"]
    assert started(run.ends("fan[0]")) == ["fan[2]"]


@pytest.mark.parametrize("fails", [False, True])
def test_places_come_back_however_a_body_ends(fails: bool) -> None:
    run = Driven(fan(body, body, body, max_concurrency=1, on_error="collect"))
    for number in range(3):
        assert started(run.batch) == [f"fan[{number}]"]
        if fails:
            run.fails(f"fan[{number}]")
        else:
            run.ends(f"fan[{number}]")
    assert run.walk.ended


def test_a_limit_counts_the_bodies_of_nested_branches() -> None:
    inner = Flow("inner").add_parallel("pair", [branch(body, name="x"), branch(body, name="y")]).set_entry("pair").add_edge("pair", END)
    run = Driven(fan(inner, inner, max_concurrency=2))
    assert started(run.batch) == ["fan[0].pair[0]", "fan[0].pair[1]"]
    assert started(run.ends("fan[0].pair[1]")) == ["fan[1].pair[0]"]


def test_bodies_cancelled_by_an_inner_failure_give_their_places_under_the_outer_limit_back() -> None:
    inner = Flow("inner").add_parallel("pair", [branch(body, name="x"), branch(body, name="y")]).add_node("rescue", body)
    inner.set_entry("pair").add_edge("pair", END).add_fallback("pair", "rescue").add_edge("rescue", END)
    run = Driven(fan(inner, body, body, max_concurrency=2))
    batch = run.fails("fan[0].pair[0]")
    assert (batch.cancels, started(batch)) == (("fan[0].pair[1]",), ["fan[0]", "fan[1]"])
    assert started(run.ends("fan[0]")) == ["fan[2]"]


def test_a_branch_that_goes_on_and_times_out_in_one_round_is_not_started() -> None:
    run = Driven(fan(branch(line("x", "y"), timeout=timedelta(microseconds=9)), body, on_error="collect"))
    batch = run.feed(run.answer("fan[0]"), BranchTimedOut("fan[0]"), now=9)
    assert started(batch) == []
    assert run.state.running == {"fan[1]"}


def test_an_answer_that_comes_after_its_branch_was_closed_counts_for_nothing() -> None:
    run = Driven(fan(body, body))
    late = run.answer("fan[1]", {"n": 1})
    run.fails("fan[0]")
    batch = run.feed(late)
    assert (batch.rows, run.state.root.values) == ([], {"log": []})


def test_steps_in_flight_are_spoken_for() -> None:
    run = Driven(fan(body, body, body), max_steps=3)
    assert (started(run.batch), run.walk.starved) == (["fan[0]", "fan[1]"], True)
    run.ends("fan[0]", "fan[1]")
    assert (run.state.step, run.walk.starved, run.state.running) == (3, True, set())
    run.take(run.walk.stop_at_limit(0))
    assert (run.state.status, len(run.state.scopes)) == ("limit_reached", 4)


def test_what_was_starved_starts_when_a_step_is_given_back() -> None:
    flow = Flow("fan", STATE).add_node("flaky", body, retry=Retry(attempts=2)).add_node("other", body)
    flow.add_parallel("fan", ["flaky", "other"]).set_entry("fan").add_edge("fan", END)
    run = Driven(flow, max_steps=2)
    assert started(run.batch) == ["fan[0]"]
    assert started(run.fails("fan[0]")) == ["fan[1]"]


def test_what_was_starved_is_forgotten_when_its_branch_is_closed() -> None:
    flow = fan(body, body, body).add_barrier("review").add_fallback("fan", "review").add_edge("review", END)
    run = Driven(flow, max_steps=3)
    batch = run.fails("fan[0]")
    assert (run.walk.starved, [record.ticket for record in batch.opened]) == (False, ["review#1"])


def test_capped_nodes_that_fall_back_to_one_another_go_on_for_as_long_as_there_are_steps() -> None:
    flow = Flow("pingpong", STATE).add_node("a", body, max_visits=1).add_node("b", body, max_visits=1).set_entry("a")
    flow.add_edge("a", "b").add_edge("b", "a").add_fallback("a", "b").add_fallback("b", "a")
    flow.add_edge("a", END, when=lambda state: False, name="never")
    run = Driven(flow, max_steps=5_000)
    run.ends("")
    run.ends("")
    assert (run.state.step, run.walk.starved, run.state.status) == (5_000, True, "running")


def test_a_branch_that_fails_as_it_opens_closes_those_that_have_not_opened_yet() -> None:
    broken = Flow("broken").add_barrier("review", prompt="{n:%Q}", show=["n"]).set_entry("review").add_edge("review", END)
    nested = Flow("nested").add_parallel("pair", [branch(body, name="x")]).set_entry("pair").add_edge("pair", END)
    run = Driven(fan(broken, body, nested))
    assert (run.state.status, started(run.batch), run.state.running) == ("failed", [], set())


def test_a_run_begun_from_its_rows_starts_what_was_in_flight_and_nothing_that_was_committed() -> None:
    run = Driven(fan(line("x", "y"), body, body))
    run.ends("fan[1]")
    other = run.again()
    assert started(other.batch) == ["fan[0]", "fan[2]"]
    assert other.batch.rows == []


@pytest.mark.parametrize("upto", range(1, 9))
def test_a_run_begun_within_a_batch_finishes_what_the_batch_had_begun(upto: int) -> None:
    def drive(run: Driven) -> Driven:
        while run.state.running:
            for path in sorted(run.state.running):
                run.ends(path, log=[path])
        return run

    whole = drive(Driven(fan(line("x", "y"), fan_inside(), body)))
    part = drive(whole.again(upto))
    assert (part.state.status, part.state.step) == ("completed", whole.state.step)
    assert encode(part.state.root.values) == encode(whole.state.root.values)


def fan_inside() -> Flow:
    return Flow("inside").add_parallel("pair", [branch(body, name="u"), branch(body, name="v")]).set_entry("pair").add_edge("pair", END)


def test_a_failure_committed_without_its_join_is_joined_by_whoever_begins_there() -> None:
    flow = fan(body, body).add_node("rescue", body).add_fallback("fan", "rescue").add_edge("rescue", END)
    run = Driven(flow)
    run.fails("fan[0]")
    assert [row.kind for row in run.rows] == ["start", "parallel", "failure", "fallback"]
    other = run.again(upto=3)
    assert ([row.kind for row in other.batch.rows], started(other.batch)) == (["fallback"], [""])


def test_a_value_that_cannot_be_stored_fails_the_node_in_the_same_round() -> None:
    run = Driven(Flow("f", {"any": Any}).add_node("a", body).set_entry("a").add_edge("a", END))
    run.ends("", any=object())
    assert [row.kind for row in run.rows] == ["start", "failure"]
    assert (run.state.status, run.state.step) == ("failed", 1)
