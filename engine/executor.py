"""The executor: starts, resumes, forks and cancels the runs of one graph.

It composes a store, a graph, a clock and the driver, and keeps what must be
kept while a run is driven here.  It decides nothing about where a run goes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, get_args

from checkpoint_stores.errors import ArgumentError, LeaseHeldError, RunEndedError, RunExistsError
from checkpoint_stores.fold import PARKED, RunState, fold
from checkpoint_stores.ids import new_id
from checkpoint_stores.ops import Op
from checkpoint_stores.protocol import CheckpointStore, Watch, takes_up
from checkpoint_stores.records import (
    DRIVEN,
    ENDED,
    Commit,
    DecisionRecord,
    Inbox,
    Lease,
    Row,
    RunChange,
    RunRecord,
    RunStatus,
    SignalRecord,
)
from engine import arguments, beginning, operations
from engine.admitting import ResumeMode, admitted
from engine.around import Around
from engine.attending import OVER, Attendant
from engine.beginning import Beginning
from engine.callables import is_coroutine
from engine.clock import Clock, StoreClock
from engine.concluding import Leaving
from engine.context import RunFacts
from engine.decisions import Decision
from engine.driver import RunDriver
from engine.drives import Drive, Drives, outlast, warnings_of
from engine.driving import Strays
from engine.editing import edit_run
from engine.errors import (
    ContractError,
    ExecutorClosedError,
    RunFailedError,
    RunKeyConflictError,
    RunningLoopError,
)
from engine.failures import error_data
from engine.graph import FlowGraph
from engine.handle import STOP_GRACE, RunHandle, Started
from engine.keyed import IfExists, check_same_input
from engine.live import Live
from engine.loading import load_state
from engine.notices import TrailmarkWarning
from engine.observing import Observer
from engine.resources import Opened, Provider, providers_for
from engine.result import RunResult
from engine.saving import SavePolicy
from engine.taking import Taker
from engine.taking_up import Said
from engine.threads import NodeThreads
from engine.waiting import retries, waits
from engine.walk import Walk
from reducers.changes import ABSENT

if TYPE_CHECKING:
    # What only some programs ask of an executor is loaded by whoever asks: a catalog of events is built by none that nobody watches.
    from engine.contracts import RunCheck
    from engine.following import EventStream, OnLoss
    from engine.queues import Delivery
    from engine.statistics import ExecutorStatistics


class GraphExecutor:
    """Runs one compiled flow over one store.

    Args:
        graph: what ``flow.compile()`` returned.
        store: an open checkpoint store.
        max_steps: how many node entries a run may make over its whole life; exactly this many are allowed.
        clock: the store's time (default); tests pass a virtual one.
        observers: called after each durable commit with every row of it; must be quick.  One that raises is told nothing more of
            that run, which goes on (`ObserverFailedWarning`).
        cancel_grace: how long an async node that was cancelled or timed out is waited for; then the run goes on without it
            (`StrayBodyWarning`).
        strict: check the whole run against the contracts (see `check`) before it may complete; where one is broken the run is
            quarantined instead, and whoever waits for it gets ContractError.  Reads the run's history once more.
        capabilities: what the runs it starts may do (`StepContext.require`); none is the default, and what is not held is denied.
        saving: when steps become durable (see `SavePolicy`); by default each one as it ends.
        resources: what opens the things that the flow needs (``Flow(..., needs=...)``): functions that return an async context manager, by
            name.  Opened for each run that is driven here, and only what its flow needs; closed when it is driven here no longer.

    Raises ArgumentError, MissingResourceError.

    Use it as an async context manager, or call `aclose`, to let go of the runs it drives.

    >>> import asyncio
    >>> from trailmark import END, Flow
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> flow = Flow("greet", {"name": str})
    >>> @flow.node
    ... async def greet(state):
    ...     return {"name": state["name"].title()}
    >>> graph = flow.set_entry("greet").add_edge("greet", END).compile()
    >>> async def main():
    ...     async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store, max_steps=50) as executor:
    ...         result = await executor.execute({"name": "ana"})
    ...         return result.status, result.values
    >>> asyncio.run(main())
    ('completed', {'name': 'Ana'})
    """

    def __init__(
        self,
        graph: FlowGraph,
        *,
        store: CheckpointStore,
        max_steps: int = 1000,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
        cancel_grace: timedelta = timedelta(seconds=5),
        strict: bool = False,
        capabilities: Collection[str] = (),
        saving: SavePolicy | None = None,
        resources: Mapping[str, Provider] = MappingProxyType({}),
    ) -> None:
        if not isinstance(graph, FlowGraph):
            raise ArgumentError("graph", graph, "what flow.compile() returns")
        if not hasattr(store, "commit"):
            raise ArgumentError("store", store, "an open checkpoint store, e.g. SQLCheckpointStore(url)")
        if not isinstance(cancel_grace, timedelta) or cancel_grace < timedelta(0):
            raise ArgumentError("cancel_grace", cancel_grace, "a timedelta, e.g. timedelta(seconds=5)")
        for observer in observers:
            if is_coroutine(observer):
                raise ArgumentError(
                    "an observer", observer, "a plain function: it is called, not awaited (let it put the checkpoint into a queue)"
                )
        if saving is not None and not isinstance(saving, SavePolicy):
            raise ArgumentError("saving", saving, 'a SavePolicy, e.g. SavePolicy(when="every_n", n=10)')
        self._saving = saving
        self._providers = providers_for(graph, resources)
        self.graph = graph
        self.store = store
        self.max_steps = arguments.step_limit(max_steps)
        self._clock = clock
        self._clock_lock = asyncio.Lock()
        self._observers = tuple(observers)
        self._strict = strict
        self._threads = NodeThreads()
        self._around: Around | None = None
        self._capabilities = arguments.capabilities(capabilities)
        self._strays = Strays(cancel_grace)
        self._drives = Drives(store, self._result_of_driver, self._begins)
        self._taker = Taker(
            store, graph, self._drives, drive=self._drive, clock=self._ready_clock, at_once=not strict, check_open=self._check_open
        )
        self._attendant = Attendant(store, is_driven=self._drives.__contains__, take=self.attach, clock=self._ready_clock)
        self._runner: asyncio.Runner | None = None
        self._closing: Leaving | None = None
        """What becomes of runs that come here all the same, once the executor was closed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Suspend every run driven here (all stay resumable) and let the threads go; nothing is started or resumed after.  Idempotent."""
        self._closing = self._closing or Leaving("suspend", "the executor was closed")
        ends = []
        for run_id in self._drives:
            driver, end = self._drives.driver(run_id), self._drives.end(run_id)
            if driver is not None and end is not None:
                driver.suspend("the executor was closed")
                ends.append(end)
        if ends:
            await asyncio.wait(ends)
        self._threads.close()

    # --- starting ---------------------------------------------------------------------------------------------------
    async def start(
        self, input: object = None, *, run_key: str | None = None, run_id: str | None = None, labels: Mapping[str, str] | None = None,  # noqa: A002
        max_steps: int | None = None, tenant: str = "", capabilities: Collection[str] | None = None, if_exists: IfExists = "join", by: str = "",
    ) -> RunHandle:  # fmt: skip
        """Create a run and begin to drive it in this process.

        With ``run_key`` there is one such run of this flow (and tenant), however often and in how many processes it is started: a
        later start with the same input finds it (`RunHandle.created` is False) and gets its result, stored or still to come.

        Args:
            input: a mapping, or an instance of the flow's state class.
            run_key: your own name for the run.
            run_id: its id; None makes one.
            labels: what you want to find it by.
            max_steps: its step limit; None is the executor's.
            tenant: whose it is.
            if_exists: ``join`` takes the run that has the key, if its input is the same; ``supersede`` does so too, but a run with
                another input is cancelled, and it or one that failed or was cancelled gives the key up to a new run; ``error``
                refuses a key that is taken.
            by: who starts it; recorded where a run is superseded.  Default: this process.

        Raises InputError (all problems at once) and ArgumentError (no run is created), RunKeyConflictError (the key's run has another
        input), RunExistsError, StoreUnavailableError, UnserialisableError, ExecutorClosedError.
        """
        run = await self._checked(
            input, run_key=run_key, run_id=run_id, labels=labels, max_steps=max_steps, tenant=tenant, capabilities=capabilities
        )
        created = await self._create(run, held=True, if_exists=if_exists, by=by)
        if isinstance(created, RunRecord):
            return await self._joined(created)
        lease, row, folded = created
        state = RunState(row.run_id)
        fold(state, row, folded)
        try:
            end = self._drives.begin(self._drive(state, lease.run, lease.epoch, await self._ready_clock(), inbox=None))
        except BaseException:
            await self.store.release(row.run_id, lease.epoch)
            raise
        return RunHandle(self, row.run_id, end, first=state.seq, created=True)

    async def submit(
        self, input: object = None, *, run_key: str | None = None, run_id: str | None = None, labels: Mapping[str, str] | None = None,  # noqa: A002
        max_steps: int | None = None, tenant: str = "", capabilities: Collection[str] | None = None, if_exists: IfExists = "join", by: str = "",
    ) -> str:  # fmt: skip
        """Create a run and leave it to a worker (`trailmark worker`); returns its id once it is durable.

        Its status is ``created`` until a worker, or anybody's `resume`, takes it.  Where ``run_key`` names a run that is there, its id is
        returned, as it stands.

        Raises what `start` raises.
        """
        run = await self._checked(
            input, run_key=run_key, run_id=run_id, labels=labels, max_steps=max_steps, tenant=tenant, capabilities=capabilities
        )
        created = await self._create(run, held=False, if_exists=if_exists, by=by)
        return created.run_id if isinstance(created, RunRecord) else created[1].run_id

    async def _checked(self, input: object, **said: Any) -> Beginning:  # noqa: A002
        self._check_open()
        if said["capabilities"] is None:
            said["capabilities"] = self._capabilities
        run = beginning.checked(self.graph, input, default_max_steps=self.max_steps, **said)
        if run.run_id is None:
            # Bad input opens no store, and so no clock: it is named only now, and nobody else has it yet.
            object.__setattr__(run, "run_id", new_id((await self._ready_clock()).now()))
        return run

    async def _create(self, run: Beginning, *, held: bool, if_exists: IfExists, by: str) -> tuple[Lease, Row, list[Op]] | RunRecord:
        """Write a run's first row; or the run that has its key already, where that is the one."""
        arguments.one_of("if_exists", if_exists, get_args(IfExists))
        while True:
            now = (await self._ready_clock()).now()
            new, row, folded = run.sealed(
                self.graph, self.store.chain, run_id=run.run_id or new_id(now), owner=self.store.worker_id if held else None, now=now
            )
            try:
                return await self._taker.lease(self.store.create(new, row)), row, folded
            except RunExistsError as exists:
                if run.run_key is None or if_exists == "error":
                    raise
                there = await self._already_there(exists, run, if_exists, by)
                if there is not None:
                    return there
                run = replace(run, supersedes=exists.run_id)

    async def _already_there(self, exists: RunExistsError, run: Beginning, if_exists: IfExists, by: str) -> RunRecord | None:
        """The run that has the key; None where it has ended and is to give the key up, or has given it up meanwhile."""
        record = await self.store.run(exists.run_id)
        tenant = getattr(self.store, "tenant", run.tenant)
        if (record.tenant, record.flow, record.run_key) != (tenant, self.graph.name, run.run_key):
            if record.run_id == run.run_id:
                raise exists  # the run id is taken, by a run of another name
            return None
        try:
            await check_same_input(self.store, record, run.given)
            if if_exists == "join" or record.status not in ("failed", "cancelled"):
                return record
        except RunKeyConflictError:
            if if_exists != "supersede":
                raise
        reason = f"superseded by run {run.run_id} under the key {run.run_key!r}"
        await self.cancel(record.run_id, by=by or self.store.worker_id, reason=reason)
        return None

    async def _joined(self, record: RunRecord) -> RunHandle:
        """A handle of a run that is there; it is driven here where nobody else does, and nobody stopped it on purpose."""
        run_id = record.run_id
        is_free = run_id not in self._drives and record.status not in OVER and self._attendant.is_free(record)
        if is_free and (record.status != "waiting" or await self._attendant.can_move(record)):
            try:
                return await self.attach(run_id, takeover=record.owner == self.store.worker_id)
            except (LeaseHeldError, RunEndedError):
                pass  # somebody else was faster
        return RunHandle(self, run_id, self._drives.end(run_id))

    async def execute(self, input: object = None, **options: Any) -> RunResult:  # noqa: A002
        """`start`, then wait for the result.  Takes the options of `start`, and ``through_barriers``.

        When the caller is cancelled meanwhile the run is suspended, not decided: it can be resumed.

        Raises what `start` and `RunHandle.result` raise.
        """
        through_barriers = options.pop("through_barriers", False)
        handle = await self.start(input, **options)
        return await self._result_or_suspend(handle, through_barriers=through_barriers)

    def execute_sync(self, input: object = None, **options: Any) -> RunResult:  # noqa: A002
        """`execute` for scripts without an event loop; may be called again and again.

        The store is closed when the executor is collected, or when the program ends.

        Raises RunningLoopError inside a running event loop; else what `execute` raises.
        """
        if _loop_is_running():
            raise RunningLoopError
        if self._runner is None:
            self._runner = asyncio.Runner()
            weakref.finalize(self, _close_script, self._runner, self.store)
        return self._runner.run(self.execute(input, **options))

    # --- resuming ---------------------------------------------------------------------------------------------------
    async def attach(
        self, run_id: str, *, mode: ResumeMode = "compatible", max_steps: int | None = None, takeover: bool = False,
        capabilities: Collection[str] | None = None, as_of: RunRecord | None = None, note: Mapping[str, Any] | None = None,
    ) -> RunHandle:  # fmt: skip
        """Take a run over and begin to drive it here; `resume` also waits.

        With ``as_of``, the run as it was read before, it is taken only if nobody has taken it since (else LeaseHeldError).  ``note`` is data
        to be recorded with the taking.

        Raises RunNotFoundError, AmbiguousRunError, RunEndedError, LeaseHeldError (unless ``takeover``), DrivenHereError, WrongFlowError,
        GraphChangedError, MigrationError, CheckpointCorruptError, ArgumentError, ExecutorClosedError.
        """
        if max_steps is not None:
            arguments.step_limit(max_steps)
        arguments.one_of("mode", mode, get_args(ResumeMode))
        said = Said(note or {}, max_steps, None if capabilities is None else sorted(arguments.capabilities(capabilities)))
        taken = await self._taker.take(arguments.run_named(run_id), said, mode=mode, takeover=takeover, as_of=as_of)
        return RunHandle(self, taken.run_id, taken.end, first=taken.first)

    async def resume(
        self,
        run_id: str,
        *,
        mode: ResumeMode = "compatible",
        max_steps: int | None = None,
        takeover: bool = False,
        through_barriers: bool = False,
        capabilities: Collection[str] | None = None,
    ) -> RunResult:
        """Go on with a run exactly where it was, in any process; a run that has ended returns its stored result.

        Args:
            run_id: the run, or the first or last characters of its id, 8 or more, if no other run fits.
            mode: whether this graph may differ from the one the run was driven by.  ``compatible`` goes on where nothing that is under
                way has changed (after the flow's migrations, where it declares some), ``strict`` refuses any difference, ``force``
                goes on wherever the run has a place at all.  What was gone on with, and how it was judged, is recorded.
            max_steps: a new step limit (counted from the run's beginning).
            takeover: take the run even from a living process, which then can write nothing more.
            through_barriers: see `RunHandle.result`.
            capabilities: what the run may do from now on; None: what it held.

        Raises what `attach` raises, but RunEndedError; and RunFailedError.
        """
        try:
            handle = await self.attach(run_id, mode=mode, max_steps=max_steps, takeover=takeover, capabilities=capabilities)
        except RunEndedError as ended:
            return self._finished(await self._stored_result(ended.run_id))
        return await self._result_or_suspend(handle, through_barriers=through_barriers)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise ExecutorClosedError

    # --- driving ----------------------------------------------------------------------------------------------------
    async def _ready_clock(self) -> Clock:
        if self._clock is None:
            async with self._clock_lock:  # runs that start together ask once
                if self._clock is None:
                    self._clock = StoreClock(await self.store.now())
        return self._clock

    def _drive(
        self, state: RunState, run: RunRecord, epoch: int, clock: Clock, *, inbox: Inbox | None, watch: Watch | None = None
    ) -> Drive:  # fmt: skip
        """A run, ready to be driven here under ``epoch``."""
        held = frozenset(state.details.get("capabilities", ()))
        opened = Opened(self._providers)
        facts = RunFacts(run.flow, run.tenant, run.run_key, MappingProxyType(run.labels), held, opened.held)
        walk = Walk(self.graph.plan, state, self.store.chain, epoch)
        if self._around is None:
            self._around = Around(clock)
        driver = RunDriver(
            self.store, walk, clock=clock, threads=self._threads, strays=self._strays, observers=self._observers, inbox=inbox, watch=watch,
            facts=facts, hand_over=partial(self._drives.hand_over, state.run_id), around=self._around,
            before_completion=partial(self._contracts_kept, state, epoch) if self._strict else None, saving=self._saving,
        )  # fmt: skip
        return Drive(driver, run, epoch, opened)

    def _begins(self, drive: Drive) -> None:
        if self._closing is not None:  # while the run was on its way here: no body of it begins
            drive.driver.drain(self._closing)

    @property
    def strays(self) -> int:
        """How many node bodies were given up (timed out, or cancelled without effect) and still run in this process."""
        return len(self._strays)

    def statistics(self) -> ExecutorStatistics:
        """What there is to tell of this executor at this moment: runs it drives, bodies given up, what waits at middleware."""
        from engine.statistics import ExecutorStatistics

        around = () if self._around is None else tuple(self._around.statistics())
        return ExecutorStatistics(len(self._drives), self._threads.running, self.strays, around)

    def is_driving(self, run_id: str) -> bool:
        """Whether this executor drives the run at this moment."""
        return run_id in self._drives

    # --- events -----------------------------------------------------------------------------------------------------
    def events(
        self,
        run_id: str,
        *,
        after: str | None = None,
        delivery: Delivery | None = None,
        follow: bool = True,
        through_barriers: bool = False,
    ) -> EventStream:
        """The events of a run, from its log and, while somebody drives it, as they come; in any process.

        Args:
            run_id: the run, or a unique prefix of at least 8 characters.
            after: the id of the last event you have; None begins at the beginning.
            delivery: what happens when you are slower than a run that is driven here (see `Delivery`).
            follow: whether to wait for what is still to come; else the stream ends where the log does.
            through_barriers: stay when the run stops (a decision, a resume may come), until its end.

        An event that was told ahead of its checkpoint comes again where ``after`` is older than the checkpoint: a step_start, a
        token index that you know already.  Raises BadEventIdError; what `EventStream.__anext__` raises.
        """
        from engine.following import EventStream

        return EventStream(self, run_id, after=after, delivery=delivery, follow=follow, through_barriers=through_barriers)

    def live(self, run_id: str) -> Live | None:
        """What a run tells that is driven here; None for every other."""
        driver = self._drives.driver(run_id)
        return None if driver is None or driver.live.is_closed else driver.live

    def lost(self, run_id: str, on_loss: OnLoss) -> None:
        """Do what was asked for when the consumer of a run's events goes away."""
        driver = self._drives.driver(run_id)
        if driver is None:
            return
        reason = "the consumer of its events went away"
        act = partial(driver.cancel, "consumer", reason) if on_loss == "cancel" else partial(driver.suspend, reason)
        try:
            driver.live.loop.call_soon_threadsafe(act)
        except RuntimeError:
            return  # the loop is closed, and with it the run is no longer driven

    # --- results ----------------------------------------------------------------------------------------------------
    def result_of(
        self,
        state: RunState,
        *,
        status: RunStatus = "running",
        error: BaseException | None = None,
        warnings: tuple[TrailmarkWarning, ...] = (),
    ) -> RunResult:
        """The result that a folded state stands for; ``status`` is the run's own where the state does not tell: who drives it is no part of
        what it folds to."""
        view = self.graph.plan.schema.view(state.root.read)
        values = {key: value for key in self.graph.plan.schema.keys if (value := _value(state, key)) is not ABSENT}
        is_over = state.status in ENDED
        tickets = () if is_over else tuple(scope.detail[0] for scope in state.frontier() if scope.phase == PARKED)
        return RunResult(
            run_id=state.run_id, status=status if state.status == "running" else state.status, state=view, values=values, steps=state.step,  # type: ignore[arg-type]
            attempt=state.attempt, error=state.root.detail if state.status == "failed" else None, waiting_for=tickets,
            retries=() if is_over else retries(state), waits=() if is_over else waits(state), seq=state.seq, warnings=warnings, exception=error,
        )  # fmt: skip

    def _result_of_driver(self, driver: RunDriver) -> RunResult:
        return self.result_of(driver.state, status=driver.status, error=driver.error, warnings=driver.warnings)

    async def _stored_result(self, run_id: str) -> RunResult:
        record = await self.store.run(run_id)
        state = await load_state(self.store, record.run_id)
        return self.result_of(state, status=record.status)

    def _finished(self, result: RunResult) -> RunResult:
        if result.status == "failed":
            raise RunFailedError(result) from result.exception
        return result

    async def _result_or_suspend(self, handle: RunHandle, *, through_barriers: bool) -> RunResult:
        try:
            return await handle.result(through_barriers=through_barriers)
        except asyncio.CancelledError:
            # The caller went away: that decides nothing.  The run stops here and can be resumed.
            await asyncio.shield(self.suspend(handle.run_id, "the caller was cancelled"))
            raise

    async def result(self, run_id: str, *, through_barriers: bool = False) -> RunResult:
        """See `RunHandle.result`."""
        run_id = arguments.run_named(run_id)
        while True:
            end = self._drives.last_end(run_id)
            if end is not None:
                await outlast(end)
                result = end.result()
            else:
                result = await self._stored_result(run_id)
                if result.status in DRIVEN:
                    # Driven elsewhere; or it has just come to an end there, which a second look tells.
                    await self._attendant.outlast_owner(run_id)
                    continue
            if result.status != "waiting" or not through_barriers:
                return self._finished(result)
            await self._attendant.wait_to_go_on(run_id)

    # --- from the handle --------------------------------------------------------------------------------------------
    async def decide(self, run_id: str, barrier: str, decision: Decision) -> DecisionRecord:
        """See `RunHandle.decide`."""
        store = self.store
        if run_id not in self._drives and takes_up(store):
            decided_here = await self._taker.decide(store, run_id, barrier, decision)
            if decided_here is not None:
                return decided_here
        record = await self.store.decide(run_id, barrier, decision)
        await self._attendant.go_on(run_id, self._drives.end(run_id))
        return record

    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        """See `RunHandle.signal`."""
        record = await self.store.signal(run_id, name, payload, by=by, signal_id=signal_id)
        await self._attendant.go_on(run_id, self._drives.end(run_id))
        return record

    async def cancel(self, run_id: str, *, by: str, reason: str = "") -> RunResult:
        """End a run as cancelled, wherever it is.  A run that has ended stays as it ended.

        Raises RunNotFoundError, ArgumentError.
        """
        run_id, by = arguments.run_named(run_id), arguments.somebody("by", by)
        driver, end = self._drives.driver(run_id), self._drives.end(run_id)
        if driver is not None and end is not None:
            driver.cancel(by, reason)
            await outlast(end)
        if (await self.store.run(run_id)).status not in ENDED:
            # Nobody drives it here, or it parked in the very moment.
            await operations.cancel_run(self.store, run_id, actor=by, reason=reason, clock=await self._ready_clock())
        return replace(await self._stored_result(run_id), warnings=warnings_of(end))

    async def checkpoint(self, run_id: str) -> int:
        """See `RunHandle.checkpoint`."""
        driver = self._drives.driver(run_id)
        return await driver.checkpoint() if driver is not None else (await load_state(self.store, run_id)).seq

    async def suspend(self, run_id: str, reason: str = "") -> RunResult:
        """See `RunHandle.suspend`."""
        run_id = arguments.run_named(run_id)
        driver, end = self._drives.driver(run_id), self._drives.end(run_id)
        if driver is not None and end is not None:
            driver.suspend(reason)
            await outlast(end)
        return replace(await self._stored_result(run_id), warnings=warnings_of(end))

    async def stop(self, run_id: str, reason: str = "", *, grace: timedelta = STOP_GRACE) -> RunResult:
        """See `RunHandle.stop`."""
        return await self._left(run_id, Leaving("suspend", reason), grace)

    async def give_back(self, run_id: str, *, grace: timedelta = STOP_GRACE) -> RunResult:
        """See `RunHandle.shutdown`."""
        return await self._left(run_id, Leaving("give_back"), grace)

    async def shutdown(self, grace: timedelta = STOP_GRACE) -> None:
        """Give back every run driven here: bodies in flight may finish within ``grace``; whoever takes a run next goes on with it.

        Nothing is started or resumed after.  Idempotent; `aclose` then has nothing left to suspend.
        """
        arguments.period("grace", grace)
        self._closing = self._closing or Leaving("give_back")
        await asyncio.gather(*(self._let_go(run_id, Leaving("give_back"), grace) for run_id in self._drives))

    async def _left(self, run_id: str, then: Leaving, grace: timedelta) -> RunResult:
        """Let a run stop here, and tell how it stands."""
        run_id, grace = arguments.run_named(run_id), arguments.period("grace", grace)
        end = self._drives.end(run_id)
        await self._let_go(run_id, then, grace)
        return replace(await self._stored_result(run_id), warnings=warnings_of(end))

    async def _let_go(self, run_id: str, then: Leaving, grace: timedelta) -> None:
        """Let a run that is driven here stop; where it has not within ``grace``, stop it.  However the drive ends, this raises nothing."""
        driver, end = self._drives.driver(run_id), self._drives.end(run_id)
        if driver is not None and end is not None:
            clock = await self._ready_clock()
            driver.drain(then)
            enough = driver.give_back if then.event == "give_back" else partial(driver.suspend, then.reason)
            escalation = clock.call_at(clock.now() + grace // timedelta(microseconds=1), enough)
            try:
                await outlast(end)
            finally:
                escalation.cancel()

    def open(self, run_id: str) -> RunHandle:
        """A handle of a run wherever it is driven, without driving it here."""
        run_id = arguments.run_named(run_id)
        return RunHandle(self, run_id, self._drives.end(run_id))

    async def begin(self, run_id: str) -> Started:
        """See `RunHandle.start`."""
        if self.is_driving(run_id):
            return "already_running"
        try:
            await self.attach(run_id)
        except LeaseHeldError:
            return "already_running"
        except RunEndedError:
            return "rejected"
        return "started"

    def drive_of(self, run_id: str) -> asyncio.Future[RunResult] | None:
        """How the drive of a run that is driven here will end."""
        return self._drives.end(run_id)

    async def check(self, run_id: str) -> RunCheck:
        """Check the stored checkpoints of a run against the contracts: order, steps, edges, deltas, end.  Changes nothing.

        Edges are checked against the stored definition of the run's graph; reducers and conditions are not asked again.  Whether the
        bytes are those that were written is another question: `CheckpointStore.verify` answers it.

        Raises RunNotFoundError, CheckpointCorruptError.
        """
        from engine.checking import check_run

        return await check_run(self.store, run_id)

    async def _contracts_kept(self, state: RunState, epoch: int, pending: Sequence[Row]) -> None:
        """Called before a run completes.  Raises ContractError, after the run has been quarantined."""
        from engine.checking import check_run

        found = await check_run(self.store, state.run_id, pending=pending, live=state)
        if not found.passed:
            error = ContractError(found)
            driver = self._drives.driver(state.run_id)
            assert driver is not None  # noqa: S101 - it is about to complete
            await driver.drop_transaction("the run is quarantined")
            change = RunChange(status="quarantined", clear_wake_at=True, error=error_data(error, "", ""), release=True)
            await self.store.commit(Commit(state.run_id, epoch, (), change))
            raise error

    async def fork(self, run_id: str, *, at: int | None = None, edits: Mapping[str, Any] | None = None) -> str:
        """Make a new run that stands where ``run_id`` stood at checkpoint ``at``; the original is untouched.

        ``edits`` replace values of state keys (validated).  The new run is ``suspended`` until it is resumed.  Returns its id.

        Raises RunNotFoundError, CheckpointNotFoundError, CheckpointCorruptError, ForkError, EditError, ArgumentError.
        """
        schema = self.graph.plan.schema
        return await operations.fork_run(
            self.store,
            arguments.run_named(run_id),
            at=arguments.checkpoint_number("at", at),
            edits=arguments.edits(edits),
            clock=await self._ready_clock(),
            validate=schema.validate_update,
            keys=tuple(schema.keys),
            plan=self.graph.plan,
        )

    async def edit(self, run_id: str, edits: Mapping[str, Any], *, by: str, reason: str = "") -> int:
        """Write other values into a run that nobody drives (waiting, suspended, at its step limit, or its process gone).

        The edit is one checkpoint with who made it and why; its number is returned.  Values are checked as an input's are, model
        validators included, and replace what is there (no reducer).  Open tickets that show an edited key show the new value
        at once: who decides over the old one gets StalePayloadError.

        Raises RunNotFoundError, AmbiguousRunError, RunEndedError, LeaseHeldError (somebody drives it; suspend it first), EditError
        (all problems at once, nothing was changed), WrongFlowError, GraphChangedError, RunMovedError, CheckpointCorruptError.
        """
        record = await self.store.run(arguments.run_named(run_id))
        self._taker.check_flow(record)
        if record.graph_hash != self.graph.graph_hash:
            await admitted(self.store, record, await load_state(self.store, record.run_id), self.graph, "strict")
        given = arguments.edits(edits)
        if not given:
            raise ArgumentError("edits", edits, "at least one value by state key")
        who, why = arguments.somebody("by", by), arguments.text("reason", reason)
        return await edit_run(self.store, record.run_id, given, by=who, reason=why, plan=self.graph.plan)


def _value(state: RunState, key: str) -> Any:
    from checkpoint_stores.codec import materialise

    value = state.root.read(key)
    return value if value is ABSENT else materialise(value)


def _close_script(runner: asyncio.Runner, store: CheckpointStore) -> None:
    try:
        runner.run(store.close())
    finally:
        runner.close()


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
