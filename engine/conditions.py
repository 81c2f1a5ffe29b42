"""The conditions every flow with people in it needs: what did the barrier's decision say?"""

from __future__ import annotations

from typing import Any


def approved(state: object, outcome: Any) -> bool:
    """True where the barrier before this edge let the run pass (approve, or modify with approve).

    >>> from trailmark import Decision
    >>> approved({}, Decision.approve(by="ana")), approved({}, Decision.reject(by="ana"))
    (True, False)
    """
    return bool(outcome.approves)


def rejected(state: object, outcome: Any) -> bool:
    """True where the barrier before this edge was rejected.

    >>> from trailmark import Decision
    >>> rejected({}, Decision.approve(by="ana")), rejected({}, Decision.reject(by="ana"))
    (False, True)
    """
    return bool(outcome.action == "reject")


ASK_A_DECISION = frozenset({approved, rejected})
"""Conditions that make sense only on an edge that leaves a barrier."""
