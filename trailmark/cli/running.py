"""`trailmark run` and `trailmark resume`: drive a run in this process, and say where it stands when it ends or stops."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reducers.errors import how_many
from trailmark.cli import following, given, plain, shapes, tables
from trailmark.cli.exits import ExitCode, exit_code_of
from trailmark.cli.finding import flow_reference, load_graph
from trailmark.cli.given import UsageError
from trailmark.cli.progress import Progress
from trailmark.cli.terminal import Output, Terminal

if TYPE_CHECKING:
    from engine.admitting import ResumeMode
    from engine.handle import RunHandle
    from engine.result import RunResult
    from trailmark import FlowGraph, GraphExecutor

MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", min=1, metavar="N", help="How many node entries the run may make over its whole life.")
]
ThroughBarriers = Annotated[
    bool, typer.Option("--through-barriers", help="Stay while people decide, and go on when they have; otherwise the run is parked.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its first or last characters (8 at least).")]
FlowOption = Annotated[
    str | None,
    typer.Option(
        "--flow", metavar="FLOW", help="The run's flow, as module:name or file.py:name. Default: the environment variable TRAILMARK_FLOW."
    ),
]


async def run(
    terminal: Terminal,
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="The flow to run, as module:name or path/file.py:name.")],
    *,
    input: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option("--input", "-i", metavar="JSON|FILE|-", help="The input: JSON text, a JSON file, or - for stdin. Default: nothing."),
    ] = None,
    run_key: Annotated[
        str | None,
        typer.Option(
            "--key",
            "--run-key",
            metavar="KEY",
            help="A name of your own: the same command again finds the same run, and starts no second one.",
        ),
    ] = None,
    supersede: Annotated[
        bool,
        typer.Option(
            "--supersede", help="Where the key names a run with another input (or one that failed), cancel it and take its place."
        ),
    ] = False,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who starts it; recorded where a run is superseded.")
    ] = "",
    max_steps: MaxSteps = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")] = None,
    through_barriers: ThroughBarriers = False,
    submit: Annotated[bool, typer.Option("--submit", help="Only create the run, and leave it to a worker.")] = False,
) -> ExitCode:
    """Start a run and drive it until it ends, waits for people, or stops.

    Ctrl-C suspends it: nothing that is committed is lost or done again, and `trailmark resume` goes on.
    """
    if submit and through_barriers:
        raise UsageError("--submit leaves the run to a worker, --through-barriers stays with it: they contradict each other")
    terminal.flow = flow
    values, labels = given.input_of(input), given.labels_of(label or ())
    graph = load_graph(flow)

    said: dict[str, Any] = {
        "run_key": run_key,
        "labels": labels,
        "max_steps": max_steps,
        "if_exists": "supersede" if supersede else "join",
        "by": by,
    }
    if submit:
        return await _submitted(terminal, graph, values, **said)

    async def begin(executor: GraphExecutor) -> RunHandle:
        handle = await executor.start(values, **said)
        if not handle.created:
            terminal.say(f"trailmark: run {handle.run_id} is already there under the key {run_key!r}")
        return handle

    return _shown(terminal, await _driven(terminal, graph, begin, create=True, through_barriers=through_barriers))


async def resume(
    terminal: Terminal,
    run: RunArgument,
    *,
    flow: FlowOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although what is under way has changed in the flow; this is recorded.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse any change of the flow, harmless or not.")] = False,
    max_steps: MaxSteps = None,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the run even from a living process, which then can write nothing more.")
    ] = False,
    through_barriers: ThroughBarriers = False,
) -> ExitCode:
    """Go on with a run exactly where it was; a run that has ended only says how.

    A database never stores where code is, so the flow must be named: by --flow or by TRAILMARK_FLOW.
    """
    reference = flow_reference(flow, os.environ)
    if reference is None:
        raise await _which_flow(terminal, run)
    terminal.flow = flow or ""
    if force and strict:
        raise UsageError("--force and --strict contradict each other")
    graph = load_graph(reference)
    mode: ResumeMode = "force" if force else "strict" if strict else "compatible"

    async def begin(executor: GraphExecutor) -> RunHandle:
        return await executor.attach(run, mode=mode, max_steps=max_steps, takeover=takeover)

    return _shown(terminal, await _driven(terminal, graph, begin, create=False, through_barriers=through_barriers))


async def _driven(
    terminal: Terminal, graph: FlowGraph, begin: Callable[[GraphExecutor], Awaitable[RunHandle]], *, create: bool, through_barriers: bool
) -> RunResult:
    """Drive a run here; when this process is interrupted, the run is suspended and it is said how to go on."""
    import asyncio

    from checkpoint_stores.errors import RunEndedError
    from checkpoint_stores.records import ENDED
    from trailmark import RunFailedError

    interrupted: RunResult | None = None
    try:
        async with nodes_print_elsewhere(terminal), _executor(terminal, graph, create=create) as executor:
            try:
                handle = await begin(executor)
                try:
                    return await handle.result(through_barriers=through_barriers)
                except asyncio.CancelledError:
                    interrupted = await asyncio.shield(handle.suspend("interrupted at the command line"))
                    raise
            except RunEndedError as ended:
                return await executor.resume(ended.run_id)
    except RunFailedError as failed:
        if terminal.debug and failed.__cause__ is not None:
            import traceback

            traceback.print_exception(failed.__cause__)
        return failed.result
    finally:
        if interrupted is not None:
            stands = {"suspended": "is suspended", "waiting": "waits for people"}.get(interrupted.status, f"has {interrupted.status}")
            then = "" if interrupted.status in ENDED else f"; next: {terminal.resume_command(interrupted.run_id)}"
            terminal.say(f"trailmark: interrupted; run {interrupted.run_id} {stands} after {how_many(interrupted.steps, 'step')}{then}")


async def _submitted(terminal: Terminal, graph: FlowGraph, values: object, **options: Any) -> ExitCode:
    from trailmark import GraphExecutor

    async with terminal.opened_store(create=True) as store, GraphExecutor(graph, store=store) as executor:
        run = await store.run(await executor.submit(values, **options))
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_run(run))
    elif terminal.output is Output.IDS:
        terminal.write_ids([run.run_id])
    else:
        terminal.show(tables.facts([("run", run.run_id), ("status", tables.status(run.status))]))
        terminal.next_steps([terminal.command("worker", "--app", terminal.flow)])
    return ExitCode.OK


@asynccontextmanager
async def nodes_print_elsewhere(terminal: Terminal) -> AsyncIterator[None]:
    """Where the output is for a program, what node functions print goes to stderr: stdout holds the result alone."""
    if terminal.output is Output.TABLE:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


@asynccontextmanager
async def _executor(terminal: Terminal, graph: FlowGraph, *, create: bool) -> AsyncIterator[GraphExecutor]:
    """An executor over the terminal's store, whose steps are shown as they are committed."""
    from trailmark import GraphExecutor

    async with terminal.opened_store(create=create) as store:
        if not terminal.shows_progress():
            async with GraphExecutor(graph, store=store) as executor:
                yield executor
            return
        async with (
            Progress(terminal.console(error=True)) as progress,
            GraphExecutor(graph, store=store, observers=[progress.observe]) as executor,
        ):
            yield executor


async def _which_flow(terminal: Terminal, run_id: str) -> UsageError:
    """What to say when nobody said where the flow is; the run at least knows its name."""
    async with terminal.opened_store() as store:
        record = await store.run(run_id)
    said = f"run {record.run_id} is of flow {record.flow!r}; a store never holds where code is, so say it (or set TRAILMARK_FLOW)"
    return UsageError(said, then=terminal.command("resume", record.run_id, "--flow", "MODULE:NAME"))


def _shown(terminal: Terminal, result: RunResult) -> ExitCode:
    """Print where the run stands now."""
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_result(result))
    elif terminal.output is Output.IDS:
        terminal.write_ids([result.run_id])
    else:
        terminal.show(tables.of_result(result))
        terminal.next_steps(_following(terminal, result))
    if result.status == "failed":
        error = result.error or {}
        told = plain.one_line(f"{error.get('type')}: {error.get('message')}")
        (then,) = following.after_stop(terminal, result.run_id, result.status, result.steps)
        terminal.say(f"trailmark: run {result.run_id} failed: {told}; next: {then}")
    elif result.status == "suspended" and result.exception is not None:
        terminal.say(f"trailmark: run {result.run_id} stopped: {plain.one_line(str(result.exception))}")
    return exit_code_of(result.status)


def _following(terminal: Terminal, result: RunResult) -> list[str]:
    """The commands one would type after this."""
    if result.status != "waiting":
        return [] if result.status == "failed" else following.after_stop(terminal, result.run_id, result.status, result.steps)
    asked = [terminal.command("approvals", "approve", result.run_id, ticket, "--by", "NAME") for ticket in result.waiting_for]
    if not asked:
        signals = [wait.signal for wait in result.waits if wait.signal]
        return following.after_waiting(terminal, result.run_id, tickets=(), signals=signals, can_move=False, comes_by_itself=True)
    return [*asked, terminal.resume_command(result.run_id)]
