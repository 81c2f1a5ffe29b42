"""What a run waits for that no person decides: retries, timers, signals, deadlines.  Pure: reads a state, knows no clock."""

from __future__ import annotations

from checkpoint_stores.fold import DONE, FAILED, PARKED, RETRY, WAIT, RunState
from engine.barriers import next_nudge
from engine.result import PendingRetry, PendingWait
from engine.signals import TIMER


def retries(state: RunState) -> tuple[PendingRetry, ...]:
    """The nodes that failed and are to be tried again, the next one first."""
    found = []
    for scope in state.frontier():
        if scope.phase == RETRY:
            failed, due, error = scope.detail
            found.append(PendingRetry(scope.node, scope.path, failed, error, due))
    return tuple(sorted(found, key=lambda retry: retry.due_at))


def waits(state: RunState) -> tuple[PendingWait, ...]:
    """The nodes that wait for a signal or for a time, in declared order."""
    return tuple(PendingWait(scope.node, scope.path, scope.detail[1], scope.detail[2]) for scope in state.frontier() if scope.phase == WAIT)


def is_soon(state: RunState, soon: int) -> bool:
    """Whether a retry or a timer rings until ``soon``: so short a time is waited for in the process."""
    for scope in state.frontier():
        if scope.phase == RETRY and scope.detail[1] <= soon:
            return True
        if scope.phase == WAIT and scope.detail[0] == TIMER and scope.detail[2] <= soon:
            return True
    return False


def due_times(state: RunState) -> list[int]:
    """When time alone moves a run that is at rest (microseconds): branches that must be over, retries, timers, deadlines, reminders."""
    due = [scope.due for scope in state.scopes.values() if scope.due is not None and scope.phase not in (DONE, FAILED)]
    for scope in state.frontier():
        if scope.phase == RETRY:
            due.append(scope.detail[1])
        elif scope.phase == WAIT and scope.detail[2] is not None:
            due.append(scope.detail[2])
        elif scope.phase == PARKED:
            details = scope.detail[1]
            due += [at for at in (details["deadline"], next_nudge(details)) if at is not None]
    return due
