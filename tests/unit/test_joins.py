"""What becomes of a parallel node: who failed it when, and what its branches' writes make of each key."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from checkpoint_stores.codec import pack
from checkpoint_stores.fold import AT, DONE, FAILED, Scope
from checkpoint_stores.ops import Op
from engine.errors import BranchError, MergeConflictError, MergeError
from engine.failures import BranchesFailedError
from engine.joins import failure_of, is_over, merged
from engine.outcomes import DELETE
from engine.plan import BranchPlan, NodePlan, OnError, ParallelPlan
from engine.schema import StateSchema
from engine.updates import After, ops_of_update
from reducers import ABSENT, reducer
from reducers.builtin import any_, append, counter, deep_merge, first, max_, merge, replace, sum_, unique


@reducer("joins_longest")
def longest(current: Any, update: Any) -> Any:
    return update if current is ABSENT or len(update) > len(current) else current


SCHEMA = StateSchema(
    {
        "plain": int, "last": Annotated[int, replace], "first": Annotated[int, first], "log": Annotated[list[str], append],
        "kinds": Annotated[list[int], unique], "facts": Annotated[dict[str, int], merge], "deep": Annotated[dict[str, Any], deep_merge],
        "total": Annotated[int, sum_], "most": Annotated[int, max_], "some": Annotated[bool, any_], "counts": Annotated[dict[str, int], counter],
        "word": Annotated[str, longest], "failures": list[dict[str, Any]],
    }
)  # fmt: skip


def node(names: str = "abc", policy: OnError | None = None) -> NodePlan:
    branches = tuple(BranchPlan(name, index, None) for index, name in enumerate(names))  # type: ignore[arg-type]
    return NodePlan("fan", "parallel", opens=ParallelPlan(branches, policy or OnError()))


def opened(phases: list[str], values: dict[str, Any] | None = None, *, parent: Scope | None = None) -> Scope:
    scope = Scope("" if parent is None else f"{parent.path}fan[0]", parent, "fan")
    scope.values = values or {}
    for index, phase in enumerate(phases):
        child = Scope(scope.child_path("fan", 1, index), scope, "n", index)
        child.phase = phase
        child.detail = {"type": "E", "message": f"m{index}", "node": "n", "kinds": ["E"]} if phase == FAILED else None
        scope.children.append(child)
        scope.left += phase not in (DONE, FAILED)
        scope.lost += phase == FAILED
    return scope


def write(child: Scope, *updates: dict[str, Any]) -> None:
    """What the branch's nodes returned, one after the other."""
    for update in updates:
        for op in pack(ops_of_update(SCHEMA, child, "n", update))[1]:
            child.ops.setdefault(op[1], []).append(op)
            child.cache.pop(op[1], None)


@pytest.mark.parametrize(
    ("policy", "phases", "failure"),
    [
        (OnError("fail_fast"), [AT, AT], None),
        (OnError("fail_fast"), [AT, FAILED], BranchError),
        (OnError("fail_fast"), [DONE, DONE], None),
        (OnError("collect"), [AT, FAILED], None),
        (OnError("collect"), [DONE, FAILED], BranchesFailedError),
        (OnError("collect"), [DONE, DONE], None),
        (OnError("best_effort", 1), [DONE, FAILED], None),
        (OnError("best_effort", 1), [FAILED, FAILED], BranchesFailedError),
        (OnError("best_effort", 2), [DONE, FAILED], BranchesFailedError),
        (OnError("best_effort", 2), [AT, FAILED], None),
        (OnError("best_effort", 0), [FAILED, FAILED], None),
    ],
)
def test_when_a_parallel_node_has_failed(policy: OnError, phases: list[str], failure: type[Exception] | None) -> None:
    scope = opened(phases)
    found = failure_of(node("ab", policy), scope)
    assert type(found) is (failure or type(None))
    assert is_over(scope) == (AT not in phases)
    if isinstance(found, BranchesFailedError):
        assert [error.branch for error in found.exceptions if isinstance(error, BranchError)] == [
            name for name, phase in zip("ab", phases, strict=True) if phase == FAILED
        ]


@pytest.mark.parametrize(
    ("key", "before", "writes", "after"),
    [
        ("last", 0, [1, 2, 3], 3),
        ("first", ABSENT, [1, 2, 3], 1),
        ("first", 9, [1, 2, 3], 9),
        ("log", ["x"], [["a"], ["b"], ["c"]], ["x", "a", "b", "c"]),
        ("kinds", [1], [[1, 2], [2, 3], [3]], [1, 2, 3]),
        ("facts", {"x": 0}, [{"a": 1}, {"a": 2, "b": 1}, {}], {"x": 0, "a": 2, "b": 1}),
        ("deep", {}, [{"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 3}}], {"a": {"b": 3, "c": 2}}),
        ("total", 10, [1, 2, 0], 13),
        ("total", ABSENT, [1, 2, 3], 6),
        ("most", 5, [3, 9, 7], 9),
        ("most", 5, [3, 4, 1], 5),
        ("some", ABSENT, [False, True, False], True),
        ("counts", {"a": 1}, [{"a": 1}, {"a": 2, "b": 1}, {"b": 1}], {"a": 4, "b": 2}),
        ("word", "aa", ["b", "cccc", "ddd"], "cccc"),
        ("word", ABSENT, ["b", "cccc", "ddd"], "cccc"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_branches_of_a_node_merge_like_one_writer_after_the_other_in_declared_order(
    key: str, before: Any, writes: list[Any], after: Any, nested: bool
) -> None:
    values = {} if before is ABSENT else {key: before}
    scope = opened([DONE] * 3, values) if not nested else opened([DONE] * 3, parent=opened([AT], values))
    for child, written in zip(scope.children, writes, strict=True):
        write(child, {key: written})
    ops = merged(SCHEMA, node(), scope)
    assert After(scope, ops).read(key) == after


def test_a_branchs_writes_count_one_by_one() -> None:
    scope = opened([DONE] * 2, {"kinds": [0], "most": 1, "total": 0})
    write(scope.children[0], {"kinds": [1], "most": 7, "total": 1}, {"kinds": [1, 2], "most": 3, "total": 1})
    write(scope.children[1], {"kinds": [2, 3], "total": 1})
    after = After(scope, merged(SCHEMA, node("ab"), scope))
    assert [after.read(key) for key in ("kinds", "most", "total")] == [[0, 1, 2, 3], 7, 3]


def test_a_nested_join_still_tells_the_outer_join_what_was_written() -> None:
    outer = opened([DONE, DONE], {"most": 1})
    inner = outer.children[0]
    for index in range(2):
        child = Scope(f"{inner.path}.fan[{index}]", inner, "n")
        child.phase = DONE
        inner.children.append(child)
        write(child, {"most": index, "log": [str(index)]})
    for op in pack(merged(SCHEMA, node("ab"), inner))[1]:
        if op[0] == "take":
            inner.ops.setdefault(op[2], []).extend(next(child for child in inner.children if child.path == op[1]).ops[op[2]])
        else:
            inner.ops.setdefault(op[1], []).append(op)
    write(outer.children[1], {"most": 5, "log": ["z"]})
    after = After(outer, merged(SCHEMA, node("ab"), outer))
    assert (after.read("most"), after.read("log")) == (5, ["0", "1", "z"])


def test_keys_come_in_the_order_of_the_state_whoever_wrote_first() -> None:
    scope = opened([DONE] * 2)
    write(scope.children[0], {"log": ["a"], "last": 1})
    write(scope.children[1], {"last": 2, "log": ["b"]})
    assert merged(SCHEMA, node("ab"), scope) == [
        ["take", "fan[0]", "last"], ["take", "fan[1]", "last"], ["take", "fan[0]", "log"], ["take", "fan[1]", "log"],
    ]  # fmt: skip


def test_a_key_without_a_reducer_takes_one_branch_however_often_it_wrote() -> None:
    scope = opened([DONE] * 2)
    write(scope.children[0], {"plain": 1}, {"plain": 2})
    assert After(scope, merged(SCHEMA, node("ab"), scope)).read("plain") == 2
    write(scope.children[1], {"plain": 3})
    with pytest.raises(MergeConflictError) as conflict:
        merged(SCHEMA, node("ab"), scope)
    assert (conflict.value.key, conflict.value.writers, conflict.value.node) == ("plain", ("a", "b"), "fan")


def test_a_deletion_counts_where_it_stands() -> None:
    scope = opened([DONE] * 3, {"log": ["x"], "most": 9})
    write(scope.children[0], {"log": ["a"], "most": 20})
    write(scope.children[1], {"log": DELETE, "most": DELETE})
    write(scope.children[2], {"log": ["c"], "most": 2})
    after = After(scope, merged(SCHEMA, node(), scope))
    assert (after.read("log"), after.read("most")) == (["c"], 2)


def edit(child: Scope, key: str, value: Any) -> None:
    """What a decision's edit leaves in a branch: a set that no reducer made."""
    child.ops[key] = [["set", key, value]]
    child.cache.pop(key, None)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("key", "before", "edited", "later", "alone", "after"),
    [
        ("most", 9, 3, 2, 3, 3),
        ("most", 9, 3, 5, 3, 5),
        ("kinds", [1, 2], [7, 1], [2, 1], [7, 1], [7, 1, 2]),
        ("log", ["x"], ["edited"], ["c"], ["edited"], ["edited", "c"]),
        ("word", "aaaa", "b", "cc", "b", "cc"),
        ("first", 9, 3, 5, 3, 3),
        ("some", True, False, False, False, False),
        ("counts", {"a": 5}, {"a": 1}, {"b": 2}, {"a": 1}, {"a": 1, "b": 2}),
        ("total", 10, 4, 5, 4, 9),
    ],
)
def test_an_edit_in_a_branch_replaces_what_was_there_and_later_branches_write_over_it(
    key: str, before: Any, edited: Any, later: Any, alone: Any, after: Any, nested: bool
) -> None:
    scope = opened([DONE] * 3, {key: before}) if not nested else opened([DONE] * 3, parent=opened([AT], {key: before}))
    write(scope.children[0], {key: before})
    write(scope.children[1], {key: before})
    edit(scope.children[1], key, edited)
    assert After(scope, merged(SCHEMA, node(), scope)).read(key) == alone
    write(scope.children[2], {key: later})
    assert After(scope, merged(SCHEMA, node(), scope)).read(key) == after


def test_an_edit_in_a_nested_branch_counts_at_the_outer_join_too() -> None:
    outer = opened([DONE, DONE], {"most": 9})
    inner = outer.children[0]
    below = Scope(f"{inner.path}.fan[0]", inner, "n")
    below.phase = DONE
    inner.children.append(below)
    edit(below, "most", 3)
    inner.ops["most"] = pack(merged(SCHEMA, node("a"), inner))[1]
    assert After(outer, merged(SCHEMA, node("ab"), outer)).read("most") == 3
    write(outer.children[1], {"most": 4})
    assert After(outer, merged(SCHEMA, node("ab"), outer)).read("most") == 4


def test_a_branch_that_writes_after_an_edit_writes_over_the_edit() -> None:
    scope = opened([DONE], {"most": 9})
    edit(scope.children[0], "most", 3)
    write(scope.children[0], {"most": 5}, {"most": 4})
    assert After(scope, merged(SCHEMA, node("a"), scope)).read("most") == 5


def test_failed_branches_write_nothing_but_their_failure() -> None:
    scope = opened([DONE, FAILED, DONE], {"log": []})
    for child, word in zip(scope.children, "abc", strict=True):
        write(child, {"log": [word]})
    plan = node("abc", OnError("best_effort", 1, "failures"))
    after = After(scope, merged(SCHEMA, plan, scope))
    assert after.read("log") == ["a", "c"]
    assert after.read("failures") == [{"branch": "b", "node": "n", "type": "E", "message": "m1"}]


def test_a_reducer_that_refuses_names_the_branch_that_wrote() -> None:
    scope = opened([DONE] * 2)
    write(scope.children[0], {"word": "abc"})
    bad: Op = ["set", "word", 7, [7]]
    scope.children[1].ops["word"] = [bad]
    with pytest.raises(MergeError, match="written by branch b"):
        merged(SCHEMA, node("ab"), scope)


def test_joining_changes_nothing() -> None:
    scope = opened([DONE] * 2, {"deep": {"a": {}}, "kinds": [1]})
    write(scope.children[0], {"deep": {"a": {"b": 1}}, "kinds": [2]})
    write(scope.children[1], {"deep": {"a": {"b": 2}}, "kinds": [3]})
    before = repr((scope.values, [child.ops for child in scope.children]))
    After(scope, merged(SCHEMA, node("ab"), scope)).read("deep")
    assert repr((scope.values, [child.ops for child in scope.children])) == before
