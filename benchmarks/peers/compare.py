"""The same workloads over trailmark and its peers, on one machine, in one run: `make bench-peers`.

    make bench-peers                           the table
    make bench-peers ARGS="--quick"            small sizes and one round: does it work?  Its figures mean little
    make bench-peers ARGS="sqlite crowd"       only the rows whose key holds one of the words
    make bench-peers ARGS="--only dbos"        only this system beside ours and the floor
    make bench-peers ARGS="--keep"             and keep it in benchmarks/results/peers.json

Every system runs in a process of its own, one per workload; the rounds are interleaved (each system's first, each one's second, ...,
each round beginning with another system), and the first, a small one in which a witness looks on, is thrown away.  What is shown is the median.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers.imports import first_runs, imported
from peers.process import PeerProcess
from peers.table import Cell, Row, keep, shown
from peers.work import FLOOR, OURS, SYSTEMS, WORKS, Work

from trailmark.testing.postgres import PostgresServer

ROUND_SECONDS = 90
"""How long a round of one system may take; then it is stopped, and says so in its cell."""

Places = Callable[[str], Any]


def main() -> None:
    said = _arguments()
    until = time.monotonic() + said.minutes * 60
    systems = [name for name in SYSTEMS if not said.only or name in {FLOOR, OURS, *said.only}]
    works = [work for work in WORKS if not said.words or any(word in work.key for word in said.words)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="trailmark-peers-") as folder, _places(Path(folder), works) as places:
        for work in works:
            rows.append(_measured(work, systems, places, said.quick, until))
            print(f"  {work.key}: " + ", ".join(f"{name} {cell.said}" for name, cell in rows[-1].cells.items()), file=sys.stderr)
        if not said.words or any("import" in word for word in said.words):
            rows += imported(systems, 1 if said.quick else 3)
        if not said.words or any("first" in word for word in said.words):
            rows += first_runs(systems, 1 if said.quick else 5)
        print(shown(rows, systems))
        if said.keep:
            keep(rows, Path(folder), said.note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-peers", description="Compare trailmark with its peers.")
    parser.add_argument("words", nargs="*", help="only the rows whose key holds one of them")
    parser.add_argument("--only", action="append", choices=list(SYSTEMS), help="only this system (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--minutes", type=float, default=10.0, help="no round starts later than this; medians are of those made")
    parser.add_argument("--keep", action="store_true", help="keep the figures in benchmarks/results/peers.json")
    parser.add_argument("--note", default="", help="what must be known of the machine, kept beside the figures")
    return parser.parse_args()


def _measured(work: Work, systems: list[str], places: Places, quick: bool, until: float) -> Row:
    """All rounds of one workload, the systems taking turns."""
    sizes = work.quick if quick else work.sizes
    row = Row(work.key, work.title, work.unit, work.settings, sizes, {name: Cell() for name in systems})
    processes = {name: PeerProcess(name, work.key) for name in systems}
    try:
        for number in range((1 if quick else work.rounds) + 1):
            for name in _turned(systems, number):
                process, cell = processes[name], row.cells[name]
                if cell.reason or (number > 1 and time.monotonic() > until):
                    continue
                with places(work.kind) as place:
                    told = process.round(place, sizes if number else work.quick, looks=number == 0, seconds=ROUND_SECONDS)
                cell.heard(told, work, sizes, counts=number > 0)
    finally:
        for process in processes.values():
            process.end()
    return row


def _turned(systems: list[str], number: int) -> list[str]:
    """Each round begins with another system: what one leaves behind for the disk to do is not always the same one's burden."""
    first = number % len(systems)
    return systems[first:] + systems[:first]


@contextmanager
def _places(folder: Path, works: list[Work]) -> Iterator[Places]:
    """Empty places to run in: a new file, a new database of a server that is started for this."""
    server = PostgresServer(fsync=True) if any(work.kind == "postgres" for work in works) else None
    try:
        if server:
            server.start()

        @contextmanager
        def place(kind: str) -> Iterator[dict[str, str]]:
            if kind == "sqlite":
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    yield {"kind": kind, "url": f"{own}/state.db"}
            elif kind == "postgres":
                assert server is not None
                url = server.create_database()
                try:
                    yield {"kind": kind, "url": url.replace("+asyncpg", "", 1)}
                finally:
                    server.drop_database(url)
            else:
                yield {"kind": kind, "url": ""}

        yield place
    finally:
        if server:
            server.stop()


if __name__ == "__main__":
    main()
