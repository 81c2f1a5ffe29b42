"""`trailmark demo`: the door to `trailmark.demo.drama`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trailmark.cli.given import UsageError
from trailmark.cli.terminal import Terminal


class DemoDecision(StrEnum):
    """What the demo does at its barrier."""

    ASK = "ask"
    APPROVE = "approve"
    REJECT = "reject"


def demo(
    terminal: Terminal,
    *,
    decision: Annotated[DemoDecision, typer.Option("--decision", help="Decide without being asked; needs --by.")] = DemoDecision.ASK,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who decides.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, of a decision that is not asked for.")] = "",
    reports: Annotated[Path, typer.Option("--reports", metavar="FOLDER", help="Where everything goes that the demo leaves behind.")] = Path(
        "environment-audit"
    ),
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on with a demo that was interrupted, or that waits.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch site when the run has ended.")] = False,
) -> int | None:
    """See it happen: an audit of this Python environment is killed halfway, resumed, decided by you, and ended.

    On this machine and without network. Without a terminal and without --decision nothing is decided: the run waits (exit code 3).
    """
    from trailmark.demo.drama import run_demo

    if decision is not DemoDecision.ASK and not by:
        raise UsageError("a decision is made by somebody; say who, with --by NAME")
    return run_demo(reports=reports, store=terminal.store, decision=decision.value, by=by, reason=reason, resume=resume, keep=keep)
