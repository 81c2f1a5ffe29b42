"""Medians of interleaved rounds: ours and the floor take turns, so that a noisy machine is noisy for both."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
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
        return (
            f"{self.work:<58} {self.ours:>10.4g} {self.unit:<9} floor {self.floor:>10.4g}  ratio {self.ratio:>6.2f}  "
            f"budget {self.budget:>8.4g}   ({self.settings})"
        )


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


def report(lines: list[Line], name: str) -> None:
    """Print the table and keep it as JSON beside the benchmarks."""
    for line in lines:
        print(line.shown())
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(line) | {"ratio": line.ratio} for line in lines], indent=1) + "\n")


def run(main: Callable[[], Awaitable[list[Line]]], name: str) -> None:
    report(asyncio.run(main()), name)  # type: ignore[arg-type]
