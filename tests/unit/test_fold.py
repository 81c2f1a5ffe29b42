"""The fold, op by op: what each word of a checkpoint does to a run's state."""

from __future__ import annotations

from typing import Any

import pytest

from checkpoint_stores.codec import decode, encode, pack
from checkpoint_stores.fold import AT, DONE, FAILED, OPEN, PARKED, RETRY, RunState, fold, folded
from checkpoint_stores.ops import Op
from checkpoint_stores.records import Row
from reducers.changes import ABSENT


class Run:
    """Folds rows one after the other and numbers them."""

    def __init__(self) -> None:
        self.state = RunState("r")
        self.row("start", to="a")

    def row(self, kind: str, *ops: Op, path: str = "", node: str = "", to: str = "", entered: bool = False) -> RunState:
        payload, decoded = pack(list(ops))
        row = Row("r", self.state.seq + 1, 1, self.state.step + entered, kind, path, node, to, payload, 0, bytes(32))
        fold(self.state, row, decoded)
        return self.state

    def opened(self, *entries: str) -> RunState:
        return self.row("parallel", ["open", "fan", 1, list(entries), None], node="fan", to=",".join(entries), entered=True)


@pytest.mark.parametrize(
    ("before", "op", "after"),
    [
        ({}, ["set", "k", 1], {"k": 1}),
        ({"k": 1}, ["set", "k", None], {"k": None}),
        ({"k": 1}, ["delete", "k", None], {}),
        ({}, ["delete", "k", None], {}),
        ({"k": [1]}, ["append", "k", [2, 3]], {"k": [1, 2, 3]}),
        ({}, ["append", "k", [2]], {"k": [2]}),
        ({"k": 1}, ["increment", "k", 2], {"k": 3}),
        ({}, ["increment", "k", 2], {"k": 2}),
        ({"k": {"a": 1}}, ["merge", "k", {"b": {"c": 1}}], {"k": {"a": 1, "b": {"c": 1}}}),
        ({"k": {"a": {"b": 1}}}, ["patch", "k", {"a": {"c": 2}}], {"k": {"a": {"b": 1, "c": 2}}}),
        ({"k": 1}, ["same", "k", None, [0]], {"k": 1}),
    ],
)
@pytest.mark.parametrize("in_branch", [False, True])
def test_a_value_op_makes_of_a_key_what_it_says(before: dict[str, Any], op: Op, after: dict[str, Any], in_branch: bool) -> None:
    run = Run()
    run.row("step", *(["set", key, value] for key, value in before.items()), node="a", to="fan", entered=True)
    path = ""
    if in_branch:
        run.opened("b")
        path = "fan[0]"
    scope = run.row("step", op, path=path, node="b", entered=True).scopes[path]
    assert scope.read("k") == after.get("k", ABSENT)
    if in_branch:
        assert run.state.root.values == before


def test_the_columns_of_a_row_move_the_scope_and_count_the_entry() -> None:
    run = Run()
    state = run.row("step", node="a", to="b", entered=True)
    assert (state.root.node, state.root.phase, state.root.visits, state.step) == ("b", AT, {"a": 1}, 1)
    state = run.row("decision", node="b", to="a")
    assert (state.root.node, state.root.visits, state.step) == ("a", {"a": 1}, 1)
    state = run.row("attempt", ["status", "running"], ["attempt", 2, {"max_steps": 9}])
    assert (state.root.node, state.attempt, state.max_steps) == ("a", 2, 9)


def test_going_on_forgets_the_failure_and_the_retry() -> None:
    run = Run()
    state = run.row("retry", ["retry", 1, 77, {"type": "E"}], node="a", to="a")
    assert (state.root.phase, state.root.failed, state.root.detail, state.root.visits) == (RETRY, 1, [1, 77, {"type": "E"}], {})
    state = run.row("fallback", ["error", {"type": "E"}], node="a", to="b", entered=True)
    assert (state.root.phase, state.root.failed, state.root.detail, state.root.error) == (AT, 0, None, {"type": "E"})
    assert run.row("step", node="b", to="c", entered=True).root.error is None


def test_branches_open_side_by_side_and_close_with_everything_below_them() -> None:
    run = Run()
    run.opened("x", "y")
    state = run.row("parallel", ["open", "inner", 1, ["z"], [99]], path="fan[1]", node="inner", entered=True)
    assert list(state.scopes) == ["", "fan[0]", "fan[1]", "fan[1].inner[0]"]
    assert (state.root.phase, state.scopes["fan[1]"].phase, state.scopes["fan[1].inner[0]"].due) == (OPEN, OPEN, 99)
    assert [scope.path for scope in state.frontier()] == ["fan[0]", "fan[1].inner[0]"]
    state = run.row("join", ["close"], node="fan", to="b")
    assert (list(state.scopes), state.root.children, state.root.phase) == ([""], [], AT)


def test_a_second_visit_opens_scopes_of_its_own() -> None:
    run = Run()
    run.row("parallel", ["open", "fan", 2, ["x"], None], node="fan", entered=True)
    assert list(run.state.scopes) == ["", "fan#2[0]"]


def test_a_branch_sees_its_own_writes_and_its_parent_does_not_until_they_are_taken() -> None:
    run = Run()
    run.row("step", ["set", "k", [0]], node="a", to="fan", entered=True)
    run.opened("x", "y")
    state = run.row("step", ["append", "k", [1]], path="fan[0]", node="x", entered=True)
    run.row("step", ["append", "k", [2]], path="fan[1]", node="y", entered=True)
    assert [state.scopes[path].read("k") for path in ("", "fan[0]", "fan[1]")] == [[0], [0, 1], [0, 2]]
    state = run.row("join", ["take", "fan[0]", "k"], ["take", "fan[1]", "k"], ["close"], node="fan", to="b")
    assert state.root.values == {"k": [0, 1, 2]}


def test_what_a_nested_branch_wrote_is_seen_level_by_level() -> None:
    run = Run()
    run.opened("x")
    run.row("parallel", ["open", "inner", 1, ["z"], None], path="fan[0]", node="inner", entered=True)
    state = run.row("step", ["increment", "k", 5], path="fan[0].inner[0]", node="z", entered=True)
    assert (state.scopes["fan[0].inner[0]"].read("k"), state.scopes["fan[0]"].read("k")) == (5, ABSENT)
    run.row("join", ["take", "fan[0].inner[0]", "k"], ["close"], path="fan[0]", node="inner", to="w")
    assert (run.state.scopes["fan[0]"].read("k"), run.state.root.values) == (5, {})


def test_places_where_a_scope_waits_or_is_over() -> None:
    run = Run()
    run.opened("x", "y", "z")
    run.row("barrier", ["park", "fan[0].x#1", {"deadline": None}], path="fan[0]", node="x", to="x", entered=True)
    run.row("step", ["done"], path="fan[1]", node="y", entered=True)
    state = run.row("failure", ["fail", {"type": "E"}], path="fan[2]", node="z", entered=True)
    assert [child.phase for child in state.root.children] == [PARKED, DONE, FAILED]
    assert [scope.path for scope in state.frontier()] == ["fan[0]"]
    assert state.at_rest()


def test_decisions_are_seen_from_below_and_the_nearest_counts() -> None:
    run = Run()
    run.row("decision", ["decision", "review", {"by": "ana"}], node="review", to="fan")
    run.opened("x")
    inner = run.row(
        "decision", ["decision", "review", {"by": "ben"}], ["decision", "other", {"by": "ana"}], path="fan[0]", node="review", to="x"
    )
    assert inner.scopes["fan[0]"].all_decisions() == {"review": {"by": "ben"}, "other": {"by": "ana"}}
    assert inner.root.all_decisions() == {"review": {"by": "ana"}}
    assert (inner.scopes["fan[0]"].decision("review"), inner.root.decision("other")) == ({"by": "ben"}, None)


def test_reading_a_branch_never_changes_the_ops_it_is_read_from() -> None:
    base = {"a": {"x": 1}, "l": [1]}
    ops: list[Op] = [["patch", "k", {"a": {"b": {"c": 1}}}], ["patch", "k", {"a": {"b": {"d": 2}}}], ["patch", "k", {"l": [2]}]]
    before = encode([ops, base])
    assert folded(ops, base) == {"a": {"x": 1, "b": {"c": 1, "d": 2}}, "l": [2]}
    assert encode([ops, base]) == before
    ops = [["set", "k", [1]], ["append", "k", [2]], ["append", "k", [3]]]
    before = encode(ops)
    assert folded(ops, None) == [1, 2, 3]
    assert encode(ops) == before


def test_a_loop_in_a_branch_piles_nothing_up_that_a_later_write_replaced() -> None:
    run = Run()
    run.opened("x")
    for number in range(50):
        run.row("step", ["set", "k", number], ["set", "most", number, [number]], path="fan[0]", node="x", to="x", entered=True)
    branch = run.state.scopes["fan[0]"]
    assert (branch.read("k"), len(branch.ops["k"])) == (49, 1)
    assert (branch.read("most"), len(branch.ops["most"])) == (49, 50)  # the join has to reduce each of them again


class Counted(int):
    """A number that counts how often it is added to something."""

    additions = 0

    def __radd__(self, other: Any) -> int:
        type(self).additions += 1
        return int(other) + int(self)


class Passed(list[Any]):
    """A list that counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Any:
        type(self).times += 1
        return super().__iter__()


def test_a_loop_in_a_branch_that_reads_what_it_writes_applies_each_change_once() -> None:
    run = Run()
    run.opened("x")
    state = run.state
    state.root.values |= {"n": 0, "log": Passed([0])}
    Counted.additions = Passed.times = 0
    branch = state.scopes["fan[0]"]
    for number in range(1, 201):
        row = Row("r", state.seq + 1, 1, state.step, "step", "fan[0]", "x", "x", b"", 0, bytes(32))
        fold(state, row, [["increment", "n", Counted(1)], ["append", "log", Passed([number])]])
        assert (branch.read("n"), len(branch.read("log"))) == (number, number + 1)
    assert Counted.additions == 200
    assert Passed.times <= 1 + 200, "the base once, and each row's items once"
    assert branch.read("log") == folded(branch.ops["log"], state.root.values["log"]) == list(range(201))


def test_a_value_that_was_read_is_carried_on_as_a_later_load_folds_it() -> None:
    writes: list[Op] = [
        ["merge", "k", {"a": {"b": 1}}], ["patch", "k", {"a": {"c": 2}}], ["same", "k", None, [{}]], ["merge", "k", {"d": {"e": 1}}],
        ["patch", "k", {"d": {"f": 2}}], ["set", "k", {"g": {"h": 1}}, [{}]], ["patch", "k", {"g": {"i": 2}}], ["delete", "k", None],
        ["merge", "k", {"j": {"k": 1}}], ["patch", "k", {"j": {"l": 2}}],
    ]  # fmt: skip
    run = Run()
    run.row("step", ["set", "k", {"a": {"z": 0}}], node="a", to="fan", entered=True)
    run.opened("x")
    for count, write in enumerate(writes, start=1):
        branch = run.row("step", write, path="fan[0]", node="x", to="x", entered=True).scopes["fan[0]"]
        afresh = pack(writes[:count])[1]
        assert branch.read("k") == folded(afresh, {"a": {"z": 0}})
        assert branch.ops["k"] == afresh[-len(branch.ops["k"]) :]
        assert run.state.root.values == {"k": {"a": {"z": 0}}}
    assert branch.read("k") == {"j": {"k": 1, "l": 2}}


def test_a_value_folded_by_a_thread_that_came_too_late_is_not_read() -> None:
    run = Run()
    run.opened("x")
    branch = run.row("step", ["append", "k", [1]], path="fan[0]", node="x", to="x", entered=True).scopes["fan[0]"]
    assert branch.read("k") == [1]
    late = branch.cache["k"]
    run.row("step", ["append", "k", [2]], path="fan[0]", node="x", to="x", entered=True)
    branch.cache["k"] = late
    assert branch.read("k") == [1, 2]


def test_a_state_made_from_its_dump_is_equal_and_goes_on_equally() -> None:
    run = Run()
    run.row("step", ["set", "k", {"a": {}}], ["hop", "a->fan"], node="a", to="fan", entered=True)
    run.row("parallel", ["open", "fan", 1, ["x", "y"], [5, None]], node="fan", entered=True)
    run.row("step", ["patch", "k", {"a": {"b": 1}}], path="fan[0]", node="x", to="w", entered=True)
    run.row("retry", ["retry", 2, 9, {}], path="fan[1]", node="y", to="y")
    other = Run()
    other.state = RunState.restored("r", decode(encode(run.state.dump())), run.state.digest)
    assert encode(other.state.dump()) == encode(run.state.dump())
    for each in (run, other):
        each.row("step", ["patch", "k", {"a": {"c": 2}}], ["done"], path="fan[0]", node="w", entered=True)
        each.row("step", ["done"], path="fan[1]", node="y", entered=True)
        each.row("join", ["take", "fan[0]", "k"], ["close"], node="fan", to="z")
    assert encode(other.state.dump()) == encode(run.state.dump())
    assert run.state.root.values == {"k": {"a": {"b": 1, "c": 2}}}


def test_a_fork_begins_with_its_parents_state_under_its_own_name_and_number() -> None:
    parent = Run()
    parent.row("step", ["set", "k", 1], node="a", to="b", entered=True)
    child = RunState("child")
    payload, ops = pack([["restore", parent.state.dump()]])
    fold(child, Row("child", 0, 0, 1, "fork", "", "", "", payload, 0, bytes(32)), ops)
    assert (child.run_id, child.seq, child.step, child.root.node, child.root.values) == ("child", 0, 1, "b", {"k": 1})


@pytest.mark.parametrize("op", [["nonsense", 1], ["take", "nowhere", "k"]])
def test_an_op_that_means_nothing_is_an_error_and_not_skipped(op: Op) -> None:
    with pytest.raises(KeyError):
        Run().row("step", op, node="a", entered=True)
