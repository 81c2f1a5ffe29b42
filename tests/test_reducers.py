"""The built-in reducers one by one, custom ones, the registry, and reducers read from types."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, Inexact, localcontext
from typing import Annotated, Any, NotRequired, Optional

import pytest
from pydantic import BaseModel
from typing_extensions import TypeAliasType

import trailmark.reducers
from reducers import (
    ABSENT,
    Change,
    DuplicateReducerError,
    Reducer,
    ReducerAnnotationError,
    ReducerTypeError,
    UnknownReducerError,
    all_,
    any_,
    append,
    apply,
    counter,
    deep_merge,
    error,
    extend,
    first,
    max_,
    merge,
    min_,
    names,
    reducer,
    reducer_named,
    reducer_of,
    register,
    replace,
    sum_,
    unique,
)

EARLY, LATE = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("merging", "current", "update", "change"),
    [
        (error, 1, 2, Change("set", 2)),
        (error, ABSENT, None, Change("set", None)),
        (replace, [1], [2], Change("set", [2])),
        (first, ABSENT, "a", Change("set", "a")),
        (first, None, "a", Change("set", "a")),
        (first, "a", "b", None),
        (first, 0, 1, None),
        (append, ABSENT, [1], Change("append", [1])),
        (append, None, [], Change("append", [])),
        (append, [1], [2, 2], Change("append", [2, 2])),
        (append, [1], [], None),
        (extend, [1], (2, 3), Change("append", [2, 3])),
        (extend, ABSENT, (), Change("append", [])),
        (unique, [1, 2], [2, 3, 3], Change("append", [3])),
        (unique, [1, 2], [2, 1], None),
        (unique, ABSENT, [1, 1], Change("append", [1])),
        (unique, [{"a": 1}], [{"a": 1}, {"a": 2}], Change("append", [{"a": 2}])),
        (unique, list(range(20)), list(range(10, 30)), Change("append", list(range(20, 30)))),
        (unique, [1], [2, 2, *range(20)], Change("append", [2, 0, *range(3, 20)])),
        (unique, [[n] for n in range(20)], [[n] for n in range(10, 22)], Change("append", [[20], [21]])),
        (merge, {"a": {"x": 1}}, {"a": {"y": 2}}, Change("merge", {"a": {"y": 2}})),
        (merge, ABSENT, {}, Change("merge", {})),
        (merge, {"a": 1}, {}, None),
        (deep_merge, {"a": {"x": 1}}, {"a": {"y": 2}}, Change("patch", {"a": {"y": 2}})),
        (sum_, ABSENT, 2, Change("increment", 2)),
        (sum_, 1, 0, None),
        (sum_, 1, 0.0, Change("increment", 0.0)),
        (sum_, ABSENT, 0, Change("increment", 0)),
        (sum_, Decimal("0.1"), Decimal("0.2"), Change("increment", Decimal("0.2"))),
        (sum_, Decimal("0.1"), 1, Change("increment", 1)),
        (min_, ABSENT, 5, Change("set", 5)),
        (min_, 5, 7, None),
        (min_, 5, 3, Change("set", 3)),
        (max_, None, -1, Change("set", -1)),
        (max_, 5, 5.0, None),
        (max_, Decimal("1.5"), 2, Change("set", 2)),
        (max_, "a", "b", Change("set", "b")),
        (max_, EARLY, LATE, Change("set", LATE)),
        (min_, timedelta(1), timedelta(2), None),
        (any_, ABSENT, False, Change("set", False)),
        (any_, False, True, Change("set", True)),
        (any_, True, False, None),
        (all_, True, False, Change("set", False)),
        (all_, False, True, None),
        (counter, ABSENT, {"a": 1}, Change("merge", {"a": 1})),
        (counter, {"a": 1, "b": 9}, {"a": 2, "c": 0}, Change("merge", {"a": 3, "c": 0})),
        (counter, {"a": 1}, {"a": 0}, None),
    ],
)
def test_each_reducer_answers_with_the_smallest_change(merging: Reducer, current: Any, update: Any, change: Change | None) -> None:
    before = copy.deepcopy(current)
    answer = merging(current, update)
    assert answer == change
    assert answer is None or type(answer.value) is type(change.value)
    assert current == before or current is ABSENT


@pytest.mark.parametrize(
    ("merging", "current", "update", "said"),
    [
        (append, [], "abc", "got str"),
        (append, [], (1,), "got tuple"),
        (append, "abc", [1], "as the current value, got str"),
        (extend, [], {1}, "got set"),
        (extend, {}, [1], "as the current value, got dict"),
        (unique, [], {1}, "got set"),
        (unique, {}, [1], "as the current value, got dict"),
        (merge, {}, [("a", 1)], "got list"),
        (merge, [], {"a": 1}, "as the current value, got list"),
        (deep_merge, 3, {"a": 1}, "as the current value, got int"),
        (sum_, 1, True, "got bool"),
        (sum_, 1, "2", "got str"),
        (sum_, "1", 2, "as the current value, got str"),
        (sum_, Decimal(1), 0.5, "needs a Decimal (like the current value) or an int as the update, got float"),
        (sum_, 0.5, Decimal(1), "needs a float (like the current value) or an int as the update, got Decimal"),
        (max_, 1, None, "got NoneType"),
        (max_, 1, True, "got bool"),
        (max_, 1, "2", "needs a number (like the current value) as the update, got str"),
        (max_, [1], 2, "got int"),
        (max_, date(2024, 1, 1), datetime(2024, 1, 1), "needs a date (like the current value) as the update, got datetime"),  # noqa: DTZ001
        (max_, EARLY, datetime(2025, 1, 1), "UTC offset"),  # noqa: DTZ001
        (max_, 1, math.nan, "NaN"),
        (min_, 1, Decimal("nan"), "NaN"),
        (min_, math.nan, 1, "NaN"),
        (any_, False, 1, "got int"),
        (all_, 1, True, "as the current value, got int"),
        (counter, {}, {"a": True}, "needs an int at key 'a' as the update, got bool"),
        (counter, {}, {"a": 0.5}, "got float"),
        (counter, {"a": "x"}, {"a": 1}, "as the current value, got str"),
        (counter, {}, {1: 1}, "str keys"),
        (counter, {}, ["a"], "got list"),
        (counter, 5, {"a": 1}, "as the current value, got int"),
    ],
)
def test_a_wrong_type_is_refused_by_name(merging: Reducer, current: Any, update: Any, said: str) -> None:
    with pytest.raises(ReducerTypeError) as caught:
        merging(current, update)
    assert said in str(caught.value)
    assert caught.value.reducer == merging.name


def test_summing_ints_gives_an_int_and_summing_decimals_stays_exact() -> None:
    total = apply(sum_(2**60, 1), 2**60)
    assert total == 2**60 + 1
    assert type(total) is int
    assert apply(sum_(Decimal("0.1"), Decimal("0.2")), Decimal("0.1")) == Decimal("0.3")


def test_only_the_default_forbids_parallel_writers() -> None:
    built_in = [each for each in map(reducer_named, names()) if each.builtin]
    assert len(built_in) == 14
    assert [each.name for each in built_in if not each.many] == ["error"]


def test_every_built_in_is_reachable_from_the_public_module() -> None:
    public = {each.name for each in vars(trailmark.reducers).values() if isinstance(each, Reducer)}
    assert public == {each.name for each in map(reducer_named, names()) if each.builtin}
    assert all(hasattr(trailmark.reducers, name) for name in trailmark.reducers.__all__)


def test_an_append_never_hands_out_the_list_it_was_given() -> None:
    update = [1]
    change = append([0], update)
    assert change is not None
    assert change.value is not update


# --- custom reducers --------------------------------------------------------------------------------------------------


def test_a_custom_reducer_may_return_the_new_value() -> None:
    @reducer("test_longest")
    def longest(current: Any, update: str) -> str:
        return update if current is ABSENT or len(update) > len(current) else current

    assert longest(ABSENT, "ab") == Change("set", "ab")
    assert longest("ab", "abc") == Change("set", "abc")
    assert longest("ab", "a") is None
    assert (longest.independent, longest.many, longest.version) == (False, True, "1")
    assert reducer_named("test_longest") is longest
    assert not longest.builtin
    assert not Reducer("unregistered", longest.fn).builtin


def test_a_custom_reducer_may_return_a_change() -> None:
    @reducer("test_push", independent=True, many=False, version="2")
    def push(current: Any, update: Any) -> Change:
        return Change("append", [update])

    assert push([1], 2) == Change("append", [2])
    assert (push.independent, push.many, push.version) == (True, False, "2")


def test_a_list_changed_in_place_by_a_custom_reducer_is_a_change() -> None:
    @reducer("test_in_place")
    def in_place(current: list[int], update: int) -> list[int]:
        current.append(update)
        return current

    assert in_place([1], 2) == Change("set", [1, 2])


def test_a_custom_reducer_that_forgot_to_return_is_told_so() -> None:
    @reducer("test_forgetful")
    def forgetful(current: Any, update: Any) -> None:
        pass

    with pytest.raises(ReducerTypeError, match="return a new value or a Change from the reducer's function"):
        forgetful([1], 2)


def test_a_custom_reducer_may_not_invent_kinds_of_changes() -> None:
    @reducer("test_inventive")
    def inventive(current: Any, update: Any) -> Any:
        return Change("exec", update)  # type: ignore[arg-type]

    with pytest.raises(ReducerTypeError, match="Change of kind append"):
        inventive(1, 2)


@pytest.mark.parametrize(
    ("current", "change", "said"),
    [
        ([], Change("append", 5), "needs a list in a Change of kind append as the result, got int"),
        ([], Change("append", "abc"), "got str"),
        ([], Change("append", {"a", "b"}), "got set"),
        (7, Change("append", [1]), "needs a list for a Change of kind append as the current value, got int"),
        ({}, Change("merge", [1]), "needs a dict in a Change of kind merge as the result, got list"),
        ([], Change("merge", {"a": 1}), "needs a dict for a Change of kind merge as the current value, got list"),
        ({}, Change("patch", 1), "needs a dict in a Change of kind patch as the result, got int"),
        ("a", Change("increment", 1), "as the current value, got str"),
        (1, Change("increment", "b"), "as the result, got str"),
        (1, ABSENT, "needs a new value or a Change as the result"),
    ],
)
def test_a_change_that_could_not_be_applied_is_refused_by_the_reducer_that_made_it(current: Any, change: Any, said: str) -> None:
    unfit = reducer(f"test_unfit_{current}_{change}")(lambda current, update: change)
    with pytest.raises(ReducerTypeError, match=said):
        unfit(current, 1)


@pytest.mark.parametrize(
    ("current", "change"),
    [
        (ABSENT, Change("append", (1,))),
        (None, Change("merge", {"a": 1})),
        (5, Change("patch", {"a": 1})),
        (1, Change("increment", Decimal(1))),
        ([1], Change("delete")),
    ],
)
def test_a_change_that_fits_is_left_as_it_is(current: Any, change: Change) -> None:
    assert reducer(f"test_fit_{current}_{change}")(lambda current, update: change)(current, 1) is change


@pytest.mark.parametrize(
    ("current", "update"),
    [
        (10**400, 0.5),
        (Decimal("9e999999"), Decimal("9e999999")),
        (Decimal("Infinity"), Decimal("-Infinity")),
    ],
)
def test_numbers_that_have_no_sum_are_refused_when_they_are_written(current: Any, update: Any) -> None:
    with pytest.raises(ArithmeticError):
        sum_(current, update)


def test_a_sum_of_decimals_is_the_same_whatever_the_process_has_set_for_them() -> None:
    change = sum_(Decimal("1.1"), Decimal("0.123456789"))
    assert change is not None
    with localcontext() as context:
        context.prec = 3
        context.traps[Inexact] = True
        assert apply(change, Decimal("1.1")) == Decimal("1.223456789")


def test_a_name_belongs_to_one_reducer() -> None:
    with pytest.raises(DuplicateReducerError, match="'append'"):
        register(Reducer("append", lambda current, update: None))
    assert reducer_named("append") is append
    assert register(append) is append

    def keep(current: Any, update: Any) -> Any:
        return current

    def drop(current: Any, update: Any) -> Any:
        return update

    reducer("test_one_name")(keep)
    with pytest.raises(DuplicateReducerError):
        reducer("test_one_name")(drop)
    with pytest.raises(DuplicateReducerError):
        reducer("test_one_name", version="2")(keep)


def module_level(current: Any, update: Any) -> Any:
    return update


def other_function(current: Any, update: Any) -> Any:
    return current


def test_two_functions_of_a_module_cannot_share_a_name() -> None:
    reducer("test_shared")(module_level)
    with pytest.raises(DuplicateReducerError):
        reducer("test_shared")(other_function)


def test_a_reloaded_module_may_define_its_reducer_anew() -> None:
    def anew(current: Any, update: Any) -> Any:
        return [update]

    reducer("test_reloaded")(module_level)
    anew.__qualname__ = module_level.__qualname__
    newest = reducer("test_reloaded")(anew)
    assert reducer_named("test_reloaded") is newest


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownReducerError, match=r"'apend'.*append") as caught:
        reducer_named("apend")
    assert "append" in caught.value.known


# --- reducers in types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (list[str], error),
        (Annotated[list[str], append], append),
        (Annotated[list[str], "a text", append, 3], append),
        (Annotated[Annotated[list[str], append], "outer"], append),
        (Annotated[list[str], append, append], append),
        (Annotated[list[str], append] | None, append),
        (Optional[Annotated[int, max_]], max_),  # noqa: UP045
        (NotRequired[Annotated[int, sum_]], sum_),
        (Annotated[NotRequired[int], sum_], sum_),
        (TypeAliasType("Notes", Annotated[list[str], append]), append),
        (TypeAliasType("Notes", Annotated[list[str], append]) | None, append),
        (list[Annotated[int, sum_]], error),
        (Any, error),
        (None, error),
    ],
)
def test_the_reducer_stands_in_the_type(annotation: Any, found: Reducer) -> None:
    assert reducer_of(annotation) is found


def test_the_reducer_of_a_pydantic_field_stands_in_its_metadata() -> None:
    class State(BaseModel):
        notes: Annotated[list[str], append] = []
        best: Annotated[int, max_] | None = None
        plain: int = 0

    found = {name: reducer_of(field.annotation, field.metadata) for name, field in State.model_fields.items()}
    assert found == {"notes": append, "best": max_, "plain": error}


def test_two_reducers_in_one_type_are_refused() -> None:
    with pytest.raises(ReducerAnnotationError, match="append, unique"):
        reducer_of(Annotated[list[str], append, unique])
    with pytest.raises(ReducerAnnotationError):
        reducer_of(Annotated[list[str], append], [merge])


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (sum, "use trailmark.reducers.sum_"),
        (max, "use trailmark.reducers.max_"),
        (lambda current, update: update, "decorate it with @reducer"),
    ],
)
def test_a_bare_function_in_a_type_is_refused_instead_of_ignored(mark: Callable[..., Any], said: str) -> None:
    with pytest.raises(ReducerAnnotationError, match=said):
        reducer_of(Annotated[int, mark])
