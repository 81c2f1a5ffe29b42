"""A run that forgets everything after every commit."""

from __future__ import annotations

from engine.errors import RunFailedError
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.result import RunResult
from trailmark.testing.clock import VirtualClock
from trailmark.testing.crashing import Death, Process, SimulatedCrash
from trailmark.testing.journeys import Decisions, Journey, Signals, StoreFactory, graph_of, memory_store


async def always_reload(
    flow: Flow | FlowGraph,
    input: object = None,  # noqa: A002
    *,
    decisions: Decisions | None = None,
    signals: Signals | None = None,
    store_factory: StoreFactory = memory_store,
    max_steps: int = 1000,
) -> RunResult:
    """`GraphExecutor.execute`, but after every single commit the process dies and a fresh executor loads the run from the store.

    A flow whose nodes keep something in variables, or that depends on what only lives in memory, ends differently here.  Bodies in
    flight at a commit (branches of a parallel node) are run again, as after any crash.  Time, decisions and the
    arguments are those of `crash_at_every_checkpoint`.

    Raises RunFailedError, and what `GraphExecutor.start` raises.

    >>> import asyncio
    >>> from trailmark import Flow
    >>> flow = Flow("count", {"n": int})
    >>> @flow.node
    ... async def count(state):
    ...     return {"n": state["n"] + 1}
    >>> _ = flow.set_entry("count").add_edge("count", "count", when=lambda state: state["n"] < 3, name="more")
    >>> _ = flow.add_edge("count", "__end__")
    >>> result = asyncio.run(always_reload(flow, {"n": 0}))
    >>> result.values, result.steps, result.attempt
    ({'n': 3}, 3, 4)
    """
    clock = VirtualClock()
    async with store_factory(clock) as store:
        journey = Journey(graph_of(flow), store, clock, input, decisions or {}, max_steps, signals or {})
        while True:
            process = Process(store, Death(1))
            try:
                result = await journey.drive(process)
            except SimulatedCrash:
                status = (await store.run(journey.run_id)).status
                if status == "running" or (status == "waiting" and await journey.answer()):
                    continue
                # It stopped with the commit after which the process died: read what there is.
                result = await journey.stored_result()
            if result.status == "failed":
                raise RunFailedError(result) from result.exception
            return result
