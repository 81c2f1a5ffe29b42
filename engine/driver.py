"""The driver: the only loop.  Runs node bodies, arms timers, commits, reads the inbox.

It decides nothing.  Each round it hands what happened to the walk, commits the
batch that comes back, and only when that is durable does what the batch says:
a body never starts before the checkpoint that made it ready is safe (unless the
executor's `SavePolicy` says otherwise), and nobody is told of a step that could still be lost.

How a batch becomes durable is `committing`; what it makes of the run as a whole, `concluding`; what people and signals say to
it, `letters`.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast

from checkpoint_stores.errors import LeaseLostError, StoreError, TransactionOverError
from checkpoint_stores.fold import RunState
from checkpoint_stores.protocol import CheckpointStore, Watch
from checkpoint_stores.records import BarrierRecord, Commit, Inbox, Row, RunChange, RunRecord, RunStatus
from checkpoint_stores.statuses import after
from engine.around import Around
from engine.bodies import Bodies
from engine.clock import Clock, Timer
from engine.commands import SetTimer
from engine.committing import SMALLEST_SNAPSHOT, Committer
from engine.concluding import Leaving, conclusion
from engine.context import RunFacts
from engine.driving import DriveTask, Strays
from engine.effects import Effects
from engine.events import (
    BodyFailed,
    BodyReturned,
    BodyWaits,
    CancelAsked,
    DeadlinePassed,
    Event,
    NudgeDue,
    SuspendAsked,
    WaitOver,
)
from engine.letters import Letters
from engine.notices import TrailmarkWarning
from engine.observing import Observer
from engine.parked import MOST_BYTES, Parked
from engine.saving import SavePolicy
from engine.taking_up import TakingUp
from engine.threads import NodeThreads
from engine.transacting import Held, Place, Transacting
from engine.walk import Batch, Walk

WATCH_AFTER: Final = timedelta(milliseconds=50)
"""Every commit tells whether the inbox moved.  Only a run that is still going on after this also listens between commits."""

LONGEST_UNHEARD: Final = timedelta(milliseconds=400)
"""At least so often it is seen whether commits still follow each other, and nobody need listen."""


class RunDriver:
    """Drives one run until it ends, stops or parks.  One per run and process."""

    def __init__(
        self, store: CheckpointStore, walk: Walk, *, clock: Clock, threads: NodeThreads, strays: Strays, observers: Sequence[Observer],
        inbox: Inbox | None, hand_over: Callable[[], None], facts: RunFacts, watch: Watch | None = None, around: Around | None = None,
        before_completion: Callable[[Sequence[Row]], Awaitable[None]] | None = None, saving: SavePolicy | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._before_completion = before_completion
        self._walk = walk
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._effects = Effects(store, walk.epoch, threads)
        self._wake = asyncio.Event()
        self._transacting = Transacting(store, self._wake.set)
        self._bodies = Bodies(
            walk, clock, threads, strays, post=self._post, warn=self.warn, hand_over=hand_over, around=around or Around(clock),
            effects=self._effects, transacting=self._transacting, facts=facts._replace(warn=self._warn_from_anywhere), stop=self._stop,
        )  # fmt: skip
        self.live = self._bodies.live
        self._committer = Committer(store, walk, clock, self.live, self._transacting, saving=saving, observers=observers, warn=self.warn)
        self._transacting.clear_the_way = self._clear_the_way
        self._write = self._committer.write
        if self._committer.holds_back:
            self._write = self._committer.write_or_hold_back
            self._effects.save_first = self.checkpoint
        self.warnings: tuple[TrailmarkWarning, ...] = ()
        self._timers: dict[Event, Timer] = {}
        self._timers_rang = False
        self._mailbox: deque[Event | Inbox] = deque()
        self._watch = watch or store.watch(walk.state.run_id)
        """Made before ``inbox`` was read, so that nothing falls between the two."""
        self._listener: asyncio.Task[None] | None = None
        self._told_at = 0
        """The newest checkpoint that was durable when it was last asked whether to listen."""
        self._deaf: StoreError | None = None
        self._letters = Letters(walk, inbox)
        self.error: BaseException | None = None
        self.status: RunStatus = "running"
        """As this process committed it last."""
        self._leaving: Leaving | None = None
        self._telling: asyncio.Task[None] | None = None
        self._is_told = False
        """Whether the commit that lets the run go is on its way."""
        self._asked: tuple[BarrierRecord, ...] = ()
        """What people were asked with the commit that parked the run."""
        self._taken_with: Batch | None = None
        """What was committed with the taking of the run, where that was one commit; and whether nothing was left to do then."""
        self._is_over = False
        self._preparing: DriveTask[Any] | None = None
        """The task that opens what bodies will need."""
        if inbox is not None and inbox.cancel is not None:
            self._mailbox.append(CancelAsked(inbox.cancel.actor, inbox.cancel.reason))

    @property
    def state(self) -> RunState:
        return self._walk.state

    # --- from outside -----------------------------------------------------------------------------------------------
    def cancel(self, actor: str, reason: str) -> None:
        """End the run as cancelled as soon as what is already finished is committed."""
        self._interrupt(CancelAsked(actor, reason))

    def suspend(self, reason: str) -> None:
        """Stop here, resumable; bodies in flight are cancelled and will be run again."""
        self._interrupt(SuspendAsked(reason))

    def drain(self, then: Leaving) -> None:
        """Start nothing more, let the bodies in flight finish and commit, then let the run go.  A run that is let go already stays so."""
        if self._leaving is None:
            self._leaving = then
            self._telling = asyncio.create_task(self._tell_draining())
            self._wake.set()
            self._leave_unprepared()

    def give_back(self) -> None:
        """Let the run go now, for whoever takes it next; bodies in flight are cancelled and will be run again.

        A run that was to be suspended is suspended.
        """
        if self._leaving is not None and self._leaving.event == "suspend":
            self.suspend(self._leaving.reason)
            return
        self._leaving = Leaving("give_back", "", at_once=True)
        self._wake.set()
        self._leave_unprepared()
        self._bodies.interrupt("the run is given back")

    def _interrupt(self, event: CancelAsked | SuspendAsked) -> None:
        self._post(event)
        self._leave_unprepared()
        what = "the run was cancelled" if isinstance(event, CancelAsked) else "the run was suspended"
        self._bodies.interrupt(f"{what}: {event.reason}" if event.reason else what)

    async def prepared(self, opening: Coroutine[Any, Any, None]) -> None:
        """Wait until what bodies need is open.  Once somebody wants the run to stop here, or it is over with the taking, nothing is waited
        for: no body will begin."""
        if self._is_over or self._leaving is not None or self._is_told_to_stop():
            opening.close()
            return
        here = self._preparing = cast("DriveTask[Any]", asyncio.current_task())
        outside = here.outside
        try:
            await opening
        except (Exception, asyncio.CancelledError):
            if self._preparing is here or here.outside > outside:
                raise
        if self._preparing is None:
            here.uncancel()
        self._preparing = None

    def _leave_unprepared(self) -> None:
        if self._preparing is not None:
            self._preparing.interrupt()
            self._preparing = None

    def over(self, error: BaseException | None) -> None:
        """Nobody drives the run here any more: tell whoever listens, and let the parts go.

        They know each other both ways; cut here, all that the run held is free at once, and not when garbage is next collected.
        """
        self.live.close(parked=self.status == "waiting", error=error)
        self.error = None
        self._bodies.retire()
        self._committer.retire()
        self._transacting.retire()
        self._effects.save_first = None

    def parked(self, run: RunRecord) -> Parked | None:
        """How the run stands that was taken as ``run``, where it has parked; None where what people are asked is not all known here."""
        walk, asked = self._walk, self._asked
        if self.status != "waiting" or not asked or self._letters.are_there or walk.state.stored > MOST_BYTES:
            return None
        if {scope.detail[0] for scope in walk.parked()} != {barrier.ticket for barrier in asked}:
            return None
        return Parked(run, walk.epoch, walk.state, asked, self._letters.rev)

    async def take_up(self, taking: TakingUp) -> None:
        """Take the run with the first commit of the drive, in which what people have said by now is used as well; `drive` goes on from there.

        Raises RunMovedError, NotAtOnceError (nothing was written), StoreUnavailableError.
        """
        batch = self._taken_with = self._walk.begin(self._clock.now(), self._letters.events(()))
        batch.rows.insert(0, taking.row)
        self._committer.within = taking
        self._is_over = await self._commit(batch)

    def not_begun(self) -> None:
        """It will not be driven here after all."""
        self._watch.close()

    # --- the loop ---------------------------------------------------------------------------------------------------
    async def drive(self) -> None:
        """Walk until the run ends, stops or parks.

        Raises LeaseLostError, StoreUnavailableError: the run stays as its last commit left it, and can be resumed.
        """
        self._told_at = self.live.head
        self._listen_later(WATCH_AFTER)
        await self._drive(lambda: self._walk.begin(self._clock.now()))

    async def drive_on(self) -> None:
        """Go on in another task, because a body that was told to stop keeps the one before.  Raises what `drive` raises."""
        await self._transacting.roll_back("its body did not stop")
        await self._drive(lambda: self._walk.feed(self._happened(), self._clock.now()))

    async def _drive(self, first: Callable[[], Batch]) -> None:
        here = self._bodies.task = cast("DriveTask[Any]", asyncio.current_task())
        try:
            batch, is_over = self._taken_with, self._is_over
            if batch is None:
                batch = first()
                is_over = await self._commit(batch)
            self._taken_with = None
            while not is_over:
                events = await self._carry_out(batch)
                if self._transacting.held is not None or self._transacting.broken:
                    events = await self._transaction_first(events)
                elif self._timers_rang:
                    events = await self._people_first(events)
                batch = self._walk.feed(events, self._clock.now())
                is_over = await self._commit(batch)
        finally:
            if self._bodies.task is here:
                if self._telling is not None:
                    await asyncio.wait([self._telling])
                await self._let_go()

    async def _let_go(self) -> None:
        self._committer.release_waiters()
        self._listening.cancel()
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # it would keep what it was cancelled in, which is this driver
        self._watch.close()
        for timer in self._timers.values():
            timer.cancel()
        await self._bodies.cancel_all("the run is no longer driven here")
        await self._transacting.roll_back("the run is no longer driven here")
        await self._effects.settle()
        await self._committer.settle()

    async def _commit(self, batch: Batch) -> bool:
        """Make a batch durable; True where this process is done with the run."""
        walk, committer = self._walk, self._committer
        state = walk.state
        if self._letters.are_there:
            self._answer(batch)
        if self._leaving is not None:
            self._hold(batch, at_once=self._leaving.at_once)
        change = None if state.running else await self._concluded(batch)
        rev = await self._write(batch, change)
        moved = rev is not None and rev != self._letters.rev
        if committer.within is not None:
            await committer.drop_transaction("what the node returned came too late")
        if batch.error is not None:
            self.error = self._bodies.explained(batch.error)
        if batch.cancels:
            why = "its branch was cancelled" if state.status == "running" else f"the run was {state.status}"
            await self._bodies.cancel(batch.cancels, why)
            await self._transacting.roll_back("its body was cancelled")
        if change is not None and (change.status != "waiting" or not moved):
            self.status = change.status or self.status
            self._asked = batch.opened
            return True
        if moved:
            self._read(await self._store.inbox(state.run_id))
            if change is not None and not self._mailbox:
                # Somebody wrote to the inbox, but nothing that moves the run: park with the newer revision.
                return await self._commit(Batch())
        if state.weight > SMALLEST_SNAPSHOT and committer.snapshot_pays:
            await committer.take_snapshot()
        if self.live.queues:
            await self._wait_for_consumers()
        return False

    async def checkpoint(self) -> int:
        """See `Committer.checkpoint`."""
        return await self._committer.checkpoint()

    async def drop_transaction(self, reason: str) -> None:
        """See `Committer.drop_transaction`."""
        await self._committer.drop_transaction(reason)

    async def _concluded(self, batch: Batch) -> RunChange | None:
        """What this batch, after which nothing is in flight, makes of the run as a whole; None while it can go on here."""
        walk, committer = self._walk, self._committer
        if walk.starved and not walk.stopped and not self._mailbox:
            batch.rows += walk.stop_at_limit(self._clock.now()).rows
        leaving = self._leaving if not self._mailbox else None
        if leaving is not None and leaving.event == "suspend" and not walk.stopped:
            batch.rows += walk.feed([SuspendAsked(leaving.reason)], self._clock.now()).rows
        change = conclusion(
            walk, self.status, self._clock.now(), leaving=leaving, has_news=bool(self._mailbox), inbox_rev=self._letters.rev
        )
        if self._before_completion is not None and change is not None and change.status == "completed":
            await self._before_completion(committer.pending(batch))
        self._is_told = change is not None
        if self._is_told and self._telling is not None and committer.within is None:
            await asyncio.wait([self._telling])
        return change

    async def _wait_for_consumers(self) -> None:
        """Do not go on before those who asked for it have room; being told to stop comes first."""
        while self.live.is_held_up and not self._is_told_to_stop() and self._leaving is None:
            self._wake.clear()
            self.live.when_stirred(self._wake.set)
            await self._wake.wait()

    def _is_told_to_stop(self) -> bool:
        return any(isinstance(item, CancelAsked | SuspendAsked) for item in self._mailbox)

    def _hold(self, batch: Batch, *, at_once: bool) -> None:
        """Keep what was to start from starting; ``at_once``: give up what is in flight, too."""
        self._walk.hold(batch.starts)
        batch.starts = []
        if at_once:
            batch.cancels += self._walk.let_go()

    async def _tell_draining(self) -> None:
        """Let everybody see that the run is about to stop here."""
        # The commit that lets the run go waits for this one, or this one is not made: a node's own transaction would hold it up.
        if not self._is_told and self._walk.state.running and self._transacting.held is None:
            self.status = after(self.status, "drain", self.state.run_id)
            with contextlib.suppress(StoreError):  # the driver's own next commit meets it, too
                await self._store.commit(Commit(self.state.run_id, self._walk.epoch, (), RunChange(status=self.status)))

    async def _carry_out(self, batch: Batch) -> list[Event]:
        """Start what is ready, then wait until something has happened."""
        if self._mailbox and self._is_told_to_stop():
            return self._happened()  # the run stops here: what has just become ready is not begun any more
        if self._deaf is not None:
            raise self._deaf
        for timer in batch.timers:
            self._arm(timer)
        if self._leaving is not None:
            self._hold(batch, at_once=False)
        starts = batch.starts
        if starts and not self._store.lease_is_fresh():
            await self._confirm_lease()
        if len(starts) == 1 and starts[0].path == "" and not self._mailbox:
            # At the root nothing else can be in flight: a lone body needs no task of its own.
            start = starts[0]
            node = self._walk.plan.nodes[start.node]
            if node.runs_inline:
                self._transacting.is_lent = True  # nobody can be waiting for it: nothing else is in flight
                event = await self._bodies.run_here(node, start)
                self._transacting.is_lent = False
                if not self._mailbox:
                    return [event] if event is not None else []
                return [*([event] if event is not None else []), *self._happened()]
        for start in starts:
            self._bodies.launch(start)
        self._transacting.lend()
        while (
            not self._mailbox or (self._transacting.held is not None and self._is_early(self._transacting.held))
        ) and not self._may_leave():
            if self._deaf is not None:
                raise self._deaf
            self._wake.clear()
            await self._wake.wait()
        self._transacting.is_lent = False
        return self._happened()

    def _may_leave(self) -> bool:
        return self._leaving is not None and (self._leaving.at_once or not self._walk.state.running)

    # --- a step's own transaction -----------------------------------------------------------------------------------
    async def _clear_the_way(self) -> None:
        """Write what would wait behind a transaction that is about to begin: it may hold the only lock there is, and what waits would be the last word."""
        if self._telling is not None:
            await asyncio.wait([self._telling])
        if self._committer.holds_back:
            await self.checkpoint()

    def _is_early(self, held: Held) -> bool:
        """Whether the body of a transaction has not come back, and nothing is asked that cannot wait for it."""
        return not any(isinstance(item, CancelAsked | SuspendAsked) or _is_of(held, item) for item in self._mailbox)

    async def _transaction_first(self, events: list[Event]) -> list[Event]:
        """What the body of a transaction returned, alone; the rest goes back into the mailbox.  All of it where the transaction is over."""
        events = [self._unbroken(event) for event in events] if self._transacting.broken else events
        held = self._transacting.held
        if held is None:
            return events
        own = next((event for event in events if _is_of(held, event)), None)
        if own is None:
            await self._transacting.roll_back("the run stops here")
            return events
        self._mailbox.extendleft(reversed([event for event in events if event is not own]))
        if isinstance(own, BodyReturned) and held.is_handed_over and self._transacting.take(held):
            self._committer.within = held
            return [own]
        over = held.transaction.over
        if over is None and not held.is_handed_over:  # something that the body began is still in the block: it may have written half
            over = TransactionOverError("the node returned while the block of its ctx.transaction() was still open; await what is in it")
        await self._transacting.roll_back("the node failed")
        # Its time ran out, and it is being rolled back under a body that knows nothing of it: what that returned is no step.
        return [own] if over is None else [_undone(own, over)]

    def _unbroken(self, event: Event) -> Event:
        """The failure of a body whose transaction was rolled back behind its block; any other event as it is."""
        if not isinstance(event, BodyReturned | BodyFailed | BodyWaits):
            return event
        over = self._transacting.broken.pop(Place(event.path, event.node, event.visit), None)
        return event if over is None else _undone(event, over)

    def _happened(self) -> list[Event]:
        """Empty the mailbox."""
        events: list[Event] = []
        while self._mailbox:
            item = self._mailbox.popleft()
            if isinstance(item, Inbox):
                self._read(item, events)
            else:
                events.append(item)
        return events

    def _post(self, event: Event | Inbox) -> None:
        self._mailbox.append(event)
        self._wake.set()

    # --- timers, inbox, lease, snapshots ----------------------------------------------------------------------------
    def _arm(self, timer: SetTimer) -> None:
        if timer.event not in self._timers:
            self._timers[timer.event] = self._clock.call_at(timer.due, partial(self._ring, timer.event))

    def _ring(self, event: Event) -> None:
        self._timers.pop(event, None)
        self._timers_rang = True
        self._post(event)

    async def _people_first(self, events: list[Event]) -> list[Event]:
        """A decision that the store took before a deadline counts, though nobody has read it yet."""
        self._timers_rang = False
        if not any(isinstance(event, DeadlinePassed | NudgeDue | WaitOver) for event in events):
            return events
        self._read(await self._store.inbox(self._walk.state.run_id), events)
        return [*self._happened(), *events]

    def _listen_later(self, after: timedelta) -> None:
        self._listening = self._loop.call_later(after.total_seconds(), self._begin_to_listen, after)

    def _begin_to_listen(self, waited: timedelta) -> None:
        """Listen for outsiders; not yet while commits follow each other, since each brings back whether anybody wrote to the inbox.

        Where a policy holds rows back, they may be saved beside the steps (`checkpoint`), and the drive hears nothing of that.
        """
        durable, before = self.live.head, self._told_at
        self._told_at = durable
        if not self._committer.holds_back and (durable != before or durable < self._walk.state.seq):
            self._listen_later(min(2 * waited, LONGEST_UNHEARD))
        else:
            self._listener = asyncio.create_task(self._watch_inbox())

    async def _watch_inbox(self) -> None:
        """Read the inbox whenever an outsider wrote to it."""
        try:
            while True:
                await self._watch.changed()
                inbox = await self._store.inbox(self._walk.state.run_id)
                if inbox.rev != self._letters.rev:
                    self._post(inbox)
                    if inbox.cancel is not None:
                        self._interrupt(CancelAsked(inbox.cancel.actor, inbox.cancel.reason))
        except StoreError as error:
            # Deaf to people the run must not go on: whoever waits is told, and the run can be resumed.
            self._stop(error)

    def _stop(self, error: StoreError) -> None:
        self._deaf = error
        self._wake.set()
        self._bodies.interrupt("the store cannot be read any more")

    def _read(self, inbox: Inbox, taken: Sequence[Event] = ()) -> None:
        """Go on with a newer reading of the inbox; ``taken`` has left the mailbox and is still to be fed."""
        if inbox.rev <= self._letters.rev:
            return
        self._letters.take(inbox)
        if inbox.cancel is not None:
            self._post(CancelAsked(inbox.cancel.actor, inbox.cancel.reason))
        self._answer(Batch(), taken)

    def _answer(self, batch: Batch, taken: Sequence[Event] = ()) -> None:
        """Post what the letters make happen, once those are put away that a batch uses, or that what is ``taken`` is about to use."""
        if batch.consumed:
            self._letters.forget(batch.consumed)
        for event in self._letters.events([*taken, *self._mailbox]):
            self._post(event)

    async def _confirm_lease(self) -> None:
        """After a silence (a suspended machine, a stopped process): ask the database whether the run is still ours."""
        run_id = self._walk.state.run_id
        await self._store.heartbeat()
        record = await self._store.run(run_id)
        if record.epoch != self._walk.epoch:
            raise LeaseLostError(run_id, self._walk.epoch, owner=record.owner, current_epoch=record.epoch)

    def _warn_from_anywhere(self, warning: TrailmarkWarning) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - no exception where there is none
            self.warn(warning)
        else:
            self._loop.call_soon_threadsafe(self.warn, warning)

    def warn(self, warning: TrailmarkWarning) -> None:
        """Something went wrong beside the run: it stands in the result, and is a Python warning."""
        self.warnings += (warning,)
        # Not here: where warnings are made errors, they are the loop's to report and must not stop the run.
        asyncio.get_running_loop().call_soon(warnings.warn, warning)


def _is_of(held: Held, item: Event | Inbox) -> bool:
    """Whether it is what became of the transaction's body."""
    return isinstance(item, BodyReturned | BodyFailed | BodyWaits) and (item.path, item.node, item.visit) == held.place


def _undone(event: Event, over: Exception) -> Event:
    """What a body brought whose transaction is over without a commit: a failure, whatever it returned."""
    if not isinstance(event, BodyReturned):
        return event
    return BodyFailed(event.path, event.node, event.visit, over, event.started_at, event.said)
