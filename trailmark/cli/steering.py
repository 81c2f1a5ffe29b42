"""`trailmark runs fork`, `signal`, `cancel` and `release`: what an operator does to a run.  Needs nobody's code."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from trailmark.cli import given, shapes, tables
from trailmark.cli.finding import flow_reference, load_graph
from trailmark.cli.given import UsageError
from trailmark.cli.running import FlowOption, RunArgument
from trailmark.cli.runs import AtOption
from trailmark.cli.terminal import Output, Terminal


async def fork(
    terminal: Terminal,
    run: RunArgument,
    *,
    at: AtOption = None,
    edit: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=JSON", help="Another value for a state key; may be repeated.")
    ] = None,
    flow: FlowOption = None,
) -> None:
    """Make a new run that stands where this one stood; the original is untouched, decisions are not inherited.

    Where --flow or TRAILMARK_FLOW names the flow, the values of --set are checked against its types.
    """
    from engine.clock import StoreClock
    from engine.operations import fork_run

    edits = given.assignments(edit or (), "--set")
    reference = flow_reference(flow, os.environ)
    schema = load_graph(reference).plan.schema if reference and edits else None
    terminal.flow = flow or ""
    async with terminal.opened_store() as store:
        record = await store.run(run)
        definition = await store.graph(record.graph_hash)
        keys = tuple(json.loads(definition).get("keys", ())) if definition else ()
        made = await fork_run(
            store,
            record.run_id,
            at=at,
            clock=StoreClock(await store.now()),
            edits=edits,
            keys=keys,
            validate=schema.validate_update if schema else None,
        )
        new = await store.run(made)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_run(new))
    elif terminal.output is Output.IDS:
        terminal.write_ids([made])
    else:
        terminal.show(tables.facts([("run", made), ("origin", f"fork of {record.run_id} at checkpoint {new.forked_at_seq}")]))
        terminal.next_steps([terminal.resume_command(made)])
    if edits and schema is None:
        terminal.say("trailmark: the values of --set were not checked against the flow's types; name the flow with --flow to check them")


async def signal(
    terminal: Terminal,
    run: RunArgument,
    name: Annotated[str, typer.Argument(metavar="SIGNAL", help="What happened: an event the flow waits for, or each[3].EVENT.")],
    payload: Annotated[str, typer.Argument(metavar="[JSON]", help="What comes with it; what is no JSON is taken as text.")] = "null",
    *,
    by: Annotated[str, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who sends it; recorded.")] = "",
    signal_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its own name: the same signal sent again under it is no second one.")
    ] = None,
) -> None:
    """Tell a run that something happened; whoever drives it goes on, and one that waits becomes due."""
    async with terminal.opened_store() as store:
        record = await store.run(run)
        sent = await store.signal(record.run_id, name, given.value_of(payload), by=by, signal_id=signal_id)
        record = await store.run(record.run_id)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_signal(sent))
    elif terminal.output is Output.IDS:
        terminal.write_ids([sent.id])
    else:
        terminal.show(tables.facts([("run", sent.run_id), ("signal", sent.name), ("by", sent.actor or "nobody said")]))
        if record.status == "waiting" and record.owner is None:
            terminal.next_steps([terminal.resume_command(record.run_id)])


async def cancel(
    terminal: Terminal,
    run: RunArgument,
    *,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who cancels it; recorded.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")] = "",
) -> None:
    """End a run as cancelled, wherever it is driven."""
    from checkpoint_stores.errors import RunEndedError
    from engine.clock import StoreClock
    from engine.operations import cancel_run

    if not by:
        raise UsageError("say who cancels: --by NAME (or set TRAILMARK_USER); it is recorded")
    async with terminal.opened_store() as store:
        record = await cancel_run(store, (await store.run(run)).run_id, actor=by, reason=reason, clock=StoreClock(await store.now()))
    if record.status != "cancelled":
        raise RunEndedError(record.run_id, record.status)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_run(record))
    elif terminal.output is Output.IDS:
        terminal.write_ids([record.run_id])
    else:
        terminal.show(tables.facts([("run", record.run_id), ("status", tables.status(record.status))]))


async def release(
    terminal: Terminal,
    run: RunArgument,
    *,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who releases it; recorded.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")] = "",
) -> None:
    """Let a quarantined or suspended run go on: the next worker takes it."""
    from engine.clock import StoreClock
    from engine.recovery import release_run

    if not by:
        raise UsageError("say who releases it: --by NAME (or set TRAILMARK_USER); it is recorded")
    async with terminal.opened_store() as store:
        record = await release_run(store, run, actor=by, reason=reason, clock=StoreClock(await store.now()))
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_run(record))
    elif terminal.output is Output.IDS:
        terminal.write_ids([record.run_id])
    else:
        terminal.show(tables.facts([("run", record.run_id), ("status", tables.status(record.status))]))
        terminal.next_steps([terminal.command("worker", "--app", "MODULE:NAME")])
