"""Values and times as text for a terminal.  Pure.

What stands in a run was written by nodes and by whoever fed them: it may hold escape sequences that would hide or
forge what a person reads before a decision.  So no control character reaches the terminal as it is.
"""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, tzinfo
from typing import Any

from engine.decisions import moment

_KEPT = "\n\t"


def printable(text: str) -> str:
    r"""``text`` with every control and direction-changing character shown as its escape.

    >>> print(printable("pay \x1b[2K900"))
    pay \x1b[2K900
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else _escape(character) for character in text)


def _is_harmless(character: str) -> bool:
    # Cc: controls; Cf: directions, joiners, invisible tags; Cs: halves of pairs; Zl, Zp: line breaks of a kind.
    return character in _KEPT or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    r"""``text`` in one line.

    >>> one_line("flow 'x' has 1 problem:\n  - no entry")
    "flow 'x' has 1 problem: no entry"
    """
    first, *others = [line.strip().removeprefix("- ") for line in printable(text).replace("\t", " ").split("\n") if line.strip()] or [""]
    joined = first
    for line in others:
        joined += (" " if joined.endswith((":", ";", ",")) else "; ") + line
    return joined


def data(value: Any) -> Any:
    """A value as JSON can show it; see `checkpoint_stores.codec.to_json`, which is imported when it is needed."""
    from checkpoint_stores.codec import to_json

    return to_json(value)


def value_text(value: Any) -> str:
    """A value as JSON in one line, readable.

    >>> value_text({"vendor": "ACME", "amount": 9000.0})
    '{"vendor": "ACME", "amount": 9000.0}'
    >>> value_text([float("nan"), -float("inf")])
    '[NaN, -Infinity]'
    """
    from checkpoint_stores.codec import to_json

    return printable(json.dumps(to_json(value, not_finite=float), ensure_ascii=False))


def shortened(text: str, limit: int) -> str:
    """``text``, or its beginning and how much is left out.

    >>> shortened("abcdefgh", 5)
    'abcde … (3 more characters)'
    """
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit} more characters)"


def iso(microseconds: int | None) -> str | None:
    """A store's time for JSON: ISO 8601, UTC; None where there is none.

    >>> iso(1_700_000_000_000_001), iso(10**18)
    ('2023-11-14T22:13:20.000001Z', '9999-12-31T00:00:00.000000Z')
    """
    if not microseconds:
        return None
    return _moment(microseconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def local(microseconds: int | None, zone: tzinfo | None = None) -> str:
    """A store's time for people, in their zone (``zone`` is for tests; None is this machine's).

    >>> local(1_700_000_000_000_000, UTC)
    '2023-11-14 22:13:20'
    """
    return _moment(microseconds, zone).strftime("%Y-%m-%d %H:%M:%S") if microseconds else ""


def _moment(microseconds: int, zone: tzinfo | None) -> datetime:
    return moment(microseconds).astimezone(zone)


def span(microseconds: int) -> str:
    """How long something took.

    >>> span(850), span(12_345), span(3_210_000), span(3_725_000_000)
    ('0.85 ms', '12 ms', '3.2 s', '1 h 02 min')
    """
    seconds = microseconds / 1_000_000
    if seconds < 0.001:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
