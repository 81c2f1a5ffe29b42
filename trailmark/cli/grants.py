"""`trailmark approvals allow`, `delegate`, `allowed` and `revoke`: rights given in advance.  Needs nobody's code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trailmark.cli import given, shapes, tables
from trailmark.cli.approvals import ReasonOption, RoleOption
from trailmark.cli.given import UsageError
from trailmark.cli.terminal import Output, Terminal

if TYPE_CHECKING:
    from checkpoint_stores.protocol import CheckpointStore
    from trailmark.checkpoint_stores import Grant

ForRunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="For this run only.")]
ForFlowOption = Annotated[str | None, typer.Option("--flow", metavar="NAME", help="For every run of the flow of this name.")]
TenantOption = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose runs are meant.")]
PathOption = Annotated[
    str | None,
    typer.Option("--path", metavar="PATTERN", help="Only for tickets in branches like this, e.g. orders[*]; * stands for anything."),
]
GiverOption = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Whose right it is; recorded, and checked against the approvers."),
]
_UNTIL = "A span (90m, 12h, 3d, 2w), a day (to its end) or a time."


async def allow(
    terminal: Terminal,
    barrier: Annotated[str, typer.Argument(metavar="BARRIER", help="The barrier's name.")],
    *,
    uses: Annotated[int, typer.Option("--uses", metavar="N", min=1, help="How many tickets it may decide.")],
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help=_UNTIL)],
    action: Annotated[Literal["approve", "reject", "skip"], typer.Option("--action", help="What is decided.")] = "approve",
    run: ForRunOption = None,
    flow: ForFlowOption = None,
    tenant: TenantOption = "",
    path: PathOption = None,
    by: GiverOption = None,
    role: RoleOption = None,
    reason: ReasonOption = "",
) -> None:
    """Decide the next tickets of a barrier in advance; those that are open already are left to people."""
    from trailmark import Decision

    makers = {"approve": Decision.approve, "reject": Decision.reject, "skip": Decision.skip}
    decision = makers[action](by=_named(by), reason=reason, roles=tuple(role or ()), source="cli")
    moment = given.until_of(until)

    async def give(store: CheckpointStore) -> Grant:
        return await store.allow(
            barrier, decision, uses=uses, until=moment, flow=flow, run_id=await _whole(store, run), tenant=tenant, path=path
        )

    await _given(terminal, give)


async def delegate(
    terminal: Terminal,
    barrier: Annotated[str, typer.Argument(metavar="TICKET", help="A ticket (with --run), or a barrier's name.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="Who may decide for you.")],
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help=f"{_UNTIL} Needed with --flow.")] = None,
    run: ForRunOption = None,
    flow: ForFlowOption = None,
    tenant: TenantOption = "",
    path: PathOption = None,
    by: GiverOption = None,
    role: RoleOption = None,
    reason: ReasonOption = "",
) -> None:
    """Let somebody else decide what you may decide; their decisions are recorded as made on your behalf."""
    giver = _named(by)
    moment = given.until_of(until) if until is not None else None

    async def give(store: CheckpointStore) -> Grant:
        return await store.delegate(
            barrier, to=to, by=giver, roles=tuple(role or ()), reason=reason, source="cli", until=moment, flow=flow,
            run_id=await _whole(store, run), tenant=tenant, path=path,
        )  # fmt: skip

    await _given(terminal, give)


async def allowed(
    terminal: Terminal,
    *,
    run: ForRunOption = None,
    flow: ForFlowOption = None,
    tenant: TenantOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Also what is used up, over or revoked.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many at most.")] = 100,
) -> None:
    """List what is decided in advance and who may decide for whom, oldest first."""
    async with terminal.opened_store() as store:
        found = await store.grants(flow=flow, run_id=await _whole(store, run), tenant=tenant, live=not everything, limit=limit)
        now = await store.now()
    if terminal.output is Output.JSON:
        terminal.write_json([shapes.of_grant(each) for each in found])
    elif terminal.output is Output.IDS:
        terminal.write_ids(each.id for each in found)
    elif found:
        terminal.show(tables.grants(found, now))
    else:
        terminal.say("nothing is allowed in advance, and nobody decides for anybody")


async def revoke(
    terminal: Terminal,
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="Its id, as `approvals allowed` shows it.")],
    *,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who revokes it; recorded.")] = None,
    reason: ReasonOption = "",
) -> None:
    """Take back what was allowed or delegated; decisions that came of it stay."""
    who = _named(by)

    async def take_back(store: CheckpointStore) -> Grant:
        return await store.revoke(grant, by=who, reason=reason)

    await _given(terminal, take_back)


def _named(by: str | None) -> str:
    if not by:
        raise UsageError("say whose word it is: --by NAME (or set TRAILMARK_USER); it is recorded")
    return by


async def _whole(store: CheckpointStore, run: str | None) -> str | None:
    return (await store.run(run)).run_id if run is not None else None


async def _given(terminal: Terminal, work: Callable[[CheckpointStore], Awaitable[Grant]]) -> None:
    async with terminal.opened_store() as store:
        grant = await work(store)
        now = await store.now()
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_grant(grant))
    elif terminal.output is Output.IDS:
        terminal.write_ids([grant.id])
    else:
        terminal.show(tables.grants([grant], now))
        if grant.revoked_at is None:
            terminal.next_steps([terminal.command("approvals", "revoke", grant.id, "--by", "NAME")])
