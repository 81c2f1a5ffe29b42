"""What a commit makes of the run as a whole: it ends, stops, parks or is given back, or it goes on.

A pure function over the walk; who wants this process to leave, and whether there is news to be read first, come in as values.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal, NamedTuple

from checkpoint_stores.records import RunChange, RunStatus
from checkpoint_stores.statuses import EVENT_FOR, RunEvent, after
from engine.waiting import due_times, is_soon
from engine.walk import Walk

SHORT_WAIT: Final = timedelta(seconds=5)
"""A retry that is due sooner is waited for in this process; a later one parks the run."""

_SHORT_WAIT: Final = SHORT_WAIT // timedelta(microseconds=1)


class Leaving(NamedTuple):
    """How a run is let go that could go on."""

    event: Literal["suspend", "give_back"]
    reason: str = ""
    at_once: bool = False
    """Whether what is in flight is given up."""


def conclusion(walk: Walk, status: RunStatus, now: int, *, leaving: Leaving | None, has_news: bool, inbox_rev: int) -> RunChange | None:
    """What the commit of a run with nothing in flight changes about it; None where it goes on here.

    Args:
        status: as it was committed last.
        leaving: what this process was asked to do with a run that could go on; None: to go on.
        has_news: whether something has happened that the walk does not know yet.
        inbox_rev: the revision of the inbox that has been read: the run parks only if there is no later one.
    """
    state = walk.state

    def becomes(event: RunEvent) -> RunStatus:
        return after(status, event, state.run_id)

    if walk.stopped:
        failed = state.root.detail if state.status == "failed" else None
        return RunChange(status=becomes(EVENT_FOR[state.status]), clear_wake_at=True, error=failed, release=True)
    at_rest = state.at_rest()
    if leaving is not None and not at_rest:
        return RunChange(status=becomes("give_back"), wake_at=now, release=True)
    if has_news or not at_rest or (leaving is None and is_soon(state, now + _SHORT_WAIT)):
        return None
    due = due_times(state)
    if leaving is None and due and min(due) <= now:
        return None  # it is due now (the run was parked when its time came): the timer is about to ring
    return RunChange(
        status=becomes("park"), wake_at=min(due) if due else None, clear_wake_at=not due, release=True, release_at_rev=inbox_rev
    )
