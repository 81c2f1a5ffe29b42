"""`trailmark runs`: what runs there are, and what happened in one.  Needs nobody's code; what changes a run is in `steering`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from checkpoint_stores.records import ENDED, RunStatus
from trailmark.cli import following, shapes, tables
from trailmark.cli.effects import settling
from trailmark.cli.given import UsageError
from trailmark.cli.lines import Lines
from trailmark.cli.running import RunArgument
from trailmark.cli.terminal import Output, Terminal
from trailmark.cli.verbs import group, verb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checkpoint_stores.protocol import CheckpointStore
    from engine.operations import StepLine

app = group("runs", "List runs, look into one, fork it, cancel it, release it.")

_PAGE = 200
"""How many checkpoints are shown on a terminal, and written at once elsewhere."""

_ORPHANS = 3
"""For how many orphaned runs `runs ls` says how to go on."""

AtOption = Annotated[int | None, typer.Option("--at", metavar="SEQ", min=0, help="The checkpoint (see `runs steps`). Default: the newest.")]


@verb(app, "ls")
async def list_runs(
    terminal: Terminal,
    status: Annotated[
        RunStatus | None, typer.Option("--status", metavar="STATUS", help=f"Only runs in this status: {', '.join(get_args(RunStatus))}.")
    ] = None,
    flow: Annotated[str | None, typer.Option("--flow", metavar="NAME", help="Only runs of the flow with this name.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many at most.")] = 50,
) -> None:
    """List runs, newest first."""
    async with terminal.opened_store() as store:
        found = await store.runs(flow=flow, status=status, limit=limit)
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_run(run) for run in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(run.run_id for run in found)
    elif found:
        terminal.show(tables.runs(found))
        terminal.next_steps([terminal.resume_command(run.run_id) for run in found if run.orphaned][:_ORPHANS])
    else:
        terminal.say("no runs" + (" like that" if status or flow else f" in {terminal.url} yet"))


@verb(app, "show")
async def show(terminal: Terminal, run: RunArgument) -> None:
    """Show one run: where it stands, what it waits for, who decided what, what one would type next."""
    from engine.loading import load_state
    from engine.waiting import retries, waits

    async with terminal.opened_store() as store:
        record = await store.run(run)
        state = await load_state(store, record.run_id)
        record = replace(record, flow_version=str(state.details.get("flow_version", record.flow_version)))
        tickets = await store.barriers(run_id=record.run_id, status=None)
        decided = await store.decisions(record.run_id)
        doubtful = [each for each in await store.effects(record.run_id) if each.status == "in_doubt"]
        now = await store.now()
    is_over = record.status in ENDED
    pending = () if is_over else retries(state)
    held = () if is_over else waits(state)
    open_barriers = [ticket for ticket in tickets if ticket.status == "open"]
    unread = [ticket.ticket for ticket in tickets if ticket.status == "decided" and record.status == "waiting"]
    if terminal.output is Output.JSON:
        more = {"steps": state.step, "seq": state.seq, "stands": shapes.of_place(state)}
        asked = {
            "waiting_for": [shapes.of_barrier(each) for each in open_barriers],
            "retries": [shapes.of_retry(each) for each in pending],
            "waits": [shapes.of_wait(each) for each in held],
            "decided": unread,
            "in_doubt": [shapes.of_effect(each) for each in doubtful],
            "decisions": [shapes.of_decision(each) for each in decided],
        }
        terminal.write_json({**shapes.of_run(record), **more, **asked})
        return
    if terminal.output is Output.IDS:
        terminal.write_ids([record.run_id])
        return
    place = [] if is_over else [(f"{scope.path} {scope.node}".strip(), scope.phase) for scope in state.frontier()]
    terminal.show(tables.of_run(record, place, state.step))
    if open_barriers:
        terminal.show(tables.titled("waits for", tables.barriers(open_barriers)))
    if pending:
        terminal.show(tables.titled("will be tried again", tables.retries(pending)))
    if held:
        terminal.show(tables.titled("waits by itself", tables.waits(held)))
    if decided:
        terminal.show(tables.titled("decisions", tables.decisions(decided)))
    if doubtful:
        terminal.show(tables.titled("side effects in doubt", tables.effects(doubtful)))
    if unread:
        terminal.say(f"{', '.join(unread)}: decided; the run goes on with it when it is resumed")
    if record.status == "waiting":
        is_due = record.wake_at is not None and record.wake_at <= now
        names = [each.ticket for each in open_barriers]
        signals = [each.signal for each in held if each.signal]
        then = following.after_waiting(
            terminal,
            record.run_id,
            tickets=names,
            signals=signals,
            can_move=bool(unread) or is_due,
            comes_by_itself=record.wake_at is not None,
        )
    elif record.orphaned:
        then = [terminal.resume_command(record.run_id)]
    else:
        then = following.after_stop(terminal, record.run_id, record.status, state.step)
    terminal.next_steps([*settling(terminal, record.run_id, [each.key for each in doubtful]), *then])


@verb(app, "steps")
async def steps(
    terminal: Terminal,
    run: RunArgument,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", help="Only checkpoints after this one.")] = -1,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help=f"How many at most. Default: {_PAGE} on a terminal, else all."),
    ] = None,
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, help="Only the last N.")] = None,
) -> None:
    """List a run's checkpoints: which node, what it changed, where it went, how long it took."""
    from engine.operations import steps as steps_of

    on_screen = terminal.output is Output.TABLE and terminal.is_screen()
    most = limit if limit is not None else _PAGE if on_screen else None
    if last is not None and (after >= 0 or limit is not None):
        raise UsageError("give --last alone, or --after and --limit")
    async with terminal.opened_store() as store:
        record = await store.run(run)
        if last is not None:
            after, most = await store.head(record.run_id) - last, None
        found = upto(steps_of(store, record.run_id, after=after), most)
        shown = None
        if terminal.output is Output.JSON:
            await terminal.write_json_list(shapes.of_step(line) async for line in found)
        elif terminal.output is Output.IDS:
            async for line in found:
                terminal.write(str(line.row.seq))
        elif on_screen and most is not None and most <= _PAGE:
            page = [line async for line in found]
            terminal.show(tables.steps(page))
            shown = page[-1] if page else None
        else:
            shown = await _write_steps(terminal, found)
        if shown is not None and await _is_followed(store, record.run_id, shown.row.seq):
            command = terminal.command(
                "runs", "steps", record.run_id, "--after", str(shown.row.seq), *(["--limit", str(limit)] if limit else [])
            )
            terminal.say(f"there are more; next: {command}")


async def _write_steps(terminal: Terminal, found: AsyncIterator[StepLine]) -> StepLine | None:
    """Write a table while it is read; returns its last line."""
    text = Lines(tables.STEP_COLUMNS, right=tables.STEP_NUMBERS)
    page: list[StepLine] = []
    last = None
    async for last in found:
        page.append(last)
        if len(page) == _PAGE:
            terminal.write(text.text(map(tables.step_cells, page)))
            page = []
    if page or last is None:
        terminal.write(text.text(map(tables.step_cells, page)))
    return last


async def _is_followed(store: CheckpointStore, run_id: str, seq: int) -> bool:
    async for _row in store.history(run_id, after=seq):
        return True
    return False


async def upto(lines: AsyncIterator[StepLine], most: int | None) -> AsyncIterator[StepLine]:
    """The first ``most`` of them; all where it is None."""
    number = 0
    async for line in lines:
        yield line
        number += 1
        if number == most:
            return


@verb(app, "state")
async def state(terminal: Terminal, run: RunArgument, at: AtOption = None) -> None:
    """Show the state as of a checkpoint."""
    async with terminal.opened_store() as store:
        record = await store.run(run)
        found = await _values(store, record.run_id, at)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_values(found))
    elif terminal.output is Output.IDS:
        terminal.write_ids(found)
    else:
        terminal.show(tables.values(found))


@verb(app, "diff")
async def diff(
    terminal: Terminal,
    run: RunArgument,
    before: Annotated[int, typer.Argument(metavar="A", min=0, help="A checkpoint.")],
    after: Annotated[int | None, typer.Argument(metavar="B", min=0, help="Another one. Default: the newest.")] = None,
) -> None:
    """Show what changed in the state between two checkpoints."""
    from engine.operations import difference
    from reducers.changes import ABSENT

    async with terminal.opened_store() as store:
        record = await store.run(run)
        pairs = difference(await _values(store, record.run_id, before), await _values(store, record.run_id, after))
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_difference(pairs, ABSENT))
    elif terminal.output is Output.IDS:
        terminal.write_ids(pairs)
    elif pairs:
        terminal.show(tables.differences(pairs, ABSENT))
    else:
        terminal.say("nothing changed")


async def _values(store: CheckpointStore, run_id: str, at: int | None) -> dict[str, object]:
    from engine.loading import load_state
    from engine.operations import values_of

    return values_of(await load_state(store, run_id, at))
