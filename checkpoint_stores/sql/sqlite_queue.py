"""One thread with one SQLite connection that carries out, batch by batch, whatever waits for it.

One hop into the thread and one back, however much waits.  This file knows the
thread and telling who waits; what a piece of work is and how a batch is
carried out is the subclasses'.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from checkpoint_stores.errors import StoreUnavailableError
from checkpoint_stores.hops import into_loop
from checkpoint_stores.sql.settling import JOBS_AT_ONCE, Answer, Outcome, answer

Work = TypeVar("Work")

Job: TypeAlias = "tuple[Work, Answer]"


class Look:
    """Another thread's question: what have others committed, as far as this connection sees?

    The answer is a number that moves with it, and with nothing that the connection commits itself.
    """

    def __init__(self) -> None:
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def take(self, raw: sqlite3.Connection) -> None:
        """Called in the connection's thread, between its batches."""
        try:
            self._answers.put(raw.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            self._answers.put(None)

    def answer(self, seconds: float) -> int | None:
        """Wait for the answer, so long at most; None where there is none."""
        with contextlib.suppress(queue.Empty):
            return self._answers.get(timeout=seconds)
        return None


class SQLiteQueue(ABC, Generic[Work]):
    """A thread, its connection and what waits for it.

    Args:
        connect: opens the connection (autocommit mode); called in the thread.
    """

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection], *, name: str) -> None:
        self._url = url
        self._connect = connect
        self._jobs: queue.SimpleQueue[Job[Work] | Look | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._call_in_loop = into_loop(self._loop)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._opened = Answer(loop=self._loop)
        self._is_closed = False
        self._raw: sqlite3.Connection
        self.unheard: Callable[[], object] | None = None
        """Called on the loop for what was carried out though whoever asked for it no longer waits, and so tells nobody."""

    async def open(self) -> None:
        """Start the thread; raises what opening the database raises."""
        self._thread.start()
        try:
            await self._opened
        except BaseException:
            # The thread is over, or it will be when it has opened what nobody wants any more.
            self._is_closed = True
            self._jobs.put(None)
            raise

    async def close(self) -> None:
        """Carry out what is queued, then end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        self._thread.join()  # its queue is empty; a pool may be gone already when a program ends

    def submit(self, work: Work) -> Answer:
        """Queue a piece of work; the future gets its result."""
        if self._is_closed:
            raise StoreUnavailableError(self._url, "this store is closed")
        waiting = Answer(loop=self._loop)
        self._jobs.put((work, waiting))
        return waiting

    def foreign(self, *, patience: float) -> int | None:
        """See `Look`; to be called in another thread than the loop's, which waits so many seconds at most.  None: nobody knows."""
        look = Look()
        self._jobs.put(look)
        return look.answer(patience)

    # --- in the thread ----------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        """What a subclass needs of a fresh connection."""

    @abstractmethod
    def _carry_out(self, jobs: list[Job[Work]]) -> list[Outcome]:
        """Carry a batch out."""

    def _work(self) -> None:
        try:
            self._raw = self._connect()
            self._prepare()
        except BaseException as error:  # noqa: BLE001 - whoever opens the store gets it
            self._deliver([(self._opened, None, error)])
            return
        self._deliver([(self._opened, None, None)])
        take, waiting = self._jobs.get, self._jobs.qsize
        is_open = True
        while is_open:
            taken = [take()]
            taken += [take() for _ in range(min(waiting(), JOBS_AT_ONCE - 1))]
            jobs = [job for job in taken if type(job) is tuple]
            looks = [job for job in taken if type(job) is Look] if len(jobs) < len(taken) else []
            is_open = len(jobs) + len(looks) == len(taken)
            outcomes = self._carry_out(jobs) if jobs else []
            for look in looks:
                look.take(self._raw)
            # Who waited has it: nothing of it is kept until somebody asks again.
            taken, jobs, looks = [], [], []
            if outcomes:
                # Last of all, since it wakes the loop, which would have to wait for whatever else this thread does.
                self._deliver(outcomes)
                outcomes = []
        with contextlib.suppress(sqlite3.Error):
            self._raw.close()

    def _deliver(self, outcomes: list[Outcome]) -> None:
        self._call_in_loop(answer, outcomes, self.unheard)
