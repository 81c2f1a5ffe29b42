"""Side effects carried out once: written down before they happen, and again behind.

    begin (durable) ──▶ the function ──▶ end (durable)

A process that dies between the two leaves an effect in doubt, and the next one
says so instead of carrying it out again.  Knows the store and the loop; what a
record may become is `checkpoint_stores.effects`' to say.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from checkpoint_stores.codec import decode, encode, materialise
from checkpoint_stores.errors import CodecError, StoreError, StoreUnavailableError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import EffectRecord
from engine.callables import is_coroutine
from engine.errors import EffectInDoubtError
from engine.threads import NodeThreads

PAUSES: Final = (0.1, 0.5, 2.0, 5.0)
"""Seconds between attempts to write down what has happened: the outcome of a payment is worth waiting for."""

PATIENCE: Final = 10.0
"""Seconds."""

T = TypeVar("T")


class Once(NamedTuple):
    """What a node asked for."""

    effect: EffectRecord
    call: Callable[[], Any]
    again: bool
    """Whether it may be carried out though it is in doubt."""
    doubtful: tuple[type[BaseException], ...]
    """Exceptions behind which nobody knows whether it happened."""


class Asks(Protocol):
    """The step that asks."""

    def check(self) -> None: ...


class Effects:
    """The side effects of one run, in the process that drives it."""

    def __init__(self, store: CheckpointStore, epoch: int, threads: NodeThreads) -> None:
        self._store = store
        self._epoch = epoch
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._writing: set[asyncio.Task[Any]] = set()
        self.save_first: Callable[[], Awaitable[int]] | None = None
        """Makes durable what a `SavePolicy` holds back: an effect is never known of without the steps before it."""
        self._told: list[StoreError] = []
        """The store's errors that nodes were told instead of outcomes."""

    def told(self, raised: BaseException | None) -> StoreError | None:
        """The store's error that a node was told instead of an outcome, where it raised that (several side by side: also in a group).

        It is no failure of the node.
        """
        if isinstance(raised, BaseExceptionGroup):
            return next((error for each in raised.exceptions if (error := self.told(each)) is not None), None)
        return next((error for error in self._told if error is raised), None)

    # --- in an async node -------------------------------------------------------------------------------------------
    async def once(self, step: Asks, asked: Once) -> Any:
        """Carry an effect out and return its outcome, or the outcome it had before.

        Raises EffectInDoubtError, what the function raises, LeaseLostError, StoreUnavailableError.
        """
        record, may_run = await self._begin(asked)
        if not may_run:
            return _outcome_of(record)
        try:
            outcome = await self._call(asked.call)
        except BaseException as error:
            await self._written(self._end(_failed(record, error, asked.doubtful)))
            if isinstance(error, asked.doubtful):
                raise _doubt(record) from error
            raise
        ended = await self._written(self._end(_done(record, outcome)))
        step.check()
        return _outcome_of(ended)

    async def _begin(self, asked: Once) -> tuple[EffectRecord, bool]:
        begun = self._keep(self._guarded(self._begun(asked)))
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            # It was not carried out, and nobody is to doubt that.
            self._keep(self._take_back(begun))
            raise

    async def _begun(self, asked: Once) -> tuple[EffectRecord, bool]:
        if self.save_first is not None:
            await self.save_first()
        return await self._store.begin_effect(asked.effect, self._epoch, again=asked.again)

    async def _take_back(self, begun: asyncio.Task[tuple[EffectRecord, bool]]) -> None:
        try:
            record, may_run = await begun
            if may_run:
                await self._end(replace(record, status="not_done", reason="it was cancelled before it began"))
        except StoreError:
            return  # it stays in doubt, which is safe

    async def _call(self, call: Callable[[], Any]) -> Any:
        result = await self._threads.start(call).answer if not is_coroutine(call) else call()
        return await result if inspect.isawaitable(result) else result

    # --- in a plain node's thread -----------------------------------------------------------------------------------
    def once_sync(self, step: Asks, asked: Once) -> Any:
        """`once` for the thread of a plain node: blocks it, and runs the function in it."""
        record, may_run = self._waited(self._begin(asked))
        if not may_run:
            return _outcome_of(record)
        try:
            step.check()  # revoked while it waited: nothing happens any more
        except BaseException:
            self._waited(self._end(replace(record, status="not_done", reason="the attempt was over before it began")))
            raise
        try:
            outcome = asked.call()
        except BaseException as error:
            self._waited(self._end(_failed(record, error, asked.doubtful)))
            if isinstance(error, asked.doubtful):
                raise _doubt(record) from error
            raise
        # Also where the attempt is over by now: what has happened has happened.
        ended = self._waited(self._end(_done(record, outcome)))
        step.check()
        return _outcome_of(ended)

    def _waited(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- writing ----------------------------------------------------------------------------------------------------
    async def _end(self, effect: EffectRecord) -> EffectRecord:
        """Write down what became of an effect; try for a while, since nobody else knows it.  The same again is harmless."""
        for pause in PAUSES:
            try:
                return await self._store.end_effect(effect, self._epoch)
            except StoreUnavailableError:
                await asyncio.sleep(pause)
            except StoreError as error:
                self._told.append(error)
                raise
        return await self._guarded(self._store.end_effect(effect, self._epoch))

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except StoreError as error:
            self._told.append(error)
            raise

    async def _written(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of ``work``, which goes on to its end although the step is cancelled."""
        return await asyncio.shield(self._keep(work))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited was told

    async def settle(self) -> None:
        """Wait until everything that is being written is durable (or has failed), at most for `PATIENCE`."""
        if self._writing:
            await asyncio.wait(set(self._writing), timeout=PATIENCE)


def _done(record: EffectRecord, outcome: Any) -> EffectRecord:
    try:
        decode(encode(outcome, "outcome"))
    except CodecError as error:
        # It happened, and its outcome is lost: nobody may take it for not done, or for done without one.
        return replace(record, status="in_doubt", reason=f"it was carried out, but {error}")
    return replace(record, status="done", outcome=outcome)


def _failed(record: EffectRecord, error: BaseException, doubtful: tuple[type[BaseException], ...]) -> EffectRecord:
    told = f"{type(error).__name__}: {error}"[:1000]
    is_known = isinstance(error, Exception) and not isinstance(error, doubtful)
    return replace(record, status="not_done" if is_known else "in_doubt", reason=told)


def _outcome_of(record: EffectRecord) -> Any:
    if record.status != "done":
        raise _doubt(record)
    return materialise(record.outcome)


def _doubt(record: EffectRecord) -> EffectInDoubtError:
    return EffectInDoubtError(record.node, record.path, record.run_id, record.name, record.key, record.reason)
