"""From stored rows to the state they come to: the same fold the live walk uses, and no code of the user's.

Rows are checked and folded a few at a time, as they come: who reads them one by one, in whatever thread, never holds more of a long
run than these few and its state.  Pure; knows no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain as together
from itertools import islice
from typing import Final

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import decode, unpack
from checkpoint_stores.errors import CheckpointCorruptError
from checkpoint_stores.fold import RunState, fold
from checkpoint_stores.records import Row, Snapshot
from checkpoint_stores.soundness import Stored

_AT_A_TIME: Final = 64


def folded(run_id: str, snapshot: Snapshot | None, rows: Iterable[Row]) -> RunState:
    """The state that a snapshot and the rows behind it come to: what a store's ``load`` gives.  Raises CheckpointCorruptError.

    >>> import asyncio
    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> flow = Flow("count", {"n": int}).add_node("one", lambda state: {"n": 1}).set_entry("one").add_edge("one", END)
    >>> async def main(store):
    ...     run_id = (await GraphExecutor(flow.compile(), store=store).execute({})).run_id
    ...     state = folded(run_id, *await store.load(run_id))
    ...     return state.status, state.step, state.root.values
    >>> asyncio.run(main(MemoryCheckpointStore()))
    ('completed', 1, {'n': 1})
    """
    state = RunState(run_id) if snapshot is None else _restored(snapshot)
    for row in rows:
        apply_row(state, row)
    return state


def apply_row(state: RunState, row: Row) -> None:
    """Decode and fold one stored row.  Raises CheckpointCorruptError."""
    try:
        fold(state, row, unpack(row.payload))
    except Exception as error:
        raise CheckpointCorruptError(row.run_id, row.seq, f"its payload cannot be folded ({type(error).__name__}: {error})") from error


def _restored(snapshot: Snapshot) -> RunState:
    try:
        return RunState.restored(snapshot.run_id, decode(snapshot.payload), snapshot.digest)
    except Exception as error:
        raise CheckpointCorruptError(snapshot.run_id, snapshot.seq, f"its snapshot cannot be read ({error})") from error


def folded_as_read(chain: Chain, stored: Stored, rows: Iterator[Row], upto: int | None) -> RunState | None:
    """The state as of checkpoint ``upto`` (None: the head), from the newest snapshot up to there and the rows from its own on.

    ``stored`` tells all that is known before the first row is read.  None where anything is not as it is of nearly every run:
    `soundness.sound_part` and `folded` say what it is.
    """
    run_id, seq, previous = stored.run_id, stored.first_seq, stored.genesis
    state = RunState(run_id)
    try:
        if stored.snapshots:
            snapshot = stored.snapshots[-1]
            state, seq, previous = _restored(snapshot), snapshot.seq + 1, snapshot.digest
            first = next(rows, None)
            if first is not None and first.seq == snapshot.seq:
                if first.digest != previous:
                    return None
            elif first is not None:  # the row that it stands on was pruned
                rows = together((first,), rows)
        while part := list(islice(rows, _AT_A_TIME)):
            if not previous or chain.unbroken(previous, run_id, seq, part) < len(part):
                return None
            for row in part:
                apply_row(state, row)
            seq += len(part)
            previous = part[-1].digest
    except CheckpointCorruptError:
        return None
    last = stored.anchor_seq if upto is None else upto
    is_there = seq > stored.first_seq and (seq > last if upto is None else seq == last + 1)
    return state if is_there else None
