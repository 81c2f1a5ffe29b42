"""`trailmark approvals`: what waits for people, and what they say.

A decision is bound to what the person saw: after the prompt and the payload were shown and confirmed, a payload that changed
meanwhile refuses it.  Nobody's name is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trailmark.cli import given, shapes, tables
from trailmark.cli.exits import ExitCode
from trailmark.cli.given import UsageError
from trailmark.cli.running import RunArgument
from trailmark.cli.terminal import Output, Terminal
from trailmark.cli.verbs import group, verb

if TYPE_CHECKING:
    from checkpoint_stores.deciding import EarlyTicket
    from checkpoint_stores.protocol import CheckpointStore
    from checkpoint_stores.records import BarrierRecord, DecisionRecord, RunRecord
    from engine.decisions import Decision

app = group("approvals", "List what waits for people, look at it, approve or reject it.")

TicketArgument = Annotated[str, typer.Argument(metavar="TICKET", help="The ticket, as `approvals ls` shows it, or just the barrier's name.")]
ByOption = Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who decides; recorded, and checked against the approvers.")]
RoleOption = Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="A role that person acts in; may be repeated.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")]
SeenOption = Annotated[
    str | None, typer.Option("--seen", metavar="DIGEST", help="The digest of the payload the person saw (its first 8 characters do); refused if the ticket shows another.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask back.")]


@verb(app, "ls")
async def list_barriers(terminal: Terminal, limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 100) -> None:
    """List what waits for people, oldest first.

    With -o ids, each line is a run and a ticket, ready for `approvals approve`.
    """
    async with terminal.opened_store() as store:
        found = await store.barriers(limit=limit)
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_barrier(each) for each in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(f"{each.run_id} {each.ticket}" for each in found)
    elif found:
        terminal.show(tables.barriers(found))
    else:
        terminal.say("nothing waits for people")


@verb(app, "show")
async def show(terminal: Terminal, run: RunArgument, ticket: TicketArgument) -> None:
    """Show what a ticket asks, of whom, over which values, and what was decided."""
    async with terminal.opened_store() as store:
        record = await store.run(run)
        barrier = await _found(store, record, ticket)
        votes = [vote for vote in await store.decisions(record.run_id) if vote.ticket in _names(barrier)]
    if terminal.output is Output.JSON:
        shown: dict[str, Any] = shapes.of_barrier(barrier) if _is_open(barrier) else shapes.of_early(record.run_id, barrier)
        terminal.write_json({**shown, "decisions": [shapes.of_decision(vote) for vote in votes]})
        return
    if terminal.output is Output.IDS:
        terminal.write_ids([f"{record.run_id} {_names(barrier)[0]}"])
        return
    terminal.show(_rendered(record, barrier))
    if votes:
        terminal.show(tables.titled("decisions", tables.decisions(votes)))
    if not _is_open(barrier) or barrier.status == "open":
        terminal.next_steps([terminal.command("approvals", word, record.run_id, _names(barrier)[0], "--by", "NAME") for word in ("approve", "reject")])
