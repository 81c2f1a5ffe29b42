"""The runs that one executor drives in this process: each in a task of its own, with what its flow needs open around it.

Knows tasks, and how a drive begins, is handed over to another task and ends; knows no graph and decides nothing.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from checkpoint_stores.errors import RunMovedError, StoreError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, RunRecord
from engine.driver import RunDriver
from engine.driving import DriveTask, HandedOverError, goes_up
from engine.notices import ResourceNotClosedWarning, TrailmarkWarning
from engine.parked import Parked
from engine.resources import Opened
from engine.result import RunResult
from engine.taking_up import NotAtOnceError, TakingUp


class DriveEnd(asyncio.Future[RunResult]):
    """How a drive will end, in whichever task that is."""

    parked: Parked | None = None
    """How the run stands then, where it parked."""


class Drive:
    """One run that is driven here."""

    __slots__ = ("driver", "ended", "epoch", "opened", "run")

    def __init__(self, driver: RunDriver, run: RunRecord, epoch: int, opened: Opened) -> None:
        self.driver = driver
        self.run = run
        """As it was taken."""
        self.epoch = epoch
        self.opened = opened
        self.ended = DriveEnd(loop=asyncio.get_running_loop())


class Drives:
    """The runs that are driven here, and how those ended that somebody may still ask for.

    Args:
        result_of: what a driver that is done stands for.
        begins: told of each drive before any body of it begins.
    """

    def __init__(self, store: CheckpointStore, result_of: Callable[[RunDriver], RunResult], begins: Callable[[Drive], None]) -> None:
        self._store = store
        self._result_of = result_of
        self._begins = begins
        self._by_run: dict[str, Drive] = {}
        self._tasks: set[DriveTask[RunResult | None]] = set()
        self._ended: weakref.WeakValueDictionary[str, asyncio.Future[RunResult]] = weakref.WeakValueDictionary()
        """Drives that ended, for as long as a handle is kept: what this process saw is more than what the store keeps."""
        self._parked: weakref.WeakValueDictionary[str, DriveEnd] = weakref.WeakValueDictionary()
        """The same of drives whose runs wait for people; no other is known not to have moved on."""

    def __len__(self) -> int:
        return len(self._by_run)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._by_run

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_run))

    def driver(self, run_id: str) -> RunDriver | None:
        """Who drives the run; None where it is not driven here."""
        drive = self._by_run.get(run_id)
        return None if drive is None else drive.driver

    def end(self, run_id: str) -> asyncio.Future[RunResult] | None:
        """How the drive of a run that is driven here will end."""
        drive = self._by_run.get(run_id)
        return None if drive is None else drive.ended

    def last_end(self, run_id: str) -> asyncio.Future[RunResult] | None:
        """The same, or how it ended, where this process saw that and anybody still keeps it."""
        return self.end(run_id) or self._ended.get(run_id)

    def parked(self, run_id: str) -> Parked | None:
        """How a run stands that has parked here, told once; None where nobody has kept its handle, or it is not all known."""
        end = self._parked.pop(run_id, None)
        if end is None:
            return None
        # Whoever keeps the handle keeps how the drive ended, and it is of no more use to him.
        parked, end.parked = end.parked, None
        return parked

    # --- beginning and ending ---------------------------------------------------------------------------------------
    def begin(self, drive: Drive) -> asyncio.Future[RunResult]:
        """Drive a run in a task of its own."""
        self._know(drive)
        self._begins(drive)
        self._in_a_task(drive, self._driven(drive, drive.driver.drive()))
        return drive.ended

    def _know(self, drive: Drive) -> None:
        run_id = drive.driver.state.run_id
        self._by_run[run_id] = drive
        self.parked(run_id)  # it moves on
        drive.ended.add_done_callback(lambda _ended: self._forget(drive))

    async def take_up(self, drive: Drive, taking: TakingUp) -> asyncio.Future[RunResult]:
        """Take a run with the first commit of its drive, and drive it on; in a task of its own, whatever becomes of who waits for it.

        Raises what `RunDriver.take_up` raises: then it is not driven here.
        """
        taken = asyncio.get_running_loop().create_future()
        task = self._in_a_task(drive, self._taken_up(drive, taking, taken))
        try:
            await taken
        except asyncio.CancelledError:
            if taken.cancelled():
                await asyncio.wait([task])  # it is given back
            elif taken.exception() is None:
                # The body may have begun already: what is cancelled comes back in the time that bodies have to stop.
                drive.driver.give_back()
                await outlast(drive.ended)
            raise
        return drive.ended

    async def _taken_up(self, drive: Drive, taking: TakingUp, taken: asyncio.Future[None]) -> RunResult | None:
        try:
            await drive.driver.take_up(taking)
        except BaseException as failure:
            drive.driver.not_begun()
            goes_on_up = not isinstance(failure, Exception)
            if goes_on_up:
                taken.cancel()
            if not isinstance(failure, RunMovedError | NotAtOnceError):
                await self._release(drive, failure)  # it may be in
            if goes_on_up:
                raise
            if not taken.done():
                taken.set_exception(failure)
            return None
        if taken.done():  # who asked has gone away, and nobody would know of it
            drive.driver.not_begun()
            await self._release(drive, asyncio.CancelledError())
            return None
        self._know(drive)
        self._begins(drive)
        taken.set_result(None)
        return await self._driven(drive, drive.driver.drive())

    def hand_over(self, run_id: str) -> None:
        """Drive the run on in another task: a body that was told to stop keeps the one it had."""
        drive = self._by_run[run_id]
        self._in_a_task(drive, self._driven(drive, drive.driver.drive_on()))

    def _in_a_task(self, drive: Drive, driven: Coroutine[Any, Any, RunResult | None]) -> DriveTask[RunResult | None]:
        task = DriveTask(driven, name=f"trailmark run {drive.driver.state.run_id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._is_over(done, drive.ended))
        return task

    async def _driven(self, drive: Drive, driving: Coroutine[Any, Any, None]) -> RunResult | None:
        """How the drive ended; None where another task has gone on with it."""
        driver = drive.driver
        try:
            await driver.prepared(drive.opened.open())
            await driving
        except HandedOverError:
            return None
        except BaseException as failure:
            driving.close()
            driver.not_begun()
            try:
                await _close(drive)
            finally:
                await self._release(drive, failure)
            raise
        await _close(drive)
        return self._result_of(driver)

    async def _release(self, drive: Drive, failure: BaseException) -> None:
        """Whatever happened, the run is no longer driven here: let others have it at once."""
        try:
            await asyncio.shield(self._store.release(drive.driver.state.run_id, drive.epoch))
        except StoreError as also:
            failure.add_note(f"the lease could not be given back, it will expire by itself: {also}")

    def _is_over(self, task: DriveTask[RunResult | None], ended: asyncio.Future[RunResult]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if ended.done():
            return
        if task.cancelled():
            ended.cancel()
        elif failure is not None:
            ended.set_exception(failure)
        elif (result := task.result()) is not None:
            ended.set_result(result)

    def _forget(self, drive: Drive) -> None:
        run_id, ended = drive.driver.state.run_id, drive.ended
        if self._by_run.get(run_id) is drive:
            del self._by_run[run_id]
        # Asking for the exception keeps a run that nobody waits for from warning about it.
        if not ended.cancelled() and (ended.exception() is not None or ended.result().status in ENDED):
            self._ended[run_id] = ended
        elif not ended.cancelled() and (parked := drive.driver.parked(drive.run)) is not None:
            ended.parked = parked
            self._parked[run_id] = ended
        # Whoever listens is told last: the run can be taken again at once.
        error = RuntimeError(f"run {run_id} is no longer driven here: its task was cancelled") if ended.cancelled() else ended.exception()
        drive.driver.over(error)


async def _close(drive: Drive) -> None:
    try:
        await drive.opened.close()
    except BaseException as error:
        if goes_up(error):
            raise
        # The run is as it is stored, whatever a connection says when it is closed.
        drive.driver.warn(ResourceNotClosedWarning(drive.driver.state.run_id, error))


async def outlast(end: asyncio.Future[Any]) -> None:
    """Wait for a drive's end without cancelling it when the waiter is cancelled, and without raising what it raised."""
    if end.done():
        return
    waiting = asyncio.get_running_loop().create_future()
    tell = partial(_tell, waiting)
    end.add_done_callback(tell)
    try:
        await waiting
    finally:
        end.remove_done_callback(tell)


def _tell(waiting: asyncio.Future[None], _end: asyncio.Future[Any]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def warnings_of(ended: asyncio.Future[RunResult] | None) -> tuple[TrailmarkWarning, ...]:
    """What went wrong beside a drive that came to its end here."""
    if ended is None or ended.cancelled() or ended.exception() is not None:
        return ()
    return ended.result().warnings
