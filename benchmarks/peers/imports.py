"""What it costs to have a system at all: its imports, in a fresh interpreter each time; the floor is an interpreter that imports nothing."""

from __future__ import annotations

import subprocess
import sys

from bench_resume import IMPORT
from measuring import AS_INSTALLED
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
    rows = []
    for key, what, lines in (
        ("import_front", "import what a flow is written with", FRONT),
        ("import_store", "the same, and its SQLite store", DURABLE),
    ):
        milliseconds = Row(key, what, "ms", "a fresh interpreter", {}, {name: Cell() for name in systems})
        megabytes = Row(f"{key}_memory", f"{what}: peak memory", "MB", "the interpreter included", {}, {name: Cell() for name in systems})
        for number in range(rounds + 1):
            for name in systems:
                if name not in lines:
                    milliseconds.cells[name].cannot = megabytes.cells[name].cannot = "it has no durable store"
                    continue
                try:
                    took, peak = _said(lines[name])
                except subprocess.CalledProcessError as error:
                    milliseconds.cells[name].error = megabytes.cells[name].error = error.stderr.strip().splitlines()[-1][:200]
                    continue
                if number:
                    milliseconds.cells[name].figures.append(took)
                    megabytes.cells[name].figures.append(peak)
                for row in (milliseconds, megabytes):
                    row.cells[name].settings = {"imports": lines[name]}
        rows += [milliseconds, megabytes]
    return rows


def _said(line: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(line=line)],
        capture_output=True,
        text=True,
        check=True,
        env={**AS_INSTALLED, **QUIET},
        timeout=60,
    )
    took, peak = done.stdout.split()
    return float(took), float(peak)
