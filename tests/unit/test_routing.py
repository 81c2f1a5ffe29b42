"""Which way leads on: conditional edges in order, then the normal one, then a fallback; caps; goto; who takes which error."""

from __future__ import annotations

from typing import Any

import pytest

from checkpoint_stores.fold import Scope
from engine.errors import (
    BranchError,
    ConditionError,
    FallbackRequested,
    GotoError,
    LoopLimitExceeded,
    NodeError,
    NodeTimeoutError,
    RejectedError,
    UnroutedError,
)
from engine.failures import BranchesFailedError, error_data, fallback_for
from engine.outcomes import Goto
from engine.plan import EdgePlan, NodePlan
from engine.routing import route, route_goto

ASKED: list[str] = []


def when(target: str, holds: Any, *, cap: int | None = None, name: str = "", outcome: bool = False) -> EdgePlan:
    def condition(*given: Any) -> Any:
        ASKED.append(target)
        if isinstance(holds, Exception):
            raise holds
        return holds(*given) if callable(holds) else holds

    return EdgePlan(target, "conditional", name or f"to_{target}", condition, outcome, max_visits=cap)


def normal(target: str, cap: int | None = None) -> EdgePlan:
    return EdgePlan(target, "normal", max_visits=cap)


def falls(target: str, *on: type[BaseException], cap: int | None = None) -> EdgePlan:
    return EdgePlan(target, "fallback", on=on, max_visits=cap)


def node(*edges: EdgePlan) -> NodePlan:
    return NodePlan(
        "n", "task", conditional=tuple(edge for edge in edges if edge.kind == "conditional"),
        normal=next((edge for edge in edges if edge.kind == "normal"), None), fallbacks=tuple(edge for edge in edges if edge.kind == "fallback"),
    )  # fmt: skip


def scope(**hops: int) -> Scope:
    made = Scope("", None, "n")
    made.hops = {f"n->{target}": count for target, count in hops.items()}
    return made


@pytest.mark.parametrize(
    ("edges", "hops", "target", "asked"),
    [
        ([when("a", True), when("b", True), normal("c")], {}, "a", ["a"]),
        ([when("a", False), when("b", True), normal("c")], {}, "b", ["a", "b"]),
        ([when("a", 0), when("b", []), normal("c")], {}, "c", ["a", "b"]),
        ([normal("c"), falls("f")], {}, "c", []),
        ([when("a", False), falls("f")], {}, "f", ["a"]),
        ([when("a", True, cap=2), normal("c")], {"a": 1}, "a", ["a"]),
        ([when("a", True, cap=2), normal("c"), falls("f")], {"a": 2}, "f", ["a"]),
        ([normal("c", cap=1), falls("f", LoopLimitExceeded)], {"c": 1}, "f", []),
        ([when("a", lambda state, outcome: outcome == "said", outcome=True), normal("c")], {}, "a", ["a"]),
        ([when("a", lambda state: state == "state"), normal("c")], {}, "a", ["a"]),
    ],
)
def test_the_way_on(edges: list[EdgePlan], hops: dict[str, int], target: str, asked: list[str]) -> None:
    ASKED.clear()
    assert route(node(*edges), scope(**hops), lambda: "state", "said").edge.target == target
    assert asked == ASKED


@pytest.mark.parametrize(
    ("edges", "hops", "error", "says"),
    [
        ([when("a", False), when("b", False)], {}, UnroutedError, "to_a -> a: False, to_b -> b: False"),
        ([when("a", False), falls("f", ValueError)], {}, UnroutedError, "to_a"),
        ([when("a", ZeroDivisionError("oh"))], {}, ConditionError, "to_a -> a of node 'n' raised ZeroDivisionError: oh"),
        ([when("a", True, cap=1), normal("c")], {"a": 1}, LoopLimitExceeded, "n->a may be taken once"),
        ([normal("c", cap=1), falls("f", cap=1)], {"c": 1, "f": 1}, LoopLimitExceeded, "n->f may be taken once"),
    ],
)
def test_no_way_on(edges: list[EdgePlan], hops: dict[str, int], error: type[NodeError], says: str) -> None:
    with pytest.raises(error, match=says):
        route(node(*edges), scope(**hops), lambda: "state", None)


def test_a_fallback_taken_for_want_of_another_way_tells_why() -> None:
    taken = route(node(when("a", False), falls("f")), scope(), lambda: None, None)
    assert taken.error is not None
    assert taken.error["type"] == "UnroutedError"


@pytest.mark.parametrize(
    ("edges", "goto", "found"),
    [
        ([when("a", True), normal("c")], Goto("c"), "c"),
        ([when("a", True), normal("c")], Goto("a"), "a"),
        ([when("a", False), normal("c")], Goto("a", force=True), "a"),
        ([when("a", False), normal("c")], Goto("a"), GotoError),
        ([when("a", False), when("a", True)], Goto("a"), "a"),
        ([normal("c"), falls("f")], Goto("f"), GotoError),
        ([normal("c")], Goto("nowhere"), GotoError),
        ([when("a", True, cap=1)], Goto("a"), LoopLimitExceeded),
        ([when("a", True, cap=1)], Goto("a", force=True), LoopLimitExceeded),
        ([when("a", OSError("x"))], Goto("a"), ConditionError),
    ],
)
def test_goto(edges: list[EdgePlan], goto: Goto, found: Any) -> None:
    hops = {"a": 1} if found is LoopLimitExceeded else {}
    if isinstance(found, str):
        assert route_goto(node(*edges), scope(**hops), goto, lambda: None).edge.target == found
    else:
        with pytest.raises(found):
            route_goto(node(*edges), scope(**hops), goto, lambda: None)


def in_branch(error: Exception) -> BranchError:
    return BranchError("fan", "", "b", error_data(error, "x", "fan[0]"))


def of_branches(*errors: Exception) -> BranchesFailedError:
    return BranchesFailedError("failed", [in_branch(error) for error in errors])


@pytest.mark.parametrize(
    ("error", "fallbacks", "taken"),
    [
        (ValueError(), [falls("f")], "f"),
        (ValueError(), [falls("k", KeyError), falls("v", ValueError), falls("f")], "v"),
        (ValueError(), [falls("k", KeyError, OSError)], None),
        (ValueError(), [], None),
        (UnicodeError(), [falls("v", ValueError)], "v"),
        (NodeTimeoutError("n", "", 1), [falls("t", TimeoutError)], "t"),
        (FallbackRequested("n", "", "tired"), [falls("v", ValueError), falls("f", FallbackRequested)], "f"),
        (LoopLimitExceeded("n", "", 1), [falls("l", LoopLimitExceeded)], "l"),
        (in_branch(ValueError()), [falls("k", KeyError), falls("v", ValueError)], "v"),
        (in_branch(in_branch(ValueError())), [falls("v", ValueError)], "v"),
        (of_branches(KeyError(), ValueError()), [falls("v", ValueError)], "v"),
        (of_branches(KeyError(), in_branch(ValueError())), [falls("v", ValueError)], "v"),
        (in_branch(ValueError()), [falls("b", BranchError)], "b"),
        (RejectedError("n", "", "ana", ""), [falls("f")], None),
        (RejectedError("n", "", "ana", ""), [falls("f", Exception, NodeError)], None),
        (RejectedError("n", "", "ana", ""), [falls("f"), falls("r", RejectedError)], "r"),
        (in_branch(RejectedError("n", "", "ana", "")), [falls("f"), falls("b", BranchError)], None),
        (in_branch(RejectedError("n", "", "ana", "")), [falls("r", RejectedError)], "r"),
        (of_branches(ValueError(), RejectedError("n", "", "ana", "")), [falls("f"), falls("v", ValueError)], None),
    ],
)
def test_which_fallback_takes_which_error(error: Exception, fallbacks: list[EdgePlan], taken: str | None) -> None:
    edge = fallback_for(fallbacks, error, error_data(error, "n", ""))
    assert (edge.target if edge else None) == taken


def test_an_error_as_data_is_bounded_and_always_text() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert len(error_data(ValueError("x" * 10_000), "n", "")["message"]) < 4_100
    assert error_data(ValueError("\ud800"), "n", "")["message"] == "\\ud800"
    assert "RuntimeError" in error_data(Odd(), "n", "")["message"]
