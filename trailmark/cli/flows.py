"""`trailmark flows`: a flow as a picture, and whether it is sound."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reducers.errors import how_many
from trailmark.cli import shapes
from trailmark.cli.exits import ExitCode
from trailmark.cli.finding import flow_reference, load_graph
from trailmark.cli.given import UsageError
from trailmark.cli.plain import printable
from trailmark.cli.terminal import FLOW_VARIABLE, Output, Terminal
from trailmark.cli.verbs import group, verb

if TYPE_CHECKING:
    from checkpoint_stores.fold import RunState

app = group("flows", "Draw a flow, check a flow.")


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


@verb(app, "validate")
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
