"""What a node may return: an update, and words about where to go.

A plain mapping is an `Update`; None is an empty one.  These are values, never
exceptions; the walk decides what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


class _Delete:
    __slots__ = ()

    def __repr__(self) -> str:
        return "DELETE"


DELETE: Final = _Delete()
"""In an update: the key shall hold nothing any more (not None: nothing)."""


class BodyHeld(BaseException):
    """Raised by ``ctx.wait_for`` where the signal has not come yet.  Not to be caught by a node."""

    def __init__(self, event: str, timeout: int | None) -> None:
        self.event = event
        self.timeout = timeout
        """Microseconds."""
        super().__init__(f"waits for the signal {event!r}")


@dataclass(frozen=True, slots=True)
class Update:
    """New values by key, merged by each key's reducer.

    >>> Update({"notes": ["read"]}).values
    {'notes': ['read']}
    """

    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goto:
    """Go to ``target`` next.  An edge to it must be declared; a conditional edge's condition must hold unless ``force``.

    >>> Goto("review", {"notes": ["look at it"]}).target
    'review'
    """

    target: str
    update: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False


@dataclass(frozen=True, slots=True)
class Fallback:
    """Give up politely: take the fallback edge, with ``reason`` as the error it can read; ``update`` is merged all the same.

    >>> Fallback("the bank is closed").reason
    'the bank is closed'
    """

    reason: str
    update: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """End this flow (in a branch: this branch; in a map: this item) here, although edges lead on.

    >>> End({"notes": ["nothing to do"]}).update
    {'notes': ['nothing to do']}
    """

    update: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Break(End):
    """In the flow of a map's item: end the item as `End` does, and the map with it.

    Items that have not begun never begin, those under way are given up (bodies cancelled, tickets withdrawn); the results of the
    items that are over stay, in the order of the items.

    >>> Break({"result": 7}).update
    {'result': 7}
    """
