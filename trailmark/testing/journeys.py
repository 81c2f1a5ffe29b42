"""One run from its input to its end, over as many processes as it takes: what the crash tests are made of.

Nobody is attached here and no time passes by itself: where the run waits for people the given decisions are made, where it waits
for time the virtual clock is moved on, and each process is a fresh executor with a state loaded from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from checkpoint_stores.codec import encode
from checkpoint_stores.deciding import node_of
from checkpoint_stores.errors import RunNotFoundError
from checkpoint_stores.ids import new_id
from checkpoint_stores.memory import MemoryCheckpointStore
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import ENDED, STOPPED, Row
from engine.decisions import Decision
from engine.errors import RunFailedError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.following import follow
from engine.graph import FlowGraph
from engine.handle import RunHandle
from engine.loading import load_state
from engine.observing import Committed
from engine.result import RunResult
from engine.waiting import waits
from trailmark.testing.clock import VirtualClock, settled
from trailmark.testing.crashing import Process
from trailmark.testing.streams import StreamChecker

Decisions: TypeAlias = Mapping[str, Decision | Sequence[Decision]]
"""What people say, by ticket (``review#2``, ``checks[1].review#1``) or by the barrier's name."""

Signals: TypeAlias = Mapping[str, Sequence[Any]]
"""What happens outside: the payloads of the signals that are sent one after the other, by the name they are sent to."""

StoreFactory: TypeAlias = Callable[[VirtualClock], CheckpointStore]
"""Makes a store that is not open yet; other runs may be in it."""

_OVER = (ENDED | STOPPED) - {"waiting"}

_WITHOUT_MEANING = frozenset({"start", "attempt", "retry"})
"""Kinds of rows of which an interrupted run may have more (or, of a flaky node, fewer) than an uninterrupted one."""


def memory_store(clock: VirtualClock) -> CheckpointStore:
    """The default factory: a new, empty store in memory."""
    return MemoryCheckpointStore(now=clock.now)


def graph_of(flow: Flow | FlowGraph) -> FlowGraph:
    return flow.compile() if isinstance(flow, Flow) else flow


@dataclass
class Journey:
    """A run and everything it meets on its way."""

    graph: FlowGraph
    store: CheckpointStore
    clock: VirtualClock
    input: Any = None
    decisions: Decisions = field(default_factory=dict)
    max_steps: int = 1000
    signals: Signals = field(default_factory=dict)
    run_id: str = ""

    def __post_init__(self) -> None:
        self.run_id = self.run_id or new_id(self.clock.now())

    async def drive(self, process: Process) -> RunResult:
        """Drive the run in ``process`` until it stops (a failed run returns, too).

        Raises SimulatedCrash.
        """
        moved = asyncio.Event()

        def note(_committed: Committed) -> None:
            moved.set()

        is_created = await self.is_created()
        if is_created and (await self.store.run(self.run_id)).status in _OVER:
            return await self.stored_result()
        executor = GraphExecutor(self.graph, store=process.store, max_steps=self.max_steps, clock=self.clock, observers=[note])
        async with executor:
            if is_created:
                handle = await executor.attach(self.run_id, takeover=True)
            else:
                handle = await executor.start(self.input, run_id=self.run_id)
            return await self._until_it_stops(executor, handle, moved)

    async def is_created(self) -> bool:
        try:
            await self.store.run(self.run_id)
        except RunNotFoundError:
            return False
        return True

    async def _until_it_stops(self, executor: GraphExecutor, handle: RunHandle, moved: asyncio.Event) -> RunResult:
        task = asyncio.ensure_future(handle.result())
        while not task.done():
            moved.clear()
            await settled()
            left = self.clock.until_next()
            if task.done():
                break
            if left is not None and _is_at_rest(executor, self.run_id):
                await self.clock.advance(left)
                continue
            # A body is running (time stands still for it), and its end is a commit; or the run is about to stop.
            waits: list[asyncio.Task[Any]] = [asyncio.create_task(moved.wait())]
            if left is None:
                waits.append(asyncio.create_task(self.clock.wait_for_timer()))
            try:
                await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        try:
            return task.result()
        except RunFailedError as failed:
            return failed.result

    async def answer(self) -> bool:
        """Make the decisions and send the signals the parked run waits for, or let time pass until it moves by itself; False where neither helps."""
        has_decided = False
        for ticket in await self._open_tickets():
            said = self.decisions.get(ticket, self.decisions.get(node_of(ticket), ()))
            for decision in [said] if isinstance(said, Decision) else said:
                if ticket in await self._open_tickets():
                    await self.store.decide(self.run_id, ticket, decision)
                    has_decided = True
        if has_decided or await self._signal():
            return True
        wake_at = (await self.store.run(self.run_id)).wake_at
        if wake_at is None:
            return False
        await self.clock.advance(timedelta(microseconds=max(0, wake_at - self.clock.now())))
        return True

    async def _signal(self) -> bool:
        sent = False
        for wait in waits(await load_state(self.store, self.run_id)):
            for name in (wait.signal, f"{wait.path}.{wait.signal}"):
                before = [signal for signal in await self.store.signals(self.run_id) if signal.name == name]
                payloads = self.signals.get(name, ())
                if wait.signal and len(before) < len(payloads):
                    await self.store.signal(self.run_id, name, payloads[len(before)])
                    sent = True
        return sent

    async def _open_tickets(self) -> list[str]:
        return [ticket.ticket for ticket in await self.store.barriers(run_id=self.run_id, limit=10_000)]

    async def stored_result(self) -> RunResult:
        """Where the run stands, from the store alone."""
        executor = GraphExecutor(self.graph, store=self.store, clock=self.clock)
        return await executor._stored_result(self.run_id)  # noqa: SLF001 - `resume` would drive it

    async def outcome(self, result: RunResult) -> Outcome:
        """What must be the same however often the run was interrupted.  Raises StreamViolationError where its log is no valid stream."""
        log = follow(self.store, self.run_id, follow=False)
        StreamChecker.check([envelope async for envelope in log], "run" if result.status in ENDED else "segment")
        state = await load_state(self.store, self.run_id)
        entries: dict[str, int] = {}
        rows: list[Row] = []
        async for row in self.store.history(self.run_id):
            rows.append(row)
            if row.kind not in _WITHOUT_MEANING:
                entry = f"{row.kind} of {row.path + '.' if row.path else ''}{row.node} -> {row.next or 'the end'}"
                entries[entry] = entries.get(entry, 0) + 1
        error = {name: (result.error or {}).get(name) for name in ("type", "message", "node", "path")} if result.error else None
        values = {key: (encode(value), value) for key, value in state.root.values.items()}
        return Outcome(result.status, values, result.steps, error, entries, result.waiting_for, rows)


def _is_at_rest(executor: GraphExecutor, run_id: str) -> bool:
    """Whether no body is in flight: only time can move what is driven here."""
    driver = executor._drives.driver(run_id)  # noqa: SLF001
    return driver is not None and not driver.state.running


@dataclass(frozen=True)
class Outcome:
    """The end of a journey."""

    status: str
    values: Mapping[str, tuple[bytes, Any]]
    steps: int
    error: Mapping[str, Any] | None
    entries: Mapping[str, int]
    """How often each checkpoint of the walk was committed."""
    waiting_for: tuple[str, ...]
    rows: Sequence[Row]

    def differences(self, other: Outcome) -> list[str]:
        """What ``other`` has otherwise, in readable lines."""
        lines = [
            f"{name}: {mine!r} without the crash, {theirs!r} with it"
            for name in ("status", "steps", "error", "waiting_for")
            if (mine := getattr(self, name)) != (theirs := getattr(other, name))
        ]
        nothing = (b"", "nothing")
        for key in sorted({*self.values, *other.values}):
            value, its = self.values.get(key, nothing), other.values.get(key, nothing)
            if value[0] != its[0]:
                lines.append(f"values[{key!r}]: {value[1]!r} without the crash, {its[1]!r} with it")
        lines += [
            f"committed {self.entries.get(entry, 0)} time(s) without the crash, {other.entries.get(entry, 0)} time(s) with it: {entry}"
            for entry in sorted({*self.entries, *other.entries})
            if self.entries.get(entry, 0) != other.entries.get(entry, 0)
        ]
        return lines
