"""What a person writes compiles to what the walk reads."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from datetime import timedelta
from typing import Annotated, Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from engine.conditions import approved, rejected
from engine.errors import FlowError, FlowValidationError
from engine.flow import Flow, best_effort, branch
from engine.graph import FlowGraph
from engine.plan import END, OnError, Retry
from reducers import append


class Invoice(BaseModel):
    vendor: str
    amount: float
    risk: float = 0.0
    notes: Annotated[list[str], append] = []


class AmountForm(BaseModel):
    amount: float = Field(ge=0)


class BankDownError(Exception):
    pass


def low_risk(state: Invoice) -> bool:
    return state.risk < 0.5


async def sanctions(state: Invoice) -> dict[str, Any]:
    return {"notes": ["not listed"]}


def budget(state: Invoice) -> dict[str, Any]:
    return {"notes": ["within budget"]}


async def duplicates() -> None:
    """Look for the same invoice."""


def invoice_flow() -> Flow:
    flow = Flow("invoice", Invoice)

    @flow.node
    async def extract(state: Invoice) -> dict[str, Any]:
        return {"notes": [f"read invoice of {state.vendor}"]}

    @flow.node(retry=Retry(attempts=3), timeout=timedelta(seconds=30))
    async def pay(state: Invoice, ctx: Any) -> dict[str, Any]:
        return {"notes": ["paid"]}

    @flow.node
    def notify(state: Invoice) -> None:
        """Tell the vendor."""

    @flow.node
    def queue_for_later(state: Invoice) -> None: ...

    flow.add_parallel("checks", [sanctions, budget, duplicates], on_error="fail_fast", max_concurrency=8)
    flow.add_barrier(
        "manager_approval", prompt="Pay {vendor} {amount}?", show=["vendor", "amount"],
        approvers={"finance"}, quorum=1, timeout=timedelta(days=2), on_timeout="reject",
    )  # fmt: skip
    flow.set_entry("extract")
    flow.add_edge("extract", "checks")
    flow.add_edge("checks", "pay", when=low_risk)
    flow.add_edge("checks", "manager_approval")
    flow.add_edge("manager_approval", "pay", when=approved)
    flow.add_edge("manager_approval", "notify")
    flow.add_fallback("pay", "queue_for_later", on=(BankDownError, TimeoutError))
    flow.add_edge("pay", END)
    flow.add_edge(notify, END)
    flow.add_edge(queue_for_later, END)
    return flow


def line(*names: str, **options: Any) -> Flow:
    """A flow whose nodes follow each other."""
    flow = Flow("line", options.pop("state", {"n": int}), **options)
    for name in names:
        flow.add_node(name, lambda state: None)
    flow.set_entry(names[0])
    for source, target in zip(names, (*names[1:], END), strict=True):
        flow.add_edge(source, target)
    return flow


# --- the whole ------------------------------------------------------------------------------------------------------
def test_the_invoice_flow_compiles_without_a_warning() -> None:
    graph = invoice_flow().compile()
    assert isinstance(graph, FlowGraph)
    assert (graph.name, graph.version, graph.plan.entry) == ("invoice", "1", "extract")
    assert graph.warnings == ()


def test_every_node_becomes_a_plan_with_its_ways_out() -> None:
    nodes = invoice_flow().compile().plan.nodes
    assert {name: node.kind for name, node in nodes.items()} == {
        "extract": "task", "pay": "task", "notify": "task", "queue_for_later": "task", "checks": "parallel", "manager_approval": "barrier",
    }  # fmt: skip
    assert [edge.target for edge in nodes["checks"].conditional] == ["pay"]
    assert nodes["checks"].normal is not None
    assert nodes["checks"].normal.target == "manager_approval"
    assert [(edge.target, edge.on) for edge in nodes["pay"].fallbacks] == [("queue_for_later", (BankDownError, TimeoutError))]
    assert [edge.target for edge in nodes["pay"].edges()] == [END, "queue_for_later"]


def test_a_task_plan_says_how_its_function_is_called() -> None:
    nodes = invoice_flow().compile().plan.nodes
    assert (nodes["pay"].takes, nodes["pay"].is_async, nodes["pay"].retry, nodes["pay"].timeout) == (
        "state_context", True, Retry(attempts=3), timedelta(seconds=30),
    )  # fmt: skip
    assert (nodes["notify"].takes, nodes["notify"].is_async) == ("state", False)


def test_a_barrier_plan_holds_what_people_are_asked() -> None:
    barrier = invoice_flow().compile().plan.nodes["manager_approval"].barrier
    assert barrier is not None
    assert (barrier.prompt, barrier.show, barrier.approvers, barrier.quorum) == (
        "Pay {vendor} {amount}?",
        ("vendor", "amount"),
        ("finance",),
        1,
    )
    assert (barrier.timeout, barrier.on_timeout, barrier.on_reject, barrier.early) == (timedelta(days=2), "reject", "route", True)
    assert (barrier.form, barrier.edit_keys) == (None, ())


def test_conditions_say_whether_they_want_the_outcome() -> None:
    nodes = invoice_flow().compile().plan.nodes
    assert nodes["checks"].conditional[0].when_wants_outcome is False
    assert nodes["manager_approval"].conditional[0].when_wants_outcome is True


def test_each_branch_is_a_whole_plan_reachable_by_path() -> None:
    plan = invoice_flow().compile().plan
    parallel = plan.nodes["checks"].opens
    assert parallel is not None
    assert [(one.name, one.index) for one in parallel.branches] == [("sanctions", 0), ("budget", 1), ("duplicates", 2)]
    assert (parallel.max_concurrency, parallel.on_error) == (8, OnError("fail_fast"))
    assert plan.at("checks#2[1]").nodes["budget"].normal.target == END  # type: ignore[union-attr]
    assert plan.at("checks[2]").nodes["duplicates"].takes == "nothing"
    assert plan.at("checks[1]").schema is plan.schema


# --- the graph ------------------------------------------------------------------------------------------------------
def test_the_networkx_graph_has_every_node_and_edge_with_its_kind() -> None:
    graph = invoice_flow().compile().nx
    assert isinstance(graph, nx.MultiDiGraph)
    assert graph.nodes["checks"]["kind"] == "parallel"
    assert graph.nodes[END]["kind"] == "end"
    assert sorted(data["kind"] for _, _, data in graph.out_edges("checks", data=True)) == ["conditional", "normal"]
    (waiting,) = (data for _, target, data in graph.out_edges("checks", data=True) if target == "pay")
    assert (waiting["condition"], waiting["order"]) == ("low_risk", 0)
    assert set(graph.nodes["checks"]["branches"]) == {"sanctions", "budget", "duplicates"}


def test_the_networkx_graph_cannot_be_changed() -> None:
    graph = invoice_flow().compile().nx
    for frozen in (graph, graph.nodes["checks"]["branches"]["budget"]):
        with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
            frozen.add_node("more")


def test_two_edges_between_the_same_nodes_both_stand_in_the_graph() -> None:
    flow = line("a", "b")
    flow.add_edge("a", "b", when=low_risk)
    assert flow.compile().nx.number_of_edges("a", "b") == 2


def test_changing_the_flow_does_not_change_a_compiled_graph() -> None:
    flow = line("a", "b")
    graph = flow.compile()
    before = (graph.graph_hash, graph.definition, len(graph.plan.nodes), len(graph.nx))
    flow.add_node("c", lambda state: None)
    flow.add_edge("b", "c", when=low_risk)
    flow.add_edge("c", END)
    assert (graph.graph_hash, graph.definition, len(graph.plan.nodes), len(graph.nx)) == before
    assert flow.compile().graph_hash != graph.graph_hash


def test_the_plan_and_the_definition_cannot_be_changed_from_outside() -> None:
    graph = line("a").compile()
    with pytest.raises(TypeError):
        graph.plan.nodes["b"] = graph.plan.nodes["a"]  # type: ignore[index]
    graph.definition["nodes"].clear()
    assert list(graph.definition["nodes"]) == ["a"]


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(-2, 2)), max_size=8),
)
def test_compiling_twice_gives_the_same_graph(names: list[str], more: list[tuple[int, int, int]]) -> None:
    def built() -> FlowGraph:
        flow = line(*names)
        for index, (source, target, priority) in enumerate(more):
            flow.add_edge(
                names[source % len(names)],
                names[target % len(names)],
                when=lambda state: True,
                name=f"condition {index}",
                priority=priority,
            )
        return flow.compile()

    first, second = built(), built()
    assert first.graph_hash == second.graph_hash
    assert first.definition_text == second.definition_text
    assert json.loads(first.definition_text) == first.definition
    assert first.warnings == second.warnings


def test_compiling_calls_none_of_the_authors_functions() -> None:
    def trap(*arguments: Any) -> Any:
        raise AssertionError("called")

    flow = Flow("traps", {"n": int})
    flow.add_node("a", trap)
    flow.add_parallel("p", {"one": trap})
    flow.set_entry("a")
    flow.add_edge("a", "p", when=trap)
    flow.add_edge("a", END)
    flow.add_edge("p", END)
    assert flow.compile().plan.entry == "a"


def test_declaring_a_flow_loads_no_networkx() -> None:
    code = "import sys, engine.flow; sys.exit('networkx' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- nodes ----------------------------------------------------------------------------------------------------------
def test_a_decorated_function_stays_what_it_is() -> None:
    flow = Flow("f", {"n": int})

    def work(state: Any) -> None: ...

    assert flow.node(work) is work
    assert flow.node(name="again")(work) is work
    assert [node.name for node in flow.declaration().nodes] == ["work", "again"]


class Callable:
    async def __call__(self, state: Any, ctx: Any) -> None: ...


class Plain:
    def method(self, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("fn", "takes", "is_async"),
    [
        (lambda: None, "nothing", False),
        (lambda state: None, "state", False),
        (lambda state, ctx: None, "state_context", False),
        (lambda state, ctx=None: None, "state_context", False),
        (lambda state, limit=3: None, "state", False),
        (lambda *everything: None, "state", False),
        (functools.partial(lambda state, limit: None, limit=3), "state", False),
        (functools.partial(sanctions), "state", True),
        (functools.partial(lambda limit, state, ctx: None, 3), "state_context", False),
        (Callable(), "state_context", True),
        (Plain().method, "state", False),
    ],
)
def test_a_node_may_be_anything_that_can_be_called(fn: Any, takes: str, is_async: bool) -> None:
    flow = Flow("f", {"n": int}).add_node("a", fn).set_entry("a").add_edge("a", END)
    node = flow.compile().plan.nodes["a"]
    assert (node.takes, node.is_async) == (takes, is_async)


def test_edges_may_name_functions_instead_of_nodes() -> None:
    flow = Flow("f", {"n": int})

    @flow.node
    def first(state: Any) -> None: ...

    @flow.node(name="the second")
    def second(state: Any) -> None: ...

    flow.set_entry(first)
    flow.add_edge(first, second)
    flow.add_edge(second, END)
    plan = flow.compile().plan
    assert (plan.entry, plan.nodes["first"].normal.target) == ("first", "the second")  # type: ignore[union-attr]


def test_conditions_are_asked_by_priority_and_then_as_declared() -> None:
    flow = line("a", "b")
    for name, priority in (("late", 5), ("first", 0), ("second", 0), ("early", -1)):
        flow.add_edge("a", "b", when=lambda state: True, name=name, priority=priority)
    assert [edge.name for edge in flow.compile().plan.nodes["a"].conditional] == ["early", "first", "second", "late"]


def test_a_flow_needs_no_state_of_its_own_to_have_none() -> None:
    assert dict(line("a", state={}).compile().plan.schema.keys) == {}


# --- parallel -------------------------------------------------------------------------------------------------------
def parallel_flow(branches: Any, **options: Any) -> Flow:
    flow = Flow("parent", Invoice)
    flow.add_parallel("p", branches, **options)
    return flow.set_entry("p").add_edge("p", END)


def branches_of(flow: Flow) -> list[Any]:
    parallel = flow.compile().plan.nodes["p"].opens
    assert parallel is not None
    return list(parallel.branches)


def test_branches_may_be_named() -> None:
    assert [(one.name, one.plan.entry) for one in branches_of(parallel_flow({"law": sanctions, "money": budget}))] == [
        ("law", "law"), ("money", "money"),
    ]  # fmt: skip


def test_a_lambda_becomes_a_branch_by_the_name_it_is_given() -> None:
    (one,) = branches_of(parallel_flow({"quick": lambda state: None}))
    assert (one.name, list(one.plan.nodes)) == ("quick", ["quick"])


def test_a_function_that_is_a_node_keeps_its_options_under_the_name_of_its_branch() -> None:
    flow = Flow("parent", Invoice)
    flow.add_node("again", budget, retry=Retry(attempts=7))
    flow.add_parallel("p", {"money": budget})
    flow.set_entry("p").add_edge("p", END)
    plan = flow.compile().plan
    assert list(plan.nodes) == ["p"]
    assert plan.at("p[0]").nodes["money"].retry == Retry(attempts=7)


def test_a_branch_may_have_options_of_its_own() -> None:
    quick, slow = branches_of(
        parallel_flow(
            [branch(sanctions, retry=Retry(attempts=5), timeout=timedelta(seconds=1)), branch(budget, name="money")],
            branch_timeout=timedelta(seconds=9),
        )
    )
    assert (quick.timeout, quick.plan.nodes["sanctions"].retry) == (timedelta(seconds=1), Retry(attempts=5))
    assert (slow.name, slow.timeout) == ("money", timedelta(seconds=9))


def test_options_of_a_function_cannot_be_given_to_a_flow() -> None:
    with pytest.raises(FlowError, match="are for functions"):
        branch(Flow("inner"), retry=Retry())


def test_a_declared_node_serves_as_a_branch_with_its_options_and_leaves_the_root() -> None:
    for by_name in (False, True):
        flow = Flow("parent", Invoice)

        @flow.node(retry=Retry(attempts=7))
        def checked(state: Any) -> None: ...

        flow.add_barrier("review", approvers=["ana"])
        flow.add_parallel("p", ["checked" if by_name else checked, "review"])
        flow.set_entry("p").add_edge("p", END)
        plan = flow.compile().plan
        assert list(plan.nodes) == ["p"]
        assert plan.at("p[0]").nodes["checked"].retry == Retry(attempts=7)
        assert plan.at("p[1]").nodes["review"].kind == "barrier"


def test_a_declared_node_on_an_edge_stays_in_the_root_too() -> None:
    flow = Flow("parent", Invoice)
    flow.add_node("again", budget)
    flow.add_parallel("p", ["again"])
    flow.set_entry("p").add_edge("p", "again").add_edge("again", END)
    assert sorted(flow.compile().plan.nodes) == ["again", "p"]


def test_a_parallel_node_may_be_a_branch_of_another() -> None:
    flow = Flow("parent", Invoice)
    flow.add_node("deep", budget)
    flow.add_parallel("inner", ["deep", sanctions])
    flow.add_parallel("p", ["inner", duplicates])
    plan = flow.set_entry("p").add_edge("p", END).compile().plan
    assert list(plan.nodes) == ["p"]
    assert list(plan.at("p[0].inner#3[0]").nodes) == ["deep"]


class Review(BaseModel):
    notes: Annotated[list[str], append] = []


def review_flow(state: Any = None) -> Flow:
    flow = Flow("review", state, version="7")
    flow.add_node("read", budget)
    flow.add_barrier("sign", approvers=["ben"], early=False)
    return flow.set_entry("read").add_edge("read", "sign").add_edge("sign", END)


def test_a_flow_may_be_a_branch_and_take_its_parents_state() -> None:
    flow = parallel_flow([review_flow()])
    plan = flow.compile().plan
    assert (plan.at("p[0]").flow, plan.at("p[0]").version, plan.at("p[0]").entry) == ("review", "7", "read")
    assert plan.at("p[0]").schema is plan.schema


def test_a_flow_with_a_state_of_its_own_sees_its_own_class() -> None:
    plan = parallel_flow([review_flow(Review)]).compile().plan
    assert plan.at("p[0]").schema.model is Review
    assert list(plan.at("p[0]").schema.keys) == ["notes"]


def test_the_same_flow_may_be_two_branches() -> None:
    inner = review_flow()
    assert [one.name for one in branches_of(parallel_flow({"one": inner, "two": inner}))] == ["one", "two"]


def test_best_effort_says_how_many_and_where_failures_go() -> None:
    flow = parallel_flow([sanctions, budget], on_error=best_effort(min_success=1, failures_to="notes"))
    parallel = flow.compile().plan.nodes["p"].opens
    assert parallel is not None
    assert parallel.on_error == OnError("best_effort", 1, "notes")


# --- barriers -------------------------------------------------------------------------------------------------------
def barrier_flow(**options: Any) -> Flow:
    flow = Flow("f", Invoice)
    flow.add_barrier("b", **options)
    return flow.set_entry("b")


def is_anything(state: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("options", "condition", "expected"),
    [
        ({}, None, "fail"),
        ({"on_reject": "continue"}, None, "continue"),
        ({}, approved, "route"),
        ({}, is_anything, "fail"),  # it looks at the state alone: nothing here speaks of a rejection
        ({"on_reject": "fail"}, rejected, "fail"),
        ({"on_reject": "route"}, rejected, "route"),
    ],
)
def test_what_a_rejection_does_follows_from_the_edges_unless_it_is_said(options: Any, condition: Any, expected: str) -> None:
    flow = barrier_flow(**options).add_edge("b", END)
    if condition is not None:
        flow.add_edge("b", END, when=condition)
    barrier = flow.compile().plan.nodes["b"].barrier
    assert barrier is not None
    assert barrier.on_reject == expected


def test_a_form_of_state_keys_becomes_a_schema_of_their_types() -> None:
    barrier = barrier_flow(form=["amount", "notes"]).add_edge("b", END).compile().plan.nodes["b"].barrier
    assert barrier is not None
    assert barrier.form == {
        "type": "object",
        "properties": {"amount": {"type": "number"}, "notes": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
    }
    assert (barrier.edit_keys, barrier.form_model) == (("amount", "notes"), None)


def test_a_form_model_becomes_its_schema() -> None:
    barrier = barrier_flow(form=AmountForm).add_edge("b", END).compile().plan.nodes["b"].barrier
    assert barrier is not None
    assert barrier.form is not None
    assert barrier.form["properties"]["amount"]["minimum"] == 0
    assert (barrier.edit_keys, barrier.form_model) == (("amount",), AmountForm)


# --- definition -----------------------------------------------------------------------------------------------------
def test_the_definition_lists_every_barrier_with_who_may_decide() -> None:
    flow = parallel_flow({"one": review_flow(), "two": review_flow()})
    flow.add_barrier("last", approvers=["ana", "ben"], quorum=2)
    flow.add_edge("p", "last", when=low_risk)
    flow.add_edge("last", END)
    assert flow.compile().definition["barriers"] == {
        "last": {"approvers": ["ana", "ben"], "early": True, "quorum": 2},
        "sign": {"approvers": ["ben"], "early": False, "quorum": 1},
    }


def test_barriers_of_one_name_are_merged() -> None:
    def inner(name: str, **options: Any) -> Flow:
        return Flow(name).add_barrier("sign", **options).set_entry("sign").add_edge("sign", END)

    named = parallel_flow([inner("x", approvers=["ana"]), inner("y", approvers=["ben"], early=False)])
    assert named.compile().definition["barriers"] == {"sign": {"approvers": ["ana", "ben"], "early": False, "quorum": 1}}
    anybody = parallel_flow([inner("x", approvers=["ana"], quorum=2), inner("y")])
    assert anybody.compile().definition["barriers"] == {"sign": {"approvers": [], "early": True, "quorum": 2}}


def test_the_definition_names_reducers_by_key_and_says_an_inherited_state_once() -> None:
    definition = parallel_flow({"inherited": review_flow(), "own": review_flow(Review)}).compile().definition
    assert definition["keys"] == {"vendor": "error", "amount": "error", "risk": "error", "notes": "append"}
    inherited, own = definition["nodes"]["p"]["branches"]
    assert "keys" not in inherited
    assert own["keys"] == {"notes": "append"}


def test_no_import_path_stands_in_the_definition() -> None:
    text = invoice_flow().compile().definition_text
    assert __name__ not in text
    assert "tests" not in text
    assert "engine." not in text


def test_a_description_is_the_one_given_or_the_first_line_of_the_docstring() -> None:
    flow = line("a")
    flow.add_node("b", duplicates)
    flow.add_node("c", duplicates, description="Third.")
    for name in "bc":
        flow.add_edge("a", name, when=low_risk)
        flow.add_edge(name, END)
    nodes = flow.compile().definition["nodes"]
    assert [nodes[name]["description"] for name in "abc"] == ["", "Look for the same invoice.", "Third."]


def test_a_flow_can_be_described_in_lines() -> None:
    told = invoice_flow().compile().describe()
    assert "flow invoice (version 1)" in told
    assert "-> pay when low_risk" in told
    assert "-> queue_for_later on BankDownError or TimeoutError" in told
    assert "branch sanctions" in told
    assert "Tell the vendor." in told


def test_all_problems_come_in_one_error_that_names_the_flow() -> None:
    with pytest.raises(FlowValidationError, match="flow 'bare' has 2 problem"):
        Flow("bare").compile()
