"""What does it cost to open a long run in a new process, and to have the library at all?

    python benchmarks/bench_resume.py

A run of 2,000 steps that holds 2 MB stops at a barrier; a new process opens the file, resumes the run and is back when it waits
again.  The time counts from after the imports to the result.  The floor decodes the same 2 MB of JSON.  Importing is measured in a
fresh interpreter each time, its peak memory by the operating system.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
from flows import paused
from measuring import Line, run

from trailmark import GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore

STEPS, SIZE, ROUNDS = 2000, 1000, 9

RESUME = """
import asyncio, sys, time
sys.path.insert(0, {folder!r})
from flows import paused
from trailmark import GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore
import engine.executor, checkpoint_stores.sql.store

async def main():
    graph = paused({steps}, {size})
    began = time.perf_counter()
    async with SQLCheckpointStore({url!r}) as store:
        result = await GraphExecutor(graph, store=store, max_steps=9999).resume({run!r})
        print((time.perf_counter() - began) * 1e3)
    assert result.status == "waiting"

asyncio.run(main())
"""

IMPORT = """
import time
began = time.perf_counter()
{line}
took = time.perf_counter() - began
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(took * 1e3, int(peak.split()[1]) / 1024)
"""

EVERYTHING = "import trailmark; [getattr(trailmark, name) for name in ('Flow', 'GraphExecutor')]; import trailmark.checkpoint_stores as c; c.SQLCheckpointStore"


async def main(rounds: int = ROUNDS, steps: int = STEPS) -> list[Line]:
    return [await resumed(rounds, steps), *await imported(rounds)]


async def resumed(rounds: int, steps: int) -> Line:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/runs.db"
        async with SQLCheckpointStore(url, synchronous="OFF") as store:
            executor = GraphExecutor(paused(steps, SIZE), store=store, max_steps=steps + 5)
            run_id = (await executor.execute({})).run_id
        program = RESUME.format(folder=str(Path(__file__).parent), steps=steps, size=SIZE, url=url, run=run_id)
        told = [float(_said(program)[0]) for _ in range(rounds)]
    held = orjson.dumps(["x" * SIZE] * steps)
    return Line(
        f"open a run of {steps:,} steps and {steps * SIZE / 1e6:.1f} MB in a new process, resume it", "ms", statistics.median(told),
        statistics.median(_decoded(held) for _ in range(rounds)), 10, "SQLite, behind the imports",
    )  # fmt: skip


async def imported(rounds: int) -> list[Line]:
    lines = []
    bare = [_said(IMPORT.format(line="pass")) for _ in range(rounds)]
    floor = statistics.median(float(memory) for _took, memory in bare)
    for name, line in (("import trailmark", "import trailmark"), ("the same, with flows, an executor and the SQL store", EVERYTHING)):
        told = [_said(IMPORT.format(line=line)) for _ in range(rounds)]
        took, memory = (statistics.median(float(each[place]) for each in told) for place in (0, 1))
        lines += [
            Line(name, "ms", took, 0.0, 300, "a fresh interpreter"),
            Line(f"{name}: peak memory", "MB", memory, floor, 50, "the interpreter included"),
        ]
    return lines


def _said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _decoded(held: bytes) -> float:
    began = time.perf_counter()
    orjson.loads(held)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    run(main, "resume")
