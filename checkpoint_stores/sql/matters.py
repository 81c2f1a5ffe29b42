"""What is asked of the store by many at once, and can be answered for all of them together.

Questions only: who answers them, and how, is the desk's.  Knows no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from checkpoint_stores.protocol import Decides


class Asked(NamedTuple):
    """A decision to be judged; answered with (its record, whether it is new)."""

    key: bytes
    run_id: str
    barrier: str
    decision: Decides


class Taking(NamedTuple):
    """A run to be taken that nobody may hold; answered with its `Lease`."""

    key: bytes
    run_id: str
    details: Mapping[str, Any]


class Looking(NamedTuple):
    """An inbox to be read; answered with its `Inbox`."""

    key: bytes
    run_id: str


class AskingTime(NamedTuple):
    """Answered with the database's clock, microseconds."""


Matter: TypeAlias = Asked | Taking | Looking | AskingTime
