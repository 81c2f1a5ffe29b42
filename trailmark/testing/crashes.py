"""Does a flow survive a crash between any two commits?  Tried out, not argued."""

from __future__ import annotations

from dataclasses import dataclass

from engine.flow import Flow
from engine.graph import FlowGraph
from engine.result import RunResult
from trailmark.testing.clock import VirtualClock
from trailmark.testing.crashing import Death, Moment, Process, SimulatedCrash
from trailmark.testing.journeys import Decisions, Journey, Outcome, Signals, StoreFactory, graph_of, memory_store


@dataclass(frozen=True)
class CrashReport:
    """What `crash_at_every_checkpoint` tried."""

    commits: int
    """Commits of the uninterrupted run, its creation included."""
    crashes: int
    """Runs that were crashed and brought to their end: one before and one after each commit."""
    result: RunResult
    """How each of them ended."""


async def crash_at_every_checkpoint(
    flow: Flow | FlowGraph,
    input: object = None,  # noqa: A002
    *,
    decisions: Decisions | None = None,
    signals: Signals | None = None,
    store_factory: StoreFactory = memory_store,
    max_steps: int = 1000,
) -> CrashReport:
    """Run a flow once in peace, then once for each commit with a crash before it and once with a crash after it.

    Every crashed run is resumed by a fresh executor and must end as the peaceful one did: with the same status, values, error and
    number of steps, and with every node entry committed once.  What a crash may repeat is the bodies that were in flight, so
    nodes must give the same answer when they are asked again.

    Time is virtual: it stands still while a node's body runs and jumps to the next retry or deadline when the run rests (so a
    node's own ``timeout`` never ends).  Where the run waits for people, ``decisions`` says what they say, by ticket or barrier; ``signals``
    says what is sent; a run that waits for anything else ends there.

    Args:
        flow: the flow, or its compiled graph.
        input: what each run is started with.
        decisions: by ticket or barrier name, one decision or several.
        signals: by name, the payloads of the signals that are sent one after the other when the run waits for them.
        store_factory: makes a store for each run; SQL: ``lambda clock: SQLCheckpointStore(url, now=clock.now)``.
        max_steps: the runs' step limit.

    Raises:
        AssertionError: a crash made a difference; the text tells where the crash was, what differs and what the run committed.

    >>> import asyncio
    >>> from trailmark import Decision, Flow
    >>> flow = Flow("greeting", {"name": str, "text": str})
    >>> @flow.node
    ... async def greet(state):
    ...     return {"text": f"Hello {state['name']}"}
    >>> _ = flow.add_barrier("review", prompt="Send {text!r}?", show=["text"])
    >>> _ = flow.set_entry("greet").add_edge("greet", "review").add_edge("review", "__end__")
    >>> report = asyncio.run(crash_at_every_checkpoint(flow, {"name": "ana"}, decisions={"review": Decision.approve(by="ben")}))
    >>> report.result.status, report.commits, report.crashes
    ('completed', 3, 6)
    """
    graph = graph_of(flow)

    async def journey(death: Death | None) -> tuple[Outcome, RunResult, int]:
        clock = VirtualClock()
        async with store_factory(clock) as store:
            return await _ended(Journey(graph, store, clock, input, decisions or {}, max_steps, signals or {}), death)

    peaceful, result, commits = await journey(None)
    moments: tuple[Moment, ...] = ("before", "after")
    for number in range(1, commits + 1):
        for moment in moments:
            outcome, _result, _commits = await journey(Death(number, moment))
            differences = peaceful.differences(outcome)
            if differences:
                raise AssertionError(_story(number, moment, commits, differences, outcome))
    return CrashReport(commits, commits * 2, result)


async def _ended(journey: Journey, death: Death | None) -> tuple[Outcome, RunResult, int]:
    """Bring a journey to its end; the first process dies as it is told."""
    process = Process(journey.store, death)
    while True:
        try:
            result = await journey.drive(process)
        except SimulatedCrash:
            process = Process(journey.store)
            continue
        if result.status != "waiting" or not await journey.answer():
            return await journey.outcome(result), result, len(process.commits)


def _story(number: int, moment: Moment, commits: int, differences: list[str], outcome: Outcome) -> str:
    lines = [f"a crash {moment} commit {number} of {commits} made a difference:"]
    lines += [f"  {line}" for line in differences]
    lines.append("the crashed run committed:")
    for row in outcome.rows:
        where = f"{row.path}.{row.node}" if row.path and row.node else row.path or row.node
        lines.append(f"  {row.seq:>4}  {row.kind:<10} {where}{' -> ' + row.next if row.next else ''}  (epoch {row.epoch})")
    return "\n".join(lines)
