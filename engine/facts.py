"""What a run that is driven here can tell: a committed row, or something that is ahead of its row.

A body began, said something, was cancelled; the run is no longer driven.  Plain data: `engine.live` hands facts on, `engine.queues` keeps
them for a slow consumer, `engine.narrating` makes events of them.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from checkpoint_stores.records import Row
from engine.speech import Entry


class Began(NamedTuple):
    """A node's body began."""

    path: str
    node: str
    step_index: int
    began_at: int


class Said(NamedTuple):
    """A body said something."""

    path: str
    step_index: int
    ordinal: int
    """Which of the things this attempt said, from 0."""
    entry: Entry


class Stopped(NamedTuple):
    """A body was cancelled; no checkpoint will tell of it."""

    path: str
    at: int


class Closed(NamedTuple):
    """The run is no longer driven here."""

    parked: bool
    error: BaseException | None
    at: int


Fact: TypeAlias = Row | Began | Said | Stopped | Closed
