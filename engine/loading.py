"""From stored checkpoints back to a state: the same fold the live walk uses, and no code of the user's."""

from __future__ import annotations

from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import apply_row, folded
from checkpoint_stores.protocol import CheckpointStore, folds
from checkpoint_stores.records import Lease


async def load_state(store: CheckpointStore, run_id: str, upto: int | None = None) -> RunState:
    """The state of a run as of checkpoint ``upto`` (default: its head).

    Raises RunNotFoundError, CheckpointNotFoundError, CheckpointCorruptError (naming the run and the first bad seq).
    """
    if folds(store):
        return await store.folded(run_id, upto)
    return folded(run_id, *await store.load(run_id, upto))


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
