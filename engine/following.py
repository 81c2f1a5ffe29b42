"""A stream of events: from the store's log, and live where the run is driven here.

One rule: read the log up to where the run stands; listen from there; where the
queue overflowed, or the run is driven elsewhere, read the log again.  So nothing
is missed and nothing waits in memory for a consumer that is slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

from checkpoint_stores.errors import ArgumentError, CheckpointNotFoundError
from checkpoint_stores.protocol import CheckpointStore, Watch
from checkpoint_stores.records import ENDED, STOPPED, Row, RunRecord
from engine.arguments import one_of
from engine.catalog import TERMINATORS, Dropped, Envelope, EventId
from engine.facts import Closed
from engine.live import Live
from engine.loading import load_state
from engine.narrating import Narrator
from engine.queues import Behind, Delivery, Queue
from engine.telling import Teller, Told, enveloped

OnLoss: TypeAlias = Literal["detach", "suspend", "cancel"]


class Drives(Protocol):
    """What a stream asks of whoever may drive the run in this process."""

    @property
    def store(self) -> CheckpointStore: ...
    def live(self, run_id: str) -> Live | None: ...
    def lost(self, run_id: str, on_loss: OnLoss) -> None:
        """The consumer of a run driven here went away before the run had come to a stop."""
        ...


class EventStream(AsyncIterator[Envelope]):
    """The events of one run, in order: an async iterator, and a context manager that closes it.

    It ends after the terminator, or where the run has stopped (``suspended``).  Leaving it early is no decision about the run,
    unless ``on_loss`` says so.
    """

    def __init__(
        self, drives: Drives, run_id: str, *, first: int = 0, after: str | None = None, delivery: Delivery | None = None,
        on_loss: OnLoss = "detach", follow: bool = True, through_barriers: bool = False,
    ) -> None:  # fmt: skip
        one_of("on_loss", on_loss, get_args(OnLoss))
        if delivery is not None and not isinstance(delivery, Delivery):
            raise ArgumentError("delivery", delivery, 'a Delivery, e.g. Delivery("pause")')
        self._drives = drives
        self._store = drives.store
        self.run_id = run_id
        self._after = EventId.parse(after) if after is not None else None
        self._first = self._after.seq if self._after is not None else first
        self._delivery = delivery or Delivery()
        self._on_loss: OnLoss = on_loss
        self._follow = follow
        self._through = through_barriers
        self._ready: deque[Told] = deque()
        self._narrator: Narrator | None = None
        self._live: Live | None = None
        self._queue: Queue | None = None
        self._reading: AsyncIterator[Row] | None = None
        self._upto: int | None = None
        self._in_flight: list[Any] = []
        self._record: RunRecord | None = None
        self._read = 0
        self._begins = 0
        """The first checkpoint that the run ever had."""
        self._watch: Watch | None = None
        self._last = ""
        self._over = False
        self.dropped: list[Dropped] = []
        """What this consumer did not get as it was sent, step by step."""

    # --- the iterator -----------------------------------------------------------------------------------------------
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        """The next event.

        Raises RunNotFoundError, CheckpointNotFoundError (an id beyond the log), SlowConsumerError, StoreUnavailableError; and
        whatever stopped a run that is driven here, other than its own failure.
        """
        while not self._ready:
            if self._over:
                self._let_go()
                raise StopAsyncIteration
            try:
                await self._more()
            except Exception:
                self._over = True
                self._let_go()
                raise
        told = self._ready.popleft()
        envelope = enveloped(self.run_id, told)
        if isinstance(envelope.event, Dropped):
            self.dropped.append(envelope.event)
        return envelope

    async def aclose(self) -> None:
        """Take no more events.  Idempotent."""
        lost = not self._over and self._live is not None and not self._live.is_closed
        self._over = True
        self._ready.clear()
        reading, self._reading = self._reading, None
        self._let_go()
        if reading is not None:
            await reading.aclose()  # type: ignore[attr-defined]
        if lost and self._on_loss != "detach":
            self._drives.lost(self.run_id, self._on_loss)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_queue", None) is None or self._live is None:
            return
        lost = not self._over and not self._live.is_closed and self._on_loss != "detach"
        self._let_go()
        if lost:
            self._drives.lost(self.run_id, self._on_loss)

    def _let_go(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # --- where the next event comes from ----------------------------------------------------------------------------
    async def _more(self) -> None:
        if self._narrator is None:
            self._narrator = await self._begin()
        if self._reading is not None:
            await self._read_on(self._narrator, self._reading)
        elif self._queue is not None:
            await self._listen(self._narrator, self._queue)
        else:
            await self._look(self._narrator)

    async def _begin(self) -> Narrator:
        record = await self._store.run(self.run_id)
        self.run_id = record.run_id
        self._begins = 0 if record.forked_at_seq is not None else 1
        if self._first > self._begins:
            teller = Teller(record.flow, record.created_at, await load_state(self._store, record.run_id, self._first - 1))
        else:
            teller = Teller(record.flow, record.created_at)
        if self._after is not None:
            teller.release()
        return Narrator(teller, self._after)

    async def _look(self, narrator: Narrator) -> None:
        """Listen where the run is driven here; else see what the store says of it.  Then read the log from where we stand."""
        live = self._drives.live(self.run_id) if self._follow else None
        self._read = 0
        if live is not None:
            self._live = live
            self._queue, self._upto, self._in_flight = live.listen(self._delivery)
            narrator.dropped, narrator.policy = self._queue.dropped, self._delivery.policy
            self._record = None
        else:
            if self._follow and self._watch is None:
                self._watch = self._store.watch(self.run_id, steps=True)
            self._record = await self._store.run(self.run_id)
            self._upto = None
        self._reading = self._store.history(self.run_id, after=narrator.seq)

    async def _read_on(self, narrator: Narrator, reading: AsyncIterator[Row]) -> None:
        """Read one row of the log."""
        try:
            row = await anext(reading, None)
        except BaseException:
            # Whoever waited was cancelled, and a generator that was interrupted is over: the log is read on from where we stand.
            self._reading = self._store.history(self.run_id, after=narrator.seq)
            raise
        if row is not None and (self._upto is None or row.seq <= self._upto):
            self._read += 1
            if row.seq > max(narrator.seq + 1, self._begins):
                self._reading = self._store.history(self.run_id, after=narrator.seq)  # where this is interrupted, the row is read again
                await self._pass_over(narrator, row)
                self._reading = reading
            self._tell(narrator.row(row))
            return
        self._reading = None
        if row is not None:
            await reading.aclose()  # type: ignore[attr-defined]
        if self._queue is not None:
            in_flight, self._in_flight = self._in_flight, []
            self._tell(narrator.now_in_flight(in_flight, self._live.now() if self._live is not None else 0))
        elif not self._read and self._record is not None:
            await self._at_the_head(narrator, self._record)

    async def _pass_over(self, narrator: Narrator, row: Row) -> None:
        """What came before ``row`` was pruned.  Who asked for what follows an id is told that it is missing something."""
        if self._after is not None and narrator.seq < 0:
            raise CheckpointNotFoundError(self.run_id, self._after.seq + 1)
        narrator.teller.stand_behind(await load_state(self._store, self.run_id, row.seq - 1))

    async def _listen(self, narrator: Narrator, queue: Queue) -> None:
        """Take what waits in the queue."""
        fact = await queue.take()
        if isinstance(fact, Behind):
            assert self._live is not None  # noqa: S101 - where there is a queue, it is of a run driven here
            self._upto, self._in_flight = self._live.catch_up()
            self._reading = self._store.history(self.run_id, after=narrator.seq)
        elif isinstance(fact, Closed):
            self._queue = None
            if fact.error is not None:
                raise fact.error
            if fact.parked:
                self._tell(narrator.fact(fact))
            self._over = not self._through or self._last in TERMINATORS
        else:
            self._tell(narrator.fact(fact))

    async def _at_the_head(self, narrator: Narrator, record: RunRecord) -> None:
        """The log holds nothing more.  It is over where the run is; else something will come."""
        if record.status in ENDED:
            self._over = True
            return
        if record.status == "waiting" and self._last != "suspended":
            self._tell(narrator.teller.waiting(record.updated_at // 1000))
        is_stopped = record.owner is None and record.status in STOPPED
        if not self._follow or (is_stopped and not self._through):
            self._over = True
            return
        assert self._watch is not None  # noqa: S101 - whoever follows, watches
        if not self._ready:  # that it waits is heard before anything else comes
            await self._watch.changed()

    def _tell(self, told: list[Told]) -> None:
        self._ready.extend(told)
        for each in told:
            self._last = each.kind
        if self._last in TERMINATORS:
            self._over = True


class _Reader:
    """Drives nothing, and so hears of every run through its store."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store

    def live(self, run_id: str) -> Live | None:
        return None

    def lost(self, run_id: str, on_loss: OnLoss) -> None:
        return None


async def last_events(store: CheckpointStore, run_id: str, number: int) -> list[Envelope]:
    """The last ``number`` events of any run in a store, oldest first; fewer where it has told fewer.

    Reads no more checkpoints than it must; the newest is the one to follow on from (``after=``).  Raises RunNotFoundError.
    """
    run_id = (await store.run(run_id)).run_id
    oldest, head, span = await _oldest(store, run_id), await store.head(run_id), number
    while True:
        first = head - span + 1
        told: deque[Envelope] = deque(maxlen=number)
        async with EventStream(_Reader(store), run_id, first=first if first > oldest else 0, follow=False) as stream:
            async for envelope in stream:
                told.append(envelope)
        if len(told) == number or first <= oldest:
            return list(told)
        span *= 4  # some checkpoints tell nothing


async def _oldest(store: CheckpointStore, run_id: str) -> int:
    """The first checkpoint that was not pruned."""
    async with aclosing(store.history(run_id)) as rows:  # type: ignore[type-var]
        async for row in rows:
            return row.seq
    return 0


def follow(
    store: CheckpointStore, run_id: str, *, after: str | None = None, follow: bool = True, through_barriers: bool = False
) -> EventStream:
    """The events of any run in a store, without its flow; see `GraphExecutor.events`.

    The store tells of decisions, endings and steps.
    """
    return EventStream(_Reader(store), run_id, after=after, follow=follow, through_barriers=through_barriers)
