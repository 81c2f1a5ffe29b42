"""Does it stay as quick when the database is full?

    python benchmarks/bench_large.py                  100,000 runs with 1,000,000 checkpoints, in SQLite and in PostgreSQL
    python benchmarks/bench_large.py --runs 2000      fewer

What people and workers ask often, and what a run does, in a database with a hundredth of the runs (which stands in the table as the
floor) and in the full one in turn.  Then every statement that was made is explained by the full database: none may scan a large table (SQLite: EXPLAIN
QUERY PLAN; PostgreSQL: the lines its sequential scans read).  Exits with 1 where one does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from bench_steps import server
from crowded import fill, overheard, scanned_in_postgres, scans_of_sqlite
from flows import asking, counting
from measuring import Line, report, timed

from trailmark import Decision, FlowGraph, GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

RUNS, CHECKPOINTS_EACH, ROUNDS = 100_000, 10, 15
STEPS = 50


class Side(NamedTuple):
    """One of the two databases, with what is asked of it."""

    store: SQLCheckpointStore
    executor: GraphExecutor
    people: GraphExecutor
    known: str
    """A real run in it."""


async def walk(side: Side) -> Any:
    return await side.executor.execute({})


async def newest(side: Side) -> Any:
    return await side.store.runs()


async def by_status(side: Side) -> Any:
    return await side.store.runs(status="failed")


async def by_flow(side: Side) -> Any:
    return await side.store.runs(flow="flow 3")


async def further_on(side: Side) -> Any:
    return await side.store.runs(before=side.known)


async def by_key(side: Side) -> Any:
    return await side.store.run_by_key("flow 3", "copy 3")


async def inbox(side: Side) -> Any:
    return await side.store.barriers(limit=50)


async def due(side: Side) -> Any:
    return await side.store.due()


async def past(side: Side) -> Any:
    return [row async for row in side.store.history(side.known)]


async def decided(side: Side) -> Any:
    parked = await side.people.execute({})
    await side.store.decide(parked.run_id, "ask", Decision.approve(by="ana"))
    return await side.people.resume(parked.run_id)


ASKED: dict[str, Callable[[Side], Awaitable[Any]]] = {
    f"a run of {STEPS} steps, from its start to its end": walk,
    "a run that parks, is approved and is resumed": decided,
    "the newest 50 runs": newest,
    "the newest 50 runs that failed": by_status,
    "the newest 50 runs of a flow": by_flow,
    "the 50 runs before a certain one": further_on,
    "a run by its key": by_key,
    "a page of the inbox": inbox,
    "what is due": due,
    f"the {CHECKPOINTS_EACH} checkpoints of a run": past,
}


async def main(runs: int = RUNS, rounds: int = ROUNDS) -> tuple[list[Line], list[str]]:
    """The lines of the table, and what was scanned."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite+aiosqlite:///{folder}/{name}.db" for name in ("small", "full")]
        with overheard() as told:
            lines += await compared("SQLite", urls, runs, rounds)
        scans = scans_of_sqlite(urls[1], told)
    async with server() as small, server() as full:
        lines += await compared("PostgreSQL", [small, full], runs, rounds)
        scans += [f"{count} lines of {table} by sequential scans of PostgreSQL" for table, count in (await scanned_since(full)).items()]
    return lines, scans


FILLED: dict[str, dict[str, int]] = {}
"""What the scans of filling a database have read."""


async def scanned_since(url: str) -> dict[str, int]:
    now = await scanned_in_postgres(url)
    return {table: count - FILLED[url][table] for table, count in now.items() if count > FILLED[url][table]}


class Filled(NamedTuple):
    """A database that was filled."""

    known: str
    """A real run in it, of which there are copies."""
    taken: dict[str, float]
    """Bytes of each line, by table."""
    payload: float
    """Bytes of the payload of one of that run's checkpoints, on the average."""


async def compared(name: str, urls: list[str], runs: int, rounds: int) -> list[Line]:
    graph, question, short = counting(STEPS), asking(int), counting(CHECKPOINTS_EACH - 2)
    filled = [await _filled(url, short, question, copies) for url, copies in zip(urls, (runs // 100, runs), strict=True)]
    if name == "PostgreSQL":
        FILLED[urls[1]] = await scanned_in_postgres(urls[1])
    full = filled[1]
    settings = f"among {runs:,} runs, with all its indexes"
    lines = [
        Line(f"{name}: the line of a run", "bytes", full.taken["runs"], 0.0, 1_000, settings),
        Line(f"{name}: a checkpoint of {full.payload:.0f} bytes", "bytes", full.taken["checkpoints"], 0.0, 300, settings),
        Line(f"{name}: the line of a ticket", "bytes", full.taken["barriers"], 0.0, 1_000, settings),
    ]
    async with AsyncExitStack() as opened:
        sides = []
        for url, made in zip(urls, filled, strict=True):
            store = await opened.enter_async_context(SQLCheckpointStore(url))
            executors = [await opened.enter_async_context(GraphExecutor(of, store=store, max_steps=STEPS + 1)) for of in (graph, question)]
            sides.append(Side(store, *executors, made.known))
        for work, ask in ASKED.items():
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds + 1):
                for side, took in zip(sides, taken, strict=True):
                    took.append(await timed(ask(side)) * 1e3)
            few, many = (statistics.median(took[1:]) for took in taken)
            lines.append(Line(f"{name}: {work}", "ms", many, few, 1.5 * few, f"among {runs:,} runs; floor: among {runs // 100:,}"))
    return lines


async def _filled(url: str, short: FlowGraph, question: FlowGraph, copies: int) -> Filled:
    """A database with a run that has ended, a ticket of another, and as many copies."""
    async with SQLCheckpointStore(url) as store:
        async with GraphExecutor(short, store=store) as executor:
            known = (await executor.execute({})).run_id
        payloads = [len(row.payload) async for row in store.history(known)]
        async with GraphExecutor(question, store=store) as executor:
            parked = (await executor.execute({})).run_id
    print(f"copying a run {copies:,} times ...", file=sys.stderr, flush=True)
    return Filled(known, await fill(url, known, copies, parked), statistics.mean(payloads))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does it stay as quick when the database is full?")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--keep", action="store_true", help="keep the figures in benchmarks/results")
    parser.add_argument("--note", default="", help="what must be known of the machine, kept beside the figures")
    options = parser.parse_args()
    measured, scanned = asyncio.run(main(options.runs))
    report(measured, "large", keep=options.keep)
    print(*scanned or ["No statement scans a large table."], sep="\n")
    sys.exit(1 if scanned else 0)
