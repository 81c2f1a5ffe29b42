"""`trailmark db`: the store itself: its schema, whether it is sound, how much it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trailmark.cli import shapes, tables
from trailmark.cli.exits import ExitCode
from trailmark.cli.given import UsageError
from trailmark.cli.terminal import Output, Terminal
from trailmark.cli.verbs import group, verb

if TYPE_CHECKING:
    from checkpoint_stores.protocol import CheckpointStore

app = group("db", "Upgrade, verify and measure the store.")

_PAGE = 500


@verb(app, "upgrade")
async def upgrade(terminal: Terminal) -> None:
    """Make the schema, or bring it up to what this trailmark needs.  Nothing happens where it is current."""
    from trailmark.checkpoint_stores import SQLCheckpointStore, open_store

    store = open_store(terminal.url)
    try:
        if isinstance(store, SQLCheckpointStore):
            await store.upgrade()
        found = await store.stats()
    finally:
        await store.close()
    if terminal.output is Output.JSON:
        terminal.write_json({"url": store.url, "schema": found["schema"]})
    else:
        terminal.write(f"the schema of {store.url} is {found['schema']}, which is current")


@verb(app, "verify")
async def verify(
    terminal: Terminal,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="The run's id, or its first or last characters (8 at least).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every run.")] = False,
) -> ExitCode:
    """Check the digest chain of one run or of all: edits, gaps, reorders and cuts are found and named."""
    if (run is None) is not everything:
        raise UsageError("say which run, or --all")
    async with terminal.opened_store() as store:
        ids = await _all_runs(store) if run is None else [(await store.run(run)).run_id]
        problems = [problem for run_id in ids for problem in await store.verify(run_id)]
    unsound = dict.fromkeys(problem.run_id for problem in problems)
    if terminal.output is Output.JSON:
        terminal.write_json(
            {"runs": len(ids), "sound": len(ids) - len(unsound), "problems": [shapes.of_problem(each) for each in problems]}
        )
    elif terminal.output is Output.IDS:
        terminal.write_ids(unsound)
    elif problems:
        terminal.show(tables.problems(problems))
    else:
        terminal.write(f"{len(ids)} run{'s' if len(ids) != 1 else ''} verified: sound")
    if problems:
        first = problems[0]
        earlier = terminal.command("runs", "state", first.run_id, "--at", str(max(first.seq - 1, 0)))
        terminal.say(f"trailmark: {len(unsound)} of {len(ids)} runs are damaged; what came before is still readable; next: {earlier}")
        return ExitCode.CORRUPT
    return ExitCode.OK


@verb(app, "stats")
async def stats(terminal: Terminal) -> None:
    """Count and measure: runs by status, checkpoints, snapshots, open barriers, bytes."""
    async with terminal.opened_store() as store:
        found = await store.stats()
    if terminal.output is Output.TABLE:
        by_status = ", ".join(f"{count} {word}" for word, count in sorted(found["runs"].items())) or "none"
        others = [
            (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
            for name, value in found.items()
            if name != "runs"
        ]
        terminal.show(tables.facts([("store", store.url), ("runs", by_status), *others]))
    else:
        terminal.write_json({"url": store.url, **found})


async def _all_runs(store: CheckpointStore) -> list[str]:
    """Every run of the store, newest first."""
    ids: list[str] = []
    while page := await store.runs(limit=_PAGE, before=ids[-1] if ids else None):
        ids += [run.run_id for run in page]
    return ids
