"""Audit a Python environment: how a script drives a flow, and lets a person decide where the flow asks.

    python examples/environment_audit.py                              the environment of the interpreter that runs this
    python examples/environment_audit.py SITE_DIRECTORY ...           any others
    python examples/environment_audit.py --threshold 0                ask about every finding
    python examples/environment_audit.py --resume RUN_ID              go on with a run that was killed, or that waits

The flow itself stands in `trailmark.demo.environment_audit`, where an installed trailmark finds it, too; this file is all
that it takes to run it.  Kill it whenever you like: every step is committed, and ``--resume`` goes on behind the last one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from trailmark import Committed, Decision, GraphExecutor, RunResult
from trailmark.checkpoint_stores import BarrierRecord, SQLCheckpointStore
from trailmark.demo.environment_audit import Audit, flow


async def audit(options: argparse.Namespace) -> RunResult:
    """Start or resume a run and drive it until it ends, or until nobody is there to decide."""
    options.reports.mkdir(parents=True, exist_ok=True)
    async with (
        SQLCheckpointStore(f"sqlite+aiosqlite:///{options.reports / 'runs.db'}") as store,
        GraphExecutor(flow.compile(), store=store, observers=[show]) as executor,
    ):
        if options.resume:
            result = await executor.resume(options.resume)
        else:
            given = Audit(sites=options.sites, reports=str(options.reports), batch=options.batch, threshold=options.threshold)
            run = await executor.start(given)
            print(f"run {run.run_id}", flush=True)
            result = await run.result()
        while result.status == "waiting":
            (ticket,) = await store.barriers(run_id=result.run_id)
            decision = ask(ticket)  # Blocks the loop, in which nothing else runs: a waiting run is parked.
            if decision is None:
                print(f"It waits for a person: python {sys.argv[0]} --reports {options.reports} --resume {result.run_id}")
                break
            await store.decide(result.run_id, ticket.ticket, decision)
            result = await executor.resume(result.run_id)
        return result


def show(done: Committed) -> None:
    """Print a checkpoint: it is committed, so whatever stands on the screen survives a crash."""
    row = done.row
    place = f"{row.path} {row.node}" if row.path else row.node
    print(f"{row.seq:5}  {row.kind:9} {place}", flush=True)


def ask(ticket: BarrierRecord) -> Decision | None:
    """Ask whoever sits in front of the terminal; None where nobody does, or where they do not want to decide now."""
    print(ticket.prompt)
    for found in ticket.payload["findings"]:
        if found["id"] not in ticket.payload["ignore"]:
            print(f"  {found['severity']:6}  {found['id']}: {found['message']}")
    if not sys.stdin.isatty():
        return None
    answer = input("[a]pprove, [r]eject, [i]gnore some findings, or Enter to decide later: ").strip().lower()
    by = input("Your name: ").strip() if answer in ("a", "r", "i") else ""
    if not by:
        return None
    reason = input("Why: ").strip()
    # Why seen: the decision is bound to what was shown; had the run moved on meanwhile, it would be refused.
    if answer == "a":
        return Decision.approve(by=by, reason=reason, seen=ticket.digest, source="terminal")
    if answer == "r":
        return Decision.reject(by=by, reason=reason, seen=ticket.digest, source="terminal")
    ignore = [*ticket.payload["ignore"], *input("Ids of the findings to ignore: ").split()]
    return Decision.modify(by=by, reason=reason, edits={"ignore": ignore}, seen=ticket.digest, source="terminal")


def main() -> None:
    """Read the options and say what came out."""
    parser = argparse.ArgumentParser(description="Audit a Python environment.")
    parser.add_argument("sites", nargs="*", help="site directories; default: those of this interpreter")
    parser.add_argument("--reports", type=Path, default=Path("environment-audit"), help="folder of the reports and of the runs")
    parser.add_argument("--batch", type=int, default=10, help="distributions verified per step (default: 10)")
    parser.add_argument("--threshold", type=int, default=20, help="the highest risk that needs nobody's approval (default: 20)")
    parser.add_argument("--resume", metavar="RUN_ID", help="go on with this run")
    result = asyncio.run(audit(parser.parse_args()))
    print(f"{result.status} after {result.steps} steps, risk {result.state.risk}")
    for path in result.state.written.values():
        print(path)


if __name__ == "__main__":
    main()
