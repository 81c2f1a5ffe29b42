"""What a run waits for that no person brings: retries and deadlines.  Pure: reads a state, knows no clock."""

from __future__ import annotations

from checkpoint_stores.fold import DONE, FAILED, PARKED, RETRY, RunState
from engine.result import PendingRetry


def retries(state: RunState) -> tuple[PendingRetry, ...]:
    """The nodes that failed and are to be tried again, the next one first."""
    found = []
    for scope in state.frontier():
        if scope.phase == RETRY:
            failed, due, error = scope.detail
            found.append(PendingRetry(scope.node, scope.path, failed, error, due))
    return tuple(sorted(found, key=lambda retry: retry.due_at))


def due_times(state: RunState) -> list[int]:
    """When time alone moves a run that is at rest (microseconds): branches that must be over, retries, deadlines of barriers."""
    due = [scope.due for scope in state.scopes.values() if scope.due is not None and scope.phase not in (DONE, FAILED)]
    due += [scope.detail[1] for scope in state.frontier() if scope.phase == RETRY]
    deadlines = (scope.detail[1]["deadline"] for scope in state.frontier() if scope.phase == PARKED)
    return due + [deadline for deadline in deadlines if deadline is not None]
