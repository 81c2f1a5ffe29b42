"""What follows from what happened: one event in one state, one answer; no loop, no store, no clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import encode, pack
from checkpoint_stores.fold import RunState, fold
from checkpoint_stores.records import DecisionRecord
from engine.commands import CancelBelow, CancelBody, CloseBarrier, Consume, Fail, OpenBarrier, SetTimer, StartBody, Starve, Vote
from engine.conditions import approved
from engine.decide import decide
from engine.errors import RejectedError
from engine.events import (
    Arrived,
    BodyFailed,
    BodyReturned,
    BranchEnded,
    BranchTimedOut,
    CancelAsked,
    DeadlinePassed,
    Event,
    LimitReached,
    RetryDue,
    SuspendAsked,
    Voted,
)
from engine.flow import Flow, branch
from engine.leaving import NOTHING, Decision
from engine.outcomes import End, Fallback, Goto
from engine.plan import END, Retry
from engine.walk import Walk
from reducers.builtin import append

STATE = {"n": int, "log": Annotated[list[str], append]}


def nothing(state: Any) -> None:
    return None


def flow(**nodes: dict[str, Any]) -> Flow:
    """A flow of tasks that all end; more is added by the test."""
    made = Flow("deciding", STATE)
    for name, options in nodes.items():
        made.add_node(name, nothing, **options)
    return made


def more(state: Any) -> bool:
    return True


class Standing:
    """A run that stands somewhere, and what would follow."""

    def __init__(self, made: Flow, *, max_steps: int = 100, now: int = 1_000) -> None:
        self.plan = made.compile().plan
        self.now = now
        self.state = RunState("r")
        chain = Chain()
        payload, ops = pack([["set", "n", 0], ["attempt", 1, {"max_steps": max_steps}]])
        fold(self.state, chain.seal(b"", "r", 1, 1, 0, "start", "", "", self.plan.entry, payload, 0), ops)
        self.walk = Walk(self.plan, self.state, chain, 1)
        self.walk.begin(now)

    def asks(self, event: Event, after: timedelta = timedelta()) -> Decision:
        """Decide, and see that nothing changed by it."""
        before = encode(self.state.dump())
        answer = decide(self.plan, self.state, event, self.now + after // timedelta(microseconds=1))
        assert encode(self.state.dump()) == before
        return answer

    def does(self, *events: Event) -> Standing:
        self.walk.feed(list(events), self.now)
        return self

    def vote(self, action: str = "approve", actor: str = "ana", path: str = "", **more: Any) -> Voted:
        ticket = self.state.scopes[path].detail[0]
        record = DecisionRecord(f"{actor}'s", "r", ticket, action, actor, approves=action == "approve", decided_at=1, **more)  # type: ignore[arg-type]
        return Voted(path, ticket, (record,))


def returned(value: Any = None, node: str = "a", visit: int = 1, path: str = "") -> BodyReturned:
    return BodyReturned(path, node, visit, value, 5)


def failed(error: Exception, node: str = "a", visit: int = 1, path: str = "") -> BodyFailed:
    return BodyFailed(path, node, visit, error, 5)


def chain_of_two(**a: Any) -> Flow:
    return flow(a=a, b={}).set_entry("a").add_edge("a", "b").add_edge("b", END)


def reviewing(**settings: Any) -> Flow:
    made = flow(a={}, b={}).add_barrier("review", **settings).set_entry("review")
    return made.add_edge("review", "a").add_edge("a", END).add_fallback("a", "b").add_edge("b", END)


def fanning(*branches: Any, **options: Any) -> Flow:
    return (
        Flow("fanning", STATE)
        .add_parallel("fan", {f"b{n}": each for n, each in enumerate(branches)}, **options)
        .set_entry("fan")
        .add_edge("fan", END)
    )


# --- bodies -----------------------------------------------------------------------------------------------------------
def test_a_returned_body_makes_one_step_to_the_next_node() -> None:
    draft, then, commands = Standing(chain_of_two()).asks(returned({"log": ["x"]}))
    assert draft is not None
    assert (draft.kind, draft.node, draft.next, draft.ops, draft.entered, draft.started_at) == (
        "step",
        "a",
        "b",
        [["append", "log", ["x"]]],
        True,
        5,
    )
    assert (then, commands) == ((), (StartBody("", "b", 1, 0),))


def test_a_task_that_leads_to_itself_begins_its_next_visit() -> None:
    made = flow(a={}).set_entry("a").add_edge("a", "a", when=more).add_edge("a", END)
    assert Standing(made).asks(returned({})).commands == (StartBody("", "a", 2, 0),)


def test_what_may_be_refused_entry_is_asked_before_its_body_begins() -> None:
    made = flow(a={}, b={"max_visits": 1}).set_entry("a").add_edge("a", "b").add_edge("b", END)
    _draft, then, commands = Standing(made).asks(returned({}))
    assert (then, commands) == ((Arrived(""),), ())


def test_the_last_step_ends_the_run() -> None:
    draft, then, commands = Standing(flow(a={}).set_entry("a").add_edge("a", END)).asks(returned())
    assert draft is not None
    assert (draft.next, draft.ops, then, commands) == ("", [["done"], ["status", "completed"]], (), ())


@pytest.mark.parametrize(
    "late",
    [
        returned(node="b"),
        returned(visit=2),
        returned(path="fan[0]"),
        failed(ValueError(), visit=2),
        BranchTimedOut(""),
        BranchTimedOut("fan[0]"),
        BranchEnded(""),
        RetryDue(""),
        RetryDue("fan[0]"),
        Arrived("fan[0]"),
        DeadlinePassed("", "review#1"),
        Voted("", "review#1", ()),
    ],
)
def test_what_no_longer_fits_is_ignored(late: Event) -> None:
    assert Standing(chain_of_two()).asks(late) == NOTHING


@pytest.mark.parametrize(
    ("value", "kind", "error"),
    [
        ({"nobody": 1}, "failure", "UndeclaredKeyError"),
        ({"n": "x"}, "failure", "UpdateTypeError"),
        ({"log": "x"}, "failure", "UpdateTypeError"),
        (3, "failure", "ReturnTypeError"),
        (Goto("nowhere"), "failure", "GotoError"),
        (Fallback("tired"), "failure", "FallbackRequested"),
    ],
)
def test_an_answer_that_cannot_be_used_fails_the_node_and_merges_nothing(value: Any, kind: str, error: str) -> None:
    draft, _then, commands = Standing(chain_of_two()).asks(returned(value))
    assert draft is not None
    assert (draft.kind, draft.entered) == (kind, True)
    assert [op[0] for op in draft.ops] == ["fail", "status"]
    assert draft.ops[0][1]["type"] == error
    assert isinstance(commands[-1], Fail)


def test_a_fallback_keeps_the_update_where_there_is_one_to_take() -> None:
    made = flow(a={}, b={}).set_entry("a").add_edge("a", END).add_fallback("a", "b").add_edge("b", END)
    draft, then, commands = Standing(made).asks(returned(Fallback("tired", {"log": ["half"]})))
    assert draft is not None
    assert (draft.kind, draft.next, draft.ops[0]) == ("fallback", "b", ["append", "log", ["half"]])
    assert (draft.ops[1][0], draft.ops[1][1]["type"]) == ("error", "FallbackRequested")
    assert (then, commands) == ((), (StartBody("", "b", 1, 0),))


def test_end_ends_here_although_edges_lead_on() -> None:
    draft, _then, _commands = Standing(chain_of_two()).asks(returned(End({"n": 1})))
    assert draft is not None
    assert draft.ops == [["set", "n", 1], ["done"], ["status", "completed"]]


def test_a_failed_attempt_is_a_checkpoint_and_no_step() -> None:
    standing = Standing(chain_of_two(retry=Retry(attempts=2, first=timedelta(seconds=1), jitter=0)))
    draft, then, commands = standing.asks(failed(ValueError("x")))
    assert draft is not None
    assert (draft.kind, draft.entered, draft.ops[0][:3], then) == ("retry", False, ["retry", 1, 1_001_000], ())
    assert commands == (SetTimer(1_001_000, RetryDue("")),)
    standing.does(failed(ValueError("x")))
    assert standing.asks(RetryDue("")).commands == (StartBody("", "a", 1, 1),)
    draft, _then, commands = standing.asks(failed(KeyError("y")))
    assert draft is not None
    assert (draft.kind, draft.ops[0][1]["type"], type(commands[0])) == ("failure", "KeyError", Fail)


# --- arriving ---------------------------------------------------------------------------------------------------------
def test_arriving_at_a_task_starts_its_body_and_commits_nothing() -> None:
    assert Standing(chain_of_two()).asks(Arrived("")) == Decision(None, (), (StartBody("", "a", 1, 0),))


def test_a_node_that_was_entered_too_often_takes_its_fallback() -> None:
    made = flow(a={"max_visits": 2}, b={}).set_entry("a").add_edge("a", "a", when=lambda state: True, name="again")
    made.add_edge("a", END).add_fallback("a", "b").add_edge("b", END)
    standing = Standing(made).does(returned()).does(returned(visit=2))
    assert (standing.state.root.node, standing.state.root.error and standing.state.root.error["type"]) == ("b", "LoopLimitExceeded")


def test_a_fallback_edge_is_capped_like_any_other() -> None:
    made = flow(a={}, b={}).set_entry("a").add_edge("a", END).add_fallback("a", "b", max_visits=1).add_edge("b", "a")
    standing = Standing(made).does(failed(ValueError())).does(returned(node="b"))
    draft, _then, _commands = standing.asks(failed(ValueError(), visit=2))
    assert draft is not None
    assert (draft.kind, draft.ops[0][1]["type"]) == ("failure", "LoopLimitExceeded")


def test_a_parallel_node_opens_every_branch_at_its_entry() -> None:
    made = fanning(nothing, branch(nothing, timeout=timedelta(seconds=2)))
    standing = Standing(made, max_steps=1)
    draft = standing.state.scopes
    assert list(draft) == ["", "fan[0]", "fan[1]"]
    assert (standing.state.step, standing.state.scopes["fan[1]"].due, standing.state.scopes["fan[0]"].due) == (1, 2_001_000, None)
    assert standing.walk.starved


@pytest.mark.parametrize("made", [reviewing(), fanning(nothing)])
def test_without_a_step_left_neither_barrier_nor_branches_open(made: Flow) -> None:
    standing = Standing(made)
    assert standing.state.step == 1
    again = Standing(flow(a={}).add_barrier("review").set_entry("a").add_edge("a", "review").add_edge("review", END), max_steps=1)
    again.does(returned())
    assert again.asks(Arrived("")).commands == (Starve(""),)


def test_arriving_where_the_scope_already_waits_is_ignored() -> None:
    assert Standing(reviewing()).asks(Arrived("")) == NOTHING


# --- branches ---------------------------------------------------------------------------------------------------------
def ask_in_branch() -> Flow:
    return Flow("asks").add_barrier("review", timeout=timedelta(hours=1)).set_entry("review").add_edge("review", END)


def test_the_first_failure_closes_the_others_and_withdraws_their_tickets() -> None:
    standing = Standing(fanning(nothing, nothing, ask_in_branch()))
    assert standing.state.running == {"fan[0]", "fan[1]"}
    batch = standing.walk.feed([failed(ValueError(), node="b0", path="fan[0]")], standing.now)
    assert [row.kind for row in batch.rows] == ["failure", "failure"]
    assert (batch.closed, standing.state.status, list(standing.state.scopes)) == ((("fan[2].review#1", "withdrawn"),), "failed", [""])
    assert batch.cancels == ("fan[1]",)


@pytest.mark.parametrize(("policy", "kinds"), [("collect", ["failure"]), ("fail_fast", ["failure", "failure"])])
def test_collecting_waits_for_the_others(policy: Any, kinds: list[str]) -> None:
    standing = Standing(fanning(nothing, nothing, on_error=policy))
    batch = standing.walk.feed([failed(ValueError(), node="b0", path="fan[0]")], standing.now)
    assert [row.kind for row in batch.rows] == kinds


def test_a_branch_that_takes_too_long_fails_with_everything_in_it() -> None:
    inner = Flow("inner").add_parallel("pair", [branch(nothing, name="x"), branch(nothing, name="y"), branch(ask_in_branch(), name="z")])
    inner.set_entry("pair").add_edge("pair", END)
    standing = Standing(fanning(branch(inner, timeout=timedelta(seconds=1)), nothing, on_error="collect"))
    assert standing.asks(BranchTimedOut("fan[0]")) == NOTHING
    draft, then, commands = standing.asks(BranchTimedOut("fan[0]"), after=timedelta(seconds=1))
    assert draft is not None
    assert (draft.kind, draft.path, draft.entered, draft.ops[0], draft.ops[1][1]["type"]) == (
        "failure",
        "fan[0]",
        False,
        ["close"],
        "BranchTimeoutError",
    )
    assert then == (BranchEnded(""),)
    assert commands == (CancelBelow("fan[0]"), CloseBarrier("fan[0].pair[2].review#1", "withdrawn"), CancelBody("fan[0]"))


def test_a_join_is_one_checkpoint_with_the_branch_that_ended_last() -> None:
    standing = Standing(fanning(nothing, nothing))
    standing.does(returned({"log": ["1"]}, node="b1", path="fan[1]"))
    batch = standing.walk.feed([returned({"log": ["0"]}, node="b0", path="fan[0]")], standing.now)
    assert [row.kind for row in batch.rows] == ["step", "join"]
    assert (standing.state.root.values["log"], standing.state.status, standing.state.step) == (["0", "1"], "completed", 3)


# --- people -----------------------------------------------------------------------------------------------------------
def test_a_barrier_opens_a_ticket_and_sets_its_deadline() -> None:
    made = flow(a={}).add_barrier("review", timeout=timedelta(seconds=3)).set_entry("a").add_edge("a", "review").add_edge("review", END)
    standing = Standing(made)
    batch = standing.walk.feed([returned()], standing.now)
    assert [record.ticket for record in batch.opened] == ["review#1"]
    assert batch.timers == (SetTimer(3_001_000, DeadlinePassed("", "review#1")),)
    assert OpenBarrier(batch.opened[0]).record.deadline == 3_001_000


def test_a_vote_that_decides_leads_on_and_is_consumed_in_the_same_checkpoint() -> None:
    standing = Standing(reviewing())
    draft, then, commands = standing.asks(standing.vote())
    assert draft is not None
    assert (draft.kind, draft.next, draft.entered, [op[0] for op in draft.ops], then) == ("decision", "a", False, ["decision"], ())
    assert commands == (Consume("ana's"), CloseBarrier("review#1", "resolved"), StartBody("", "a", 1, 0))


def test_votes_below_the_quorum_decide_nothing() -> None:
    standing = Standing(reviewing(quorum=2))
    assert standing.asks(standing.vote()) == NOTHING
    assert standing.asks(standing.vote("reject")).draft is not None


@pytest.mark.parametrize(
    ("settings", "edge", "kind", "follows"),
    [
        ({}, None, "failure", ""),
        ({"on_reject": "fail"}, approved, "failure", ""),
        ({"on_reject": "continue"}, None, "decision", "a"),
        ({}, approved, "decision", "a"),
    ],
)
def test_where_a_rejection_leads(settings: Any, edge: Any, kind: str, follows: str) -> None:
    made = reviewing(**settings)
    if edge is not None:
        made.add_edge("review", "b", when=edge)
    standing = Standing(made)
    draft, _then, commands = standing.asks(standing.vote("reject"))
    assert draft is not None
    assert (draft.kind, draft.next) == (kind, follows)
    assert any(isinstance(command, Fail) and isinstance(command.error, RejectedError) for command in commands) == (kind == "failure")
    assert CloseBarrier("review#1", "resolved") in commands


def test_a_reroute_goes_where_it_says_whatever_the_condition() -> None:
    standing = Standing(reviewing().add_edge("review", "b", when=lambda state: False, name="never"))
    draft, _then, _commands = standing.asks(standing.vote("reroute", target="b"))
    assert draft is not None
    assert (draft.kind, draft.next) == ("decision", "b")


def test_a_modification_replaces_the_values_no_reducer_merges_them() -> None:
    standing = Standing(reviewing(form=["n", "log"], show=["n"]))
    draft, _then, _commands = standing.asks(standing.vote("modify", edits={"log": ["only this"], "n": 3}))
    assert draft is not None
    assert draft.ops[:2] == [["set", "n", 3], ["set", "log", ["only this"]]]


def test_edits_that_the_state_refuses_open_the_ticket_again_and_use_the_vote_up() -> None:
    standing = Standing(reviewing(form=["n"], show=["n"]))
    draft, then, commands = standing.asks(standing.vote("modify", edits={"n": "x"}))
    assert draft is not None
    assert (draft.kind, draft.entered, then) == ("decision_refused", False, ())
    assert commands == (Consume("ana's"), CloseBarrier("review#1", "open"))
    assert draft.ops[0][1]["message"].count("\n") == 0


@pytest.mark.parametrize(
    ("on_timeout", "kind", "status"),
    [
        ("approve", "decision", "resolved"),
        ("skip", "decision", "resolved"),
        ("reject", "failure", "resolved"),
        ("fail", "failure", "withdrawn"),
    ],
)
def test_a_deadline_makes_the_declared_default_and_signs_it_as_nobody(on_timeout: Any, kind: str, status: Any) -> None:
    standing = Standing(reviewing(timeout=timedelta(seconds=1), on_timeout=on_timeout))
    passed = DeadlinePassed("", "review#1")
    assert standing.asks(passed) == NOTHING
    draft, _then, commands = standing.asks(passed, after=timedelta(seconds=1))
    assert draft is not None
    assert draft.kind == kind
    assert CloseBarrier("review#1", status) in commands
    voted = [command.record for command in commands if isinstance(command, Vote)]
    assert [(record.actor, record.action) for record in voted] == ([] if on_timeout == "fail" else [("timeout", on_timeout)])


# --- the run as a whole -----------------------------------------------------------------------------------------------
def test_cancelling_withdraws_every_ticket_and_decides_nothing() -> None:
    standing = Standing(fanning(ask_in_branch(), nothing))
    draft, then, commands = standing.asks(CancelAsked("ana", "enough"))
    assert draft is not None
    assert (draft.kind, draft.ops[0], then) == ("cancelled", ["status", "cancelled"], ())
    assert draft.ops[1][2] == {"cancelled": {"actor": "ana", "reason": "enough"}}
    assert commands == (CancelBelow(""), CloseBarrier("fan[0].review#1", "withdrawn"))


def test_suspending_leaves_tickets_open_and_the_place_as_it_was() -> None:
    standing = Standing(fanning(ask_in_branch(), nothing))
    before = [(scope.path, scope.phase) for scope in standing.state.scopes.values()]
    batch = standing.walk.feed([SuspendAsked("maintenance")], standing.now)
    assert (batch.closed, batch.cancels, standing.state.status) == ((), ("fan[1]",), "suspended")
    assert [(scope.path, scope.phase) for scope in standing.state.scopes.values()] == before


def test_the_step_limit_is_a_status_and_no_failure() -> None:
    draft, then, commands = Standing(chain_of_two()).asks(LimitReached())
    assert draft is not None
    assert (draft.kind, draft.ops, then, commands) == ("limit", [["status", "limit_reached"]], (), ())
