"""`trailmark runs replay`: what would today's flow have decided in stored runs?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from trailmark.cli import shapes
from trailmark.cli.exits import ExitCode
from trailmark.cli.finding import flow_reference, load_graph
from trailmark.cli.given import UsageError
from trailmark.cli.plain import printable
from trailmark.cli.terminal import Output, Terminal

if TYPE_CHECKING:
    from engine.replaying import Replay


async def replay(
    terminal: Terminal,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="One run, by its id or its first characters (8 at least). Default: all runs of the flow."),
    ] = None,
    *,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow",
            "--app",
            metavar="FLOW",
            help="The flow as it is today, as module:name or file.py:name. Default: the environment variable TRAILMARK_FLOW.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many runs at most, newest first.")] = 1000,
) -> ExitCode:
    """Ask today's flow about every decision that stored runs have recorded, and say where it would decide otherwise.

    Nothing is written, and no node is called; conditions, reducers and types are asked.
    """
    from trailmark.testing import replay as replayed

    reference = flow_reference(flow, os.environ)
    if reference is None:
        raise UsageError("say which flow: --flow MODULE:NAME (or set TRAILMARK_FLOW)")
    terminal.flow = flow or ""
    graph = load_graph(reference)
    async with terminal.opened_store() as store:
        found = await replayed(graph, store, run, limit=limit)
    _show(terminal, found)
    return ExitCode.OK if all(each.matches for each in found) else ExitCode.FLOW


def _show(terminal: Terminal, found: list[Replay]) -> None:
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_replay(each) for each in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(each.run_id for each in found if not each.matches)
    else:
        for each in found:
            terminal.write(printable(str(each)))
        diverged = sum(not each.matches for each in found)
        terminal.say(f"{len(found)} run(s) replayed: {len(found) - diverged} match, {diverged} diverged")
