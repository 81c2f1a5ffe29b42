"""The graph's hash changes with everything that decides how a run goes, and with nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from engine.conditions import approved, rejected
from engine.definition import difference, hash_of
from engine.flow import Flow, best_effort, branch
from engine.middleware import Bulkhead, CircuitBreaker, RateLimit, Timeout
from engine.plan import END, Retry
from reducers import append, reducer, replace


class State(BaseModel):
    n: int = 0
    description: str = ""
    notes: Annotated[list[str], append] = []


class OtherReducer(BaseModel):
    n: int = 0
    description: str = ""
    notes: Annotated[list[str], replace] = []


class DescriptionReducer(BaseModel):
    n: int = 0
    description: Annotated[str, replace] = ""
    notes: Annotated[list[str], append] = []


class OtherType(BaseModel):
    n: int | None = 0
    description: str = ""
    notes: Annotated[list[str], append] = []


class MoreKeys(State):
    more: int = 0


class AmountForm(BaseModel):
    """What may be changed."""

    n: int = Field(default=0, description="The amount.")


def work(state: Any) -> None:
    """Do it."""


def other(state: Any) -> None: ...


def yes(state: Any) -> bool:
    return True


def no(state: Any) -> bool:
    return False


def flow_with(
    *,
    name: str = "f",
    state: Any = State,
    version: str = "1",
    description: str = "",
    entry: str = "a",
    nodes: tuple[str, ...] = ("a", "b", "c"),
    task: dict[str, Any] | None = None,
    fn: Any = work,
    barrier: dict[str, Any] | None = None,
    parallel: dict[str, Any] | None = None,
    branches: Any = None,
    inner: Callable[[Flow], Any] = lambda flow: None,
    edges: Callable[[Flow], Any] = lambda flow: flow.add_edge("a", "c", when=yes).add_edge("a", END, when=no),
    then: Callable[[Flow], Any] = lambda flow: None,
) -> Flow:
    """One flow with one of everything; each argument changes one thing."""
    flow = Flow(name, state, version=version, description=description)
    for known in nodes:
        flow.add_node(known, fn if known == "a" else work, **(task or {}) if known == "a" else {})
    flow.add_barrier(
        "sign", **{"prompt": "Sign {n}?", "show": ["n"], "approvers": ["ana"], "timeout": timedelta(hours=1), **(barrier or {})}
    )
    nested = Flow("nested").add_node("x", work).set_entry("x").add_edge("x", END)
    inner(nested)
    flow.add_parallel("p", branches or {"one": work, "two": nested}, **(parallel or {}))
    flow.set_entry(entry)
    flow.add_edge("a", "b").add_edge("b", "sign").add_edge("sign", "p", when=approved).add_edge("sign", END)
    flow.add_edge("p", "a", max_visits=3).add_edge("c", END).add_fallback("b", "c", on=[OSError])
    edges(flow)
    then(flow)
    return flow


def listed(**options: Any) -> list[Any]:
    """The same two branches one by one, the first with ``options``."""
    nested = Flow("nested").add_node("x", work).set_entry("x").add_edge("x", END)
    return [branch(work, name="one", **options), branch(nested, name="two")]


BASE = flow_with().compile()

CHANGES: dict[str, Callable[[], Flow]] = {
    "flow name": lambda: flow_with(name="g"),
    "flow version": lambda: flow_with(version="2"),
    "entry": lambda: flow_with(entry="b"),
    "an end": lambda: flow_with(then=lambda flow: flow.add_edge("b", END, when=yes)),
    "a node": lambda: flow_with(then=lambda flow: flow.add_node("d", work).add_edge("c", "d", when=yes).add_edge("d", END)),
    "a node's function": lambda: flow_with(fn=other),
    "a node's version": lambda: flow_with(task={"version": "2"}),
    "a node's retry": lambda: flow_with(task={"retry": Retry()}),
    "a node's timeout": lambda: flow_with(task={"timeout": timedelta(seconds=1)}),
    "a node's visit cap": lambda: flow_with(task={"max_visits": 3}),
    "a node's overlap": lambda: flow_with(task={"overlap": True}),
    "what a node may write": lambda: flow_with(task={"writes": ["n"]}),
    "a breaker": lambda: flow_with(task={"middleware": [CircuitBreaker()]}),
    "a wait that may be refused": lambda: flow_with(task={"middleware": [Bulkhead(3, waiting=9)]}),
    "a wait while a timeout counts": lambda: flow_with(task={"middleware": [Timeout(timedelta(seconds=1)), Bulkhead(3)]}),
    "a node's goto": lambda: flow_with(task={"goto": ["c"]}),
    "a barrier's prompt": lambda: flow_with(barrier={"prompt": "Really sign {n}?"}),
    "a barrier's show": lambda: flow_with(barrier={"show": ["n", "notes"]}),
    "a barrier's form": lambda: flow_with(barrier={"form": ["n"]}),
    "a barrier's form model": lambda: flow_with(barrier={"form": AmountForm}),
    "a barrier's approvers": lambda: flow_with(barrier={"approvers": ["ben"]}),
    "a barrier's quorum": lambda: flow_with(barrier={"quorum": 2}),
    "a barrier's timeout": lambda: flow_with(barrier={"timeout": timedelta(hours=2)}),
    "a barrier's on_timeout": lambda: flow_with(barrier={"on_timeout": "approve"}),
    "a barrier's on_reject": lambda: flow_with(barrier={"on_reject": "continue"}),
    "a barrier's early": lambda: flow_with(barrier={"early": False}),
    "a barrier's visit cap": lambda: flow_with(barrier={"max_visits": 3}),
    "order of branches": lambda: flow_with(
        branches={"two": Flow("nested").add_node("x", work).set_entry("x").add_edge("x", END), "one": work}
    ),
    "a branch's name": lambda: flow_with(
        branches={"three": work, "two": Flow("nested").add_node("x", work).set_entry("x").add_edge("x", END)}
    ),
    "a branch's timeout": lambda: flow_with(parallel={"branch_timeout": timedelta(seconds=1)}),
    "a branch's retry": lambda: flow_with(branches=listed(retry=Retry())),
    "a branch's version": lambda: flow_with(branches=listed(version="2")),
    "a node in a branch": lambda: flow_with(inner=lambda flow: flow.add_node("y", work).add_edge("x", "y", when=yes).add_edge("y", END)),
    "an edge in a branch": lambda: flow_with(inner=lambda flow: flow.add_edge("x", END, when=yes)),
    "a barrier in a branch": lambda: flow_with(inner=lambda flow: flow.add_barrier("y").add_edge("x", "y", when=yes).add_edge("y", END)),
    "policy of a parallel node": lambda: flow_with(parallel={"on_error": "collect"}),
    "min_success": lambda: flow_with(parallel={"on_error": best_effort(min_success=2)}),
    "failures_to": lambda: flow_with(parallel={"on_error": best_effort(failures_to="notes")}),
    "concurrency": lambda: flow_with(parallel={"max_concurrency": 1}),
    "an edge": lambda: flow_with(then=lambda flow: flow.add_edge("c", "b", when=yes)),
    "order of conditions": lambda: flow_with(edges=lambda flow: flow.add_edge("a", END, when=no).add_edge("a", "c", when=yes)),
    "priority of conditions": lambda: flow_with(
        edges=lambda flow: flow.add_edge("a", "c", when=yes).add_edge("a", END, when=no, priority=-1)
    ),
    "name of a condition": lambda: flow_with(edges=lambda flow: flow.add_edge("a", "c", when=yes, name="sure").add_edge("a", END, when=no)),
    "a condition": lambda: flow_with(edges=lambda flow: flow.add_edge("a", "c", when=no).add_edge("a", END, when=no)),
    "target of an edge": lambda: flow_with(edges=lambda flow: flow.add_edge("a", "c", when=yes).add_edge("a", "p", when=no)),
    "cap of an edge": lambda: flow_with(edges=lambda flow: flow.add_edge("a", "c", when=yes, max_visits=2).add_edge("a", END, when=no)),
    "a fallback": lambda: flow_with(then=lambda flow: flow.add_fallback("a", "c")),
    "what a fallback takes": lambda: flow_with(then=lambda flow: flow.add_fallback("b", "c", on=[ValueError])),
    "a key": lambda: flow_with(state=MoreKeys),
    "the type of a key": lambda: flow_with(state=OtherType),
    "a reducer": lambda: flow_with(state=OtherReducer),
    "a reducer of a key called description": lambda: flow_with(state=DescriptionReducer),
    "kind of a node": lambda: flow_with(nodes=("a", "b"), then=lambda flow: flow.add_barrier("c")),
}


@pytest.mark.parametrize("change", list(CHANGES.values()), ids=list(CHANGES))
def test_a_change_of_how_a_run_goes_changes_the_hash_and_is_shown(change: Callable[[], Flow]) -> None:
    changed = change().compile()
    assert changed.graph_hash != BASE.graph_hash
    assert difference(BASE.definition, changed.definition)


def test_all_those_changes_are_different_ones() -> None:
    # A priority is one more way to write an order.
    hashes = [change().compile().graph_hash for name, change in CHANGES.items() if name != "priority of conditions"]
    assert len(set(hashes)) == len(hashes)


def same_meaning() -> dict[str, Callable[[], Flow]]:
    def undocumented(state: Any) -> None: ...

    undocumented.__name__ = "work"
    return {
        "nothing": flow_with,
        "the flow's description": lambda: flow_with(description="All about it."),
        "a node's description": lambda: flow_with(task={"description": "First."}),
        "a docstring": lambda: flow_with(fn=undocumented),
        "a barrier's description": lambda: flow_with(barrier={"description": "Where ana signs."}),
        "a parallel node's description": lambda: flow_with(parallel={"description": "Both."}),
        "a branch's description": lambda: flow_with(inner=lambda flow: setattr(flow, "description", "Nested.")),
        "order of declaration": lambda: flow_with(nodes=("c", "b", "a")),
        "a priority that changes no order": lambda: flow_with(
            edges=lambda flow: flow.add_edge("a", "c", when=yes, priority=-3).add_edge("a", END, when=no, priority=8)
        ),
        "branches one by one": lambda: flow_with(branches=listed()),
        "order of approvers": lambda: flow_with(barrier={"approvers": {"ana"}}),
        "what a node says it reads": lambda: flow_with(task={"reads": ["n"]}),
        "a middleware that only waits": lambda: flow_with(task={"middleware": [RateLimit(5, timedelta(seconds=1)), Bulkhead(3)]}),
    }


@pytest.mark.parametrize("change", list(same_meaning().values()), ids=list(same_meaning()))
def test_words_and_order_of_declaration_do_not_change_the_hash(change: Callable[[], Flow]) -> None:
    changed = change().compile()
    assert changed.graph_hash == BASE.graph_hash
    assert difference(BASE.definition, changed.definition) == []


def test_the_prose_of_a_form_does_not_change_the_hash() -> None:
    told, silent = (flow_with(barrier={"form": AmountForm}).compile().definition for _ in range(2))
    form = silent["nodes"]["sign"]["form"]
    assert form.pop("description") == "What may be changed."
    assert form["properties"]["n"].pop("description") == "The amount."
    assert hash_of(told) == hash_of(silent)


def test_the_version_of_a_reducer_changes_the_hash() -> None:
    hashes = set()
    for version in ("1", "2"):
        own = reducer(f"test_hash_{version}", version=version)(lambda current, update: update)
        flow = Flow("f", {"n": Annotated[int, own]}).add_node("a", work).set_entry("a").add_edge("a", END)
        definition = flow.compile().definition
        text = json.dumps(definition).replace(own.name, "test_hash")
        hashes.add(hash_of(json.loads(text)))
    assert len(hashes) == 2


def test_the_hash_is_a_sha_256_of_the_stored_definition() -> None:
    assert re.fullmatch("[0-9a-f]{64}", BASE.graph_hash)
    assert hash_of(json.loads(BASE.definition_text)) == BASE.graph_hash == BASE.plan.graph_hash


def test_a_known_flow_keeps_its_hash() -> None:
    # Stored runs are found again by this number: if it changes, every one of them needs force to go on.
    flow = Flow("known", {"n": int}).add_node("a", work, timeout=timedelta(seconds=3)).set_entry("a").add_edge("a", END)
    assert flow.compile().graph_hash == "0d99f381a6d1db7e29bfa8c25b8087982a63c62270a868d5771a7600f986a1fa"


# --- what changed ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ("flow version", ['version "1" -> "2"']),
        ("entry", ['entry "a" -> "b"']),
        ("a node's timeout", ["node 'a': timeout none -> 1 s"]),
        ("a node's retry", ["node 'a': retry none -> {\"attempts\": 3, \"first\": 0.1, \"factor\": 2.0, \"longest\": 300.0, \"jitter\": 0.5, \"on\": [\"Exception\"]}"]),
        ("a node's function", ["node 'a': callable \"work\" -> \"other\""]),
        ("a node", ["node 'd' added", "edge c -> d when yes added", "edge d -> __end__ added"]),
        ("a barrier's quorum", ["node 'sign': quorum 1 -> 2"]),
        ("a barrier's timeout", ["node 'sign': timeout 3600 s -> 7200 s"]),
        ("policy of a parallel node", ["node 'p': on_error.policy \"fail_fast\" -> \"collect\""]),
        ("order of branches", ["node 'p': order of branches one, two -> two, one"]),
        ("a branch's name", ["node 'p': branch 'one' removed", "node 'p': branch 'three' added"]),
        ("a branch's timeout", ["node 'p': branch 'one': timeout none -> 1 s", "node 'p': branch 'two': timeout none -> 1 s"]),
        ("a node in a branch", [
            "node 'p': branch 'two': node 'y' added",
            "node 'p': branch 'two': edge x -> y when yes added",
            "node 'p': branch 'two': edge y -> __end__ added",
        ]),
        ("order of conditions", ["node 'a': its edges are asked in another order"]),
        ("cap of an edge", ["edge a -> c when yes removed", "edge a -> c when yes (at most 2 times) added"]),
        ("what a fallback takes", ["edge b -> c on ValueError added"]),
        ("a key", ["key 'more' added"]),
        ("the type of a key", ["type of key 'n' int -> int | None"]),
        ("a reducer", ["key 'notes': \"append\" -> \"replace\""]),
    ],
)  # fmt: skip
def test_a_difference_is_told_in_readable_lines(change: str, lines: list[str]) -> None:
    assert difference(BASE.definition, CHANGES[change]().compile().definition) == lines


def test_a_difference_is_told_both_ways() -> None:
    changed = CHANGES["a node"]().compile().definition
    assert difference(changed, BASE.definition) == ["node 'd' removed", "edge c -> d when yes removed", "edge d -> __end__ removed"]


def test_rejected_and_approved_are_different_conditions() -> None:
    ways = [Flow("f", State).add_barrier("b").set_entry("b").add_edge("b", END, when=when) for when in (approved, rejected)]
    assert ways[0].compile().graph_hash != ways[1].compile().graph_hash
