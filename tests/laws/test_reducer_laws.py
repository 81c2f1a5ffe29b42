"""Laws every reducer keeps, on values found by hypothesis."""

from __future__ import annotations

import copy
import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reducers import ABSENT, Reducer, apply, names, reducer_named

INTS = st.integers(-1000, 1000)
CENTS = st.integers(-(10**9), 10**9).map(lambda cents: Decimal(cents).scaleb(-2))
ITEMS = st.one_of(INTS, st.text(max_size=2), st.lists(INTS, max_size=2))
LISTS = st.lists(ITEMS, max_size=12)
DICTS = st.dictionaries(st.sampled_from("abc"), ITEMS, max_size=3)
DEEP = st.dictionaries(st.sampled_from("abc"), st.recursive(INTS, lambda inner: st.dictionaries(st.sampled_from("abc"), inner)))

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "error": ITEMS,
    "replace": ITEMS,
    "first": ITEMS,
    "append": LISTS,
    "extend": LISTS,
    "unique": LISTS,
    "merge": DICTS,
    "deep_merge": DEEP,
    "sum": INTS | CENTS,
    "min": INTS,
    "max": INTS,
    "any": st.booleans(),
    "all": st.booleans(),
    "counter": st.dictionaries(st.sampled_from("abc"), INTS),
}
BUILT_IN = [each for each in map(reducer_named, names()) if each.builtin]
IN_ANY_ORDER = ["sum", "min", "max", "any", "all", "counter"]

laws = settings(max_examples=60, deadline=None)


def merged(merging: Reducer, current: Any, update: Any) -> Any:
    change = merging(current, update)
    return current if change is None else apply(change, copy.deepcopy(current) if current is not ABSENT else ABSENT)


def deeply_merged(current: Any, update: Any) -> Any:
    """What deep_merge means, said in another way."""
    if not (isinstance(current, dict) and isinstance(update, dict)):
        return update
    return {**current, **{key: deeply_merged(current.get(key), value) for key, value in update.items()}}


def test_the_laws_cover_every_built_in() -> None:
    assert {each.name for each in BUILT_IN} == VALUES.keys()


@pytest.mark.parametrize("merging", BUILT_IN, ids=str)
@given(data=st.data())
@laws
def test_a_reducer_only_reads_the_current_value_and_the_update(merging: Reducer, data: st.DataObject) -> None:
    current, update = data.draw(VALUES[merging.name]), data.draw(VALUES[merging.name])
    before = copy.deepcopy((current, update))
    merging(current, update)
    assert (current, update) == before


@pytest.mark.parametrize("merging", BUILT_IN, ids=str)
@given(data=st.data())
@laws
def test_no_change_shares_a_container_with_the_current_value(merging: Reducer, data: st.DataObject) -> None:
    current, update = data.draw(VALUES[merging.name]), data.draw(VALUES[merging.name])
    change = merging(current, update)
    if change is not None:
        assert not containers(current) & containers(change.value)


def containers(value: Any) -> set[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {id(value)} if isinstance(value, (dict, list)) else set()
    return own.union(*map(containers, inner))


@pytest.mark.parametrize("merging", [each for each in BUILT_IN if each.independent], ids=str)
@given(data=st.data())
@laws
def test_the_change_of_an_independent_reducer_fits_every_base(merging: Reducer, data: st.DataObject) -> None:
    one, other, update = (data.draw(VALUES[merging.name]) for _ in range(3))
    for made_from, applied_to in ((one, other), (ABSENT, ABSENT), (None, None)):
        change = merging(made_from, update)
        replayed = copy.deepcopy(applied_to) if applied_to is not ABSENT else ABSENT
        if change is not None:
            replayed = apply(change, replayed)
        assert replayed == merged(merging, applied_to, update)


@pytest.mark.parametrize("name", IN_ANY_ORDER)
@given(data=st.data())
@laws
def test_the_order_of_writes_does_not_matter_to_a_commuting_reducer(name: str, data: st.DataObject) -> None:
    merging = reducer_named(name)
    updates = data.draw(st.lists(VALUES[name], min_size=1, max_size=4))
    results = []
    for order in itertools.permutations(updates):
        value: Any = ABSENT
        for update in order:
            value = merged(merging, value, update)
        results.append(value)
    assert all(result == results[0] for result in results)


@given(st.lists(LISTS, max_size=5))
@laws
def test_unique_keeps_the_first_of_each_item_in_order(updates: list[list[Any]]) -> None:
    value: Any = []
    for update in updates:
        value = merged(reducer_named("unique"), value, update)
    seen: list[Any] = []
    for item in itertools.chain.from_iterable(updates):
        if item not in seen:
            seen.append(item)
    assert value == seen


@given(st.lists(LISTS, max_size=5))
@laws
def test_append_loses_nothing_and_keeps_the_order(updates: list[list[Any]]) -> None:
    value: Any = []
    for update in updates:
        value = merged(reducer_named("append"), value, update)
    assert value == list(itertools.chain.from_iterable(updates))


@given(DEEP, DEEP)
@laws
def test_deep_merge_takes_over_every_leaf_of_the_update(current: Any, update: Any) -> None:
    assert merged(reducer_named("deep_merge"), current, update) == deeply_merged(current, update)


# Those that do not compare are left out: comparing would cost O(value).
@pytest.mark.parametrize("name", ["append", "extend", "unique", "sum", "min", "max", "any", "all", "counter"])
@given(data=st.data())
@laws
def test_what_changes_nothing_is_no_change(name: str, data: st.DataObject) -> None:
    merging = reducer_named(name)
    current, update = data.draw(VALUES[name]), data.draw(VALUES[name].filter(lambda value: type(value) is not Decimal or value))
    change = merging(current, update)
    if change is not None:
        assert apply(change, copy.deepcopy(current)) != current
