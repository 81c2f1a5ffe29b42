"""The worker: drives every run of its flows that is new, given back, decided, due or orphaned, until it is told to drain.

The shell around `agenda` (which run next) and a `Dispatcher` (which runs there
are): looks, takes runs by their lease, waits.  How a run is driven is the
executor's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from checkpoint_stores.errors import ArgumentError, LeaseHeldError, LeaseLostError, RunEndedError, RunNotFoundError, StoreUnavailableError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DRIVEN, RunRecord
from engine.clock import Clock, StoreClock
from engine.errors import ExecutorClosedError, GraphChangedError, MigrationError, RunFailedError, WrongFlowError
from engine.executor import GraphExecutor
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.notices import TrailmarkWarning
from engine.observing import Committed, Observer
from engine.recovery import RECOVERIES, quarantine_run, recoveries
from engine.resources import Provider, providers_for
from reducers.errors import how_many
from trailmark.worker.agenda import SECOND, Agenda, Quarantine, Take, pause_after
from trailmark.worker.dispatching import Dispatcher, StoreDispatcher
from trailmark.worker.reports import Happening, Report

DRAIN: Final = timedelta(seconds=30)
"""How long the bodies in flight may take when a worker is told to drain."""

LONGEST_SILENCE: Final = 30 * SECOND
"""How long a store that is away is left alone at most."""

Flows = Flow | FlowGraph | Mapping[str, Flow | FlowGraph] | Iterable[Flow | FlowGraph]


class Worker:
    """Drives the runs of some flows over one store.

    Args:
        flows: a flow, several, or a mapping with flows as values (its keys are for people).
        store: an open checkpoint store.
        concurrency: how many runs are driven at once.
        drain: how long the bodies in flight may take when the worker is told to drain; then they are cancelled, and run again elsewhere.
        max_recoveries: how often in a row a run whose process died is taken up again without a checkpoint coming of it, 2 or more; then
            it is quarantined.
        dispatcher: how it learns of runs; the store itself (default).
        clock: the store's time (default); tests pass a virtual one.
        report: called with each `Report`; must be quick.
        observers: see `GraphExecutor`.
        resources: see `GraphExecutor`; each flow gets what it needs.

    Raises ArgumentError, MissingResourceError.

    >>> from trailmark import END, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> flow = Flow("greet", {"name": str})
    >>> @flow.node
    ... async def greet(state):
    ...     return {"name": state["name"].title()}
    >>> graph = flow.set_entry("greet").add_edge("greet", END).compile()
    >>> async def main():
    ...     async with MemoryCheckpointStore() as store:
    ...         run_id = await GraphExecutor(graph, store=store).submit({"name": "ana"})
    ...         await Worker(graph, store=store).run(until_idle=True)
    ...         return (await store.run(run_id)).status
    >>> asyncio.run(main())
    'completed'
    """

    def __init__(
        self, flows: Flows, *, store: CheckpointStore, concurrency: int = 10, drain: timedelta = DRAIN, max_recoveries: int = 3,
        dispatcher: Dispatcher | None = None, clock: Clock | None = None, report: Callable[[Report], None] | None = None,
        observers: Iterable[Observer] = (), resources: Mapping[str, Provider] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        if concurrency < 1:
            raise ArgumentError("concurrency", concurrency, "a whole number from 1")
        if max_recoveries < 2:
            raise ArgumentError("max_recoveries", max_recoveries, "2 or more: the first time nobody knows which run it was")
        if drain < timedelta(0):
            raise ArgumentError("drain", drain, "a timedelta, not negative")
        self.graphs = graphs_of(flows)
        self._store = store
        self._agenda = Agenda(concurrency, max_recoveries)
        self._drain_for = drain
        self._dispatcher = dispatcher
        self._clock = clock
        self._report = report or _nobody
        self._observers = (self._progressed, *observers)
        self._resources = resources
        for graph in self.graphs.values():
            providers_for(graph, resources)
        self._executors: dict[str, GraphExecutor] = {}
        self._driving: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        """Something happened here that the loop has to look at."""
        self._is_draining = False
        self._leaving: list[asyncio.Task[None]] = []
        self._held_in_vain: set[str] = set()
        self._failures = 0
        """How often in a row the store could not be asked."""

    # --- from outside -----------------------------------------------------------------------------------------------
    async def run(self, *, until_idle: bool = False) -> None:
        """Work until `drain` is called, or with ``until_idle`` until nothing is due; then every lease has been given back.

        Cancelling it drains at once.  Raises StoreUnavailableError only where the store cannot be used at the beginning.
        """
        clock = self._clock = self._clock or StoreClock(await self._store.now())
        dispatcher = self._dispatcher or StoreDispatcher(self._store, self.graphs, clock)
        async with AsyncExitStack() as stack:
            stack.callback(dispatcher.close)
            for name, graph in self.graphs.items():
                executor = GraphExecutor(graph, store=self._store, clock=clock, observers=self._observers, resources=self._resources)
                self._executors[name] = await stack.enter_async_context(executor)
            self._say("began", text=f"{self._agenda.concurrency} at once")
            try:
                await self._work(dispatcher, clock, until_idle=until_idle)
            except asyncio.CancelledError:
                self.drain(timedelta(0))
                raise
            finally:
                self.drain()
                await asyncio.shield(self._left())
                self._say("ended")

    def drain(self, grace: timedelta | None = None) -> None:
        """Take nothing new, let the bodies in flight finish within ``grace`` (default: the worker's), and give the runs back.

        Returns at once; `run` returns when it is done.  Said again with a shorter grace, that one counts.
        """
        is_new = not self._is_draining
        if is_new:
            self._is_draining = True
            self._stirred.set()
            if not self._agenda.is_idle:
                self._say("draining", text=f"{self._agenda.in_hand} in flight")
        if is_new or grace is not None:
            period = self._drain_for if grace is None else grace
            self._leaving += [asyncio.ensure_future(executor.shutdown(period)) for executor in self._executors.values()]

    async def _left(self) -> None:
        """Wait until every run is let go."""
        while self._leaving or self._driving:
            leaving, self._leaving = self._leaving, []
            await asyncio.gather(*leaving, *self._driving, return_exceptions=True)

    # --- the loop ---------------------------------------------------------------------------------------------------
    async def _work(self, dispatcher: Dispatcher, clock: Clock, *, until_idle: bool) -> None:
        while not self._is_draining:
            self._stirred.clear()
            has_found = await self._look(dispatcher, clock)
            if until_idle and not has_found and self._agenda.is_idle and not self._failures:
                return
            if not has_found or self._agenda.room(clock.now()) <= 0:
                await self._wait(dispatcher, clock)

    async def _look(self, dispatcher: Dispatcher, clock: Clock) -> bool:
        """Take what there is; whether there was any."""
        found: list[Take] = []
        room = self._agenda.room(clock.now())
        if room > 0:
            try:
                hidden = self._agenda.hidden(clock.now())
                records = [*await self._stranded(hidden, room), *await dispatcher.look(room, hidden)]
                found = [offer for record in records if (offer := await self._offer(record, clock)) is not None]
            except StoreUnavailableError as error:
                self._miss_store(error)
            else:
                if self._failures:
                    self._say("store_back")
                self._failures = 0
        for order in self._agenda.chosen(found, clock.now()):
            self._held_in_vain.discard(order.run.run_id)
            work = self._put_away(order, clock) if isinstance(order, Quarantine) else self._drive(order, dispatcher, clock)
            task = asyncio.create_task(work, name=f"trailmark worker {order.run.run_id}")
            self._driving.add(task)
            task.add_done_callback(self._is_over)
        return bool(found)

    async def _offer(self, run: RunRecord, clock: Clock) -> Take | None:
        try:
            return Take(run, await recoveries(self._store, run))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged run keeps no other from being driven
            self._leave_alone(run, error, clock)
            return None

    async def _stranded(self, hidden: Collection[str], room: int) -> list[RunRecord]:
        """Runs this process still holds but drives no more, since the store was away when they were to be given back."""
        ripe = [run_id for run_id in self._held_in_vain if run_id not in hidden]
        records: list[RunRecord] = []
        for run_id in ripe[:room]:
            record = None
            with contextlib.suppress(RunNotFoundError):  # somebody has deleted it
                record = await self._store.run(run_id)
            if record is not None and record.owner == self._store.worker_id:
                records.append(record)
            else:
                self._held_in_vain.discard(run_id)
        return records

    def _miss_store(self, error: StoreUnavailableError) -> None:
        if not self._failures:
            self._say("store_away", text=str(error))
        self._failures += 1

    async def _wait(self, dispatcher: Dispatcher, clock: Clock) -> None:
        """Wait until another look may find something."""
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._stirred.wait())]
        again = self._agenda.next_return(clock.now())
        if self._failures:
            again = clock.now() + pause_after(self._failures - 1, LONGEST_SILENCE)
        elif self._agenda.room(clock.now()) > 0:
            waits.append(asyncio.ensure_future(self._told(dispatcher)))
        timer = clock.call_at(again, self._stirred.set) if again is not None else None
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()
            for wait in waits:
                wait.cancel()

    async def _told(self, dispatcher: Dispatcher) -> None:
        try:
            await dispatcher.changed()
        except StoreUnavailableError as error:
            self._miss_store(error)

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._driving.discard(task)
        self._stirred.set()

    # --- one run ----------------------------------------------------------------------------------------------------
    async def _drive(self, order: Take, dispatcher: Dispatcher, clock: Clock) -> None:
        run = order.run
        try:
            await self._drive_to_rest(order)
        except (LeaseHeldError, RunEndedError, LeaseLostError, ExecutorClosedError):
            self._agenda.over(run.run_id)  # somebody else has it, or it has ended, or this worker is leaving
        except StoreUnavailableError as error:
            self._held_in_vain.add(run.run_id)
            self._leave_alone(run, error, clock)
        except Exception as error:  # noqa: BLE001 - one run that cannot be driven never keeps others from it
            self._leave_alone(run, error, clock)
        except BaseException:
            self._agenda.over(run.run_id)  # somebody cancelled the drive, or everything ends
            raise
        else:
            self._agenda.over(run.run_id)
        finally:
            dispatcher.let_go(run.run_id)

    async def _drive_to_rest(self, order: Take) -> None:
        run = order.run
        executor = self._executors[run.flow]
        note = {RECOVERIES: order.recoveries} if order.recoveries else None
        is_ours = run.owner == self._store.worker_id
        handle = await executor.attach(run.run_id, as_of=run, note=note, takeover=is_ours)
        self._say("taken", run, text=_why(order))
        try:
            # Given back it is no more ours, and whoever has it by now is not waited for.
            result = await (handle.shutdown(grace=timedelta(0)) if self._is_draining else handle.result())
        except RunFailedError as failed:
            result = failed.result
        self._say("let_go", run, status=result.status, text=how_many(result.steps, "step"))

    async def _put_away(self, order: Quarantine, clock: Clock) -> None:
        run = order.run
        reason = f"{order.recoveries} recoveries in a row got nowhere: whoever drove it died"
        try:
            await quarantine_run(self._store, run.run_id, reason, clock)
        except (LeaseHeldError, RunEndedError):
            self._agenda.over(run.run_id)
        except Exception as error:  # noqa: BLE001
            self._leave_alone(run, error, clock)
        else:
            self._agenda.over(run.run_id)
            self._say("quarantined", run, status="quarantined", text=reason)

    def _leave_alone(self, run: RunRecord, error: Exception, clock: Clock) -> None:
        self._agenda.put_aside(run.run_id, clock.now(), long=isinstance(error, GraphChangedError | MigrationError | WrongFlowError))
        self._say("left_alone", run, text=f"{type(error).__name__}: {error}")

    def _progressed(self, committed: Committed) -> None:
        if self._agenda.progressed(committed.row.run_id):
            self._stirred.set()  # a suspect's turn, or that of those who waited for one

    def _say(self, what: Happening, run: RunRecord | None = None, *, status: str = "", text: str = "") -> None:
        try:
            self._report(Report(what, run.run_id if run else "", run.flow if run else "", status, text))
        except Exception as error:  # noqa: BLE001 - whoever listens never stops the work
            self._report = _nobody
            warning = TrailmarkWarning("", f"the worker's report function raised {error!r}; it is told nothing more")
            asyncio.get_running_loop().call_soon(warnings.warn, warning)


def _nobody(_report: Report) -> None:
    """Nobody listens."""


def _why(order: Take) -> str:
    if order.recoveries:
        return f"orphaned, recovery {order.recoveries}"
    return {"created": "new", "ready": "given back", "waiting": "due"}.get(
        order.run.status, "orphaned" if order.run.status in DRIVEN else ""
    )


def graphs_of(flows: Flows) -> dict[str, FlowGraph]:
    """The compiled flows by name.  Raises ArgumentError (none, no flow, two of one name), FlowValidationError."""
    if isinstance(flows, Flow | FlowGraph):
        flows = [flows]
    found: dict[str, FlowGraph] = {}
    for each in flows.values() if isinstance(flows, Mapping) else flows:
        if not isinstance(each, Flow | FlowGraph):
            raise ArgumentError("flows", each, "flows or compiled flows")
        graph = each.compile() if isinstance(each, Flow) else each
        if found.setdefault(graph.name, graph).graph_hash != graph.graph_hash:
            raise ArgumentError("flows", graph.name, "flows of different names: one worker drives one version of a flow")
    if not found:
        raise ArgumentError("flows", flows, "at least one flow")
    return found
