"""Runs whose owner is gone: how often one was taken up in vain, how it is put away, how a person lets it go on.

Needs no graph and no node function.
"""

from __future__ import annotations

from checkpoint_stores.codec import unpack
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import RunChange, RunRecord
from checkpoint_stores.statuses import after
from engine.clock import Clock
from engine.events import QuarantineAsked, ReleaseAsked
from engine.operations import change_run

RECOVERIES = "recoveries"
"""Under this name the taking of an orphaned run notes how many in a row got nowhere, itself included."""


async def recoveries(store: CheckpointStore, record: RunRecord) -> int:
    """How often in a row an orphaned run has been taken up without a single checkpoint coming of it, the next time included; 0 where it
    is no orphan."""
    if not record.orphaned:
        return 0
    # The anchor stands on the row of the last taking; whatever follows that row is progress.
    rows = store.history(record.run_id, after=record.head_seq - 1)
    taking = await anext(rows, None)
    if taking is None or taking.kind != "attempt" or await anext(rows, None) is not None:
        return 1
    noted = (op[2].get(RECOVERIES, 0) for op in unpack(taking.payload) if op[0] == "attempt")
    return int(next(noted, 0)) + 1


async def quarantine_run(store: CheckpointStore, run_id: str, reason: str, clock: Clock) -> None:
    """Put an orphaned run where nobody takes it by itself; `release_run` lets it go on.

    Raises RunNotFoundError, RunEndedError, LeaseHeldError, CheckpointCorruptError.
    """
    change = RunChange(status=after("running", "quarantine"), clear_wake_at=True, release=True)
    await change_run(store, run_id, QuarantineAsked(reason), change, clock)


async def release_run(store: CheckpointStore, run_id: str, *, actor: str, reason: str, clock: Clock) -> RunRecord:
    """Let a quarantined or suspended run go on: it is ``ready`` for whichever worker comes.  Who did it and why is recorded.

    Raises RunNotFoundError, IllegalTransitionError (it does not stand still, or has ended), LeaseHeldError, CheckpointCorruptError.
    """
    record = await store.run(run_id)
    status = after(record.status, "release", record.run_id)
    await change_run(store, record.run_id, ReleaseAsked(actor, reason), RunChange(status=status, wake_at=clock.now(), release=True), clock)
    return await store.run(record.run_id)
