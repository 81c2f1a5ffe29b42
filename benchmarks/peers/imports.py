"""What it costs to start a program over a system: its imports, and its first run, in a fresh interpreter each time.

The floor imports nothing; its first run is that of the bare driver.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial

from bench_resume import IMPORT, timed_to_the_end
from measuring import AS_INSTALLED
from peers.first_runs import PROGRAMS
from peers.process import QUIET
from peers.table import Cell, Row
from peers.work import FLOOR, OURS

FRONT = {
    FLOOR: "pass",
    OURS: "from trailmark import Flow, GraphExecutor",
    "langgraph": "from langgraph.graph import StateGraph",
    "pydantic-graph": "from pydantic_graph import GraphBuilder",
    "burr": "from burr.core import ApplicationBuilder",
    "dbos": "from dbos import DBOS",
}
"""What a flow is written with."""

DURABLE = {
    FLOOR: "pass",
    OURS: f"{FRONT[OURS]}; from trailmark.checkpoint_stores import SQLCheckpointStore",
    "langgraph": f"{FRONT['langgraph']}; from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver",
    "burr": f"{FRONT['burr']}; from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister",
    "dbos": FRONT["dbos"],
}
"""The same, with what stores it in SQLite."""


def imported(systems: list[str], rounds: int) -> list[Row]:
    front = _measured("import_front", "import what a flow is written with", "a fresh interpreter", _importing(FRONT), systems, rounds)
    return front + _measured("import_store", "the same, and its SQLite store", "a fresh interpreter", _importing(DURABLE), systems, rounds)


def first_runs(systems: list[str], rounds: int) -> list[Row]:
    what = "from a fresh interpreter to the end of a first run of three steps, SQLite"
    told = {name: ({"first run": "benchmarks/peers/first_runs.py"}, partial(_to_the_end, program)) for name, program in PROGRAMS.items()}
    return _measured("start_first_run", what, "a new file; WAL", told, systems, rounds)


Measure = Callable[[], tuple[float, float]]
"""Tells milliseconds and megabytes."""


def _importing(lines: Mapping[str, str]) -> dict[str, tuple[dict[str, str], Measure]]:
    return {name: ({"imports": line}, partial(_said, IMPORT.format(line=line))) for name, line in lines.items()}


def _measured(
    key: str, what: str, settings: str, measures: Mapping[str, tuple[dict[str, str], Measure]], systems: list[str], rounds: int
) -> list[Row]:
    milliseconds = Row(key, what, "ms", settings, {}, {name: Cell() for name in systems})
    megabytes = Row(f"{key}_memory", f"{what}: peak memory", "MB", "the interpreter included", {}, {name: Cell() for name in systems})
    for number in range(rounds + 1):
        for name in systems:
            cells = (milliseconds.cells[name], megabytes.cells[name])
            if name not in measures:
                for cell in cells:
                    cell.cannot = "it has no durable store"
                continue
            said, measure = measures[name]
            try:
                told = measure()
            except subprocess.CalledProcessError as error:
                for cell in cells:
                    cell.error = error.stderr.strip().splitlines()[-1][:200]
                continue
            for cell, figure in zip(cells, told, strict=True):
                cell.settings = said
                if number:
                    cell.figures.append(figure)
    return [milliseconds, megabytes]


def _to_the_end(program: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        return _said(timed_to_the_end(program, folder))


def _said(program: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**AS_INSTALLED, **QUIET},
        timeout=60,
    )
    took, peak = done.stdout.split()
    return float(took), float(peak)
