"""Does a step cost the same in a long run, beside a large state, among many branches, among many runs?

    python benchmarks/bench_sizes.py            prints the curves
    python benchmarks/bench_sizes.py --keep     and keeps them in benchmarks/results/sizes.json, from which plots.py draws

Each curve is measured by rounds that go through all of its sizes in turn, so that a slow hour of the machine is slow for all of them;
what stands in it are medians.  SQLite in WAL mode with synchronous=FULL; PostgreSQL with fsync and synchronous_commit on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from bench_steps import per_step, server
from flows import counting, fan_out, logging
from measuring import RESULTS, machine, timed

from trailmark import Committed, GraphExecutor
from trailmark.checkpoint_stores import MemoryCheckpointStore, SQLCheckpointStore

ROUNDS = 5


class Curve(NamedTuple):
    """One question, asked for several sizes."""

    what: str
    size: str
    """What grows."""
    unit: str
    sizes: Sequence[int]
    ask: Callable[[Any, int], Awaitable[float]]
    """What it costs in a store at a size."""


async def long(store: Any, steps: int) -> float:
    """Microseconds a step takes in a run of so many."""
    return await per_step(counting(steps), store, steps)


async def heavy(store: Any, size: int) -> float:
    """Microseconds a step of 100 bytes takes beside a key of so many bytes; from the first step on, since the start writes that key."""
    steps, committed = 200, [0.0, 0.0]

    def tell(done: Committed) -> None:
        if done.row.step in (1, steps):
            committed[done.row.step == steps] = time.perf_counter()

    async with GraphExecutor(logging(steps, 100), store=store, max_steps=steps + 1, observers=[tell]) as executor:
        await executor.execute({"constant": "x" * size})
    return (committed[1] - committed[0]) / (steps - 1) * 1e6


async def wide(store: Any, branches: int) -> float:
    """Microseconds a branch takes among so many, from the start of the run to its end."""
    graph = fan_out(branches)
    async with GraphExecutor(graph, store=store, max_steps=branches + 10) as executor:
        repeats = max(1, 20 // branches)
        return await timed(_again(executor, repeats)) / repeats / branches * 1e6


async def _again(executor: GraphExecutor, repeats: int) -> None:
    for _ in range(repeats):
        await executor.execute({})


async def many(store: Any, runs: int) -> float:
    """Microseconds a step takes (all of the time over all of the steps) where so many runs of ten steps go at once."""
    steps = 10
    async with GraphExecutor(counting(steps), store=store, max_steps=steps + 1) as executor:
        repeats = max(1, 20 // runs)
        took = 0.0
        for _ in range(repeats):
            took += await timed(asyncio.gather(*(executor.execute({}) for _ in range(runs))))
        return took / repeats / runs / steps * 1e6


CURVES = (
    Curve("a step of a lone run", "steps of the run", "us", (100, 300, 1_000, 3_000, 10_000), long),
    Curve("a step of 100 bytes", "bytes of the rest of the state", "us", (1_000, 10_000, 100_000, 1_000_000, 10_000_000), heavy),
    Curve("a branch, its start and its join", "branches", "us", (1, 10, 100, 1_000), wide),
    Curve("a step, all runs together", "runs at once", "us", (1, 10, 100, 1_000, 10_000), many),
)


async def main(curves: Sequence[Curve] = CURVES, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """For each curve: what it is, and for each store the median at each size."""
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        url = await opened.enter_async_context(server())
        stores: Mapping[str, Callable[[], Any]] = {
            "memory": MemoryCheckpointStore,
            "SQLite": lambda: SQLCheckpointStore(f"sqlite+aiosqlite:///{folder}/runs.db"),
            "PostgreSQL": lambda: SQLCheckpointStore(url),
        }
        found = []
        for curve in curves:
            series = {name: await _measured(curve, make, rounds) for name, make in stores.items()}
            found.append({"what": curve.what, "size": curve.size, "unit": curve.unit, "sizes": list(curve.sizes), "series": series})
            print(f"{curve.what}, by {curve.size}:", file=sys.stderr)
            for name, figures in series.items():
                shown = "  ".join(f"{size:,}: {figure:.4g} {curve.unit}" for size, figure in zip(curve.sizes, figures, strict=True))
                print(f"  {name:<11} {shown}", file=sys.stderr, flush=True)
        return found


async def _measured(curve: Curve, make: Callable[[], Any], rounds: int) -> list[float]:
    taken: dict[int, list[float]] = {size: [] for size in curve.sizes}
    for each in range(rounds + 1):
        for size in curve.sizes:
            async with make() as store:
                await wide(store, 2)  # what is paid once is paid: connections, prepared statements, their plans
                figure = await curve.ask(store, size)
            if each:  # the first round warms up
                taken[size].append(figure)
    return [statistics.median(figures) for figures in taken.values()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a step costs, against the size of what it is part of.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--keep", action="store_true", help="keep the curves in benchmarks/results")
    parser.add_argument("--note", default="", help="what must be known of the machine, kept beside the figures")
    options = parser.parse_args()
    measured = asyncio.run(main(rounds=options.rounds))
    if options.keep:
        (RESULTS / "sizes.json").write_text(json.dumps({"measured": machine(), "curves": measured}, indent=1) + "\n")
        print("kept in benchmarks/results/sizes.json")
