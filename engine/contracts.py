"""Whether the checkpoints of a run tell one whole story: a pure check, row by row, over the same fold.

What is promised of every run, whatever its nodes did:

- *Order.* Checkpoints are numbered without a gap, the lease's epoch never goes back, nothing follows the end.
- *Steps.* Each counted step is one checkpoint, about the node its scope stood before, and no other kind of checkpoint counts one.
- *Edges.* Each move goes along an edge the flow declares, and each edge left is entered once: what was not entered stands there still, or its
  scope was given up (a failed or cancelled branch, a run that ended otherwise than completed).
- *Deltas.* Each change stands in one checkpoint and is folded once; a join takes each change of its successful branches once, or merges
  that key anew, and takes nothing of branches that failed.
- *End.* A completed run stands nowhere any more.

Knows no database and no user code: reducers and conditions are not asked again (what they answered is recorded).  That the bytes are
those that were written, and that none is missing, is the digest chain's business (`verify`): a checkpoint that is gone is found here only
where the story does not go on without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from checkpoint_stores.codec import unpack
from checkpoint_stores.fold import AT, DONE, FAILED, OPEN, PARKED, RETRY, WAIT, RunState, Scope, begin_at, fold
from checkpoint_stores.ops import MOVES, Op
from checkpoint_stores.records import ENDED, Problem, Row
from engine.plan import END

_COUNTED: Final = frozenset({"step", "parallel", "map", "subflow", "barrier"})
"""Kinds that count a step."""
_UNCOUNTED: Final = frozenset(
    {
        "start",
        "fork",
        "attempt",
        "migration",
        "begin",
        "join",
        "decision",
        "decision_refused",
        "reminded",
        "escalated",
        "retry",
        "limit",
        "cancelled",
        "suspended",
        "signal",
        "timer",
        "heard",
    }
)
"""Kinds that never do; a fallback or failure does where a node was entered for it, and a wait where a node waits (its body may, too)."""
_BEFORE: Final = (AT, RETRY)
_ANY: Final = (AT, RETRY, OPEN, PARKED, WAIT)
_PHASE_OF: Final = {
    "retry": _BEFORE, "begin": (AT,), "join": (OPEN,), "decision": (PARKED,),
    "decision_refused": (PARKED,), "reminded": (PARKED,), "escalated": (PARKED,), "wait": _BEFORE, "signal": (WAIT,), "timer": (WAIT,), "heard": (WAIT,),
}  # fmt: skip
"""In which phases a scope can be when a checkpoint of this kind, which counts no step, is about its node."""


@dataclass(frozen=True, slots=True)
class EdgeCount:
    """How often a run went along one edge; branches of the same place are counted together."""

    path: str
    """Branch path of the scope, without visit numbers; all items of a map are counted together: ``score[*]``."""
    source: str
    """"" for the way into a scope."""
    target: str
    """``__end__`` for the way out."""
    left: int
    """How often a node was left along it."""
    entered: int
    """How often the node it leads to was then entered."""
    standing: int
    """How many stand before that node now."""
    given_up: int
    """How often the scope was given up before: left = entered + standing + given_up."""


@dataclass(frozen=True, slots=True)
class RunCheck:
    """What a check of a run's checkpoints found."""

    run_id: str
    problems: tuple[Problem, ...]
    edges: tuple[EdgeCount, ...]
    checkpoints: int
    """How many were checked."""
    steps: int
    """Node entries of the run, as of the newest checkpoint."""
    since: int
    """The seq of the first one checked: larger than 1 where earlier ones were pruned."""
    status: str
    """What the run's position says: ``running`` also for one that waits."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


class Contracts:
    """Takes a run's checkpoints one by one, in order, and tells what is wrong with them.

    ``state`` is where the first one stands on: empty, or restored from a snapshot where earlier ones are gone.
    """

    def __init__(self, run_id: str, definition: dict[str, Any] | None, state: RunState | None = None) -> None:
        self.state = state or RunState(run_id)
        self.definition = definition
        """The flow's, where it is known; a resume may have brought another: set it anew then."""
        self._since = 0 if state is None else state.seq + 1
        self._checked = 0
        self._epoch = 0
        self._is_broken = False
        self._problems: list[Problem] = []
        self._standing: dict[str, tuple[str, str, str]] = {}
        """By path of a living scope: the edge by which it came to the node it has not entered yet."""
        self._left: Counter[tuple[str, str, str]] = Counter()
        self._entered: Counter[tuple[str, str, str]] = Counter()
        self._given_up: Counter[tuple[str, str, str]] = Counter()
        self._given_unjoined = frozenset(_unjoined(self.state))
        """Paths of nodes whose branches were over where the history begins: a fork may stand there until somebody resumes it."""

    def take(self, row: Row) -> None:
        """Check the next checkpoint and fold it; after one that cannot be folded nothing is checked any more."""
        if self._is_broken:
            return
        try:
            ops = unpack(row.payload)
            is_new = row.path not in self.state.scopes
            scope = begin_at(self.state, row.path) if is_new else self.state.scopes[row.path]
            if is_new:
                self._arrive(scope, "")
            self._look(row, ops, scope)
            before, entered = frozenset(self.state.scopes), row.step != self.state.step
            fold(self.state, row, unpack(row.payload))
            if row.kind == "fork":
                self._given_unjoined = frozenset(_unjoined(self.state))
            elif row.kind == "join":
                self._given_unjoined -= {row.path}
            self._follow(row, ops, before, scope=self.state.scopes[row.path], entered=entered)
        except Exception as error:  # noqa: BLE001 - damaged rows break the fold in any way
            self._is_broken = True
            self._say(row, f"it cannot be folded ({type(error).__name__}: {error})")
            return
        self._checked += 1
        self._since = self._since or row.seq
        self._epoch = row.epoch

    def check(self) -> RunCheck:
        """What has been found so far."""
        state = self.state
        problems = list(self._problems)
        if state.status == "completed" and (state.root.phase != DONE or self._standing):
            where = ", ".join(sorted(scope.node for scope in state.frontier())) or "a branch"
            problems.append(Problem(state.run_id, state.seq, f"the run is completed and still stands before {where}"))
        for path in _unjoined(state):
            if path not in self._given_unjoined:
                where = f" in {path}" if path else ""
                node = state.scopes[path].node
                problems.append(Problem(state.run_id, state.seq, f"all branches of node {node!r}{where} are over and nothing joined them"))
        return RunCheck(
            state.run_id, tuple(problems), tuple(self._edges()), self._checked, state.step, self._since, state.status,
        )  # fmt: skip

    # --- before the fold --------------------------------------------------------------------------------------------
    def _look(self, row: Row, ops: list[Op], scope: Scope) -> None:
        state = self.state
        if not self._checked and not state.seq and row.seq > 1:
            self._say(row, "the checkpoints before it are missing, and no snapshot stands for them")
        elif self._checked or state.seq:
            if row.seq != state.seq + 1:
                self._say(row, f"it follows checkpoint {state.seq}")
            if row.epoch < self._epoch:
                self._say(row, f"it was written under epoch {row.epoch}, which had ended when epoch {self._epoch} wrote")
            counts = row.step - state.step
            if counts not in (0, 1) and row.kind != "fork":
                self._say(row, f"it counts {counts} steps")
            elif (row.kind in _COUNTED and not counts) or (row.kind in _UNCOUNTED and counts and row.kind != "fork"):
                self._say(row, f"a checkpoint of kind {row.kind} counts {counts} steps")
            elif counts and any(op[0] in ("close", "decision") for op in ops):
                self._say(row, f"it counts a step for node {row.node!r}, which must have been entered before")
        if state.status in ENDED:
            self._say(row, f"it follows the end of the run, which had {state.status}")
        phases = _BEFORE if row.step != state.step else _PHASE_OF.get(row.kind, _ANY)
        if row.node and (scope.node != row.node or scope.phase not in phases):
            self._say(row, f"it is a {row.kind} of node {row.node!r}, but the run stood {_phase(scope)} {scope.node!r}")
        if any(op[0] == "close" for op in ops) or row.kind == "join":
            self._look_at_join(row, ops, scope)

    def _look_at_join(self, row: Row, ops: list[Op], scope: Scope) -> None:
        taken = Counter((op[1], op[2]) for op in ops if op[0] == "take")
        done = {child.path: child for child in scope.children if child.phase == DONE}
        if row.kind != "join":
            if taken:
                self._say(row, "it gives the branches up and yet takes their changes")
            return
        if scope.left:
            self._say(row, "it joins branches that are not over")
        for (path, key), count in taken.items():
            if path not in done or key not in done[path].ops:
                self._say(row, f"it takes {key!r} from {path}, which has no such change to give")
            elif count > 1:
                self._say(row, f"it takes {key!r} from {path} {count} times")
        for key in dict.fromkeys(key for child in done.values() for key in child.ops):
            writers = [path for path, child in done.items() if key in child.ops]
            lost = [path for path in writers if (path, key) not in taken]
            if lost and len(lost) < len(writers):
                self._say(row, f"it takes {key!r} from some branches and not from {', '.join(lost)}")

    # --- after the fold ---------------------------------------------------------------------------------------------
    def _follow(self, row: Row, ops: list[Op], before: frozenset[str], *, scope: Scope, entered: bool) -> None:
        """Count the edges that this checkpoint entered, left and gave up."""
        state = self.state
        if row.node and entered:
            edge = self._standing.pop(row.path, None)
            if edge is not None:
                self._entered[edge] += 1
        if row.kind in MOVES and row.kind != "begin":
            self._leave(row, scope)
        for op in ops:
            if op[0] == "open":
                for child in scope.children:
                    self._arrive(child, "")
        for path in [path for path in self._standing if path not in state.scopes or state.scopes[path].phase == FAILED]:
            self._give_up(row, path, known=path in before)
        if state.status in ENDED:
            for path in list(self._standing):
                self._give_up(row, path, known=True)

    def _leave(self, row: Row, scope: Scope) -> None:
        if row.kind == "start":
            self._arrive(scope, "")
            self._declared_entry(row)
            return
        target = row.next or END
        self._declared_edge(row, target)
        if target != END:
            self._arrive(scope, row.node)
            return
        edge = (_place_of(scope), row.node, END)
        self._left[edge] += 1
        self._entered[edge] += 1

    def _arrive(self, scope: Scope, source: str) -> None:
        """``scope`` stands before its node now; it came from ``source``."""
        edge = (_place_of(scope), source, scope.node)
        self._left[edge] += 1
        self._standing[scope.path] = edge

    def _give_up(self, row: Row, path: str, *, known: bool) -> None:
        self._given_up[self._standing.pop(path)] += 1
        if row.kind == "join" and known:
            self._say(row, f"it joins branch {path}, which had left a node for one that it never entered")

    # --- what the flow declares -------------------------------------------------------------------------------------
    def _declared_entry(self, row: Row) -> None:
        if self.definition is not None and self.definition.get("entry") != row.next:
            self._say(row, f"the run begins at {row.next!r}, the flow at {self.definition.get('entry')!r}")

    def _declared_edge(self, row: Row, target: str) -> None:
        scope = _definition_at(self.definition, row.path)
        if scope is None:
            return
        kinds = {edge["kind"] for edge in scope["edges"] if (edge["from"], edge["to"]) == (row.node, target)}
        ends_early = target == END and row.kind == "step"  # a node may end its flow without an edge: it returned End
        if not kinds and not ends_early:
            self._say(row, f"it goes from {row.node!r} to {target!r}, where the flow has no edge")
        elif row.kind == "fallback" and "fallback" not in kinds:
            self._say(row, f"it falls back from {row.node!r} to {target!r}, where the flow has no fallback edge")

    # --- telling ----------------------------------------------------------------------------------------------------
    def _say(self, row: Row, reason: str) -> None:
        self._problems.append(Problem(row.run_id, row.seq, reason))

    def _edges(self) -> Iterator[EdgeCount]:
        standing = Counter(self._standing.values())
        for edge, left in self._left.items():
            yield EdgeCount(*edge, left, self._entered[edge], standing[edge], self._given_up[edge])


def _unjoined(state: RunState) -> list[str]:
    """Paths of the scopes whose branches are all over and not joined yet."""
    return [scope.path for scope in state.scopes.values() if scope.phase == OPEN and not scope.left]


def _phase(scope: Scope) -> str:
    return {
        AT: "before",
        RETRY: "before a retry of",
        OPEN: "in the open node",
        PARKED: "waiting at",
        WAIT: "waiting in",
        DONE: "behind",
        FAILED: "failed at",
    }[scope.phase]


def _place_of(scope: Scope) -> str:
    """The branch path of a scope without visit numbers, and without item numbers: ``checks[1].score[*]``."""
    if scope.parent is None:
        return ""
    node, _visit, *each = scope.parent.detail
    index = "*" if each and each[0]["over"] is not None else scope.path.rpartition("[")[2].rstrip("]")
    above = _place_of(scope.parent)
    return f"{above}.{node}[{index}]" if above else f"{node}[{index}]"


def _definition_at(definition: dict[str, Any] | None, path: str) -> dict[str, Any] | None:
    """What a definition says of the scope at ``path``; None where it does not tell."""
    scope = definition
    for part in path.split(".") if path else ():
        name, _, index = part.rstrip("]").partition("[")
        node = (scope or {}).get("nodes", {}).get(name.partition("#")[0], {})
        branches = node.get("branches") or []
        place = 0 if node.get("kind") in ("map", "subflow") else int(index)
        if place >= len(branches):
            return None
        scope = branches[place]
    return scope
