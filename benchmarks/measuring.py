"""Medians of interleaved rounds: ours and the floor take turns, so that a noisy machine is noisy for both."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROUNDS = 7


@dataclass(frozen=True)
class Line:
    """One row of the table: a question, ours, the floor, the budget."""

    work: str
    unit: str
    ours: float
    floor: float
    budget: float
    settings: str

    @property
    def ratio(self) -> float:
        return self.ours / self.floor if self.floor else float("nan")

    def shown(self) -> str:
        beside = f"floor {self.floor:>8.4g}  ratio {self.ratio:>6.2f}" if self.floor else " " * 28
        return f"{self.work:<64} {self.ours:>8.4g} {self.unit:<8} {beside}  budget {self.budget:>7.4g}   ({self.settings})"


async def alternate(
    ours: Callable[[], Awaitable[float]], floor: Callable[[], Awaitable[float]], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Median of what each returns, the two taking turns; one round each is thrown away first."""
    await ours()
    await floor()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        taken[0].append(await ours())
        taken[1].append(await floor())
    return statistics.median(taken[0]), statistics.median(taken[1])


async def timed(work: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


NOTE = sys.argv[sys.argv.index("--note") + 1] if "--note" in sys.argv[:-1] else ""
"""What must be known of the machine, kept beside the figures."""

AS_INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of an interpreter whose start is measured.  Installed packages come with their bytecode; sources run from a checkout are to
have theirs after the round that is thrown away, whatever the shell says, or they would be compiled again in every round."""

RESULTS = Path(__file__).parent / "results"


def report(lines: list[Line], name: str, *, keep: bool = False) -> None:
    """Print the table, each row beside what was kept of it last; with ``keep`` this is what is kept from now on."""
    kept = _kept(name)
    for line in lines:
        print(line.shown() + _beside(line, kept.get(line.work)))
    if keep:
        RESULTS.mkdir(exist_ok=True)
        rows = [asdict(line) | {"ratio": line.ratio if line.floor else None} for line in lines]
        (RESULTS / f"{name}.json").write_text(json.dumps({"measured": machine(), "rows": rows}, indent=1) + "\n")
        print(f"kept in benchmarks/results/{name}.json")


def _kept(name: str) -> dict[str, dict[str, Any]]:
    file = RESULTS / f"{name}.json"
    found = json.loads(file.read_text()) if file.exists() else {"rows": []}
    return {row["work"]: row for row in found["rows"]}


def _beside(line: Line, kept: dict[str, Any] | None) -> str:
    """How it stands to the kept figure; by the floors of both where there are any, since machines differ and so do their hours."""
    if kept is None or not kept["ours"]:
        return "  (new)"
    change = line.ratio / kept["ratio"] if line.floor and kept.get("ratio") else line.ours / kept["ours"]
    return f"  {change:.2f} x kept" + (" (by the floor)" if line.floor and kept.get("ratio") else "")


def machine() -> dict[str, str]:
    """When and where figures were measured."""
    kind = f"{platform.machine()}, {os.cpu_count()} cores"
    where = {"on": date.today().isoformat(), "python": platform.python_version(), "machine": kind}  # noqa: DTZ011
    return where | ({"note": NOTE} if NOTE else {})


def run(main: Callable[[], Awaitable[list[Line]]], name: str) -> None:
    """Measure, print, and with ``--keep`` keep."""
    report(asyncio.run(main()), name, keep="--keep" in sys.argv)  # type: ignore[arg-type]
