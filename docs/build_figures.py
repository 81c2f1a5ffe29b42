"""Writes docs/reference/figures.md from the figures kept in benchmarks/results (``make docs``); a test says when it is out of date.

It knows how figures are kept and how they are shown; what they mean stands in docs/explain/performance.md.
"""

# ruff: noqa: INP001, T201 - a script, not a module of a package

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reference" / "figures.md"

INTRO = """\
# Measured figures

<!-- Written by docs/build_figures.py (`make docs`) from benchmarks/results; changes here are lost. -->

What was measured, where and when; what it means is said in [performance](../explain/performance.md). All of it is made by `make bench`,
`make bench-sizes` and `make bench-peers`, on any machine: medians of rounds in which everything that is compared takes turns. Figures of
two tables are of two hours, and machines are shared: only what stands in one row may be compared.

The **floor** is the bare driver doing only the write, in the same process and round; a **budget** is what we want it to cost at most."""

UNITS = {
    "us/step": "us a step",
    "us": "us",
    "ms": "ms",
    "MB": "MB",
    "steps/s": "steps/s",
    "per s": "per s",
    "runs/s": "runs/s",
    "bytes": "bytes",
    "x": "times",
}


def kept(name: str) -> dict[str, Any]:
    """What is kept under a name."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def number(figure: float | None) -> str:
    """Three digits that count."""
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def unit(name: str) -> str:
    return UNITS.get(name, name)


def is_met(row: dict[str, Any]) -> bool:
    """Whether the figure is within its budget: below it, or above it where more is better."""
    more_is_better = row["unit"] in ("steps/s", "per s", "runs/s")
    return bool(row["ours"] >= row["budget"] if more_is_better else row["ours"] <= row["budget"])


def measured(found: dict[str, Any]) -> str:
    where = found["measured"]
    return f"Measured on {where['on']}: {where['machine']}, Python {where['python']}.{' ' + where['note'].capitalize() + '.' if where.get('note') else ''}"


def budgets(name: str) -> list[str]:
    """A table of ours, floor and budget."""
    found = kept(name)
    lines = [measured(found), "", "| what | ours | floor | times the floor | budget | | settings |", "|---|---|---|---|---|---|---|"]
    for row in found["rows"]:
        cells = [
            row["work"],
            f"{number(row['ours'])} {unit(row['unit'])}",
            number(row["floor"]) if row["floor"] else "",
            number(row["ratio"]),
            number(row["budget"]),
            "within" if is_met(row) else "**over**",
            row["settings"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def peers() -> list[str]:
    """A table of ours and the peers'."""
    found = kept("peers")
    names = list(found["rows"][0]["systems"])
    lines = [measured(found), "", "In brackets: how many times slower, or bigger, than trailmark; below 1 it is quicker.", ""]
    lines += ["| what | unit | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for row in found["rows"]:
        cells = []
        for name in names:
            cell = row["systems"][name]
            times = f" ({number(cell['slower'])})" if cell["slower"] and name != "floor" else ""
            cells.append("-" if cell["median"] is None else number(cell["median"]) + times)
        lines.append(f"| {row['work']} | {unit(row['unit'])} | " + " | ".join(cells) + " |")
    lines += ["", "What decides about durability, as it was asked of each system's own connection, and why a figure is missing:", ""]
    for name in names:
        said: dict[str, None] = {}
        for row in found["rows"]:
            cell = row["systems"][name]
            if cell["median"] is not None and row["key"].partition("_")[2] in ("sqlite", "postgres"):
                said |= dict.fromkeys(f"{what}: {value}" for what, value in {**cell["settings"], **cell["asked"]}.items())
            if cell["cannot"] or cell["error"]:
                said |= {f"not measured ({row['key']}): {cell['cannot'] or cell['error']}": None}
        lines.append(f"- **{name}**: {'; '.join(said) or 'nothing to say'}.")
    versions = found["versions"]
    wanted = (
        "langgraph",
        "langgraph-checkpoint-sqlite",
        "langgraph-checkpoint-postgres",
        "pydantic-graph",
        "apache-burr",
        "burr",
        "dbos",
        "trailmark",
    )
    lines += ["", "Versions: " + ", ".join(f"{name} {versions[name]}" for name in wanted if name in versions) + "."]
    return lines


def sizes() -> list[str]:
    """Tables of cost against size."""
    found = kept("sizes")
    lines = [measured(found)]
    for curve in found["curves"]:
        file = f"cost-by-{'-'.join(curve['size'].split())}.svg"
        lines += [
            "",
            f"### {curve['what'][0].upper()}{curve['what'][1:]}, by {curve['size']}",
            "",
            f"![{curve['what']}](../explain/pictures/{file})",
            "",
        ]
        lines += [
            f"| {curve['size']} | " + " | ".join(f"{size:,}" for size in curve["sizes"]) + " |",
            "|---|" + "---|" * len(curve["sizes"]),
        ]
        for name, figures in curve["series"].items():
            lines.append(f"| {name}, {unit(curve['unit'])} | " + " | ".join(number(figure) for figure in figures) + " |")
    return lines


def page() -> str:
    """The text of the page as it should stand in its file."""
    parts = [INTRO, "", "## What a step costs", "", *budgets("everything"), "", "## Beside other systems", "", *peers()]
    parts += ["", "## Against size", "", *sizes(), "", "## In a full database", "", *budgets("large")]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
