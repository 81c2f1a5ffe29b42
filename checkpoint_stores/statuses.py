"""The life of a run as a table: which status what leads to.

Data, and one question about it.  Whoever changes a run's status asks here
first; the reference page and its picture are made from the same table.  Knows
no run, no store and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from checkpoint_stores.errors import IllegalTransitionError
from checkpoint_stores.records import RunStatus

RunEvent: TypeAlias = Literal[
    "take", "park", "drain", "give_back", "release",
    "suspend", "reach_limit", "quarantine", "complete", "fail", "cancel",
]  # fmt: skip
"""What can happen to a run as a whole."""

LEADS_TO: Final[Mapping[RunEvent, RunStatus]] = MappingProxyType(
    {
        "take": "running",
        "park": "waiting",
        "drain": "draining",
        "give_back": "ready",
        "release": "ready",
        "suspend": "suspended",
        "reach_limit": "limit_reached",
        "quarantine": "quarantined",
        "complete": "completed",
        "fail": "failed",
        "cancel": "cancelled",
    }
)
"""The status after each event: always the same one."""

_DRIVING: Final[tuple[RunEvent, ...]] = (
    "take", "park", "drain", "give_back", "suspend", "reach_limit", "quarantine", "complete", "fail", "cancel"
)  # fmt: skip

EVENTS_IN: Final[Mapping[RunStatus, tuple[RunEvent, ...]]] = MappingProxyType(
    {
        "created": ("take",),
        "ready": ("take",),
        "running": _DRIVING,
        "waiting": ("take",),
        "draining": _DRIVING,
        "suspended": ("take", "release"),
        "limit_reached": ("take",),
        "quarantined": ("take", "release"),
        "completed": (),
        "failed": (),
        "cancelled": (),
    }
)
"""What can happen in each status.  Nothing but a process that has taken a run changes it: so all else begins with ``take``."""

EVENT_FOR: Final[Mapping[str, RunEvent]] = MappingProxyType({status: event for event, status in LEADS_TO.items() if event != "release"})
"""Which event of a run that is driven leads to a status."""


def after(status: RunStatus, event: RunEvent, run_id: str = "") -> RunStatus:
    """The status a run has after an event; ``run_id`` is for the error's words.  Raises IllegalTransitionError.

    >>> after("created", "take"), after("running", "park")
    ('running', 'waiting')
    >>> after("waiting", "park")
    Traceback (most recent call last):
    ...
    checkpoint_stores.errors.IllegalTransitionError: 'park' cannot happen to a run in status waiting; what can happen is: take
    """
    if event not in EVENTS_IN[status]:
        raise IllegalTransitionError(status, event, EVENTS_IN[status], run_id)
    return LEADS_TO[event]
