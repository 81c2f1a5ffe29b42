"""What a caller hands over, checked before anything happens.  Pure; every check raises `ArgumentError` or returns what is to be used.

Knows no graph and no store.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from checkpoint_stores.errors import ArgumentError


def run_named(run_id: Any) -> str:
    """The id (or a part of it) of a run that may exist."""
    if not isinstance(run_id, str) or not run_id:
        raise ArgumentError("run_id", run_id, "a run's id as text, e.g. result.run_id")
    return run_id


def new_run_id(run_id: Any) -> str:
    """The id of a run to be: a UUID in canonical text."""
    try:
        canonical = str(uuid.UUID(run_id))
    except (ValueError, TypeError, AttributeError):
        canonical = None
    if canonical is None or canonical != run_id:
        raise ArgumentError("run_id", run_id, "a UUID in canonical text (leave it out to get one, or name the run with run_key=)")
    return canonical


def step_limit(max_steps: Any) -> int:
    """How many steps a run may make.

    >>> step_limit(50)
    50
    """
    if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 1:
        raise ArgumentError("max_steps", max_steps, "a whole number from 1")
    return max_steps


def period(name: str, value: Any) -> timedelta:
    """A time that something may take."""
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise ArgumentError(name, value, "a timedelta, not negative")
    return value


def text(name: str, value: Any, *, or_none: bool = False) -> Any:
    """``value`` where it is a text (or None, where that may be)."""
    if not (isinstance(value, str) or (or_none and value is None)):
        raise ArgumentError(name, value, "a text" + (" or None" if or_none else ""))
    if value is not None and not is_storable(value):
        raise ArgumentError(name, value, "a text of whole characters other than NUL, which a database can hold")
    return value


def is_storable(name: str) -> bool:
    """Whether every database can hold ``name`` as a text of a column: no NUL, no half of a surrogate pair.

    >>> is_storable("pay"), is_storable("pay" + chr(0))
    (True, False)
    """
    return "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that ``value`` is one of a few words."""
    if value not in choices:
        raise ArgumentError(name, value, " or ".join(map(repr, choices)))


def somebody(name: str, value: Any) -> str:
    """Who does it: a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ArgumentError(name, value, "the name of who does it")
    return value


def edits(given: Any) -> Mapping[str, Any] | None:
    """New values by state key, or None."""
    if given is not None and not isinstance(given, Mapping):
        raise ArgumentError("edits", given, 'a mapping of state keys to new values, e.g. {"amount": 10}')
    return given


def checkpoint_number(name: str, value: Any) -> int | None:
    """The number of a checkpoint, or None."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ArgumentError(name, value, "the number of a checkpoint, or None for the newest")
    return value


def token_count(name: str, value: Any) -> int:
    """How many tokens a step used.

    >>> token_count("input", 12)
    12
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ArgumentError(name, value, "a whole number from 0")
    return value


def capabilities(given: Any) -> frozenset[str]:
    """What a run may do.

    >>> sorted(capabilities(["pay:acme", "mail"]))
    ['mail', 'pay:acme']
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentError("capabilities", given, 'a collection of texts, e.g. {"pay:acme"}')
    found = frozenset(given)
    for each in found:
        if not isinstance(each, str) or not each:
            raise ArgumentError("a capability", each, "a text that is not empty")
    return found


def labels(given: Any) -> dict[str, str]:
    """A run's labels, copied.

    >>> labels({"team": "finance"}), labels(None)
    ({'team': 'finance'}, {})
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ArgumentError("labels", given, 'a mapping of texts, e.g. {"team": "finance"}')
    for key, value in given.items():
        if not isinstance(key, str):
            raise ArgumentError("a label's name", key, "a text")
        if not isinstance(value, str):
            raise ArgumentError(f"labels[{key!r}]", value, f"a text, e.g. {str(value)!r:.40}")
    return dict(given)
