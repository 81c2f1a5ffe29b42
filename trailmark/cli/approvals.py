"""`trailmark approvals`: what waits for people, and what they say.

A decision is bound to what the person saw: after the prompt and the payload were shown and confirmed, a payload that changed
meanwhile refuses it.  Nobody's name is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from trailmark.cli import given, shapes, tables
from trailmark.cli.given import UsageError
from trailmark.cli.plain import value_text
from trailmark.cli.running import RunArgument
from trailmark.cli.terminal import Output, Terminal
from trailmark.cli.verbs import group, in_loop, verb

if TYPE_CHECKING:
    from trailmark import Decision
    from trailmark.cli.tickets import Ticket

app = group("approvals", "List what waits for people, look at it, approve or reject it.")

TicketArgument = Annotated[
    str, typer.Argument(metavar="TICKET", help="The ticket, as `approvals ls` shows it, or just the barrier's name.")
]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who decides; recorded, and checked against the approvers."),
]
RoleOption = Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="A role that person acts in; may be repeated.")]
ForOption = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="NAME",
        help="On whose behalf, where somebody delegated it to you; found by itself if you may not decide otherwise.",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")]
SeenOption = Annotated[
    str | None,
    typer.Option(
        "--seen",
        metavar="DIGEST",
        help="The digest of the payload the person saw (its first 8 characters do); refused if the ticket shows another.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask back.")]


@verb(app, "ls")
async def list_barriers(
    terminal: Terminal, limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many at most.")] = 100
) -> None:
    """List what waits for people, oldest first.

    With -o ids, each line is a run and a ticket, ready for `approvals approve`.
    """
    from trailmark.cli import tickets

    async with terminal.opened_store() as store:
        found = await store.barriers(limit=limit)
        early = await tickets.decided_early(store, (each.run_id for each in found)) if terminal.output is Output.TABLE else []
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_barrier(each) for each in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(f"{each.run_id} {each.ticket}" for each in found)
    elif found:
        terminal.show(tables.barriers(found))
        if early:
            terminal.show(tables.titled("decided early: counts when the run comes there", tables.early_decisions(early)))
    else:
        terminal.say("nothing waits for people")


@verb(app, "show")
async def show(terminal: Terminal, run: RunArgument, ticket: TicketArgument) -> None:
    """Show what a ticket asks, of whom, over which values, and what was decided."""
    from trailmark.cli import tickets

    async with terminal.opened_store() as store:
        found = await tickets.find(store, run, ticket)
        votes = found.votes(await store.decisions(found.run.run_id))
        later = found.of_later_visits(await tickets.decided_early(store, [found.run.run_id]))
    run_id = found.run.run_id
    if terminal.output is Output.JSON:
        terminal.write_json({**shapes.of_ticket(run_id, found.asked), "decisions": [shapes.of_decision(vote) for vote in votes]})
    elif terminal.output is Output.IDS:
        terminal.write_ids([f"{run_id} {found.name}"])
    else:
        terminal.show(tables.of_ticket(run_id, found.asked))
        if votes:
            terminal.show(tables.titled("decisions", tables.decisions(votes)))
        if later:
            terminal.show(tables.titled("decided early, for later visits", tables.decisions(later)))
        if found.takes_decisions:
            terminal.next_steps([terminal.command("approvals", word, run_id, found.name, "--by", "NAME") for word in ("approve", "reject")])


@verb(app, "approve")
def approve(
    terminal: Terminal,
    run: RunArgument,
    ticket: TicketArgument,
    *,
    by: ByOption = None,
    role: RoleOption = None,
    on_behalf_of: ForOption = None,
    reason: ReasonOption = "",
    seen: SeenOption = None,
    edit: Annotated[
        list[str] | None,
        typer.Option("--edit", metavar="KEY=JSON", help="Approve with another value; the ticket's form must allow it. May be repeated."),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Let the run pass; on a terminal, after showing over what and asking back."""
    from trailmark import Decision

    edits = given.assignments(edit or (), "--edit")

    def decision(who: str, digest: str | None) -> Decision:
        if edits:
            return Decision.modify(
                by=who,
                edits=edits,
                approve=True,
                reason=reason,
                roles=tuple(role or ()),
                seen=digest,
                source="cli",
                on_behalf_of=on_behalf_of,
            )
        return Decision.approve(by=who, reason=reason, roles=tuple(role or ()), seen=digest, source="cli", on_behalf_of=on_behalf_of)

    question = f"Approve with {', '.join(f'{key} = {value_text(value)}' for key, value in edits.items())}?" if edits else "Approve?"
    _decide(terminal, run, ticket, decision, by=by, seen=seen, question=None if yes else question)


@verb(app, "reject")
def reject(
    terminal: Terminal,
    run: RunArgument,
    ticket: TicketArgument,
    *,
    by: ByOption = None,
    role: RoleOption = None,
    on_behalf_of: ForOption = None,
    reason: ReasonOption = "",
    seen: SeenOption = None,
    yes: YesOption = False,
) -> None:
    """Do not let the run pass; on a terminal, after showing over what and asking back."""
    from trailmark import Decision

    def decision(who: str, digest: str | None) -> Decision:
        return Decision.reject(by=who, reason=reason, roles=tuple(role or ()), seen=digest, source="cli", on_behalf_of=on_behalf_of)

    _decide(terminal, run, ticket, decision, by=by, seen=seen, question=None if yes else "Reject?")


def _decide(
    terminal: Terminal,
    run: str,
    ticket: str,
    decision: Callable[[str, str | None], Decision],
    *,
    by: str | None,
    seen: str | None,
    question: str | None,
) -> None:
    if not by:
        raise UsageError("say who decides: --by NAME (or set TRAILMARK_USER); it is recorded")
    if question and terminal.is_interactive():
        # Asked between two openings of the store: a person may take an hour, and Ctrl-C must reach the question.
        found = in_loop(_looked_at(terminal, run, ticket))
        if found.takes_decisions:
            terminal.console(error=True).print(tables.of_ticket(found.run.run_id, found.asked))
            if not typer.confirm(f"\n{question}", err=True):
                raise typer.Abort
            # What was shown is what is decided over.
            seen = found.whole_digest(seen) or found.digest
    in_loop(_recorded(terminal, run, ticket, decision, by=by, seen=seen))


async def _looked_at(terminal: Terminal, run: str, ticket: str) -> Ticket:
    from trailmark.cli import tickets

    async with terminal.opened_store() as store:
        return await tickets.find(store, run, ticket)


async def _recorded(
    terminal: Terminal, run: str, ticket: str, decision: Callable[[str, str | None], Decision], *, by: str, seen: str | None
) -> None:
    from trailmark.cli import tickets

    async with terminal.opened_store() as store:
        found = await tickets.find(store, run, ticket)
        taken = await store.decide(found.run.run_id, found.name, decision(by, found.whole_digest(seen)))
        after = await store.run(found.run.run_id)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_decision(taken))
    elif terminal.output is Output.IDS:
        terminal.write_ids([f"{taken.run_id} {taken.ticket}"])
    else:
        is_early = not found.digest
        told = ", before it was asked" if is_early else ""
        for_whom = f" on behalf of {taken.on_behalf_of}" if taken.on_behalf_of else ""
        counts = f"it counts when the run opens {taken.ticket}, and not before" if is_early else ""
        terminal.show(
            tables.facts([
                ("run", taken.run_id), ("ticket", taken.ticket), ("decision", f"{taken.action} by {taken.actor}{for_whom}{told}"), ("early", counts),
            ])
        )  # fmt: skip
        if after.owner is None:
            terminal.next_steps([terminal.resume_command(taken.run_id)])
