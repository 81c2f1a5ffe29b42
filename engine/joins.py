"""What becomes of a parallel node when its branches are over.

Branches merge in declared order, never in order of completion.  The merge is
decided as a whole before anything is written: on a conflict nothing is merged.
"""

from __future__ import annotations

from typing import Any

from checkpoint_stores.codec import materialise
from checkpoint_stores.fold import DONE, FAILED, VALUE_ALONE, Scope
from checkpoint_stores.ops import Op
from engine.errors import BranchError, MergeConflictError, MergeError
from engine.failures import BranchesFailedError
from engine.outcomes import DELETE
from engine.plan import NodePlan, ParallelPlan
from engine.schema import StateSchema
from engine.updates import After, ops_of_update, reduced, updates_in


def failure_of(node: NodePlan, scope: Scope) -> Exception | None:
    """Why the parallel node fails now, or None while it does not (it may also still be running)."""
    parallel = node.parallel
    assert parallel is not None  # noqa: S101 - only parallel nodes open scopes
    if not scope.lost:
        return None
    failed = [child for child in scope.children if child.phase == FAILED]
    policy = parallel.on_error.policy
    if policy == "fail_fast":
        return _branch_error(node, parallel, scope, failed[0])
    if not is_over(scope):
        return None
    if policy == "best_effort" and len(scope.children) - len(failed) >= parallel.on_error.min_success:
        return None
    group = BranchesFailedError(
        f"{len(failed)} of {len(scope.children)} branches of node {node.name!r} failed",
        [_branch_error(node, parallel, scope, child) for child in failed],
    )
    group.node, group.path = node.name, scope.path
    return group


def is_over(scope: Scope) -> bool:
    """Whether every branch is done or failed."""
    return scope.left == 0


def _branch_error(node: NodePlan, parallel: ParallelPlan, scope: Scope, child: Scope) -> BranchError:
    return BranchError(node.name, scope.path, parallel.branches[scope.children.index(child)].name, child.detail)


def merged(schema: StateSchema, node: NodePlan, scope: Scope) -> list[Op]:
    """The value ops that merge the branches that succeeded.  Raises MergeConflictError, MergeError."""
    assert node.parallel is not None  # noqa: S101
    names = [branch.name for branch in node.parallel.branches]
    writers: dict[str, list[tuple[str, Scope]]] = {}
    for name, child in zip(names, scope.children, strict=True):
        if child.phase == DONE:
            for key in child.ops:
                writers.setdefault(key, []).append((name, child))
    ops: list[Op] = []
    # Keys in declared order of the state, so that nothing depends on who wrote first.
    for key in schema.keys:
        if key in writers:
            ops += _merged_key(schema, node, scope, key, writers[key])
    failures = _failures(node, scope, names)
    target = node.parallel.on_error.failures_to
    if failures and target is not None:
        ops += ops_of_update(schema, scope, node.name, {target: failures}, read=After(scope, ops).read)
    return ops


def _merged_key(schema: StateSchema, node: NodePlan, scope: Scope, key: str, writers: list[tuple[str, Scope]]) -> list[Op]:
    reducer = schema.keys[key].reducer
    if len(writers) > 1 and not reducer.many:
        raise MergeConflictError(node.name, scope.path, key, [name for name, _child in writers])
    if reducer.independent:
        # The ops say the same over any base: refer to them, store nothing twice.
        takes: list[Op] = [["take", child.path, key] for _name, child in writers]
        if any(op[0] == "increment" for _name, child in writers for op in child.ops[key]):
            _check_sum(node, scope, key, takes, writers)
        return takes
    current = scope.read(key)
    made: list[Op] = []
    in_branch = scope.parent is not None
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


def _check_sum(node: NodePlan, scope: Scope, key: str, takes: list[Op], writers: list[tuple[str, Scope]]) -> None:
    """Each branch's numbers went together; all of them need not (Decimal and float).  Raises MergeError."""
    try:
        After(scope, takes).read(key)
    except TypeError as error:
        raise MergeError(node.name, scope.path, key, ", ".join(name for name, _child in writers), error) from error


def _newest(made: list[Op]) -> list[Op]:
    """Without the ops that a later ``set`` of the same key makes pointless (the root needs no updates for a later join)."""
    for index in range(len(made) - 1, -1, -1):
        if made[index][0] in ("set", "delete"):
            return made[index:]
    return made


def _failures(node: NodePlan, scope: Scope, names: list[str]) -> list[dict[str, Any]]:
    return [
        {"branch": name, "node": child.detail.get("node"), "type": child.detail.get("type"), "message": child.detail.get("message")}
        for name, child in zip(names, scope.children, strict=True)
        if child.phase == FAILED
    ]
