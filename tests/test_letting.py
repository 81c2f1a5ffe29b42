"""Nodes that give names to values."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from trailmark import END, Flow, FlowValidationError, GraphExecutor, RunFailedError
from trailmark.checkpoint_stores import MemoryCheckpointStore
from trailmark.reducers import append

STATE = {"net": int, "gross": float, "currency": str, "lines": Annotated[list[dict[str, int]], append]}


def priced(values: dict[str, Any], **options: Any) -> Flow:
    return Flow("priced", STATE).add_let("prices", values, **options).set_entry("prices").add_edge("prices", END)


async def values_of(flow: Flow, given: Any) -> Any:
    async with MemoryCheckpointStore() as store, GraphExecutor(flow.compile(), store=store) as executor:
        return (await executor.execute(given)).values


def gross(state: Any) -> float:
    return float(state["net"] * 1.5)


def net(state: Any) -> int:
    return int(state["net"] + 1)


async def test_constants_and_functions_of_the_state_before_it_are_written_under_their_keys() -> None:
    flow = priced({"currency": "EUR", "net": net, "gross": gross, "lines": [{"a": 1}]})
    assert await values_of(flow, {"net": 2, "lines": []}) == {"net": 3, "gross": 3.0, "currency": "EUR", "lines": [{"a": 1}]}


async def test_a_constant_stays_what_it_was_whatever_is_done_to_what_was_given() -> None:
    lines = [{"a": 1}]
    flow = priced({"lines": lines})
    lines[0]["a"] = 2
    assert (await values_of(flow, {"lines": []}))["lines"] == [{"a": 1}]


def test_other_constants_and_other_functions_are_another_graph_the_same_ones_are_not() -> None:
    flows = [priced({"currency": "EUR"}), priced({"currency": "USD"}), priced({"gross": gross}), priced({"gross": net})]
    hashes = [flow.compile().graph_hash for flow in (*flows, priced({"gross": gross}, version="2"))]
    assert len(set(hashes)) == 5
    assert priced({"currency": "EUR"}).compile().graph_hash == hashes[0]


async def awaits(state: Any) -> int:
    return 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [({}, "it names nothing"), ({"net": awaits}, "'net' is async"), ({"lines": [object()]}, r"lines\[0\]")],
)
def test_what_cannot_be_named_is_a_problem_of_the_flow(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(FlowValidationError, match=problem):
        priced(values).compile()


async def test_a_value_that_does_not_fit_its_key_fails_the_node_by_name() -> None:
    with pytest.raises(RunFailedError, match="net"):
        await values_of(priced({"net": "many"}), {"net": 1, "lines": []})
