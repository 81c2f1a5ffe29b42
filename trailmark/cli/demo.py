"""`trailmark demo`: the door to `trailmark.demo.drama`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trailmark.cli.given import UsageError
from trailmark.cli.terminal import Output, Terminal


def demo(
    terminal: Terminal,
    *,
    site: Annotated[
        list[Path] | None,
        typer.Option("--site", metavar="DIR", help="A site directory to audit; may be repeated. Default: those of this interpreter."),
    ] = None,
    reports: Annotated[
        Path, typer.Option("--reports", metavar="DIR", help="Where everything the demo leaves behind goes, in a new folder for each run.")
    ] = Path("environment-audit"),
    decision: Annotated[
        Literal["ask", "approve", "reject"],
        typer.Option(
            "--decision",
            metavar="ask|approve|reject",
            help="What is decided; ask asks on the terminal, and where there is none the run is left waiting.",
        ),
    ] = "ask",
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", envvar="TRAILMARK_USER", help="Who decides; recorded.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")] = "",
    threshold: Annotated[int, typer.Option("--threshold", metavar="N", min=0, help="The highest risk that needs nobody's approval.")] = 20,
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="N", min=1, help="How many distributions are verified per checkpoint. Default: a twelfth."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run of an earlier demo that was interrupted, or that waits.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch site when the run has ended.")] = False,
) -> int:
    """See it happen: an audit of this Python environment is killed halfway, resumed, decided by a person and checked, without network."""
    from trailmark.demo.drama import run_demo

    if terminal.output is not Output.TABLE:
        raise UsageError("the demo is a story for people and has no other output; `runs ls` over its store has")
    if decision != "ask" and not by:
        raise UsageError(f"say who wants to {decision}: --by NAME (or set TRAILMARK_USER); it is recorded")

    return run_demo(
        sites=site or (), reports=reports, store=terminal.named_store, decision=decision, by=by, reason=reason,
        threshold=threshold, batch=batch, resume=resume, keep=keep,
    )  # fmt: skip
