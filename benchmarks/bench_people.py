"""What do runs cost that wait for people, and how soon does one go on that was decided?

    python benchmarks/bench_people.py

Runs are parked at a barrier in SQLite (WAL, synchronous=FULL).  Memory is what the process holds more than before, per parked run.
Approvals are made by one process, many at once (group commit).  From the decision to the next node counts from the call of
`decide` to the first line of the body behind the barrier, in the process that drives the run, and in another one; the floor hands one
line to a thread that commits it.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_steps import BareSQLite
from flows import asking
from measuring import Line, alternate, run

from trailmark import Decision, GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

RUNS, ROUNDS = 10_000, 15

WAITS = """
import asyncio, sys, time
sys.path.insert(0, {folder!r})
from flows import asking
from trailmark import GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

async def main():
    graph = asking(lambda: print(time.time(), flush=True))
    async with SQLCheckpointStore({url!r}) as store, GraphExecutor(graph, store=store) as executor:
        for line in sys.stdin:
            run = await executor.attach(line.strip())
            waiting = asyncio.create_task(run.result(through_barriers=True))
            while (await store.run(line.strip())).status != "waiting":
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            print("waits", flush=True)
            await waiting

asyncio.run(main())
"""


async def main(runs: int = RUNS, rounds: int = ROUNDS) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/runs.db"
        async with SQLCheckpointStore(url) as store:
            lines = [*await parked(store, runs, rounds), await here(store, folder, rounds)]
        return [*lines, await elsewhere(url, rounds)]


async def parked(store: SQLCheckpointStore, runs: int, rounds: int) -> list[Line]:
    graph = asking(lambda: None)
    async with GraphExecutor(graph, store=store) as executor:
        await park(executor, runs // 4)  # what is paid once has been paid: caches are full, and Python has its memory
        gc.collect()
        before = _resident()
        await park(executor, runs)
        gc.collect()
        held = (_resident() - before) * 1024 / runs
        run_ids = [ticket.run_id for ticket in await store.barriers(limit=2 * runs)]
        pages = [await _timed(store.barriers(limit=50)) * 1e3 for _ in range(rounds)]
        began = time.perf_counter()
        await asyncio.gather(*(store.decide(run_id, "ask", Decision.approve(by="ana")) for run_id in run_ids))
        rate = len(run_ids) / (time.perf_counter() - began)
    settings = "SQLite, WAL, FULL"
    return [
        Line(f"{runs:,} runs parked at a barrier: memory of each", "bytes", held, 0.0, 100, settings),
        Line("a page of the inbox (50 tickets) among them", "ms", statistics.median(pages), 0.0, 5, settings),
        Line("approvals of them, all at once", "per s", rate, 0.0, 4000, settings),
    ]


async def park(executor: GraphExecutor, runs: int) -> None:
    for first in range(0, runs, 200):
        await asyncio.gather(*(executor.execute({}) for _ in range(min(200, runs - first))))


async def here(store: SQLCheckpointStore, folder: str, rounds: int) -> Line:
    reached: list[float] = []
    graph = asking(lambda: reached.append(time.perf_counter()))
    bare = BareSQLite(Path(folder) / "floor.db")

    async def decided() -> float:
        handle = await executor.start({})
        await handle.result()
        began = time.perf_counter()
        await handle.decide("ask", Decision.approve(by="ana"))
        await handle.result()
        return (reached[-1] - began) * 1e3

    async def written() -> float:
        return await _timed(bare.write([(str(len(reached)), 1, b"p" * 300)])) * 1e3

    async with GraphExecutor(graph, store=store) as executor:
        for _ in range(rounds):
            await decided()
        took, floor = await alternate(decided, written, rounds=2 * rounds)
    bare.close()
    return Line("from the decision to the next node, in one process", "ms", took, floor, 1, "SQLite, WAL, FULL")


async def elsewhere(url: str, rounds: int) -> Line:
    graph = asking(lambda: None)
    took = []
    async with SQLCheckpointStore(url) as store, GraphExecutor(graph, store=store) as executor:
        program = WAITS.format(folder=str(Path(__file__).parent), url=url)
        child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(rounds):
            run_id = (await executor.execute({})).run_id
            child.stdin.write(run_id + "\n")
            await asyncio.to_thread(child.stdout.readline)
            began = time.time()
            await store.decide(run_id, "ask", Decision.approve(by="ana"))
            took.append((float(await asyncio.to_thread(child.stdout.readline)) - began) * 1e3)
        child.stdin.close()
        child.wait()
    return Line("from the decision to the next node, in another process", "ms", statistics.median(took), 0.0, 20, "SQLite, WAL, FULL")


async def _timed(work: Any) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def _resident() -> int:
    """Kilobytes this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


if __name__ == "__main__":
    run(main, "people")
