"""`trailmark db`: the store itself: its schema, whether it is sound, how much it holds, what may go."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from checkpoint_stores.records import ENDED
from trailmark.cli import given, shapes, tables
from trailmark.cli.exits import ExitCode
from trailmark.cli.given import UsageError
from trailmark.cli.terminal import Output, Terminal
from trailmark.cli.verbs import group, verb

if TYPE_CHECKING:
    from checkpoint_stores.protocol import CheckpointStore

app = group("db", "Upgrade, verify, measure and prune the store.")

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
    elif terminal.output is Output.IDS:
        terminal.write_ids([found["schema"]])
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
        pruned = {run_id: upto for run_id in ids if (upto := await _pruned_upto(store, run_id)) is not None}
    unsound = dict.fromkeys(problem.run_id for problem in problems)
    if terminal.output is Output.JSON:
        terminal.write_json(
            {
                "runs": len(ids),
                "sound": len(ids) - len(unsound),
                "problems": [shapes.of_problem(each) for each in problems],
                "pruned": [{"run_id": run_id, "upto": upto} for run_id, upto in pruned.items()],
            }
        )
    elif terminal.output is Output.IDS:
        terminal.write_ids(unsound)
    elif problems:
        terminal.show(tables.problems(problems))
    else:
        terminal.write(f"{len(ids)} run{'s' if len(ids) != 1 else ''} verified: sound")
        if run is not None and pruned:
            terminal.write(f"its checkpoints up to {pruned[ids[0]]} were pruned; the chain goes on from the snapshot that stands for them")
        elif pruned:
            terminal.write(f"of {len(pruned)} of them the oldest checkpoints were pruned; their chains go on from a snapshot")
    if problems:
        first = problems[0]
        earlier = terminal.command("runs", "state", first.run_id, "--at", str(max(first.seq - 1, 0)))
        terminal.say(f"trailmark: {len(unsound)} of {len(ids)} runs are damaged; what came before is still readable; next: {earlier}")
        return ExitCode.CORRUPT
    return ExitCode.OK


@verb(app, "prune")
async def prune(
    terminal: Terminal,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Delete runs that ended longer ago than this: 30d, 12h, 90m.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help=f"Only runs that ended so: {', '.join(sorted(ENDED))}; may be repeated."),
    ] = None,
    newest: Annotated[int, typer.Option("--keep-newest", metavar="N", min=0, help="Keep the N newest of them, in each flow.")] = 0,
    checkpoints: Annotated[
        int | None, typer.Option("--keep-checkpoints", metavar="N", min=1, help="Of every run that stays, keep the N newest checkpoints.")
    ] = None,
    checkpoints_for: Annotated[
        str | None,
        typer.Option("--checkpoints-for", metavar="TIME", help="Of every run that stays, keep the checkpoints younger than this."),
    ] = None,
    keep_label: Annotated[
        list[str] | None, typer.Option("--keep-label", metavar="NAME[=VALUE]", help="Leave runs with this label alone; may be repeated.")
    ] = None,
    flow: Annotated[str | None, typer.Option("--flow", metavar="NAME", help="Only runs of the flow with this name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would go.")] = False,
) -> ExitCode:
    """Delete old runs, and old checkpoints of the runs that stay (behind a snapshot).  Safe beside live runs.

    May be interrupted and done again. Nothing goes without --older-than, --keep-checkpoints or --checkpoints-for.
    """
    from engine.pruning import Retention
    from engine.pruning import prune as pruned_by

    if older_than is None and checkpoints is None and checkpoints_for is None:
        raise UsageError("say what may go: --older-than TIME, --keep-checkpoints N or --checkpoints-for TIME")
    retention = Retention(
        runs_for=given.time_of(older_than, "--older-than") if older_than is not None else None,
        statuses=tuple(status) if status else tuple(sorted(ENDED)),
        newest_runs=newest,
        checkpoints=checkpoints,
        checkpoints_for=given.time_of(checkpoints_for, "--checkpoints-for") if checkpoints_for is not None else None,
        keep_labels=tuple(keep_label or ()),
        flow=flow,
    )
    async with terminal.opened_store() as store:
        done = await pruned_by(store, retention, dry_run=dry_run)
    dropped = sum(cut.last - cut.first + 1 for cut in done.cuts)
    if terminal.output is Output.JSON:
        terminal.write_json(
            {
                "dry_run": dry_run,
                "runs": [run.run_id for run in done.runs],
                "cuts": [{"run_id": cut.run_id, "first": cut.first, "last": cut.last} for cut in done.cuts],
                "left": [{"run_id": run_id, "reason": reason} for run_id, reason in done.left],
            }
        )
    elif terminal.output is Output.IDS:
        terminal.write_ids([*(run.run_id for run in done.runs), *(cut.run_id for cut in done.cuts)])
    else:
        would = "would be " if dry_run else ""
        ended = ", ".join(f"{number} {word}" for word, number in sorted(Counter(run.status for run in done.runs).items()))
        terminal.write(f"{len(done.runs)} run(s) {would}deleted{f' ({ended})' if ended else ''}")
        terminal.write(f"{dropped} checkpoint(s) of {len(done.cuts)} run(s) {would}dropped")
        if dry_run and (done.runs or done.cuts):
            terminal.say("trailmark: nothing was changed; leave out --dry-run to do it")
        elif done.runs or done.cuts:
            terminal.next_steps([terminal.command("db", "vacuum")])
    for run_id, reason in done.left:
        terminal.say(f"trailmark: run {run_id} was left as it is: {reason}")
    return ExitCode.CORRUPT if done.left else ExitCode.OK


@verb(app, "vacuum")
async def vacuum(terminal: Terminal) -> None:
    """Give the space of what was deleted back to the disk (SQLite), or to the tables (PostgreSQL).  Writers wait meanwhile."""
    async with terminal.opened_store() as store:
        before, after = await store.vacuum()
    if terminal.output is Output.JSON:
        terminal.write_json({"url": store.url, "before": before, "after": after})
    elif terminal.output is Output.TABLE:  # it is about nothing that has an id
        terminal.write(f"{store.url}: {before:,} bytes before, {after:,} now")


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


async def _pruned_upto(store: CheckpointStore, run_id: str) -> int | None:
    """The newest checkpoint that was pruned; None where the first one is still there (of a fork it has number 0)."""
    async for row in store.history(run_id):
        return None if row.kind in ("start", "fork") else row.seq - 1
    return None


async def _all_runs(store: CheckpointStore) -> list[str]:
    """Every run of the store, newest first."""
    ids: list[str] = []
    while page := await store.runs(limit=_PAGE, before=ids[-1] if ids else None):
        ids += [run.run_id for run in page]
    return ids
