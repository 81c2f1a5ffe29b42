"""What does it cost to open a long run in a new process, and to have the library at all?

    python benchmarks/bench_resume.py

A run of 2,000 steps that holds 2 MB stops at a barrier; a new process opens the file, resumes the run and is back when it waits
again.  The time counts from after the imports to the result.  The floor decodes the same 2 MB of JSON.  Importing is measured in a
fresh interpreter each time, its peak memory by the operating system.  What a program really waits for is the last pair of rows: from
the start of the interpreter to the end of a first run in a new file, graph compiled and tables made; the floor writes its three lines
by the bare driver.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
from flows import paused
from measuring import AS_INSTALLED, Line, run

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

BARE_OPEN = """
import hashlib, orjson, sqlite3, time
began = time.perf_counter()
raw = sqlite3.connect({file!r}, isolation_level=None)
raw.execute("PRAGMA journal_mode = WAL")
(key,) = raw.execute("SELECT run_id FROM runs").fetchone()
digest, log = b"", []
asked = "SELECT seq, epoch, step, kind, path, node, next, payload, started_at, digest FROM checkpoints WHERE run_id = ? ORDER BY seq"
for *columns, payload, started_at, sealed in raw.execute(asked, (key,)):
    chained = hashlib.sha256(digest)
    chained.update(f"{{columns}}{{started_at}}".encode())
    chained.update(payload)
    chained.digest()
    digest = sealed
    for word, *rest in orjson.loads(payload[1:]):
        if word == "append":
            log += rest[1]
raw.close()
print((time.perf_counter() - began) * 1e3)
assert len(log) == {steps}
"""

PEAK = """
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(took * 1e3, int(peak.split()[1]) / 1024)
"""

IMPORT = f"""
import time
began = time.perf_counter()
{{line}}
took = time.perf_counter() - began
{PEAK}"""

EVERYTHING = "import trailmark; [getattr(trailmark, name) for name in ('Flow', 'GraphExecutor')]; import trailmark.checkpoint_stores as c; c.SQLCheckpointStore"


FIRST_RUN = """
import asyncio
from typing import Annotated

from pydantic import BaseModel

from trailmark import END, Flow, GraphExecutor
from trailmark.checkpoint_stores import SQLCheckpointStore
from trailmark.reducers import append


class State(BaseModel):
    notes: Annotated[list[str], append] = []


flow = Flow("first", State)


@flow.node
async def fetch(state):
    return {{"notes": ["fetched"]}}


@flow.node
async def check(state):
    return {{"notes": ["checked"]}}


@flow.node
async def keep(state):
    return {{"notes": ["kept"]}}


flow.set_entry("fetch").add_edge("fetch", "check").add_edge("check", "keep").add_edge("keep", END)


async def main():
    async with SQLCheckpointStore("sqlite+aiosqlite:///{file}") as store:
        run = await GraphExecutor(flow.compile(), store=store).execute({{}})
    assert run.state.notes == ["fetched", "checked", "kept"]


asyncio.run(main())
"""

BARE_RUN = """
import asyncio
import sqlite3


async def main():
    raw = sqlite3.connect("{file}", isolation_level=None, check_same_thread=False)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("CREATE TABLE rows(run BLOB, seq INTEGER, payload BLOB, PRIMARY KEY(run, seq))")
    for seq in range(3):
        await asyncio.to_thread(raw.execute, "INSERT INTO rows VALUES (?, ?, ?)", (b"r" * 16, seq, b"p" * 60))
    raw.close()


asyncio.run(main())
"""

TO_THE_END = f"""
import time
took = time.time() - {{began}}
{PEAK}"""


async def main(rounds: int = ROUNDS, steps: int = STEPS) -> list[Line]:
    return [*await resumed(rounds, steps), *imported(rounds), *first_run(rounds)]


async def resumed(rounds: int, steps: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/runs.db"
        async with SQLCheckpointStore(url, synchronous="OFF") as store:
            executor = GraphExecutor(paused(steps, SIZE), store=store, max_steps=steps + 5)
            run_id = (await executor.execute({})).run_id
        ours = RESUME.format(folder=str(Path(__file__).parent), steps=steps, size=SIZE, url=url, run=run_id)
        bare = BARE_OPEN.format(file=f"{folder}/runs.db", steps=steps)
        told = [(float(_said(ours)[0]), float(_said(bare)[0])) for _ in range(rounds)]
    took, straight = (statistics.median(each) for each in zip(*told, strict=True))
    held = orjson.dumps(["x" * SIZE] * steps)
    decoded = statistics.median(_decoded(held) for _ in range(rounds))
    what = f"open a run of {steps:,} steps and {steps * SIZE / 1e6:.1f} MB in a new process, resume it"
    return [
        Line(what, "ms", took, decoded, 10, "SQLite, behind the imports"),
        Line("the same, beside the bare driver reading, checking and decoding its rows", "ms", took, straight, 2 * straight, "as above"),
    ]


def imported(rounds: int) -> list[Line]:
    named = {"import trailmark": "import trailmark", "the same, with flows, an executor and the SQL store": EVERYTHING}
    (_nothing, floor), *told = _in_turn(rounds, *(partial(importing, line) for line in ("pass", *named.values())))
    lines = []
    for name, (took, memory) in zip(named, told, strict=True):
        lines += [
            Line(name, "ms", took, 0.0, 300, "a fresh interpreter"),
            Line(f"{name}: peak memory", "MB", memory, floor, 50, "the interpreter included"),
        ]
    return lines


def first_run(rounds: int) -> list[Line]:
    (took, memory), (floor, least) = _in_turn(rounds, partial(to_the_end, FIRST_RUN), partial(to_the_end, BARE_RUN))
    what = "from a fresh interpreter to the end of a first run of three steps"
    return [
        Line(what, "ms", took, floor, 500, "a new SQLite file, WAL, FULL"),
        Line(f"{what}: peak memory", "MB", memory, least, 65, "the interpreter included"),
    ]


def importing(line: str) -> tuple[float, float]:
    """Milliseconds that a fresh interpreter takes over ``line``, and megabytes it then has taken at most."""
    took, memory = _said(IMPORT.format(line=line))
    return float(took), float(memory)


def to_the_end(program: str) -> tuple[float, float]:
    """Milliseconds from the start of an interpreter to the end of ``program``, which has a new ``file``; megabytes as above."""
    with tempfile.TemporaryDirectory() as folder:
        took, memory = _said(timed_to_the_end(program, folder))
    return float(took), float(memory)


def timed_to_the_end(program: str, folder: str) -> str:
    """The program as it is started now: it says at its end how long ago that was, and what it took of memory."""
    return program.format(file=f"{folder}/first.db") + TO_THE_END.format(began=time.time())


def _in_turn(rounds: int, *measures: Callable[[], tuple[float, float]]) -> list[tuple[float, float]]:
    """The medians of what each tells, all taking turns; a round is thrown away first."""
    for measure in measures:
        measure()
    told = [[measure() for measure in measures] for _ in range(rounds)]
    return [
        (statistics.median(took for took, _ in each), statistics.median(memory for _, memory in each)) for each in zip(*told, strict=True)
    ]


def _said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], env=AS_INSTALLED, capture_output=True, text=True, check=True)
    return done.stdout.split()


def _decoded(held: bytes) -> float:
    began = time.perf_counter()
    orjson.loads(held)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    run(main, "resume")
