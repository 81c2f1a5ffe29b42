"""Replay: does today's graph decide what the stored run decided?

Folds the stored rows one after the other, and before each asks today's graph what it makes of the same facts.  Nothing is written and no
node's body is called; conditions, reducers and validators of today's flow are.

What the rows hold decides what can be asked again.

- Asked anew as a whole, and compared op by op: the opening of parallel, map and subflow nodes, joins, barriers, timers and waits, and what
  followed from a decision, a signal or a deadline (times apart: they were counted from another moment).
- A step: its conditions, over the state as it was stored; and each key it wrote where the raw update is known: in a branch, and wherever the
  stored reducer does not look at the current value.  At the root a reducer that does (``max``, your own) left only what it made.
- A failed body: which fallback takes the stored error, by the names of its classes; whether a failed attempt is tried again.
- Not told by the rows: whether a node said ``Goto`` or ``End``.  Where today's conditions lead elsewhere and the node declares (``goto=``) that
  it may say so, the step counts as unchecked; where it does not declare it, as diverged.
- Rows from before a migration belong to another version and are not asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from checkpoint_stores.codec import encode, materialise, pack, unpack
from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import OPEN, PARKED, WAIT, RunState, Scope, begin_child
from checkpoint_stores.folding import apply_row
from checkpoint_stores.ops import VALUE_OPS, Op
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DecisionRecord, Row, SignalRecord
from engine.decide import decide
from engine.errors import NodeError, RejectedError, WrongFlowError
from engine.events import Arrived, BranchEnded, DeadlinePassed, Event, Signalled, Voted, WaitOver
from engine.graph import FlowGraph
from engine.leaving import chosen
from engine.loading import load_state
from engine.migration import chain_from
from engine.outcomes import DELETE
from engine.plan import END, EdgePlan, NodePlan, ParallelPlan, Plan
from engine.routing import hop_name
from engine.signals import BODY, SIGNAL, TIMER
from engine.updates import first_line, reduced
from reducers.registry import reducer_named


class Divergence(NamedTuple):
    """One place where today's graph decides otherwise than the run did."""

    seq: int
    """The checkpoint."""
    step: int
    path: str
    node: str
    stored: str
    """What the run did."""
    today: str
    """What today's graph would do."""

    def __str__(self) -> str:
        where = f"node {self.node!r}{f' in {self.path}' if self.path else ''}" if self.node else "the start"
        return f"diverged at step {self.step} (checkpoint {self.seq}), {where}: stored {self.stored}, today's graph {self.today}"


class Unchecked(NamedTuple):
    """Something that the rows do not tell, so that it was not asked."""

    seq: int
    reason: str


@dataclass(frozen=True)
class Replay:
    """What became of one stored run in today's graph."""

    run_id: str
    status: str
    """Of the run: replaying changes nothing about it."""
    rows: int
    checked: int
    """Rows that hold a decision of the graph, all of which (but for ``unchecked``) was made anew."""
    divergences: tuple[Divergence, ...]
    unchecked: tuple[Unchecked, ...]

    @property
    def matches(self) -> bool:
        """Whether nothing that could be asked was answered otherwise."""
        return not self.divergences

    def __str__(self) -> str:
        about = f"{self.checked} of {self.rows} checkpoints asked anew" + (
            f", {len(self.unchecked)} thing(s) unchecked" if self.unchecked else ""
        )
        if self.matches:
            return f"run {self.run_id}: match ({about})"
        return "\n".join([f"run {self.run_id}: {self.divergences[0]} ({about})", *(f"  {each}" for each in self.divergences[1:])])


async def replay_run(store: CheckpointStore, graph: FlowGraph, run_id: str) -> Replay:
    """Replay one stored run against ``graph``; nothing is written.

    Raises RunNotFoundError, WrongFlowError, CheckpointCorruptError.
    """
    record = await store.run(run_id)
    if record.flow != graph.name:
        raise WrongFlowError(record.run_id, record.flow, graph.name)
    rows = [row async for row in store.history(record.run_id)]
    await store.load(record.run_id)  # checks the chain
    stored = await store.graph(record.graph_hash)
    definition = json.loads(stored) if stored else {}
    begun = not rows or rows[0].kind in ("start", "fork")
    state = RunState(record.run_id) if begun else await load_state(store, record.run_id, rows[0].seq - 1)
    heard = {signal.consumed_seq: signal for signal in await store.signals(record.run_id) if signal.consumed_seq is not None}
    replaying = _Replaying(graph.plan, definition, state, await store.decisions(record.run_id), heard)
    others = max((index + 1 for index, row in enumerate(rows) if row.kind == "migration"), default=0)
    if chain_from(graph.migrations, str(definition.get("version", ""))):
        others = len(rows)
    for index, row in enumerate(rows):
        if index < others:
            replaying.pass_over(row)
        else:
            replaying.ask(row)
        apply_row(state, row)
    return Replay(record.run_id, record.status, len(rows), replaying.checked, tuple(replaying.divergences), tuple(replaying.unchecked))


_NO_DECISION: Final = frozenset({"attempt", "fork", "migration", "suspended", "limit", "cancelled"})
"""Kinds of rows that no graph decided."""

_TOLD: Final = frozenset({"index", "said"})
"""Ops for those who look on; they decide nothing."""

_ARRIVING: Final = frozenset({"parallel", "map", "subflow", "begin", "barrier"})


class _Replaying:
    """Today's graph, beside a run that is folded again."""

    def __init__(
        self, plan: Plan, definition: Mapping[str, Any], state: RunState, votes: Iterable[DecisionRecord], heard: Mapping[int, SignalRecord]
    ) -> None:
        self.plan = plan
        self.state = state
        self.checked = 0
        self.divergences: list[Divergence] = []
        self.unchecked: list[Unchecked] = []
        self._definition = definition
        self._heard = heard
        self._votes: dict[int, list[DecisionRecord]] = {}
        for vote in votes:
            if vote.consumed_seq is not None:
                self._votes.setdefault(vote.consumed_seq, []).append(vote)

    def pass_over(self, row: Row) -> None:
        if row.kind not in _NO_DECISION:
            self._skip(row, "it belongs to another version of the flow; migrations lead over from there")

    def ask(self, row: Row) -> None:
        """Ask today's graph about what ``row`` says; the state stands before it."""
        if row.kind in _NO_DECISION:
            return
        self.checked += 1
        ops = [op for op in unpack(row.payload) if op[0] not in _TOLD]
        if row.kind == "start":
            self._start(row, ops)
            return
        try:
            here = self.plan.at(row.path)
        except (KeyError, IndexError):
            self._differs(row, _did(row, ops), f"has no branch {row.path}")
            return
        node = here.nodes.get(row.node)
        scope = _scope_at(self.state, row.path)
        if node is None:
            self._differs(row, _did(row, ops), "has no such node")
        elif row.kind == "step":
            self._step(row, ops, here, node, scope)
        elif not _fits(node, scope):
            self._differs(row, _did(row, ops), f"has a {node.kind} there that does not fit what is under way")
        elif scope.phase in (OPEN, PARKED, WAIT) or row.kind in _ARRIVING or (row.kind == "wait" and node.kind != "task"):
            self._again(row, ops, scope)
        elif row.kind == "wait":
            if ops[0][1] != BODY:
                self._differs(row, _did(row, ops), f"has a {node.kind} there")
            elif ops[0][2] not in self.plan.signals:
                self._differs(row, f"waited for {ops[0][2]!r}", "does not declare that signal")
        elif row.kind == "retry":
            self._retry(row, ops, node)
        else:
            self._failed(row, ops, node, scope)

    # --- what is asked ----------------------------------------------------------------------------------------------
    def _start(self, row: Row, ops: Sequence[Op]) -> None:
        if row.next != self.plan.entry:
            self._differs(row, f"the entry {row.next!r}", f"begins at {self.plan.entry!r}")
        for op in ops:
            if op[0] == "set":
                self._check_value(row, self.plan, op[1], op[2])

    def _step(self, row: Row, ops: list[Op], here: Plan, node: NodePlan, scope: Scope) -> None:
        if node.kind != "task":
            self._differs(row, _did(row, ops), f"has a {node.kind} there")
            return
        written = [op for op in ops if op[0] in VALUE_OPS]
        update = {op[1]: self._raw(row, op) for op in written}
        for op in written:
            self._reduce(row, op, here, scope, update[op[1]])
        if any(op[1] not in here.schema.keys for op in written):
            return
        known = {key: value for key, value in update.items() if value is not _UNKNOWN}
        if len(known) < len(update) and any(edge.when_wants_outcome for edge in node.conditional):
            self._skip(row, "a condition asks for what the node returned, which is not stored")
            return
        try:
            target = chosen(here, node, scope, written, known).edge.target
        except (NodeError, UnserialisableError) as error:
            edge = _fallback_of(node, scope, [kind.__qualname__ for kind in type(error).__mro__], rejected=False)
            target = edge.target if edge is not None else ""
        stored = END if ["done"] in ops else row.next
        if target == stored:
            return
        says = {*node_goto(self._definition, row.path, node.name)}
        if stored in says:
            self._skip(row, f"today's conditions lead to {_named(target)}, but the node may have said {'End' if stored == END else 'Goto'}")
        else:
            self._differs(row, f"next {_named(stored)}", f"would go to {_named(target)}" if target else "would fail there")

    def _reduce(self, row: Row, op: Op, here: Plan, scope: Scope, update: Any) -> None:
        key = op[1]
        spec = here.schema.keys.get(key)
        if spec is None:
            self._differs(row, f"wrote {key!r}", "does not declare that key")
            return
        if update is _UNKNOWN:
            if self._reducer(row.path, key) != spec.reducer.name:
                self._skip(row, f"{key!r} is merged by {spec.reducer.name} now; what the node returned for it is not stored")
            return
        if update is DELETE:
            return
        self._check_value(row, here, key, update)
        in_branch = scope.base is not None
        try:
            given = update if spec.reducer.builtin else materialise(update)
            made = reduced(spec.reducer, key, scope.read(key), given, keep_update=in_branch, node=row.node, path=row.path)
            again = pack([made])[1] if made is not None else []
        except (NodeError, UnserialisableError) as error:
            self._differs(row, f"{op[0]} {key!r}", f"would refuse it: {first_line(error)}")
            return
        if encode(again) != encode([op]):
            does = again[0][0] if again and again[0][0] != "same" else "leave"
            self._differs(row, f"{op[0]} {key!r}", f"would {does} it ({spec.reducer.name})")

    def _check_value(self, row: Row, here: Plan, key: str, value: Any) -> None:
        if key not in here.schema.keys:
            self._differs(row, f"wrote {key!r}", "does not declare that key")
            return
        try:
            here.schema.validate_update(key, materialise(value))
        except Exception as error:  # noqa: BLE001 - the author's validators may raise anything
            self._differs(row, f"wrote {key!r}", f"would refuse it: {first_line(error)}")

    def _again(self, row: Row, ops: list[Op], scope: Scope) -> None:
        """What follows from the position alone, or from a decision: all of it is decided anew."""
        event = self._event(row, scope)
        if event is None:
            self._skip(row, f"what led to this {row.kind} is not stored")
            return
        now = row.committed_at
        if isinstance(event, DeadlinePassed):
            now = max(now, scope.detail[1]["deadline"])
        elif isinstance(event, WaitOver):
            now = max(now, event.due)
        draft = decide(self.plan, self.state, event, now).draft
        if draft is None:
            self._differs(row, _did(row, ops), "would not do that here")
            return
        made, stored = _timeless(pack(draft.ops)[1]), _timeless(ops)
        if (draft.kind, draft.next) != (row.kind, row.next):
            self._differs(row, _did(row, ops), f"would go {draft.kind} -> {_named(draft.next or END)}")
        elif encode(made) != encode(stored):
            self._differs(row, _difference(stored, made), _difference(made, stored))

    def _event(self, row: Row, scope: Scope) -> Event | None:
        if row.kind == "failure" and _error_type(row) == "BranchTimeoutError":
            return None
        if scope.phase == OPEN:
            return BranchEnded(row.path)
        if scope.phase == WAIT:
            signal, due = self._heard.get(row.seq), scope.detail[2]
            return Signalled(row.path, signal) if signal is not None else WaitOver(row.path, due) if due is not None else None
        if scope.phase != PARKED:
            return Arrived(row.path)
        votes = tuple(vote for vote in self._votes.get(row.seq, ()))
        if not votes or any(vote.source == "timeout" for vote in votes):
            return DeadlinePassed(row.path, scope.detail[0]) if scope.detail[1]["deadline"] is not None else None
        return Voted(row.path, scope.detail[0], votes)

    def _retry(self, row: Row, ops: list[Op], node: NodePlan) -> None:
        _word, failed, _due, error = ops[0]
        if node.kind != "task":
            self._differs(row, "a failed attempt", f"has a {node.kind} there")
        elif node.retry is None or failed >= node.retry.attempts or not any(kind.__qualname__ in error["kinds"] for kind in node.retry.on):
            self._differs(row, f"tried again after attempt {failed} ({error['type']})", "would not try again")

    def _failed(self, row: Row, ops: list[Op], node: NodePlan, scope: Scope) -> None:
        error = next((op[1] for op in ops if op[0] in ("error", "fail")), None)
        if error is None or "kinds" not in error:
            self._skip(row, "the error is not stored")
            return
        edge = _fallback_of(node, scope, error["kinds"], rejected=RejectedError.__qualname__ in error["kinds"])
        target = edge.target if edge is not None else ""
        stored = "" if row.kind == "failure" else row.next
        if error["type"] in ("BranchTimeoutError", "FinalStateError") or (error["type"] == "LoopLimitExceeded" and row.kind == "failure"):
            self._skip(row, f"{error['type']}: what led to it is not stored")
        elif target != stored:
            self._differs(
                row, f"{error['type']}, then {_named(stored)}" if stored else f"{error['type']}, and no way on", f"would go to {_named(target)}" if target else "has no fallback that takes it"
            )  # fmt: skip

    # --- what the rows hold -----------------------------------------------------------------------------------------
    def _raw(self, row: Row, op: Op) -> Any:
        """The update that made ``op``, or _UNKNOWN."""
        if op[0] == "delete":
            return DELETE
        if len(op) > _CARRIES:
            return op[_CARRIES][0] if len(op[_CARRIES]) == 1 else _UNKNOWN
        try:
            known = reducer_named(self._reducer(row.path, op[1]))
        except Exception:  # noqa: BLE001 - a reducer that is no more
            return _UNKNOWN
        return op[2] if known.independent else _UNKNOWN

    def _reducer(self, path: str, key: str) -> str:
        """The reducer by which the key was merged when the row was made."""
        found = ""
        for flow in _flows(self._definition, path):
            found = flow.get("keys", {}).get(key, found)
        return str(found)

    def _skip(self, row: Row, reason: str) -> None:
        self.unchecked.append(Unchecked(row.seq, reason))

    def _differs(self, row: Row, stored: str, today: str) -> None:
        self.divergences.append(Divergence(row.seq, row.step, row.path, row.node, stored, today))


_UNKNOWN: Final = object()

_CARRIES: Final = 3
"""Where an op of a branch holds the raw updates."""


def node_goto(definition: Mapping[str, Any], path: str, node: str) -> Sequence[str]:
    """Where a node declared that it may say Goto (or, with END, End), by the stored definition."""
    flow = _flows(definition, path)[-1]
    return tuple((flow.get("nodes", {}).get(node) or {}).get("goto", ()))


def _flows(definition: Mapping[str, Any], path: str) -> list[Mapping[str, Any]]:
    flows = [definition]
    for piece in path.split(".") if path else ():
        name, _, index = piece.rstrip("]").partition("[")
        node = flows[-1].get("nodes", {}).get(name.partition("#")[0]) or {}
        inside, place = node.get("branches") or [], int(index) if node.get("kind") == "parallel" else 0
        flows.append(inside[place] if place < len(inside) else {})
    return flows


def _scope_at(state: RunState, path: str) -> Scope:
    scope = state.scopes.get(path)
    if scope is None:
        above, _dot, last = path.rpartition(".")
        scope = begin_child(state, _scope_at(state, above), int(last.rstrip("]").partition("[")[2]))
    return scope


def _fits(node: NodePlan, scope: Scope) -> bool:
    """Whether what the scope waits in could have been opened by this node."""
    if scope.phase == PARKED:
        return node.barrier is not None
    if scope.phase == WAIT:
        return node.kind == {TIMER: "timer", SIGNAL: "wait", BODY: "task"}[scope.detail[0]]
    if scope.phase != OPEN:
        return True
    if isinstance(node.opens, ParallelPlan):
        return scope.unbegun() == 0 and len(node.opens.branches) == len(scope.children)
    return node.opens is not None and len(scope.detail) > 2 and (scope.detail[2]["lent"] is None) == (node.opens.mapped is None)


def _fallback_of(node: NodePlan, scope: Scope, kinds: Sequence[str], *, rejected: bool) -> EdgePlan | None:
    """The fallback edge that takes an error of these classes (see `engine.failures.fallback_for`), known by their names alone."""
    for edge in node.fallbacks:
        names = [kind.__qualname__ for kind in edge.on]
        if (rejected and RejectedError.__qualname__ not in names) or (names and set(names).isdisjoint(kinds)):
            continue
        is_used_up = edge.max_visits is not None and scope.hops.get(hop_name(node, edge), 0) >= edge.max_visits
        return None if is_used_up else edge
    return None


def _error_type(row: Row) -> str:
    return next((str(op[1]["type"]) for op in unpack(row.payload) if op[0] in ("fail", "error") and op[1]), "")


def _timeless(ops: Iterable[Op]) -> list[Op]:
    """Without the times that were counted from another moment."""
    made = []
    for op in ops:
        match op:
            case ["open", node, visit, entries, due]:
                made.append(["open", node, visit, entries, due and [each is not None for each in due]])
            case ["each", node, visit, each]:
                made.append(["each", node, visit, {**each, "due": each["due"] is not None}])
            case ["wait", kind, name, due]:
                made.append(["wait", kind, name, due is not None])
            case ["park", ticket, details]:
                held = {**details, "deadline": details["deadline"] is not None}
                made.append(["park", ticket, {name: held[name] for name in sorted(held) if name != "opened_at"}])
            case ["fail" | "error" as word, {"message": _} as error]:
                made.append([word, {name: value for name, value in error.items() if name in ("type", "node", "path")}])
            case _:
                made.append(op)
    return made


def _difference(ops: Sequence[Op], others: Sequence[Op]) -> str:
    only = [op for op in ops if encode(op) not in {encode(other) for other in others}]
    return f"{' '.join(map(str, only[0][:2]))}" if only else "nothing more"


def _did(row: Row, ops: Sequence[Op]) -> str:
    return f"{row.kind} -> {_named(END if ['done'] in ops else row.next)}"


def _named(target: str) -> str:
    return "the end" if target in (END, "") else repr(target)
