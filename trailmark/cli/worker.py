"""`trailmark worker`: drive every run of some flows that nobody drives, until this process is told to go."""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from trailmark.cli.finding import load_graphs
from trailmark.cli.given import UsageError
from trailmark.cli.plain import iso, one_line
from trailmark.cli.running import nodes_print_elsewhere
from trailmark.cli.terminal import Output, Terminal

if TYPE_CHECKING:
    from trailmark.worker import Report, Worker

_MICROSECONDS = 1_000_000
_SHOWN_ID = 36


async def worker(
    terminal: Terminal,
    *,
    app: Annotated[
        list[str] | None,
        typer.Option(
            "--app",
            metavar="MODULE:NAME",
            help="The flows to drive: a flow, a list of flows or a mapping with flows as values, in a module or a .py file; may be repeated.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", metavar="N", min=1, help="How many runs are driven at once.")] = 10,
    drain: Annotated[
        float,
        typer.Option("--drain", metavar="SECONDS", min=0, help="How long node bodies in flight may take when the worker is told to end."),
    ] = 30.0,
    max_recoveries: Annotated[
        int,
        typer.Option(
            "--max-recoveries",
            metavar="N",
            min=2,
            help="How often in a row a run whose process died is taken up without progress, before it is quarantined.",
        ),
    ] = 3,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing is due any more.")] = False,
) -> None:
    """Drive every run of these flows that is new, given back, decided, due or orphaned.

    SIGTERM or Ctrl-C: takes nothing new, lets node bodies in flight finish, gives its runs back, ends with exit code 0; said again: at
    once. Any number of workers may share a database: each run is driven by one.
    """
    from trailmark.worker import Worker

    if not app:
        raise UsageError("say which flows: --app MODULE:NAME or --app file.py:NAME")
    graphs = [graph for reference in app for graph in load_graphs(reference)]
    say = {Output.TABLE: _line, Output.JSON: _json, Output.IDS: _id}[terminal.output]

    stdout = sys.stdout  # what nodes print goes elsewhere while they run

    def tell(report: Report) -> None:
        if text := say(report):
            stdout.write(f"{text}\n")
            stdout.flush()

    async with nodes_print_elsewhere(terminal), terminal.opened_store(create=True) as store:
        made = Worker(
            graphs, store=store, concurrency=concurrency, drain=timedelta(seconds=drain), max_recoveries=max_recoveries, report=tell
        )
        # What a program is made of is there to stay: no collection looks at it again, so none holds the runs up for long.
        gc.collect()
        gc.freeze()
        with _drained_by_signals(made):
            await made.run(until_idle=until_idle)


@contextmanager
def _drained_by_signals(worker: Worker) -> Iterator[None]:
    """SIGTERM and Ctrl-C drain the worker; the second one at once."""
    import asyncio

    loop = asyncio.get_running_loop()
    asked: list[int] = []

    def ask(number: int) -> None:
        asked.append(number)
        worker.drain(None if len(asked) == 1 else timedelta(0))

    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        for number in numbers:
            loop.add_signal_handler(number, ask, number)
    except (NotImplementedError, RuntimeError, ValueError):
        pass  # no such signals here, or not the main thread: then the command ends as any other does
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _line(report: Report) -> str:
    words = {
        "began": "worker began",
        "draining": "draining",
        "ended": "worker ended",
        "store_away": "the store is away",
        "store_back": "the store is back",
        "taken": "took",
        "let_go": report.status,
        "left_alone": "left alone",
        "quarantined": "quarantined",
    }
    said = f"{datetime.now(UTC).astimezone():%H:%M:%S} {words[report.what]:<12}"
    if report.run_id:
        said += f" {report.run_id:<{_SHOWN_ID}} {report.flow}"
    return one_line(f"{said.rstrip()}{f' ({report.text})' if report.text else ''}")


def _json(report: Report) -> str:
    now = int(datetime.now(UTC).timestamp() * _MICROSECONDS)
    return json.dumps({"at": iso(now), **report._asdict()}, ensure_ascii=False)


def _id(report: Report) -> str:
    return report.run_id if report.what == "let_go" else ""
