"""The table, the notes below it, and what is kept: figures, rounds, settings, versions, machine."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from measuring import RESULTS
from peers.work import FLOOR, OURS, Work


@dataclass
class Cell:
    """What one system did at one workload: the figure of each round that counts, or why there is none."""

    figures: list[float] = field(default_factory=list)
    cannot: str = ""
    error: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    rows: int = 0

    @property
    def reason(self) -> str:
        return self.cannot or self.error

    @property
    def median(self) -> float | None:
        return statistics.median(self.figures) if self.figures else None

    @property
    def said(self) -> str:
        return "error" if self.error else "-" if self.median is None else f"{self.median:.4g}"

    def heard(self, told: dict[str, Any], work: Work, sizes: dict[str, int], *, counts: bool) -> None:
        self.cannot, self.error = told.get("cannot", ""), told.get("error", "")
        if self.reason:
            return
        self.settings, self.rows = told["settings"], told["rows"]
        self.asked |= told["asked"]
        if counts:
            self.figures.append(work.figure(told["seconds"], told["bytes"], sizes))


@dataclass
class Row:
    """One workload over all systems."""

    key: str
    title: str
    unit: str
    settings: str
    sizes: dict[str, int]
    cells: dict[str, Cell]

    def slower(self, name: str) -> float | None:
        """How many times slower (or bigger) than ours; below 1 it is quicker."""
        theirs, ours = self.cells[name].median, self.cells[OURS].median
        if not theirs or not ours or name == OURS:
            return None
        return ours / theirs if self.unit.endswith("/s") else theirs / ours


def shown(rows: list[Row], systems: list[str]) -> str:
    """One line per workload: its figures, and behind each peer's how many times slower than ours it is."""
    width = max([len(row.title) for row in rows], default=10)
    lines = [f"{'':<{width}} {'unit':<8}" + "".join(f"{name:>18}" for name in systems)]
    for row in rows:
        cells = []
        for name in systems:
            times = row.slower(name)
            beside = f" ({times:.3g} x)" if times and name != FLOOR else ""
            cells.append(f"{row.cells[name].said + beside:>18}")
        lines.append(f"{row.title:<{width}} {row.unit:<8}" + "".join(cells) + (f"   ({row.settings})" if row.settings else ""))
    lines += ["", "(n x): so many times slower, or bigger, than trailmark; below 1, quicker.", *_notes(rows)]
    return "\n".join(lines)


def _notes(rows: list[Row]) -> list[str]:
    """What must be said beside the figures: settings of each system once, what it cannot do, where it failed."""
    lines: list[str] = []
    for name in rows[0].cells if rows else ():
        settings: dict[str, str] = {}
        asked: dict[str, set[str]] = {}
        reasons: dict[str, list[str]] = {}
        for row in rows:
            cell = row.cells[name]
            if not {"imports", "first run"} & set(cell.settings):
                settings |= cell.settings
            for what, said in cell.asked.items():
                asked.setdefault(f"{row.key.rpartition('_')[2]}, {what}", set()).add(said)
            if cell.reason:
                reasons.setdefault(cell.reason, []).append(row.key)
        lines += ["", f"{name}", *(f"  {what}: {said}" for what, said in settings.items())]
        lines += [f"  {what}: {' / '.join(sorted(said))}" for what, said in asked.items()]
        lines += [f"  not {', '.join(keys)}: {reason}" for reason, keys in reasons.items()]
    return lines


def keep(rows: list[Row], folder: Path, note: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    said = {
        "measured": {
            "on": datetime.now(tz=UTC).date().isoformat(), "python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "processor": _processor(), "system": platform.system(), "sqlite": sqlite3.sqlite_version, "files": _file_system(folder),
            "load": os.getloadavg()[2], "note": note,
        },
        "versions": {each.metadata["Name"]: each.version for each in sorted(distributions(), key=lambda each: each.metadata["Name"].lower())},
        "rows": [_kept(row) for row in rows],
    }  # fmt: skip
    (RESULTS / "peers.json").write_text(json.dumps(said, indent=1) + "\n")
    print("\nkept in benchmarks/results/peers.json")


def _kept(row: Row) -> dict[str, Any]:
    systems = {
        name: {
            "median": cell.median, "slower": row.slower(name), "rounds": cell.figures, "rows": cell.rows, "cannot": cell.cannot,
            "error": cell.error, "asked": cell.asked, "settings": cell.settings,
        }
        for name, cell in row.cells.items()
    }  # fmt: skip
    return {"key": row.key, "work": row.title, "unit": row.unit, "settings": row.settings, "sizes": row.sizes, "systems": systems}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    named = (
        [line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith("model name")] if file.exists() else []
    )
    return named[0] if named else platform.processor()


def _file_system(folder: Path) -> str:
    """What the databases lie on: a file system in memory would make every fsync free."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    return max(((point, kind) for point, kind in found if folder.is_relative_to(point)), key=lambda each: len(each[0]))[1]
