"""`trailmark runs check`: whether a run's checkpoints tell one whole story.  Needs nobody's code."""

from __future__ import annotations

from trailmark.cli import shapes, tables
from trailmark.cli.exits import ExitCode
from trailmark.cli.running import RunArgument
from trailmark.cli.terminal import Output, Terminal


async def check(terminal: Terminal, run: RunArgument) -> ExitCode:
    """Check a run's checkpoints against the contracts: order, steps, edges, deltas, end; `db verify` checks the bytes."""
    from engine.checking import check_run

    async with terminal.opened_store() as store:
        found = await check_run(store, run)
    if terminal.output is Output.JSON:
        terminal.write_json(shapes.of_check(found))
    elif terminal.output is Output.IDS:
        terminal.write_ids(str(problem.seq) for problem in found.problems)
    else:
        terminal.show(tables.check(found))
    if found.passed:
        return ExitCode.OK
    terminal.say(
        f"trailmark: run {found.run_id} breaks {len(found.problems)} contract(s); next: {terminal.command('db', 'verify', found.run_id)}"
    )
    return ExitCode.CORRUPT
