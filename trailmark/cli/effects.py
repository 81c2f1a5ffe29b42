"""`trailmark runs effects` and `resolve-effect`: which side effects a run carried out, and what a person found out about one in doubt."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from trailmark.cli import shapes, tables
from trailmark.cli.given import UsageError
from trailmark.cli.running import RunArgument
from trailmark.cli.terminal import Output, Terminal


async def effects(terminal: Terminal, run: RunArgument) -> None:
    """List the side effects that a run carries out once (`ctx.once`), oldest first, and which of them are in doubt."""
    async with terminal.opened_store() as store:
        record = await store.run(run)
        found = await store.effects(record.run_id)
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_effect(each) for each in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(each.key for each in found)
    elif found:
        terminal.show(tables.effects(found))
        terminal.next_steps(settling(terminal, record.run_id, [each.key for each in found if each.status == "in_doubt"]))
    else:
        terminal.say("no side effects")


def settling(terminal: Terminal, run_id: str, keys: list[str]) -> list[str]:
    """What one would type about effects in doubt, once one has found out."""
    return [terminal.command("runs", "resolve-effect", run_id, key[:12], "--done", "JSON", "--by", "NAME") for key in keys]


async def resolve_effect(
    terminal: Terminal,
    run: RunArgument,
    effect: Annotated[str, typer.Argument(metavar="EFFECT", help="The effect's key (its first 8 characters do) or its name.")],
    *,
    done: Annotated[str | None, typer.Option("--done", metavar="JSON", help="It happened, and this is what it returned.")] = None,
    not_done: Annotated[bool, typer.Option("--not-done", help="It did not happen: the run will carry it out again.")] = False,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who found out; recorded.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="How; recorded.")] = "",
) -> None:
    """Say whether a side effect in doubt happened; the run goes on with that when it is resumed."""
    if not by:
        raise UsageError("say who found out: --by NAME (or set TRAILMARK_USER); it is recorded")
    if (done is not None) == not_done:
        raise UsageError("say whether it happened: --done JSON (what it returned; null is allowed) or --not-done")
    async with terminal.opened_store() as store:
        run_id = (await store.run(run)).run_id
        settled = await store.resolve_effect(run_id, effect, done=not not_done, outcome=_outcome(done), by=by, reason=reason)
        after = await store.run(run_id)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_effect(settled))
    elif terminal.output is Output.IDS:
        terminal.write_ids([settled.key])
    else:
        terminal.show(tables.effects([settled]))
        if after.owner is None and after.status == "suspended":
            terminal.next_steps([terminal.resume_command(run_id)])


def _outcome(done: str | None) -> Any:
    if done is None:
        return None
    try:
        return json.loads(done)
    except ValueError as error:
        raise UsageError(f"--done holds no JSON: {error} (text goes in quotes of its own: --done '\"paid\"')") from error
