"""Secrets out of error texts: what an event may say of a failure.

It knows a few shapes that secrets have (a password in a URL, ``token=...``, a
bearer header, keys with a known prefix) and hides those.  It cannot know a
secret that looks like a word: whoever raises an error decides what it says.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

_SHAPES: Final = (
    # scheme://user:password@host
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@/]+@"), rf"\1:{HIDDEN}@"),
    # Authorization: Bearer ...
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # password=..., "api_key": "...", ?token=...
    (
        re.compile(
            r"""(?ix) \b ( [a-z0-9_-]* (?: password | passwd | pwd | secret | token | api[_-]?key | access[_-]?key | credential s? ) )
            ( ["']? \s* [=:] \s* ) ( "[^"]*" | '[^']*' | [^\s,;&"'}\])]+ )"""
        ),
        rf"\1\2{HIDDEN}",
    ),
    # keys that name themselves
    (re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abprs])[-_][A-Za-z0-9_-]{10,}"), HIDDEN),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
)


def masked(text: str) -> str:
    """``text`` without what looks like a secret.

    >>> masked("cannot connect to postgresql://ana:hunter2@db/x?token=abc123")
    'cannot connect to postgresql://ana:***@db/x?token=***'
    """
    for shape, shown in _SHAPES:
        text = shape.sub(shown, text)
    return text
