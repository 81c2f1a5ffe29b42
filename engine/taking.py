"""How a run that is there comes to be driven here: over its lease, or with the first commit of its drive.

The short way reads the run once and takes it in the transaction that uses what people have said; the long way takes the lease, sees
what has changed since the run was read, and judges the graph.  Whoever asks and goes away leaves nothing held.
Knows no input and no result, and decides nothing about where a run goes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from checkpoint_stores.errors import LeaseHeldError, RunEndedError, RunMovedError, StoreUnavailableError
from checkpoint_stores.fold import RunState
from checkpoint_stores.ids import of_this_process
from checkpoint_stores.protocol import CheckpointStore, Standing, TakesUp, Watch, takes_up
from checkpoint_stores.records import ENDED, Commit, DecisionRecord, Inbox, Lease, RunChange, RunRecord
from engine.admitting import ResumeMode, admitted, change_over, readmitted
from engine.clock import Clock
from engine.decisions import Decision
from engine.drives import Drive, Drives
from engine.errors import DrivenHereError, ExecutorClosedError, WrongFlowError
from engine.graph import FlowGraph
from engine.loading import catch_up, catch_up_with, load_state
from engine.result import RunResult
from engine.taking_up import NotAtOnceError, Said, attempted, decided, may_be_taken_up


class Taken(NamedTuple):
    """A run that is driven here from now on."""

    run_id: str
    end: asyncio.Future[RunResult]
    """How its drive will end."""
    first: int
    """The checkpoint that took it."""


class _NotReachedError(Exception):
    """The store could not be reached, and nothing is written: to be said by the long way.  Never leaves this file."""


class _GoingOn:
    """Whether a run goes on by a decision as it stands, and the record of that decision then.

    Args:
        may: whether the run may be gone on with at all.
    """

    __slots__ = ("_barrier", "_decision", "_may", "record")

    def __init__(self, may: Callable[[Standing], bool], barrier: str, decision: Decision) -> None:
        self._may = may
        self._barrier = barrier
        self._decision = decision
        self.record: DecisionRecord | None = None

    def __call__(self, standing: Standing) -> bool:
        """Raises what `taking_up.decided` raises."""
        self.record = decided(standing, self._barrier, self._decision) if self._may(standing) else None
        return self.record is not None


class MakesDrive(Protocol):
    """Makes a run ready to be driven here under an epoch."""

    def __call__(
        self, state: RunState, run: RunRecord, epoch: int, clock: Clock, *, inbox: Inbox | None, watch: Watch | None = None
    ) -> Drive: ...


class Taker:
    """Takes runs of one graph for one executor.

    Args:
        drive: makes the drive of a run that is about to be taken.
        clock: the clock of those drives.
        at_once: whether a run may be taken with its first commit; what is checked before a run completes needs it to be held then.
        check_open: raises ExecutorClosedError where nothing is to be taken any more.
    """

    def __init__(
        self, store: CheckpointStore, graph: FlowGraph, drives: Drives, *, drive: MakesDrive, clock: Callable[[], Awaitable[Clock]],
        at_once: bool, check_open: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._graph = graph
        self._drives = drives
        self._drive = drive
        self._clock = clock
        self._at_once = at_once
        self._check_open = check_open

    async def take(self, run_id: str, said: Said, *, mode: ResumeMode = "compatible", takeover: bool = False, as_of: RunRecord | None = None) -> Taken:  # fmt: skip
        """Take a run and begin to drive it.  Raises what `GraphExecutor.attach` raises."""
        self._check_open()
        store = self._store
        if not takeover and takes_up(store):
            standing = await store.standing(run_id, wanted=self._may_take_up)
            self._check(standing.run, as_of)
            with contextlib.suppress(RunMovedError, NotAtOnceError):
                if standing.state is not None and self._may_take_up(standing):  # a store may give what was not wanted
                    return await self._take_up(standing, standing.state, said)
        record = await store.run(run_id)
        self._check(record, as_of)
        return await self._take_over(record, said, mode, takeover=takeover, as_of=as_of)

    def check_flow(self, record: RunRecord) -> None:
        """Raises WrongFlowError."""
        if record.flow != self._graph.name:
            raise WrongFlowError(record.run_id, record.flow, self._graph.name)

    def _check(self, record: RunRecord, as_of: RunRecord | None) -> None:
        """Raises WrongFlowError, RunEndedError, DrivenHereError, LeaseHeldError."""
        self.check_flow(record)
        if record.status in ENDED:
            raise RunEndedError(record.run_id, record.status)
        if record.run_id in self._drives:
            raise DrivenHereError(record.run_id, self._store.worker_id)
        if as_of is not None and as_of.epoch != record.epoch:
            raise LeaseHeldError(record.run_id, record.owner or "somebody who has given it back already", None)

    # --- with the first commit of its drive -------------------------------------------------------------------------
    def _may_take_up(self, standing: Standing) -> bool:
        """Whether it is to be tried; called in whatever thread reads the run."""
        run = standing.run
        is_ours = run.flow == self._graph.name and run.graph_hash == self._graph.graph_hash
        return self._at_once and is_ours and may_be_taken_up(run, standing.inbox)

    async def _take_up(self, standing: Standing, state: RunState, said: Said, decided: DecisionRecord | None = None) -> Taken:
        """Take a run as it was read.  Raises RunMovedError, NotAtOnceError, and what `take` raises."""
        run, _, inbox, _ = standing
        taking = attempted(self._store.chain, run, state, said.details(state), owner=self._store.worker_id, decided=decided)
        if decided is not None:
            inbox = inbox._replace(rev=inbox.rev + 1, decisions=(*inbox.decisions, decided))
        drive = self._drive(state, run, run.epoch + 1, await self._clock(), inbox=inbox)
        end = await self._drives.take_up(drive, taking)
        return Taken(run.run_id, end, taking.row.seq)

    async def decide(self, store: TakesUp, run_id: str, barrier: str, decision: Decision) -> DecisionRecord | None:
        """Record a decision, take the run and go on with it in one transaction; None, and nothing is written, where that cannot be."""
        parked = self._drives.parked(run_id)
        if parked is not None:
            going_on = _GoingOn(self._may_take_up, barrier, decision)
            try:
                # By the store's clock: this process may have slept since, and with it the one that its drives go by.
                standing = parked.standing(await self._store.now())
                going_on(standing)
            except Exception:  # noqa: BLE001 - whatever it is, the long way meets it again, and says it
                return None
            try:
                record = await self._decide_on(store, standing, going_on.record)
            except _NotReachedError:
                return None  # each try waits as long for a file that is locked
            if record is not None:
                return record
        going_on = _GoingOn(self._may_take_up, barrier, decision)
        try:
            standing = await store.standing(run_id, wanted=going_on)
        except Exception:  # noqa: BLE001 - as above
            return None
        if standing.run.run_id != run_id:
            return None  # a part of its id finds a run, and decides nothing
        with contextlib.suppress(_NotReachedError):
            return await self._decide_on(store, standing, going_on.record)
        return None

    async def _decide_on(self, store: TakesUp, standing: Standing, record: DecisionRecord | None) -> DecisionRecord | None:
        """Raises _NotReachedError."""
        if record is None or standing.state is None:
            return None
        try:
            self._check_open()
            await self._take_up(standing, standing.state, Said(), record)
        except StoreUnavailableError:
            # It may be in; then the run has been given back.
            if all(each.id != record.id for each in await store.decisions(record.run_id)):
                raise _NotReachedError from None
            with contextlib.suppress(LeaseHeldError, RunEndedError, ExecutorClosedError):
                await self.take(record.run_id, Said())
        except Exception:  # noqa: BLE001 - as above
            return None
        return record

    # --- over its lease ---------------------------------------------------------------------------------------------
    async def _take_over(self, record: RunRecord, said: Said, mode: ResumeMode, *, takeover: bool, as_of: RunRecord | None) -> Taken:
        store, run_id = self._store, record.run_id
        state = await load_state(store, run_id)
        admission = await admitted(store, record, state, self._graph, mode)
        details = {**said.details(state), **admission.details}
        try:
            lease = await self.lease(store.acquire(run_id, details=details, takeover=takeover))
        except LeaseHeldError as held:
            if of_this_process(held.owner):
                raise DrivenHereError(run_id, held.owner, held.expires_at, other=True) from held
            raise
        watch = store.watch(run_id)
        try:
            if await catch_up(store, state, lease.head_seq - 1):
                if as_of is not None and state.status != "running":
                    await self._leave_stopped(state, lease)
                # Another process got in between: what was judged is not where the run stands.
                admission, lease = await readmitted(store, record, state, self._graph, mode, admission, lease)
            await catch_up_with(store, state, lease)
            if admission.migrates:
                await change_over(store, state, self._graph, admission.details, lease.epoch)
            inbox = await store.inbox(run_id)
            end = self._drives.begin(self._drive(state, lease.run, lease.epoch, await self._clock(), inbox=inbox, watch=watch))
        except BaseException:
            watch.close()
            await store.release(run_id, lease.epoch)
            raise
        return Taken(run_id, end, lease.head_seq)

    async def lease(self, taking: Coroutine[Any, Any, Lease]) -> Lease:
        """A lease that is asked for; given back where whoever asks is cancelled before the answer: nobody would drive the run."""
        asked = asyncio.ensure_future(taking)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back_what_comes(asked))
            raise

    async def _give_back_what_comes(self, asked: asyncio.Future[Lease]) -> None:
        with contextlib.suppress(Exception):  # nobody is there to be told; what came and could not be given back expires by itself
            lease = await asked
            if lease.run.owner == self._store.worker_id:
                await self._store.release(lease.run.run_id, lease.epoch)

    async def _leave_stopped(self, state: RunState, lease: Lease) -> None:
        """Somebody took the run and stopped it between its being read and taken here: that counts.  Raises LeaseHeldError."""
        stopped = RunChange(status=state.status, clear_wake_at=True, release=True)  # type: ignore[arg-type]
        await self._store.commit(Commit(state.run_id, lease.epoch, (), stopped))
        message = f"run {state.run_id} was {state.status} meanwhile, and stays so; attach it without as_of to go on with it all the same"
        raise LeaseHeldError(state.run_id, "", None, message=message)
