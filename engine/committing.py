"""Making batches durable, and telling who looks on.

One commit at a time for each run.  Knows the save policy, the step's own transaction that a commit may be made in, observers and
snapshots; decides nothing about the run and never looks at what is in a row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, cast

from checkpoint_stores.codec import encode
from checkpoint_stores.errors import StoreError, StoreUnavailableError
from checkpoint_stores.protocol import CheckpointStore, TakesUp
from checkpoint_stores.records import Commit, Receipt, Row, RunChange, Snapshot, new_tuple
from engine.clock import Clock
from engine.live import Live
from engine.notices import NotSavedWarning, ObserverFailedWarning, TrailmarkWarning
from engine.observing import Committed, Observer
from engine.saving import HeldBack, SavePolicy, must_save
from engine.taking_up import TakingUp
from engine.transacting import Held, Transacting
from engine.walk import Batch, Walk

SMALLEST_SNAPSHOT: Final = 64 * 1024
"""Bytes of checkpoints that are always folded without a snapshot."""

_ENCODED_HERE: Final = 4 * SMALLEST_SNAPSHOT
"""A state up to this size is encoded on the loop: a thread would cost more."""


class Committer:
    """Writes what one run's walk made.  One per driver."""

    def __init__(
        self, store: CheckpointStore, walk: Walk, clock: Clock, live: Live, transacting: Transacting, *,
        saving: SavePolicy | None, observers: Sequence[Observer], warn: Callable[[TrailmarkWarning], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._walk = walk
        self._clock = clock
        self._live = live
        self._transacting = transacting
        self._observers = tuple(observers)
        self._warn = warn
        self._held = HeldBack(saving) if saving is not None and saving.holds else None
        """None under the default policy: then nothing is ever held back, and nothing is asked."""
        self._turn = asyncio.Lock()
        """What is held back is written in order: by the drive, or by whoever asks for a checkpoint."""
        self._waiters: list[asyncio.Future[None]] = []
        """Who asked for a checkpoint while one was being written."""
        self._keeping: asyncio.Task[None] | None = None
        """The newest snapshot on its way into the store."""
        self.within: Held | TakingUp | None = None
        """The transaction that the next commit is to be made in."""

    @property
    def holds_back(self) -> bool:
        """Whether a policy may keep rows from being written at once."""
        return self._held is not None

    def pending(self, batch: Batch) -> list[Row]:
        """All rows that are not durable yet, those of ``batch`` last."""
        return [*self._held.rows, *batch.rows] if self._held is not None else batch.rows

    async def checkpoint(self) -> int:
        """Make everything durable that has happened so far; the number of the newest checkpoint that is.

        Raises LeaseLostError, StoreUnavailableError.
        """
        if self._held is not None:
            async with self._turn:
                if self._held.rows:
                    batch = Batch()
                    batch.rows = self._held.rows
                    await self.write(batch, None)
                    self._held.saved()
        elif self._live.head < self._walk.state.seq:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter  # what has happened is just being written
        return self._live.head

    async def drop_transaction(self, reason: str) -> None:
        """Roll back what the next commit was to be made in: there will be another one."""
        self.within = None
        await self._transacting.roll_back(reason)

    def release_waiters(self) -> None:
        """Whoever waits for a checkpoint waits no longer."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def retire(self) -> None:
        """The run is no longer driven here."""
        self._warn = lambda _warning: None

    # --- writing ----------------------------------------------------------------------------------------------------
    async def write(self, batch: Batch, change: RunChange | None) -> int | None:
        """Make a batch durable, and tell who looks on; the revision of the inbox, None where there was nothing to write.

        Raises LeaseLostError, StoreUnavailableError.
        """
        rows = batch.rows
        if not rows and change is None:
            return None
        walk, live = self._walk, self._live
        commit = new_tuple(
            Commit,
            (walk.state.run_id, walk.epoch, tuple(rows), change, batch.opened, batch.closed, batch.consumed, batch.voted, batch.nudged),
        )
        began = self._clock.now() if self._observers else 0
        receipt = await (self._store.commit(commit) if self.within is None else self._commit_within(commit))
        if self._observers:
            self._tell(batch, receipt.committed_at, change, self._clock.now() - began)
        if rows:
            live.head = rows[-1].seq
        if live.queues:
            live.committed(rows, receipt.committed_at, batch.cancels)
        if self._waiters:
            self.release_waiters()
        return receipt.inbox_rev

    async def write_or_hold_back(self, batch: Batch, change: RunChange | None) -> int | None:
        """`write`, where a policy may keep the rows from being written now; None where it does."""
        held = self._held
        assert held is not None  # noqa: S101 - else nothing is ever held back
        async with self._turn:
            # What a step's own transaction has written cannot be held back with the step: it is committed now, or it is lost.
            must = change is not None or self.within is not None or must_save(batch) or bool(self._live.queues)
            held.add(batch.rows, self._clock.now())
            if not (must or held.is_due) or not (held.rows or change is not None):
                return None
            batch.rows = held.rows
            try:
                written = await self.write(batch, change)
            except StoreUnavailableError as error:
                if must or held.policy.if_unavailable == "fail":
                    raise
                self._warn(NotSavedWarning(self._walk.state.run_id, len(held.rows), error))
                return None
            held.saved()
            return written

    async def _commit_within(self, commit: Commit) -> Receipt:
        """Commit in the transaction that takes the run; or in that of the body whose step this is, without it where what the body
        returned makes no step."""
        held, self.within = self.within, None
        assert held is not None  # noqa: S101
        if isinstance(held, TakingUp):
            return await cast("TakesUp", self._store).take_up(held.with_what_follows(commit))
        row = commit.rows[0] if commit.rows else None
        if row is not None and row.kind == "step" and (row.path, row.node) == held.place[:2]:
            return await self._store.commit(commit, within=held.transaction)
        await held.transaction.roll_back("what the node returned is no step")
        return await self._store.commit(commit)

    def _tell(self, batch: Batch, committed_at: int, change: RunChange | None, took: int) -> None:
        status = change.status if change is not None and change.status is not None else self._walk.state.status
        for index, row in enumerate(row for row in batch.rows if row.kind != "attempt"):  # in an attempt nothing has happened
            told = Committed(row, committed_at, status, None if index else took)
            for observer in self._observers:
                try:
                    observer(told)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whoever looks on never stops a run
                    self._observers = tuple(each for each in self._observers if each is not observer)
                    self._warn(ObserverFailedWarning(row.run_id, row.seq, observer, error))

    # --- snapshots --------------------------------------------------------------------------------------------------
    @property
    def snapshot_pays(self) -> bool:
        """Whether what a load would have to fold outweighs the state itself, and all of it is durable."""
        state = self._walk.state
        return (
            state.weight > SMALLEST_SNAPSHOT
            and state.weight > 2 * state.stored
            and (self._keeping is None or self._keeping.done())
            and not (self._held is not None and self._held.rows)
        )

    async def take_snapshot(self) -> None:
        """Keep the state as it stands, so that a later load is short.

        Nothing may be folded until this returns; the steps that follow do not wait for what it still writes.
        """
        state = self._walk.state
        payload = await asyncio.to_thread(encode, state.dump()) if state.stored > _ENCODED_HERE else encode(state.dump())
        state.weight = 0
        self._keeping = asyncio.create_task(self._keep(Snapshot(state.run_id, state.seq, payload, state.digest)))
        await asyncio.sleep(0)  # handed to the store at once: bodies that never wait would keep it from being begun

    async def _keep(self, snapshot: Snapshot) -> None:
        # Truth never needs a snapshot; the next commit tells whether the store is really gone.
        with contextlib.suppress(StoreError):
            await self._store.put_snapshot(snapshot, self._walk.epoch)

    async def settle(self) -> None:
        """Wait until a snapshot that is being written is."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
