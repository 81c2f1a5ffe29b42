"""A worker process of the demo: drives one run until it ends or waits, and says what it commits.

Started by `trailmark.demo.drama` as ``python -m trailmark.demo.worker``.  It reads its order, one line of JSON, from stdin
(a database URL may hold a password, which a command line would show to everybody) and writes its reports to stdout, one
line of JSON each: ``run``, ``committed``, ``holding``, ``result``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from trailmark import Committed, GraphExecutor, RunFailedError, RunHandle, RunResult, StepContext
from trailmark.checkpoint_stores import open_store
from trailmark.cli.progress import told
from trailmark.demo.environment_audit import audit_flow
from trailmark.demo.journal import journalled

_turn = threading.Lock()


def say(kind: str, **facts: Any) -> None:
    """Write one report."""
    with _turn:
        sys.stdout.write(json.dumps({"kind": kind, **facts}) + "\n")
        sys.stdout.flush()


def tell(done: Committed) -> None:
    """Report a checkpoint, now that it is committed."""
    row = done.row._replace(committed_at=done.committed_at)
    say("committed", seq=row.seq, node=row.node, row_kind=row.kind, told=told(row))


async def drive(order: dict[str, Any]) -> RunResult:
    """Begin or resume the run of the order, and stay with it until it ends or waits."""

    def hold(ctx: StepContext) -> None:
        if (ctx.node, ctx.visit) == ("verify_batch", order.get("hold_at")):
            # Why: left alone, a quick machine would be through before anybody could kill it.  The work of this step is done
            # and not committed, which is the worst moment there is.  If nobody kills us, stdin ends one day and we go on.
            say("holding", visit=ctx.visit, key=ctx.idempotency_key)
            sys.stdin.readline()

    graph = audit_flow(around=journalled(Path(order["journal"]), finished=hold)).compile()
    async with open_store(order["store"]) as store, GraphExecutor(graph, store=store, observers=[tell]) as executor:
        handle: RunHandle
        if "begin" in order:
            handle = await executor.start(order["begin"])
        else:
            handle = await executor.attach(order["resume"], takeover=order["takeover"])
        say("run", run_id=handle.run_id)
        try:
            return await handle.result()
        except RunFailedError as failed:
            return failed.result


def main() -> None:
    """Take an order and carry it out."""
    # Ctrl-C reaches every process of a terminal; what it means is for the one who asked us to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = asyncio.run(drive(json.loads(sys.stdin.readline())))
    say("result", status=result.status, error=dict(result.error) if result.error else None)


if __name__ == "__main__":
    main()
