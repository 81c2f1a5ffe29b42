"""What people hand to commands, read: inputs, edits, labels.  Pure but for reading the file or stdin that was named."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from reducers.errors import TrailmarkError


class UsageError(TrailmarkError):
    """The command line asks for something that makes no sense; nothing happened."""

    def __init__(self, message: str, *, then: str = "") -> None:
        self.then = then
        """The command to type next; "" where none would help."""
        super().__init__(message)


def input_of(given: str | None) -> Any:
    """The input of a run: JSON text, the path of a JSON file, or ``-`` for stdin; None is an empty input.

    >>> input_of('{"amount": 3}')
    {'amount': 3}

    Raises UsageError.
    """
    if given is None:
        return {}
    if given == "-":
        text, name = sys.stdin.read(), "stdin"
    elif given.lstrip().startswith(("{", "[", '"')):
        text, name = given, "--input"
    else:
        name = given
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UsageError(f"--input {given}: {reason} (give JSON, the path of a JSON file, or - for stdin)") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} holds no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{name} holds a JSON {type(value).__name__}; the input of a run is an object of state keys")
    return value


def assignments(given: Sequence[str], option: str) -> dict[str, Any]:
    """Values by key from ``key=json`` words; what is no JSON is taken as text.

    >>> assignments(["amount=10", "vendor=ACME", 'tags=["a"]', 'note="7"'], "--set")
    {'amount': 10, 'vendor': 'ACME', 'tags': ['a'], 'note': '7'}

    Raises UsageError.
    """
    values: dict[str, Any] = {}
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {word}: write {option} key=value, the value as JSON")
        values[key] = value_of(text, f"{option} {key}")
    return values


def value_of(text: str, option: str = "the payload") -> Any:
    """A value from JSON text; what is no JSON is taken as text.

    >>> value_of("7"), value_of("seven"), value_of('"7"')
    (7, 'seven', '7')

    Raises UsageError.
    """
    try:
        return json.loads(text)
    except ValueError:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise UsageError(f"{option}: the value is no JSON") from None
        return text


def time_of(given: str, option: str) -> timedelta:
    """A length of time.

    >>> time_of("30d", "--older-than"), time_of("90m", "--older-than")
    (datetime.timedelta(days=30), datetime.timedelta(seconds=5400))

    Raises UsageError.
    """
    span = _span(given)
    if span is None:
        raise UsageError(f"{option} {given}: write a number and s, m, h, d or w, for example 30d")
    return span


def _span(text: str) -> timedelta | None:
    """``90m``, ``12h``, ``3d``; None where it is no span, or too long for one."""
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not (number.isascii() and number.isdigit()):
        return None
    try:
        return int(number) * unit
    except (ValueError, OverflowError):
        return None


def until_of(text: str) -> datetime | timedelta:
    """A span (``90m``, ``12h``, ``3d``, ``2w``) or a moment in this machine's time zone (``2030-05-24``: to its end; ``2030-05-24T18:00``).

    >>> until_of("3d"), until_of("90m")
    (datetime.timedelta(days=3), datetime.timedelta(seconds=5400))

    Raises UsageError.
    """
    span = _span(text)
    if span is not None:
        return span
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == len("2030-05-24"):
            moment += timedelta(days=1)
        return moment.astimezone() if moment.tzinfo is None else moment
    except (ValueError, OverflowError):
        raise UsageError(f"--until {text}: write a span (90m, 12h, 3d, 2w), a day (2030-05-24) or a time (2030-05-24T18:00)") from None


_UNITS: Final = {
    "s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1),
}  # fmt: skip


def labels_of(given: Sequence[str]) -> dict[str, str]:
    """Labels from ``key=value`` words.

    >>> labels_of(["team=billing"])
    {'team': 'billing'}

    Raises UsageError.
    """
    labels = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--label {word}: write --label key=value")
        labels[key] = value
    return labels
