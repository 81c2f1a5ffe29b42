"""What becomes of a parallel, map or subflow node when its child scopes are over.

Branches merge in declared order and items in the order of their list, never in
order of completion.  The merge is decided as a whole before anything is written:
on a conflict nothing is merged.
"""

from __future__ import annotations

from typing import Any, Final

from checkpoint_stores.codec import materialise
from checkpoint_stores.fold import DONE, FAILED, VALUE_ALONE, Scope
from checkpoint_stores.ops import Op
from engine.errors import BranchError, MergeConflictError, MergeError, NodeError, place
from engine.failures import BranchesFailedError
from engine.outcomes import DELETE
from engine.plan import EachPlan, Mapped, NodePlan, ParallelPlan
from engine.schema import StateSchema
from engine.updates import After, ops_of_update, reduced, updates_in
from reducers.changes import ABSENT


def failure_of(node: NodePlan, scope: Scope) -> Exception | None:
    """Why the node fails now, or None while it does not (it may also still be running)."""
    opens = node.opens
    assert opens is not None  # noqa: S101 - only such nodes open scopes
    if not scope.lost:
        return None
    policy = opens.on_error.policy
    if policy == "fail_fast":
        return _branch_error(node, opens, scope, next(child for child in scope.children if child.phase == FAILED))
    if not is_over(scope):
        return None
    count = len(scope.children)
    if policy == "best_effort" and count - scope.lost >= opens.on_error.min_success:
        return None
    what = "branches" if isinstance(opens, ParallelPlan) else "items"
    failed = [child for child in scope.children if child.phase == FAILED]
    group = BranchesFailedError(
        f"{len(failed)} of {count} {what} of node {node.name!r} failed",
        [_branch_error(node, opens, scope, child) for child in failed],
    )
    group.node, group.path = node.name, scope.path
    return group


def is_over(scope: Scope) -> bool:
    """Whether every child scope is done or failed."""
    return scope.left == 0


def _branch_error(node: NodePlan, opens: ParallelPlan | EachPlan, scope: Scope, child: Scope) -> BranchError:
    if isinstance(opens, EachPlan):
        what = f"item {child.index}" if opens.over is not None else "the flow"
        return BranchError(node.name, scope.path, opens.called(child.index), child.detail, what=what)
    return BranchError(node.name, scope.path, opens.called(child.index), child.detail)


def merged(schema: StateSchema, node: NodePlan, scope: Scope) -> list[Op]:
    """The value ops that merge the child scopes that succeeded.  Raises MergeConflictError, MergeError, NodeError, UpdateTypeError."""
    opens = node.opens
    assert opens is not None  # noqa: S101
    done = [child for child in scope.children if child.phase == DONE]
    if isinstance(opens, EachPlan) and opens.mapped is not None:
        ops = ops_of_update(schema, scope, node.name, _given_back(node, opens, opens.mapped, scope, done))
    else:
        ops = _merged_overlays(schema, node, opens, scope, done)
    failures = _failures(opens, scope)
    target = opens.on_error.failures_to
    if failures and target is not None:
        ops += ops_of_update(schema, scope, node.name, {target: failures}, read=After(scope, ops).read)
    return ops


def _given_back(node: NodePlan, opens: EachPlan, mapped: Mapped, scope: Scope, done: list[Scope]) -> dict[str, Any]:
    """What flows with a state of their own give to the flow around them.  Raises NodeError where an item has no result."""
    if opens.over is None:
        return {key: materialise(value) for key, inner in mapped.outputs for child in done if (value := child.read(inner)) is not ABSENT}
    update: dict[str, Any] = {}
    for key, inner in mapped.outputs:
        results = update[key] = []
        for child in done:
            value = child.read(inner)
            if value is ABSENT and scope.detail[2].get("cut") == child.index:
                continue  # it returned Break, and no result with it
            if value is ABSENT:
                raise NodeError(
                    f"item {child.index} of {place(node.name, scope.path)} ended without a value under {inner!r}, which {key!r} collects; "
                    "let every way through its flow write that key",
                    node=node.name, path=scope.path,
                )  # fmt: skip
            results.append(materialise(value))
    return update


def _merged_overlays(schema: StateSchema, node: NodePlan, opens: ParallelPlan | EachPlan, scope: Scope, done: list[Scope]) -> list[Op]:
    writers: dict[str, list[tuple[str, Scope]]] = {}
    for child in done:
        for key in child.ops:
            writers.setdefault(key, []).append((opens.called(child.index), child))
    ops: list[Op] = []
    # Keys in declared order of the state, so that nothing depends on who wrote first.
    for key in schema.keys:
        if key in writers:
            ops += _merged_key(schema, node, scope, key, writers[key])
    return ops


def _merged_key(schema: StateSchema, node: NodePlan, scope: Scope, key: str, writers: list[tuple[str, Scope]]) -> list[Op]:
    reducer = schema.keys[key].reducer
    if len(writers) > 1 and not reducer.many:
        raise MergeConflictError(node.name, scope.path, key, [name for name, _child in writers])
    if reducer.independent:
        # The ops say the same over any base: refer to them, store nothing twice.
        takes: list[Op] = [["take", child.path, key] for _name, child in writers]
        if not reducer.builtin or _may_clash(scope.read(key), [op for _name, child in writers for op in child.ops[key]]):
            _check_taken(node, scope, key, takes, writers)
        return takes
    current = scope.read(key)
    made: list[Op] = []
    in_branch = scope.base is not None
    for name, child in writers:
        for op in child.ops[key]:
            if _is_edit(op):
                made.append(["set", key, op[2]])
                continue
            for update in updates_in(op):
                after = After(scope, made).read(key) if made else current
                new: Op | None
                if update is DELETE:
                    new = ["delete", key, None]
                else:
                    given = update if reducer.builtin else materialise(update)
                    new = reduced(reducer, key, after, given, keep_update=in_branch, node=node.name, path=scope.path, writer=name)
                if new is not None:
                    made.append(new)
    return made if in_branch else _newest(made)


def _is_edit(op: Op) -> bool:
    """Whether a person set the value: only what a reducer made in a branch carries its updates.  No reducer merges it here either."""
    return op[0] == "set" and len(op) == VALUE_ALONE


def _may_clash(current: Any, ops: list[Op]) -> bool:
    """Whether ops of several branches need not go together: a person may have set what another branch appends to, and numbers are of kinds."""
    kinds = {type(op[2]) if op[0] == "increment" else None for op in ops if op[0] in _MAY_CLASH}
    if kinds and current is not ABSENT and current is not None:
        kinds.add(type(current))
    return bool(kinds) and kinds not in _SURE_TO_ADD


_MAY_CLASH: Final = frozenset({"increment", "set"})
_SURE_TO_ADD: Final = ({int}, {float})


def _check_taken(node: NodePlan, scope: Scope, key: str, takes: list[Op], writers: list[tuple[str, Scope]]) -> None:
    """Each branch's changes went together; all of them need not (Decimal and float).  Raises MergeError."""
    try:
        After(scope, takes).read(key)
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise MergeError(node.name, scope.path, key, ", ".join(name for name, _child in writers), error) from error


def _newest(made: list[Op]) -> list[Op]:
    """Without the ops that a later ``set`` of the same key makes pointless (the root needs no updates for a later join)."""
    for index in range(len(made) - 1, -1, -1):
        if made[index][0] in ("set", "delete"):
            return made[index:]
    return made


def _failures(opens: ParallelPlan | EachPlan, scope: Scope) -> list[dict[str, Any]]:
    if not scope.lost:
        return []
    failed = [child for child in scope.children if child.phase == FAILED]
    said = [
        {"node": child.detail.get("node"), "type": child.detail.get("type"), "message": child.detail.get("message")} for child in failed
    ]
    if isinstance(opens, EachPlan):
        return [{"index": child.index, **each} for child, each in zip(failed, said, strict=True)]
    return [{"branch": opens.called(child.index), **each} for child, each in zip(failed, said, strict=True)]
