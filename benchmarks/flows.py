"""The flows that are measured: as small as real ones can be, nothing switched off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel

from trailmark import END, Flow, FlowGraph
from trailmark.reducers import append, sum_


class Counted(BaseModel):
    """A number."""

    n: int = 0


class Logged(BaseModel):
    """A list that grows beside a key that never changes."""

    constant: str = ""
    n: int = 0
    log: Annotated[list[str], append] = []


class Summed(BaseModel):
    """A number that branches add to."""

    total: Annotated[int, sum_] = 0


def counting(steps: int, reached: Callable[[], object] | None = None, *, is_plain: bool = False) -> FlowGraph:
    """One trivial async node (or a plain function), entered ``steps`` times; says so where somebody wants to hear it."""
    flow = Flow("counting", Counted)

    async def count(state: Counted) -> dict[str, Any]:
        return {"n": state.n + 1}

    async def heard(state: Counted) -> dict[str, Any]:
        reached()  # type: ignore[misc]
        return {"n": state.n + 1}

    def plain(state: Counted) -> dict[str, Any]:
        return {"n": state.n + 1}

    flow.add_node("count", plain if is_plain else heard if reached else count)

    def more(state: Counted) -> bool:
        return state.n < steps

    flow.set_entry("count")
    flow.add_edge("count", "count", when=more)
    flow.add_edge("count", END)
    return flow.compile()


def chain(steps: int) -> FlowGraph:
    """``steps`` trivial async nodes, one after the other."""
    flow = Flow("chain", Counted)

    async def step(state: Counted) -> dict[str, Any]:
        return {"n": 1}

    for index in range(steps):
        flow.add_node(f"s{index}", step)
        flow.add_edge(f"s{index}", f"s{index + 1}" if index + 1 < steps else END)
    flow.set_entry("s0")
    return flow.compile()


def logging(steps: int, size: int) -> FlowGraph:
    """Each step appends ``size`` bytes to a list, beside a constant key."""
    return _logging("logging", steps, size).add_edge("log", END).compile()


def paused(steps: int, size: int) -> FlowGraph:
    """``steps`` nodes that each append ``size`` bytes, then a barrier."""
    flow = _logging("paused", steps, size).add_barrier("ask", show=["n"])
    return flow.add_edge("log", "ask").add_edge("ask", END).compile()


def _logging(name: str, steps: int, size: int) -> Flow:
    """A node ``log`` that goes round ``steps`` times; where it goes then is the caller's."""
    flow = Flow(name, Logged)
    line = "x" * size

    @flow.node
    async def log(state: Logged) -> dict[str, Any]:
        return {"log": [line], "n": state.n + 1}

    def more(state: Logged) -> bool:
        return state.n < steps

    return flow.set_entry("log").add_edge("log", "log", when=more)


def fan_out(branches: int) -> FlowGraph:
    """A parallel node with ``branches`` trivial async branches that all write one summed key."""
    flow = Flow("fan_out", Summed)

    async def one(state: Summed) -> dict[str, Any]:
        return {"total": 1}

    flow.add_parallel("all", {f"b{index}": one for index in range(branches)})
    flow.set_entry("all")
    flow.add_edge("all", END)
    return flow.compile()


def asking(reached: Callable[[], object]) -> FlowGraph:
    """A barrier, and a node behind it that says when it begins."""
    flow = Flow("asking", Counted)

    @flow.node
    async def behind(state: Counted) -> dict[str, Any]:
        reached()
        return {"n": 1}

    flow.add_barrier("ask", show=["n"])
    flow.set_entry("ask")
    flow.add_edge("ask", "behind")
    flow.add_edge("behind", END)
    return flow.compile()
