"""What a run tells while it is driven here: facts, handed to whoever listens.

A run nobody listens to makes no facts at all.  Bodies speak here too, from
whatever thread they run in.  Knows no store and decides nothing about where the
run goes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from checkpoint_stores.records import Row
from engine.facts import Began, Closed, Fact, Said, Stopped
from engine.speech import Entry, Speech, entries_of

if TYPE_CHECKING:
    from engine.queues import Delivery, Queue


class Live:
    """One run's facts, and who listens to them.  One per run and process; belongs to the loop it was made in."""

    __slots__ = (
        "_in_flight",
        "_lock",
        "_speeches",
        "_thread",
        "_waiters",
        "head",
        "is_closed",
        "loop",
        "now",
        "queues",
        "run_id",
        "tokens",
    )

    def __init__(self, run_id: str, head: int, tokens: int, now: Callable[[], int], in_flight: Callable[[], Iterable[Began]]) -> None:
        self.run_id = run_id
        self.head = head
        """The newest checkpoint known to be durable.  Set by whoever commits."""
        self.tokens = tokens
        """The highest token index given."""
        self.queues: tuple[Queue, ...] = ()
        self.is_closed = False
        self.now = now
        self._in_flight = in_flight
        self._speeches: dict[str, Speech] = {}
        """What bodies in flight have said, by branch path."""
        self._waiters: list[asyncio.Future[None]] = []
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.RLock()

    # --- the consumer's side ----------------------------------------------------------------------------------------
    def listen(self, delivery: Delivery) -> tuple[Queue, int, list[Fact]]:
        """A new queue; the checkpoint before its first row; and what is in flight at this moment."""
        from engine.queues import Queue  # loaded by who listens

        queue = Queue(self.run_id, delivery, stir=self.stir, left=self.forget)
        self.queues += (queue,)
        return queue, self.head, self._now_in_flight()

    def catch_up(self) -> tuple[int, list[Fact]]:
        """The same for a queue that was behind."""
        return self.head, self._now_in_flight()

    def forget(self, queue: Queue) -> None:
        self.queues = tuple(each for each in self.queues if each is not queue)
        self.stir()

    def _now_in_flight(self) -> list[Fact]:
        facts: list[Fact] = []
        with self._lock:
            for body in self._in_flight():
                facts.append(body)
                speech = self._speeches.get(body.path)
                if speech is not None:
                    facts += self._facts_of(speech, body)
        return facts

    @staticmethod
    def _facts_of(speech: Speech, body: Began) -> list[Fact]:
        op = speech.op()
        if op is None:
            return []
        entries = entries_of(op, body.node, body.began_at)
        return [Said(body.path, body.step_index, ordinal, entry) for ordinal, entry in enumerate(entries)]

    # --- the run's side ---------------------------------------------------------------------------------------------
    def committed(self, rows: Sequence[Row], committed_at: int, stopped: Sequence[str]) -> None:
        """Checkpoints are durable; bodies at ``stopped`` will not come to an end."""
        for path in stopped:
            self._put(Stopped(path, committed_at))
        for row in rows:
            self._put(row._replace(committed_at=committed_at))

    def began(self, path: str, node: str, index: int, began_at: int) -> None:
        self._put(Began(path, node, index, began_at))

    def close(self, *, parked: bool, error: BaseException | None) -> None:
        """The run is no longer driven here.  Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._put(Closed(parked, error, self.now()))
            self.stir()
            self._in_flight = tuple

    def speech(self, path: str, began_at: int) -> Speech:
        """Where the body at ``path`` says what it says."""
        speech = self._speeches[path] = Speech(began_at)
        return speech

    def hush(self, path: str, speech: Speech) -> None:
        """The body at ``path`` says nothing more."""
        if self._speeches.get(path) is speech:
            del self._speeches[path]

    # --- a body's side; any thread ----------------------------------------------------------------------------------
    def say(self, speech: Speech, where: tuple[str, str, int], kind: str, fields: dict[str, Any]) -> None:
        """Keep what a body says and pass it on.  ``where``: branch path, node, step index."""
        path, node, index = where
        with self._lock:
            now = self.now()
            ordinal = len(speech)
            if kind == "step_token":
                self.tokens += 1
                speech.token(fields["content"], self.tokens, now)
                fields = {**fields, "token_index": self.tokens}
            elif kind == "tool_call":
                speech.tool_call(fields["tool_name"], fields["content"], now)
            else:
                speech.custom(fields["name"], fields["data"], now)
            if self.queues:
                fields = {"step_name": node, **fields, "timestamp_ms": speech.dated(now)}
                self._pass_on(Said(path, index, ordinal, Entry(kind, fields)))

    def count(self, speech: Speech, tokens_input: int, tokens_output: int) -> None:
        """Add to what a body counted."""
        with self._lock:
            speech.count(tokens_input, tokens_output)

    def _pass_on(self, fact: Said) -> None:
        if threading.get_ident() == self._thread:
            self._put(fact)
            return
        try:
            self.loop.call_soon_threadsafe(self._put, fact)
        except RuntimeError:
            return  # the loop is closed: nobody listens any more

    def _put(self, fact: Fact) -> None:
        for queue in self.queues:
            queue.put(fact)

    # --- waiting for slow consumers ---------------------------------------------------------------------------------
    @property
    def is_held_up(self) -> bool:
        """Whether a consumer has asked the run to wait for it."""
        return any(queue.holds_up for queue in self.queues)

    def stir(self) -> None:
        """Let whoever waits for room look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def when_stirred(self, call: Callable[[], None]) -> None:
        """Call back once there may be room."""
        waiter = self.loop.create_future()
        waiter.add_done_callback(lambda _waiter: call())
        self._waiters.append(waiter)

    async def room(self, over: Callable[[], bool]) -> None:
        """Wait until no consumer holds the run up, or ``over()``."""
        while self.is_held_up and not self.is_closed and not over():
            waiter = self.loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def room_from_thread(self, over: Callable[[], bool]) -> None:
        """The same, for a body that runs in a thread."""
        if threading.get_ident() != self._thread and self.is_held_up and not self.loop.is_closed():
            asyncio.run_coroutine_threadsafe(self.room(over), self.loop).result()
