"""A run is a fold: the one function that turns committed checkpoints into state.

    state(n) = fold(fold(fold(empty, row 1), row 2) ..., row n)

The live walk and every resume call `fold` and nothing else, with the same
decoded ops, so a resumed run cannot differ from an uninterrupted one.

What this file does not know: graphs, conditions, reducers, user classes, time,
chance, databases.  It never fails on ops that `engine.decide` made; on anything
else it raises, and `load` reports the checkpoint as corrupt.

Theory of operation.  A run is a tree of *scopes*.  A scope is a flow being
walked by one token: the root flow is the scope ``""``; each branch of an open
parallel node is a scope of its own (``checks[1]``).  A scope stands before a
node (phase ``at``), waits for its child scopes (``open``), for people
(``parked``), for a signal or a time (``wait``) or for a retry's time
(``retry``), or is over (``done``,
``failed``).  The frontier of the run is the phases of its scopes, nothing more.

The root scope owns the values.  A branch scope owns only the ops it committed
(an overlay over its parent's values, which stand still while the branch lives);
forking is O(1) and the join can replay the ops over the parent.  A child scope
of a flow with a state of its own (`Lent`) lies over nothing: it owns its values,
and reads what was lent to it by reference.

The child scopes of a map node come to be one by one (`begin_child`): nothing is
stored or held of an item that nothing has happened to yet.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final

from checkpoint_stores.ops import MOVES, VALUE_OPS, Op
from checkpoint_stores.records import Row
from checkpoint_stores.registered import ModelData
from reducers.changes import ABSENT, apply

AT: Final = "at"
OPEN: Final = "open"
PARKED: Final = "parked"
RETRY: Final = "retry"
WAIT: Final = "wait"
DONE: Final = "done"
FAILED: Final = "failed"


class Scope:
    """One token's place in one flow.  Changed by `fold` alone."""

    __slots__ = (
        "base", "begun", "cache", "children", "decisions", "detail", "due", "error", "failed", "gone", "heard", "hops", "index", "left", "lent", "lost", "node", "ops",
        "parent", "path", "phase", "sizes", "step_index", "values", "visits",
    )  # fmt: skip

    def __init__(self, path: str, parent: Scope | None, node: str, index: int = 0, lent: dict[str, Any] | None = None) -> None:
        self.path = path
        self.parent = parent
        self.index = index
        """Its place among its parent's children, in declared order (of a map: the place of its item)."""
        self.base = parent if lent is None else None
        """The scope whose values lie beneath this one's; None where it owns its values."""
        self.lent = lent
        """Of a scope with a state of its own: the values it was given, by reference; never changed."""
        self.begun = False
        """Whether a checkpoint was made in it."""
        self.node = node
        """The node the scope stands before, or waits in."""
        self.phase = AT
        self.visits: dict[str, int] = {}
        """How often each node was entered in this scope."""
        self.hops: dict[str, int] = {}
        """How often each capped edge was taken in this scope."""
        self.values: dict[str, Any] = {}
        """Values the scope owns: the run's, or those of a flow with a state of its own."""
        self.gone: dict[str, None] = {}
        """Lent keys that were deleted here."""
        self.ops: dict[str, list[Op]] = {}
        """Of a branch: its value ops by key, in order."""
        self.cache: dict[str, tuple[Op, Any, int]] = {}
        """Of a branch: values already folded from ``ops`` for reading, each with the newest op in it, by which a stale one is
        known: the thread of an attempt that timed out may still read, and put one here, while the run goes on.  Reading folds
        anew and never changes one; writing carries on the one that is here.  Last, how much of it is its own (see `_stepped`)."""
        self.sizes: dict[str, int] = {}
        """About how many stored bytes each key holds here."""
        self.children: list[Scope] = []
        self.left = 0
        """How many children are not over yet; kept, so that asking costs the same for two branches and ten thousand."""
        self.lost = 0
        """How many children have failed."""
        self.error: dict[str, Any] | None = None
        """What sent the scope to the fallback node it stands before."""
        self.failed = 0
        """Failed attempts of the node it stands before."""
        self.heard: list[Any] | None = None
        """What the body of the node it stands before has waited for so far: [name, payload, in time] each, in order."""
        self.detail: Any = None
        """phase parked: [ticket, details]; retry: [n, due, error]; wait: [kind, name, due]; open: [node, visit] or [node, visit, each]; failed: the error."""
        self.decisions: dict[str, Any] = {}
        self.step_index: int | None = None
        """The index of the step it is in, once a checkpoint has told of that step; None between steps."""
        self.due: int | None = None
        """When a branch must be over (microseconds); None where it may take as long as it likes."""

    def read(self, key: str) -> Any:
        """The value of ``key`` as this scope sees it, or ABSENT.  Not to be mutated."""
        base = self.base
        if base is None:
            value = self.values.get(key, ABSENT)
            return self.lent.get(key, ABSENT) if value is ABSENT and self.lent and key not in self.gone else value
        ops = self.ops.get(key)
        if ops is None:
            return base.read(key)
        newest = ops[-1]
        held = self.cache.get(key)
        if held is None or held[0] is not newest:
            value, own = base.read(key), _SHARED
            for op in ops:
                value, own = _stepped(op, value, own)
            held = self.cache[key] = (newest, value, own)
        return held[1]

    def item(self) -> tuple[int, Any] | None:
        """The place and the value of the map's item this scope works on; None where it stands in no map.  Not to be mutated."""
        scope = self
        while scope.parent is not None:
            opened = scope.parent.detail
            if len(opened) > _OPENED and opened[_OPENED]["over"] is not None:
                return scope.index, scope.parent.read(opened[_OPENED]["over"])[scope.index]
            scope = scope.parent
        return None

    @property
    def is_item(self) -> bool:
        """Whether it is the flow of a map's item (and not a branch or a subflow within one)."""
        above = self.parent
        return above is not None and len(above.detail) > _OPENED and above.detail[_OPENED]["over"] is not None

    def unbegun(self) -> int:
        """How many items of the open map node nothing has happened to yet."""
        return self.detail[_OPENED]["count"] - len(self.children) if len(self.detail) > _OPENED else 0

    def decision(self, node: str) -> Any:
        """The newest decision of a barrier, seen from this scope; None where there is none."""
        scope: Scope | None = self
        while scope is not None:
            if node in scope.decisions:
                return scope.decisions[node]
            scope = scope.parent
        return None

    def all_decisions(self) -> dict[str, Any]:
        inherited = self.parent.all_decisions() if self.parent else {}
        return {**inherited, **self.decisions}

    def child_path(self, node: str, visit: int, index: int) -> str:
        prefix = f"{self.path}." if self.path else ""
        return f"{prefix}{node}[{index}]" if visit == 1 else f"{prefix}{node}#{visit}[{index}]"


class RunState:
    """Everything a run is, as of its newest folded checkpoint."""

    __slots__ = (
        "attempt",
        "details",
        "digest",
        "indices",
        "max_steps",
        "root",
        "run_id",
        "running",
        "scopes",
        "seq",
        "status",
        "step",
        "stored",
        "tokens",
        "tokens_input",
        "tokens_output",
        "weight",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.seq = 0
        self.step = 0
        self.digest = b""
        self.status = "running"
        """running until an op says otherwise; ``waiting`` is no op but a fact about the scopes (see `at_rest`)."""
        self.attempt = 0
        self.max_steps = 0
        self.indices = 0
        """The index of the next step, where nothing else has begun meanwhile."""
        self.tokens = 0
        """The highest token index so far."""
        self.tokens_input = 0
        self.tokens_output = 0
        self.details: dict[str, Any] = {}
        """Of the newest attempt: owner, graph_hash, whether it was forced ..."""
        self.root = Scope("", None, "")
        self.scopes: dict[str, Scope] = {"": self.root}
        self.running: set[str] = set()
        """Paths whose node bodies are in flight in this process.  No part of the fold: never stored, never compared."""
        self.stored = 0
        """About how many bytes a snapshot would take now; kept incrementally, so that asking costs nothing."""
        self.weight = 0
        """Bytes of rows folded since the newest snapshot."""

    def frontier(self) -> Iterator[Scope]:
        """Every scope that is not over and waits for no child, in declared order."""
        return _leaves(self.root)

    def at_rest(self) -> bool:
        """Whether no scope stands before a node: only people or time can move the run."""
        return all(scope.phase != AT for scope in self.frontier()) and not any(
            scope.phase == OPEN and scope.unbegun() for scope in self.scopes.values()
        )

    # --- materialised form: what a snapshot and a fork hold ---------------------------------------------------------
    def dump(self) -> list[Any]:
        """Plain data from which `restored` makes an equal state."""
        return [
            self.seq, self.step, self.status, self.attempt, self.max_steps, self.details, self.root.values,
            self.stored, [_dumped(scope) for scope in _walked(self.root) if not _untouched(scope)],
            [self.indices, self.tokens, self.tokens_input, self.tokens_output],
        ]  # fmt: skip

    @classmethod
    def restored(cls, run_id: str, data: list[Any], digest: bytes) -> RunState:
        state = cls(run_id)
        state.seq, state.step, state.status, state.attempt, state.max_steps, state.details, values, state.stored, scopes, told = data
        state.indices, state.tokens, state.tokens_input, state.tokens_output = told
        state.digest = digest
        state.scopes = {}
        for (
            path,
            parent,
            index,
            begun,
            node,
            phase,
            visits,
            hops,
            ops,
            error,
            failed,
            detail,
            decisions,
            sizes,
            due,
            own,
            gone,
            heard,
            number,
        ) in scopes:
            above = state.scopes[parent] if parent is not None else None
            scope = Scope(path, above, node, index, _lent(above, index) if above is not None else None)
            scope.begun, scope.heard = begun, heard
            scope.phase, scope.visits, scope.hops, scope.ops = phase, visits, hops, ops
            scope.error, scope.failed, scope.detail, scope.decisions, scope.sizes, scope.due = error, failed, detail, decisions, sizes, due
            scope.step_index = number
            scope.values = values if above is None else own
            scope.gone = dict.fromkeys(gone)
            if phase == OPEN:
                scope.left = detail[_OPENED]["count"] if len(detail) > _OPENED else 0
            if above is None:
                state.root = scope
            else:
                above.children.append(scope)
                above.left += _left_by(above, phase)
                above.lost += phase == FAILED
            state.scopes[path] = scope
        return state


def fold(state: RunState, row: Row, ops: list[Op]) -> None:
    """Apply one checkpoint.  ``ops`` is the decoded payload of ``row``; the state takes ownership of its values."""
    _run_id, seq, _epoch, step, kind, path, node, follows, payload, _started_at, digest, _committed_at = row
    scope = state.scopes.get(path) or begin_at(state, path)
    if not scope.begun:
        scope.begun = True
        state.stored += SCOPE_BYTES
    entered = step != state.step and node
    if entered:
        scope.visits[node] = scope.visits.get(node, 0) + 1
    if (entered or kind in BEGIN_EARLY) and scope.step_index is None:
        number = scope.step_index = ops[0][1] if ops and ops[0][0] == "index" else state.indices
        if number >= state.indices:
            state.indices = number + 1
    if follows and kind in MOVES:
        scope.node = follows
        scope.phase = AT
        scope.step_index = None
        scope.failed = 0
        scope.detail = scope.error = scope.heard = None
    held = len(payload)
    for op in ops:
        word = op[0]
        if word not in VALUE_OPS:
            _POSITION[word](state, scope, op)
        elif type(op[2]) not in _SCALARS:
            _write(state, scope, op[1], op, _weight(op[2], held, ops))
        elif word != "set" or scope.base is not None or scope.lent is not None:
            _write(state, scope, op[1], op, SCALAR_BYTES)
        else:  # what `_write` does with what most steps write
            key, sizes = op[1], scope.sizes
            state.stored += SCALAR_BYTES - sizes.get(key, 0)
            sizes[key] = SCALAR_BYTES
            scope.values[key] = op[2]
    state.seq = seq
    state.step = step
    state.digest = digest
    state.weight += held + ROW_OVERHEAD


def _weight(value: Any, held: int, ops: list[Op]) -> int:
    """About how many of a row's ``held`` bytes ``value`` takes; only decides when a snapshot pays, so near enough is enough."""
    kind = type(value)
    if kind is str:
        return len(value)
    if kind not in _CONTAINERS:
        return SCALAR_BYTES
    # The containers of a row share what it holds: in a small row it does not matter, in a large one there is mostly one.
    if ops[-1][0] == "said":
        held = max(held - _spoken_bytes(ops[-1]), SCALAR_BYTES)
    sharing = 0
    for op in ops:  # no generator: it would take half of what folding the row does
        if op[0] in VALUE_OPS and type(op[2]) in _CONTAINERS:
            sharing += 1
    return held // sharing


def _spoken_bytes(said: Op) -> int:
    """About how many bytes of a row are what its step said: they are no part of the values."""
    return sum(sum(len(part) if type(part) is str else SCALAR_BYTES for part in entry) for entry in said[2])


_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset, ModelData})

_SCALARS: Final = frozenset({int, float, bool, type(None)})

SCALAR_BYTES: Final = 16

SCOPE_BYTES: Final = 120
"""About what a scope takes in a snapshot beside its values."""

ROW_OVERHEAD: Final = 200
"""Bytes a row takes beside its payload, for deciding about snapshots."""


def folded(ops: list[Op], base: Any) -> Any:
    """The value that ``ops`` on one key make of ``base``; neither is changed."""
    value, own = base, _SHARED
    for op in ops:
        value, own = _stepped(op, value, own)
    return value


_SHARED: Final = 0
"""The value belongs to an op or to the parent, and is copied before it is changed."""
_OWN: Final = 1
"""The outermost list or mapping may be changed, what it holds may not."""
_ALL_OWN: Final = 2


def _stepped(op: Op, value: Any, own: int) -> tuple[Any, int]:
    """One op on a value of which ``own`` may be changed, and how much of the new value may be.  The op keeps what it holds."""
    kind = op[0]
    if kind in ("set", "delete"):
        return apply((kind, op[2]), value), _SHARED
    if kind == "same":
        return value, own
    if kind == "patch":
        # It writes into the mappings within, and the next patch into those that it brought.
        return apply((kind, _detached(op[2], deep=True)), value if own == _ALL_OWN else _detached(value, deep=True)), _ALL_OWN
    return apply((kind, op[2]), value if own else _detached(value, deep=False)), _OWN


def _detached(value: Any, *, deep: bool) -> Any:
    if isinstance(value, list):
        return [_detached(item, deep=True) for item in value] if deep else list(value)
    if isinstance(value, dict):
        return {key: _detached(item, deep=True) for key, item in value.items()} if deep else dict(value)
    return value


def _write(state: RunState, scope: Scope, key: str, op: Op, size: int) -> None:
    kind = op[0]
    sizes = scope.sizes
    before = sizes.get(key, 0)
    sizes[key] = after = size if kind in ("set", "delete") else before + size
    state.stored += after - before
    if scope.base is not None:
        _overlay(scope, key, op)
        return
    values = scope.values
    if scope.lent and key in scope.lent:
        _own(scope, key, kind)
    if kind == "set":
        values[key] = op[2]
        return
    value = apply((kind, op[2]), values.get(key, ABSENT))
    if value is ABSENT:
        values.pop(key, None)
    else:
        values[key] = value


def _own(scope: Scope, key: str, kind: str) -> None:
    """Before a lent key is written: what was lent belongs to the scope above, and is never changed in place."""
    lent = scope.lent or {}
    if kind == "delete":
        scope.gone[key] = None
    elif key in scope.gone:
        del scope.gone[key]
    elif kind != "set" and key not in scope.values:
        scope.values[key] = _detached(lent[key], deep=True)


def _overlay(scope: Scope, key: str, op: Op) -> None:
    """Add an op to those of a branch; a value that somebody has read is carried on, so that a loop does not fold it anew each time."""
    ops = scope.ops.get(key)
    if ops is None or (len(op) == VALUE_ALONE and op[0] in ("set", "delete")):
        scope.ops[key] = [op]  # what was written before it is of no use to anybody: a loop in a branch must not pile it up
        scope.cache.pop(key, None)
        return
    held = scope.cache.pop(key, None)
    if held is not None and held[0] is ops[-1]:
        scope.cache[key] = (op, *_stepped(op, held[1], held[2]))
    ops.append(op)


BEGIN_EARLY: Final = frozenset({"retry", "wait"})
"""Kinds of rows that tell of a step before the row that enters its node: an attempt failed, or the body waits."""

VALUE_ALONE: Final = 3
"""The length of a value op that carries no updates for the join."""


def _take(state: RunState, scope: Scope, op: Op) -> None:
    _word, path, key = op
    branch = state.scopes[path]
    taken = branch.ops[key]
    share = branch.sizes.get(key, 0) // len(taken)
    for each in taken:
        _write(state, scope, key, each, share)


def _hop(_state: RunState, scope: Scope, op: Op) -> None:
    scope.hops[op[1]] = scope.hops.get(op[1], 0) + 1


def _done(_state: RunState, scope: Scope, _op: Op) -> None:
    scope.phase = DONE
    scope.detail = scope.step_index = None
    if scope.parent is not None:
        scope.parent.left -= 1


def _cut(state: RunState, scope: Scope, _op: Op) -> None:
    above = scope.parent
    assert above is not None  # noqa: S101 - only an item's flow says so
    over = [child for child in above.children if child.phase in (DONE, FAILED)]
    for child in above.children:
        if child.phase not in (DONE, FAILED):
            _drop(state, child)
    above.children = over
    above.detail[_OPENED] |= {"count": len(over), "cut": scope.index}
    above.left = 0


def _drop(state: RunState, scope: Scope) -> None:
    """Forget a scope and everything below it."""
    for below in _walked(scope):
        _forget(state, below)


def _forget(state: RunState, scope: Scope) -> None:
    del state.scopes[scope.path]
    state.stored -= sum(scope.sizes.values()) + SCOPE_BYTES * scope.begun


def _fail(_state: RunState, scope: Scope, op: Op) -> None:
    scope.phase = FAILED
    scope.detail = op[1]
    scope.step_index = None
    if scope.parent is not None:
        scope.parent.left -= 1
        scope.parent.lost += 1


def _open(state: RunState, scope: Scope, op: Op) -> None:
    _word, node, visit, entries, due = op
    scope.phase = OPEN
    scope.detail = [node, visit]
    scope.left = len(entries)
    scope.lost = 0
    for index, entry in enumerate(entries):
        child = Scope(scope.child_path(node, visit, index), scope, entry, index)
        child.due = due[index] if due else None
        scope.children.append(child)
        state.scopes[child.path] = child


def _each(_state: RunState, scope: Scope, op: Op) -> None:
    _word, node, visit, each = op
    scope.phase = OPEN
    scope.detail = [node, visit, each]
    scope.left = each["count"]
    scope.lost = 0


def begin_child(state: RunState, scope: Scope, index: int) -> Scope:
    """The child scope for item ``index`` of the open map (or subflow) node of ``scope``.

    No part of the fold by itself: a child that no checkpoint was made in is not stored, and comes to be again when it is needed.
    """
    node, visit, each = scope.detail
    child = Scope(scope.child_path(node, visit, index), scope, each["entry"], index, _lent(scope, index))
    child.due = each["due"]
    insort(scope.children, child, key=_INDEX)
    state.scopes[child.path] = child
    return child


def begin_at(state: RunState, path: str) -> Scope:
    """The child scope whose first checkpoint is being folded.  Raises KeyError where no open node has such a child."""
    above, _dot, last = path.rpartition(".")
    parent = state.scopes[above]
    node, _bracket, index = last.rstrip("]").partition("[")
    if parent.phase != OPEN or len(parent.detail) <= _OPENED or node.partition("#")[0] != parent.detail[0]:
        raise KeyError(path)
    return begin_child(state, parent, int(index))


def _lent(scope: Scope, index: int) -> dict[str, Any] | None:
    """What the open node of ``scope`` gives its child ``index``; None where the child lies over the scope's own values."""
    if len(scope.detail) <= _OPENED or scope.detail[_OPENED]["lent"] is None:
        return None
    each = scope.detail[_OPENED]
    given = {key: value for key, source in each["lent"].items() if (value := scope.read(source)) is not ABSENT}
    if each["item"] is not None:
        given[each["item"]] = scope.read(each["over"])[index]
    return given


def _left_by(scope: Scope, phase: str) -> int:
    """What a child in ``phase`` adds to the children of ``scope`` that are not over (a map counts its items from the start)."""
    over = phase in (DONE, FAILED)
    return -over if len(scope.detail) > _OPENED else not over


_OPENED: Final = 2
"""Where the detail of a scope with an open map or subflow node says what it opened (see the op ``each``)."""

_INDEX: Final = attrgetter("index")


def _close(state: RunState, scope: Scope, _op: Op) -> None:
    for below in _walked(scope)[1:]:
        if below.decisions:
            # What was decided in a branch stays known after the join; of two branches the later declared one.
            scope.decisions.update(below.decisions)
        _forget(state, below)
    scope.children = []
    scope.left = scope.lost = 0


def _park(_state: RunState, scope: Scope, op: Op) -> None:
    scope.phase = PARKED
    scope.detail = [op[1], op[2]]


def _nudge(_state: RunState, scope: Scope, op: Op) -> None:
    _word, nudged, approvers = op
    details = scope.detail[1]
    details["nudged"] = nudged
    if approvers:
        details["approvers"] = [*details["approvers"], *approvers]


def _retry(_state: RunState, scope: Scope, op: Op) -> None:
    scope.phase = RETRY
    scope.failed = op[1]
    scope.detail = [op[1], op[2], op[3]]


def _wait(_state: RunState, scope: Scope, op: Op) -> None:
    scope.phase = WAIT
    scope.detail = [op[1], op[2], op[3]]


def _heard(state: RunState, scope: Scope, op: Op) -> None:
    scope.phase = AT
    scope.detail = None
    scope.heard = [*(scope.heard or ()), op[1:]]


def _error(_state: RunState, scope: Scope, op: Op) -> None:
    scope.error = op[1]


def _decision(_state: RunState, scope: Scope, op: Op) -> None:
    scope.decisions[op[1]] = op[2]


def _said(state: RunState, _scope: Scope, op: Op) -> None:
    _word, first, entries, tokens_input, tokens_output = op
    for entry in entries:
        if type(entry[0]) is int:
            if len(entry) > TOKEN_IN_TURN:
                first = entry[2]
            state.tokens = max(state.tokens, first)
            first += 1
    state.tokens_input += tokens_input
    state.tokens_output += tokens_output


TOKEN_IN_TURN: Final = 2
"""The length of a token's entry whose index follows from the one before it."""


def _index(_state: RunState, _scope: Scope, _op: Op) -> None:
    """Read where the row enters its node (see `fold`)."""


def _status(state: RunState, _scope: Scope, op: Op) -> None:
    state.status = op[1]


def _attempt(state: RunState, _scope: Scope, op: Op) -> None:
    state.attempt = op[1]
    state.details = {**state.details, **op[2]}
    state.max_steps = state.details.get("max_steps", state.max_steps)


def _restore(state: RunState, _scope: Scope, op: Op) -> None:
    # A fork begins with its parent's materialised state; it keeps its own name and chain.
    parent = RunState.restored(state.run_id, op[1], state.digest)
    for name in ("step", "status", "attempt", "max_steps", "details", "root", "scopes", "stored", "indices"):
        setattr(state, name, getattr(parent, name))


def _migrate(state: RunState, scope: Scope, op: Op) -> None:
    _restore(state, scope, op)
    state.details = {**state.details, **op[2]}


def _edited(state: RunState, _scope: Scope, _op: Op) -> None:
    read_anew(state)


def _shows(state: RunState, _scope: Scope, op: Op) -> None:
    parked = state.scopes[op[1]]
    parked.detail = [parked.detail[0], op[2]]


def read_anew(state: RunState) -> None:
    """Let every scope forget what it has read of the values above it: somebody wrote there while it was open."""
    for scope in _walked(state.root)[1:]:
        scope.cache.clear()
        if scope.lent is not None and scope.parent is not None:
            scope.lent = _lent(scope.parent, scope.index)


_POSITION: Final = {
    "take": _take, "hop": _hop, "done": _done, "cut": _cut, "fail": _fail, "open": _open, "each": _each, "close": _close,
    "park": _park, "nudge": _nudge, "retry": _retry, "wait": _wait, "heard": _heard, "error": _error, "decision": _decision, "status": _status, "attempt": _attempt, "restore": _restore,
    "index": _index, "said": _said, "migrate": _migrate,
    "edited": _edited, "shows": _shows,
}  # fmt: skip


def _walked(scope: Scope) -> list[Scope]:
    """The scope and everything below it, parents first, in declared order."""
    found: list[Scope] = []
    todo = [scope]
    while todo:
        next_one = todo.pop()
        found.append(next_one)
        if next_one.children:
            todo += reversed(next_one.children)
    return found


def _leaves(scope: Scope) -> Iterator[Scope]:
    if scope.phase == OPEN:
        for child in scope.children:
            yield from _leaves(child)
    elif scope.phase not in (DONE, FAILED):
        yield scope


def _untouched(scope: Scope) -> bool:
    """Whether the scope is an item's that nothing has happened to."""
    return not scope.begun and scope.parent is not None and len(scope.parent.detail) > _OPENED


def _dumped(scope: Scope) -> list[Any]:
    own = {} if scope.lent is None else scope.values
    return [
        scope.path, scope.parent.path if scope.parent else None, scope.index, scope.begun, scope.node, scope.phase, scope.visits, scope.hops, scope.ops,
        scope.error, scope.failed, scope.detail, scope.decisions, scope.sizes, scope.due, own, list(scope.gone), scope.heard, scope.step_index,
    ]  # fmt: skip
