"""Checks of single options: times, counts, retries, keys.  Each yields what is wrong and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

from engine.plan import OnError, Retry
from engine.resolve import Scope


def at_least_one(where: str, option: str, value: Any) -> Iterator[str]:
    """``value`` is None or a whole number from 1."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        yield f"{where}: {option}={value!r} must be a whole number from 1"


def text(where: str, option: str, value: Any) -> Iterator[str]:
    """``value`` is a text."""
    if not isinstance(value, str):
        yield f"{where}: {option}={value!r} must be a text"


def yes_or_no(where: str, option: str, value: Any) -> Iterator[str]:
    """``value`` is a bool."""
    if not isinstance(value, bool):
        yield f"{where}: {option}={value!r} must be True or False"


def span(where: str, option: str, value: Any, *, zero: bool = False) -> Iterator[str]:
    """``value`` is None or a positive timedelta."""
    if value is None:
        return
    if not isinstance(value, timedelta):
        yield f"{where}: {option}={value!r} must be a timedelta, e.g. timedelta(seconds=30)"
    elif value < timedelta(0) or (value == timedelta(0) and not zero):
        yield f"{where}: {option}={value!r} must be longer than nothing"


def retry_settings(where: str, retry: Any) -> Iterator[str]:
    """``retry`` is None or a Retry that can be followed."""
    if retry is None:
        return
    if not isinstance(retry, Retry):
        yield f"{where}: retry={retry!r} must be a Retry, e.g. Retry(attempts=3)"
        return
    where = f"{where}: retry"
    yield from at_least_one(where, "attempts", retry.attempts)
    for option, time in (("first", retry.first), ("longest", retry.longest)):
        yield from span(where, option, time, zero=True) if time is not None else (f"{where}: {option}=None is no time",)
    if not isinstance(retry.factor, int | float) or not retry.factor >= 1:
        yield f"{where}: factor={retry.factor!r} must be 1 or more"
    if not isinstance(retry.jitter, int | float) or not 0 <= retry.jitter <= 1:
        yield f"{where}: jitter={retry.jitter!r} must be from 0 to 1"
    if not isinstance(retry.on, tuple | list | set | frozenset):
        yield f"{where}: on={retry.on!r} must be a tuple of exception classes, e.g. on=(TimeoutError,)"
        return
    for error in retry.on:
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            yield f"{where}: on={error!r} is no exception class"


_POLICIES: Final = ("fail_fast", "collect", "best_effort")


def known_policy(where: str, on_error: OnError) -> Iterator[str]:
    """``on_error`` is one of the three policies."""
    if on_error.policy not in _POLICIES:
        yield f"{where}: on_error={on_error.policy!r} is none of {', '.join(_POLICIES)}"


def undeclared_keys(scope: Scope, where: str, keys: Iterable[Any]) -> Iterator[str]:
    """``keys`` are keys of the state."""
    if scope.schema is not None:
        for key in keys:
            if not isinstance(key, str) or key not in scope.schema.keys:
                yield f"{where} names {key!r}, which is no key of the state; declared are: {', '.join(scope.schema.keys) or 'none'}"
