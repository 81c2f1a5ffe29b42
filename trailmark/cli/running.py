"""`trailmark run` and `trailmark resume`: drive a run in this process, and say where it stands when it ends or stops."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from trailmark.cli import given
from trailmark.cli.exits import ExitCode, exit_code_of
from trailmark.cli.finding import flow_reference, load_graph
from trailmark.cli.terminal import Output, Terminal

if TYPE_CHECKING:
    from engine.executor import GraphExecutor
    from engine.handle import RunHandle, RunResult

MaxSteps = Annotated[int | None, typer.Option("--max-steps", min=1, metavar="N", help="How many node entries the run may make over its whole life.")]
ThroughBarriers = Annotated[
    bool, typer.Option("--through-barriers", help="Stay while people decide, and go on when they have; otherwise the run is parked.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its first characters (8 at least).")]
FlowOption = Annotated[
    str | None,
    typer.Option("--flow", metavar="FLOW", help="The run's flow, as module:name or file.py:name. Default: the environment variable TRAILMARK_FLOW."),
]


async def run(
    terminal: Terminal,
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="The flow to run, as module:name or path/file.py:name.")],
    input: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--input", "-i", metavar="JSON|FILE|-", help="The input: JSON text, a JSON file, or - for stdin. Default: nothing.")
    ] = None,
    run_key: Annotated[str | None, typer.Option("--run-key", metavar="KEY", help="A name of your own; there can be one such run of this flow.")] = None,
    max_steps: MaxSteps = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
    through_barriers: ThroughBarriers = False,
) -> ExitCode:
    """Start a run and drive it until it ends, waits for people, or stops.

    Ctrl-C suspends it: nothing that is committed is lost or done again, and `trailmark resume` goes on.
    """
    terminal.flow = flow
    values, labels = given.input_of(input), given.labels_of(label or ())
    graph = load_graph(flow)
    async with AsyncExitStack() as opened:
        executor, follow = await _executor(terminal, graph, opened, create=True)
        handle = await executor.start(values, run_key=run_key, labels=labels, max_steps=max_steps)
        with follow(handle.run_id):
            result = await _outcome(terminal, handle, through_barriers=through_barriers)
    return _shown(terminal, result)


async def resume(
    terminal: Terminal,
    run: RunArgument,
    flow: FlowOption = None,
    force: Annotated[bool, typer.Option("--force", help="Go on although the flow has changed since the run started; this is recorded.")] = False,
    max_steps: MaxSteps = None,
    takeover: Annotated[bool, typer.Option("--takeover", help="Take the run even from a living process, which then can write nothing more.")] = False,
    through_barriers: ThroughBarriers = False,
) -> ExitCode:
    """Go on with a run exactly where it was; a run that has ended only says how.

    A database never stores where code is, so the flow must be named: by --flow or by TRAILMARK_FLOW.
    """
    from checkpoint_stores.errors import RunEndedError

    async with AsyncExitStack() as opened:
        reference = flow_reference(flow, os.environ)
        if reference is None:
            raise await _which_flow(terminal, run)
        terminal.flow = flow or ""
        graph = load_graph(reference)
        executor, follow = await _executor(terminal, graph, opened, create=False)
        mode = "force" if force else "strict"
        try:
            _check_limit(max_steps, await executor.store.run(run), await _steps_made(executor, run) if max_steps else 0)
            handle = await executor.attach(run, mode=mode, max_steps=max_steps, takeover=takeover)
        except RunEndedError as ended:
            result = await _ended(executor, ended.run_id)
        else:
            with follow(handle.run_id):
                result = await _outcome(terminal, handle, through_barriers=through_barriers)
    return _shown(terminal, result)
