"""From what a node returned to the ops of its checkpoint.

Reducers and validators run here and nowhere else: never on load, never in a
resume.  Nothing is changed in place; the scope's state is only read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from checkpoint_stores.codec import decode, encode, materialise, pack
from checkpoint_stores.fold import Scope, folded
from checkpoint_stores.ops import Op
from engine.errors import MergeError, ReturnTypeError, UndeclaredKeyError, UndeclaredWriteError, UpdateTypeError
from engine.outcomes import DELETE, End, Fallback, Goto, Update
from engine.plan import RESULT, NodePlan
from engine.schema import StateSchema
from engine.views import is_state_view
from reducers.changes import ABSENT
from reducers.registry import Reducer

Outcome = Goto | Fallback | End


def after(scope: Scope, ops: Sequence[Op]) -> Callable[[str], Any]:
    """Reads a scope's values as they will be once ``ops`` are committed; changes nothing."""
    written: dict[str, Any] = {}
    for op in ops:
        if op[0] != "set" or type(op[2]) not in _ATOMS:
            return After(scope, ops).read
        written[op[1]] = op[2]  # it is stored as it is
    before = scope.read
    return lambda key: written[key] if key in written else before(key)


class After:
    """What `after` reads with, where ops do more than set a scalar."""

    __slots__ = ("_branches", "_ops", "_scope")

    def __init__(self, scope: Scope, ops: Iterable[Op]) -> None:
        self._scope = scope
        self._branches: dict[str, Scope] = {}
        by_key: dict[str, list[Op]] = {}
        for op in ops:
            key = op[2] if op[0] == "take" else op[1]
            if key in by_key:
                by_key[key].append(op)
            else:
                by_key[key] = [op]
        self._ops = by_key

    def read(self, key: str) -> Any:
        """The value as it will be stored: not the very object the node returned.  Raises UnserialisableError."""
        ops = self._ops.get(key)
        if ops is None:
            return self._scope.read(key)
        if len(ops) == 1 and ops[0][0] == "set" and type(ops[0][2]) in _ATOMS:
            return ops[0][2]  # it is stored as it is
        return folded([each for op in ops for each in self._stored(op)], self._scope.read(key))

    def _stored(self, op: Op) -> list[Op]:
        if op[0] != "take":
            return pack([op])[1]
        if not self._branches:
            self._branches = {child.path: child for child in self._scope.children}
        return self._branches[op[1]].ops[op[2]]


_ATOMS = frozenset({int, float, str, bool, type(None)})


def outcome_of(value: Any, node: str, path: str) -> tuple[Outcome | None, Mapping[str, Any]]:
    """Read what a node returned: a word about where to go (None: none), and the update.  Raises ReturnTypeError."""
    if type(value) is dict:
        return None, value
    if value is None:
        return None, _NO_UPDATE
    if isinstance(value, Update):
        return None, value.values
    if isinstance(value, (Goto, Fallback, End)):
        return value, value.update
    if isinstance(value, Mapping):
        return None, value
    if inspect.iscoroutine(value):
        value.close()
    raise ReturnTypeError(node, path, value, is_state=is_state_view(value))


def result_of(value: Any, gives: str) -> tuple[Outcome | None, Mapping[str, Any]]:
    """Read what a map's function returned for an item: whatever it is, it is the item's result."""
    if isinstance(value, (Goto, Fallback, End)):
        return value, value.update
    return None, {RESULT: value} if gives == "result" else _NO_UPDATE


def only_declared(node: NodePlan, path: str, update: Mapping[str, Any]) -> None:
    """Refuse keys that the node does not declare in its ``writes``.  Raises UndeclaredWriteError."""
    writes = node.writes
    if writes is not None and isinstance(update, Mapping) and not writes.issuperset(update):
        raise UndeclaredWriteError(node.name, path, [str(key) for key in update if key not in writes], sorted(writes))


_NO_UPDATE: Mapping[str, Any] = {}


def ops_of_update(
    schema: StateSchema, scope: Scope, node: str, update: Mapping[str, Any], read: Callable[[str], Any] | None = None
) -> list[Op]:
    """The value ops of one update, in the order of its keys; ``read`` gives the values it is merged into (default: the scope's).

    Raises ReturnTypeError, UndeclaredKeyError, UpdateTypeError, MergeError.
    """
    if type(update) is not dict and (not isinstance(update, Mapping) or is_state_view(update)):
        # Of a whole state every key would count as written: appended lists would double, every branch would write everything.
        raise ReturnTypeError(node, scope.path, update, is_state=is_state_view(update))
    ops: list[Op] = []
    read = read or scope.read
    in_branch = scope.base is not None
    plain = schema.plain
    for key, raw in update.items():
        if plain.get(key) is type(raw):
            ops.append(["set", key, raw])
            continue
        spec = schema.keys.get(key)
        if spec is None:
            raise UndeclaredKeyError(node, scope.path, str(key), tuple(schema.keys))
        if raw is DELETE:
            ops.append(["delete", key, None])
            continue
        try:
            value = schema.validate_update(key, raw, read)
        except Exception as error:
            raise UpdateTypeError(node, scope.path, key, first_line(error)) from error
        if spec.reducer.replaces:
            ops.append(["set", key, value])
            continue
        op = reduced(spec.reducer, key, read(key), value, keep_update=in_branch, node=node, path=scope.path)
        if op is not None:
            ops.append(op)
    return ops


def reduced(
    reducer: Reducer, key: str, current: Any, update: Any, *, keep_update: bool, node: str, path: str, writer: str = ""
) -> Op | None:
    """The op that merges ``update`` into ``current``; None where nothing changes and nobody must know.  Raises MergeError."""
    kept = update
    if not reducer.independent:
        # What a reducer compares must be of one kind: committed data, or (for the user's own reducer) the user's objects.
        if reducer.builtin or keep_update:
            kept = _as_data(update, key)
        update = kept if reducer.builtin else update
    if not reducer.builtin and current is not ABSENT:
        current = materialise(current)  # what the user's own function does to it, it does not do to the state
    try:
        change = reducer(current, update)
    except Exception as error:
        raise MergeError(node, path, key, writer, error) from error
    if reducer.independent:
        return None if change is None else [change.kind, key, change.value]
    if change is None:
        return ["same", key, None, [kept]] if keep_update else None
    return [change.kind, key, change.value, [kept]] if keep_update else [change.kind, key, change.value]


def _as_data(value: Any, key: str) -> Any:
    return value if type(value) in _ATOMS else decode(encode(value, key))


def updates_in(op: Op) -> list[Any]:
    """The raw updates an op of a branch stands for."""
    if len(op) > 3:
        return list(op[3])
    return [DELETE] if op[0] == "delete" else [op[2]]


def first_line(error: Exception) -> str:
    """What an error says, on one line; of pydantic's only where and what, not the page of help."""
    details = getattr(error, "errors", None)
    if callable(details):
        return "; ".join(": ".join((*filter(None, [".".join(map(str, each["loc"]))]), each["msg"])) for each in details())
    return str(error)
