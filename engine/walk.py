"""The walk: feeds events to `decide`, folds what comes out, keeps the order of things.

A `Walk` owns the state of one run while one process drives it.  It is pure: no
await, no clock, no I/O; the driver hands in events with the time, and gets back
a `Batch` to commit (one transaction) and commands to carry out afterwards.

What only matters while the run is being driven lives here and is never stored:
which bodies are in flight, which wait for a place under a concurrency limit,
which could not start because the step limit is used up.  A resume works it out
anew from the folded state (`Walk.begin`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Final

from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import pack
from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import AT, BEGIN_EARLY, DONE, FAILED, OPEN, PARKED, RETRY, WAIT, RunState, Scope, begin_child, fold
from checkpoint_stores.ops import Op
from checkpoint_stores.records import ENDED, BarrierRecord, BarrierStatus, DecisionRecord, Row
from engine.barriers import next_nudge
from engine.commands import (
    BeginItems,
    CancelBelow,
    CancelBody,
    CloseBarrier,
    Command,
    Consume,
    Fail,
    Hear,
    NudgePeople,
    OpenBarrier,
    SetTimer,
    StartBody,
    Starve,
    Vote,
)
from engine.decide import decide
from engine.events import (
    Arrived,
    BodyFailed,
    BodyReturned,
    BodyWaits,
    BranchEnded,
    BranchTimedOut,
    DeadlinePassed,
    Event,
    LimitReached,
    NudgeDue,
    RetryDue,
    Unstorable,
    WaitOver,
)
from engine.leaving import Draft
from engine.plan import Plan


class Batch:
    """What one round of events led to: rows to commit together, and what to do once they are durable."""

    # An ordinary step has none of these: they stay the class's one empty tuple until something is added.
    timers: tuple[SetTimer, ...] = ()
    opened: tuple[BarrierRecord, ...] = ()
    closed: tuple[tuple[str, BarrierStatus], ...] = ()
    consumed: tuple[tuple[str, int], ...] = ()
    voted: tuple[DecisionRecord, ...] = ()
    nudged: tuple[BarrierRecord, ...] = ()
    cancels: tuple[str, ...] = ()
    """Paths of bodies in flight that must be cancelled."""
    error: BaseException | None = None
    """Why the run failed, as the exception this process saw."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.starts: list[StartBody] = []


_FROM_BODIES: Final = (BodyReturned, BodyFailed, BodyWaits)
"""What came of a body that was in flight."""


class _Gate:
    """The concurrency limit of one open parallel or map node."""

    __slots__ = ("limit", "queue", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.queue: list[tuple[int, int, StartBody]] = []


class Walk:
    """One run, being driven by one process under one lease epoch."""

    __slots__ = (
        "_chain",
        "_gates",
        "_is_held",
        "_items",
        "_next_index",
        "_numbers",
        "_starved",
        "_turn",
        "began_at",
        "epoch",
        "plan",
        "state",
    )

    def __init__(self, plan: Plan, state: RunState, chain: Chain, epoch: int) -> None:
        self.plan = plan
        self.state = state
        self.epoch = epoch
        self._chain = chain
        self._gates: dict[str, _Gate] = {}
        """By the path and visit of the open parallel or map node; only where a limit is declared."""
        self._items: dict[str, Iterator[int]] = {}
        """By the path of the scope whose map or subflow node is open: the items that are still to begin, in order."""
        self._starved: dict[str, None] = {}
        """Paths of what could not start because the step limit is used up, in the order they came."""
        self._turn = 0
        self._is_held = False
        self._numbers: dict[str, int] = {}
        """Step indices given to bodies in flight in branches, by path: what is committed first need not have begun first."""
        self._next_index = 0
        """Higher than every step index given to a body in a branch; 0 while there was none."""
        self.began_at = 0
        """When the newest body began in this process (microseconds); 0 while none has.  Set by whoever runs them."""

    # --- what the driver asks ---------------------------------------------------------------------------------------
    @property
    def ended(self) -> bool:
        """Whether nothing can follow any more."""
        return self.state.status in ENDED

    @property
    def stopped(self) -> bool:
        """Whether this process must let go of the run (ended, suspended, limit reached)."""
        return self.state.status != "running"

    @property
    def starved(self) -> bool:
        """Whether something could not start because the step limit is used up."""
        return bool(self._starved)

    def parked(self) -> Iterator[Scope]:
        """Scopes that wait for people."""
        return (scope for scope in self.state.frontier() if scope.phase == PARKED)

    def listening(self) -> Iterator[Scope]:
        """Scopes that wait for a signal."""
        return (scope for scope in self.state.frontier() if scope.phase == WAIT and scope.detail[1])

    def index_of(self, path: str) -> int:
        """The index of the step that is in flight at ``path``."""
        index = self.state.scopes[path].step_index
        if index is not None:
            return index
        return self._numbers.get(path, max(self.state.indices, self._next_index))

    # --- the three verbs --------------------------------------------------------------------------------------------
    def begin(self, now: int, news: Iterable[Event] = ()) -> Batch:
        """Everything that the folded state says must be going on, and then what follows from ``news``; the same for a fresh run and for
        a resumed one."""
        events: list[Event] = []
        batch = Batch()
        for scope in list(self.state.scopes.values()):
            if scope.phase == AT:
                events.append(Arrived(scope.path))
            elif scope.phase == OPEN:
                if scope.left == 0 or any(child.phase in (DONE, FAILED) for child in scope.children):
                    events.append(BranchEnded(scope.path))
                if scope.unbegun():
                    self._to_begin(scope)
            elif scope.phase == RETRY:
                batch.timers += (SetTimer(scope.detail[1], RetryDue(scope.path)),)
            elif scope.phase == WAIT and scope.detail[2] is not None:
                batch.timers += (SetTimer(scope.detail[2], WaitOver(scope.path, scope.detail[2])),)
            elif scope.phase == PARKED:
                batch.timers += _timers_of(scope)
            if scope.due is not None and scope.phase not in (DONE, FAILED):
                batch.timers += (SetTimer(scope.due, BranchTimedOut(scope.path)),)
        self.feed([*events, *news], now, batch)
        # What has begun goes first; where there is nothing of it, nobody has called the items yet.
        self._begin_items(now, batch)
        return batch

    def feed(self, events: Iterable[Event], now: int, batch: Batch | None = None) -> Batch:
        """Fold everything that follows from ``events``; the batch, or a new one, with what that led to."""
        state = self.state
        if batch is None:
            batch = Batch()
        for event in events:
            said = None
            if isinstance(event, _FROM_BODIES):
                said = event.said
                if self._gates:
                    self._landed(event.path)
                else:
                    state.running.discard(event.path)
            self._follow(event, now, batch, said)
            if self._gates or self._starved or self._items:
                self._begin_what_waits(now, batch)
            if state.status != "running":
                # Nothing starts any more; what is in flight can commit nothing and is cancelled.
                batch.starts.clear()
                batch.cancels += tuple(sorted(state.running))
                state.running.clear()
                self._numbers.clear()
                break
        return batch

    def hold(self, unstarted: Iterable[StartBody] = ()) -> None:
        """Start no body from now on, and none of ``unstarted``; whoever drives the run next works out anew which are to start."""
        self._is_held = True
        for start in unstarted:
            self._landed(start.path)
            self._numbers.pop(start.path, None)

    def let_go(self) -> tuple[str, ...]:
        """Give up what is in flight, uncommitted; returns the paths of the bodies to cancel."""
        paths = tuple(sorted(self.state.running))
        self.state.running.clear()
        return paths

    def stop_at_limit(self, now: int) -> Batch:
        """Record that the step limit keeps the run from moving."""
        return self.feed([LimitReached()], now)

    def _follow(self, event: Event, now: int, batch: Batch, said: Op | None = None) -> None:
        """Decide one event, fold its checkpoint, obey its commands, and follow what follows from it, depth first."""
        todo: list[Event] = []  # no recursion: capped nodes that fall back to one another may go on for as long as there are steps
        while True:
            draft, then, commands = decide(self.plan, self.state, event, now)
            if draft is not None:
                if said is not None:  # what a body said belongs to the checkpoint that its answer makes
                    draft = draft._replace(ops=[*draft.ops, said])
                try:
                    batch.rows.append(self._seal(draft))
                except UnserialisableError as error:
                    if type(event) is Unstorable:
                        raise
                    event = Unstorable(draft.path, draft.node, draft.entered, error, draft.started_at)
                    continue
                said = None
                if self._gates and draft.kind == "join":
                    scope = self.state.scopes[draft.path]
                    self._gates.pop(scope.child_path(draft.node, scope.visits[draft.node], 0), None)
            for command in commands:
                if type(command) is StartBody:
                    self._admit(command, batch)
                else:
                    self._obey(command, batch)
            if then:
                todo += reversed(then)
            if not todo:
                return
            event = todo.pop()

    def _seal(self, draft: Draft) -> Row:
        """Number, encode and chain a draft, and fold it: what is folded is what a later load will decode."""
        state = self.state
        kind, path, node, follows, made, entered, started_at = draft
        payload, ops = pack(self._numbered(draft) if self._next_index else made)
        if kind == "cancelled":
            started_at = self.began_at
        row = self._chain.seal(
            state.digest, state.run_id, state.seq + 1, self.epoch, state.step + entered, kind, path, node, follows, payload, started_at
        )
        fold(state, row, ops)
        if self._next_index:
            self._numbers.pop(path, None)
        return row

    def _numbered(self, draft: Draft) -> list[Op]:
        """The ops of a draft, with the step's index where it is not the next one."""
        state = self.state
        if not ((draft.entered or draft.kind in BEGIN_EARLY) and draft.node) or state.scopes[draft.path].step_index is not None:
            return draft.ops
        index = self.index_of(draft.path)
        return draft.ops if index == state.indices else [["index", index], *draft.ops]

    # --- commands ---------------------------------------------------------------------------------------------------
    def _obey(self, command: Command, batch: Batch) -> None:
        match command:
            case SetTimer():
                batch.timers += (command,)
            case OpenBarrier(record=record):
                batch.opened += (record,)
            case CloseBarrier(ticket=ticket, status=status):
                batch.closed += ((ticket, status),)
            case NudgePeople(record=record):
                batch.nudged += (record,)
            case Consume(decision_id=told) | Hear(signal_id=told):
                batch.consumed += ((told, self.state.seq),)
            case Vote(record=record):
                batch.voted += (record,)
                batch.consumed += ((record.id, self.state.seq),)
            case BeginItems(path=path):
                self._to_begin(self.state.scopes[path])
            case CancelBelow(path=path):
                self._cancel_below(path, batch)
            case CancelBody(path=path):
                if path in self.state.running:
                    self._cancel(path, batch)
            case Starve(path=path):
                self._starved[path] = None
            case Fail(error=error):
                batch.error = error

    def _admit(self, start: StartBody, batch: Batch) -> None:
        """Start a body, or let it wait for its turn, or for more steps."""
        if self._is_held:
            return
        state, path = self.state, start[0]
        if not path:
            # At the root there is no limit but that of the steps.
            running = state.running
            if state.step + len(running) < state.max_steps:
                running.add(path)
                batch.starts.append(start)
            else:
                self._starved[path] = None
            return
        scope = state.scopes[path]
        gates = self._gates_above(scope) if self.plan.is_limited and scope.parent is not None else ()
        for gate in gates:
            if gate.running >= gate.limit:
                # Branches that have begun go first, so that few are open at a time.
                self._turn += 1
                heapq.heappush(gate.queue, (0 if scope.visits or start.failed else 1, self._turn, start))
                return
        if state.step + len(state.running) >= state.max_steps:
            self._starved[path] = None
            return
        for gate in gates:
            gate.running += 1
        state.running.add(path)
        if scope.parent is not None and scope.step_index is None:
            index = self._numbers[path] = max(state.indices, self._next_index)
            self._next_index = index + 1
        batch.starts.append(start)

    def _landed(self, path: str) -> None:
        """A body is no longer in flight; its place under the concurrency limits is free."""
        if self._gates and path in self.state.running:
            self._leave_gates(path)
        self.state.running.discard(path)

    def _leave_gates(self, path: str) -> None:
        for key, gate in self._gates.items():
            # A gate's key is the path of its first branch: bodies below share it up to the index.  Scopes may be gone by now.
            if path.startswith(key[:-2]):
                gate.running -= 1

    def _begin_what_waits(self, now: int, batch: Batch) -> None:
        """Something may have made room."""
        if self._gates:
            self._call_waiting(batch)
        if self._starved:
            self._start_starved(now, batch)
        if self._items:
            self._begin_items(now, batch)

    def _call_waiting(self, batch: Batch) -> None:
        """Start what waits under a concurrency limit and now has a place."""
        for gate in list(self._gates.values()):
            while gate.queue and gate.running < gate.limit:
                _begun, _turn, start = heapq.heappop(gate.queue)
                scope = self.state.scopes.get(start.path)
                if scope is not None and scope.node == start.node and scope.phase in (AT, RETRY):
                    self._admit(start, batch)

    def _to_begin(self, scope: Scope) -> None:
        """Remember which items of the open map node of ``scope`` are still to begin."""
        begun = {child.index for child in scope.children}
        self._items[scope.path] = (index for index in range(scope.detail[2]["count"]) if index not in begun)

    def _begin_items(self, now: int, batch: Batch) -> None:
        """Begin items while there is room for what they start: ten thousand items never wait in memory at once."""
        begun = True
        while begun:  # what begins may open further map nodes
            begun = False
            for path, waiting in list(self._items.items()):
                begun = self._begin_items_of(path, waiting, now, batch) or begun

    def _begin_items_of(self, path: str, waiting: Iterator[int], now: int, batch: Batch) -> bool:
        scope = self.state.scopes.get(path)
        begun = False
        # What follows may close the node, and may even open it again, with items of its own to begin.
        while self._items.get(path) is waiting and self.state.status == "running":
            index = None
            if scope is not None and scope.phase == OPEN and scope.unbegun():
                # The one flow of a subflow node may be bounded in time: it begins at once, and its bodies wait for their places.
                if scope.detail[2]["over"] is not None and not self._has_room(scope):
                    break
                index = next(waiting, None)
            if index is None or scope is None:
                del self._items[path]
                break
            begun = True
            child = begin_child(self.state, scope, index)
            if child.due is not None:
                batch.timers += (SetTimer(child.due, BranchTimedOut(child.path)),)
            self._follow(Arrived(child.path), now, batch)
        return begun

    def _has_room(self, scope: Scope) -> bool:
        """Whether what begins now below the open node of ``scope`` would start at once."""
        return (
            not self._starved
            and not self._is_held
            and all(gate.running < gate.limit and not gate.queue for gate in self._gates_below(scope))
        )

    def _gates_above(self, scope: Scope) -> list[_Gate]:
        """The concurrency limits a body in ``scope`` counts under."""
        return self._gates_below(scope.parent)

    def _gates_below(self, parent: Scope | None) -> list[_Gate]:
        """The concurrency limits a body in a child of ``parent`` counts under."""
        found: list[_Gate] = []
        while parent is not None:
            if parent.phase == OPEN:
                node, visit = parent.detail[:2]
                opens = self.plan.at(parent.path).nodes[node].opens
                if opens is not None and opens.max_concurrency is not None:
                    key = parent.child_path(node, visit, 0)
                    gate = self._gates.get(key)
                    if gate is None:
                        gate = self._gates[key] = _Gate(opens.max_concurrency)
                    found.append(gate)
            parent = parent.parent
        return found

    def _start_starved(self, now: int, batch: Batch) -> None:
        """Forget what need not start any more, and start what can: bodies that were cancelled or failed gave their steps back."""
        state = self.state
        for path in list(self._starved):
            scope = state.scopes.get(path)
            if scope is None or scope.phase not in (AT, RETRY):
                del self._starved[path]
            elif state.step + len(state.running) < state.max_steps:
                del self._starved[path]
                self._follow(Arrived(path) if scope.phase == AT else RetryDue(path), now, batch)

    def _cancel(self, path: str, batch: Batch) -> None:
        """Take a body out of flight, or keep it from starting where this very batch was to start it."""
        self._landed(path)
        self._numbers.pop(path, None)
        batch.cancels += (path,)
        batch.starts = [start for start in batch.starts if start.path != path]

    def _cancel_below(self, path: str, batch: Batch) -> None:
        prefix = f"{path}." if path else ""
        gone = sorted(running for running in self.state.running if running.startswith(prefix))
        for running in gone:
            self._cancel(running, batch)
        for key in [key for key in self._gates if key.startswith(prefix)]:
            del self._gates[key]
        for key in [key for key in self._items if key == path or key.startswith(prefix)]:
            del self._items[key]


def _timers_of(scope: Scope) -> tuple[SetTimer, ...]:
    """What an open ticket waits for that no person does."""
    ticket, details = scope.detail
    timers: tuple[SetTimer, ...] = ()
    if details["deadline"] is not None:
        timers += (SetTimer(details["deadline"], DeadlinePassed(scope.path, ticket)),)
    due = next_nudge(details)
    if due is not None:
        timers += (SetTimer(due, NudgeDue(scope.path, ticket, due)),)
    return timers
