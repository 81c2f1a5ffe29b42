"""Stored runs against today's graph: what would it have decided?"""

from __future__ import annotations

from checkpoint_stores.protocol import CheckpointStore
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.replaying import Divergence, Replay, Unchecked, replay_run
from trailmark.testing.journeys import graph_of

__all__ = ["Divergence", "Replay", "Unchecked", "replay"]


async def replay(flow: Flow | FlowGraph, store: CheckpointStore, run_id: str | None = None, *, limit: int = 1000) -> list[Replay]:
    """Ask today's flow about every decision that stored runs have recorded; writes nothing and calls no node's body.

    A test of a changed flow keeps a database with runs that matter and says ``assert all(each.matches for each in await replay(flow, store))``.
    What is asked anew, and what the rows do not tell, stands in the docs (Changing a flow while runs are under way).

    Args:
        flow: the flow as it is today, or its compiled graph.
        store: where the runs are.
        run_id: one run; None = the runs of this flow, newest first.
        limit: how many runs at most.

    Raises RunNotFoundError, WrongFlowError, CheckpointCorruptError.

    >>> import asyncio
    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> def ordering(limit):
    ...     flow = Flow("ordering", {"amount": int})
    ...     for name in ("read", "pay", "ask"):
    ...         flow.add_node(name, lambda state: None)
    ...     flow.set_entry("read").add_edge("read", "ask", when=lambda state: state["amount"] > limit, name="large")
    ...     return flow.add_edge("read", "pay").add_edge("pay", END).add_edge("ask", END)
    >>> async def main():
    ...     async with MemoryCheckpointStore() as store:
    ...         await GraphExecutor(ordering(100).compile(), store=store).execute({"amount": 50})
    ...         return [*await replay(ordering(100), store), *await replay(ordering(10), store)]
    >>> same, other = asyncio.run(main())
    >>> same.matches, other.matches
    (True, False)
    >>> print(other.divergences[0])
    diverged at step 1 (checkpoint 2), node 'read': stored next 'pay', today's graph would go to 'ask'
    """
    graph = graph_of(flow)
    if run_id is not None:
        return [await replay_run(store, graph, run_id)]
    return [await replay_run(store, graph, record.run_id) for record in await store.runs(flow=graph.name, limit=limit)]
