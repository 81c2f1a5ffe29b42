"""Keeping a store small: which runs and checkpoints may go, and letting them go.

What may go is a rule over records (`Retention`); the rest is done run by run: a run is deleted in one transaction, several beside each
other; of one that stays a snapshot is written first, then the rows before it go, in one transaction as well.  So a process that is killed in between leaves every run whole, live runs are not disturbed, and the next try goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from checkpoint_stores.codec import encode
from checkpoint_stores.errors import ArgumentError, CheckpointCorruptError, RunNotEndedError, RunNotFoundError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, RunRecord, Snapshot
from engine.loading import load_state

_PAGE = 500
_AT_ONCE = 10
"""Runs that are deleted side by side: few enough that a step of a live run does not wait long behind them."""
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept.  Without any rule everything is; a thing goes only where a rule lets it go and none keeps it.

    >>> Retention(runs_for=timedelta(days=30), keep_labels=("audit",)).lets_runs_go
    True

    Raises:
        ArgumentError: a number or a time is negative, or a status is none of the ends.
    """

    runs_for: timedelta | None = None
    """Runs that ended longer ago than this are deleted with all that belongs to them; None keeps every run."""
    statuses: Collection[str] = tuple(sorted(ENDED))
    """Only runs that ended so are deleted."""
    newest_runs: int = 0
    """The newest runs of each flow, this many of those that could go, are kept whatever their age."""
    checkpoints: int | None = None
    """Of every run that is kept, this many checkpoints (the newest); None keeps all."""
    checkpoints_for: timedelta | None = None
    """And those that are younger than this; alone it lets the older ones go."""
    keep_labels: Collection[str] = ()
    """Runs with one of these labels are left alone: ``name`` or ``name=value``."""
    flow: str | None = None
    """Only runs of this flow; None is all flows."""
    tenant: str = ""

    def __post_init__(self) -> None:
        for name in ("runs_for", "checkpoints_for"):
            if (time := getattr(self, name)) is not None and (not isinstance(time, timedelta) or time < timedelta(0)):
                raise ArgumentError(name, time, "a timedelta, not negative")
        if self.newest_runs < 0:
            raise ArgumentError("newest_runs", self.newest_runs, "a whole number from 0")
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ArgumentError("checkpoints", self.checkpoints, "a whole number from 1")
        if unknown := set(self.statuses) - ENDED:
            raise ArgumentError("statuses", sorted(unknown), f"among {', '.join(sorted(ENDED))}")

    @property
    def lets_runs_go(self) -> bool:
        return self.runs_for is not None

    @property
    def lets_checkpoints_go(self) -> bool:
        return self.checkpoints is not None or self.checkpoints_for is not None

    def protects(self, run: RunRecord) -> bool:
        """Whether one of its labels keeps the run as it is.

        >>> run = RunRecord("r", "f", "", "g", "completed", 9, labels={"team": "audit"})
        >>> [Retention(keep_labels=(label,)).protects(run) for label in ("team", "team=audit", "team=sales")]
        [True, True, False]
        """
        return any(name in run.labels and (not is_valued or run.labels[name] == value) for name, is_valued, value in self._labels())

    def _labels(self) -> list[tuple[str, bool, str]]:
        return [(name, bool(equals), value) for name, equals, value in (label.partition("=") for label in self.keep_labels)]

    def lets_run_go(self, run: RunRecord, now: int) -> bool:
        """Whether its age and its end let a run go."""
        if self.runs_for is None or run.status not in ENDED or run.status not in self.statuses:
            return False
        return run.updated_at < now - self.runs_for // _MICROSECOND


class Cut(NamedTuple):
    """Checkpoints of one run that went, behind a snapshot."""

    run_id: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went (or, tried dry, would go)."""

    runs: tuple[RunRecord, ...] = ()
    """Deleted runs."""
    cuts: tuple[Cut, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    """(run id, why) of runs that could not be touched: damaged ones."""


async def prune(store: CheckpointStore, retention: Retention, *, dry_run: bool = False) -> Pruned:
    """Let go what ``retention`` does not keep.  Safe beside live runs; may be cut off anywhere and simply be done again.

    Deleted with a run: its checkpoints, snapshots, tickets, decisions, signals and effects; its forks stay.  A run that is only cut
    can be resumed, verified, and forked at what is left.  With ``dry_run`` nothing is changed.

    >>> import asyncio
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> asyncio.run(prune(MemoryCheckpointStore(), Retention(runs_for=timedelta(days=30))))
    Pruned(runs=(), cuts=(), left=())

    Raises StoreUnavailableError.
    """
    now = await store.now()
    going: list[RunRecord] = []
    staying: list[RunRecord] = []
    newest: dict[str, int] = {}
    async for run in _newest_first(store, retention):
        goes = not retention.protects(run) and retention.lets_run_go(run, now)
        if goes and newest.setdefault(run.flow, 0) < retention.newest_runs:
            newest[run.flow] += 1
            goes = False
        if goes:
            going.append(run)
        elif retention.lets_checkpoints_go and not retention.protects(run):
            staying.append(run)
    deleted = going if dry_run else await _deleted(store, going)
    cuts: list[Cut] = []
    left: list[tuple[str, str]] = []
    for run in staying:
        try:
            cut = await _cut(store, run, retention, now, dry_run=dry_run)
        except CheckpointCorruptError as damaged:
            left.append((run.run_id, damaged.reason))
        except RunNotFoundError:
            continue  # somebody else deleted it
        else:
            cuts += [cut] if cut is not None else []
    return Pruned(tuple(deleted), tuple(cuts), tuple(left))


async def _newest_first(store: CheckpointStore, retention: Retention) -> AsyncIterator[RunRecord]:
    seen: list[str] = []
    known: set[str] = set()
    while True:
        try:
            page = await store.runs(flow=retention.flow, tenant=retention.tenant, limit=_PAGE, before=seen[-1] if seen else None)
        except RunNotFoundError:
            seen.pop()  # somebody else deletes runs, too
            continue
        if not page:
            return
        for run in page:
            if run.run_id not in known:
                yield run
        known.update(run.run_id for run in page)
        seen += [run.run_id for run in page]


async def _deleted(store: CheckpointStore, going: Sequence[RunRecord]) -> list[RunRecord]:
    """Delete runs, some at a time, so that they share the wait for the disk; which of them went."""
    deleted: list[RunRecord] = []
    for first in range(0, len(going), _AT_ONCE):
        some = going[first : first + _AT_ONCE]
        went = await asyncio.gather(*(_delete(store, run) for run in some), return_exceptions=True)
        for each in went:
            if isinstance(each, BaseException):
                raise each
        deleted += [run for run, gone in zip(some, went, strict=True) if gone]
    return deleted


async def _delete(store: CheckpointStore, run: RunRecord) -> bool:
    try:
        await store.delete(run.run_id)
    except (RunNotFoundError, RunNotEndedError):
        return False  # somebody else deleted it
    return True


async def _cut(store: CheckpointStore, run: RunRecord, retention: Retention, now: int, *, dry_run: bool) -> Cut | None:
    """Drop the checkpoints of a run that no rule keeps; None where there is nothing to drop."""
    # The anchor may lie behind the head of a run that goes on: then a little more is kept.
    last = run.head_seq - (retention.checkpoints or 1)
    if last < 0:
        return None
    young = None if retention.checkpoints_for is None else now - retention.checkpoints_for // _MICROSECOND
    first, end = None, None
    async for row in store.history(run.run_id):
        if row.seq > last or (young is not None and row.committed_at >= young):
            break
        first = row.seq if first is None else first
        end = row.seq
        if young is None:
            end = last
            break
    if first is None or end is None:
        return None
    if not dry_run:
        state = await load_state(store, run.run_id, end)
        if not await store.drop_before(Snapshot(run.run_id, end, encode(state.dump()), state.digest)):
            return None
    return Cut(run.run_id, first, end)
