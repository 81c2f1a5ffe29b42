"""What a write did to one key: the effective change, and how it is applied.

A reducer answers an update with a `Change`.  The change, not the update, is
what is committed, and applying it calls no user code: that is why a resume
needs no reducer at all.

Law: for every reducer ``r``, ``apply(r(current, update), current)`` is the new
value.  A change never aliases the value it is applied to: `apply` may mutate
``current`` (the fold owns its values) but stores the change's payload as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow
from typing import Any, Final, Literal, NamedTuple

ChangeKind = Literal["set", "delete", "append", "merge", "patch", "increment"]


class _Absent:
    """The one value that means "this key holds nothing"; None is a value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()
"""Stands for a key without a value.  Absent is not null."""


class Change(NamedTuple):
    """One effective change of one key.

    ``set`` holds the new value, ``delete`` holds None, ``append`` the list of
    new items, ``merge`` the mapping whose keys are replaced, ``patch`` the
    mapping that is merged recursively, ``increment`` the number added.
    """

    kind: ChangeKind
    value: Any = None


def apply(change: tuple[str, Any], current: Any) -> Any:
    """Return the value of a key after ``change``; ``current`` may be mutated.

    >>> apply(Change("append", [3]), [1, 2])
    [1, 2, 3]
    >>> apply(Change("increment", 2), ABSENT)
    2
    """
    kind, value = change
    if kind == "set":
        return value
    if kind == "append":
        if current is ABSENT or current is None:
            return list(value)
        current.extend(value)
        return current
    if kind == "increment":
        return value if current is ABSENT or current is None else added(current, value)
    if kind == "merge":
        if current is ABSENT or current is None:
            return dict(value)
        current.update(value)
        return current
    if kind == "patch":
        return _patched(current, value)
    if kind == "delete":
        return ABSENT
    if kind == "same":
        return current
    raise ValueError(f"unknown kind of change: {kind!r}")


_ADDING: Final = Context(28, ROUND_HALF_EVEN, -999999, 999999, 1, 0, [], [InvalidOperation, DivisionByZero, Overflow])
"""How decimals are added: as Python does where nobody has set anything else."""


def added(current: Any, number: Any) -> Any:
    """The sum, which is the same in every process, whatever it has set as the context of its decimals: a fold must come out the same.

    >>> added(1, Decimal("0.10"))
    Decimal('1.10')
    """
    if type(current) is Decimal or type(number) is Decimal:
        try:
            return _ADDING.add(current, number)
        except DecimalException as error:
            raise ArithmeticError(f"these decimals have no sum ({type(error).__name__})") from error
    return current + number


def apply_all(changes: Iterable[tuple[str, Any]], current: Any) -> Any:
    """Apply several changes of one key in order."""
    for change in changes:
        current = apply(change, current)
    return current


def _patched(current: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(current, dict):
        return patch
    for key, value in patch.items():
        current[key] = _patched(current[key], value) if key in current else value
    return current
