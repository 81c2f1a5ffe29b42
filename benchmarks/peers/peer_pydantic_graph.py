"""pydantic-graph: nodes as classes that return the next node; its quicker form, with instrumentation off.

Version 2 has no persistence (version 1 had snapshots of the state), so only the rows in memory can be measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from peers.peer import CannotError, Done, Peer
from pydantic_graph import BaseNode, End, GraphBuilder, GraphRunContext, StepContext, reduce_sum


@dataclass
class Counted:
    """A number, and where it ends."""

    steps: int
    entered: Any
    n: int = 0


@dataclass
class Count(BaseNode[Counted, None, int]):
    """Returns itself until it is done."""

    async def run(self, ctx: GraphRunContext[Counted, None]) -> Count | End[int]:
        state = ctx.state
        state.entered()
        state.n += 1
        return self if state.n < state.steps else End(state.n)


class PydanticGraph(Peer):
    """GraphBuilder and Graph.run."""

    settings: ClassVar = {
        "durability": "none: it keeps no checkpoints",
        "in memory": "BaseNode classes (quicker here than GraphBuilder steps with a decision), auto_instrument=False",
        "fan-out": "map() over a list, joined by reduce_sum",
    }

    async def set_up(self) -> None:
        if self.place.kind != "bare":
            raise CannotError("pydantic-graph 2 has no persistence: nothing of a run is kept, and no run can wait")

    async def loop(self, steps: int) -> Done:
        flow = GraphBuilder(state_type=Counted, input_type=Count, output_type=int, auto_instrument=False)
        flow.add(flow.node(Count), flow.edge_from(flow.start_node).to(Count))
        graph = flow.build()
        began = time.perf_counter()
        result = await graph.run(state=Counted(steps, self.entered), inputs=Count())
        return Done(time.perf_counter() - began, result)

    async def fan(self, branches: int) -> Done:
        flow = GraphBuilder(input_type=list[int], output_type=int, auto_instrument=False)

        @flow.step
        async def one(ctx: StepContext[None, None, int]) -> int:
            return 1

        total = flow.join(reduce_sum, initial=0)
        flow.add(flow.edge_from(flow.start_node).map().to(one), flow.edge_from(one).to(total), flow.edge_from(total).to(flow.end_node))
        graph = flow.build()
        began = time.perf_counter()
        result = await graph.run(inputs=[1] * branches)
        return Done(time.perf_counter() - began, result)
