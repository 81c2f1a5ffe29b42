"""`trailmark runs events`: what a run tells, from its log and as it comes.  Needs nobody's code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trailmark.cli.given import UsageError
from trailmark.cli.plain import local, one_line, shortened, value_text
from trailmark.cli.running import RunArgument
from trailmark.cli.terminal import Output, Terminal

if TYPE_CHECKING:
    from trailmark.events import Envelope

_DETAIL = 200
_SAID_ELSEWHERE = frozenset({"kind", "timestamp_ms", "step_name", "flow_name", "backend"})


async def events(
    terminal: Terminal,
    run: RunArgument,
    *,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="Only events after the one with this id. Default: from the beginning.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", "-n", metavar="N", min=1, help="Only the last N events; with --follow, and what comes.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the run has ended, also while it waits; Ctrl-C changes nothing.")
    ] = False,
) -> None:
    """List what happened in a run, event by event; with -o json one JSON document a line.

    Events of a run that another process drives come when their checkpoint is committed.
    """
    from trailmark.events import follow as stream
    from trailmark.events import last_events

    if after is not None and last is not None:
        raise UsageError("give --after or --last, not both")
    async with terminal.opened_store() as store:
        newest = await last_events(store, run, last) if last is not None else []
        for envelope in newest:
            _show(terminal, envelope)
        if last is not None and not follow:
            return
        begin = newest[-1].id if newest else after
        async with stream(store, run, after=begin, follow=follow, through_barriers=follow) as told:
            async for envelope in told:
                _show(terminal, envelope)


def _show(terminal: Terminal, envelope: Envelope) -> None:
    """Write one event, at once."""
    if terminal.output is Output.JSON:
        sys.stdout.write(f"{envelope.model_dump_json()}\n")
    elif terminal.output is Output.IDS:
        sys.stdout.write(f"{envelope.id}\n")
    else:
        sys.stdout.write(f"{line_of(envelope)}\n")
    sys.stdout.flush()


def line_of(envelope: Envelope) -> str:
    """One event as a line for people."""
    event = envelope.event
    where = ".".join(filter(None, (envelope.path, getattr(event, "step_name", ""))))
    return f"{envelope.id:<10} {local(event.timestamp_ms * 1000)}  {event.kind:<17} {one_line(where):<20} {_detail(event)}".rstrip()


def _detail(event: Any) -> str:
    told = {name: value for name, value in event if name not in _SAID_ELSEWHERE and value not in ("", None, [])}
    if event.kind in ("step_token", "tool_call"):
        return shortened(value_text(event.content), _DETAIL)
    return shortened(
        " ".join(f"{name}={value if isinstance(value, int | float) else value_text(value)}" for name, value in told.items()), _DETAIL
    )
