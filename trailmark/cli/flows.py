"""`trailmark flows`: a flow as a picture and as a shape, how two differ, and whether one is sound."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reducers.errors import how_many
from trailmark.cli import shapes, tables
from trailmark.cli.exits import ExitCode
from trailmark.cli.finding import flow_reference, load_graph
from trailmark.cli.given import UsageError
from trailmark.cli.plain import printable
from trailmark.cli.terminal import FLOW_VARIABLE, Output, Terminal
from trailmark.cli.verbs import group, verb

if TYPE_CHECKING:
    from checkpoint_stores.fold import RunState
    from engine.compatibility import Objection

app = group("flows", "Draw a flow, look at its shape, compare two, check one.")


class Format(StrEnum):
    """What a flow is drawn as."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


FlowArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="FLOW", help=f"The flow, as module:name or path/file.py:name. Default: the environment variable {FLOW_VARIABLE}."
    ),
]


@verb(app, "graph")
async def graph(
    terminal: Terminal,
    flow: FlowArgument = None,
    format: Annotated[  # noqa: A002 - the option's name
        Format,
        typer.Option(
            "--format", "-f", metavar="text|mermaid|dot|svg", help="Readable lines, or a picture for Mermaid, Graphviz or a browser."
        ),
    ] = Format.TEXT,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Mark the path this run took; without FLOW, draw the flow as the run has it.")
    ] = None,
) -> None:
    """Draw a flow; with --run, the path a run took and where it stands."""
    visited: list[str] = []
    current: list[str] = []
    definition: dict[str, Any] | None = None
    if run is not None:
        definition, visited, current = await _path_of(terminal, run)
    reference = flow if run is not None else flow_reference(flow, os.environ)
    if reference is not None:
        definition = load_graph(reference).definition
    if definition is None:
        raise UsageError("say which flow: module:name or file.py:name, or --run RUN for the flow of a run")
    if terminal.output is Output.JSON:
        terminal.write_json({"definition": definition, "visited": visited, "current": current})
    else:
        terminal.write(_drawn(definition, format, visited, current))


@verb(app, "show")
async def show(
    terminal: Terminal,
    flow: FlowArgument = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="The flow as this run has it; needs nobody's code.")] = None,
) -> None:
    """Show the shape of a flow: nodes, kinds, cycles, depth, fan-in and fan-out, middleware."""
    from engine.topology import topology_of

    reference = flow if run is not None else flow_reference(flow, os.environ)
    given = run if reference is None else reference
    if given is None:
        raise UsageError("say which flow: module:name or file.py:name, or --run RUN for the flow of a run")
    found = topology_of(await _definition(terminal, given))
    if terminal.output is Output.JSON:
        terminal.write_json(found)
    elif terminal.output is Output.IDS:
        terminal.write_ids(_place(node["path"], node["name"]) for node in found["nodes"])
    else:
        terminal.show(tables.topology(found))


@verb(app, "diff")
async def diff(
    terminal: Terminal,
    before: Annotated[str, typer.Argument(metavar="A", help="A flow (module:name or file.py:name), or a run.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another flow or run.")],
) -> None:
    """Show what differs between two flows, as far as it decides how a run goes; a run stands for the flow it has.

    From a run (A) to a flow (B) it also says whether that run can go on with that flow, and if not, why.
    """
    from engine.definition import difference, hash_of

    old, new = await _definition(terminal, before), await _definition(terminal, after)
    lines = difference(old, new)
    found = await _objections(terminal, before, after)
    if terminal.output is Output.JSON:
        about = {} if found is None else {"objections": [each._asdict() for each in found]}
        hashes = {"before": hash_of(old), "after": hash_of(new), "same": hash_of(old) == hash_of(new)}
        terminal.write_json({**hashes, "difference": lines, **about})
    elif lines:
        for line in lines:
            terminal.write(printable(line))
        if found is not None and terminal.output is Output.TABLE:
            said = [f"run {before} cannot go on with it as it stands:", *(f"  {each}" for each in found)]
            terminal.say("\n".join(said) if found else f"run {before} can go on with it")
    elif terminal.output is Output.TABLE:
        terminal.say("no difference")


async def _objections(terminal: Terminal, run: str, flow: str) -> tuple[Objection, ...] | None:
    """What keeps a run from going on with a flow; None where this is not what is compared, or the run has ended."""
    from checkpoint_stores.records import ENDED
    from engine.admitting import judged
    from engine.loading import load_state

    if ":" in run or ":" not in flow:
        return None
    graph = load_graph(flow)
    async with terminal.opened_store() as store:
        record = await store.run(run)
        if record.status in ENDED or record.flow != graph.name:
            return None
        return (await judged(store, record, await load_state(store, record.run_id), graph)).objections


async def _definition(terminal: Terminal, given: str) -> dict[str, Any]:
    """The definition of a flow that is named as module:name or file.py:name, or of the flow of a run."""
    if ":" in given:
        return load_graph(given).definition
    definition, _visited, _current = await _path_of(terminal, given)
    if definition is None:
        raise UsageError(f"the definition of the flow of run {given} is not in the store; name the flow: module:name or file.py:name")
    return definition


@verb(app, "validate", without={"store"})
def validate(terminal: Terminal, flow: FlowArgument = None) -> ExitCode:
    """Check a flow: its problems (it cannot run), and what is worth a second look."""
    from trailmark import FlowValidationError

    reference = flow_reference(flow, os.environ)
    if reference is None:
        raise UsageError("say which flow: module:name or file.py:name")
    try:
        compiled = load_graph(reference)
    except FlowValidationError as invalid:
        if terminal.output is Output.JSON:
            terminal.write_json({"flow": invalid.flow, "valid": False, "problems": list(invalid.problems), "warnings": []})
        elif terminal.output is Output.TABLE:
            for problem in invalid.problems:
                terminal.write(f"problem: {printable(problem)}")
        terminal.say(f"trailmark: flow {invalid.flow!r} cannot run: {how_many(len(invalid.problems), 'problem')}")
        return ExitCode.FLOW
    if terminal.output is Output.JSON:
        about = {"flow": compiled.name, "version": compiled.version, "graph_hash": compiled.graph_hash, "valid": True, "problems": []}
        terminal.write_json({**about, "warnings": [shapes.of_warning(warning) for warning in compiled.warnings]})
    elif terminal.output is Output.IDS:
        terminal.write_ids([compiled.graph_hash])
    else:
        for warning in compiled.warnings:
            terminal.write(f"warning ({warning.code}): {printable(warning.message)}")
        terminal.write(
            f"flow {compiled.name} (version {compiled.version}) is valid: {len(compiled.plan.nodes)} nodes, graph {compiled.graph_hash[:12]}"
        )
    return ExitCode.OK


def _drawn(definition: dict[str, Any], form: Format, visited: list[str], current: list[str]) -> str:
    if form is Format.SVG:
        from engine.svg import svg

        return svg(definition, visited=visited, current=current)
    if form is Format.TEXT:
        from engine.definition import described

        path = [f"  path taken: {' -> '.join(visited)}"] if visited else []
        stands = [f"  stands at: {', '.join(current)}"] if current else []
        return printable("\n".join([described(definition), *path, *stands]))
    from engine.draw import dot, mermaid

    return (mermaid if form is Format.MERMAID else dot)(definition, visited=visited, current=current)


async def _path_of(terminal: Terminal, run: str) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """The stored definition of a run's flow, the nodes it went through, in order, and those it stands at."""
    from checkpoint_stores.records import ENDED
    from engine.loading import load_state

    async with terminal.opened_store() as store:
        record = await store.run(run)
        state: RunState = await load_state(store, record.run_id)
        visited = dict.fromkeys([_place(row.path, row.node) async for row in store.history(record.run_id) if row.node])
        stored = await store.graph(state.details.get("graph_hash", record.graph_hash))
    current = [] if record.status in ENDED else [_place(scope.path, scope.node) for scope in state.frontier()]
    return (json.loads(stored) if stored else None), list(visited), current


def _place(path: str, node: str) -> str:
    return f"{path}.{node}" if path else node
