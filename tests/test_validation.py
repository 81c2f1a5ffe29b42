"""Every mistake in a flow is told before anything runs, all of them at once, and what is doubtful is a warning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from engine.conditions import approved
from engine.errors import FlowValidationError
from engine.flow import Flow, best_effort, branch
from engine.outcomes import Goto, Update
from engine.plan import END, Retry, Warn
from reducers import append, sum_


class State(BaseModel):
    n: int = 0
    notes: Annotated[list[str], append] = []


class ForeignForm(BaseModel):
    n: int
    colour: str


class Other(BaseModel):
    n: Annotated[int, sum_] = 0
    unknown: str = ""


def work(state: State) -> None: ...


def yes(state: State) -> bool:
    return True


async def later(state: State) -> bool:
    return True


def sound() -> Flow:
    """A flow without a problem: a -> b -> END."""
    flow = Flow("f", State)
    flow.add_node("a", work)
    flow.add_node("b", work)
    return flow.set_entry("a").add_edge("a", "b").add_edge("b", END)


def problems(flow: Flow) -> list[str]:
    try:
        flow.compile()
    except FlowValidationError as error:
        return list(error.problems)
    return []


def with_node(**options: Any) -> Flow:
    flow = sound().add_node("c", options.pop("fn", work), **options)
    return flow.add_edge("a", "c", when=yes).add_edge("c", END)


def with_barrier(**options: Any) -> Flow:
    flow = sound().add_barrier("c", **options)
    return flow.add_edge("a", "c", when=yes).add_edge("c", END)


def with_parallel(branches: Any, **options: Any) -> Flow:
    flow = sound().add_parallel("c", branches, **options)
    return flow.add_edge("a", "c", when=yes).add_edge("c", END)


def test_a_sound_flow_has_no_problem() -> None:
    assert problems(sound()) == []
    assert problems(with_node()) == problems(with_barrier()) == problems(with_parallel([work])) == []


NAMELESS = functools.partial(work)
GENERATOR = "its function is a generator, and nothing would run it; make it an async generator (its text is streamed) or return the update"
KEYS = "which is no key of the state; declared are: n, notes"

TABLE: list[tuple[str, Callable[[], Flow], list[str]]] = [
    # --- the flow
    ("no node", lambda: Flow("f", State), ["the flow has no node; declare one with @flow.node"]),
    (
        "no state",
        lambda: Flow("f").add_node("a", work).set_entry("a").add_edge("a", END),
        ["it declares no state; give a pydantic model, a TypedDict or a dict of annotations (an empty one for no keys)"],
    ),
    (
        "no entry",
        lambda: Flow("f", State).add_node("a", work).add_edge("a", END),
        ["no entry is set; call set_entry('a')"],
    ),
    ("unknown entry", lambda: Flow("f", State).add_node("a", work).add_edge("a", END).set_entry("z"), ["the entry 'z' is no node of the flow; its nodes are: a"]),
    ("entry set twice", lambda: sound().set_entry("b").set_entry("a"), ["the entry is set twice, to 'a' and to 'b'; keep one", "the entry is set twice, to 'b' and to 'a'; keep one"]),
    # --- names
    ("duplicate node", lambda: sound().add_node("a", work), ["node 'a' is declared 2 times; give each its own name"]),
    ("reserved name", lambda: with_named("__start__"), ["node '__start__' cannot have this name: names like __end__ are reserved"]),
    ("path characters", lambda: with_named("a.b[1]"), ["node 'a.b[1]' cannot have this name: it holds '[' and ']' and '.', which separate names in branch paths"]),
    ("an arrow", lambda: with_named("x->y"), ["node 'x->y' cannot have this name: it holds '->', which separate names in branch paths"]),
    ("blank name", lambda: with_named(" "), ["node ' ' cannot have this name: a name is a text that is not empty"]),
    (
        "nameless node",
        lambda: sound().add_node(None, NAMELESS),
        [f'a node that calls {NAMELESS!r} has no name of its own; give it one: add_node("name", ...)'],
    ),
    # --- edges
    ("unknown target", lambda: sound().add_edge("b", "z", when=yes), ["edge b -> z: 'z' is no node of the flow; its nodes are: a, b"]),
    ("unknown source", lambda: sound().add_edge("z", "b"), ["edge z -> b: 'z' is no node of the flow; its nodes are: a, b"]),
    ("edge from the end", lambda: sound().add_edge(END, "b"), ["edge __end__ -> b: nothing leaves the end"]),
    ("two normal edges", lambda: sound().add_edge("a", END), ["node 'a' has 2 edges without a condition: a -> b and a -> __end__; give all but one a when="]),
    ("self-fallback", lambda: sound().add_fallback("b", "b"), ["fallback b -> b: a node cannot be its own fallback; use retry=, or another node"]),
    ("fallback on no exception", lambda: sound().add_fallback("a", "b", on=[3]), ["fallback a -> b: on=3 is no exception class"]),  # type: ignore[list-item]
    ("unknown fallback", lambda: sound().add_fallback("b", "z"), ["fallback b -> z: 'z' is no node of the flow; its nodes are: a, b"]),
    ("edge cap of zero", lambda: sound().add_edge("a", "b", when=yes, max_visits=0), ["edge a -> b: max_visits=0 must be a whole number from 1"]),
    ("when is no function", lambda: sound().add_edge("a", "b", when="n > 3"), ["edge a -> b: when='n > 3' is no function of (state)"]),  # type: ignore[arg-type]
    ("async condition", lambda: sound().add_edge("a", "b", when=later), ["edge a -> b: condition later is async; conditions are plain functions, so await in a node and write a key"]),
    ("condition of three", lambda: sound().add_edge("a", "b", when=lambda a, b, c: True, name="odd"), ["edge a -> b: condition odd must take (state) or (state, outcome)"]),
    ("approved after a task", lambda: sound().add_edge("a", "b", when=approved), ["edge a -> b: approved asks for a decision, but 'a' is a task, not a barrier"]),
    # --- shape
    (
        "unreachable node",
        lambda: sound().add_node("c", work).add_edge("c", END),
        ["node 'c' cannot be reached from the entry 'a'; add an edge to it, or remove it"],
    ),
    (
        "no way to the end",
        lambda: sound().add_node("c", work).add_edge("a", "c", when=yes),
        ["node 'c' has no way to the end; add_edge('c', END), or an edge to a node that ends"],
    ),
    (
        "a closed circle",
        lambda: sound().add_node("c", work).add_node("d", work).add_edge("a", "c", when=yes).add_edge("c", "d").add_edge("d", "c"),
        [f"node '{name}' has no way to the end; add_edge('{name}', END), or an edge to a node that ends" for name in "cd"],
    ),
    # --- tasks
    ("not callable", lambda: with_node(fn=3), ["node 'c': 3 cannot be called; give a function"]),
    ("three parameters", lambda: with_node(fn=lambda a, b, c: None), ["node 'c': its function must take (state), (state, ctx) or nothing; bind other arguments with functools.partial"]),
    ("a required keyword", lambda: with_node(fn=required_keyword), ["node 'c': its function must take (state), (state, ctx) or nothing; bind other arguments with functools.partial"]),
    ("a lone ctx", lambda: with_node(fn=lambda ctx: None), ["node 'c': its function must take (state), (state, ctx) or nothing; bind other arguments with functools.partial"]),
    ("a generator", lambda: with_node(fn=generator), [f"node 'c': {GENERATOR}"]),
    ("timeout of nothing", lambda: with_node(timeout=timedelta(0)), [f"node 'c': timeout={timedelta(0)!r} must be longer than nothing"]),
    ("timeout in seconds", lambda: with_node(timeout=3), ["node 'c': timeout=3 must be a timedelta, e.g. timedelta(seconds=30)"]),
    ("no attempts", lambda: with_node(retry=Retry(attempts=0)), ["node 'c': retry: attempts=0 must be a whole number from 1"]),
    (
        "a retry with every mistake",
        lambda: with_node(retry=Retry(first=timedelta(seconds=-1), factor=0.5, jitter=2, on=("x",))),  # type: ignore[arg-type]
        [
            f"node 'c': retry: first={timedelta(seconds=-1)!r} must be longer than nothing",
            "node 'c': retry: factor=0.5 must be 1 or more",
            "node 'c': retry: jitter=2 must be from 0 to 1",
            "node 'c': retry: on='x' is no exception class",
        ],
    ),
    ("retry as a number", lambda: with_node(retry=3), ["node 'c': retry=3 must be a Retry, e.g. Retry(attempts=3)"]),
    ("visit cap of zero", lambda: with_node(max_visits=0), ["node 'c': max_visits=0 must be a whole number from 1"]),
    ("undeclared goto", lambda: with_node(goto=["b"]), ["node 'c': goto names 'b', but no edge leads there; add_edge('c', 'b', when=...)"]),
    ("writes an undeclared key", lambda: with_node(writes=["colour"]), [f"node 'c': writes names 'colour', {KEYS}"]),
    # --- barriers
    ("shows an undeclared key", lambda: with_barrier(show=["colour"]), [f"barrier 'c': show names 'colour', {KEYS}"]),
    ("prompts with what is not shown", lambda: with_barrier(prompt="{n} {n} {notes[0]}", show=["n"]), ["barrier 'c': its prompt names {notes[0]}, which is not shown; add 'notes' to show="]),
    ("a broken prompt", lambda: with_barrier(prompt="{n"), ["barrier 'c': its prompt is no str.format template (expected '}' before end of string); write {{ and }} for braces"]),
    ("a form of undeclared keys", lambda: with_barrier(form=["colour"]), [f"barrier 'c': form names 'colour', {KEYS}"]),
    ("a form model of undeclared keys", lambda: with_barrier(form=ForeignForm), [f"barrier 'c': form ForeignForm names 'colour', {KEYS}"]),
    ("a form that is none", lambda: with_barrier(form=3), ["barrier 'c': form=3 must be a pydantic model or a list of state keys"]),
    ("a form where several must agree", lambda: with_barrier(form=["n"], quorum=2), ["barrier 'c': a form and quorum=2 do not go together; where several must agree each may only approve or reject"]),
    ("no quorum", lambda: with_barrier(quorum=0), ["barrier 'c': quorum=0 must be a whole number from 1"]),
    ("a past deadline", lambda: with_barrier(timeout=timedelta(seconds=-1)), [f"barrier 'c': timeout={timedelta(seconds=-1)!r} must be longer than nothing"]),
    ("unknown on_timeout", lambda: with_barrier(timeout=timedelta(1), on_timeout="wait"), ["barrier 'c': on_timeout='wait' is none of approve, reject, skip, fail"]),
    ("on_timeout without one", lambda: with_barrier(on_timeout="skip"), ["barrier 'c': on_timeout='skip' never happens without a timeout; give timeout=timedelta(...)"]),
    ("unknown on_reject", lambda: with_barrier(on_reject="ask"), ["barrier 'c': on_reject='ask' is none of route, fail, continue"]),
    ("routes nowhere", lambda: with_barrier(on_reject="route"), ["barrier 'c': on_reject='route' needs an edge that says so; add_edge('c', ..., when=rejected)"]),
    ("a nameless approver", lambda: with_barrier(approvers=[""]), ["barrier 'c': approver '' must be a name"]),
    # --- parallel nodes
    ("no branches", lambda: with_parallel([]), ["node 'c' has no branches; give at least one"]),
    ("two branches of one name", lambda: with_parallel([work, work]), ["node 'c' has 2 branches named 'work'; name them: {'one': ..., 'two': ...} or branch(..., name=...)"]),
    ("a nameless branch", lambda: with_parallel([NAMELESS]), ["node 'c': its branch number 1 is a callable without a name of its own, and branches are told apart by their names; give it one: {\"name\": function, ...} or branch(function, name=\"...\")"]),
    ("an unknown branch", lambda: with_parallel(["z"]), ["node 'c' has the branch 'z', which is no node of the flow; give a function, a Flow, a node's name or branch(fn, name=...)"]),
    ("a branch of itself", lambda: with_parallel([work, "c"]), ["node 'c' has the branch 'c', which it stands in itself; nothing can be its own branch"]),
    ("unknown policy", lambda: with_parallel([work], on_error="ignore"), ["node 'c': on_error='ignore' is none of fail_fast, collect, best_effort"]),
    ("too many successes asked", lambda: with_parallel([work], on_error=best_effort(min_success=2)), ["node 'c': min_success=2 of 1 branches can never be met; choose 0 to 1"]),
    ("failures to nowhere", lambda: with_parallel([work], on_error=best_effort(failures_to="failures")), [f"node 'c': failures_to names 'failures', {KEYS}"]),
    ("no concurrency", lambda: with_parallel([work], max_concurrency=0), ["node 'c': max_concurrency=0 must be a whole number from 1"]),
    ("a branch without time", lambda: with_parallel([branch(work, timeout=timedelta(0))]), [f"node 'c': branch 'work': timeout={timedelta(0)!r} must be longer than nothing"]),
    (
        "a branch with another state",
        lambda: with_parallel([Flow("inner", Other).add_node("x", work).set_entry("x").add_edge("x", END)]),
        [
            "node 'c': branch 'inner' merges 'n' with sum, flow 'f' with error; declare the same reducer in both",
            "node 'c': branch 'inner' declares the key 'unknown', which flow 'f' does not; declare it there, too",
        ],
    ),
    (
        "a mistake in a branch",
        lambda: with_parallel({"one": Flow("inner").add_node("x", work).set_entry("x")}),
        ["branch 'one' of node 'c': node 'x' has no way to the end; add_edge('x', END), or an edge to a node that ends"],
    ),
    (
        "a mistake in a branch of a branch",
        lambda: with_parallel({"one": Flow("inner").add_parallel("y", {"two": lambda a, b, c: None}).set_entry("y").add_edge("y", END)}),
        ["branch 'one' of node 'c': branch 'two' of node 'y': node 'two': its function must take (state), (state, ctx) or nothing; bind other arguments with functools.partial"],
    ),
]  # fmt: skip


def with_named(name: str) -> Flow:
    return sound().add_node(name, work).add_edge("a", name, when=yes).add_edge(name, END)


def required_keyword(state: State, *, limit: int) -> None: ...


def generator(state: State) -> Any:
    yield 1


@pytest.mark.parametrize(("flow", "expected"), [pytest.param(flow, expected, id=name) for name, flow, expected in TABLE])
def test_a_mistake_is_told_in_a_sentence_that_names_it(flow: Callable[[], Flow], expected: list[str]) -> None:
    found = problems(flow())
    assert sorted(found) == sorted(expected) if len(expected) > 1 else found == expected


def test_a_flow_with_every_kind_of_mistake_tells_them_all_at_once() -> None:
    flow = sound()
    flow.add_node("c", lambda a, b, c: None, timeout=timedelta(0), max_visits=0)
    flow.add_barrier("d", show=["colour"], quorum=0)
    flow.add_edge("a", END)
    flow.add_fallback("c", "c")
    flow.add_edge("c", "nowhere")
    told = "\n".join(problems(flow))
    for part in (
        "must take (state)",
        "timeout=",
        "max_visits=0",
        "'colour'",
        "quorum=0",
        "2 edges without",
        "own fallback",
        "'nowhere'",
        "cannot be reached",
        "no way",
    ):
        assert part in told


def test_a_flow_cannot_run_inside_itself() -> None:
    flow = sound()
    flow.add_parallel("c", {"again": flow}).add_edge("a", "c", when=yes).add_edge("c", END)
    assert problems(flow) == ["node 'c' has the branch 'f', which it stands in itself; nothing can be its own branch"]


def test_two_flows_cannot_run_inside_each_other() -> None:
    first, second = Flow("first", State), Flow("second", State)
    for flow, other in ((first, second), (second, first)):
        flow.add_parallel("p", [other]).set_entry("p").add_edge("p", END)
    assert len(problems(first)) == 1
    assert "own branch" in problems(first)[0]


def test_an_ambiguous_function_in_an_edge_is_a_problem() -> None:
    flow = sound()
    assert "names the function work, which is node 'a' and node 'b'; name the node" in problems(flow.add_edge(work, END, when=yes))[0]


@pytest.mark.parametrize("state", [3, {"n": "no such type"}, {"n": Annotated[list[str], len]}])
def test_a_state_that_cannot_be_used_is_a_problem_like_any_other(state: Any) -> None:
    flow = Flow("f", state).add_node("a", work).set_entry("a")
    found = problems(flow)
    assert len(found) == 2
    assert found[0].startswith("its state cannot be used: ")
    assert "no way to the end" in found[1]


def test_two_classes_that_want_one_stored_name_are_a_problem() -> None:
    first, second = Enum("Clash", "A", module="one"), Enum("Clash", "B", module="two")
    flow = Flow("f", {"one": first, "two": second}).add_node("a", work).set_entry("a").add_edge("a", END)
    assert "Clash" in problems(flow)[0]


def test_a_node_that_says_it_may_end_needs_no_edge_to_the_end() -> None:
    flow = Flow("f", State).add_node("a", work, goto=[END]).set_entry("a").add_edge("a", "a")
    assert problems(flow) == []


def test_a_declared_goto_with_an_edge_is_no_problem() -> None:
    assert problems(with_node(goto=["b"]).add_edge("c", "b", when=yes)) == []


# --- warnings -------------------------------------------------------------------------------------------------------
def warned(flow: Flow) -> list[tuple[str, tuple[str, ...]]]:
    return [(warning.code, warning.nodes) for warning in flow.compile().warnings]


def test_a_self_loop_is_a_cycle_without_protection() -> None:
    assert warned(sound().add_edge("a", "a", when=yes)) == [("cycle", ("a",)), ("unprotected_cycle", ("a",))]


@pytest.mark.parametrize("where", ["node", "edge"])
def test_a_cap_on_a_node_or_an_edge_protects_a_cycle(where: str) -> None:
    flow = sound()
    flow.add_node("c", work, max_visits=3 if where == "node" else None)
    flow.add_edge("a", "c", when=yes)
    flow.add_edge("c", "a", max_visits=3 if where == "edge" else None)
    assert warned(flow) == [("cycle", ("a", "c"))]


def test_a_cap_that_leaves_another_circle_open_does_not_protect() -> None:
    flow = sound().add_node("c", work, max_visits=3).add_edge("a", "c", when=yes).add_edge("c", "a").add_edge("a", "a", when=rejected_free)
    assert ("unprotected_cycle", ("a", "c")) in warned(flow)


def rejected_free(state: State) -> bool:
    return False


def test_a_cycle_that_only_a_failure_leaves_is_told() -> None:
    flow = Flow("f", State).add_node("a", work).add_node("b", work).set_entry("a")
    flow.add_edge("a", "a").add_fallback("a", "b").add_edge("b", END)
    assert warned(flow) == [("cycle", ("a",)), ("unprotected_cycle", ("a",)), ("cycle_without_exit", ("a",))]


def test_a_fallback_that_closes_a_cycle_is_told() -> None:
    assert warned(sound().add_fallback("b", "a")) == [
        ("cycle", ("a", "b")), ("unprotected_cycle", ("a", "b")), ("fallback_in_cycle", ("a", "b")),
    ]  # fmt: skip


def test_a_node_with_conditions_only_may_be_a_dead_end() -> None:
    flow = Flow("f", State).add_node("a", work).set_entry("a").add_edge("a", END, when=yes)
    assert warned(flow) == [("dead_end", ("a",))]
    flow.add_fallback("a", END)
    assert warned(flow) == []


def test_a_node_with_a_fallback_only_may_be_a_dead_end() -> None:
    flow = Flow("f", State).add_node("a", work).set_entry("a").add_fallback("a", END)
    assert warned(flow) == [("dead_end", ("a",))]


def test_a_nameless_condition_is_told_and_a_named_one_is_not() -> None:
    assert warned(sound().add_edge("a", "b", when=lambda state: True)) == [("anonymous_condition", ("a", "b"))]
    assert warned(sound().add_edge("a", "b", when=lambda state: True, name="always")) == []


def writes_n(state: State) -> dict[str, Any]:
    if state.n:
        return {"notes": []}
    return {"n": 1}


async def writes_n_by_update(state: State) -> Update:
    return Update({"n": 2})


def writes_n_by_goto(state: State) -> Goto:
    return Goto("b", update={"n": 2})


def returns_n_inside(state: State) -> dict[str, Any]:
    def inner() -> dict[str, Any]:
        return {"n": 2}

    inner()
    return {"notes": []}


@pytest.mark.parametrize("other", [writes_n_by_update, writes_n_by_goto])
def test_branches_that_write_one_key_without_a_reducer_are_told(other: Any) -> None:
    (warning,) = with_parallel([writes_n, other]).compile().warnings
    assert isinstance(warning, Warn)
    assert (warning.code, warning.nodes, warning.key) == ("parallel_writers", ("c",), "n")
    assert f"writes_n, {other.__name__}" in warning.message


def test_declared_writes_count_more_than_what_the_source_shows() -> None:
    assert warned(with_parallel([branch(writes_n, writes=[]), writes_n_by_update])) == []
    assert warned(with_parallel([branch(work, writes=["n"]), writes_n])) == [("parallel_writers", ("c",))]


def test_an_inner_functions_return_is_not_the_nodes() -> None:
    assert warned(with_parallel([returns_n_inside, writes_n])) == []


def test_a_warning_inside_a_branch_says_where() -> None:
    inner = Flow("inner").add_node("x", work).set_entry("x").add_edge("x", END, when=yes)
    (warning,) = with_parallel([inner]).compile().warnings
    assert warning.message.startswith("branch 'inner' of node 'c': node 'x' has conditional edges only")
