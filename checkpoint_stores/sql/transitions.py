"""Commits and new runs as the writers take them: lines and bytes, ready for the database.

Pure conversion, made before a writer sees the work: whatever cannot be converted fails alone and early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from checkpoint_stores.records import ENDED, ROWS_ALONE, BarrierRecord, Commit, NewRun, Resumption, Row, new_tuple
from checkpoint_stores.sql.lines import barrier_details, barrier_line, decision_line, encoded, run_line


class Transition(NamedTuple):
    """A commit, converted to lines."""

    key: bytes
    commit: Commit
    rows: tuple[tuple[Any, ...], ...]
    """All columns but committed_at."""
    change: tuple[Any, ...] | None = None
    """(status, wake_at, clear_wake_at, error, gives_back, head_seq, head_digest, release_at_rev); None for an ordinary commit."""
    opened: Sequence[dict[str, Any]] = ()
    closed: Sequence[tuple[str, str]] = ()
    consumed: Sequence[tuple[str, int]] = ()
    voted: Sequence[dict[str, Any]] = ()
    nudged: Sequence[tuple[str, bytes]] = ()
    """(ticket, details)."""
    asks: str | None = None
    """The barriers it opens that allowances may decide, comma-separated; None where there are none."""
    taking: tuple[str, int, int | None, int, bytes, int, bytes | None] | None = None
    """(owner, inbox_rev, max_steps, head_seq, head_digest, said, behind) of a run that this very commit takes; None where it is held already."""


_NO_CHANGE: Final[tuple[Any, ...]] = (None, None, False, None, False, None, None, None)


_ROWS_ALONE: Final = Transition(b"", Commit("", 0, ()), ())[3:]
"""What stands behind the rows of a commit of rows alone."""


def transition_of(commit: Commit, key: bytes) -> Transition:
    """Convert a commit; UnserialisableError where a barrier or a vote holds no data."""
    added = commit[2]
    if added and commit[3:] == ROWS_ALONE:
        rows = ((key, *added[0][1:11]),) if len(added) == 1 else tuple((key, *row[1:11]) for row in added)
        return new_tuple(Transition, (key, commit, rows, *_ROWS_ALONE))
    rows = tuple((key, *row[1:11]) for row in added)
    _run_id, _epoch, _rows, change, opens, closes, consumes, votes, nudges = commit
    # What is opened and closed, or voted and consumed, in one go is written as it ends: one statement cannot change
    # on PostgreSQL what it has itself inserted.
    closed, consumed = dict(closes), dict(consumes)
    opened = [barrier_line(barrier, tenant="", status=closed.pop(barrier.ticket, None)) for barrier in opens]
    voted = [decision_line(vote, consumed_seq=consumed.pop(vote.id, None)) for vote in votes]
    values = _NO_CHANGE
    if change is not None:
        gives_back = change.release or change.status in ENDED
        last = added[-1] if added and (change.status is not None or gives_back) else None
        values = (
            change.status,
            change.wake_at,
            change.clear_wake_at,
            encoded(change.error),
            gives_back,
            last.seq if last else None,
            last.digest if last else None,
            change.release_at_rev,
        )
    nudged = [(barrier.ticket, barrier_details(barrier)) for barrier in nudges]
    asks = ",".join(sorted({line["node"] for line, barrier in zip(opened, opens, strict=True) if _takes_allowances(line, barrier)}))
    return Transition(key, commit, rows, values, opened, tuple(closed.items()), tuple(consumed.items()), voted, nudged, asks or None)


def resumption_of(resumption: Resumption, key: bytes, owner: str) -> Transition:
    """Convert a resumption; raises what `transition_of` raises."""
    work = transition_of(resumption.commit, key)
    # Without a change of its own it changes nothing but the owner.
    last = resumption.commit.rows[-1]
    taking = (owner, resumption.inbox_rev, resumption.max_steps, last.seq, last.digest, resumption.said, resumption.behind)
    return work._replace(change=work.change or _NO_CHANGE, taking=taking)


def _takes_allowances(line: Mapping[str, Any], barrier: BarrierRecord) -> bool:
    return line["status"] == "open" and barrier.early


class Creation(NamedTuple):
    """A new run, converted to lines."""

    key: bytes
    line: Any
    """Its `RunLine`, without times."""
    row: tuple[Any, ...]
    """All columns of its first row but committed_at."""
    graph: tuple[str, str] | None
    """(graph_hash, definition) where the definition is not known to be kept already."""
    opened: Sequence[dict[str, Any]]


def creation_of(run: NewRun, first: Row, *, genesis: bytes, owner: str, store_graph: bool) -> Creation:
    """Convert a new run; ValueError where its id is no UUID, UnserialisableError where labels or a barrier hold no data."""
    line = run_line(run, first, genesis=genesis, owner=owner)
    graph = (run.graph_hash, run.definition) if store_graph and run.definition else None
    opened = [barrier_line(barrier, tenant=run.tenant) for barrier in run.barriers]
    return Creation(line.run_id, line, (line.run_id, *first[1:11]), graph, opened)
