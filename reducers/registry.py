"""What a reducer is, and the one table of reducers by name.

A reducer answers (current value, update) with the `Change` that has to be
made.  Names, never functions, go to the database and into the graph's hash;
on load no reducer is called at all.  Knows no state, no branch and no node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias, get_args

from reducers.changes import ABSENT, Change, ChangeKind, added
from reducers.errors import DuplicateReducerError, ReducerFunctionError, ReducerTypeError, UnknownReducerError

Reduction: TypeAlias = Callable[[Any, Any], Change | None]
"""``(current, update) -> Change``; None says that nothing changes."""

_KINDS: Final = frozenset(get_args(ChangeKind))
_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})


@dataclass(frozen=True, slots=True)
class Reducer:
    """How the updates of one key are merged into its value.

    Called as ``reducer(current, update)``; ``current`` is ABSENT where the key holds nothing, and is only read: the fold owns
    it.  A change may share parts of the update, which is the caller's, never of ``current``.

    Law: where ``independent``, ``apply(reducer(a, update), b)`` is what ``apply(reducer(b, update), b)`` is, for all a and b that
    both hold a value or both hold none.
    """

    name: str
    """What is stored, hashed and named in errors."""
    fn: Reduction
    independent: bool = False
    """Whether the change is the same whatever the current value is (its type is checked all the same)."""
    many: bool = True
    """Whether several parallel branches may write the key."""
    version: str = ""
    """Part of the graph's hash, so that a changed meaning of a custom reducer is seen on resume."""
    replaces: bool = False
    """Whether its change is always to set the update, whatever it is: nobody need call it to know."""
    builtin: bool = False
    """Whether it comes with trailmark: ours only read ``current``; a user's own function may do anything to what it is given."""

    def __call__(self, current: Any, update: Any) -> Change | None:
        """Return the change that ``update`` makes, or None where it makes none."""
        return self.fn(current, update)

    def __repr__(self) -> str:
        return f"<reducer {self.name}>"


_REGISTERED: Final[dict[str, Reducer]] = {}


def register(new: Reducer) -> Reducer:
    """Make a reducer known by its name, and return it.

    Registering the same one twice is harmless; so is a module-level function that was defined anew (a reloaded module).

    Raises:
        DuplicateReducerError: the name belongs to a different reducer.
    """
    there = _REGISTERED.get(new.name)
    if there is not None and there != new and not _is_redefined(there, new):
        raise DuplicateReducerError(new.name)
    _REGISTERED[new.name] = new
    return new


def _is_redefined(there: Reducer, new: Reducer) -> bool:
    if not (isinstance(there.fn, _Custom) and isinstance(new.fn, _Custom)):
        return False
    return _origin(there.fn.fn) == _origin(new.fn.fn) and "<locals>" not in new.fn.fn.__qualname__


def _origin(fn: Callable[..., Any]) -> tuple[str, str]:
    return fn.__module__, fn.__qualname__


def reducer_named(name: str) -> Reducer:
    """Return the reducer registered as ``name``.

    Raises:
        UnknownReducerError: nothing is registered under this name.
    """
    try:
        return _REGISTERED[name]
    except KeyError:
        raise UnknownReducerError(name, names()) from None


def names() -> tuple[str, ...]:
    """The names of all registered reducers, sorted."""
    return tuple(sorted(_REGISTERED))


def reducer(
    name: str, *, independent: bool = False, many: bool = True, version: str = "1"
) -> Callable[[Callable[[Any, Any], Any]], Reducer]:
    """Turn a function ``(current, update)`` into a registered reducer of your own.

    The function returns the new value, or a `Change` where less than the whole value has to be stored.  It is called with ABSENT
    where the key holds nothing.  To change nothing, return ``current``; to store None, return ``Change("set", None)``: a bare None
    is refused, because it is what a function returns that forgot to.  Count ``version`` up when the meaning changes.

    >>> from reducers.changes import ABSENT
    >>> @reducer("longest_doc_example")
    ... def longest(current, update):
    ...     return update if current is ABSENT or len(update) > len(current) else current
    >>> longest("ab", "abc")
    Change(kind='set', value='abc')
    >>> longest("abc", "ab") is None
    True

    Raises:
        DuplicateReducerError: the name belongs to a different reducer.
        ReducerFunctionError: the function is async or a generator, or cannot be called with (current, update).
    """
    if not isinstance(name, str) or not name:
        raise ReducerFunctionError(str(getattr(name, "__name__", name)), 'was given no name; write @reducer("name") above it')

    def decorate(fn: Callable[[Any, Any], Any]) -> Reducer:
        if (problem := _unfit(fn)) is not None:
            raise ReducerFunctionError(name, problem)
        return register(Reducer(name, _Custom(name, fn), independent=independent, many=many, version=version))

    return decorate


def _unfit(fn: Any) -> str | None:
    """Why ``fn`` cannot be a reducer; None where it can."""
    if not callable(fn):
        return "cannot be called; decorate a function of (current, update)"
    body = fn if inspect.isroutine(fn) else getattr(fn, "__call__", fn)  # noqa: B004 - the method itself is wanted
    if inspect.iscoroutinefunction(body):
        return "is async; a reducer only computes, so await in the node and return what it gave"
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        return "is a generator; return the new value instead of yielding"
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError:
        return "cannot be called with (current, update); give it two positional parameters"
    except ValueError:
        return None  # a builtin that tells no signature
    return None


@dataclass(frozen=True, slots=True)
class _Custom:
    """A user's function, whose answer is checked and made a change."""

    name: str
    fn: Callable[[Any, Any], Any]

    def __call__(self, current: Any, update: Any) -> Change | None:
        answer = self.fn(current, update)
        if isinstance(answer, Change):
            self._check(answer, current)
            return answer
        if answer is None or answer is ABSENT:
            raise ReducerTypeError(self.name, "a new value or a Change", answer, role="result")
        # Only for atoms does "the same object" prove that nothing changed: a list may have been changed in place.
        if answer is current and type(answer) in _ATOMS:
            return None
        return Change("set", answer)

    def _check(self, change: Change, current: Any) -> None:
        """Refuse a change that cannot be applied: the fold applies it later, and asks nothing."""
        kind, value = change
        if kind not in _KINDS:
            raise ReducerTypeError(self.name, f"a Change of kind {', '.join(sorted(_KINDS))}", kind, role="result")
        if kind in _HOLDS:
            holds, words = _HOLDS[kind]
            if not isinstance(value, holds):
                raise ReducerTypeError(self.name, f"{words} in a Change of kind {kind}", value, role="result")
        if kind in _ONTO and current is not ABSENT and current is not None:
            onto, words = _ONTO[kind]
            if not isinstance(current, onto):
                raise ReducerTypeError(self.name, f"{words} for a Change of kind {kind}", current, role="current value")
            if kind == "increment":
                added(current, value)  # raises where there is no such sum


_A_NUMBER: Final = ((int, float, Decimal), "a number (int, float or Decimal)")
_HOLDS: Final[dict[str, tuple[type | tuple[type, ...], str]]] = {
    "append": ((list, tuple), "a list"), "merge": (dict, "a dict"), "patch": (dict, "a dict"), "increment": _A_NUMBER,
}  # fmt: skip
"""What a change of a kind holds: of a set, the order would be another in the next process."""
_ONTO: Final[dict[str, tuple[type | tuple[type, ...], str]]] = {
    "append": (list, "a list"),
    "merge": (dict, "a dict"),
    "increment": _A_NUMBER,
}
"""What it can be applied to, beside nothing."""
