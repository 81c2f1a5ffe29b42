"""Audit a Python environment, with a kill in the middle; or, with --plain, just audit it.

    python examples/environment_audit.py                              the demo: killed halfway, resumed, decided, ended
    python examples/environment_audit.py --decision approve --by ana  the same where nobody can be asked
    python examples/environment_audit.py --plain                      no kill: the environment of the interpreter that runs this
    python examples/environment_audit.py --plain SITE_DIRECTORY ...   any others
    python examples/environment_audit.py [--plain] --resume RUN_ID    go on with a run that was killed, or that waits

The flow itself stands in `trailmark.demo.environment_audit`, where an installed trailmark finds it, too; the demo around it is
`trailmark.demo.drama`.  What stands here is all that it takes to run the flow (`drive`) and to let a person decide (`ask`).
Kill it whenever you like: every step is committed, and ``--resume`` goes on behind the last one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from trailmark import Committed, Decision, GraphExecutor, RunResult, TrailmarkError
from trailmark.checkpoint_stores import BarrierRecord, open_store
from trailmark.demo.drama import run_demo
from trailmark.demo.environment_audit import Audit, flow


async def drive(store_url: str, given: Audit | None, run_id: str = "") -> tuple[RunResult, list[BarrierRecord]]:
    """Start a run, or resume one, and drive it until it ends or waits; also returns what it waits for."""
    async with open_store(store_url) as store, GraphExecutor(flow.compile(), store=store, observers=[show]) as executor:
        if given is not None:
            run = await executor.start(given)
            print(f"run {run.run_id}", flush=True)
            result = await run.result()
        else:
            result = await executor.resume(run_id)
        return result, await store.barriers(run_id=result.run_id)


def show(done: Committed) -> None:
    """Print a checkpoint: it is committed, so whatever stands on the screen survives a crash."""
    row = done.row
    print(f"{row.seq:5}  {row.kind:9} {row.path} {row.node}", flush=True)


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


async def decide(store_url: str, ticket: BarrierRecord, decision: Decision) -> None:
    """Record a decision; whoever resumes the run acts on it."""
    async with open_store(store_url) as store:
        await store.decide(ticket.run_id, ticket.ticket, decision)


def audit(options: argparse.Namespace) -> int:
    """Start or resume a run, and see it through until it ends, or until nobody is there to decide."""
    options.reports.mkdir(parents=True, exist_ok=True)
    store_url = f"sqlite+aiosqlite:///{options.reports / 'runs.db'}"
    given = Audit(sites=options.sites, reports=str(options.reports), batch=options.batch or 10, threshold=options.threshold)
    result, tickets = asyncio.run(drive(store_url, None if options.resume else given, options.resume))
    while result.status == "waiting":
        # Outside the event loop: while a person thinks, nothing runs, and no process holds the run.
        decision = ask(tickets[0]) if tickets else None
        if decision is not None:
            asyncio.run(decide(store_url, tickets[0], decision))
        elif tickets:
            print(f"It waits for a person: python {sys.argv[0]} --plain --reports {options.reports} --resume {result.run_id}")
            break
        result, tickets = asyncio.run(drive(store_url, None, result.run_id))
    print(f"{result.status} after {result.steps} steps, risk {result.state.risk}")
    for path in result.state.written.values():
        print(path)
    return 3 if result.status == "waiting" else 0


def main() -> int:
    """Read the options, and play the demo or audit without it."""
    parser = argparse.ArgumentParser(description="Audit a Python environment; kill the audit halfway, resume it, decide it.")
    parser.add_argument("sites", nargs="*", help="site directories; default: those of this interpreter")
    parser.add_argument("--plain", action="store_true", help="audit, and nothing else: no kill, no scratch site")
    parser.add_argument("--reports", type=Path, default=Path("environment-audit"), help="folder of the reports and of the runs")
    parser.add_argument("--batch", type=int, help="distributions verified per step (default: 10; in the demo a twelfth of them)")
    parser.add_argument("--threshold", type=int, default=20, help="the highest risk that needs nobody's approval (default: 20)")
    parser.add_argument("--resume", metavar="RUN_ID", help="go on with this run")
    demo = parser.add_argument_group("the demo, that is without --plain")
    demo.add_argument("--decision", choices=["ask", "approve", "reject"], default="ask", help="decide without being asked; needs --by")
    demo.add_argument("--by", metavar="NAME", help="who decides")
    demo.add_argument("--reason", default="", help="why, of a decision that is not asked for")
    demo.add_argument("--keep", action="store_true", help="keep the scratch site when the run has ended")
    options = parser.parse_args()
    if options.decision != "ask" and not options.by:
        parser.error("a decision is made by somebody; say who, with --by NAME")
    try:
        if options.plain:
            return audit(options)
        return run_demo(**{name: value for name, value in vars(options).items() if name != "plain"})
    except TrailmarkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
