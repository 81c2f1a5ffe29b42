"""What one would type next about a run, by where it stands.  Pure: facts in, commands out."""

from __future__ import annotations

from collections.abc import Sequence

from trailmark.cli.terminal import Terminal


def after_stop(terminal: Terminal, run_id: str, status: str, steps: int) -> list[str]:
    """How to go on with a run that stands still though nothing has to come from outside.

    >>> after_stop(Terminal(flow="shop:flow"), "0192f7c4-...", "limit_reached", 40)
    ['trailmark resume 0192f7c4-... --flow shop:flow --max-steps 80']
    """
    match status:
        case "limit_reached":
            return [terminal.resume_command(run_id, "--max-steps", str(max(2 * steps, 1)))]
        case "quarantined":
            return [terminal.command("runs", "steps", run_id), terminal.command("runs", "release", run_id, "--by", "NAME")]
        case "created" | "ready":
            return [terminal.command("worker", "--app", terminal.flow or "MODULE:NAME"), terminal.resume_command(run_id)]
        case "suspended":
            return [terminal.resume_command(run_id)]
        case "failed":
            return [terminal.command("runs", "steps", run_id)]
        case _:
            return []


def after_waiting(
    terminal: Terminal, run_id: str, *, tickets: Sequence[str], can_move: bool, comes_by_itself: bool, signals: Sequence[str] = ()
) -> list[str]:
    """How to go on with a run that waits.

    ``tickets`` are what people are asked, ``signals`` what is to happen outside; ``can_move`` where something came already (a decision, a time), ``comes_by_itself``
    where a time is going to come.
    """
    asked = [terminal.command("approvals", "show", run_id, ticket) for ticket in tickets]
    asked += [terminal.command("runs", "signal", run_id, name) for name in dict.fromkeys(signals)]
    if can_move:
        return [terminal.resume_command(run_id), *asked]
    # Before its time a resume would only park the run again: this one stays until then.
    return [*asked, terminal.resume_command(run_id, "--through-barriers")] if comes_by_itself and not asked else asked
