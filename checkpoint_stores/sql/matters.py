"""What is asked of the store by many at once, and can be answered for all of them together.

Questions only: who answers them, and how, is the desk's.  Knows no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from checkpoint_stores.protocol import Decides
from checkpoint_stores.records import EffectRecord


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


class Finding(NamedTuple):
    """A run to be found by its whole id; answered with its line, as `statements.RUN_BY_ID` asks for it, where there is one."""

    key: bytes


class Surveying(NamedTuple):
    """How a run stands; answered with what `statements.standing` asks for, where it is little and there is such a run."""

    key: bytes


class AskingTime(NamedTuple):
    """Answered with the database's clock, microseconds."""


class Starting(NamedTuple):
    """A side effect that is about to be carried out, for the first time; answered with its record."""

    key: tuple[bytes, str]
    """Of its run, and its own."""
    line: Any
    """The `EffectLine` of ``record``."""
    record: EffectRecord

    def at(self, time: int) -> EffectRecord:
        """The record as it is written at ``time``."""
        return replace(self.record, started_at=time)


class Ending(NamedTuple):
    """What became of a side effect; answered with its record."""

    key: tuple[bytes, str]
    """Of its run, and its own."""
    line: Any
    """The `EffectLine` of ``record``."""
    record: EffectRecord
    epoch: int
    """The lease under which it is written, which may not be the one that it was started under."""
    held: bytes
    """What its line says of it until then; where it says something else, more has happened to it than that it was started."""

    def at(self, time: int) -> EffectRecord:
        """The record as it is written at ``time``."""
        return replace(self.record, ended_at=time)


OnlyRead: TypeAlias = Looking | Finding | Surveying | AskingTime
Matter: TypeAlias = Asked | Taking | Starting | Ending | OnlyRead
