"""Draws what is kept of the curves: cost against size, one picture for each question.

    .venv-peers/bin/python benchmarks/plots.py     reads benchmarks/results/sizes.json, writes docs/explain/pictures/*.svg

Needs matplotlib, which `make bench-peers` installs beside the peers; nothing else of the project does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent / "docs" / "explain" / "pictures"

COLOURS = {"memory": "#7f7f7f", "SQLite": "#1f6fb4", "PostgreSQL": "#b4451f"}
UNITS = {"us": "microseconds", "ms": "milliseconds"}


def main() -> None:
    # The same figures give the same file: no date, no chance in the names of what is drawn.
    mpl.rcParams.update({"svg.hashsalt": "trailmark", "svg.fonttype": "none", "font.size": 9})
    kept = json.loads((HERE / "results" / "sizes.json").read_text())
    PICTURES.mkdir(exist_ok=True)
    for curve in kept["curves"]:
        drawn(curve, PICTURES / f"cost-by-{'-'.join(curve['size'].split())}.svg")


def drawn(curve: dict[str, Any], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
    for name, figures in curve["series"].items():
        axes.plot(curve["sizes"], figures, "o-", color=COLOURS[name], label=name, linewidth=1.4, markersize=3.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=10)
    axes.set_title(curve["what"], fontsize=10)
    axes.set_xlabel(curve["size"])
    axes.set_ylabel(UNITS[curve["unit"]])
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    print(file.relative_to(HERE.parent))


if __name__ == "__main__":
    main()
