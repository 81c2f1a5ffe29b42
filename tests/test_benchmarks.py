"""The benchmarks run and tell every row they promise; what the rows say is nobody's test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

SMALL = {
    "bench_resume": "bench_resume.main(rounds=1, steps=20)",
    "bench_people": "bench_people.main(runs=20, rounds=1)",
    "bench_steps": "bench_steps.memory_chain()",
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_tells_rows_with_a_figure_and_its_settings(name: str) -> None:
    program = f"import asyncio, json, {name}; print(json.dumps([[x.work, x.unit, x.ours, x.settings] for x in asyncio.run({SMALL[name]})]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows
    assert all(work and unit and figure > 0 and settings for work, unit, figure, settings in rows if "memory of each" not in work)
    assert len({work for work, *_ in rows}) == len(rows)


def test_what_is_kept_says_when_and_where_it_was_measured() -> None:
    for file in (FOLDER / "results").glob("*.json"):
        kept = json.loads(file.read_text())
        assert set(kept["measured"]) == {"on", "python", "machine"}
        assert all({"work", "unit", "ours", "budget", "settings"} <= set(row) for row in kept["rows"])
