"""`trailmark runs fork`, `signal`, `edit`, `cancel`, `release`, `delete`, `export`, `import`: what an operator does to a run.  Only editing needs the author's code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from checkpoint_stores.errors import RunNotEndedError
from checkpoint_stores.records import ENDED
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


async def edit(
    terminal: Terminal,
    run: RunArgument,
    *,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=JSON", help="Another value for a state key; may be repeated.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who edits it; recorded.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")] = "",
    flow: FlowOption = None,
) -> None:
    """Write other values into a run that nobody drives; tickets that show them show the new ones.

    The flow must be named (--flow or TRAILMARK_FLOW): its types say what fits.
    """
    from trailmark import GraphExecutor

    edits = given.assignments(values or (), "--set")
    if not edits:
        raise UsageError("say what to write: --set KEY=JSON")
    if not by:
        raise UsageError("say who edits: --by NAME (or set TRAILMARK_USER); it is recorded")
    reference = flow_reference(flow, os.environ)
    if reference is None:
        raise UsageError("say which flow it is, whose types the values must fit: --flow MODULE:NAME (or set TRAILMARK_FLOW)")
    terminal.flow = flow or ""
    graph = load_graph(reference)
    async with terminal.opened_store() as store, GraphExecutor(graph, store=store) as executor:
        record = await store.run(run)
        seq = await executor.edit(record.run_id, edits, by=by, reason=reason)
    if terminal.output is Output.JSON:
        terminal.write_json({"run_id": record.run_id, "seq": seq, "keys": list(edits)})
    elif terminal.output is Output.IDS:
        terminal.write_ids([record.run_id])
    else:
        terminal.show(tables.facts([("run", record.run_id), ("checkpoint", str(seq)), ("edited", ", ".join(edits)), ("by", by)]))
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


async def delete(
    terminal: Terminal,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs that have ended, or their first characters.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would go.")] = False,
) -> None:
    """Delete runs that have ended, with everything that is kept of them.  Their forks stay."""
    async with terminal.opened_store() as store:
        found = [await store.run(run) for run in runs]
        for record in found:
            if record.status not in ENDED:
                raise RunNotEndedError(record.run_id, record.status)
        if not dry_run:
            found = [await store.delete(record.run_id) for record in found]
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_run(record) for record in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(record.run_id for record in found)
    else:
        for record in found:
            terminal.write(f"run {record.run_id} ({record.status}) {'would be' if dry_run else 'was'} deleted")


async def export(
    terminal: Terminal,
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", metavar="FILE|-", help="The file to write; - is stdout.")] = "-",
) -> None:
    """Write all that is kept of a run to a file: JSON lines with digests, which `runs import` takes in any store.

    Without --to these lines are what is printed, whatever --output says.
    """
    from checkpoint_stores.carrying import lines_of

    async with terminal.opened_store() as store:
        record = await store.run(run)
        image = await store.image(record.run_id)
        if to == "-":
            for line in lines_of(image, store.chain):
                terminal.write(line.decode().rstrip("\n"))
            return
        _write(to, lines_of(image, store.chain))
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_run(record))
    elif terminal.output is Output.IDS:
        terminal.write_ids([record.run_id])
    else:
        terminal.say(f"trailmark: run {record.run_id} ({record.status}) was written to {to}: {len(image.rows)} checkpoint(s)")


async def import_run(
    terminal: Terminal,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="What `runs export` wrote; - is stdin.")],
) -> None:
    """Take a run from another store, under its own id; everything in it is checked first, and nobody owns it here.

    Make sure that it does not go on where it came from: cancel or delete it there.
    """
    from checkpoint_stores.carrying import image_of

    raw = _read(file)
    async with terminal.opened_store(create=True) as store:
        image = image_of(raw.splitlines(), store.chain)
        record = await store.admit(image)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_run(record))
    elif terminal.output is Output.IDS:
        terminal.write_ids([record.run_id])
    else:
        terminal.show(
            tables.facts([("run", record.run_id), ("status", tables.status(record.status)), ("checkpoints", str(len(image.rows)))])
        )
        if record.status not in ENDED:
            terminal.next_steps([terminal.resume_command(record.run_id)])


def _write(file: str, lines: Iterable[bytes]) -> None:
    try:
        with Path(file).open("xb") as opened:
            opened.writelines(lines)
    except OSError as error:
        raise UsageError(f"--to {file}: {error.strerror or error}") from error


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from error
