"""Whether what a database gave back is what was committed: pure checks, one text for all stores.

Rows and snapshots in, the sound part or the problems out.  Knows no database
and no payload's meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from checkpoint_stores.chain import Chain
from checkpoint_stores.errors import CheckpointCorruptError, CheckpointNotFoundError
from checkpoint_stores.records import Problem, Row, Snapshot


class Stored(NamedTuple):
    """What a store holds of one run, or the newest part of it."""

    run_id: str
    genesis: bytes
    """What the first row stands on; empty where nobody can know it any more (a fork whose parent is in another store)."""
    first_seq: int
    """0 for a fork, else 1."""
    anchor_seq: int
    anchor_digest: bytes
    snapshots: Sequence[Snapshot]
    """Oldest first; only those whose own seal holds."""
    rows: Sequence[Row]
    """In order of seq."""


def sound_part(chain: Chain, stored: Stored, upto: int | None) -> tuple[Snapshot | None, list[Row]]:
    """Return the newest usable snapshot at or before ``upto`` and the rows after it, checked.

    Raises CheckpointNotFoundError, CheckpointCorruptError.
    """
    run_id, rows = stored.run_id, stored.rows
    head = max(rows[-1].seq if rows else -1, stored.snapshots[-1].seq if stored.snapshots else -1)
    last = max(head, stored.anchor_seq) if upto is None else upto
    if last > head and last > stored.anchor_seq:
        raise CheckpointNotFoundError(run_id, last)
    snapshot = usable_snapshot(stored.snapshots, rows, last)
    if snapshot is None:
        if last < stored.first_seq:
            raise CheckpointNotFoundError(run_id, last)
        if rows and rows[0].seq > last and stored.snapshots:
            raise CheckpointNotFoundError(run_id, last)  # pruned away: the first snapshot is younger
        previous, start = stored.genesis, stored.first_seq
    else:
        previous, start = snapshot.digest, snapshot.seq + 1
    offset = start - rows[0].seq if rows else 0
    if offset < 0:
        raise CheckpointCorruptError(run_id, start, f"it is missing, the next row is {rows[0].seq}")
    part = list(rows[offset : offset + last - start + 1])
    broken = first_break(chain, run_id, previous, start, part)
    if broken is not None:
        raise CheckpointCorruptError(broken.run_id, broken.seq, broken.reason)
    end = start + len(part) - 1
    if end < last:
        raise CheckpointCorruptError(run_id, end + 1, f"it is missing, the run went on to {max(stored.anchor_seq, head)}")
    return snapshot, part


def usable_snapshot(snapshots: Sequence[Snapshot], rows: Sequence[Row], last: int) -> Snapshot | None:
    """The newest snapshot at or before ``last`` that stands on its checkpoint (or whose checkpoint was pruned)."""
    for snapshot in reversed(snapshots):
        if snapshot.seq > last:
            continue
        position = snapshot.seq - rows[0].seq if rows else -1
        is_pruned = not 0 <= position < len(rows)
        if is_pruned or rows[position].digest == snapshot.digest:
            return snapshot
    return None


def first_break(chain: Chain, run_id: str, previous: bytes, seq: int, rows: Sequence[Row]) -> Problem | None:
    """The first row that is missing or does not follow from its predecessor; None where all is sound."""
    if previous and chain.unbroken(previous, run_id, seq, rows) == len(rows):
        return None
    return next(breaks(chain, run_id, previous, seq, rows), None)


def breaks(chain: Chain, run_id: str, previous: bytes, seq: int, rows: Sequence[Row]) -> Iterator[Problem]:
    """Every place where the chain breaks; behind a break the check goes on from the row as it is.

    ``previous`` is the digest that the row ``seq`` stands on; empty means that nobody knows it, so that row is trusted.
    """
    follows = chain.follows
    for row in rows:
        if row.seq != seq:
            yield Problem(run_id, seq, f"it is missing, the next row is {row.seq}")
            seq = row.seq
        elif previous and (row.run_id != run_id or not follows(previous, row)):
            yield Problem(run_id, seq, "its digest does not follow from its predecessor (edited, moved, or the chain key is another)")
        previous = row.digest
        seq += 1


def problems_of(chain: Chain, stored: Stored) -> list[Problem]:
    """Everything that is wrong with a run: the breaks of the chain, then the snapshots, then the anchor."""
    run_id, rows = stored.run_id, stored.rows
    digests = {row.seq: row.digest for row in rows}
    previous, seq = stored.genesis, stored.first_seq
    base = stored.snapshots[0] if stored.snapshots else None
    if rows and base is not None and seq < rows[0].seq <= base.seq + 1:
        # Pruned: what is left begins at or right after a snapshot.
        previous, seq = (base.digest if rows[0].seq == base.seq + 1 else b""), rows[0].seq
    problems = list(breaks(chain, run_id, previous, seq, rows))
    problems.extend(
        Problem(run_id, snapshot.seq, "its snapshot does not stand on it")
        for snapshot in stored.snapshots
        if digests.get(snapshot.seq, snapshot.digest) != snapshot.digest
    )
    problems.extend(_anchor_problems(stored, digests))
    return problems


def _anchor_problems(stored: Stored, digests: dict[int, bytes]) -> list[Problem]:
    head = max([*digests, *(snapshot.seq for snapshot in stored.snapshots)], default=stored.first_seq - 1)
    if head < stored.anchor_seq:
        return [Problem(stored.run_id, head + 1, f"it is missing: the run was cut, its anchor stands at {stored.anchor_seq}")]
    if digests.get(stored.anchor_seq, stored.anchor_digest) != stored.anchor_digest:
        return [Problem(stored.run_id, stored.anchor_seq, "its digest is not the one anchored in runs")]
    return []
