"""The shape of a flow as data, and what is said of keys that are read before they are written."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from engine.errors import FlowValidationError
from engine.flow import Flow, best_effort, branch
from engine.middleware import RateLimit
from engine.plan import END
from engine.topology import topology_of


def work(state: Any) -> None: ...


def yes(state: Any) -> bool:
    return True


def shaped() -> Flow:
    inner = Flow("inner").add_node("x", work).add_node("y", work).set_entry("x").add_edge("x", "y").add_edge("y", END)
    flow = Flow("shape", {"n": int}, middleware=[RateLimit(3, timedelta(seconds=1))])
    flow.add_node("draft", work).add_node("review", work).add_node("ship", work).add_parallel("checks", {"one": work, "two": inner})
    flow.set_entry("draft").add_edge("draft", "review").add_edge("review", "draft", when=yes).add_edge("review", "checks")
    return flow.add_edge("checks", "ship").add_edge("ship", "ship", when=yes).add_edge("ship", END).add_fallback("checks", "ship")


def test_the_shape_of_a_flow_is_plain_data() -> None:
    found = shaped().compile().topology()
    assert json.loads(json.dumps(found)) == found
    assert {(node["path"], node["name"]): (node["kind"], node["depth"], node["fan_in"], node["fan_out"], node["cycle"]) for node in found["nodes"]} == {
        ("", "draft"): ("task", 0, 1, 1, 0),
        ("", "review"): ("task", 0, 1, 2, 0),
        ("", "checks"): ("parallel", 1, 1, 2, None),
        ("", "ship"): ("task", 2, 3, 2, 1),
        ("checks[0]", "one"): ("task", 0, 0, 1, None),
        ("checks[1]", "x"): ("task", 0, 0, 1, None),
        ("checks[1]", "y"): ("task", 1, 1, 1, None),
    }  # fmt: skip
    assert found["cycles"] == [{"path": "", "nodes": ["draft", "review"]}, {"path": "", "nodes": ["ship"]}]
    assert found["depth"] == 5, "draft and review as one, checks, x, y, ship"
    assert {"path": "", "from": "review", "to": "draft", "kind": "conditional", "when": "yes"} in found["edges"]
    assert [each["name"] for each in found["nodes"][0]["middleware"]] == ["rate_limit"]


def test_the_shape_of_a_stored_definition_is_that_of_its_graph() -> None:
    graph = shaped().compile()
    assert topology_of(json.loads(graph.definition_text)) == graph.topology()
    assert graph.topology()["graph_hash"] == graph.graph_hash


@given(edges=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14))
def test_fans_and_cycles_of_any_graph_are_those_networkx_finds(edges: set[tuple[int, int]]) -> None:
    names = [f"n{index}" for index in range(6)]
    made: dict[str, Any] = {"flow": "f", "version": "1", "entry": "n0", "nodes": {name: {"kind": "task"} for name in names}, "edges": []}
    made["edges"] = [{"from": f"n{a}", "to": f"n{b}", "kind": "conditional", "when": "c"} for a, b in sorted(edges)]
    found = topology_of(made)
    graph = nx.DiGraph((f"n{a}", f"n{b}") for a, b in edges)
    graph.add_nodes_from(names)
    knots = {frozenset(each) for each in nx.strongly_connected_components(graph) if len(each) > 1 or graph.has_edge(*(tuple(each) * 2))}
    assert {frozenset(each["nodes"]) for each in found["cycles"]} == knots
    for node in found["nodes"]:
        name = node["name"]
        assert (node["fan_in"], node["fan_out"]) == (graph.in_degree(name), graph.out_degree(name))
        assert (node["cycle"] is not None) == any(name in knot for knot in knots)
        assert (node["depth"] is not None) == (name in {"n0", *nx.descendants(graph, "n0")})
        for following in graph.successors(name) if node["depth"] is not None else ():
            behind = next(each for each in found["nodes"] if each["name"] == following)
            assert behind["depth"] > node["depth"] or (behind["cycle"] is not None and behind["cycle"] == node["cycle"])


# --- reads and writes -------------------------------------------------------------------------------------------------
class Order(BaseModel):
    vendor: str
    note: str = ""
    risk: float | None = None


OPEN = {"vendor": str, "risk": float, "score": int, "failures": list[Any]}


def reading(flow: Flow) -> list[tuple[str, str, str]]:
    return [(each.code, each.key, each.message.rpartition(": ")[2]) for each in flow.compile().warnings if each.code.startswith("read_")]


def test_a_key_that_nothing_has_written_by_then_is_a_warning_with_the_way() -> None:
    flow = (
        Flow("f", OPEN)
        .add_node("a", work, writes=["vendor"])
        .add_node("b", work, reads=["vendor", "risk"])
        .add_node("c", work, writes=["risk"])
    )
    flow.set_entry("a").add_edge("a", "b").add_edge("b", "c").add_edge("c", END)
    assert reading(flow) == [("read_before_write", "risk", "a -> b")]


def test_a_key_that_one_way_leaves_out_is_a_warning_with_that_way() -> None:
    flow = (
        Flow("f", OPEN).add_node("a", work, writes=[]).add_node("b", work, writes=["risk"]).add_node("c", work, reads=["risk"], writes=[])
    )
    flow.set_entry("a").add_edge("a", "b", when=yes).add_edge("a", "c").add_edge("b", "c").add_edge("c", END)
    assert reading(flow) == [("read_maybe_before_write", "risk", "a -> c")]


def test_what_a_failed_node_would_have_written_is_not_there_behind_its_fallback() -> None:
    flow = Flow("f", OPEN).add_node("a", work, writes=["risk"]).add_node("b", work, reads=["risk"], writes=[])
    flow.set_entry("a").add_edge("a", END).add_fallback("a", "b").add_edge("b", END)
    assert reading(flow) == [("read_maybe_before_write", "risk", "a -> b")]


def test_what_the_input_must_give_and_what_has_a_default_is_there_from_the_start() -> None:
    flow = Flow("f", Order).add_node("a", work, reads=["vendor", "note", "risk"]).set_entry("a").add_edge("a", END)
    assert reading(flow) == []


def test_a_node_that_does_not_tell_what_it_writes_may_have_written_anything() -> None:
    def told(state: Any) -> dict[str, Any]:
        return {"score": 1}

    def untold(state: Any) -> dict[str, Any]:
        return dict(state)

    for fn, warned in ((told, [("read_before_write", "risk", "a -> b")]), (untold, [])):
        flow = Flow("f", OPEN).add_node("a", fn).add_node("b", work, reads=["risk", "score"])
        flow.set_entry("a").add_edge("a", "b").add_edge("b", END)
        assert reading(flow) == warned


def test_a_cycle_is_followed_once_round() -> None:
    flow = Flow("f", OPEN).add_node("a", work, reads=["risk"], writes=[]).add_node("b", work, writes=["risk"])
    flow.set_entry("a").add_edge("a", "b").add_edge("b", "a", when=yes).add_edge("b", END)
    assert reading(flow) == [("read_maybe_before_write", "risk", "a")]


def test_branches_give_what_they_write_and_start_with_what_is_there() -> None:
    def flow_of(on_error: Any) -> Flow:
        flow = Flow("f", OPEN).add_node("a", work, writes=["vendor"]).add_node("z", work, reads=["risk", "failures"], writes=[])
        branches = [branch(work, name="one", reads=["vendor", "score"], writes=["risk"]), branch(work, name="two", writes=["score"])]
        flow.add_parallel("fan", branches, on_error=on_error)
        return flow.set_entry("a").add_edge("a", "fan").add_edge("fan", "z").add_edge("z", END)

    assert reading(flow_of("collect")) == [("read_before_write", "failures", "a -> fan -> z"), ("read_before_write", "score", "one")]
    lenient = reading(flow_of(best_effort(failures_to="failures")))
    assert lenient == [("read_maybe_before_write", "risk", "a -> fan -> z"), ("read_before_write", "score", "one")]


def test_a_read_of_an_undeclared_key_is_a_problem() -> None:
    flow = Flow("f", OPEN).add_node("a", work, reads=["colour"]).set_entry("a").add_edge("a", END)
    with pytest.raises(FlowValidationError, match="reads names 'colour', which is no key of the state"):
        flow.compile()
