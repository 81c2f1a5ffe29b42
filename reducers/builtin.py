"""The reducers that come with trailmark.

All of them are pure and read ``current`` only.  For every one but ``error``
and ``replace`` a current None counts as nothing yet, so that a key may be
declared as ``best: Annotated[int | None, max_] = None``.

A wrong type is refused by name (`ReducerTypeError`), never ignored and never
converted: what a node returned is either merged whole or not at all.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from reducers.changes import ABSENT, Change, ChangeKind, added
from reducers.errors import ReducerTypeError
from reducers.registry import Reducer, Reduction, register

_NUMBERS: Final = frozenset({int, float, Decimal})
_A_NUMBER: Final = "a number (int, float or Decimal)"
_ORDER: Final[dict[type, str]] = {
    int: "number", float: "number", Decimal: "number", str: "str",
    datetime: "datetime", date: "date", time: "time", timedelta: "timedelta",
}  # fmt: skip
"""Which types can be put in order with which: those of one family."""
_ORDERED: Final = "a number, str, date, time, datetime or timedelta"
_FEW: Final = 8
"""Up to so many new items a scan of the list is cheaper than a set of it."""


def _is_empty(current: Any) -> bool:
    return current is ABSENT or current is None


def _set(_current: Any, update: Any) -> Change:
    return Change("set", update)


def _first(current: Any, update: Any) -> Change | None:
    return Change("set", update) if _is_empty(current) else None


def _appending(name: str, types: type[Any] | tuple[type[Any], ...], expected: str) -> Reduction:
    def append_items(current: Any, update: Any) -> Change | None:
        if not isinstance(update, types):
            raise ReducerTypeError(name, expected, update)
        if _is_empty(current):
            return Change("append", list(update))
        if not isinstance(current, list):
            raise ReducerTypeError(name, "a list", current, role="current value")
        return Change("append", list(update)) if update else None

    return append_items


def _unique(current: Any, update: Any) -> Change | None:
    if not isinstance(update, (list, tuple)):
        raise ReducerTypeError("unique", "a list", update)
    if _is_empty(current):
        return Change("append", _unseen([], update))
    if not isinstance(current, list):
        raise ReducerTypeError("unique", "a list", current, role="current value")
    new = _unseen(current, update)
    return Change("append", new) if new else None


def _unseen(current: list[Any], update: list[Any] | tuple[Any, ...]) -> list[Any]:
    """The items of ``update`` that are not in ``current``, each once, in order."""
    new: list[Any] = []
    if len(update) > _FEW:
        try:
            seen = set(current)
            for item in update:
                if item not in seen:
                    seen.add(item)
                    new.append(item)
        except TypeError:  # something is unhashable: compare one by one
            new = []
        else:
            return new
    for item in update:
        if item not in current and item not in new:
            new.append(item)
    return new


def _merging(name: str, kind: ChangeKind) -> Reduction:
    def merge_keys(current: Any, update: Any) -> Change | None:
        if not isinstance(update, dict):
            raise ReducerTypeError(name, "a dict", update)
        if not _is_empty(current):
            if not isinstance(current, dict):
                raise ReducerTypeError(name, "a dict", current, role="current value")
            if not update:
                return None
        return Change(kind, update)

    return merge_keys


def _sum(current: Any, update: Any) -> Change | None:
    # Exact types: bool is an int to Python, but True is no amount.
    if type(update) not in _NUMBERS:
        raise ReducerTypeError("sum", _A_NUMBER, update)
    if _is_empty(current):
        return Change("increment", update)
    if type(current) not in _NUMBERS:
        raise ReducerTypeError("sum", _A_NUMBER, current, role="current value")
    if {type(current), type(update)} == {Decimal, float}:
        # A float is not the decimal it looks like; adding the two would hide that.
        raise ReducerTypeError("sum", f"a {type(current).__name__} (like the current value) or an int", update)
    if update == 0 and type(update) is int:
        return None
    added(current, update)  # raises where there is no such sum: the fold must not be the first to find out
    return Change("increment", update)


def _extreme(name: str, beats: Callable[[Any, Any], bool]) -> Reduction:
    def keep_extreme(current: Any, update: Any) -> Change | None:
        family = _ORDER.get(type(update))
        if family is None:
            raise ReducerTypeError(name, _ORDERED, update)
        if family == "number" and update != update:  # noqa: PLR0124 - only NaN differs from itself
            raise ReducerTypeError(name, "a number other than NaN (NaN has no place in any order)", update)
        if _is_empty(current):
            return Change("set", update)
        if _ORDER.get(type(current)) != family:
            raise ReducerTypeError(name, f"a {_ORDER.get(type(current), _ORDERED)} (like the current value)", update)
        if family == "number" and current != current:  # noqa: PLR0124
            raise ReducerTypeError(name, "a number other than NaN (NaN has no place in any order)", current, role="current value")
        try:
            return Change("set", update) if beats(update, current) else None
        except TypeError:
            raise ReducerTypeError(name, f"a {family} with a UTC offset where the current value has one", update) from None

    return keep_extreme


def _deciding(name: str, combine: Callable[[bool, bool], bool]) -> Reduction:
    def combine_bools(current: Any, update: Any) -> Change | None:
        if type(update) is not bool:
            raise ReducerTypeError(name, "a bool", update)
        if _is_empty(current):
            return Change("set", update)
        if type(current) is not bool:
            raise ReducerTypeError(name, "a bool", current, role="current value")
        result = combine(current, update)
        return None if result is current else Change("set", result)

    return combine_bools


def _counter(current: Any, update: Any) -> Change | None:
    if not isinstance(update, dict):
        raise ReducerTypeError("counter", "a dict of ints", update)
    if not _is_empty(current) and not isinstance(current, dict):
        raise ReducerTypeError("counter", "a dict of ints", current, role="current value")
    counts = {} if _is_empty(current) else current
    changed: dict[str, int] = {}
    for key, number in update.items():
        if type(key) is not str:
            raise ReducerTypeError("counter", "a dict with str keys", key)
        before = counts.get(key, 0)
        for amount, role in ((number, "update"), (before, "current value")):
            if type(amount) is not int:
                raise ReducerTypeError("counter", f"an int at key {key!r}", amount, role=role)
        if number or key not in counts:
            changed[key] = before + number
    return Change("merge", changed) if changed or _is_empty(current) else None


def _built_in(name: str, fn: Reduction, *, independent: bool = False, many: bool = True) -> Reducer:
    return register(Reducer(name, fn, independent=independent, many=many, replaces=fn is _set, builtin=True))


error: Final = _built_in("error", _set, independent=True, many=False)
"""The default.  One write after the other replaces; two parallel branches that both write are a MergeConflictError."""
replace: Final = _built_in("replace", _set, independent=True)
"""The last write wins; of parallel branches the last in declared order."""
first: Final = _built_in("first", _first)
"""The first write wins; of parallel branches the first in declared order."""
append: Final = _built_in("append", _appending("append", list, "a list"), independent=True)
"""Lists grow by the items of the update, which is a list."""
extend: Final = _built_in("extend", _appending("extend", (list, tuple), "a list or a tuple"), independent=True)
"""As `append`; the update may be a tuple, too."""
unique: Final = _built_in("unique", _unique)
"""Lists grow by the items they do not hold yet (compared with ``==``)."""
merge: Final = _built_in("merge", _merging("merge", "merge"), independent=True)
"""Dicts take over the keys of the update; each key's value is replaced whole."""
deep_merge: Final = _built_in("deep_merge", _merging("deep_merge", "patch"), independent=True)
"""Dicts take over the keys of the update; dicts within are merged the same way."""
sum_: Final = _built_in("sum", _sum, independent=True)
"""Numbers are added.  ints stay ints; Decimal and float do not mix; bools are refused."""
min_: Final = _built_in("min", _extreme("min", operator.lt))
"""The smallest value ever written, seeded by the first."""
max_: Final = _built_in("max", _extreme("max", operator.gt))
"""The greatest value ever written, seeded by the first."""
any_: Final = _built_in("any", _deciding("any", operator.or_))
"""True once any write was True."""
all_: Final = _built_in("all", _deciding("all", operator.and_))
"""True while every write was True."""
counter: Final = _built_in("counter", _counter)
"""Dicts of ints: the update's numbers are added key by key."""
