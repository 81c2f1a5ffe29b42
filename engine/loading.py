"""From stored checkpoints back to a state: the same fold the live walk uses, and no code of the user's."""

from __future__ import annotations

from collections.abc import Iterable

from checkpoint_stores.codec import decode, unpack
from checkpoint_stores.errors import CheckpointCorruptError
from checkpoint_stores.fold import RunState, fold
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import Lease, Row, Snapshot


async def load_state(store: CheckpointStore, run_id: str, upto: int | None = None) -> RunState:
    """The state of a run as of checkpoint ``upto`` (default: its head).

    Raises RunNotFoundError, CheckpointNotFoundError, CheckpointCorruptError (naming the run and the first bad seq).
    """
    return folded(run_id, *await store.load(run_id, upto))


def folded(run_id: str, snapshot: Snapshot | None, rows: Iterable[Row]) -> RunState:
    """The state that a snapshot and the rows behind it come to.  Raises CheckpointCorruptError."""
    if snapshot is None:
        state = RunState(run_id)
    else:
        try:
            state = RunState.restored(run_id, decode(snapshot.payload), snapshot.digest)
        except Exception as error:
            raise CheckpointCorruptError(run_id, snapshot.seq, f"its snapshot cannot be read ({error})") from error
    for row in rows:
        apply_row(state, row)
    return state


async def catch_up(store: CheckpointStore, state: RunState, upto: int | None = None) -> int:
    """Fold what was committed after ``state``'s newest checkpoint (up to and including ``upto``); return how many rows that were."""
    before = state.seq
    if upto is None or upto > before:
        async for row in store.history(state.run_id, after=before):
            if row.seq != state.seq + 1:  # what comes next was pruned meanwhile
                newest = await load_state(store, state.run_id, upto)
                for name in RunState.__slots__:
                    setattr(state, name, getattr(newest, name))
                break
            apply_row(state, row)
            if row.seq == upto:
                break
    return state.seq - before


async def catch_up_with(store: CheckpointStore, state: RunState, lease: Lease) -> None:
    """Fold the row that gave the lease, and whatever stands before it; asks the store only where the lease does not tell."""
    if lease.row is not None and lease.row.seq == state.seq + 1:
        apply_row(state, lease.row)
    else:
        await catch_up(store, state)


def apply_row(state: RunState, row: Row) -> None:
    """Decode and fold one stored row.  Raises CheckpointCorruptError."""
    try:
        fold(state, row, unpack(row.payload))
    except Exception as error:
        raise CheckpointCorruptError(row.run_id, row.seq, f"its payload cannot be folded ({type(error).__name__}: {error})") from error
